//! Actions from `ovs-ofctl`'s text (ovs-actions(7)).
//!
//! [`parse_actions`] reads a whole `actions=` argument. Errors are the texts that users of Open vSwitch know. Which
//! protocols can carry the result is narrowed in [`ActionParser::usable`]; whether the actions suit the flow's match
//! is `action_check`'s business.

use ib_flow::fields::Protocols;
use ib_flow::subfield::field_by_any_name;
use ib_flow::{FieldValue, OfPort, Subfield};
use ib_packet::{Be16, Be32, Be128};

use crate::action::*;
use crate::action_check::{verify, verify_nested};
use crate::learn_text;
use crate::message::PacketInReason;
use crate::names::{Names, parse_port, parse_table};
use crate::text_util::*;
use crate::value;

/// State of a parse.
pub struct ActionParser<'a> {
    /// Names that may stand for ports and tables.
    pub names: Names<'a>,
    /// Protocols that can carry everything parsed so far.
    pub usable: Protocols,
}

/// OpenFlow 1.1 and later.
pub const OF11_UP: Protocols = Protocols(0x1f0);
/// OpenFlow 1.3 and later.
pub(crate) const OF13_UP: Protocols = Protocols(0x1c0);
/// OpenFlow 1.5.
const OF15_UP: Protocols = Protocols(0x100);
/// NXM, or OpenFlow 1.1 and later.
pub(crate) const NXM_OF11_UP: Protocols = Protocols(0x1fc);

/// What a list is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// A flow: instructions are allowed.
    Flow,
    /// A packet-out, or the like: actions alone.
    Actions,
    /// `write_actions(...)`.
    WriteActions,
    /// `clone(...)`.
    Clone,
    /// `ct(...exec(...))`.
    Ct,
}

/// Parses a flow's actions and instructions.
pub fn parse_instructions(s: &str, names: Names<'_>) -> Result<(Vec<Action>, Protocols), String> {
    let mut p = ActionParser { names, usable: Protocols::ANY };
    let actions = p.list(s, Outer::Flow)?;
    Ok((actions, p.usable))
}

/// Parses actions, without instructions.
pub fn parse_actions(s: &str, names: Names<'_>) -> Result<(Vec<Action>, Protocols), String> {
    let mut p = ActionParser { names, usable: Protocols::ANY };
    let actions = p.list(s, Outer::Actions)?;
    Ok((actions, p.usable))
}

