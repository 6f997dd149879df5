//! Actions and instructions to bytes.
//!
//! One meaning has several wire forms by version: the standard's own where there is one, else Nicira's. An
//! action that a version cannot carry at all is left out; `Protocols` of a parsed flow say so beforehand.

use std::borrow::Cow;

use ib_flow::{FieldId, FieldValue, OfPort, Subfield};

use crate::action::*;
use crate::error::NX;
use crate::learn_wire;
use crate::message::Version;
use crate::oxm;
use crate::ports::port_to_wire32;
use crate::wire::Buf;

/// Appends actions. Instructions among them (`goto_table`, ...) take their Nicira form or are left out; use
/// [`encode_instructions`] for a flow.
pub fn encode_actions(b: &mut Buf, actions: &[Action], version: Version) {
    for a in actions {
        encode_one(b, a, version);
    }
}

/// Actions as a flow with this match sends them. From OpenFlow 1.2 on `mod_tp_src` and `mod_tp_dst` are `set_field` on
/// the ports of one protocol, which the match tells; without one it is TCP. Since 1.1 `mod_vlan_vid` and `mod_vlan_pcp`
/// push a tag where the packet has none by then.
pub(crate) fn for_match<'a>(
    actions: &'a [Action],
    m: &ib_flow::Match,
    version: Version,
) -> Cow<'a, [Action]> {
    let mut actions = Cow::Borrowed(actions);
    if version >= Version::V11 && actions.iter().any(may_push) {
        actions = Cow::Owned(with_tags(&actions, m.flow.vlans.map(|v| v.tci.get())));
    }
    let ports = match m.flow.nw_proto {
        17 => (FieldId::UdpSrc, FieldId::UdpDst),
        132 => (FieldId::SctpSrc, FieldId::SctpDst),
        _ => return actions,
    };
    if version < Version::V12 || !actions.iter().any(sets_l4) {
        return actions;
    }
    Cow::Owned(with_ports(&actions, ports))
}

fn may_push(a: &Action) -> bool {
    match a {
        Action::SetVlanVid { push_if_needed, .. } | Action::SetVlanPcp { push_if_needed, .. } => {
            *push_if_needed
        }
        Action::Clone(list) | Action::WriteActions(list) => list.iter().any(may_push),
        _ => false,
    }
}

/// The same with tags pushed only where packets have none: `tags` are the control words of those that they have.
fn with_tags<const N: usize>(actions: &[Action], mut tags: [u16; N]) -> Vec<Action> {
    const PRESENT: u16 = ib_flow::key::Vlan::CFI;
    let one = |a: &Action| {
        let mut a = a.clone();
        match &mut a {
            Action::SetVlanVid { push_if_needed, .. } | Action::SetVlanPcp { push_if_needed, .. } => {
                *push_if_needed &= tags[0] & PRESENT == 0;
                tags[0] |= PRESENT;
            }
            Action::PushVlan(_) => {
                tags.rotate_right(1);
                tags[0] = PRESENT;
            }
            Action::StripVlan(_) => {
                tags.rotate_left(1);
                tags[N - 1] = 0;
            }
            Action::SetField(SetField { field: FieldId::VlanTci, value, .. }) => {
                if let [hi, lo] = value[..] {
                    tags[0] = u16::from_be_bytes([hi, lo]);
                }
            }
            Action::Clone(list) | Action::WriteActions(list) => *list = with_tags(list, tags),
            _ => {}
        }
        a
    };
    actions.iter().map(one).collect()
}

fn sets_l4(a: &Action) -> bool {
    match a {
        Action::SetL4Src(_) | Action::SetL4Dst(_) => true,
        Action::Clone(list) | Action::WriteActions(list) => list.iter().any(sets_l4),
        _ => false,
    }
}

