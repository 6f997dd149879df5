//! Subfields: a range of bits of a field, as in `reg0[0..15]`.

use std::fmt;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::fields::{FIELDS, Field, FieldId, FieldValue, by_name};
use crate::key::{Flow, Mask, Match};

/// Bits `ofs..ofs + n_bits` of a field, counted from the least significant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subfield {
    /// The field.
    pub field: FieldId,
    /// First bit.
    pub ofs: u32,
    /// How many bits.
    pub n_bits: u32,
}

impl Subfield {
    /// All of a field.
    pub fn whole(field: FieldId) -> Subfield {
        Subfield { field, ofs: 0, n_bits: field.n_bits }
    }

    /// Parses a subfield at the start of `s`, such as `NXM_NX_REG0[0..15]`, `reg0[3]`, `eth_dst[]` or
    /// `eth_dst`, and returns what follows. The error is the text that the user sees.
    pub fn parse_prefix(s: &str) -> Result<(Subfield, &str), String> {
        let name_len = s.find(['[', '-']).unwrap_or(s.len());
        let (name, rest) = s.split_at(name_len);
        let Some((field, _)) = field_by_any_name(name) else {
            return Err(format!("{s}: unknown field `{name}'"));
        };
        let mut sf = Subfield::whole(field.id);
        let Some(inner) = rest.strip_prefix('[') else { return Ok((sf, rest)) };
        if let Some(rest) = inner.strip_prefix(']') {
            return Ok((sf, rest));
        }
        let syntax = || format!("{s}: syntax error expecting [] or [<bit>] or [<start>..<end>]");
        let (start, after) = number(inner).ok_or_else(syntax)?;
        let (end, after) = match after.strip_prefix("..") {
            Some(after) => number(after).ok_or_else(syntax)?,
            None => (start, after),
        };
        let rest = after.strip_prefix(']').ok_or_else(syntax)?;
        let n = i64::from(field.n_bits);
        if start > end {
            return Err(format!("{s}: starting bit {start} is after ending bit {end}"));
        }
        if start >= n {
            return Err(format!(
                "{s}: starting bit {start} is not valid because field is only {n} bits wide"
            ));
        }
        if end >= n {
            return Err(format!("{s}: ending bit {end} is not valid because field is only {n} bits wide"));
        }
        let bit = |v: i64| u32::try_from(v).map_err(|_| syntax());
        sf.ofs = bit(start)?;
        sf.n_bits = bit(end - start + 1)?;
        Ok((sf, rest))
    }

    /// Parses a text that is nothing but a subfield.
    pub fn parse(s: &str) -> Result<Subfield, String> {
        match Subfield::parse_prefix(s)? {
            (sf, "") => Ok(sf),
            _ => Err("unexpected input following field syntax".into()),
        }
    }

    /// Whether it is a whole field.
    pub fn is_whole(&self) -> bool {
        self.ofs == 0 && self.n_bits == self.field.n_bits
    }
    /// One bits where the subfield lies in the field.
    pub fn mask(&self) -> FieldValue {
        let mut m = FieldValue::ZERO;
        m.set_bits(self.ofs, self.n_bits, &FieldValue::ONES);
        m
    }
    /// The bits in a packet's key, as a number.
    pub fn get(&self, flow: &Flow) -> FieldValue {
        self.field.get(flow).bits(self.ofs, self.n_bits)
    }
    /// The low 64 of the bits in a packet's key.
    pub fn get_u64(&self, flow: &Flow) -> u64 {
        self.get(flow).to_u64()
    }
    /// Stores the low bits of `v` in a packet's key.
    pub fn set_flow(&self, flow: &mut Flow, v: &FieldValue) {
        let mut whole = self.field.get(flow);
        whole.set_bits(self.ofs, self.n_bits, v);
        self.field.set_flow(flow, &whole);
    }
    /// Adds a constraint on these bits to a match, besides what it says of the field's other bits.
    pub fn set_match(&self, m: &mut Match, v: &FieldValue) -> Result<(), String> {
        let (mut value, mut mask) = self.field.get_match(m);
        value.set_bits(self.ofs, self.n_bits, v);
        mask.set_bits(self.ofs, self.n_bits, &FieldValue::ONES);
        let full = FieldValue::low_ones(self.field.n_bits);
        if self.field.n_bits < self.field.n_bytes * 8 && mask.and(&full) == full {
            mask = FieldValue::ONES;
        }
        self.field.set_masked(&value, &mask, m)
    }
    /// Marks the bits as mattering.
    pub fn unwildcard(&self, mask: &mut Mask) {
        self.field.unwildcard_bits(mask, &self.mask());
    }