impl ActionParser<'_> {
    fn limit(&mut self, p: Protocols) {
        self.usable = self.usable.and(p);
    }

    /// Parses a list of actions.
    pub fn list(&mut self, s: &str, outer: Outer) -> Result<Vec<Action>, String> {
        let mut out = Vec::new();
        let (mut drop, mut stray_nat) = (false, false);
        for (key, value) in key_values(s) {
            if key.eq_ignore_ascii_case("drop") {
                drop = true;
            } else if key.eq_ignore_ascii_case("nat") {
                nat(value)?;
                stray_nat = true;
            } else if key.eq_ignore_ascii_case("apply_actions") {
                return Err("apply_actions is the default instruction".into());
            } else {
                self.one(key, value, outer, &mut out)?;
            }
        }
        if drop && !out.is_empty() {
            return Err("\"drop\" must not be accompanied by any other action or instruction".into());
        }
        if stray_nat {
            return Err("Cannot have NAT action outside of \"ct\" action".into());
        }
        verify(&out, outer).map_err(|(_, text)| text)?;
        Ok(out)
    }

    fn one(&mut self, key: &str, value: &str, outer: Outer, out: &mut Vec<Action>) -> Result<(), String> {
        let lower = key.to_ascii_lowercase();
        let action = match lower.as_str() {
            "output" => self.output(value)?,
            "output_reg" => Action::OutputReg { src: subfield(value)?, max_len: u16::MAX },
            "group" => Action::Group(u32_arg(value)?),
            "controller" => {
                let c = self.controller(value)?;
                let plain = Controller { max_len: c.max_len, ..Default::default() };
                // Nothing special: the action of the specification will do.
                if c == plain {
                    out.push(Action::Output { port: OfPort::CONTROLLER, max_len: c.max_len });
                    return Ok(());
                }
                Action::Controller(c)
            }
            "enqueue" => self.enqueue(value)?,
            "bundle" => Action::Bundle(self.bundle(value, false)?),
            "bundle_load" => Action::Bundle(self.bundle(value, true)?),
            "set_field" => Action::SetField(self.set_field(value)?),
            "load" => Action::SetField(self.load(value)?),
            "mod_vlan_vid" | "set_vlan_vid" => {
                let vid = u16_arg(value, "VLAN VID")?;
                if vid & !0xfff != 0 {
                    return Err(format!("{value}: not a valid VLAN VID"));
                }
                Action::SetVlanVid { vid, push_if_needed: lower.starts_with("mod") }
            }
            "mod_vlan_pcp" | "set_vlan_pcp" => {
                let pcp = u8_arg(value, "VLAN PCP")?;
                if pcp & !7 != 0 {
                    return Err(format!("{value}: not a valid VLAN PCP"));
                }
                Action::SetVlanPcp { pcp, push_if_needed: lower.starts_with("mod") }
            }
            "strip_vlan" | "pop_vlan" => Action::StripVlan(TagWord::Strip),
            "push_vlan" => {
                self.limit(OF11_UP);
                let ethertype = u16_arg(value, "ethertype")?;
                if ethertype != 0x8100 && ethertype != 0x88a8 {
                    return Err(format!("{value}: not a valid VLAN ethertype"));
                }
                Action::PushVlan(Be16::new(ethertype))
            }
            "mod_dl_src" => Action::SetEthSrc(mac_arg(value)?),
            "mod_dl_dst" => Action::SetEthDst(mac_arg(value)?),
            "mod_nw_src" => Action::SetIpv4Src(ip_arg(value)?),
            "mod_nw_dst" => Action::SetIpv4Dst(ip_arg(value)?),
            "mod_nw_tos" => {
                let tos = u8_arg(value, "TOS")?;
                if tos & 3 != 0 {
                    return Err(format!("{value}: not a valid TOS"));
                }
                Action::SetIpDscp(tos)
            }
            "mod_nw_ecn" => {
                let ecn = u8_arg(value, "ECN")?;
                if ecn & !3 != 0 {
                    return Err(format!("{value}: not a valid ECN"));
                }
                Action::SetIpEcn(ecn)
            }
            "mod_nw_ttl" | "set_nw_ttl" => Action::SetIpTtl(u8_arg(value, "TTL")?),
            "mod_tp_src" => Action::SetL4Src(u16_arg(value, "source port")?),
            "mod_tp_dst" => Action::SetL4Dst(u16_arg(value, "destination port")?),
            "move" => self.reg_move(value)?,
            "push" => Action::StackPush(stack_subfield(value)?),
            "pop" => Action::StackPop(stack_subfield(value)?),
            "dec_ttl" => dec_ttl(value)?,
            "set_mpls_label" => {
                if value.is_empty() {
                    return Err("set_mpls_label: expected label.".into());
                }
                let label = u32_arg(value)?;
                if label & !0xf_ffff != 0 {
                    return Err(format!("{value}: not a valid MPLS label"));
                }
                Action::SetMplsLabel(label)
            }
            "set_mpls_tc" => {
                if value.is_empty() {
                    return Err("set_mpls_tc: expected tc.".into());
                }
                let tc = u8_arg(value, "MPLS TC")?;
                if tc & !7 != 0 {
                    return Err(format!("{value}: not a valid MPLS TC"));
                }
                Action::SetMplsTc(tc)
            }
            "set_mpls_ttl" => {
                if value.is_empty() {
                    return Err("set_mpls_ttl: expected ttl.".into());
                }
                Action::SetMplsTtl(u8_arg(value, "MPLS TTL")?)
            }
            "dec_mpls_ttl" => Action::DecMplsTtl,
            "dec_nsh_ttl" => Action::DecNshTtl,
            "push_mpls" => Action::PushMpls(Be16::new(u16_arg(value, "push_mpls")?)),
            "pop_mpls" => Action::PopMpls(Be16::new(u16_arg(value, "pop_mpls")?)),
            "delete_field" => {
                let field =
                    ib_flow::fields::by_name(value).ok_or_else(|| format!("unknown field `{value}'"))?;
                Action::DeleteField(field.id)
            }
            "set_tunnel" | "set_tunnel64" => {
                let id = u64_arg(value)?;
                Action::SetTunnel { id, wide: lower.ends_with("64") || id > u32::MAX.into() }
            }
            "set_queue" => Action::SetQueue(u32_arg(value)?),
            "pop_queue" => Action::PopQueue,
            "fin_timeout" => {
                let (mut idle, mut hard) = (0, 0);
                for (k, v) in key_values(value) {
                    match k {
                        "idle_timeout" => idle = u16_arg(v, k)?,
                        "hard_timeout" => hard = u16_arg(v, k)?,
                        _ => return Err(format!("invalid key '{k}' in 'fin_timeout' argument")),
                    }
                }
                Action::FinTimeout { idle, hard }
            }
            "encap" => {
                self.limit(OF13_UP);
                Action::Encap(encap(value)?)
            }
            "decap" => decap(value)?,
            "resubmit" => self.resubmit(value)?,
            "learn" => Action::Learn(Box::new(learn_text::parse(value, &self.names)?)),
            "conjunction" => conjunction(value)?,
            "multipath" => Action::Multipath(multipath(value)?),
            "note" => note(value)?,
            "exit" => Action::Exit,
            "unroll_xlate" => {
                return Err("UNROLL is an internal action that shouldn't be used via OpenFlow".into());
            }
            "sample" => Action::Sample(self.sample(value)?),
            "clone" => Action::Clone(self.list(value, Outer::Clone)?),
            "ct" => Action::Ct(Box::new(self.ct(value)?)),
            "ct_clear" => Action::CtClear,
            "check_pkt_larger" => check_pkt_larger(value)?,
            "debug_recirc" => Action::DebugRecirc,
            "debug_slow" => Action::DebugSlow,
            "meter" => {
                // Where it is no instruction it is an action, which is OpenFlow 1.5's.
                self.limit(if outer == Outer::Flow { OF13_UP } else { OF15_UP });
                Action::Meter(u32_arg(value)?)
            }
            "clear_actions" => Action::ClearActions,
            "write_actions" => Action::WriteActions(self.list(value, Outer::WriteActions)?),
            "write_metadata" => {
                self.limit(NXM_OF11_UP);
                let (v, m) = match value.split_once('/') {
                    Some((v, m)) => (v, u64_arg(m)?),
                    None => (value, u64::MAX),
                };
                let v = u64_arg(v)?;
                Action::WriteMetadata { value: v, mask: m }
            }
            "goto_table" => {
                let table =
                    parse_table(value, &self.names).ok_or_else(|| format!("unknown table \"{value}\""))?;
                Action::GotoTable(table)
            }
            _ => match parse_port(key, &self.names) {
                Some(port) => Action::Output { port, max_len: 0 },
                None => return Err(format!("unknown action {key}")),
            },
        };
        out.push(action);
        Ok(())
    }

    fn output(&mut self, s: &str) -> Result<Action, String> {
        if let Some(port) = parse_port(s, &self.names) {
            let max_len = if port == OfPort::CONTROLLER { u16::MAX } else { 0 };
            return Ok(Action::Output { port, max_len });
        }
        if s.contains("port") && s.contains("max_len") {
            return self.output_trunc(s);
        }
        match subfield(s) {
            Ok(src) => Ok(Action::OutputReg { src, max_len: u16::MAX }),
            Err(_) => Err(format!("{s}: output to unknown port")),
        }
    }

    fn output_trunc(&mut self, s: &str) -> Result<Action, String> {
        let (mut port, mut max_len) = (OfPort(0), 0);
        for (k, v) in key_values(s) {
            match k {
                "port" => {
                    port = parse_port(v, &self.names)
                        .ok_or_else(|| format!("output to unknown truncate port: {v}"))?;
                    let plain = port <= OfPort::MAX || matches!(port, OfPort::LOCAL | OfPort::IN_PORT);
                    if !plain {
                        return Err(format!("output to unsupported truncate port: {v}"));
                    }
                }
                "max_len" => {
                    max_len = u32_arg(v)?;
                    if max_len < 14 {
                        return Err(format!("max_len {max_len} is less than the minimum value 14"));
                    }
                }
                _ => return Err(format!("invalid key '{k}' in output_trunc argument")),
            }
        }
        Ok(Action::OutputTrunc { port, max_len })
    }

    fn controller(&mut self, s: &str) -> Result<Controller, String> {
        let mut c = Controller::default();
        if s.is_empty() {
            return Ok(c);
        }
        if s.bytes().all(|b| b.is_ascii_digit()) {
            c.max_len = u16_arg(s, "max_len")?;
            return Ok(c);
        }
        let mut v2 = false;
        for (k, v) in key_values(s) {
            match k {
                "reason" => {
                    c.reason = parse_reason(v).ok_or_else(|| format!("unknown reason \"{v}\""))? as u8
                }
                "max_len" => c.max_len = u16_arg(v, "max_len")?,
                "id" => c.id = u16_arg(v, "id")?,
                "userdata" => {
                    let (data, rest) = hex_bytes(v);
                    if !rest.is_empty() {
                        return Err("bad hex digit in `controller' action `userdata'".into());
                    }
                    c.userdata = data;
                    v2 = true;
                }
                "pause" => {
                    c.pause = true;
                    v2 = true;
                }
                "meter_id" => {
                    c.meter = Some(u32_arg(v)?);
                    v2 = true;
                }
                _ => return Err(format!("unknown key \"{k}\" parsing controller action")),
            }
        }
        c.v2 = v2;
        Ok(c)
    }

    fn enqueue(&mut self, s: &str) -> Result<Action, String> {
        let delims: &[char] = &[':', 'q', ',', '(', ')'];
        let mut t = tokens(s, delims);
        let (Some(port), Some(queue)) = (t.next(), t.next()) else {
            return Err("\"enqueue\" syntax is \"enqueue:PORT:QUEUE\" or \"enqueue(PORT,QUEUE)\"".into());
        };
        let port = parse_port(port, &self.names).ok_or_else(|| format!("{port}: enqueue to unknown port"))?;
        // The number wraps at 32 bits.
        let n = c_integer(queue).ok_or_else(|| format!("invalid numeric format {queue}"))?;
        Ok(Action::Enqueue { port, queue: n as u32 })
    }

    fn bundle(&mut self, s: &str, load: bool) -> Result<Bundle, String> {
        let delims: &[char] = &[',', ' '];
        let mut t = tokens(s, delims);
        let few = || format!("{s}: not enough arguments to bundle action");
        let fields = t.next();
        let basis = t.next();
        let alg = t.next();
        let member_type = t.next();
        let dst = if load { t.next() } else { Some("") };
        let delim = t.next();
        let (Some(fields), Some(basis), Some(alg), Some(member_type), Some(dst), Some(delim)) =
            (fields, basis, alg, member_type, dst, delim)
        else {
            return Err(few());
        };
        // The delimiter and the first member are one token: `members:1`.
        let (word, first) = delim.split_once(':').unwrap_or((delim, ""));
        if word != "members" && word != "slaves" {
            return Err(format!("{s}: missing member delimiter, expected `members', got `{word}'"));
        }
        let mut members = Vec::new();
        for m in std::iter::once(first).filter(|f| !f.is_empty()).chain(t) {
            members.push(parse_port(m, &self.names).ok_or_else(|| format!("{m}: bad port number"))?);
        }
        let fields = parse_hash_fields(fields).ok_or_else(|| format!("{s}: unknown fields `{fields}'"))?;
        let alg = match alg {
            _ if alg.eq_ignore_ascii_case("active_backup") => BundleAlg::ActiveBackup,
            _ if alg.eq_ignore_ascii_case("hrw") => BundleAlg::Hrw,
            _ => return Err(format!("{s}: unknown algorithm `{alg}'")),
        };
        if !member_type.eq_ignore_ascii_case("ofport") {
            return Err(format!("{s}: unknown member_type `{member_type}'"));
        }
        let dst = if load {
            let sf = subfield(dst)?;
            if value::is_experimenter(sf.field) {
                return Err(format!("{s}: experimenter OXM field '{dst}' not supported"));
            }
            Some(sf)
        } else {
            None
        };
        let basis = atoi(basis) as u16;
        Ok(Bundle { fields, basis, alg, members, dst })
    }

    fn set_field(&mut self, s: &str) -> Result<SetField, String> {
        let (value, key) = s.split_once("->").ok_or_else(|| format!("{s}: missing `->'"))?;
        if key.is_empty() {
            return Err(format!("{s}: missing field name following `->'"));
        }
        let field = ib_flow::fields::by_name(key)
            .or_else(|| field_by_any_name(key).map(|f| f.0))
            .ok_or_else(|| format!("{key} is not a valid OXM field name"))?;
        if !field.writable {
            return Err(format!("{key} is read-only"));
        }
        let (v, m) = value::parse(field, value, &self.names)?;
        if !field.is_value_valid(&v) {
            return Err(format!("{value} is not a valid value for field {key}"));
        }
        self.limit(field.usable_protocols(&FieldValue::ONES));
        let n = value::stored_len(field, &v, &m);
        Ok(SetField {
            field: field.id,
            value: v.and(&m).bytes(n).into(),
            mask: m.bytes(n).into(),
            form: SetFieldForm::SetField,
        })
    }

    fn load(&mut self, s: &str) -> Result<SetField, String> {
        let (value, dst_text) = s.split_once("->").ok_or_else(|| format!("{s}: missing `->'"))?;
        if dst_text.is_empty() {
            return Err(format!("{s}: missing field name following `->'"));
        }
        let dst = subfield(dst_text)?;
        // What follows the number is passed over.
        let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
        let end = match hex {
            Some(h) => 2 + h.bytes().take_while(u8::is_ascii_hexdigit).count(),
            None => {
                let sign = usize::from(value.starts_with(['+', '-']));
                sign + value.bytes().skip(sign).take_while(u8::is_ascii_digit).count()
            }
        };
        let field_bits = dst.field.field().n_bytes * 8;
        let v = value::integer(&value[..end])
            .filter(|v| v.bits(field_bits, 1024 - field_bits.min(1024)).is_zero(128))
            .ok_or_else(|| format!("{s}: cannot parse integer value"))?;
        if !v.bits(dst.n_bits, 1024 - dst.n_bits.min(1024)).is_zero(128) {
            let text = value::text(dst.field.field(), &v, &self.names);
            return Err(format!("{s}: value {text} does not fit into {} bits", dst.n_bits));
        }
        let mut whole = FieldValue::ZERO;
        whole.set_bits(dst.ofs, dst.n_bits, &v);
        let n = dst.field.field().n_bytes;
        Ok(SetField {
            field: dst.field,
            value: whole.bytes(n).into(),
            mask: dst.mask().bytes(n).into(),
            form: SetFieldForm::RegLoad,
        })
    }

    fn reg_move(&mut self, s: &str) -> Result<Action, String> {
        let (src, rest) = Subfield::parse_prefix(s)?;
        let Some(rest) = rest.strip_prefix("->") else {
            return Err(format!("{s}: missing `->' following source"));
        };
        let (dst, rest) = Subfield::parse_prefix(rest)?;
        if !rest.is_empty() {
            return Err(format!("{s}: trailing garbage following destination"));
        }
        if src.n_bits != dst.n_bits {
            return Err(format!(
                "{s}: source field is {} bits wide but destination is {} bits wide",
                src.n_bits, dst.n_bits
            ));
        }
        Ok(Action::RegMove { src, dst })
    }

    fn resubmit(&mut self, s: &str) -> Result<Action, String> {
        let mut parts = s.split(',').map(str::trim);
        let (port, table, extra) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
        let in_port = match port {
            "" => OfPort::IN_PORT,
            p => parse_port(p, &self.names).ok_or_else(|| format!("{p}: resubmit to unknown port"))?,
        };
        let table_id = match table {
            "" => 0xff,
            t => parse_table(t, &self.names).ok_or_else(|| format!("{t}: resubmit to unknown table"))?,
        };
        let with_ct_orig = match extra {
            None | Some("") => false,
            Some("ct") => true,
            Some(e) => return Err(format!("{e}: unknown parameter")),
        };
        if in_port == OfPort::IN_PORT && table_id == 0xff {
            return Err("at least one \"in_port\" or \"table\" must be specified on resubmit".into());
        }
        Ok(Action::Resubmit { in_port, table: table_id, with_ct_orig, simple: false })
    }

    fn sample(&mut self, s: &str) -> Result<Sample, String> {
        let mut out = Sample {
            probability: 0,
            collector_set_id: 0,
            obs_domain_id: Source::Imm(0),
            obs_point_id: Source::Imm(0),
            sampling_port: OfPort::NONE,
            direction: SampleDirection::Default,
        };
        let source = |v: &str| -> Result<Source, String> {
            match u32_arg(v) {
                Ok(n) => Ok(Source::Imm(n)),
                Err(e) => match Subfield::parse(v) {
                    Ok(sf) if sf.n_bits <= 32 => Ok(Source::Field(sf)),
                    Ok(sf) => {
                        Err(format!("size of obs_domain_id field ({}) exceeds maximum of 32 bits", sf.n_bits))
                    }
                    Err(_) => Err(e),
                },
            }
        };
        for (k, v) in key_values(s) {
            match k {
                "probability" => {
                    out.probability = u16_arg(v, "probability")?;
                    if out.probability == 0 {
                        return Err(format!("invalid probability value \"{v}\""));
                    }
                }
                "collector_set_id" => out.collector_set_id = u32_arg(v)?,
                "obs_domain_id" => out.obs_domain_id = source(v)?,
                "obs_point_id" => out.obs_point_id = source(v)?,
                "sampling_port" => {
                    out.sampling_port =
                        parse_port(v, &self.names).ok_or_else(|| format!("{v}: unknown port"))?;
                }
                "ingress" => out.direction = SampleDirection::Ingress,
                "egress" => out.direction = SampleDirection::Egress,
                _ => return Err(format!("invalid key \"{k}\" in \"sample\" argument")),
            }
        }
        if out.probability == 0 {
            return Err("non-zero \"probability\" must be specified on sample".into());
        }
        Ok(out)
    }

    fn ct(&mut self, s: &str) -> Result<Ct, String> {
        let mut out = Ct::default();
        for (k, v) in key_values(s) {
            match k {
                "commit" => out.flags |= CtFlags::COMMIT,
                "force" => out.flags |= CtFlags::FORCE,
                "table" => {
                    let t = parse_table(v, &self.names).ok_or_else(|| format!("unknown table {v}"))?;
                    if t == CT_RECIRC_NONE {
                        return Err("invalid table 0xff".into());
                    }
                    out.recirc_table = t;
                }
                "zone" => {
                    out.zone = match u16_arg(v, "zone") {
                        Ok(z) => Source::Imm(z.into()),
                        Err(_) => Source::Field(subfield(v)?),
                    }
                }
                "alg" => {
                    out.alg = match v {
                        "ftp" => 21,
                        "tftp" => 69,
                        _ => return Err(format!("invalid conntrack helper \"{v}\"")),
                    }
                }
                "nat" => out.nat = Some(nat(v)?),
                "exec" => {
                    let inner = self.list(v, Outer::Ct)?;
                    for a in &inner {
                        verify_nested(a, Outer::Ct).map_err(|(_, text)| text)?;
                    }
                    out.actions.extend(inner);
                }
                _ => return Err(format!("invalid argument to \"ct\" action: `{k}'")),
            }
        }
        if out.flags & CtFlags::FORCE != 0 && out.flags & CtFlags::COMMIT == 0 {
            return Err("\"force\" flag requires \"commit\" flag.".into());
        }
        Ok(out)
    }
}

