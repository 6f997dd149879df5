//! NXM and OXM headers and entries within actions.
//!
//! A header names a field; an entry is a header, a value and perhaps a mask. Matches as a whole are `flow`'s;
//! this is what actions and properties need.

use ib_flow::{FieldId, FieldValue};

use crate::error::OfError;
use crate::wire::{Buf, Cursor};

/// A header: the field, whether a mask follows its value, and the width of each in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderInfo {
    /// Field.
    pub field: FieldId,
    /// With mask.
    pub masked: bool,
    /// Bytes of the value by the header.
    pub n_bytes: usize,
}

/// Takes a header of 4 bytes, or 8 with an experimenter. One with another length than the field's names no field,
/// unless it is `bad_len` and the length is not zero.
pub fn pull_header(c: &mut Cursor<'_>, bad_len: OfError) -> Result<HeaderInfo, OfError> {
    let header = c.u32()?;
    let experimenter = if header >> 16 == 0xffff { c.u32()? } else { 0 };
    read_header(header, experimenter, bad_len)
}

/// What a header says.
pub fn read_header(header: u32, experimenter: u32, bad_len: OfError) -> Result<HeaderInfo, OfError> {
    let class = (header >> 16) as u16;
    let number = (header >> 9 & 0x7f) as u8;
    let masked = header >> 8 & 1 != 0;
    let mut payload = (header & 0xff) as usize;
    if class == 0xffff {
        payload = payload.checked_sub(4).ok_or(OfError::OFPBMC_BAD_LEN)?;
    }
    let (field, code) =
        ib_flow::wire::nxm::code_point(class, experimenter, number).ok_or(OfError::OFPBMC_BAD_FIELD)?;
    let n_bytes = if masked { payload / 2 } else { payload };
    if !field.is_tun_metadata() && n_bytes != code.n_bytes as usize {
        return Err(if n_bytes == 0 { OfError::OFPBMC_BAD_FIELD } else { bad_len });
    }
    Ok(HeaderInfo { field: field.id, masked, n_bytes })
}

/// Appends a field's header in the form that `version` (wire number, 0 for NXM) prefers.
pub fn put_header(b: &mut Buf, field: FieldId, version: u8, masked: bool) {
    put_header_len(b, field, version, masked, field.field().n_bytes);
}

fn put_header_len(b: &mut Buf, field: FieldId, version: u8, masked: bool, n_bytes: u32) {
    if let Some(code) = field.field().code(version) {
        b.u32(code.header(masked, n_bytes));
        if code.class == 0xffff {
            b.u32(code.experimenter);
        }
    }
}

/// Takes an entry: field, value, mask (all ones if there is none).
pub fn pull_entry(
    c: &mut Cursor<'_>,
    bad_len: OfError,
) -> Result<(HeaderInfo, FieldValue, FieldValue), OfError> {
    let info = pull_header(c, bad_len)?;
    let value = FieldValue::from_bytes(c.take(info.n_bytes)?);
    let mask = match info.masked {
        true => FieldValue::from_bytes(c.take(info.n_bytes)?),
        false => FieldValue::low_ones(8 * info.n_bytes as u32),
    };
    Ok((info, value, mask))
}

/// Appends an entry; the mask is left out if it is all ones.
pub fn put_entry(b: &mut Buf, field: FieldId, version: u8, value: &[u8], mask: &[u8]) {
    let masked = mask.iter().any(|m| *m != 0xff);
    put_header_len(b, field, version, masked, value.len().min(124) as u32);
    b.bytes(value);
    if masked {
        b.bytes(mask);
    }
}
