//! Actions as text, the way `ovs-ofctl dump-flows` prints them.

use std::fmt::Write;
use std::net::Ipv4Addr;

use ib_flow::{FieldValue, OfPort, Subfield};

use crate::action::*;
use crate::learn_text;
use crate::message::{PacketInReason, Version};
use crate::names::{Names, put_port, put_table};
use crate::value;

/// Appends a list, separated by commas; `drop` for an empty one.
pub fn format_actions(out: &mut String, actions: &[Action], names: &Names<'_>) {
    format_list(out, actions, false, names);
}

/// [`format_actions`] for a list that came by a version: since 1.1 tags are popped, not stripped.
pub fn format_actions_of(out: &mut String, actions: &[Action], via: Version, names: &Names<'_>) {
    format_list(out, actions, via > Version::V10, names);
}

fn format_list(out: &mut String, actions: &[Action], pops: bool, names: &Names<'_>) {
    if actions.is_empty() {
        out.push_str("drop");
    }
    for (i, a) in actions.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = try_format(out, a, pops, names);
    }
}

/// The text of a list.
pub fn actions_text(actions: &[Action], names: &Names<'_>) -> String {
    let mut s = String::new();
    format_actions(&mut s, actions, names);
    s
}

/// The text of a packet-in reason.
pub fn reason_text(reason: u8) -> String {
    match reason {
        0 => "no_match",
        1 => "action",
        2 => "invalid_ttl",
        3 => "action_set",
        4 => "group",
        5 => "packet_out",
        // Known to the switch only.
        6 | 7 => "",
        n => return n.to_string(),
    }
    .into()
}

/// A number as C's `%#x` prints it: zero has no prefix.
fn c_hex(v: u64) -> String {
    if v == 0 { "0".into() } else { format!("{v:#x}") }
}

fn hash_fields_name(f: HashFields) -> &'static str {
    match f {
        HashFields::EthSrc => "eth_src",
        HashFields::SymmetricL4 => "symmetric_l4",
        HashFields::SymmetricL3L4 => "symmetric_l3l4",
        HashFields::SymmetricL3L4Udp => "symmetric_l3l4+udp",
        HashFields::NwSrc => "nw_src",
        HashFields::NwDst => "nw_dst",
        HashFields::SymmetricL3 => "symmetric_l3",
    }
}

fn join(out: &mut String, items: impl IntoIterator<Item = String>) {
    for (i, s) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&s);
    }
}

/// Appends bytes as `01.02.03`.
pub fn put_dotted_hex(out: &mut String, bytes: &[u8]) {
    for (i, b) in bytes.iter().enumerate() {
        if i > 0 {
            out.push('.');
        }
        let _ = write!(out, "{b:02x}");
    }
}

/// Appends one action.
pub fn format_action(out: &mut String, a: &Action, names: &Names<'_>) {
    // Writing to a String cannot fail.
    let _ = try_format(out, a, false, names);
}