    /// Whether actions may read it, given the key or match so far; `Err` names OpenFlow's complaint.
    pub fn check_src(&self, m: Option<&Match>) -> Result<(), SubfieldError> {
        self.check(m)
    }
    /// Whether actions may write it.
    pub fn check_dst(&self, m: Option<&Match>) -> Result<(), SubfieldError> {
        self.check(m)?;
        if self.field.writable { Ok(()) } else { Err(SubfieldError::ReadOnly) }
    }
    fn check(&self, m: Option<&Match>) -> Result<(), SubfieldError> {
        if self.n_bits == 0 {
            return Err(SubfieldError::ZeroBits);
        }
        if self.ofs.saturating_add(self.n_bits) > self.field.n_bits {
            return Err(SubfieldError::TooWide);
        }
        match m {
            Some(m) if !self.field.are_match_prereqs_ok(m) => Err(SubfieldError::Prereq),
            _ => Ok(()),
        }
    }
}

/// Why an action cannot use a subfield.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubfieldError {
    /// No bits (`OFPBAC_BAD_SET_LEN`).
    ZeroBits,
    /// Past the field's end (`OFPBAC_BAD_SET_LEN`).
    TooWide,
    /// Not writable (`OFPBAC_BAD_SET_ARGUMENT`).
    ReadOnly,
    /// The match does not imply that the field exists (`OFPBAC_MATCH_INCONSISTENT`).
    Prereq,
}

impl fmt::Display for Subfield {
    /// As actions print it: the NXM name and the range, `[]` for a whole field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field.codes.first().map_or(self.field.name, |c| c.name))?;
        match (self.is_whole(), self.n_bits) {
            (true, _) => f.write_str("[]"),
            (_, 1) => write!(f, "[{}]", self.ofs),
            _ => write!(f, "[{}..{}]", self.ofs, (self.ofs + self.n_bits).saturating_sub(1)),
        }
    }
}

/// A decimal number at the start of a text, as C's `%d` reads it.
fn number(s: &str) -> Option<(i64, &str)> {
    let t = s.trim_start();
    let digits = t.strip_prefix(['-', '+']).unwrap_or(t);
    let n = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let len = t.len() - digits.len() + n;
    Some((t[..len].parse().ok()?, &t[len..]))
}

/// A field by its name, alias, or an NXM/OXM name; true if the name ends in `_W` (with mask).
pub fn field_by_any_name(name: &str) -> Option<(&'static Field, bool)> {
    if let Some(f) = by_name(name) {
        return Some((f, false));
    }
    static CODES: LazyLock<HashMap<&'static str, FieldId, foldhash::fast::FixedState>> =
        LazyLock::new(|| {
            // The first field of a name has it.
            let all = FIELDS.iter().rev().flat_map(|f| f.codes.iter().map(|c| (c.name, f.id)));
            all.collect()
        });
    let find = |n: &str| CODES.get(n).map(|id| id.field());
    find(name).map(|f| (f, false)).or_else(|| name.strip_suffix("_W").and_then(find).map(|f| (f, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        let got = match Subfield::parse(input) {
            Ok(sf) => sf.to_string(),
            Err(e) => e,
        };
        assert_eq!(got, expect, "{input}");
    }

    #[test]
    fn texts() {
        check("NXM_NX_REG0[0..15]", "NXM_NX_REG0[0..15]");
        check("reg0", "NXM_NX_REG0[]");
        check("NXM_NX_REG0_W[]", "NXM_NX_REG0[]");
        check("reg0[3]", "NXM_NX_REG0[3]");
        check("eth_dst[]", "NXM_OF_ETH_DST[]");
        check("metadata[0..7]", "OXM_OF_METADATA[0..7]");
        check("xreg1", "OXM_OF_PKT_REG1[]");
        check("actset_output", "ONFOXM_ET_ACTSET_OUTPUT[]");
        check("reg0[32]", "reg0[32]: starting bit 32 is not valid because field is only 32 bits wide");
        check("reg0[0..32]", "reg0[0..32]: ending bit 32 is not valid because field is only 32 bits wide");
        check("reg0[5..3]", "reg0[5..3]: starting bit 5 is after ending bit 3");
        check("reg0[a]", "reg0[a]: syntax error expecting [] or [<bit>] or [<start>..<end>]");
        check("reg0[]x", "unexpected input following field syntax");
        check("foo[]", "foo[]: unknown field `foo'");
        check("reg0[-1..3]", "reg0[-1..3]: syntax error expecting [] or [<bit>] or [<start>..<end>]");
    }

    #[test]
    fn bits_of_a_key() {
        let sf = Subfield::parse("reg1[4..11]").unwrap();
        let mut flow = Flow::zeroed();
        flow.regs[1] = 0xf00f;
        sf.set_flow(&mut flow, &0xabu64.into());
        assert_eq!(flow.regs[1], 0xfabf);
        assert_eq!(sf.get_u64(&flow), 0xab);
        let mut mask = Mask::default();
        sf.unwildcard(&mut mask);
        assert_eq!(mask.0.regs[1], 0xff0);
        let mut m = Match::catch_all();
        sf.set_match(&mut m, &0x12u64.into()).unwrap();
        assert_eq!((m.flow.regs[1], m.mask.0.regs[1]), (0x120, 0xff0));
    }
}