/// A subfield that is the whole of a text.
fn subfield(s: &str) -> Result<Subfield, String> {
    Subfield::parse(s)
}

/// A subfield to push or pop.
fn stack_subfield(s: &str) -> Result<Subfield, String> {
    match Subfield::parse_prefix(s)? {
        (sf, "") => Ok(sf),
        (_, rest) => Err(format!("{rest}: trailing garbage following push or pop")),
    }
}

/// A packet-in reason by its text.
pub fn parse_reason(s: &str) -> Option<PacketInReason> {
    Some(match s.to_ascii_lowercase().as_str() {
        "no_match" => PacketInReason::NoMatch,
        "action" => PacketInReason::Action,
        "invalid_ttl" => PacketInReason::InvalidTtl,
        "action_set" => PacketInReason::ActionSet,
        "group" => PacketInReason::Group,
        "packet_out" => PacketInReason::PacketOut,
        _ => return None,
    })
}

/// Hash input by its name.
pub fn parse_hash_fields(s: &str) -> Option<HashFields> {
    Some(match s.to_ascii_lowercase().as_str() {
        "eth_src" => HashFields::EthSrc,
        "symmetric_l4" => HashFields::SymmetricL4,
        "symmetric_l3l4" => HashFields::SymmetricL3L4,
        "symmetric_l3l4+udp" => HashFields::SymmetricL3L4Udp,
        "nw_src" => HashFields::NwSrc,
        "nw_dst" => HashFields::NwDst,
        "symmetric_l3" => HashFields::SymmetricL3,
        _ => return None,
    })
}

