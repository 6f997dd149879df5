//! Which PMD thread polls which receive queue: `pmd-rxq-assign`, `pmd-rxq-affinity` and `pmd-rxq-isolate`.
//!
//! A pure function from queues and cores to places, and the lines that operators read about it in the log. It runs when
//! configuration changes, on the main thread. Cost: O(queues x cores).
//!
//! Pinned queues go first; they take their core away from the others if cores are isolated. The others go to
//! cores of their device's NUMA node, or round the other nodes in turn if that has none to give.

use std::collections::BTreeMap;

use ib_base::vlog::Level;
use ib_flow::OdpPort;

use super::numa::Core;

/// How queues that are not pinned are shared out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Assign {
    /// In turn, by port and queue.
    RoundRobin,
    /// Up and down the cores, the busiest queue first.
    #[default]
    Cycles,
    /// To the least busy core, the busiest queue first.
    Group,
}

impl Assign {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Assign::RoundRobin => "roundrobin",
            Assign::Cycles => "cycles",
            Assign::Group => "group",
        }
    }
}

/// A queue to place.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Port.
    pub port: OdpPort,
    /// Device.
    pub name: String,
    /// Queue of the device.
    pub qid: usize,
    /// The device's NUMA node.
    pub numa_id: u32,
    /// Time that its packets took lately.
    pub cycles: u64,
    /// Core that it is pinned to.
    pub pinned: Option<u32>,
}

/// The outcome.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Core of each queue, in the order given; `None`: nobody polls it.
    pub cores: Vec<Option<u32>>,
    /// Cores that pinned queues have for themselves.
    pub isolated: Vec<u32>,
    /// What to say in the log.
    pub log: Vec<(Level, String)>,
}

#[derive(Debug, Clone)]
struct Place {
    core: Core,
    cycles: u64,
    queues: usize,
    isolated: bool,
}

/// One NUMA node's cores and where the next queue goes.
struct Node {
    places: Vec<Place>,
    /// Position and direction of the walk up and down.
    next: usize,
    up: bool,
}

impl Node {
    fn has_room(&self) -> bool {
        self.places.iter().any(|p| !p.isolated)
    }

    /// The place for the next queue; there is one that is not isolated.
    fn choose(&mut self, assign: Assign) -> usize {
        if assign == Assign::Group {
            let free = (0..self.places.len()).filter(|i| !self.places[*i].isolated);
            return free.min_by_key(|i| (self.places[*i].cycles, self.places[*i].queues)).unwrap_or(0);
        }
        loop {
            let at = self.next;
            let last = self.places.len() - 1;
            match assign {
                Assign::RoundRobin => self.next = if at == last { 0 } else { at + 1 },
                // Each end is visited twice, so that the cores' turns even out.
                _ if self.up && at == last => self.up = false,
                _ if self.up => self.next += 1,
                _ if at == 0 => self.up = true,
                _ => self.next -= 1,
            }
            if !self.places[at].isolated {
                return at;
            }
        }
    }
}

