//! Bridges joined by links that lose nothing.

use super::*;

const CONFIG: PortConfig =
    PortConfig { number: 0, priority: DEFAULT_PORT_PRIORITY, cost: 2000, admin_edge: false, auto_edge: true };

struct Net {
    bridges: Vec<Rstp>,
    /// Ends of links: bridge and key.
    links: Vec<[(usize, u16); 2]>,
    now: Instant,
}

impl Net {
    fn new(n: usize, links: &[[(usize, u16); 2]]) -> Net {
        let now = Instant::from_ms(1000);
        let mut bridges: Vec<Rstp> = (0..n)
            .map(|i| {
                let mac = Mac([0, 0, 0, 0, 0, u8::try_from(i).unwrap()]);
                let id = Config::id(DEFAULT_BRIDGE_PRIORITY, mac);
                Rstp::new(Config { bridge_id: id, ..Config::default() }, now)
            })
            .collect();
        for (bridge, key) in links.iter().flatten() {
            bridges[*bridge].set_port(*key, CONFIG, true);
        }
        Net { bridges, links: links.to_vec(), now }
    }

    fn deliver(&mut self) {
        for _ in 0..100 {
            let mut quiet = true;
            for i in 0..self.bridges.len() {
                for (key, frame) in self.bridges[i].take_frames() {
                    quiet = false;
                    for [a, b] in &self.links {
                        let to = if *a == (i, key) {
                            b
                        } else if *b == (i, key) {
                            a
                        } else {
                            continue;
                        };
                        self.bridges[to.0].receive(to.1, &frame);
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("bridges do not stop talking");
    }

    fn seconds(&mut self, n: u64) {
        for _ in 0..n {
            self.deliver();
            self.now = self.now.plus_ms(1000);
            for b in &mut self.bridges {
                b.run(self.now);
            }
        }
        self.deliver();
    }

    fn show(&self, bridge: usize) -> Vec<(u16, &'static str, &'static str)> {
        let b = &self.bridges[bridge];
        b.ports
            .keys()
            .map(|k| (*k, b.status(*k).unwrap()))
            .map(|(k, s)| (k, s.role.name(), s.state.name()))
            .collect()
    }
}

#[test]
fn a_lone_port_forwards_once_nobody_answers() {
    let mut net = Net::new(1, &[[(0, 1), (0, 1)]]);
    net.links.clear();
    net.seconds(2);
    assert_eq!(net.show(0), [(1, "Designated", "Discarding")]);
    net.seconds(1);
    assert_eq!(net.show(0), [(1, "Designated", "Forwarding")]);
}

#[test]
fn two_links_between_two_bridges_leave_one_open() {
    let mut net = Net::new(2, &[[(0, 1), (1, 1)], [(0, 2), (1, 2)]]);
    net.seconds(4);
    assert_eq!(net.show(0), [(1, "Designated", "Forwarding"), (2, "Designated", "Forwarding")]);
    assert_eq!(net.show(1), [(1, "Root", "Forwarding"), (2, "Alternate", "Discarding")]);
    assert_eq!(net.bridges[1].root_port(), Some(1));
    // The link breaks: the alternate port takes over at once.
    for b in &mut net.bridges {
        b.take_flush();
    }
    net.links.remove(0);
    net.bridges[0].set_link(1, false);
    net.bridges[1].set_link(1, false);
    net.deliver();
    assert_eq!(net.show(1), [(1, "Disabled", "Discarding"), (2, "Root", "Forwarding")]);
    assert_eq!(net.bridges[1].take_flush(), [1], "what was behind the dead link is forgotten");
}

#[test]
fn a_ring_has_one_closed_port() {
    let mut net = Net::new(4, &[[(0, 1), (1, 2)], [(1, 1), (2, 2)], [(2, 1), (3, 2)], [(3, 1), (0, 2)]]);
    net.seconds(10);
    let closed: Vec<(usize, u16)> = (0..4)
        .flat_map(|b| net.show(b).into_iter().filter(|p| p.2 != "Forwarding").map(move |p| (b, p.0)))
        .collect();
    assert_eq!(closed, [(2, 1)]);
    assert!(net.bridges[1..].iter().all(|b| b.root().root == net.bridges[0].config.bridge_id));
}

#[test]
fn information_grows_old_when_the_neighbour_falls_silent() {
    let mut net = Net::new(2, &[[(0, 1), (1, 1)]]);
    net.seconds(4);
    assert!(!net.bridges[1].is_root());
    net.links.clear();
    net.seconds(7);
    assert!(net.bridges[1].is_root());
}

#[test]
fn the_older_protocol_takes_both_delays() {
    let mut rstp = Rstp::new(Config { force_stp: true, ..Config::default() }, Instant::ZERO);
    rstp.set_port(1, CONFIG, true);
    let state = |rstp: &Rstp| rstp.status(1).unwrap().state;
    rstp.run(Instant::from_ms(19_000));
    assert_eq!(state(&rstp), State::Discarding);
    rstp.run(Instant::from_ms(20_000));
    assert_eq!(state(&rstp), State::Learning);
    rstp.run(Instant::from_ms(35_000));
    assert_eq!(state(&rstp), State::Forwarding);
    assert!(rstp.take_frames().iter().all(|(_, f)| f.len() == 35 && f[2] == 0));
}

#[test]
fn nonsense_is_counted_and_times_must_fit() {
    let mut rstp = Rstp::new(Config::default(), Instant::ZERO);
    rstp.set_port(7, CONFIG, true);
    for len in 0..40 {
        rstp.receive(7, &vec![0xff; len]);
    }
    rstp.receive(8, &[0, 0, 0, 0x80]);
    assert_eq!(rstp.status(7).unwrap().counters.errors, 40);
    rstp.configure(Config { max_age: 40, forward_delay: 4, ..Config::default() });
    assert_eq!((rstp.times().max_age, rstp.times().forward_delay), (20, 15));
    rstp.configure(Config { max_age: 10, forward_delay: 10, ..Config::default() });
    assert_eq!((rstp.times().max_age, rstp.times().forward_delay), (10, 10));
}

#[test]
fn numbers_are_the_first_free_ones() {
    let mut rstp = Rstp::new(Config::default(), Instant::ZERO);
    for key in [10, 20, 30] {
        rstp.set_port(key, CONFIG, true);
    }
    rstp.set_port(10, PortConfig { number: 33, ..CONFIG }, true);
    rstp.set_port(20, PortConfig { number: 3, ..CONFIG }, true);
    let numbers: Vec<u16> = rstp.numbers().map(|(n, _)| n).collect();
    assert_eq!(numbers, [33, 1, 3]);
}