fn with_ports(actions: &[Action], ports: (FieldId, FieldId)) -> Vec<Action> {
    let set = |field, port: u16| {
        Action::SetField(SetField {
            field,
            value: port.to_be_bytes().into(),
            mask: [0xff; 2].into(),
            form: SetFieldForm::SetField,
        })
    };
    let one = |a: &Action| match a {
        Action::SetL4Src(port) => set(ports.0, *port),
        Action::SetL4Dst(port) => set(ports.1, *port),
        Action::Clone(list) => Action::Clone(with_ports(list, ports)),
        Action::WriteActions(list) => Action::WriteActions(with_ports(list, ports)),
        other => other.clone(),
    };
    actions.iter().map(one).collect()
}

/// Appends a flow's behaviour: actions in OpenFlow 1.0, instructions later.
pub fn encode_instructions(b: &mut Buf, actions: &[Action], version: Version) {
    if version == Version::V10 {
        encode_actions(b, actions, version);
        return;
    }
    let is_inst = |a: &Action| match a {
        Action::Meter(_) => version < Version::V15,
        Action::ClearActions
        | Action::WriteActions(_)
        | Action::WriteMetadata { .. }
        | Action::GotoTable(_) => true,
        _ => false,
    };
    let mut i = 0;
    while i < actions.len() {
        let start = b.len();
        match &actions[i] {
            a if !is_inst(a) => {
                b.u16(4);
                b.u16(0);
                b.u32(0);
                while i < actions.len() && !is_inst(&actions[i]) {
                    encode_one(b, &actions[i], version);
                    i += 1;
                }
                b.patch_len(start + 2, start);
                continue;
            }
            Action::Meter(id) => {
                b.u16(6);
                b.u16(8);
                b.u32(*id);
            }
            Action::ClearActions => {
                b.u16(5);
                b.u16(8);
                b.u32(0);
            }
            // An empty set is not sent.
            Action::WriteActions(set) if set.is_empty() => {}
            Action::WriteActions(set) => {
                b.u16(3);
                b.u16(0);
                b.u32(0);
                encode_actions(b, set, version);
                b.patch_len(start + 2, start);
            }
            Action::WriteMetadata { value, mask } => {
                b.u16(2);
                b.u16(24);
                b.u32(0);
                b.u64(*value);
                b.u64(*mask);
            }
            Action::GotoTable(table) => {
                b.u16(1);
                b.u16(8);
                b.u8(*table);
                b.zeros(3);
            }
            _ => {}
        }
        i += 1;
    }
}

/// A standard action: header, body, padding, length.
fn std_action(b: &mut Buf, kind: u16, body: impl FnOnce(&mut Buf)) {
    let start = b.len();
    b.u16(kind);
    b.u16(0);
    body(b);
    b.pad8(start);
    b.patch_len(start + 2, start);
}

/// A Nicira action, at least 16 bytes.
fn nx_action(b: &mut Buf, subtype: u16, body: impl FnOnce(&mut Buf)) {
    exp_action(b, NX, subtype, body);
}

fn exp_action(b: &mut Buf, vendor: u32, subtype: u16, body: impl FnOnce(&mut Buf)) {
    let start = b.len();
    b.u16(0xffff);
    b.u16(0);
    b.u32(vendor);
    b.u16(subtype);
    body(b);
    b.pad8(start);
    b.patch_len(start + 2, start);
}

/// Pads an action that began at `start` to `n` bytes.
fn pad_to(b: &mut Buf, start: usize, n: usize) {
    let len = b.len() - start;
    b.zeros(n.saturating_sub(len));
}

fn packed(sf: &Subfield) -> u16 {
    (sf.ofs << 6 | (sf.n_bits.wrapping_sub(1) & 0x3f)) as u16
}

fn hash_fields(f: HashFields) -> u16 {
    match f {
        HashFields::EthSrc => 0,
        HashFields::SymmetricL4 => 1,
        HashFields::SymmetricL3L4 => 2,
        HashFields::SymmetricL3L4Udp => 3,
        HashFields::NwSrc => 4,
        HashFields::NwDst => 5,
        HashFields::SymmetricL3 => 6,
    }
}