fn dec_ttl(s: &str) -> Result<Action, String> {
    if s.is_empty() {
        return Ok(Action::DecTtl(Vec::new()));
    }
    let delims: &[char] = &[',', ' '];
    let ids: Vec<u16> = tokens(s, delims).map(|t| atoi(t) as u16).collect();
    if ids.is_empty() {
        return Err("dec_ttl_cnt_ids: expected at least one controller id.".into());
    }
    Ok(Action::DecTtl(ids))
}

fn conjunction(s: &str) -> Result<Action, String> {
    let syntax = || "\"conjunction\" syntax is \"conjunction(id,i/n)\"".to_string();
    let part = |t: &'_ str, any_base| scan_number(t, any_base).map(|(n, rest)| (n, s.len() - rest.len()));
    let mut at = 0;
    let mut next = |before: char, any_base| {
        let mut t = &s[at..];
        if at > 0 {
            t = t.trim_start().strip_prefix(before)?;
        }
        let (n, end) = part(t, any_base)?;
        at = end;
        Some(n)
    };
    // Numbers wrap: at 32 bits, 8 bits, 8 bits.
    let (id, i, n) = (next(' ', true), next(',', false), next('/', false));
    let (Some(id), Some(i), Some(n)) = (id, i, n) else { return Err(syntax()) };
    if !s[at..].trim_start().is_empty() {
        return Err(syntax());
    }
    let (id, i, n) = (id as u32, i as u8, n as u8);
    if n < 2 {
        return Err("conjunction must have at least 2 clauses".into());
    }
    if n > 64 {
        return Err("conjunction must have at most 64 clauses".into());
    }
    if i < 1 {
        return Err("clause index must be positive".into());
    }
    if i > n {
        return Err("clause index must be less than or equal to number of clauses".into());
    }
    Ok(Action::Conjunction { id, clause: i - 1, n_clauses: n })
}