fn try_format(out: &mut String, a: &Action, pops: bool, names: &Names<'_>) -> std::fmt::Result {
    match a {
        Action::Output { port, max_len } => {
            if *port < OfPort::MAX {
                out.push_str("output:");
            }
            put_port(out, *port, names);
            if *port == OfPort::CONTROLLER {
                write!(out, ":{max_len}")?;
            }
        }
        Action::OutputReg { src, .. } => write!(out, "output:{src}")?,
        Action::OutputTrunc { port, max_len } => {
            out.push_str("output(port=");
            put_port(out, *port, names);
            write!(out, ",max_len={max_len})")?;
        }
        Action::Controller(c) => controller(out, c)?,
        Action::Enqueue { port, queue } => {
            out.push_str("enqueue:");
            put_port(out, *port, names);
            write!(out, ":{queue}")?;
        }
        Action::Bundle(b) => {
            let alg = match b.alg {
                BundleAlg::ActiveBackup => "active_backup",
                BundleAlg::Hrw => "hrw",
            };
            let name = if b.dst.is_some() { "bundle_load" } else { "bundle" };
            write!(out, "{name}({},{},{alg},ofport,", hash_fields_name(b.fields), b.basis)?;
            if let Some(d) = &b.dst {
                write!(out, "{d},")?;
            }
            out.push_str("members:");
            for (i, m) in b.members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                put_port(out, *m, names);
            }
            out.push(')');
        }
        Action::Group(id) => write!(out, "group:{id}")?,
        Action::SetField(sf) => set_field(out, sf, names)?,
        Action::RegMove { src, dst } => write!(out, "move:{src}->{dst}")?,
        Action::StackPush(sf) => write!(out, "push:{sf}")?,
        Action::StackPop(sf) => write!(out, "pop:{sf}")?,
        Action::SetVlanVid { vid, push_if_needed } => {
            write!(out, "{}_vlan_vid:{vid}", if *push_if_needed { "mod" } else { "set" })?;
        }
        Action::SetVlanPcp { pcp, push_if_needed } => {
            write!(out, "{}_vlan_pcp:{pcp}", if *push_if_needed { "mod" } else { "set" })?;
        }
        Action::StripVlan(word) => {
            out.push_str(if pops || matches!(word, TagWord::Pop) { "pop_vlan" } else { "strip_vlan" });
        }
        Action::PushVlan(t) => write!(out, "push_vlan:0x{:04x}", t.get())?,
        Action::SetEthSrc(m) => write!(out, "mod_dl_src:{m}")?,
        Action::SetEthDst(m) => write!(out, "mod_dl_dst:{m}")?,
        Action::SetIpv4Src(ip) => write!(out, "mod_nw_src:{}", Ipv4Addr::from(ip.get()))?,
        Action::SetIpv4Dst(ip) => write!(out, "mod_nw_dst:{}", Ipv4Addr::from(ip.get()))?,
        Action::SetIpDscp(v) => write!(out, "mod_nw_tos:{v}")?,
        Action::SetIpEcn(v) => write!(out, "mod_nw_ecn:{v}")?,
        Action::SetIpTtl(v) => write!(out, "mod_nw_ttl:{v}")?,
        Action::SetL4Src(v) => write!(out, "mod_tp_src:{v}")?,
        Action::SetL4Dst(v) => write!(out, "mod_tp_dst:{v}")?,
        Action::DecTtl(ids) => {
            out.push_str("dec_ttl");
            if !ids.is_empty() {
                out.push('(');
                join(out, ids.iter().map(u16::to_string));
                out.push(')');
            }
        }
        Action::SetMplsLabel(v) => write!(out, "set_mpls_label({v})")?,
        Action::SetMplsTc(v) => write!(out, "set_mpls_tc({v})")?,
        Action::SetMplsTtl(v) => write!(out, "set_mpls_ttl({v})")?,
        Action::DecMplsTtl => out.push_str("dec_mpls_ttl"),
        Action::DecNshTtl => out.push_str("dec_nsh_ttl"),
        Action::PushMpls(t) => write!(out, "push_mpls:0x{:04x}", t.get())?,
        Action::PopMpls(t) => write!(out, "pop_mpls:0x{:04x}", t.get())?,
        Action::DeleteField(f) => write!(out, "delete_field:{}", f.name)?,
        Action::SetTunnel { id, wide } => {
            let wide = *wide || *id > u64::from(u32::MAX);
            write!(out, "set_tunnel{}:{}", if wide { "64" } else { "" }, c_hex(*id))?;
        }
        Action::SetQueue(q) => write!(out, "set_queue:{q}")?,
        Action::PopQueue => out.push_str("pop_queue"),
        Action::FinTimeout { idle, hard } => {
            out.push_str("fin_timeout(");
            let parts = [("idle_timeout", idle), ("hard_timeout", hard)];
            join(out, parts.iter().filter(|(_, v)| **v != 0).map(|(k, v)| format!("{k}={v}")));
            out.push(')');
        }
        Action::Resubmit { in_port, table, with_ct_orig, .. } => {
            if *in_port != OfPort::IN_PORT && *table == 0xff {
                out.push_str("resubmit:");
                put_port(out, *in_port, names);
            } else {
                out.push_str("resubmit(");
                if *in_port != OfPort::IN_PORT {
                    put_port(out, *in_port, names);
                }
                out.push(',');
                if *table != 0xff {
                    put_table(out, *table, names);
                }
                if *with_ct_orig {
                    out.push_str(",ct");
                }
                out.push(')');
            }
        }
        Action::Learn(l) => learn_text::format(out, l, names),
        Action::Conjunction { id, clause, n_clauses } => {
            write!(out, "conjunction({id},{}/{n_clauses})", u32::from(*clause) + 1)?;
        }
        Action::Multipath(m) => {
            let alg = match m.alg {
                MultipathAlg::ModuloN => "modulo_n",
                MultipathAlg::HashThreshold => "hash_threshold",
                MultipathAlg::Hrw => "hrw",
                MultipathAlg::IterHash => "iter_hash",
            };
            write!(
                out,
                "multipath({},{},{alg},{},{},{})",
                hash_fields_name(m.fields),
                m.basis,
                u32::from(m.max_link) + 1,
                m.arg,
                m.dst
            )?;
        }
        Action::Note(data) => {
            out.push_str("note:");
            put_dotted_hex(out, data);
        }
        Action::Exit => out.push_str("exit"),
        Action::UnrollXlate { table, cookie } => {
            out.push_str("unroll_xlate(");
            if *table == 0xff {
                out.push_str("no table)");
            } else {
                out.push_str("table=");
                put_table(out, *table, names);
                write!(out, ", cookie={cookie})")?;
            }
        }
        Action::Sample(s) => {
            let source = |s: &Source| match s {
                Source::Imm(v) => v.to_string(),
                Source::Field(sf) => sf.to_string(),
            };
            write!(
                out,
                "sample(probability={},collector_set_id={},obs_domain_id={},obs_point_id={}",
                s.probability,
                s.collector_set_id,
                source(&s.obs_domain_id),
                source(&s.obs_point_id)
            )?;
            if s.sampling_port != OfPort::NONE {
                out.push_str(",sampling_port=");
                put_port(out, s.sampling_port, names);
            }
            match s.direction {
                SampleDirection::Default => {}
                SampleDirection::Ingress => out.push_str(",ingress"),
                SampleDirection::Egress => out.push_str(",egress"),
            }
            out.push(')');
        }
        Action::Clone(inner) => {
            out.push_str("clone(");
            format_list(out, inner, pops, names);
            out.push(')');
        }
        Action::Ct(ct) => ct_text(out, ct, names)?,
        Action::CtClear => out.push_str("ct_clear"),
        Action::CheckPktLarger { len, dst } => write!(out, "check_pkt_larger({len})->{dst}")?,
        Action::DebugRecirc => out.push_str("debug_recirc"),
        Action::DebugSlow => out.push_str("debug_slow"),
        Action::Encap(e) => encap(out, e)?,
        Action::Decap(t) => {
            out.push_str("decap(");
            if let Some(t) = t {
                let t = t.get();
                write!(out, "packet_type(ns={},type={})", t >> 16, c_hex((t & 0xffff).into()))?;
            }
            out.push(')');
        }
        Action::Meter(id) => write!(out, "meter:{id}")?,
        Action::ClearActions => out.push_str("clear_actions"),
        Action::WriteActions(set) => {
            out.push_str("write_actions(");
            format_list(out, set, pops, names);
            out.push(')');
        }
        Action::WriteMetadata { value, mask } => {
            write!(out, "write_metadata:{}", c_hex(*value))?;
            if *mask != u64::MAX {
                write!(out, "/{}", c_hex(*mask))?;
            }
        }
        Action::GotoTable(t) => {
            out.push_str("goto_table:");
            put_table(out, *t, names);
        }
    }
    Ok(())
}