fn output(b: &mut Buf, port: OfPort, max_len: u16, v10: bool) {
    std_action(b, 0, |b| {
        if v10 {
            b.u16(port.0);
            b.u16(max_len);
        } else {
            b.u32(port_to_wire32(port));
            b.u16(max_len);
        }
    });
}

fn encode_one(b: &mut Buf, a: &Action, version: Version) {
    use Version::*;
    let v10 = version == V10;
    let v11 = version == V11;
    let legacy = v10 || v11;
    let set = |b: &mut Buf, field: FieldId, v: u128| {
        let n = field.field().n_bytes;
        let v = FieldValue::from_u128(v);
        std_action(b, 25, |b| {
            oxm::put_entry(b, field, version.to_wire(), v.bytes(n), FieldValue::ONES.bytes(n))
        });
    };
    // Numbers of the same action in 1.0 and 1.1.
    let old = |b: &mut Buf, n10: u16, n11: u16, body: &dyn Fn(&mut Buf)| {
        std_action(b, if v10 { n10 } else { n11 }, body);
    };
    match a {
        Action::Output { port, max_len } => output(b, *port, *max_len, v10),
        Action::OutputReg { src, max_len } => {
            // The first form has room for a 4-byte header only.
            let code = src.field.field().code(0);
            if code.is_some_and(|c| c.class != 0xffff) {
                nx_action(b, 15, |b| {
                    b.u16(packed(src));
                    oxm::put_header(b, src.field, 0, false);
                    b.u16(*max_len);
                    b.zeros(6);
                });
            } else {
                let start = b.len();
                nx_action(b, 32, |b| {
                    b.u16(packed(src));
                    b.u16(*max_len);
                    oxm::put_header(b, src.field, 0, false);
                    pad_to(b, start, 24);
                });
            }
        }
        Action::OutputTrunc { port, max_len } => nx_action(b, 39, |b| {
            b.u16(port.0);
            b.u32(*max_len);
        }),
        Action::Controller(c) => controller(b, c),
        Action::Enqueue { port, queue } => {
            if v10 {
                std_action(b, 11, |b| {
                    b.u16(port.0);
                    b.zeros(6);
                    b.u32(*queue);
                });
            } else {
                std_action(b, 21, |b| b.u32(*queue));
                output(b, *port, u16::MAX, false);
                nx_action(b, 5, |_| {});
            }
        }
        Action::Bundle(x) => bundle(b, x),
        Action::Group(id) => {
            if v10 {
                nx_action(b, 40, |b| {
                    b.u16(0);
                    b.u32(*id);
                });
            } else {
                std_action(b, 22, |b| b.u32(*id));
            }
        }
        Action::SetField(sf) => set_field(b, sf, version),
        Action::RegMove { src, dst } => match version {
            V10 | V11 | V12 | V13 | V14 => {
                nx_action(b, 6, |b| {
                    b.u16(src.n_bits as u16);
                    b.u16(src.ofs as u16);
                    b.u16(dst.ofs as u16);
                    oxm::put_header(b, src.field, 0, false);
                    oxm::put_header(b, dst.field, 0, false);
                });
            }
            V15 => std_action(b, 28, |b| copy_field(b, src, dst, version)),
        },
        Action::StackPush(sf) | Action::StackPop(sf) => {
            let start = b.len();
            nx_action(b, if matches!(a, Action::StackPush(_)) { 27 } else { 28 }, |b| {
                b.u16(sf.ofs as u16);
                oxm::put_header(b, sf.field, 0, false);
                b.u16(sf.n_bits as u16);
                pad_to(b, start, 24);
            });
        }
        Action::SetVlanVid { vid, push_if_needed } => {
            if legacy {
                if v11 && *push_if_needed {
                    std_action(b, 17, |b| b.u16(0x8100));
                }
                std_action(b, 1, |b| b.u16(*vid));
            } else {
                if *push_if_needed {
                    std_action(b, 17, |b| b.u16(0x8100));
                }
                set(b, FieldId::VlanVid, u128::from(vid | 0x1000));
            }
        }
        Action::SetVlanPcp { pcp, push_if_needed } => {
            if legacy {
                if v11 && *push_if_needed {
                    std_action(b, 17, |b| b.u16(0x8100));
                }
                std_action(b, 2, |b| b.u8(*pcp));
            } else {
                if *push_if_needed {
                    std_action(b, 17, |b| b.u16(0x8100));
                }
                set(b, FieldId::VlanPcp, (*pcp).into());
            }
        }
        Action::StripVlan(_) => std_action(b, if v10 { 3 } else { 18 }, |_| {}),
        Action::PushVlan(t) => {
            // OpenFlow 1.0 pushes a tag by setting one.
            if !v10 {
                std_action(b, 17, |b| b.bytes(&t.to_bytes()));
            }
        }
        Action::SetEthSrc(mac) | Action::SetEthDst(mac) => {
            let src = matches!(a, Action::SetEthSrc(_));
            if legacy {
                old(b, if src { 4 } else { 5 }, if src { 3 } else { 4 }, &|b| {
                    b.bytes(&mac.0);
                    b.zeros(6);
                });
            } else {
                let v = mac.0.iter().fold(0u128, |v, x| v << 8 | u128::from(*x));
                set(b, if src { FieldId::EthSrc } else { FieldId::EthDst }, v);
            }
        }
        Action::SetIpv4Src(ip) | Action::SetIpv4Dst(ip) => {
            let src = matches!(a, Action::SetIpv4Src(_));
            if legacy {
                old(b, if src { 6 } else { 7 }, if src { 5 } else { 6 }, &|b| b.bytes(&ip.to_bytes()));
            } else {
                set(b, if src { FieldId::IpSrc } else { FieldId::IpDst }, ip.get().into());
            }
        }
        Action::SetIpDscp(tos) => {
            if legacy {
                old(b, 8, 7, &|b| b.u8(*tos));
            } else {
                set(b, FieldId::IpDscp, (tos >> 2).into());
            }
        }
        Action::SetIpEcn(ecn) => match version {
            V10 => reg_load(b, FieldId::IpEcn, 0, 2, (*ecn).into()),
            V11 => std_action(b, 8, |b| b.u8(*ecn)),
            _ => set(b, FieldId::IpEcn, (*ecn).into()),
        },
        Action::SetIpTtl(ttl) => {
            if v10 {
                reg_load(b, FieldId::IpTtl, 0, 8, (*ttl).into());
            } else {
                std_action(b, 23, |b| b.u8(*ttl));
            }
        }
        Action::SetL4Src(port) | Action::SetL4Dst(port) => {
            let src = matches!(a, Action::SetL4Src(_));
            if legacy {
                old(b, if src { 9 } else { 10 }, if src { 9 } else { 10 }, &|b| b.u16(*port));
            } else {
                set(b, if src { FieldId::TcpSrc } else { FieldId::TcpDst }, (*port).into());
            }
        }
        Action::DecTtl(ids) => {
            if ids.is_empty() {
                if v10 {
                    nx_action(b, 18, |b| b.zeros(6));
                } else {
                    std_action(b, 24, |_| {});
                }
            } else {
                nx_action(b, 21, |b| {
                    b.u16(ids.len() as u16);
                    b.zeros(4);
                    for id in ids {
                        b.u16(*id);
                    }
                });
            }
        }
        Action::SetMplsLabel(label) => match version {
            V10 => nx_action(b, 30, |b| {
                b.u16(0);
                b.u32(*label);
            }),
            V11 => std_action(b, 13, |b| b.u32(*label)),
            _ => set(b, FieldId::MplsLabel, (*label).into()),
        },
        Action::SetMplsTc(tc) => match version {
            V10 => nx_action(b, 31, |b| b.u8(*tc)),
            V11 => std_action(b, 14, |b| b.u8(*tc)),
            _ => set(b, FieldId::MplsTc, (*tc).into()),
        },
        Action::SetMplsTtl(ttl) => {
            if v10 {
                nx_action(b, 25, |b| b.u8(*ttl));
            } else {
                std_action(b, 15, |b| b.u8(*ttl));
            }
        }
        Action::DecMplsTtl => {
            if v10 {
                nx_action(b, 26, |b| b.zeros(6));
            } else {
                std_action(b, 16, |_| {});
            }
        }
        Action::DecNshTtl => nx_action(b, 48, |b| b.zeros(6)),
        Action::PushMpls(t) | Action::PopMpls(t) => {
            let push = matches!(a, Action::PushMpls(_));
            if v10 {
                nx_action(b, if push { 23 } else { 24 }, |b| b.bytes(&t.to_bytes()));
            } else {
                std_action(b, if push { 19 } else { 20 }, |b| b.bytes(&t.to_bytes()));
            }
        }
        Action::DeleteField(field) => {
            let start = b.len();
            nx_action(b, 50, |b| {
                oxm::put_header(b, *field, 0, false);
                pad_to(b, start, 24);
            });
        }
        Action::SetTunnel { id, wide } => {
            if legacy {
                if !wide && *id <= u64::from(u32::MAX) {
                    nx_action(b, 2, |b| {
                        b.u16(0);
                        b.u32(*id as u32);
                    });
                } else {
                    nx_action(b, 9, |b| {
                        b.zeros(6);
                        b.u64(*id);
                    });
                }
            } else {
                set(b, FieldId::TunId, (*id).into());
            }
        }
        Action::SetQueue(q) => {
            if v10 {
                nx_action(b, 4, |b| {
                    b.u16(0);
                    b.u32(*q);
                });
            } else {
                std_action(b, 21, |b| b.u32(*q));
            }
        }
        Action::PopQueue => nx_action(b, 5, |_| {}),
        Action::FinTimeout { idle, hard } => nx_action(b, 19, |b| {
            b.u16(*idle);
            b.u16(*hard);
        }),
        Action::Resubmit { in_port, table, with_ct_orig, simple } => {
            if *with_ct_orig {
                nx_action(b, 44, |b| {
                    b.u16(in_port.0);
                    b.u8(*table);
                });
            } else if *simple && *table == 0xff {
                nx_action(b, 1, |b| b.u16(in_port.0));
            } else {
                nx_action(b, 14, |b| {
                    b.u16(in_port.0);
                    b.u8(*table);
                });
            }
        }
        Action::Learn(l) => {
            let v2 = learn_wire::needs_v2(l);
            nx_action(b, if v2 { 45 } else { 16 }, |b| learn_wire::encode(b, l, v2));
        }
        Action::Conjunction { id, clause, n_clauses } => nx_action(b, 34, |b| {
            b.u8(*clause);
            b.u8(*n_clauses);
            b.u32(*id);
        }),
        Action::Multipath(m) => nx_action(b, 10, |b| {
            b.u16(hash_fields(m.fields));
            b.u16(m.basis);
            b.u16(0);
            b.u16(match m.alg {
                MultipathAlg::ModuloN => 0,
                MultipathAlg::HashThreshold => 1,
                MultipathAlg::Hrw => 2,
                MultipathAlg::IterHash => 3,
            });
            b.u16(m.max_link);
            b.u32(m.arg);
            b.u16(0);
            b.u16(packed(&m.dst));
            oxm::put_header(b, m.dst.field, 0, false);
        }),
        Action::Note(data) => nx_action(b, 8, |b| b.bytes(data)),
        Action::Exit => nx_action(b, 17, |_| {}),
        // Never leaves the switch but in a continuation, which encodes it itself.
        Action::UnrollXlate { .. } => {}
        Action::Sample(s) => sample(b, s),
        Action::Clone(inner) => nx_action(b, 42, |b| {
            b.zeros(6);
            encode_actions(b, inner, version);
        }),
        Action::Ct(ct) => encode_ct(b, ct, version),
        Action::CtClear => nx_action(b, 43, |_| {}),
        Action::CheckPktLarger { len, dst } => {
            let start = b.len();
            nx_action(b, 49, |b| {
                b.u16(*len);
                b.u16(dst.ofs as u16);
                oxm::put_header(b, dst.field, 0, false);
                pad_to(b, start, 24);
            });
        }
        Action::DebugRecirc => nx_action(b, 255, |_| {}),
        Action::DebugSlow => nx_action(b, 254, |_| {}),
        Action::Encap(e) => nx_action(b, 46, |b| {
            b.u16(e.hdr_size);
            b.bytes(&e.packet_type.to_bytes());
            for p in &e.props {
                let start = b.len();
                b.u16(4);
                match p {
                    EncapProp::NshMdType(t) => {
                        b.u8(1);
                        b.u8(5);
                        b.u8(*t);
                    }
                    EncapProp::NshTlv { class, kind, data } => {
                        let n = data.len().min(247);
                        b.u8(2);
                        b.u8((8 + n).next_multiple_of(8) as u8);
                        b.u16(*class);
                        b.u8(*kind);
                        b.u8(n as u8);
                        b.bytes(&data[..n]);
                    }
                }
                b.pad8(start);
            }
        }),
        Action::Decap(t) => nx_action(b, 47, |b| {
            b.u16(0);
            b.u32(t.map_or(0xfffe, |t| t.get()));
        }),
        Action::Meter(id) => {
            if version >= V15 {
                std_action(b, 29, |b| b.u32(*id));
            }
        }
        // Instructions have no action form, but for Nicira's write_metadata and OpenFlow 1.0's goto.
        Action::WriteMetadata { value, mask } => {
            if v10 {
                nx_action(b, 22, |b| {
                    b.zeros(6);
                    b.u64(*value);
                    b.u64(*mask);
                });
            }
        }
        Action::GotoTable(table) => {
            if v10 {
                nx_action(b, 14, |b| {
                    b.u16(OfPort::IN_PORT.0);
                    b.u8(*table);
                });
            }
        }
        Action::ClearActions | Action::WriteActions(_) => {}
    }
}

