//! Multicast in ordinary switching: to the ports that asked for the group, to routers, and to ports flagged for
//! flooding (RFC 4541). The table is [`ib_l2::McastSnooping`]; membership messages and queries teach it on their way
//! through, which takes the slow path: each of them must be seen.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ib_flow::Flow;
use ib_l2::McastSnooping;
use ib_l2::mcast_messages::{self as messages, Change};
use ib_l2::mcast_snooping::Protocol;
use ib_packet::{Be16, Be32, Be128, csum};

use super::normal::XVlan;
use super::{Ctx, SLOW_ACTION};
use crate::ofproto::{BundleId, Ofproto};
use crate::xcfg::XBundle;

const IP: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

impl Ctx<'_> {
    /// Forwards a multicast packet by the snooping table. Returns false if snooping is off or the packet is none of
    /// its business.
    pub(super) fn mcast_normal(&mut self, in_bundle: &Arc<XBundle>, vlan: &XVlan) -> bool {
        let dst = self.flow.dl_dst;
        let kind = self.flow.dl_type.get();
        if dst.is_broadcast() || !dst.is_multicast() || !matches!(kind, IP | IPV6) {
            return false;
        }
        let of = Arc::clone(&self.bridge.of);
        if of.mcast.read().is_none() {
            return false;
        }
        self.wc.0.nw_proto = 0xff;
        let message = self.flow.tp_src.get() as u8;
        if kind == IP && self.flow.nw_proto == 2 {
            self.slow |= SLOW_ACTION;
            let is_membership = messages::is_igmp_membership(message);
            if is_membership || message == messages::IGMP_QUERY {
                self.learn_igmp(&of, message, in_bundle, vlan);
            }
            if is_membership {
                self.forward_report(&of, in_bundle, vlan);
            } else {
                self.detail("multicast traffic, flooding");
                self.flood_vlan(in_bundle, vlan);
            }
            return true;
        }
        if kind == IPV6 && self.flow.nw_proto == 58 {
            self.wc.0.tp_src = Be16::MAX;
            let is_membership = messages::is_mld_membership(message);
            if is_membership || message == messages::MLD_QUERY {
                self.slow |= SLOW_ACTION;
                self.learn_mld(&of, message, in_bundle, vlan);
                if is_membership {
                    self.forward_report(&of, in_bundle, vlan);
                } else {
                    self.detail("MLD query, flooding");
                    self.flood_vlan(in_bundle, vlan);
                }
                return true;
            }
        }
        let group = self.mcast_group(kind);
        if is_local(group) {
            self.detail("RFC4541: section 2.1.2, item 2, flooding");
            self.flood_vlan(in_bundle, vlan);
            return true;
        }
        self.forward_group(&of, group, in_bundle, vlan);
        true
    }

    /// The destination as the table has it.
    fn mcast_group(&mut self, kind: u16) -> Ipv6Addr {
        if kind == IP {
            self.wc.0.nw_dst = Be32::MAX;
            messages::group_of_v4(self.flow.nw_dst.get())
        } else {
            self.wc.0.ipv6_dst = Be128::MAX;
            Ipv6Addr::from(self.flow.ipv6_dst.to_bytes())
        }
    }

    /// Bundles that the table names, each with what a trace says of it.
    fn forward_group(&mut self, of: &Ofproto, group: Ipv6Addr, in_bundle: &XBundle, vlan: &XVlan) {
        let mut out = Vec::new();
        let flood = {
            let table = of.mcast.read();
            let Some(table) = table.as_ref() else { return };
            match table.members(group, vlan.vid()) {
                Some(members) => {
                    for m in members {
                        out.extend(self.mcast_target(m.port, in_bundle, &GROUP));
                    }
                    self.flood_targets(table, in_bundle, &mut out);
                    self.router_targets(table, in_bundle, vlan, &mut out);
                    false
                }
                None if table.config().flood_unregistered => true,
                None => {
                    self.router_targets(table, in_bundle, vlan, &mut out);
                    self.flood_targets(table, in_bundle, &mut out);
                    false
                }
            }
        };
        if flood {
            self.detail("unregistered multicast, flooding");
            self.flood_vlan(in_bundle, vlan);
        }
        self.output_bundles(&out, vlan);
    }

    fn forward_report(&mut self, of: &Ofproto, in_bundle: &XBundle, vlan: &XVlan) {
        let mut out = Vec::new();
        {
            let table = of.mcast.read();
            let Some(table) = table.as_ref() else { return };
            self.router_targets(table, in_bundle, vlan, &mut out);
            for port in table.report_ports() {
                out.extend(self.mcast_target(*port, in_bundle, &REPORT));
            }
        }
        self.output_bundles(&out, vlan);
    }

    fn output_bundles(&mut self, out: &[Arc<XBundle>], vlan: &XVlan) {
        for bundle in out {
            self.output_bundle(bundle, vlan);
        }
    }

    fn router_targets(
        &mut self,
        table: &McastSnooping<BundleId>,
        in_bundle: &XBundle,
        vlan: &XVlan,
        out: &mut Vec<Arc<XBundle>>,
    ) {
        for router in table.routers() {
            let known = self.bridge.bundles.contains_key(&router.port);
            if known && router.vlan != vlan.vid() {
                self.detail("mcast router is on another vlan, dropping");
            } else {
                out.extend(self.mcast_target(router.port, in_bundle, &ROUTER));
            }
        }
    }

    fn flood_targets(
        &mut self,
        table: &McastSnooping<BundleId>,
        in_bundle: &XBundle,
        out: &mut Vec<Arc<XBundle>>,
    ) {
        for port in table.flood_ports() {
            out.extend(self.mcast_target(*port, in_bundle, &FLOOD));
        }
    }

    fn mcast_target(&mut self, id: BundleId, in_bundle: &XBundle, texts: &Texts) -> Option<Arc<XBundle>> {
        let bundle = self.bridge.bundles.get(&id).cloned();
        match bundle {
            Some(b) if b.id != in_bundle.id => {
                self.detail(texts.forward);
                Some(b)
            }
            Some(_) => {
                self.detail(texts.input);
                None
            }
            None => {
                self.detail(texts.unknown);
                None
            }
        }
    }

    fn learn_igmp(&mut self, of: &Ofproto, message: u8, in_bundle: &XBundle, vlan: &XVlan) {
        let Some(bytes) = self.taught_bytes() else { return };
        let (name, vid) = (&in_bundle.name, vlan.vid());
        if !csum::checksum(&bytes).is_zero() {
            self.debug(|| {
                format!("multicast snooping received bad IGMP checksum on port {name} in VLAN {vid}")
            });
            return;
        }
        let addr = self.flow.igmp_group_ip4;
        let group = messages::group_of_v4(addr.get());
        let text = std::net::Ipv4Addr::from(addr.get());
        match message {
            messages::IGMPV1_REPORT | messages::IGMPV2_REPORT => {
                let protocol =
                    if message == messages::IGMPV1_REPORT { Protocol::IgmpV1 } else { Protocol::IgmpV2 };
                if teach(of, [Change::Join(group, protocol)], vid, in_bundle.id) > 0 {
                    self.debug(|| {
                        format!("multicast snooping learned that {text} is on port {name} in VLAN {vid}")
                    });
                }
            }
            messages::IGMPV2_LEAVE => {
                if teach(of, [Change::Leave(group)], vid, in_bundle.id) > 0 {
                    self.debug(|| {
                        format!("multicast snooping leaving {text} is on port {name} in VLAN {vid}")
                    });
                }
            }
            messages::IGMP_QUERY => {
                let source = std::net::Ipv4Addr::from(self.flow.nw_src.get());
                if !source.is_unspecified() && teach_query(of, vid, in_bundle.id) {
                    self.debug(|| {
                        format!("multicast snooping query from {source} is on port {name} in VLAN {vid}")
                    });
                }
            }
            _ => {
                let count = teach(of, messages::igmpv3_records(&bytes), vid, in_bundle.id);
                self.processed(count, name, vid);
            }
        }
    }

    fn learn_mld(&mut self, of: &Ofproto, message: u8, in_bundle: &XBundle, vlan: &XVlan) {
        let Some(bytes) = self.taught_bytes() else { return };
        let (name, vid) = (&in_bundle.name, vlan.vid());
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let pseudo = csum::pseudo_v6(self.flow.ipv6_src, self.flow.ipv6_dst, 58, len);
        if !pseudo.bytes(&bytes).checksum().is_zero() {
            self.debug(|| {
                format!("multicast snooping received bad MLD checksum on port {name} in VLAN {vid}")
            });
            return;
        }
        if message == messages::MLD_QUERY {
            if !self.flow.ipv6_src.is_zero() && teach_query(of, vid, in_bundle.id) {
                self.debug(|| format!("multicast snooping query on port {name} in VLAN {vid}"));
            }
            return;
        }
        let count = teach(of, messages::mld_changes(&bytes), vid, in_bundle.id);
        self.processed(count, name, vid);
    }

    fn processed(&mut self, count: usize, name: &str, vid: u16) {
        if count > 0 {
            self.debug(|| {
                format!("multicast snooping processed {count} addresses on port {name} in VLAN {vid}")
            });
        }
    }

    /// The message of the packet that is to teach, if there is one.
    fn taught_bytes(&self) -> Option<Vec<u8>> {
        let packet = self.packet.filter(|_| self.side_effects)?;
        let mut flow = Flow::zeroed();
        let layers = ib_flow::extract(packet, &ib_flow::Metadata::default(), &mut flow);
        let end = packet.len().checked_sub(layers.l2_pad.into())?;
        packet.data().get(usize::from(layers.l4?)..end).map(<[u8]>::to_vec)
    }

    /// Reports to the trace, or for debugging.
    pub(super) fn debug(&mut self, text: impl FnOnce() -> String) {
        match self.trace.as_deref_mut() {
            Some(t) => {
                t.report(super::trace::Kind::Detail, text());
            }
            None => {
                ib_base::vlog_dbg_rl!(
                    ib_base::vlog::module::OFPROTO_DPIF_XLATE,
                    (60, 60),
                    "bridge {}: {}",
                    self.bridge.of.name,
                    text()
                );
            }
        }
    }
}

