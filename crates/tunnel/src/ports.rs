//! Which outer packets are ours: datapath tunnel ports by local address, protocol and port.
//!
//! Every address of a device that a route leads to, times every tunnel port of the datapath, is a classifier rule: so a lookup
//! tells which bits of a packet decided, like any table's.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use ib_classifier::{AsClsRule, Classifier, ClsRule};
use ib_flow::{Flow, Mask, Match, OdpPort};
use ib_packet::{Be16, Be32, Be128, Mac};

use crate::kind::{IPPROTO_GRE, IPPROTO_TCP, IPPROTO_UDP};

/// A rule: such packets are for this port.
pub struct Listener {
    cls: ClsRule,
    /// The datapath's port.
    pub odp: OdpPort,
    text: String,
}

impl AsClsRule for Listener {
    fn cls(&self) -> &ClsRule {
        &self.cls
    }
}

/// A tunnel port of the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    odp: OdpPort,
    name: String,
    protocol: u8,
    tp_port: u16,
    refs: usize,
}

/// A device with addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpDevice {
    /// Name.
    pub name: String,
    /// Ethernet address.
    pub mac: Mac,
    /// Addresses.
    pub addrs: Vec<IpAddr>,
}

/// See the module.
#[derive(Default)]
pub struct TunnelPorts {
    ports: Vec<Port>,
    devices: Vec<IpDevice>,
    /// Rebuilt with each change.
    listeners: Arc<Classifier<Listener>>,
    order: Vec<Arc<Listener>>,
}

impl TunnelPorts {
    /// No tunnel port is in use.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }
    /// A tunnel port is in use (once more).
    pub fn insert(&mut self, odp: OdpPort, name: &str, protocols: &[u8], tp_port: u16) {
        for protocol in protocols {
            let same = |p: &&mut Port| p.odp == odp && p.protocol == *protocol;
            match self.ports.iter_mut().find(same) {
                Some(p) => p.refs += 1,
                None => self.ports.push(Port {
                    odp,
                    name: name.to_owned(),
                    protocol: *protocol,
                    tp_port,
                    refs: 1,
                }),
            }
        }
        self.rebuild();
    }

    /// A user of a tunnel port has gone.
    pub fn remove(&mut self, odp: OdpPort) {
        for p in self.ports.iter_mut().filter(|p| p.odp == odp) {
            p.refs -= 1;
        }
        self.ports.retain(|p| p.refs > 0);
        self.rebuild();
    }

    /// The devices that outer packets come in by; whether that changed.
    pub fn set_devices(&mut self, devices: Vec<IpDevice>) -> bool {
        if self.devices == devices {
            return false;
        }
        self.devices = devices;
        self.rebuild();
        true
    }

    fn rebuild(&mut self) {
        let listeners = Classifier::new();
        // Addresses are matched whole: a prefix would make masks narrower, and different ones for each packet.
        listeners.set_prefix_fields(&[]);
        self.order.clear();
        for device in &self.devices {
            for addr in &device.addrs {
                for port in &self.ports {
                    let m = listener_match(device.mac, *addr, port);
                    // Kinds that can't be told apart share the first one's port.
                    if listeners.find_exact(&m, 0, 0).is_some() {
                        continue;
                    }
                    let text = listener_text(device.mac, *addr, port);
                    let rule = Arc::new(Listener { cls: ClsRule::new(&m, 0, &[], 0), odp: port.odp, text });
                    listeners.insert(Arc::clone(&rule));
                    self.order.push(rule);
                }
            }
        }
        // Those with transport ports first, and IPv4 first among either.
        self.order.sort_by_key(|l| {
            let flow = l.cls.match_().flow;
            (flow.tp_dst.is_zero(), flow.dl_type.get() != 0x0800)
        });
        self.listeners = Arc::new(listeners);
    }

    /// Devices that routes lead to.
    pub fn devices(&self) -> &[IpDevice] {
        &self.devices
    }

    /// The lookup structure as it is now.
    pub fn listeners(&self) -> Arc<Classifier<Listener>> {
        Arc::clone(&self.listeners)
    }

    /// `tnl/ports/show`.
    pub fn show(&self, verbose: bool) -> String {
        let mut out = String::from("Listening ports:\n");
        if verbose {
            for l in &self.order {
                let _ = writeln!(out, "{}", l.text);
            }
            return out;
        }
        for p in &self.ports {
            let _ = writeln!(out, "{} ({}) ref_cnt={}", p.name, p.odp.0, p.refs);
        }
        out
    }
}