/// Shares out `queues`, which come by port and queue, among `cores`.
pub fn schedule(queues: &[Queue], cores: &[Core], assign: Assign, isolate: bool) -> Schedule {
    let mut out = Schedule { cores: vec![None; queues.len()], ..Schedule::default() };
    let mut nodes: BTreeMap<u32, Node> = BTreeMap::new();
    for core in cores {
        let node =
            nodes.entry(core.numa_id).or_insert_with(|| Node { places: Vec::new(), next: 0, up: true });
        node.places.push(Place { core: *core, cycles: 0, queues: 0, isolated: false });
    }
    let measured = |q: &Queue| {
        if assign == Assign::RoundRobin {
            String::new()
        } else {
            format!(" (measured processing cycles {})", q.cycles)
        }
    };
    let mut rest = Vec::new();
    for (i, q) in queues.iter().enumerate() {
        let Some(wanted) = q.pinned else {
            rest.push(i);
            continue;
        };
        let place = nodes.values_mut().flat_map(|n| &mut n.places).find(|p| p.core.core_id == wanted);
        let Some(place) = place else {
            out.log.push((
                Level::Warn,
                format!(
                    "Core {wanted:2} cannot be pinned with port '{}' rx queue {}. Use pmd-cpu-mask to enable a pmd on \
                     core {wanted}. An alternative core will be assigned.",
                    q.name, q.qid
                ),
            ));
            rest.push(i);
            continue;
        };
        place.isolated = isolate;
        place.cycles += q.cycles;
        place.queues += 1;
        out.cores[i] = Some(wanted);
        let (numa, name, qid) = (place.core.numa_id, &q.name, q.qid);
        let text = format!(
            "Core {wanted:2} on numa node {numa} is pinned with port '{name}' rx queue {qid}{}",
            measured(q)
        );
        out.log.push((Level::Info, text));
    }
    if assign != Assign::RoundRobin {
        rest.sort_by_key(|i| std::cmp::Reverse(queues[*i].cycles));
    }
    if !rest.is_empty() {
        let text = format!("Performing pmd to rx queue assignment using {} algorithm.", assign.name());
        out.log.push((Level::Info, text));
    }
    let order: Vec<u32> = nodes.keys().copied().collect();
    let mut across = 0;
    for i in rest {
        let q = &queues[i];
        let own = nodes.get(&q.numa_id).is_some_and(Node::has_room);
        let numa = if own {
            Some(q.numa_id)
        } else {
            let turn = (0..order.len()).map(|k| (across + k) % order.len());
            let found = turn.into_iter().find(|k| nodes[&order[*k]].has_room());
            found.map(|k| {
                across = k + 1;
                order[k]
            })
        };
        let Some(node) = numa.and_then(|n| nodes.get_mut(&n)) else {
            out.log.push((
                Level::Warn,
                format!(
                    "No non-isolated pmd on any numa available for port '{}' rx queue {}{}. This rx queue will not be polled.",
                    q.name,
                    q.qid,
                    measured(q)
                ),
            ));
            continue;
        };
        let at = node.choose(assign);
        let place = &mut node.places[at];
        if !own {
            out.log.push((
                Level::Info,
                format!(
                    "There's no available (non-isolated) pmd thread on numa node {}. Port '{}' rx queue {} will be \
                     assigned to a pmd on numa node {}. This may lead to reduced performance.",
                    q.numa_id, q.name, q.qid, place.core.numa_id
                ),
            ));
        }
        place.cycles += q.cycles;
        place.queues += 1;
        out.cores[i] = Some(place.core.core_id);
        let (core, numa, name, qid) = (place.core.core_id, place.core.numa_id, &q.name, q.qid);
        let text = format!(
            "Core {core:2} on numa node {numa} assigned port '{name}' rx queue {qid}{}.",
            measured(q)
        );
        out.log.push((Level::Info, text));
    }
    let places = nodes.values().flat_map(|n| &n.places);
    out.isolated = places.filter(|p| p.isolated).map(|p| p.core.core_id).collect();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmd::numa::Topology;

    fn queues(n: usize, numa_id: u32, pins: &[(usize, u32)]) -> Vec<Queue> {
        (0..n)
            .map(|qid| Queue {
                port: OdpPort(1),
                name: "p0".into(),
                qid,
                numa_id,
                cycles: 0,
                pinned: pins.iter().find(|(q, _)| *q == qid).map(|(_, c)| *c),
            })
            .collect()
    }
    fn places(s: &Schedule) -> Vec<i64> {
        s.cores.iter().map(|c| c.map_or(-1, i64::from)).collect()
    }

    #[test]
    fn each_way_of_sharing_out() {
        let cores = Topology::flat(2).in_mask("3");
        let run = |assign| places(&schedule(&queues(8, 0, &[]), &cores, assign, true));
        assert_eq!(run(Assign::Cycles), [0, 1, 1, 0, 0, 1, 1, 0]);
        assert_eq!(run(Assign::RoundRobin), [0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(run(Assign::Group), [0, 1, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn busy_queues_are_spread() {
        let cores = Topology::flat(2).in_mask("3");
        let mut q = queues(4, 0, &[]);
        for (i, cycles) in [10, 100, 20, 80].into_iter().enumerate() {
            q[i].cycles = cycles;
        }
        assert_eq!(places(&schedule(&q, &cores, Assign::Group, true)), [0, 0, 1, 1]);
        assert_eq!(places(&schedule(&q, &cores, Assign::Cycles, true)), [0, 0, 1, 1]);
    }

    #[test]
    fn pinned_queues_isolate_their_cores_unless_told_otherwise() {
        let cores = Topology::flat(2).in_mask("3");
        let pins = [(0, 1), (3, 1), (7, 0)];
        let s = schedule(&queues(8, 0, &pins), &cores, Assign::Cycles, true);
        assert_eq!(places(&s), [1, -1, -1, 1, -1, -1, -1, 0]);
        assert_eq!(s.isolated, [0, 1]);
        assert_eq!(
            s.log[0].1,
            "Core  1 on numa node 0 is pinned with port 'p0' rx queue 0 (measured processing cycles 0)"
        );
        let s = schedule(&queues(8, 0, &pins), &cores, Assign::Group, false);
        assert_eq!(places(&s), [1, 0, 0, 1, 1, 0, 1, 0]);
        assert!(s.isolated.is_empty());
    }

    #[test]
    fn other_nodes_help_out_in_turn() {
        let cores = Topology::dummy("0,0,0,1").in_mask("f");
        let s = schedule(&queues(4, 5, &[(0, 2), (1, 9)]), &cores, Assign::RoundRobin, true);
        assert_eq!(places(&s), [2, 0, 3, 1]);
        assert_eq!(s.log[1].0, Level::Warn);
        assert_eq!(s.log.last().unwrap().1, "Core  1 on numa node 0 assigned port 'p0' rx queue 3.");
    }

    #[test]
    fn without_cores_nothing_is_polled() {
        let s = schedule(&queues(1, 0, &[]), &[], Assign::Cycles, true);
        assert_eq!(places(&s), [-1]);
        assert!(s.log[1].1.ends_with("This rx queue will not be polled."));
    }
}