fn copy_field(b: &mut Buf, src: &Subfield, dst: &Subfield, version: Version) {
    b.u16(src.n_bits as u16);
    b.u16(src.ofs as u16);
    b.u16(dst.ofs as u16);
    b.u16(0);
    oxm::put_header(b, src.field, version.to_wire(), false);
    oxm::put_header(b, dst.field, version.to_wire(), false);
}

fn controller(b: &mut Buf, c: &Controller) {
    if !c.v2 && c.userdata.is_empty() && !c.pause && c.meter.is_none() {
        nx_action(b, 20, |b| {
            b.u16(c.max_len);
            b.u16(c.id);
            b.u8(c.reason);
            b.u8(0);
        });
        return;
    }
    fn prop(b: &mut Buf, kind: u16, body: &[u8]) {
        let start = b.len();
        b.u16(kind);
        b.u16((4 + body.len()) as u16);
        b.bytes(body);
        b.pad8(start);
    }
    // The length of 16-bit properties counts their padding.
    let padded = |v: u16| [(v >> 8) as u8, v as u8, 0, 0];
    nx_action(b, 37, |b| {
        b.zeros(6);
        if c.max_len != u16::MAX {
            prop(b, 0, &padded(c.max_len));
        }
        if c.id != 0 {
            prop(b, 1, &padded(c.id));
        }
        if c.reason != 1 {
            prop(b, 2, &[c.reason]);
        }
        if !c.userdata.is_empty() {
            prop(b, 3, &c.userdata);
        }
        if c.pause {
            prop(b, 4, &[]);
        }
        if let Some(m) = c.meter {
            prop(b, 5, &m.to_be_bytes());
        }
    });
}

