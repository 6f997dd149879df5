//! The oracle: Open vSwitch and Ironbridge side by side, under the same commands.
//!
//! A [`World`] is one set of daemons and tools in a folder of its own, on dummy devices. [`script`] runs a file
//! of commands in both worlds and compares output and exit codes. [`random`] makes flow tables and packets from a
//! seed, compares what `ofproto/trace` says and what leaves by which port, and shrinks a difference to few flows. [`ovsdb`] does the like with
//! schemas, transactions and monitors, [`sessions`] with several clients at once: locks, waiting transactions, databases that come and go.

pub mod ovsdb;
pub mod random;
pub mod script;
pub mod sessions;
mod wire;
mod world;

pub use world::{Output, World, debian, ours};

/// Two outputs that should have been the same.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What was run.
    pub command: String,
    /// What Open vSwitch said.
    pub theirs: String,
    /// What Ironbridge said.
    pub ours: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        let (a, b): (Vec<&str>, Vec<&str>) = (self.theirs.lines().collect(), self.ours.lines().collect());
        for i in 0..a.len().max(b.len()) {
            match (a.get(i), b.get(i)) {
                (x, y) if x == y => writeln!(f, "  {}", x.unwrap_or(&""))?,
                (x, y) => {
                    if let Some(x) = x {
                        writeln!(f, "- {x}")?;
                    }
                    if let Some(y) = y {
                        writeln!(f, "+ {y}")?;
                    }
                }
            }
        }
        Ok(())
    }
}
