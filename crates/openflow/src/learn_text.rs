//! `learn(...)` in text.

use std::fmt::Write;

use ib_flow::{FieldValue, Subfield};

use crate::action::*;
use crate::names::{Names, parse_table, put_table};
use crate::text_util::*;
use crate::value;

/// Parses the argument of `learn`.
pub fn parse(s: &str, names: &Names<'_>) -> Result<Learn, String> {
    let mut l = Learn { priority: 0x8000, table: 1, ..Default::default() };
    for (k, v) in key_values(s) {
        match k {
            "table" => {
                l.table = parse_table(v, names).ok_or_else(|| format!("unknown table \"{v}\""))?;
                if l.table == 255 {
                    return Err(format!("{s}: table id 255 not valid for `learn' action"));
                }
            }
            "priority" => l.priority = atoi(v) as u16,
            "idle_timeout" => l.idle_timeout = atoi(v) as u16,
            "hard_timeout" => l.hard_timeout = atoi(v) as u16,
            "fin_idle_timeout" => l.fin_idle_timeout = atoi(v) as u16,
            "fin_hard_timeout" => l.fin_hard_timeout = atoi(v) as u16,
            "cookie" => l.cookie = c_integer(v).map_or(0, |n| n as u64),
            "send_flow_rem" => l.flags |= LearnFlags::SEND_FLOW_REM,
            "delete_learned" => l.flags |= LearnFlags::DELETE_LEARNED,
            "limit" => l.limit = atoi(v) as u32,
            "result_dst" => {
                let sf = Subfield::parse(v)?;
                if !sf.field.writable {
                    return Err(format!("{v} is read-only"));
                }
                if sf.n_bits != 1 {
                    return Err("result_dst in 'learn' action must be a single bit".into());
                }
                l.result_dst = Some(sf);
                l.flags |= LearnFlags::WRITE_RESULT;
            }
            _ => l.specs.push(spec(s, k, v, names)?),
        }
    }
    Ok(l)
}

fn bits(v: &FieldValue, n_bits: u32) -> Box<[u8]> {
    v.bytes(n_bits.div_ceil(8)).into()
}

fn spec(orig: &str, key: &str, v: &str, names: &Names<'_>) -> Result<LearnSpec, String> {
    if let Ok(dst) = Subfield::parse(key) {
        let n_bits = dst.n_bits as u16;
        if value::is_experimenter(dst.field) {
            return Err(format!("{orig}: experimenter OXM field '{key}' not supported"));
        }
        if v.is_empty() {
            return Ok(LearnSpec { n_bits, src: LearnSrc::Field(dst), dst: LearnDst::Match(dst) });
        }
        match Subfield::parse(v) {
            Ok(src) => {
                if src.n_bits != dst.n_bits {
                    return Err(format!(
                        "{orig}: bit widths of {key} ({}) and {v} ({}) differ",
                        src.n_bits, dst.n_bits
                    ));
                }
                return Ok(LearnSpec { n_bits, src: LearnSrc::Field(src), dst: LearnDst::Match(dst) });
            }
            Err(as_subfield) => {
                let cannot = |as_value: String| {
                    format!(
                        "{orig}: {key} value {v} cannot be parsed as a subfield ({as_subfield}) or an immediate value \
                         ({as_value})"
                    )
                };
                // An immediate for part of a field is a number of that width.
                let value = if dst.is_whole() {
                    value::parse_exact(dst.field.field(), v, names).map_err(cannot)?
                } else {
                    let n = value::integer(v)
                        .ok_or_else(|| cannot(format!("{orig}: cannot parse integer value")))?;
                    if !n.bits(dst.n_bits, 1024 - dst.n_bits.min(1024)).is_zero(128) {
                        let text = value::text(dst.field.field(), &n, names);
                        return Err(cannot(format!(
                            "{orig}: value {text} does not fit into {} bits",
                            dst.n_bits
                        )));
                    }
                    n
                };
                return Ok(LearnSpec {
                    n_bits,
                    src: LearnSrc::Immediate(bits(&value, dst.n_bits)),
                    dst: LearnDst::Match(dst),
                });
            }
        }
    }
    match key {
        "load" => {
            let (value_text, dst_text) =
                v.split_once("->").ok_or_else(|| format!("load: missing `->' in `{v}'"))?;
            if let Some(value) = value::integer(value_text) {
                let dst = Subfield::parse(dst_text)?;
                if !value.bits(dst.n_bits, 1024 - dst.n_bits.min(1024)).is_zero(128) {
                    return Err(format!("{v}: value does not fit into {} bits", dst.n_bits));
                }
                return Ok(LearnSpec {
                    n_bits: dst.n_bits as u16,
                    src: LearnSrc::Immediate(bits(&value, dst.n_bits)),
                    dst: LearnDst::Load(dst),
                });
            }
            let (src, rest) = Subfield::parse_prefix(v)?;
            let Some(rest) = rest.strip_prefix("->") else {
                return Err(format!("{v}: missing `->' following source"));
            };
            let (dst, rest) = Subfield::parse_prefix(rest)?;
            if !rest.is_empty() {
                return Err(format!("{v}: trailing garbage following destination"));
            }
            if src.n_bits != dst.n_bits {
                return Err(format!(
                    "{v}: source field is {} bits wide but destination is {} bits wide",
                    src.n_bits, dst.n_bits
                ));
            }
            Ok(LearnSpec { n_bits: src.n_bits as u16, src: LearnSrc::Field(src), dst: LearnDst::Load(dst) })
        }
        "output" => {
            let src = Subfield::parse(v)?;
            Ok(LearnSpec { n_bits: src.n_bits as u16, src: LearnSrc::Field(src), dst: LearnDst::Output })
        }
        _ => Err(format!("{orig}: unknown keyword {key}")),
    }
}

