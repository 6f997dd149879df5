//! What every provider of [`Dpif`] must do, as functions that panic when it does not.
//!
//! A provider's tests build a [`Harness`] round a fresh datapath with two ports or more and call [`all`]. The functions use
//! nothing but the contract; how packets get into and out of ports is the harness's business.

use std::sync::Arc;

use ib_flow::extract::extract_bytes;
use ib_flow::{Flow, Mask, Metadata, OdpPort, Vlan};
use ib_packet::{Be16, Be32, Mac, Packet};
use parking_lot::Mutex;

use crate::action::{EthAddrs, Ipv4Fields, L4Ports};
use crate::{
    Action, Dpif, DpifError, Execute, FlowDel, FlowPut, Install, SetField, Ufid, Upcall, UpcallHandler,
    UpcallKind, UpcallVerdict, UserspaceAction,
};

/// A datapath under test.
pub trait Harness {
    /// The datapath: no flows, no handler, [`Self::ports`] added.
    fn dpif(&self) -> &dyn Dpif;
    /// Numbers of at least three ports.
    fn ports(&self) -> Vec<OdpPort>;
    /// Lets a frame enter by a port and has it processed.
    fn inject(&self, port: OdpPort, frame: &[u8]);
    /// Frames that left by a port since the last call, oldest first.
    fn sent(&self, port: OdpPort) -> Vec<Vec<u8>>;
    /// Waits until packets that went up have been answered, where that takes time.
    fn settle(&self) {}
}