fn multipath(s: &str) -> Result<Multipath, String> {
    let delims: &[char] = &[',', ' '];
    let t: Vec<&str> = tokens(s, delims).collect();
    let [fields, basis, alg, n_links, arg, dst, ..] = t[..] else {
        return Err(format!("{s}: not enough arguments to multipath action"));
    };
    let fields = parse_hash_fields(fields).ok_or_else(|| format!("{s}: unknown fields `{fields}'"))?;
    let alg = match alg.to_ascii_lowercase().as_str() {
        "modulo_n" => MultipathAlg::ModuloN,
        "hash_threshold" => MultipathAlg::HashThreshold,
        "hrw" => MultipathAlg::Hrw,
        "iter_hash" => MultipathAlg::IterHash,
        _ => return Err(format!("{s}: unknown algorithm `{alg}'")),
    };
    let n_links = atoi(n_links) as i32;
    if !(1..=65536).contains(&n_links) {
        return Err(format!("{s}: n_links {n_links} is not in valid range 1 to 65536"));
    }
    let dst_text = dst;
    let dst = subfield(dst)?;
    if value::is_experimenter(dst.field) {
        return Err(format!("{s}: experimenter OXM field '{dst_text}' not supported"));
    }
    if dst.n_bits < 16 && n_links > 1 << dst.n_bits {
        return Err(format!(
            "{s}: {}-bit destination field has {} possible values, less than specified n_links {n_links}",
            dst.n_bits,
            1u32 << dst.n_bits
        ));
    }
    Ok(Multipath {
        fields,
        basis: atoi(basis) as u16,
        alg,
        max_link: (n_links - 1) as u16,
        arg: atoi(arg) as u32,
        dst,
    })
}