/// Appends `learn(...)`.
pub fn format(out: &mut String, l: &Learn, names: &Names<'_>) {
    out.push_str("learn(table=");
    put_table(out, l.table, names);
    for (key, v) in [
        ("idle_timeout", l.idle_timeout),
        ("hard_timeout", l.hard_timeout),
        ("fin_idle_timeout", l.fin_idle_timeout),
        ("fin_hard_timeout", l.fin_hard_timeout),
    ] {
        if v != 0 {
            let _ = write!(out, ",{key}={v}");
        }
    }
    if l.priority != 0x8000 {
        let _ = write!(out, ",priority={}", l.priority);
    }
    if l.flags & LearnFlags::SEND_FLOW_REM != 0 {
        out.push_str(",send_flow_rem");
    }
    if l.flags & LearnFlags::DELETE_LEARNED != 0 {
        out.push_str(",delete_learned");
    }
    if l.cookie != 0 {
        let _ = write!(out, ",cookie={:#x}", l.cookie);
    }
    if l.limit != 0 {
        let _ = write!(out, ",limit={}", l.limit);
    }
    if let (Some(d), true) = (&l.result_dst, l.flags & LearnFlags::WRITE_RESULT != 0) {
        let _ = write!(out, ",result_dst={d}");
    }
    for s in &l.specs {
        out.push(',');
        match (&s.src, &s.dst) {
            (LearnSrc::Immediate(v), LearnDst::Match(dst)) => {
                let v = FieldValue::from_bytes(v);
                if dst.is_whole() {
                    let _ = write!(out, "{}=", dst.field.name);
                    value::format(out, dst.field.field(), &v, &FieldValue::ONES, names);
                } else {
                    let _ = write!(out, "{dst}={}", value::hex(&v));
                }
            }
            (LearnSrc::Field(src), LearnDst::Match(dst)) => {
                let _ = write!(out, "{dst}");
                if src != dst {
                    let _ = write!(out, "={src}");
                }
            }
            (LearnSrc::Immediate(v), LearnDst::Load(dst)) => {
                let _ = write!(out, "load:{}->{dst}", value::hex(&FieldValue::from_bytes(v)));
            }
            (LearnSrc::Field(src), LearnDst::Load(dst)) => {
                let _ = write!(out, "load:{src}->{dst}");
            }
            (LearnSrc::Field(src), LearnDst::Output) => {
                let _ = write!(out, "output:{src}");
            }
            (LearnSrc::Immediate(_), LearnDst::Output) => {}
        }
    }
    out.push(')');
}