/// A UDP packet over IPv4, 60 bytes; checksums good.
pub fn udp_frame(sport: u16, dport: u16) -> Vec<u8> {
    let mut f = vec![0x50, 0x54, 0, 0, 0, 2, 0x50, 0x54, 0, 0, 0, 1, 8, 0];
    f.extend_from_slice(&[0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0x26, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend_from_slice(&sport.to_be_bytes());
    f.extend_from_slice(&dport.to_be_bytes());
    // No UDP checksum: it is optional, and an action must not invent one.
    f.extend_from_slice(&[0, 12, 0, 0, 1, 2, 3, 4]);
    f.resize(60, 0);
    f
}

fn key(port: OdpPort, frame: &[u8]) -> Flow {
    let mut flow = Flow::zeroed();
    extract_bytes(frame, None, &Metadata { in_port: port, ..Metadata::default() }, &mut flow);
    flow
}

/// Looks at port, recirculation id, protocol and UDP destination port.
fn mask() -> Mask {
    let mut m = Mask::default();
    m.0.in_port = u32::MAX;
    m.0.recirc_id = u32::MAX;
    m.0.dl_type = Be16::MAX;
    m.0.nw_proto = 0xff;
    m.0.nw_frag = 3;
    m.0.tp_dst = Be16::MAX;
    m
}

fn install(h: &dyn Harness, key: &Flow, actions: Vec<Action>) {
    let (mask, actions) = (mask(), actions.into());
    let put = FlowPut { modify: true, create: true, zero_stats: true, key, mask: &mask, ufid: None, actions };
    h.dpif().flow_put(&put).expect("flow_put");
}

/// What comes out of `out` when `frame` meets `actions`.
fn through(h: &dyn Harness, frame: &[u8], actions: Vec<Action>, out: OdpPort) -> Vec<Vec<u8>> {
    let from = h.ports()[0];
    h.dpif().flow_flush();
    install(h, &key(from, frame), actions);
    h.inject(from, frame);
    h.sent(out)
}

#[derive(Default)]
struct Recorder {
    actions: Mutex<Vec<Action>>,
    install: bool,
    misses: Mutex<Vec<Flow>>,
    userdata: Mutex<Vec<Vec<u8>>>,
    installed: Mutex<Vec<Result<(), DpifError>>>,
}

impl UpcallHandler for Recorder {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        let mut verdict = UpcallVerdict { actions: Arc::new([]), install: None, ufid: upcall.ufid };
        match upcall.kind {
            UpcallKind::Miss => {
                self.misses.lock().push(upcall.key.clone());
                verdict.actions = self.actions.lock().clone().into();
                let actions = Arc::clone(&verdict.actions);
                verdict.install = self.install.then(|| Install { mask: mask(), actions });
            }
            UpcallKind::Action(data) => self.userdata.lock().push(data.userdata.to_vec()),
        }
        verdict
    }
    fn installed(&self, _: Ufid, result: Result<(), DpifError>) {
        self.installed.lock().push(result);
    }
}

/// Create and modify flags, lookup by ufid and by key, deletion, dump, flush.
pub fn flow_table(h: &dyn Harness) {
    let d = h.dpif();
    d.flow_flush();
    let (key, mask) = (key(h.ports()[0], &udp_frame(1, 2)), mask());
    let mut put = FlowPut {
        modify: true,
        create: false,
        zero_stats: false,
        key: &key,
        mask: &mask,
        ufid: Some(Ufid(42)),
        actions: Arc::new([Action::Output(h.ports()[1])]),
    };
    assert!(matches!(d.flow_put(&put), Err(DpifError::NotFound(_))), "modify of what is not there");
    (put.modify, put.create) = (false, true);
    d.flow_put(&put).expect("create");
    assert!(matches!(d.flow_put(&put), Err(DpifError::Exists(_))), "create of what is there");
    let by_key = FlowDel { ufid: None, key: Some(&key) };
    assert_eq!(d.flow_get(&by_key).expect("get by key").ufid, Ufid(42));
    (put.modify, put.create) = (true, false);
    put.actions = Arc::new([]);
    d.flow_put(&put).expect("modify");
    let by_ufid = FlowDel { ufid: Some(Ufid(42)), key: None };
    let info = d.flow_get(&by_ufid).expect("get by ufid");
    assert!(info.actions.is_empty());
    assert_eq!((mask.apply(&info.key), &*info.mask), (mask.apply(&key), &mask));
    let mut seen = Vec::new();
    d.flow_dump(&mut |f| seen.push(f.ufid));
    assert_eq!(seen, [Ufid(42)]);
    assert_eq!(d.stats().flows, 1);
    d.flow_del(&by_ufid).expect("del");
    assert!(matches!(d.flow_del(&by_ufid), Err(DpifError::NotFound(_))));
    d.flow_put(&FlowPut { create: true, ..put.clone() }).expect("create again");
    d.flow_flush();
    assert_eq!(d.stats().flows, 0);
}

/// Packets follow flows, are counted, and follow modified flows from then on.
pub fn forwards_and_counts(h: &dyn Harness) {
    let [a, b, c] = h.ports()[..3] else { panic!("three ports") };
    let frame = udp_frame(1000, 53);
    h.dpif().flow_flush();
    install(h, &key(a, &frame), vec![Action::Output(b)]);
    for sport in [1000, 1000, 2000] {
        h.inject(a, &udp_frame(sport, 53));
    }
    assert_eq!(h.sent(b), [frame.clone(), frame.clone(), udp_frame(2000, 53)]);
    let key = key(a, &frame);
    let stats = h.dpif().flow_get(&FlowDel { ufid: None, key: Some(&key) }).expect("flow").stats;
    assert_eq!((stats.packets, stats.bytes), (3, 180));
    install(h, &key, vec![Action::Output(c), Action::Output(b)]);
    h.inject(a, &frame);
    assert_eq!((h.sent(b).len(), h.sent(c).len()), (1, 1));
}

/// Ten thousand packets of one flow: no loss, no reordering, exact counts (caches are in play by then).
pub fn stays_exact_over_many_packets(h: &dyn Harness) {
    let [a, b] = h.ports()[..2] else { panic!("two ports") };
    h.dpif().flow_flush();
    let key = key(a, &udp_frame(0, 7));
    install(h, &key, vec![Action::Output(b)]);
    let mut got = Vec::new();
    for i in 0..10_000u16 {
        h.inject(a, &udp_frame(i % 16, 7));
        got.extend(h.sent(b));
    }
    assert_eq!(got.len(), 10_000);
    assert!(got.iter().zip(0..).all(|(f, i): (_, u16)| *f == udp_frame(i % 16, 7)));
    let get = FlowDel { ufid: None, key: Some(&key) };
    assert_eq!(h.dpif().flow_get(&get).expect("flow").stats.packets, 10_000);
    // A deleted flow stops at once, whatever caches remember.
    h.dpif().flow_del(&get).expect("del");
    h.inject(a, &udp_frame(1, 7));
    assert!(h.sent(b).is_empty());
}

/// A miss asks once; the verdict is executed, and installed if it says so.
pub fn misses_go_up(h: &dyn Harness) {
    let [a, b] = h.ports()[..2] else { panic!("two ports") };
    let d = h.dpif();
    d.flow_flush();
    d.set_upcall_handler(None);
    let lost = d.stats().lost;
    h.settle();
    h.inject(a, &udp_frame(1, 9));
    assert_eq!(d.stats().lost, lost + 1, "a miss without handler is lost");
    for (install, misses) in [(true, 1), (false, 3)] {
        d.flow_flush();
        let handler = Arc::new(Recorder {
            actions: Mutex::new(vec![Action::Output(b)]),
            install,
            ..Recorder::default()
        });
        d.set_upcall_handler(Some(Arc::clone(&handler) as Arc<dyn UpcallHandler>));
        for _ in 0..3 {
            h.inject(a, &udp_frame(1, 9));
            h.settle();
        }
        assert_eq!(h.sent(b).len(), 3);
        assert_eq!(handler.misses.lock().len(), misses);
        assert_eq!(handler.misses.lock()[0], key(a, &udp_frame(1, 9)));
        assert_eq!(handler.installed.lock().len(), usize::from(install));
        assert_eq!(d.stats().flows, u64::from(install));
    }
    d.set_upcall_handler(None);
}

/// `userspace` hands over the packet with its data and lets the rest of the list go on.
pub fn userspace_action(h: &dyn Harness) {
    let b = h.ports()[1];
    let handler = Arc::new(Recorder::default());
    h.dpif().set_upcall_handler(Some(Arc::clone(&handler) as Arc<dyn UpcallHandler>));
    let up = UserspaceAction { userdata: Arc::new([1, 2, 3]), ..UserspaceAction::default() };
    let out = through(h, &udp_frame(1, 2), vec![Action::Userspace(up), Action::Output(b)], b);
    assert_eq!(out, [udp_frame(1, 2)]);
    h.settle();
    assert_eq!(*handler.userdata.lock(), [vec![1, 2, 3]]);
    h.dpif().set_upcall_handler(None);
}

/// Header changes, one by one, on literal bytes.
pub fn changes_headers(h: &dyn Harness) {
    let b = h.ports()[1];
    let frame = udp_frame(1, 2);
    let with = |actions: Vec<Action>| {
        let mut all = actions;
        all.push(Action::Output(b));
        let mut out = through(h, &frame, all, b);
        assert_eq!(out.len(), 1);
        out.remove(0)
    };
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let value = EthAddrs { src: mac, dst: Mac::ZERO };
    let only_src = EthAddrs { src: Mac::BROADCAST, dst: Mac::ZERO };
    let out = with(vec![Action::Set(SetField::Ethernet(value, only_src))]);
    assert_eq!((&out[..6], &out[6..12], &out[12..]), (&frame[..6], &mac.0[..], &frame[12..]));

    let value = Ipv4Fields { src: Be32::new(0x0a00_0063), ttl: 63, ..Ipv4Fields::default() };
    let mask = Ipv4Fields { src: Be32::MAX, ttl: 0xff, ..Ipv4Fields::default() };
    let out = with(vec![Action::Set(SetField::Ipv4(value, mask))]);
    // Header checksum by hand: 0x26cb + 0x0100 (TTL less one) - 0x62 (address more by 98) = 0x2769.
    assert_eq!(&out[22..34], &[63, 17, 0x27, 0x69, 10, 0, 0, 99, 10, 0, 0, 2]);

    let ports = L4Ports { src: Be16::new(4096), dst: Be16::ZERO };
    let mask = L4Ports { src: Be16::MAX, dst: Be16::ZERO };
    let out = with(vec![Action::Set(SetField::Udp(ports, mask))]);
    assert_eq!(&out[34..42], &[0x10, 0, 0, 2, 0, 12, 0, 0]);

    let push = Action::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(Vlan::CFI | 0x2007) };
    let out = with(vec![push.clone()]);
    assert_eq!((&out[12..18], &out[18..]), (&[0x81, 0, 0x20, 7, 8, 0][..], &frame[14..]));
    assert_eq!(with(vec![push, Action::PopVlan]), frame);

    let push = Action::PushMpls { lse: Be32::new(0x0006_4140), ethertype: Be16::new(0x8847) };
    let out = with(vec![push.clone()]);
    assert_eq!((&out[12..18], &out[18..]), (&[0x88, 0x47, 0, 6, 0x41, 0x40][..], &frame[14..]));
    assert_eq!(with(vec![push, Action::PopMpls(Be16::new(0x0800))]), frame);

    let out = with(vec![Action::Trunc(20)]);
    assert_eq!(out, frame[..20]);
    let out = with(vec![Action::DecTtl { exception: Arc::new([]) }]);
    assert_eq!((out[22], &out[24..26]), (63, &[0x27, 0xcb][..]));
}

