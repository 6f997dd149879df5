//! The recorder that `ofproto/trace` gives to a translation.
//!
//! A translation reports what it does; without a recorder a report costs one branch and its text is never
//! made. Reports form a tree: what happens within a bridge or a table is below it. The text's
//! indentation follows a rule of its own: the last child of its parent is not indented further if it is a
//! table or bridge, so that a chain of tables stays at the left margin.

use std::fmt::Write;
use std::sync::Arc;

use ib_flow::Flow;

use crate::recirc::RecircEntry;

/// What a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Entering a bridge.
    Bridge,
    /// Matching a rule in a table.
    Table,
    /// Resuming after recirculation.
    Thaw,
    /// A bucket of a group.
    Bucket,
    /// An action.
    Action,
    /// What came of it.
    Detail,
    /// Something suspicious.
    Warn,
    /// Something wrong.
    Error,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    text: String,
    children: Vec<usize>,
}

/// A pass through the datapath that the traced packet will make.
#[derive(Clone, Debug)]
pub struct Recirculation {
    /// Why.
    pub kind: RecircKind,
    /// State to resume.
    pub entry: Arc<RecircEntry>,
    /// The packet's key at that point.
    pub flow: Flow,
    /// Address translation of the conntrack action.
    pub nat: Option<ib_openflow::action::Nat>,
}

/// Why a packet recirculates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecircKind {
    /// Conntrack.
    Conntrack,
    /// MPLS header popped.
    Mpls,
    /// Hash.
    Bond,
    /// `controller(pause)`.
    Pause,
}

/// The tree of reports.
#[derive(Debug)]
pub struct Trace {
    nodes: Vec<Node>,
    current: usize,
    /// Print ports by name.
    pub names: bool,
    /// Passes to trace next.
    pub recirculations: Vec<Recirculation>,
}

impl Default for Trace {
    fn default() -> Self {
        Trace::new()
    }
}

impl Trace {
    /// An empty tree.
    pub fn new() -> Trace {
        let root = Node { kind: Kind::Bridge, text: String::new(), children: Vec::new() };
        Trace { nodes: vec![root], current: 0, names: false, recirculations: Vec::new() }
    }
    /// Adds a report below the current one.
    pub fn report(&mut self, kind: Kind, text: String) -> usize {
        let id = self.nodes.len();
        self.nodes.push(Node { kind, text, children: Vec::new() });
        self.nodes[self.current].children.push(id);
        id
    }
    /// Adds a report and makes it the current one; returns the one before.
    pub fn enter(&mut self, kind: Kind, text: String) -> usize {
        let id = self.report(kind, text);
        std::mem::replace(&mut self.current, id)
    }
    /// Makes a report current again that [`Self::enter`] returned.
    pub fn leave(&mut self, before: usize) {
        self.current = before;
    }
    /// The text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_below(0, 0, &mut out);
        out
    }

    fn render_below(&self, node: usize, level: usize, out: &mut String) {
        let children = &self.nodes[node].children;
        for (i, child) in children.iter().enumerate() {
            let n = &self.nodes[*child];
            let nests = matches!(n.kind, Kind::Bridge | Kind::Table | Kind::Thaw);
            let more = usize::from(i + 1 != children.len() || !nests);
            let indent = (level + more) * 4;
            let text = &n.text;
            let _ = match n.kind {
                Kind::Bridge => {
                    let line = "-".repeat(text.len());
                    writeln!(out, "\n{:indent$}{text}\n{:indent$}{line}", "", "")
                }
                Kind::Detail => writeln!(out, "{:indent$} -> {text}", ""),
                Kind::Warn => writeln!(out, "{:indent$} >> {text}", ""),
                Kind::Error => writeln!(out, "{:indent$} >>>> {text} <<<<", ""),
                Kind::Table | Kind::Thaw | Kind::Bucket | Kind::Action => {
                    writeln!(out, "{:indent$}{text}", "")
                }
            };
            self.render_below(*child, level + 2 * more, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_table_of_a_chain_is_not_indented() {
        let mut t = Trace::new();
        t.enter(Kind::Bridge, "bridge(\"br0\")".into());
        let bridge = t.enter(Kind::Table, " 0. in_port=4".into());
        t.report(Kind::Action, "resubmit(,1)".into());
        let table0 = t.enter(Kind::Table, " 1. ip".into());
        t.report(Kind::Action, "output:5".into());
        t.leave(table0);
        t.report(Kind::Action, "resubmit(,2)".into());
        let table0 = t.enter(Kind::Table, " 2. ip".into());
        t.report(Kind::Action, "NORMAL".into());
        t.report(Kind::Detail, "flooding".into());
        t.leave(table0);
        t.leave(bridge);
        assert_eq!(
            t.render(),
            "\nbridge(\"br0\")\n-------------\n 0. in_port=4\n    resubmit(,1)\n     1. ip\n            \
             output:5\n    resubmit(,2)\n 2. ip\n    NORMAL\n     -> flooding\n"
        );
    }
}
