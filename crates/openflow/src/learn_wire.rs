//! `learn` on the wire (NXAST_LEARN, NXAST_LEARN2).
//!
//! After fixed fields come specs, each headed by 16 bits: bits 0 to 10 the width, bit 13 whether the source is
//! immediate, bits 11 and 12 the destination's kind. A zero header ends them.

use ib_flow::{FieldValue, Subfield};

use crate::action::*;
use crate::action_decode::field_header;
use crate::error::OfError;
use crate::oxm;
use crate::wire::{Buf, Cursor};

const LEN: OfError = OfError::OFPBAC_BAD_LEN;
const ARG: OfError = OfError::OFPBAC_BAD_ARGUMENT;
const IMMEDIATE: u16 = 1 << 13;
const DST_MATCH: u16 = 0 << 11;
const DST_LOAD: u16 = 1 << 11;
const DST_OUTPUT: u16 = 2 << 11;
const DST_MASK: u16 = 3 << 11;
const N_BITS: u16 = 0x3ff;

fn subfield(c: &mut Cursor<'_>, n_bits: u16) -> Result<Subfield, OfError> {
    let field = field_header(c)?;
    Ok(Subfield { field, ofs: c.u16()?.into(), n_bits: n_bits.into() })
}

/// Decodes; the cursor stands at byte 10 of the action, which is `n` bytes long.
pub fn decode(mut c: Cursor<'_>, n: usize, v2: bool) -> Result<Action, OfError> {
    if n < if v2 { 40 } else { 32 } {
        return Err(LEN);
    }
    let (idle_timeout, hard_timeout, priority) = (c.u16()?, c.u16()?, c.u16()?);
    let (cookie, flags, table) = (c.u64()?, c.u16()?, c.u8()?);
    let pad = c.u8()?;
    let (fin_idle_timeout, fin_hard_timeout) = (c.u16()?, c.u16()?);
    if pad != 0 {
        return Err(ARG);
    }
    let known = LearnFlags::SEND_FLOW_REM
        | LearnFlags::DELETE_LEARNED
        | if v2 { LearnFlags::WRITE_RESULT } else { 0 };
    if flags & !known != 0 || table == 0xff {
        return Err(ARG);
    }
    let mut out = Learn {
        idle_timeout,
        hard_timeout,
        fin_idle_timeout,
        fin_hard_timeout,
        priority,
        cookie,
        flags,
        table,
        ..Default::default()
    };
    if v2 {
        out.limit = c.u32()?;
        let ofs = c.u16()?;
        c.zeros(2, ARG)?;
        if flags & LearnFlags::WRITE_RESULT != 0 {
            let sf = Subfield { field: field_header(&mut c)?, ofs: ofs.into(), n_bits: 1 };
            crate::action_decode::check_subfield(&sf, true, None)?;
            out.result_dst = Some(sf);
        }
    }
    while c.len() >= 2 {
        let head = c.u16()?;
        if head == 0 {
            break;
        }
        let n_bits = head & N_BITS;
        if n_bits == 0 || head & !(N_BITS | DST_MASK | IMMEDIATE) != 0 {
            return Err(ARG);
        }
        let src = if head & IMMEDIATE != 0 {
            // Constants travel in whole 16-bit words; the first byte may be padding.
            let bytes = c.take(usize::from(n_bits).div_ceil(16) * 2)?;
            let keep = usize::from(n_bits).div_ceil(8);
            LearnSrc::Immediate(bytes[bytes.len() - keep..].into())
        } else {
            LearnSrc::Field(subfield(&mut c, n_bits)?)
        };
        let dst = match head & DST_MASK {
            DST_MATCH => LearnDst::Match(subfield(&mut c, n_bits)?),
            DST_LOAD => LearnDst::Load(subfield(&mut c, n_bits)?),
            DST_OUTPUT if head & IMMEDIATE == 0 => LearnDst::Output,
            _ => return Err(ARG),
        };
        out.specs.push(LearnSpec { n_bits, src, dst });
    }
    if c.rest().iter().any(|b| *b != 0) {
        return Err(ARG);
    }
    Ok(Action::Learn(Box::new(out)))
}

/// Appends everything after the subtype.
pub fn encode(b: &mut Buf, l: &Learn, v2: bool) {
    b.u16(l.idle_timeout);
    b.u16(l.hard_timeout);
    b.u16(l.priority);
    b.u64(l.cookie);
    b.u16(l.flags);
    b.u8(l.table);
    b.u8(0);
    b.u16(l.fin_idle_timeout);
    b.u16(l.fin_hard_timeout);
    if v2 {
        b.u32(l.limit);
        b.u16(l.result_dst.map_or(0, |d| d.ofs as u16));
        b.u16(0);
        if let Some(d) = &l.result_dst {
            oxm::put_header(b, d.field, 0, false);
        }
    }
    for s in &l.specs {
        let imm = if matches!(s.src, LearnSrc::Immediate(_)) { IMMEDIATE } else { 0 };
        let kind = match s.dst {
            LearnDst::Match(_) => DST_MATCH,
            LearnDst::Load(_) => DST_LOAD,
            LearnDst::Output => DST_OUTPUT,
        };
        b.u16(s.n_bits | imm | kind);
        match &s.src {
            LearnSrc::Field(sf) => {
                oxm::put_header(b, sf.field, 0, false);
                b.u16(sf.ofs as u16);
            }
            LearnSrc::Immediate(v) => {
                let width = usize::from(s.n_bits).div_ceil(16) * 2;
                b.bytes(FieldValue::from_bytes(v).bytes(width as u32));
            }
        }
        if let LearnDst::Match(sf) | LearnDst::Load(sf) = &s.dst {
            oxm::put_header(b, sf.field, 0, false);
            b.u16(sf.ofs as u16);
        }
    }
}

/// Whether only the second form can say it.
pub fn needs_v2(l: &Learn) -> bool {
    l.limit != 0 || l.flags & LearnFlags::WRITE_RESULT != 0
}