/// The datapath port that this packet is for, if it is one of ours; `wc` gets the bits that decided.
pub fn find(listeners: &Classifier<Listener>, flow: &Flow, wc: &mut Mask) -> Option<OdpPort> {
    listeners.lookup(0, flow, Some(wc)).map(|l| l.odp)
}

fn listener_match(mac: Mac, addr: IpAddr, port: &Port) -> Match {
    let mut m = Match::catch_all();
    let (f, w) = (&mut m.flow, &mut m.mask.0);
    f.dl_dst = mac;
    w.dl_dst = Mac([0xff; 6]);
    w.dl_type = Be16::MAX;
    match addr {
        IpAddr::V4(a) => {
            f.dl_type = Be16::new(0x0800);
            f.nw_dst = Be32::from(a);
            w.nw_dst = Be32::MAX;
        }
        IpAddr::V6(a) => {
            f.dl_type = Be16::new(0x86dd);
            f.ipv6_dst = Be128::from(a);
            w.ipv6_dst = Be128::MAX;
        }
    }
    f.nw_proto = port.protocol;
    w.nw_proto = 0xff;
    w.nw_frag = 0xff;
    if matches!(port.protocol, IPPROTO_TCP | IPPROTO_UDP) {
        f.tp_dst = Be16::new(port.tp_port);
        w.tp_dst = Be16::MAX;
    }
    m
}

fn listener_text(mac: Mac, addr: IpAddr, port: &Port) -> String {
    let (ethertype, ip) = match addr {
        IpAddr::V4(_) => ("0x0800", "ipv4"),
        IpAddr::V6(_) => ("0x86dd", "ipv6"),
    };
    let Port { odp, name, protocol, tp_port, .. } = port;
    let mut out = format!(
        "{name} ({}) : eth(dst={mac}),eth_type({ethertype}),{ip}(dst={addr},proto={protocol},frag=no)",
        odp.0
    );
    match *protocol {
        IPPROTO_TCP => {
            let _ = write!(out, ",tcp(dst={tp_port})");
        }
        IPPROTO_UDP => {
            let _ = write!(out, ",udp(dst={tp_port})");
        }
        IPPROTO_GRE => {}
        _ => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_to_an_address_of_ours_finds_its_port() {
        let mut t = TunnelPorts::default();
        t.insert(OdpPort(4789), "vxlan_sys_4789", &[IPPROTO_UDP], 4789);
        t.insert(OdpPort(4789), "vxlan_sys_4789", &[IPPROTO_UDP], 4789);
        t.insert(OdpPort(3), "gre_sys", &[IPPROTO_GRE], 0);
        t.insert(OdpPort(4), "erspan_sys", &[IPPROTO_GRE], 0);
        let mac: Mac = "aa:55:aa:55:00:00".parse().unwrap();
        let addrs = vec!["1.1.2.88".parse().unwrap()];
        assert!(t.set_devices(vec![IpDevice { name: "br0".into(), mac, addrs }]));
        assert_eq!(
            t.show(false),
            "Listening ports:\nvxlan_sys_4789 (4789) ref_cnt=2\ngre_sys (3) ref_cnt=1\nerspan_sys (4) ref_cnt=1\n"
        );
        assert_eq!(
            t.show(true),
            "Listening ports:\n\
             vxlan_sys_4789 (4789) : eth(dst=aa:55:aa:55:00:00),eth_type(0x0800),ipv4(dst=1.1.2.88,proto=17,frag=no),udp(dst=4789)\n\
             gre_sys (3) : eth(dst=aa:55:aa:55:00:00),eth_type(0x0800),ipv4(dst=1.1.2.88,proto=47,frag=no)\n"
        );
        let mut flow = Flow::zeroed();
        flow.dl_dst = mac;
        flow.dl_type = Be16::new(0x0800);
        flow.nw_dst = Be32::new(0x0101_0258);
        (flow.nw_proto, flow.tp_dst) = (17, Be16::new(4789));
        let mut wc = Mask::default();
        assert_eq!(find(&t.listeners(), &flow, &mut wc), Some(OdpPort(4789)));
        assert_eq!((wc.0.nw_dst, wc.0.tp_dst, wc.0.nw_src), (Be32::MAX, Be16::MAX, Be32::ZERO));
        flow.tp_dst = Be16::new(4790);
        assert_eq!(find(&t.listeners(), &flow, &mut wc), None);
        t.remove(OdpPort(4789));
        t.remove(OdpPort(4789));
        flow.tp_dst = Be16::new(4789);
        assert_eq!(find(&t.listeners(), &flow, &mut wc), None);
    }
}