fn bundle(b: &mut Buf, x: &Bundle) {
    nx_action(b, if x.dst.is_some() { 13 } else { 12 }, |b| {
        b.u16(match x.alg {
            BundleAlg::ActiveBackup => 0,
            BundleAlg::Hrw => 1,
        });
        b.u16(hash_fields(x.fields));
        b.u16(x.basis);
        b.u32(2);
        b.u16(x.members.len() as u16);
        match &x.dst {
            Some(d) => {
                b.u16(packed(d));
                oxm::put_header(b, d.field, 0, false);
            }
            None => b.zeros(6),
        }
        b.zeros(4);
        for m in &x.members {
            b.u16(m.0);
        }
    });
}

fn put_source(b: &mut Buf, s: &Source) {
    match s {
        Source::Imm(v) => {
            b.u32(0);
            b.u32(*v);
        }
        Source::Field(sf) => {
            oxm::put_header(b, sf.field, 0, false);
            b.u16(packed(sf));
            b.u16(0);
        }
    }
}

fn sample(b: &mut Buf, s: &Sample) {
    let (domain, point) = match (&s.obs_domain_id, &s.obs_point_id) {
        (Source::Imm(d), Source::Imm(p)) => (*d, *p),
        _ => {
            nx_action(b, 51, |b| {
                b.u16(s.probability);
                b.u32(s.collector_set_id);
                put_source(b, &s.obs_domain_id);
                put_source(b, &s.obs_point_id);
                b.u16(s.sampling_port.0);
                b.u8(s.direction as u8);
                b.zeros(5);
            });
            return;
        }
    };
    let subtype = match (s.sampling_port, s.direction) {
        (_, SampleDirection::Ingress | SampleDirection::Egress) => 41,
        (OfPort::NONE, _) => 29,
        _ => 38,
    };
    nx_action(b, subtype, |b| {
        b.u16(s.probability);
        b.u32(s.collector_set_id);
        b.u32(domain);
        b.u32(point);
        if subtype != 29 {
            b.u16(s.sampling_port.0);
            b.u8(if subtype == 41 { s.direction as u8 } else { 0 });
            b.zeros(5);
        }
    });
}

