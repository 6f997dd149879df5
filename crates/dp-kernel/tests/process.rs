//! A datapath behind a socket: the contract holds through messages, what comes over the socket is checked, and a control plane may
//! go and come back.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ib_base::rng::Rng;
use ib_base::time::Clock;
use ib_dp_kernel::provider::{RemoteClass, RemoteDpif};
use ib_dp_kernel::serve::Server;
use ib_dp_kernel::transport::Transport;
use ib_dp_kernel::unix::UnixTransport;
use ib_dp_userspace::memory::MemoryProvider;
use ib_dp_userspace::{Config, DpUserspace, DpUserspaceClass};
use ib_dpif::conformance::{self, Harness, udp_frame};
use ib_dpif::{
    Action, Dpif, DpifClass, DpifError, FlowDel, FlowPut, Install, PortSpec, Ufid, Upcall, UpcallHandler,
    UpcallVerdict,
};
use ib_flow::{Flow, Mask, OdpPort};
use ib_netdev::{DummyLevel, Registry};
use ib_packet::Packet;
use ib_sys::seqpacket::Connection;

struct Bed {
    path: PathBuf,
    /// What the other process has.
    there: Arc<DpUserspace>,
    provider: Arc<MemoryProvider>,
    dpif: Arc<dyn Dpif>,
}

fn class(path: &std::path::Path) -> RemoteClass {
    let transport: Arc<dyn Transport> = Arc::new(UnixTransport::open(path).unwrap());
    RemoteClass::new("dummy", transport, &Clock::new())
}