/// Packets that every host gets: 224.0.0.0/24, and all nodes.
fn is_local(group: Ipv6Addr) -> bool {
    match group.to_ipv4_mapped() {
        Some(v4) => v4.octets()[..3] == [224, 0, 0],
        None => group == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    }
}

/// Applies changes; how many did something.
fn teach(of: &Ofproto, changes: impl IntoIterator<Item = Change>, vid: u16, port: BundleId) -> usize {
    let now = of.clock.now();
    let mut table = of.mcast.write();
    let Some(table) = table.as_mut() else { return 0 };
    let (mut count, mut news) = (0, false);
    for change in changes {
        let (did, forwarding) = table.apply(change, vid, port, now);
        count += usize::from(did);
        news |= forwarding;
    }
    if news {
        of.changed.bump();
    }
    count
}

fn teach_query(of: &Ofproto, vid: u16, port: BundleId) -> bool {
    let now = of.clock.now();
    let news = of.mcast.write().as_mut().is_some_and(|t| t.query(vid, port, now));
    if news {
        of.changed.bump();
    }
    news
}

/// What a trace says about a port.
struct Texts {
    forward: &'static str,
    input: &'static str,
    unknown: &'static str,
}

const GROUP: Texts = Texts {
    forward: "forwarding to mcast group port",
    input: "mcast group port is input port, dropping",
    unknown: "mcast group port is unknown, dropping",
};
const ROUTER: Texts = Texts {
    forward: "forwarding to mcast router port",
    input: "mcast router port is input port, dropping",
    unknown: "mcast router port is unknown, dropping",
};
const FLOOD: Texts = Texts {
    forward: "forwarding to mcast flood port",
    input: "mcast flood port is input port, dropping",
    unknown: "mcast flood port is unknown, dropping",
};
const REPORT: Texts = Texts {
    forward: "forwarding report to mcast flagged port",
    input: "mcast port is input port, dropping the Report",
    unknown: "mcast port is unknown, dropping the report",
};