/// The bytes are padded to what an action of a multiple of 8 bytes holds: 6 and 8 more each time.
fn note(s: &str) -> Result<Action, String> {
    let (mut data, rest) = hex_bytes(s);
    if !rest.is_empty() {
        return Err("bad hex digit in `note' argument".into());
    }
    let whole = (10 + data.len()).next_multiple_of(8).max(16);
    data.resize(whole - 10, 0);
    Ok(Action::Note(data))
}

fn check_pkt_larger(s: &str) -> Result<Action, String> {
    let (value, dst) = s.split_once("->").ok_or_else(|| format!("{s}: missing `->'"))?;
    let value = value.trim_end_matches(')');
    let dst = subfield(dst)?;
    if dst.n_bits != 1 {
        return Err("Only 1-bit destination field is allowed".into());
    }
    Ok(Action::CheckPktLarger { len: u16_arg(value, "check_pkt_larger")?, dst })
}

fn nat(s: &str) -> Result<Nat, String> {
    let mut out = Nat::default();
    for (k, v) in key_values(s) {
        match k {
            "src" | "dst" => {
                if !v.is_empty() {
                    nat_range(v, &mut out)?;
                }
                if out.flags & (NatFlags::SRC | NatFlags::DST) != 0 {
                    return Err("May only specify one of \"src\" or \"dst\".".into());
                }
                out.flags |= if k == "src" { NatFlags::SRC } else { NatFlags::DST };
            }
            "persistent" => out.flags |= NatFlags::PERSISTENT,
            "hash" => out.flags |= NatFlags::PROTO_HASH,
            "random" => out.flags |= NatFlags::PROTO_RANDOM,
            _ => return Err(format!("invalid key \"{k}\" in \"nat\" argument")),
        }
    }
    let (sd, proto) = (NatFlags::SRC | NatFlags::DST, NatFlags::PROTO_HASH | NatFlags::PROTO_RANDOM);
    if out.flags != 0 && out.flags & sd == 0 {
        return Err("Flags allowed only with \"src\" or \"dst\".".into());
    }
    if out.flags & proto == proto {
        return Err("Both \"hash\" and \"random\" are not allowed.".into());
    }
    Ok(out)
}

