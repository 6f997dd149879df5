//! Which processor cores there are, and on which NUMA nodes: what PMD threads may be placed on.
//!
//! Read once, from `/sys/devices/system/node`, or made up from `--dummy-numa`. The order of the cores of a node is the one in
//! which the system lists them; the first one gets the node's thread where nobody says otherwise.

use std::collections::BTreeMap;
use std::path::Path;

use ib_base::vlog::module::OVS_NUMA;
use ib_base::{vlog_info, vlog_warn};

/// Highest number of a NUMA node that a made-up topology may name.
const MAX_NODE: u32 = 128;

/// A core and its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Core {
    /// NUMA node.
    pub numa_id: u32,
    /// Core.
    pub core_id: u32,
}

/// All cores, those of a node in the order of discovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology(Vec<Core>);

impl Topology {
    /// One node with this many cores.
    pub fn flat(cores: u32) -> Topology {
        Topology((0..cores.max(1)).map(|core_id| Core { numa_id: 0, core_id }).collect())
    }

    /// The node of each core in turn, as `--dummy-numa` has them: `0,0,0,1,1`. A word that is no number ends the list.
    pub fn dummy(list: &str) -> Topology {
        let mut cores = Vec::new();
        for (core_id, word) in (0..).zip(list.split(',')) {
            let Ok(numa_id) = word.trim().parse::<i64>() else { break };
            match u32::try_from(numa_id).ok().filter(|n| *n <= MAX_NODE) {
                Some(numa_id) => cores.push(Core { numa_id, core_id }),
                None => vlog_warn!(OVS_NUMA, "Invalid numa node {numa_id}"),
            }
        }
        Topology(cores)
    }

    /// What the system says; one node with every core where it says nothing.
    pub fn discover() -> Topology {
        let found = Topology::read(Path::new("/sys/devices/system/node"));
        if found.0.is_empty() {
            let n = std::thread::available_parallelism().map_or(1, usize::from);
            return Topology::flat(u32::try_from(n).unwrap_or(1));
        }
        found
    }

    fn read(dir: &Path) -> Topology {
        let numbered = |dir: &Path, prefix: &str| -> Vec<u32> {
            let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
            let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
            names.filter_map(|n| n.strip_prefix(prefix)?.parse().ok()).collect()
        };
        let mut nodes = numbered(dir, "node");
        nodes.sort_unstable();
        let cores_of = |numa_id: u32| {
            let cores = numbered(&dir.join(format!("node{numa_id}")), "cpu");
            cores.into_iter().map(move |core_id| Core { numa_id, core_id })
        };
        Topology(nodes.into_iter().flat_map(cores_of).collect())
    }

    /// Says in the log what there is, as Open vSwitch does when it starts.
    pub fn log(&self) {
        let mut nodes: BTreeMap<u32, usize> = BTreeMap::new();
        self.0.iter().for_each(|c| *nodes.entry(c.numa_id).or_default() += 1);
        for (node, n) in &nodes {
            vlog_info!(OVS_NUMA, "Discovered {n} CPU cores on NUMA node {node}");
        }
        vlog_info!(OVS_NUMA, "Discovered {} NUMA nodes and {} CPU cores", nodes.len(), self.0.len());
    }

    /// The first core of each node, by core.
    pub fn one_per_node(&self) -> Vec<Core> {
        let mut first: BTreeMap<u32, Core> = BTreeMap::new();
        for core in &self.0 {
            first.entry(core.numa_id).or_insert(*core);
        }
        by_core(first.into_values().collect())
    }

    /// The cores in a mask in hexadecimal digits, the lowest core last, by core. A digit that is none is reported and taken for 0.
    pub fn in_mask(&self, mask: &str) -> Vec<Core> {
        let digits = mask.trim_start_matches("0x").trim_start_matches("0X");
        let mut wanted = Vec::new();
        for (at, c) in (0_u32..).zip(digits.chars().rev()) {
            match c.to_digit(16) {
                Some(bits) => wanted.extend((0..4).filter(|b| bits >> b & 1 == 1).map(|b| at * 4 + b)),
                None => vlog_warn!(OVS_NUMA, "Invalid cpu mask: {c}"),
            }
        }
        by_core(self.0.iter().filter(|c| wanted.contains(&c.core_id)).copied().collect())
    }
}

fn by_core(mut cores: Vec<Core>) -> Vec<Core> {
    cores.sort_by_key(|c| c.core_id);
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(cores: &[Core]) -> Vec<(u32, u32)> {
        cores.iter().map(|c| (c.numa_id, c.core_id)).collect()
    }

    #[test]
    fn a_made_up_topology() {
        let t = Topology::dummy("0,0,0,1,1");
        assert_eq!(ids(&t.one_per_node()), [(0, 0), (1, 3)]);
        assert_eq!(ids(&t.in_mask("0x1e")), [(0, 1), (0, 2), (1, 3), (1, 4)]);
        assert_eq!(ids(&t.in_mask("f0")), [(1, 4)]);
        assert!(t.in_mask("zz").is_empty() && t.in_mask("0").is_empty());
        assert_eq!(Topology::dummy("0,x,1"), Topology::flat(1));
    }

    #[test]
    fn there_is_a_core_here() {
        assert!(!Topology::discover().one_per_node().is_empty());
    }
}
