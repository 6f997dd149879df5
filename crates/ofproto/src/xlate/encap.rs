//! `encap(...)` and `decap(...)`: headers in front of a packet, and packets that begin with another header
//! than Ethernet's.
//!
//! Either action changes the key's packet type at once. The datapath action comes with the next commit, which
//! is before the next `encap` at the latest: what was pushed can so be changed by `set_field` without further
//! datapath actions. What lies behind a header that is taken off is unknown; the packet recirculates.

use std::sync::Arc;

use ib_dpif::Action as Odp;
use ib_flow::Flow;
use ib_flow::key::Nsh;
use ib_openflow::action::{Encap, EncapProp};
use ib_packet::{Be16, Be32, Mac};

use super::commit::{count_mpls, is_mpls};
use super::trace::Kind;
use super::{Ctx, XlateError};

const ETHERNET: u32 = 0;
const IPV4: u32 = 0x1_0800;
const IPV6: u32 = 0x1_86dd;
const NSH: u32 = 0x1_894f;
const MPLS: u32 = 0x1_8847;
const MPLS_MC: u32 = 0x1_8848;

/// A header that the next commit pushes or pops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// Push what the key's packet type says; TLVs of an NSH with it.
    encap: Option<Arc<[u8]>>,
    /// Pop what the packet begins with.
    decap: bool,
}

