//! Values of fields in text, as actions write them.

use ib_flow::fields::Field;
use ib_flow::{FieldId, FieldValue};

use crate::names::Names;

/// A number in decimal or hexadecimal of up to 1024 bits, all of the text.
pub fn integer(s: &str) -> Option<FieldValue> {
    let t = s.trim();
    if let Some(hex) = t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
        if hex.is_empty() || hex.len() > 256 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut v = FieldValue::ZERO;
        for (i, d) in hex.bytes().rev().enumerate() {
            let d = (d as char).to_digit(16).unwrap_or(0) as u8;
            v.0[127 - i / 2] |= if i % 2 == 1 { d << 4 } else { d };
        }
        return Some(v);
    }
    let n = crate::text_util::c_integer(t)?;
    u64::try_from(n).or_else(|_| i64::try_from(n).map(|n| n as u64)).ok().map(FieldValue::from)
}

/// A number in hexadecimal; `0` for zero.
pub fn hex(v: &FieldValue) -> String {
    ib_flow::text::hex(v)
}

/// A value with optional mask for a field; the mask is all ones if there is none.
pub fn parse(field: &'static Field, s: &str, names: &Names<'_>) -> Result<(FieldValue, FieldValue), String> {
    ib_flow::text::parse_masked(field, s, names.ports)
}

/// A value without mask.
pub fn parse_exact(field: &'static Field, s: &str, names: &Names<'_>) -> Result<FieldValue, String> {
    ib_flow::text::parse_value(field, s, names.ports)
}

/// Appends a value as its field is written.
pub fn format(out: &mut String, field: &'static Field, v: &FieldValue, m: &FieldValue, names: &Names<'_>) {
    out.push_str(&ib_flow::text::format_value(field, v, m, names.ports));
}

/// A value as its field is written, without mask.
pub fn text(field: &'static Field, v: &FieldValue, names: &Names<'_>) -> String {
    ib_flow::text::format_value(field, v, &FieldValue::ONES, names.ports)
}

/// Whether a field's first code is an experimenter's, which some actions have no room for.
pub fn is_experimenter(field: FieldId) -> bool {
    field.field().code(0).is_none_or(|c| c.class == 0xffff)
}

/// Bytes with which an action stores a value: the field's width; for options of variable length what is needed.
pub fn stored_len(field: &'static Field, v: &FieldValue, m: &FieldValue) -> u32 {
    if !field.is_tun_metadata() {
        return field.n_bytes;
    }
    let sized_by = if m.is_ones(124) { v } else { m };
    sized_by.significant_bytes().min(124)
}