fn set_field(out: &mut String, sf: &SetField, names: &Names<'_>) -> std::fmt::Result {
    let (v, mut m) = (FieldValue::from_bytes(&sf.value), FieldValue::from_bytes(&sf.mask));
    let field = sf.field.field();
    if sf.form == SetFieldForm::RegLoad {
        // The bits that are set are one range.
        let ofs = (0..field.n_bits).find(|i| m.bit(*i)).unwrap_or(0);
        let n_bits = (ofs..field.n_bits).take_while(|i| m.bit(*i)).count() as u32;
        let dst = Subfield { field: sf.field, ofs, n_bits };
        return write!(out, "load:{}->{dst}", value::hex(&v.bits(ofs, n_bits)));
    }
    out.push_str("set_field:");
    if sf.mask.iter().all(|b| *b == 0xff) {
        m = FieldValue::ONES;
    }
    value::format(out, field, &v, &m, names);
    write!(out, "->{}", field.name)
}

fn controller(out: &mut String, c: &Controller) -> std::fmt::Result {
    let plain = c.reason == PacketInReason::Action as u8
        && c.id == 0
        && c.userdata.is_empty()
        && !c.pause
        && c.meter.is_none();
    if plain {
        return write!(out, "CONTROLLER:{}", c.max_len);
    }
    let mut parts = Vec::new();
    if c.reason != PacketInReason::Action as u8 {
        parts.push(format!("reason={}", reason_text(c.reason)));
    }
    if c.max_len != u16::MAX {
        parts.push(format!("max_len={}", c.max_len));
    }
    if c.id != 0 {
        parts.push(format!("id={}", c.id));
    }
    if !c.userdata.is_empty() {
        let mut s = "userdata=".to_string();
        put_dotted_hex(&mut s, &c.userdata);
        parts.push(s);
    }
    if c.pause {
        parts.push("pause".into());
    }
    if let Some(m) = c.meter {
        parts.push(format!("meter_id={m}"));
    }
    out.push_str("controller(");
    join(out, parts);
    out.push(')');
    Ok(())
}