impl Ctx<'_> {
    fn unsupported(&mut self, text: String) {
        self.report(Kind::Action, || text);
        self.error = Some(XlateError::UnsupportedPacketType);
    }

    /// `encap(...)`.
    pub fn encap(&mut self, encap: &Encap) {
        self.commit();
        let old = self.flow.packet_type.get();
        let mut md2 = Vec::new();
        match encap.packet_type.get() {
            ETHERNET => {
                self.wc.0.dl_type = Be16::MAX;
                if old >> 16 != 1 {
                    return self.unsupported(
                        "Dropping packet as encap(ethernet) is not supported for packet type ethernet."
                            .into(),
                    );
                }
                self.flow.packet_type = Be32::ZERO;
                self.flow.dl_src = Mac::default();
                self.flow.dl_dst = Mac::default();
                self.flow.dl_type = Be16::new(old as u16);
            }
            NSH => {
                let np = match old {
                    ETHERNET => 3,
                    IPV4 => 1,
                    IPV6 => 2,
                    NSH => 4,
                    _ => {
                        let (ns, kind) = (old >> 16, old & 0xffff);
                        return self.unsupported(format!(
                            "Dropping packet as encap(nsh) is not supported for packet type ({ns},{kind:#x})"
                        ));
                    }
                };
                let mut mdtype = 1;
                for p in &encap.props {
                    match p {
                        EncapProp::NshMdType(t) => mdtype = *t,
                        EncapProp::NshTlv { class, kind, data } => {
                            md2.extend_from_slice(&class.to_be_bytes());
                            md2.push(*kind);
                            md2.push(u8::try_from(data.len()).unwrap_or(u8::MAX));
                            md2.extend_from_slice(data);
                            md2.resize(md2.len().next_multiple_of(4), 0);
                        }
                    }
                }
                super::actions::clear_l3(&mut self.flow);
                self.flow.packet_type = encap.packet_type;
                self.flow.dl_type = Be16::new(0x894f);
                // Tags are behind the header, then.
                self.flow.vlans = Default::default();
                self.base.vlans = Default::default();
                self.flow.nsh = Nsh { ttl: 63, mdtype, np, path_hdr: Be32::new(0xff), ..Nsh::default() };
            }
            t @ (MPLS | MPLS_MC) => {
                let kind = Be16::new(t as u16);
                self.flow.packet_type = encap.packet_type;
                if !is_mpls(self.flow.dl_type) {
                    // The label of RFC 3032 that says which IP is below.
                    let label = if self.flow.dl_type.get() == 0x86dd { 2 } else { 0 };
                    super::actions::clear_l3(&mut self.flow);
                    self.flow.mpls_lse[0] = Be32::new(label << 12 | 0x100 | 64);
                } else {
                    count_mpls(&self.flow, &mut self.wc);
                    self.wc.0.mpls_lse[0] = Be32::MAX;
                    let top = self.flow.mpls_lse[0].get();
                    self.flow.mpls_lse.copy_within(..ib_flow::key::N_MPLS - 1, 1);
                    self.flow.mpls_lse[0] = Be32::new(top & !0x100);
                }
                self.flow.dl_type = kind;
            }
            t => {
                let (ns, kind) = (t >> 16, t & 0xffff);
                return self.unsupported(format!(
                    "Dropping packet as packet type ({ns},{kind:#x}) is not supported"
                ));
            }
        }
        self.pending.encap = Some(md2.into());
    }

    /// `decap(...)`. Returns whether the packet must be looked at anew.
    pub fn decap(&mut self, to: Option<Be32>) -> bool {
        // A header of our own must be there before it can go.
        self.commit();
        match self.flow.packet_type.get() {
            ETHERNET => {
                if self.flow.vlans[0].is_present() {
                    self.unsupported("Dropping packet, cannot decap Ethernet if VLAN is present.".into());
                    return false;
                }
                self.flow.packet_type = Be32::new(1 << 16 | u32::from(self.flow.dl_type.get()));
                false
            }
            NSH => {
                let np = self.flow.nsh.np;
                let packet_type = match np {
                    1 => IPV4,
                    2 => IPV6,
                    3 => ETHERNET,
                    4 => NSH,
                    _ => {
                        self.unsupported(format!(
                            "Dropping packet as NSH next protocol {np} is not supported"
                        ));
                        return false;
                    }
                };
                self.wc.0.nsh.np = 0xff;
                if packet_type == ETHERNET {
                    // Whose addresses nobody has seen yet.
                    (self.flow.dl_src, self.flow.dl_dst) = Default::default();
                    (self.base.dl_src, self.base.dl_dst) = Default::default();
                }
                self.flow.packet_type = Be32::new(packet_type);
                self.pending.decap = true;
                true
            }
            MPLS | MPLS_MC => {
                let n = count_mpls(&self.flow, &mut self.wc);
                let to = to.map_or(ETHERNET, Be32::get);
                let below = if to == ETHERNET { 0x6558 } else { to as u16 };
                let dl_type = if n > 1 && to == ETHERNET { self.flow.dl_type.get() } else { below };
                self.flow.packet_type = Be32::new(to);
                self.flow.mpls_lse.copy_within(1.., 0);
                self.flow.mpls_lse[ib_flow::key::N_MPLS - 1] = Be32::ZERO;
                self.flow.dl_type = Be16::new(if n == 0 { below } else { dl_type });
                self.pending.decap = true;
                true
            }
            t => {
                let (ns, kind) = (t >> 16, t & 0xffff);
                self.unsupported(format!(
                    "Dropping packet as the decap() does not support packet type ({ns},{kind:#x})"
                ));
                false
            }
        }
    }

    /// Pushes and pops what is pending. Members of the base that the key will be compared with next take the
    /// key's values.
    pub(super) fn commit_encap(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let (flow, base) = (&self.flow, &mut self.base);
        if let Some(md2) = pending.encap {
            match flow.packet_type.get() {
                ETHERNET => {
                    self.out.push(Odp::PushEth { dst: flow.dl_dst, src: flow.dl_src });
                    (base.dl_src, base.dl_dst) = (flow.dl_src, flow.dl_dst);
                }
                NSH => {
                    self.out.push(Odp::PushNsh { nsh: flow.nsh, md2 });
                    pushed(flow, base);
                    base.nsh = flow.nsh;
                }
                _ => {
                    self.out.push(Odp::AddMpls { lse: flow.mpls_lse[0], ethertype: flow.dl_type });
                    pushed(flow, base);
                    base.mpls_lse = flow.mpls_lse;
                }
            }
            base.packet_type = flow.packet_type;
            base.dl_type = flow.dl_type;
        } else if pending.decap || flow.packet_type != base.packet_type {
            match base.packet_type.get() {
                ETHERNET => {
                    self.out.push(Odp::PopEth);
                    base.packet_type = flow.packet_type;
                    (base.dl_src, base.dl_dst) = (flow.dl_src, flow.dl_dst);
                }
                NSH => {
                    self.out.push(Odp::PopNsh);
                    base.packet_type = flow.packet_type;
                    base.dl_type = flow.dl_type;
                }
                // A pipeline of frames had it from a tunnel of packets: the label stack stays.
                MPLS | MPLS_MC if pending.decap || flow.packet_type.get() != ETHERNET => {
                    self.out.push(Odp::PopMpls(flow.dl_type));
                    base.packet_type = flow.packet_type;
                    base.dl_type = flow.dl_type;
                    base.mpls_lse = flow.mpls_lse;
                }
                _ if flow.packet_type.get() == ETHERNET => {
                    self.out.push(Odp::PushEth { dst: flow.dl_dst, src: flow.dl_src });
                    (base.dl_src, base.dl_dst) = (flow.dl_src, flow.dl_dst);
                    base.packet_type = flow.packet_type;
                }
                _ => {}
            }
        }
    }
}

/// What is behind a pushed header is out of reach: base and key agree about it.
fn pushed(flow: &Flow, base: &mut Flow) {
    let (priority, mark) = (base.skb_priority, base.pkt_mark);
    *base = flow.clone();
    (base.skb_priority, base.pkt_mark) = (priority, mark);
}