/// Lists within lists: what they change stays with them.
pub fn nests(h: &dyn Harness) {
    let [_, b, c] = h.ports()[..3] else { panic!("three ports") };
    let frame = udp_frame(1, 2);
    let inner: Arc<[Action]> = Arc::new([
        Action::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(Vlan::CFI | 1) },
        Action::Output(c),
    ]);
    for outer in [
        Action::Clone(Arc::clone(&inner)),
        Action::Sample { probability: u32::MAX, actions: Arc::clone(&inner) },
        Action::CheckPktLen { len: 59, greater: Arc::clone(&inner), less_or_equal: Arc::new([]) },
        Action::CheckPktLen { len: 60, greater: Arc::new([]), less_or_equal: Arc::clone(&inner) },
    ] {
        let out = through(h, &frame, vec![outer.clone(), Action::Output(b)], b);
        assert_eq!(out, std::slice::from_ref(&frame), "{outer:?}");
        let tagged = h.sent(c);
        assert_eq!((tagged.len(), tagged[0].len()), (1, 64), "{outer:?}");
    }
    let never = Action::Sample { probability: 0, actions: inner };
    assert_eq!(through(h, &frame, vec![never, Action::Output(b)], b).len(), 1);
    assert!(h.sent(c).is_empty());
}

/// Recirculation looks up again with the id, sees changed headers, and ends when it goes round in circles.
pub fn recirculates(h: &dyn Harness) {
    let [a, b] = h.ports()[..2] else { panic!("two ports") };
    let frame = udp_frame(1, 2);
    let d = h.dpif();
    d.flow_flush();
    let set = L4Ports { src: Be16::ZERO, dst: Be16::new(77) };
    let mask = L4Ports { src: Be16::ZERO, dst: Be16::MAX };
    install(h, &key(a, &frame), vec![Action::Set(SetField::Udp(set, mask)), Action::Recirc(5)]);
    let mut second = key(a, &udp_frame(1, 77));
    second.recirc_id = 5;
    install(h, &second, vec![Action::Output(b)]);
    h.inject(a, &frame);
    assert_eq!(h.sent(b), [udp_frame(1, 77)]);
    install(h, &second, vec![Action::Output(b), Action::Recirc(5)]);
    h.inject(a, &frame);
    let n = h.sent(b).len();
    assert!((1..=8).contains(&n), "a circle of recirculations ended after {n} rounds");
}