fn encode_ct(b: &mut Buf, ct: &Ct, version: Version) {
    nx_action(b, 35, |b| {
        b.u16(ct.flags);
        match &ct.zone {
            Source::Imm(zone) => {
                b.u32(0);
                b.u16(*zone as u16);
            }
            Source::Field(sf) => {
                oxm::put_header(b, sf.field, 0, false);
                b.u16(packed(sf));
            }
        }
        b.u8(ct.recirc_table);
        b.zeros(3);
        b.u16(ct.alg);
        if let Some(n) = &ct.nat {
            encode_nat(b, n);
        }
        encode_actions(b, &ct.actions, version);
    });
}

fn encode_nat(b: &mut Buf, n: &Nat) {
    nx_action(b, 36, |b| {
        b.u16(0);
        b.u16(n.flags);
        let at = b.len();
        b.u16(0);
        let mut present = 0;
        match &n.range {
            NatRange::None => {}
            NatRange::V4(min, max) => {
                present |= 1;
                b.bytes(&min.to_bytes());
                if !max.is_zero() {
                    present |= 2;
                    b.bytes(&max.to_bytes());
                }
            }
            NatRange::V6(min, max) => {
                present |= 4;
                b.bytes(&min.to_bytes());
                if !max.is_zero() {
                    present |= 8;
                    b.bytes(&max.to_bytes());
                }
            }
        }
        if n.ports.0 != 0 {
            present |= 0x10;
            b.u16(n.ports.0);
            if n.ports.1 != 0 {
                present |= 0x20;
                b.u16(n.ports.1);
            }
        }
        b.patch_u16(at, present);
    });
}