fn ct_text(out: &mut String, ct: &Ct, names: &Names<'_>) -> std::fmt::Result {
    let mut parts = Vec::new();
    if ct.flags & CtFlags::COMMIT != 0 {
        parts.push(if ct.flags & CtFlags::FORCE != 0 { "commit,force" } else { "commit" }.to_string());
    }
    if ct.recirc_table != CT_RECIRC_NONE {
        let mut s = "table=".to_string();
        put_table(&mut s, ct.recirc_table, names);
        parts.push(s);
    }
    match &ct.zone {
        Source::Field(sf) => parts.push(format!("zone={sf}")),
        Source::Imm(0) => {}
        Source::Imm(z) => parts.push(format!("zone={z}")),
    }
    if let Some(n) = &ct.nat {
        parts.push(nat_text(n));
    }
    if !ct.actions.is_empty() {
        let mut s = "exec(".to_string();
        format_actions(&mut s, &ct.actions, names);
        s.push(')');
        parts.push(s);
    }
    match ct.alg {
        0 => {}
        21 => parts.push("alg=ftp".into()),
        69 => parts.push("alg=tftp".into()),
        n => parts.push(format!("alg={n}")),
    }
    out.push_str("ct(");
    join(out, parts);
    out.push(')');
    Ok(())
}

fn nat_text(n: &Nat) -> String {
    let side = match n.flags & (NatFlags::SRC | NatFlags::DST) {
        0 => return "nat".into(),
        NatFlags::SRC => "src",
        _ => "dst",
    };
    let mut s = format!("nat({side}");
    match &n.range {
        NatRange::None => {}
        NatRange::V4(min, max) => {
            let _ = write!(s, "={}", Ipv4Addr::from(min.get()));
            if !max.is_zero() && max != min {
                let _ = write!(s, "-{}", Ipv4Addr::from(max.get()));
            }
        }
        NatRange::V6(min, max) => {
            let text = |a: &ib_packet::Be128| {
                let mut t = String::new();
                ib_flow::text::put_ipv6(a.get(), &mut t);
                if n.ports.0 != 0 { format!("[{t}]") } else { t }
            };
            let _ = write!(s, "={}", text(min));
            if !max.is_zero() && max != min {
                let _ = write!(s, "-{}", text(max));
            }
        }
    }
    if n.range != NatRange::None && n.ports.0 != 0 {
        let _ = write!(s, ":{}", n.ports.0);
        if n.ports.1 != 0 && n.ports.1 != n.ports.0 {
            let _ = write!(s, "-{}", n.ports.1);
        }
    }
    for (bit, name) in [
        (NatFlags::PERSISTENT, "persistent"),
        (NatFlags::PROTO_HASH, "hash"),
        (NatFlags::PROTO_RANDOM, "random"),
    ] {
        if n.flags & bit != 0 {
            let _ = write!(s, ",{name}");
        }
    }
    s.push(')');
    s
}

fn encap(out: &mut String, e: &Encap) -> std::fmt::Result {
    let t = e.packet_type.get();
    let name = match t {
        0 => "ethernet".to_string(),
        0x1_894f => "nsh".into(),
        0x1_8847 => "mpls".into(),
        0x1_8848 => "mpls_mc".into(),
        _ => format!("packet_type({},{:#x})", t >> 16, t & 0xffff),
    };
    write!(out, "encap({name}")?;
    if !e.props.is_empty() {
        out.push('(');
        join(
            out,
            e.props.iter().map(|p| match p {
                EncapProp::NshMdType(t) => format!("md_type={t}"),
                EncapProp::NshTlv { class, kind, data } => {
                    let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
                    format!("tlv(0x{class:04x},{kind},0x{hex})")
                }
            }),
        );
        out.push(')');
    }
    out.push(')');
    Ok(())
}