/// `execute` runs a list on a packet from nowhere.
pub fn executes(h: &dyn Harness) {
    let b = h.ports()[1];
    let execute = Execute {
        packet: Packet::from_frame(&udp_frame(1, 2)),
        md: &Metadata { in_port: OdpPort::NONE, ..Metadata::default() },
        actions: &[Action::Output(b), Action::Output(b)],
        probe: false,
    };
    h.dpif().execute(execute).expect("execute");
    assert_eq!(h.sent(b).len(), 2);
}

/// Actions that name what is not there, and packets that are none, do no harm.
pub fn survives_nonsense(h: &dyn Harness) {
    let [a, b] = h.ports()[..2] else { panic!("two ports") };
    let frame = udp_frame(1, 2);
    let none = OdpPort(60_000);
    let out = through(h, &frame, vec![Action::Output(none), Action::Meter(9), Action::Output(b)], b);
    assert_eq!(out.len(), 1);
    assert!(through(h, &frame, vec![Action::Drop(0)], b).is_empty());
    assert!(through(h, &frame, vec![], b).is_empty());
    for len in 0..frame.len() {
        h.inject(a, &frame[..len]);
    }
    let mut nested: Arc<[Action]> = Arc::new([Action::Output(b)]);
    for _ in 0..500 {
        nested = Arc::new([Action::Clone(nested)]);
    }
    // So deep a list may also be refused.
    let actions: Arc<[Action]> = Arc::new([Action::Clone(nested)]);
    let key = key(a, &frame);
    let mask = &mask();
    let put = FlowPut { modify: true, create: true, zero_stats: false, key: &key, mask, ufid: None, actions };
    if h.dpif().flow_put(&put).is_ok() {
        h.inject(a, &frame);
        assert!(h.sent(b).len() <= 1);
    }
    assert!(h.dpif().port_del(none).is_err());
}

/// All of the above.
pub fn all(h: &dyn Harness) {
    flow_table(h);
    forwards_and_counts(h);
    stays_exact_over_many_packets(h);
    misses_go_up(h);
    userspace_action(h);
    changes_headers(h);
    nests(h);
    recirculates(h);
    executes(h);
    survives_nonsense(h);
    h.dpif().flow_flush();
}