fn reg_load(b: &mut Buf, field: FieldId, ofs: u32, n_bits: u32, value: u64) {
    nx_action(b, 7, |b| {
        b.u16(packed(&Subfield { field, ofs, n_bits }));
        oxm::put_header(b, field, 0, false);
        b.u64(value);
    });
}

fn set_field(b: &mut Buf, sf: &SetField, version: Version) {
    let exact = sf.mask.iter().all(|m| *m == 0xff);
    let as_oxm = |b: &mut Buf| {
        std_action(b, 25, |b| oxm::put_entry(b, sf.field, version.to_wire(), &sf.value, &sf.mask));
    };
    if version >= Version::V15 {
        as_oxm(b);
    } else if sf.form != SetFieldForm::SetField {
        loads(b, sf);
    } else if version >= Version::V12 {
        if exact { as_oxm(b) } else { loads(b, sf) }
    } else if !exact || !legacy_set_field(b, sf, version) {
        loads(b, sf);
    }
}

/// As NXAST_REG_LOAD, one for each run of bits of up to 64; as NXAST_REG_LOAD2 where that cannot say it.
fn loads(b: &mut Buf, sf: &SetField) {
    let field = sf.field.field();
    let short = field.code(0).is_some_and(|c| c.class != 0xffff);
    if sf.form == SetFieldForm::RegLoad2 || !short || field.is_tun_metadata() {
        // What the structure calls padding is where the entry begins.
        nx_action(b, 33, |b| {
            oxm::put_entry(b, sf.field, 0, &sf.value, &sf.mask);
        });
        return;
    }
    let (value, mask) = (FieldValue::from_bytes(&sf.value), FieldValue::from_bytes(&sf.mask));
    let mut ofs = 0;
    while ofs < field.n_bits {
        if !mask.bit(ofs) {
            ofs += 1;
            continue;
        }
        let mut n = 1;
        while n < 64 && ofs + n < field.n_bits && mask.bit(ofs + n) {
            n += 1;
        }
        reg_load(b, sf.field, ofs, n, value.bits(ofs, n).to_u64());
        ofs += n;
    }
}