/// An IPv4 address at the front, and what follows.
fn scan_ipv4(t: &str) -> Option<(u32, &str)> {
    let n = t.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(t.len());
    Some((t[..n].parse::<std::net::Ipv4Addr>().ok()?.into(), &t[n..]))
}

/// `ADDR[-ADDR][:PORT[-PORT]]`, IPv6 addresses in brackets if ports follow.
fn nat_range(s: &str, out: &mut Nat) -> Result<(), String> {
    let invalid = || format!("invalid nat range \"{s}\"");
    let garbage =
        |rest: &str| format!("garbage ({rest}) after nat range \"{s}\" (pos: {})", s.len() - rest.len());
    let v6 = |t: &'_ str| -> Option<(u128, usize)> {
        let (body, skip) = match t.strip_prefix('[') {
            Some(b) => (b, 1),
            None => (t, 0),
        };
        let end = body.find(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.').unwrap_or(body.len());
        let a: std::net::Ipv6Addr = body[..end].parse().ok()?;
        let mut used = end + skip;
        if skip == 1 {
            if !body[end..].starts_with(']') {
                return None;
            }
            used += 1;
        }
        Some((a.into(), used))
    };
    let rest;
    if let Some((min, after)) = scan_ipv4(s) {
        let mut max = 0;
        rest = match after.strip_prefix('-') {
            Some(t) => {
                let (m, after) = scan_ipv4(t).ok_or_else(invalid)?;
                if m < min {
                    return Err(invalid());
                }
                max = m;
                after
            }
            None => after,
        };
        if min != 0 {
            out.range = NatRange::V4(Be32::new(min), Be32::new(max));
        }
    } else if let Some((min, used)) = v6(s) {
        let mut max = 0;
        let after = &s[used..];
        rest = match after.strip_prefix('-') {
            Some(t) => {
                let (m, used) = v6(t).ok_or_else(invalid)?;
                if m < min {
                    return Err(invalid());
                }
                max = m;
                &t[used..]
            }
            None => after,
        };
        if min != 0 {
            out.range = NatRange::V6(Be128::new(min), Be128::new(max));
        }
    } else {
        // What looked like the beginning of an address is not reported as garbage.
        let n = s.find(|c: char| !c.is_ascii_hexdigit() && c != ':').unwrap_or(s.len());
        return Err(garbage(&s[n..]));
    }
    if rest.is_empty() {
        return Ok(());
    }
    let Some(ports) = rest.strip_prefix(':') else { return Err(garbage(rest)) };
    let num = |t: &str| -> Option<(u16, usize)> {
        let n = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
        Some((t[..n].parse::<u64>().ok()? as u16, n))
    };
    let (min, n) = num(ports).ok_or_else(invalid)?;
    let mut after = &ports[n..];
    let mut max = 0;
    if let Some(t) = after.strip_prefix('-') {
        let (m, n) = num(t).ok_or_else(invalid)?;
        if m < min {
            return Err(invalid());
        }
        max = m;
        after = &t[n..];
    }
    if !after.is_empty() {
        return Err(garbage(after));
    }
    out.ports = (min, max);
    Ok(())
}