#[cfg(test)]
mod tests {
    use crate::config::McastConfig;
    use crate::testing::Lab;

    /// An IGMPv2 report for 225.1.1.1 by 10.0.0.1.
    const REPORT: &str = "01005e010101505400000001080046c0002000010000010238140a000001\
                          e101010194040000160007fde1010101";

    #[test]
    fn groups_are_learned_and_used() {
        let mut lab = Lab::new().bridge("br0", &[1, 2, 3]).flows("br0", "actions=normal");
        let br = lab.switch.bridge_mut("br0").unwrap();
        br.set_mcast_snooping(Some(McastConfig::default()));
        let udp = "in_port=2,udp,dl_dst=01:00:5e:01:01:01,nw_dst=225.1.1.1";
        let mask = "Megaflow: recirc_id=0,eth,udp,in_port=2,dl_src=00:00:00:00:00:00,\
                    dl_dst=01:00:5e:01:01:01,nw_dst=225.1.1.1,nw_frag=no\nDatapath actions: ";
        assert_eq!(lab.trace_tail(&["br0", udp]), format!("{mask}100,1,3"));
        let report = lab.appctl("ofproto/trace", &["br0", "in_port=1", REPORT]);
        assert!(report.contains("learned that 225.1.1.1 is on port p1 in VLAN 0"), "{report}");
        assert_eq!(lab.trace_tail(&["br0", udp]), format!("{mask}1"));
        assert_eq!(
            lab.appctl("mdb/show", &["br0"]),
            " port  VLAN  protocol  GROUP                Age\n    1     0  IGMPv2    225.1.1.1           0\n"
        );
        lab.switch.bridge_mut("br0").unwrap().set_mcast_snooping(None);
        assert_eq!(lab.appctl("mdb/show", &["br0"]), "multicast snooping is disabled");
    }
}