/// As an action of OpenFlow 1.0 or 1.1, where the field has one.
fn legacy_set_field(b: &mut Buf, sf: &SetField, version: Version) -> bool {
    let v = FieldValue::from_bytes(&sf.value).to_u64();
    let port = v as u16;
    let mac = || {
        let mut m = [0; 6];
        m.copy_from_slice(&v.to_be_bytes()[2..]);
        ib_packet::Mac(m)
    };
    let ip = || ib_packet::Be32::new(v as u32);
    let a = match sf.field {
        FieldId::EthSrc => Action::SetEthSrc(mac()),
        FieldId::EthDst => Action::SetEthDst(mac()),
        FieldId::IpSrc => Action::SetIpv4Src(ip()),
        FieldId::IpDst => Action::SetIpv4Dst(ip()),
        FieldId::IpTos => Action::SetIpDscp(v as u8),
        FieldId::IpDscp => Action::SetIpDscp((v as u8) << 2),
        FieldId::IpEcn if version != Version::V10 => Action::SetIpEcn(v as u8),
        FieldId::TcpSrc | FieldId::UdpSrc => Action::SetL4Src(port),
        FieldId::TcpDst | FieldId::UdpDst => Action::SetL4Dst(port),
        FieldId::VlanPcp | FieldId::DlVlanPcp => Action::SetVlanPcp { pcp: v as u8, push_if_needed: false },
        FieldId::DlVlan => Action::SetVlanVid { vid: port & 0xfff, push_if_needed: false },
        FieldId::VlanVid => Action::SetVlanVid { vid: port & 0xfff, push_if_needed: false },
        FieldId::VlanTci if port & 0x1000 == 0 => Action::StripVlan(TagWord::Strip),
        FieldId::VlanTci => {
            // A tag takes two actions.
            encode_one(b, &Action::SetVlanVid { vid: port & 0xfff, push_if_needed: false }, version);
            Action::SetVlanPcp { pcp: (port >> 13) as u8, push_if_needed: false }
        }
        _ => return false,
    };
    encode_one(b, &a, version);
    true
}
