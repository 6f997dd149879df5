//! Matches within messages: the framing around `flow`'s codecs.

use ib_flow::Match;
use ib_flow::wire::nxm::{self, Cookie, DecodeOptions, NxmError};
use ib_flow::wire::of10;

use crate::error::OfError;
use crate::message::Version;
use crate::wire::{Buf, Cursor};

/// OpenFlow's code for what is wrong with a match.
pub fn nxm_error(e: NxmError) -> OfError {
    match e {
        NxmError::BadLen => OfError::OFPBMC_BAD_LEN,
        NxmError::BadField => OfError::OFPBMC_BAD_FIELD,
        NxmError::BadMask => OfError::OFPBMC_BAD_MASK,
        NxmError::BadWildcards => OfError::OFPBMC_BAD_WILDCARDS,
        NxmError::BadValue => OfError::OFPBMC_BAD_VALUE,
        NxmError::BadPrereq => OfError::OFPBMC_BAD_PREREQ,
        NxmError::DupField => OfError::OFPBMC_DUP_FIELD,
        NxmError::InvalidTlvField => OfError::NXFMFC_INVALID_TLV_FIELD,
    }
}

/// Takes an OpenFlow 1.0 match.
pub fn pull_ofp10_match(c: &mut Cursor<'_>) -> Result<Match, OfError> {
    Ok(of10::decode10(&c.array()?))
}

/// Whether an OpenFlow 1.0 match wildcards nothing.
pub fn is_ofp10_exact(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|w| u32::from_be_bytes(*w) & 0x3f_ffff == 0)
}

/// Takes the match of OpenFlow 1.1+, in either of its forms, with padding. Returns it and its length with padding.
pub fn pull_ofp11_match(c: &mut Cursor<'_>, tlv_table: u32, strict: bool) -> Result<(Match, usize), OfError> {
    let bad = OfError::OFPBMC_BAD_LEN;
    let mut head = Cursor::new(c.rest(), bad);
    let (kind, len) = (head.u16()?, usize::from(head.u16()?));
    match kind {
        0 => {
            if len != of10::OF11_LEN || c.len() < len {
                return Err(bad);
            }
            Ok((of10::decode11(&c.array()?).map_err(nxm_error)?, len))
        }
        1 => {
            let padded = len.next_multiple_of(8);
            if len < 4 || padded > c.len() {
                return Err(bad);
            }
            let whole = c.take(padded)?;
            let options = DecodeOptions { strict, tlv_table };
            Ok((nxm::decode(&whole[4..len], options, None).map_err(nxm_error)?, padded))
        }
        _ => Err(OfError::OFPBMC_BAD_TYPE),
    }
}

/// Takes a match that has to be OXM, with padding.
pub fn pull_oxm_match(c: &mut Cursor<'_>, tlv_table: u32, strict: bool) -> Result<Match, OfError> {
    let bad = OfError::OFPBMC_BAD_LEN;
    let mut head = Cursor::new(c.rest(), bad);
    let (kind, len) = (head.u16()?, head.u16()?);
    if len < 4 {
        return Err(bad);
    }
    if kind != 1 {
        return Err(OfError::OFPBMC_BAD_TYPE);
    }
    Ok(pull_ofp11_match(c, tlv_table, strict)?.0)
}

/// A match in NXM, with the cookie that may be in it.
pub struct NxMatch {
    /// Match.
    pub match_: Match,
    /// Cookie.
    pub cookie: u64,
    /// Its mask; 0 if there is none.
    pub cookie_mask: u64,
}

/// Takes an NXM match of `len` bytes, with padding. With `strict` also a cookie is allowed.
pub fn pull_nxm(c: &mut Cursor<'_>, len: usize, tlv_table: u32, strict: bool) -> Result<NxMatch, OfError> {
    let padded = len.next_multiple_of(8);
    if padded > c.len() {
        // An embedded match need not be padded.
        if len > c.len() {
            return Err(OfError::OFPBMC_BAD_LEN);
        }
    }
    let bytes = c.take(padded.min(c.len()))?;
    let mut cookie: Option<Cookie> = None;
    let options = DecodeOptions { strict, tlv_table };
    let match_ = nxm::decode(&bytes[..len], options, Some(&mut cookie)).map_err(nxm_error)?;
    let (cookie, cookie_mask) = cookie.map_or((0, 0), |c| (c.value, c.mask));
    Ok(NxMatch { match_, cookie, cookie_mask })
}

/// Appends the match of OpenFlow 1.1+, with padding.
pub fn put_ofp11_match(b: &mut Buf, m: &Match, version: Version) {
    if version == Version::V11 {
        b.bytes(&of10::encode11(m));
        return;
    }
    put_oxm_match(b, m, version);
}

/// Appends a match as OXM entries with padding, as lists of flows have it in OpenFlow 1.1 too.
pub fn put_oxm_match(b: &mut Buf, m: &Match, version: Version) {
    let start = b.len();
    b.u16(1);
    b.u16(0);
    nxm::encode(m, version.to_wire(), None, &mut b.0);
    b.patch_len(start + 2, start);
    b.pad8(start);
}

/// Appends an OpenFlow 1.0 match.
pub fn put_ofp10_match(b: &mut Buf, m: &Match) {
    b.bytes(&of10::encode10(m));
}

/// Appends an NXM match with padding, and returns its length without.
pub fn put_nxm(b: &mut Buf, m: &Match, cookie: u64, cookie_mask: u64) -> u16 {
    let start = b.len();
    let cookie = (cookie_mask != 0).then_some(Cookie { value: cookie & cookie_mask, mask: cookie_mask });
    nxm::encode(m, 1, cookie, &mut b.0);
    let len = b.len() - start;
    b.pad8(start);
    len as u16
}