fn bed() -> Bed {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ironbridge-dp-{}-{n}", std::process::id()));
    let registry = Registry::new().unwrap();
    registry.enable_dummy(DummyLevel::Normal);
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    let config = Config { registry, clock: Clock::new(), threads: 1, dummy: true };
    let user = Arc::new(DpUserspaceClass::new("dummy", config));
    let server = Server::new(
        vec![Arc::clone(&user) as Arc<dyn DpifClass>],
        Arc::new(|words: &[String]| match words {
            [word] => Ok(format!("{word}!")),
            _ => Err("one word".to_owned()),
        }),
    );
    server.listen(&path).unwrap();
    let dpif = class(&path).open("ovs-dummy", true).unwrap();
    for n in 1..=4 {
        let spec = PortSpec { name: format!("m{n}"), kind: "memory".into(), ..PortSpec::default() };
        assert_eq!(dpif.port_add(&spec), Ok(OdpPort(n)));
    }
    let there = user.get("ovs-dummy").unwrap();
    Bed { path, there, provider, dpif }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Harness for Bed {
    fn dpif(&self) -> &dyn Dpif {
        &*self.dpif
    }
    fn ports(&self) -> Vec<OdpPort> {
        (1..=4).map(OdpPort).collect()
    }
    fn inject(&self, port: OdpPort, frame: &[u8]) {
        self.provider.port(&format!("m{}", port.0)).unwrap().push(Packet::from_frame(frame));
        self.there.run();
    }
    fn sent(&self, port: OdpPort) -> Vec<Vec<u8>> {
        let sent = self.provider.port(&format!("m{}", port.0)).unwrap().take_sent();
        sent.iter().map(|p| p.data().to_vec()).collect()
    }
    /// A packet that went up is on its way through two sockets and another thread.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn the_contract_holds_through_messages() {
    conformance::all(&bed());
}

/// Sends everything to port 2 and installs a flow for what is exactly like it.
#[derive(Default)]
struct ToTwo(AtomicU32);

impl UpcallHandler for ToTwo {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mut bits = Flow::zeroed();
        bits.words_mut().fill(u64::MAX);
        let actions: Arc<[Action]> = Arc::new([Action::Output(OdpPort(2))]);
        let install = Some(Install { mask: Mask(bits), actions: Arc::clone(&actions) });
        UpcallVerdict { actions, install, ufid: upcall.ufid }
    }
    fn installed(&self, _: Ufid, result: Result<(), DpifError>) {
        result.unwrap();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn flows_outlive_the_control_plane_and_the_next_one_finds_them() {
    let bed = bed();
    bed.dpif.set_upcall_handler(Some(Arc::new(ToTwo::default())));
    bed.inject(OdpPort(1), &udp_frame(1, 2));
    until("the packet", || bed.sent(OdpPort(2)).len() == 1);
    bed.dpif.set_upcall_handler(None);
    until("the datapath to notice", || {
        bed.inject(OdpPort(1), &udp_frame(9, 9));
        bed.there.stats().lost > 0
    });
    bed.sent(OdpPort(2));
    bed.inject(OdpPort(1), &udp_frame(1, 2));
    assert_eq!(bed.sent(OdpPort(2)), [udp_frame(1, 2)]);

    let next = class(&bed.path);
    assert_eq!(next.enumerate(), ["ovs-dummy"]);
    let dpif = next.open("ovs-dummy", true).unwrap();
    assert_eq!(dpif.port_by_name("m3").unwrap().number, OdpPort(3));
    let mut flows = Vec::new();
    dpif.flow_dump(&mut |f| flows.push(f));
    let of_first = flows.iter().find(|f| f.key.tp_dst.get() == 2).expect("the flow");
    assert_eq!((&*of_first.actions, of_first.stats.packets), (&[Action::Output(OdpPort(2))][..], 1));
    let handler = Arc::new(ToTwo::default());
    dpif.set_upcall_handler(Some(Arc::clone(&handler) as _));
    bed.inject(OdpPort(1), &udp_frame(3, 4));
    until("the packet of a new flow", || !bed.sent(OdpPort(2)).is_empty());
    assert_eq!(handler.0.load(Ordering::Relaxed), 1);
}

#[test]
fn upcalls_wait_for_a_handler_that_follows() {
    let bed = bed();
    bed.dpif.keep_upcalls();
    bed.inject(OdpPort(1), &udp_frame(1, 2));
    assert_eq!(bed.dpif.stats().lost, 0);
    bed.dpif.set_upcall_handler(Some(Arc::new(ToTwo::default())));
    until("the packet that waited", || bed.sent(OdpPort(2)) == [udp_frame(1, 2)]);
    // As many as a socket holds: the rest is lost, and nobody waits.
    bed.dpif.keep_upcalls();
    for n in 0..20_000_u16 {
        bed.inject(OdpPort(1), &udp_frame(n, 7));
    }
    assert!(bed.dpif.stats().lost > 0);
    bed.dpif.set_upcall_handler(None);
}

#[test]
fn keys_bonds_settings_and_commands_pass_whole() {
    let bed = bed();
    let mut key = Flow::zeroed();
    // What the kernel's attributes have no word for.
    key.words_mut().iter_mut().enumerate().for_each(|(i, w)| *w = (i as u64) << 8 | 1);
    let mut bits = Flow::zeroed();
    bits.words_mut().fill(u64::MAX);
    let put = FlowPut {
        modify: false,
        create: true,
        zero_stats: false,
        key: &key,
        mask: &Mask(bits),
        ufid: Some(Ufid(7)),
        actions: Arc::new([Action::LbOutput(3), Action::TnlPop(OdpPort(1))]),
    };
    bed.dpif.flow_put(&put).unwrap();
    assert!(matches!(bed.dpif.flow_put(&put), Err(DpifError::Exists(_))));
    let mut seen = Vec::new();
    bed.dpif.flow_dump(&mut |f| seen.push(f));
    assert_eq!((&*seen[0].key, &*seen[0].actions, seen.len()), (&key, &*put.actions, 1));
    // Wildcarded fields are listed with what they were in the packet that the flow was made for.
    let mut narrow = Flow::zeroed();
    narrow.in_port = u32::MAX;
    let wide = FlowPut { mask: &Mask(narrow), ufid: Some(Ufid(8)), actions: Arc::from([]), ..put };
    bed.dpif.flow_put(&wide).unwrap();
    assert_eq!(*bed.dpif.flow_get(&FlowDel { ufid: Some(Ufid(8)), key: None }).unwrap().key, key);
    let device = bed.dpif.port_device(OdpPort(1)).expect("a device");
    assert_eq!((Some(device), None), (bed.there.port_device(OdpPort(1)), bed.dpif.port_device(OdpPort(99))));

    bed.dpif.bond_set(3, &[OdpPort(1), OdpPort(2)]).unwrap();
    assert_eq!(bed.dpif.bond_bytes(3), Ok(vec![0, 0]));
    bed.dpif.bond_del(3).unwrap();
    assert!(bed.dpif.bond_bytes(3).is_err());
    let remote = bed.dpif.as_any().downcast_ref::<RemoteDpif>().unwrap();
    assert_eq!(remote.appctl(&["hello"]), Ok("hello!".to_owned()));
    assert_eq!(remote.appctl(&[]), Err("one word".to_owned()));
    let table = bed.dpif.conntrack().unwrap();
    table.set_max_conns(77);
    assert_eq!((table.max_conns(), table.dump(None).len(), table.limits().len()), (77, 0, 0));
    table.set_limit(5, Some(9));
    assert_eq!((table.limit(5).limit, bed.there.conntrack().unwrap().limit(5).limit), (9, 9));
}

#[test]
fn nonsense_ends_a_connection_or_is_refused_and_nobody_else_notices() {
    let bed = bed();
    let mut rng = Rng::new(11);
    let mut messages = 0;
    for _ in 0..60 {
        let Ok(connection) = Connection::open(&bed.path) else { continue };
        connection.set_timeout(Duration::from_millis(20)).unwrap();
        for _ in 0..4 {
            let len = 16 + rng.below(200) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
            bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
            bytes[4..6].copy_from_slice(&(16 + rng.below(8) as u16).to_ne_bytes());
            if len > 24 {
                bytes[16] = rng.below(9) as u8;
                bytes[20..24].copy_from_slice(&1u32.to_ne_bytes());
            }
            if connection.send(&bytes, false).is_err() {
                break;
            }
            let mut answer = Vec::new();
            if !connection.recv(&mut answer, 1 << 20, true).unwrap_or(false) {
                break;
            }
            messages += 1;
        }
    }
    assert!(messages > 20, "{messages} answers");
    assert_eq!(bed.dpif.port_by_name("ovs-dummy").unwrap().number, OdpPort::LOCAL);
}

#[test]
fn who_does_not_read_holds_up_nobody() {
    let bed = bed();
    bed.dpif.set_upcall_handler(Some(Arc::new(ToTwo::default())));
    for n in 0..200_u16 {
        bed.inject(OdpPort(1), &udp_frame(n, 5));
    }
    until("flows", || {
        let mut n = 0;
        bed.dpif.flow_stats(&mut |_, _| n += 1);
        n == 200
    });
    // Each asks for all flows, again and again, and never reads.
    let header = ib_dp_kernel::message::Header { command: 3, version: 1, dp_ifindex: 1 };
    let kind = ib_dp_kernel::unix::type_of(ib_dp_kernel::transport::Family::Flow);
    let flags = ib_sys::netlink::F_REQUEST | ib_sys::netlink::F_DUMP;
    let deaf: Vec<Connection> = (0..4).map(|_| Connection::open(&bed.path).unwrap()).collect();
    for connection in &deaf {
        let mut sent = 0;
        let mut request = ib_sys::netlink::Request::new(kind, flags, &header.to_bytes());
        while sent < 1_000 && connection.send(request.seal(1), false).is_ok() {
            sent += 1;
        }
        assert!(sent > 1);
    }
    bed.sent(OdpPort(2));
    bed.inject(OdpPort(1), &udp_frame(1, 5));
    bed.inject(OdpPort(1), &udp_frame(60_000, 6));
    let mut arrived = 0;
    until("both packets", || {
        arrived += bed.sent(OdpPort(2)).len();
        arrived == 2
    });
    assert_eq!(bed.dpif.port_by_name("m3").unwrap().number, OdpPort(3));
}
