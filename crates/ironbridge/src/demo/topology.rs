//! The drawing of what the demonstration builds.

/// One endpoint of the drawing.
#[derive(Clone, Debug)]
pub struct Node {
    /// First line: its name.
    pub name: String,
    /// Second line: its address.
    pub address: String,
    /// Third line: its VLAN.
    pub vlan: String,
    /// What is between it and the bridge.
    pub wire: String,
    /// The bridge that it is on, 0 for the left.
    pub bridge: usize,
}

/// Width of a node's box, frame included.
const BOX: usize = 20;
/// Between boxes.
const GAP: &str = "  ";

fn centred(text: &str, width: usize) -> String {
    let room = width.saturating_sub(text.chars().count());
    format!("{}{text}{}", " ".repeat(room / 2), " ".repeat(room - room / 2))
}

/// Draws nodes above their bridges, which a patch joins. Nodes of one bridge follow each other.
pub fn draw(nodes: &[Node], bridges: &[&str], patch: &str) -> String {
    let row = |f: &dyn Fn(&Node) -> String| nodes.iter().map(f).collect::<Vec<_>>().join(GAP);
    let inner = BOX - 2;
    let mut lines = vec![
        row(&|_| format!("┌{}┐", "─".repeat(inner))),
        row(&|n| format!("│{}│", centred(&n.name, inner))),
        row(&|n| format!("│{}│", centred(&n.address, inner))),
        row(&|n| format!("│{}│", centred(&n.vlan, inner))),
        row(&|_| format!("└{}┘", centred("┬", inner).replace(' ', "─"))),
        row(&|n| centred(&n.wire, BOX)),
    ];
    let mut parts = vec![Vec::new(); 3];
    for (i, name) in bridges.iter().enumerate() {
        let count = nodes.iter().filter(|n| n.bridge == i).count().max(1);
        let width = count * BOX + (count - 1) * GAP.len() - 2;
        let one = centred("┴", BOX).replace(' ', "─");
        let top: String = vec![one; count].join(&"─".repeat(GAP.len())).chars().skip(1).take(width).collect();
        parts[0].push(format!("┌{top}┐"));
        parts[1].push(format!("│{}│", centred(name, width)));
        parts[2].push(format!("└{}┘", "─".repeat(width)));
    }
    lines.push(parts[0].join(GAP));
    lines.push(parts[1].join("══"));
    lines.push(parts[2].join(GAP));
    lines.push(format!("{patch:>width$}", width = (nodes.len() * (BOX + GAP.len())).max(patch.len())));
    lines.iter().map(|l| format!("{}\n", l.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_stand_on_their_bridges() {
        let node = |name: &str, bridge| Node {
            name: name.into(),
            address: "10.0.0.1".into(),
            vlan: "VLAN 10".into(),
            wire: "veth".into(),
            bridge,
        };
        let text = draw(&[node("a", 0), node("b", 0), node("c", 1)], &["br0", "br1"], "patch p0-p1");
        let expect = "\
┌──────────────────┐  ┌──────────────────┐  ┌──────────────────┐
│        a         │  │        b         │  │        c         │
│     10.0.0.1     │  │     10.0.0.1     │  │     10.0.0.1     │
│     VLAN 10      │  │     VLAN 10      │  │     VLAN 10      │
└────────┬─────────┘  └────────┬─────────┘  └────────┬─────────┘
        veth                  veth                  veth
┌────────┴─────────────────────┴─────────┐  ┌────────┴─────────┐
│                  br0                   │══│       br1        │
└────────────────────────────────────────┘  └──────────────────┘
                                                       patch p0-p1
";
        assert_eq!(text, expect, "\n{text}");
    }
}