fn encap(s: &str) -> Result<Encap, String> {
    let mut t = s;
    let Some((key, value)) = next_key_value(&mut t) else {
        return Err(format!("Missing encap hdr: {s}"));
    };
    let packet_type = match key {
        "ethernet" => 0,
        "nsh" => 0x1_894f,
        "mpls" => 0x1_8847,
        "mpls_mc" => 0x1_8848,
        _ => return Err(format!("Encap hdr not supported: {value}")),
    };
    let mut props = Vec::new();
    for (k, v) in key_values(value) {
        props.push(match (packet_type, k) {
            (0x1_894f, "md_type") => match v {
                "1" => EncapProp::NshMdType(1),
                "2" => EncapProp::NshMdType(2),
                _ => return Err("invalid md_type".to_string()),
            },
            (0x1_894f, "tlv") => nsh_tlv(v)?,
            _ => return Err(format!("Invalid property: {k}")),
        });
    }
    Ok(Encap { packet_type: Be32::new(packet_type), hdr_size: 0, props })
}

/// `CLASS,TYPE,HEX`.
fn nsh_tlv(s: &str) -> Result<EncapProp, String> {
    let bad = |what: &str| format!("Invalid NSH TLV header: {what}");
    let mut parts = s.splitn(3, ',').map(str::trim);
    let (Some(class), Some(kind), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad(s));
    };
    let class = c_integer(class).and_then(|v| u16::try_from(v).ok()).ok_or_else(|| bad(s))?;
    let kind = c_integer(kind).and_then(|v| u8::try_from(v).ok()).ok_or_else(|| bad(s))?;
    let hex = data.strip_prefix("0x").or_else(|| data.strip_prefix("0X")).unwrap_or(data);
    let padded = if hex.len() % 2 == 1 { format!("0{hex}") } else { hex.to_string() };
    let (data, rest) = hex_bytes(&padded);
    if !rest.is_empty() || data.len() > 247 {
        return Err(bad(s));
    }
    Ok(EncapProp::NshTlv { class, kind, data })
}

fn decap(s: &str) -> Result<Action, String> {
    let mut t = s;
    match next_key_value(&mut t) {
        None => Ok(Action::Decap(None)),
        Some(("packet_type", v)) => {
            let (mut ns, mut kind) = (None, None);
            for (k, v) in key_values(v) {
                match k {
                    "ns" => match u16_arg(v, "ns")? {
                        known @ 0..=4 => ns = Some(known),
                        other => return Err(format!("Unsupported ns value: {other}")),
                    },
                    "type" => kind = Some(u16_arg(v, "type")?),
                    _ => {}
                }
            }
            let ns = ns.ok_or("Missing packet_type attribute ns")?;
            let kind = kind.ok_or("Missing packet_type attribute type")?;
            Ok(Action::Decap(Some(Be32::new(u32::from(ns) << 16 | u32::from(kind)))))
        }
        Some((k, _)) => Err(format!("Invalid decap argument: {k}")),
    }
}
