//! The contract's suite on kernel devices, each test in a network namespace of its own.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ib_netdev::conformance::{collect, configuration, frame, traffic};
use ib_netdev::{DropReason, Error, Flags, Netdev, Registry};
use ib_packet::buffer::Pool;
use ib_sys::eventfd::Epoll;
use ib_sys::rtnetlink::{LinkChange, Rtnl};
use ib_sys::{errno, netns};

/// Runs `test` on a thread in a fresh namespace; says so and returns if we may not.
fn in_namespace(test: fn()) {
    if !netns::is_root() {
        println!("skipped: needs root for network namespaces");
        return;
    }
    let thread = std::thread::spawn(move || {
        if let Err(e) = netns::unshare() {
            println!("skipped: no network namespace: {e}");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn up(dev: &Arc<dyn Netdev>) {
    dev.update_flags(Flags::NONE, Flags::UP).unwrap();
}

/// A registry and the two ends of a veth pair.
type Pair = (Arc<Registry>, Arc<dyn Netdev>, Arc<dyn Netdev>);

fn veth() -> Pair {
    Rtnl::open().unwrap().add_veth("va", "vb").unwrap();
    let registry = Registry::new().unwrap();
    let a = registry.open("va", "").unwrap();
    let b = registry.open("vb", "system").unwrap();
    up(&a);
    up(&b);
    (registry, a, b)
}

/// Takes notifications in until `done`, for at most a second.
fn wait(registry: &Registry, done: impl Fn() -> bool) -> bool {
    let epoll = Epoll::new().unwrap();
    epoll.add(registry.fd(), 0).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        registry.run();
        if done() || Instant::now() > deadline {
            return done();
        }
        epoll.wait(&mut Vec::new(), 50).unwrap();
    }
}

#[test]
fn system_configuration() {
    in_namespace(|| {
        let (_registry, a, b) = veth();
        configuration(&*a);
        assert_eq!(a.status().get("driver_name").map(String::as_str), Some("veth"));
        assert_eq!(a.link_speed().unwrap().current_mbps, 10_000);
        assert!(b.ifindex().is_some_and(|i| i > 0));
    });
}

#[test]
fn system_traffic() {
    in_namespace(|| {
        let (registry, a, b) = veth();
        assert!(wait(&registry, || a.carrier().up && b.carrier().up), "carrier comes by notification");
        let mut rxq = b.rx_queues().unwrap().remove(0);
        traffic(&*a, &*b, &mut *rxq, false);
        let mut rxq = a.rx_queues().unwrap().remove(0);
        traffic(&*b, &*a, &mut *rxq, false);
        // What a port sends it does not receive.
        a.send(0, &mut vec![frame(60)], &mut Pool::new(1));
        assert_eq!(rxq.recv(&mut Pool::new(1), &mut Vec::new()).unwrap(), 0);
    });
}

/// A pair of which `va` is a system device, and `vb` is to be an AF_XDP one.
fn half_afxdp(options: &[(&str, &str)]) -> Option<Pair> {
    Rtnl::open().unwrap().add_veth("va", "vb").unwrap();
    let registry = Registry::new().unwrap();
    let a = registry.open("va", "").unwrap();
    let b = registry.open("vb", "afxdp").unwrap();
    up(&a);
    up(&b);
    b.set_config(&options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()).unwrap();
    match b.rx_queues() {
        Ok(_) => Some((registry, a, b)),
        Err(e) => {
            println!("skipped: no AF_XDP here ({e})");
            None
        }
    }
}

#[test]
fn afxdp_traffic_in_each_mode() {
    for mode in ["best-effort", "native", "generic"] {
        let run = move || {
            netns::unshare().unwrap();
            let Some((registry, a, b)) = half_afxdp(&[("xdp-mode", mode)]) else { return };
            configuration(&*b);
            b.set_mtu(1500).unwrap();
            assert!(wait(&registry, || a.carrier().up && b.carrier().up));
            let mut rxq = b.rx_queues().unwrap().remove(0);
            let in_use = b.status().remove("xdp-mode-in-use").unwrap();
            assert_eq!(in_use, if mode == "best-effort" { "native" } else { mode });
            // What comes has no offload header, so the peer may send plain frames only.
            let mut pool = Pool::new(64);
            a.send(0, &mut (0..40).map(|i| frame(60 + i)).collect(), &mut pool);
            let got = collect(&mut *rxq, &mut pool, 40);
            assert_eq!(got.iter().map(|p| p.len()).collect::<Vec<_>>(), (60..100).collect::<Vec<_>>());
            let mut back = a.rx_queues().unwrap().remove(0);
            traffic(&*b, &*a, &mut *back, true);
            b.send(0, &mut vec![frame(4000)], &mut pool);
            let lost = b.custom_stats();
            assert!(lost.iter().any(|(name, n)| name == "tx_drop_too_big" && *n >= 1), "{lost:?}");
            // Many more than there are chunks.
            for _ in 0..200 {
                b.send(0, &mut (0..32).map(|_| frame(60)).collect(), &mut pool);
                back.drain();
            }
            assert_eq!(b.custom_stats().iter().find(|(name, _)| name == "tx_drop_queue_full"), None);
            // With its queues the program goes.
            drop(rxq);
            let mut host = registry_of_the_host().1;
            a.send(0, &mut vec![frame(99)], &mut pool);
            assert_eq!(collect(&mut *host, &mut pool, 1).first().map(|p| p.len()), Some(99));
        };
        if netns::is_root() {
            std::thread::spawn(run).join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        }
    }
}

/// The host's view of `vb`.
fn registry_of_the_host() -> (Arc<dyn Netdev>, Box<dyn ib_netdev::RxQueue>) {
    let dev = Registry::new().unwrap().open("vb", "system").unwrap();
    let rxq = dev.rx_queues().unwrap().remove(0);
    (dev, rxq)
}

#[test]
fn afxdp_says_why_it_cannot() {
    in_namespace(|| {
        let Some((_registry, _a, b)) = half_afxdp(&[]) else { return };
        let seq = b.queues_seq();
        let zero_copy = [("xdp-mode".to_owned(), "native-with-zerocopy".to_owned())];
        b.set_config(&zero_copy.into()).unwrap();
        assert_ne!(b.queues_seq(), seq, "other sockets are wanted");
        assert_eq!(b.rx_queues().err().map(|e| e.errno()), Some(errno::EOPNOTSUPP));
        b.set_config(&[("n_rxq".to_owned(), "7".to_owned())].into()).unwrap();
        assert!(b.rx_queues().is_err(), "the device has one queue");
        assert_eq!(b.status().get("xdp-mode-in-use").map(String::as_str), Some("none"));
    });
}

#[test]
fn tun_packets_get_and_lose_an_empty_header() {
    in_namespace(|| {
        let registry = Registry::new().unwrap();
        let tun = registry.open("t0", "tun").unwrap();
        let mut rxq = tun.rx_queues().unwrap().remove(0);
        let index = tun.ifindex().unwrap();
        Rtnl::open().unwrap().add_address(index, "10.9.0.1".parse().unwrap(), 24).unwrap();
        up(&tun);
        let host = std::net::UdpSocket::bind("10.9.0.1:7").unwrap();
        host.send_to(b"hello", "10.9.0.2:9").unwrap();
        let (mut pool, mut got) = (Pool::new(8), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(1);
        // The host says more than that, over IPv6.
        while !got.iter().any(|p: &ib_packet::Packet| p.data()[12..14] == [8, 0]) && Instant::now() < deadline
        {
            rxq.recv(&mut pool, &mut got).unwrap();
        }
        let mut p = got.into_iter().find(|p| p.data()[12..14] == [8, 0]).unwrap();
        assert_eq!((&p.data()[..12], p.len()), (&[0u8; 12][..], 14 + 20 + 8 + 5));
        ib_packet::gso::finish_csum(&mut p);
        // Back to where it came from.
        let d = p.data_mut();
        for (a, b, n) in [(26, 30, 4), (34, 36, 2)] {
            (0..n).for_each(|i| d.swap(a + i, b + i));
        }
        d[..12].fill(7);
        tun.send(0, &mut vec![frame(60), p], &mut pool);
        host.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut text = [0; 9];
        assert_eq!(host.recv_from(&mut text).unwrap(), (5, "10.9.0.2:9".parse().unwrap()));
        let mut arp = frame(60);
        arp.data_mut()[12..14].copy_from_slice(&[8, 6]);
        tun.send(0, &mut vec![arp], &mut pool);
        assert!(tun.custom_stats().contains(&(DropReason::TxNotIp.name().to_owned(), 1)));
    });
}

#[test]
fn system_drops_have_names() {
    in_namespace(|| {
        let (_registry, a, _b) = veth();
        let mut pool = Pool::new(8);
        a.send(0, &mut vec![frame(60), frame(3000), frame(60)], &mut pool);
        a.update_flags(Flags::UP, Flags::NONE).unwrap();
        a.send(0, &mut vec![frame(60), frame(60)], &mut pool);
        let drops = a.custom_stats();
        assert!(drops.contains(&(DropReason::TxTooBig.name().to_owned(), 1)), "{drops:?}");
        assert!(drops.contains(&(DropReason::TxDown.name().to_owned(), 2)), "{drops:?}");
        assert!(a.stats().unwrap().tx_dropped >= Some(3));
    });
}

#[test]
fn system_device_that_is_not_there() {
    in_namespace(|| {
        let registry = Registry::new().unwrap();
        let e = registry.open("p1", "").err().unwrap();
        assert_eq!((e.errno(), e.to_string().as_str()), (errno::ENODEV, "No such device"));
        assert_eq!(registry.open("p1", "nonsense").err().unwrap().errno(), errno::EAFNOSUPPORT);
    });
}

#[test]
fn one_object_a_name() {
    in_namespace(|| {
        let (registry, a, b) = veth();
        let again = registry.open("va", "system").unwrap();
        assert!(Arc::ptr_eq(&a, &again));
        assert!(matches!(registry.open("va", "tap"), Err(Error::KindConflict { .. })));
        assert!(registry.get("va").is_some());
        drop((a, again));
        assert!(registry.get("va").is_none());
        assert_eq!(registry.devices().len(), 1);
        drop(b);
        registry.open("va", "system").unwrap();
    });
}

#[test]
fn a_device_that_comes_back_is_bound_again() {
    in_namespace(|| {
        let (registry, a, b) = veth();
        let mut rxq = b.rx_queues().unwrap().remove(0);
        let mut pool = Pool::new(8);
        let mut rtnl = Rtnl::open().unwrap();
        let old = b.ifindex();
        rtnl.delete_link(a.ifindex().unwrap()).unwrap();
        assert!(wait(&registry, || a.ifindex().is_none() && b.ifindex().is_none()));
        assert_eq!(b.mtu(), Err(Error::Os(errno::ENODEV)));
        assert!(!b.carrier().up);
        assert_eq!(rxq.recv(&mut pool, &mut Vec::new()).unwrap(), 0, "no error while it is away");
        a.send(0, &mut vec![frame(60)], &mut pool);

        rtnl.add_veth("va", "vb").unwrap();
        assert!(wait(&registry, || a.ifindex().is_some() && b.ifindex().is_some()));
        assert_ne!(b.ifindex(), old);
        up(&a);
        up(&b);
        a.send(0, &mut vec![frame(77)], &mut pool);
        let got = collect(&mut *rxq, &mut pool, 1);
        assert_eq!(got.first().map(|p| p.len()), Some(77));
    });
}

#[test]
fn changes_from_outside_are_noticed() {
    in_namespace(|| {
        let (registry, a, _b) = veth();
        registry.run();
        let before = (registry.seq(), a.change_seq());
        let change = LinkChange { mtu: Some(1300), ..LinkChange::default() };
        Rtnl::open().unwrap().set_link(a.ifindex().unwrap(), &change).unwrap();
        assert!(wait(&registry, || a.mtu() == Ok(1300)));
        assert!(registry.seq() > before.0 && a.change_seq() > before.1);
        let rename = LinkChange { name: Some("vx"), flags: Some((1, 0)), ..LinkChange::default() };
        Rtnl::open().unwrap().set_link(a.ifindex().unwrap(), &rename).unwrap();
        assert!(wait(&registry, || a.ifindex().is_none()), "a renamed device is gone");
    });
}

#[test]
fn idle_registry_is_silent() {
    in_namespace(|| {
        let (registry, _a, _b) = veth();
        std::thread::sleep(Duration::from_millis(50));
        registry.run();
        let epoll = Epoll::new().unwrap();
        epoll.add(registry.fd(), 9).unwrap();
        let mut ready = Vec::new();
        epoll.wait(&mut ready, 0).unwrap();
        assert!(ready.is_empty(), "after run() the descriptor is quiet");
    });
}

#[test]
fn tap_configuration_and_life() {
    in_namespace(|| {
        let registry = Registry::new().unwrap();
        for kind in ["tap", "internal"] {
            let dev = registry.open("t0", kind).unwrap();
            assert!(dev.flags().is_ok_and(|f| !f.contains(Flags::UP)), "made down");
            configuration(&*dev);
            assert_eq!(dev.status().get("driver_name").map(String::as_str), Some("tun"));
            drop(dev);
            assert!(Rtnl::open().unwrap().link_by_name("t0").is_err(), "closed means deleted");
        }
        let dev = registry.open("t0", "tap").unwrap();
        registry.keep_devices();
        drop(dev);
        assert!(Rtnl::open().unwrap().link_by_name("t0").is_ok(), "kept");
        registry.open("t0", "tap").unwrap();
    });
}

#[test]
fn taps_go_together() {
    in_namespace(|| {
        let registry = Registry::new().unwrap();
        let open = |n: i32| registry.open(&format!("t{n}"), "internal").unwrap();
        let (stays, taps) = (open(99), (0..6).map(open).collect::<Vec<_>>());
        let is_there = |n: i32| Rtnl::open().unwrap().link_by_name(&format!("t{n}")).is_ok();
        let together = registry.remove_together();
        drop(taps);
        assert!((0..6).all(is_there), "not one by one");
        drop(together);
        assert!(!(0..6).any(is_there));
        assert!(is_there(99));
        drop(stays);
        assert!(!is_there(99), "one by one again");
        let again = open(0);
        drop(again);
    });
}

#[test]
fn tap_traffic() {
    in_namespace(|| {
        // The host's side of the TAP is a device like any other: AF_PACKET plays the host.
        let (ours, host) = (Registry::new().unwrap(), Registry::new().unwrap());
        let tap = ours.open("t0", "internal").unwrap();
        let outside = host.open("t0", "system").unwrap();
        up(&tap);
        let mut rxq = tap.rx_queues().unwrap().remove(0);
        let mut host_rxq = outside.rx_queues().unwrap().remove(0);
        traffic(&*outside, &*tap, &mut *rxq, false);
        traffic(&*tap, &*outside, &mut *host_rxq, false);
    });
}

#[test]
fn tap_works_from_another_namespace() {
    in_namespace(|| {
        let registry = Registry::new().unwrap();
        let tap = registry.open("t0", "internal").unwrap();
        let mut rxq = tap.rx_queues().unwrap().remove(0);
        let index = tap.ifindex().unwrap();
        std::thread::scope(|s| {
            let here = Rtnl::open().unwrap();
            let mover = s.spawn(move || {
                let mut here = here;
                netns::unshare().unwrap();
                let there = netns::current().unwrap();
                let change = LinkChange { netns: Some(there.as_raw_fd()), ..LinkChange::default() };
                here.set_link(index, &change).unwrap();
                let host = Registry::new().unwrap();
                let outside = host.open("t0", "system").unwrap();
                up(&outside);
                outside.send(0, &mut vec![frame(99)], &mut Pool::new(1));
                let mut q = outside.rx_queues().unwrap().remove(0);
                collect(&mut *q, &mut Pool::new(8), 1).first().map(|p| p.len())
            });
            let got = collect(&mut *rxq, &mut Pool::new(8), 1);
            assert_eq!(got.first().map(|p| p.len()), Some(99));
            assert!(wait(&registry, || tap.ifindex().is_none()));
            let deadline = Instant::now() + Duration::from_secs(1);
            while !mover.is_finished() && Instant::now() < deadline {
                tap.send(0, &mut vec![frame(88)], &mut Pool::new(1));
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(mover.join().unwrap(), Some(88));
            assert!(tap.stats().unwrap().rx_packets >= Some(1));
            assert!(tap.carrier().up);
        });
    });
}

#[test]
fn a_tap_that_someone_deletes_ends_its_queue() {
    in_namespace(|| {
        let registry = Registry::new().unwrap();
        let tap = registry.open("t0", "tap").unwrap();
        let mut rxq = tap.rx_queues().unwrap().remove(0);
        up(&tap);
        Rtnl::open().unwrap().delete_link(tap.ifindex().unwrap()).unwrap();
        // Its descriptor reports an error from now on: whoever waits for it must be told to stop.
        let mut batch = Vec::new();
        let mut reads = (0..10).map(|_| rxq.recv(&mut Pool::new(8), &mut batch));
        assert!(reads.any(|r| r.is_err()));
        tap.send(0, &mut vec![frame(60)], &mut Pool::new(1));
        assert_eq!(tap.custom_stats(), [(DropReason::TxDown.name().to_owned(), 1)]);
        assert!(wait(&registry, || tap.ifindex().is_none()));
        drop((rxq, tap));
        registry.open("t0", "tap").unwrap();
    });
}
