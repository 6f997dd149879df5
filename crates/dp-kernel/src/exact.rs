//! Keys and masks between programs of the same build: their words, so that nothing of a key is lost that netlink attributes lack.
//!
//! The form is a fingerprint of the layout, a bitmap of the words that are not zero, and those words, in host order. A peer
//! with another fingerprint (another release, during an upgrade) reads the attributes of linux/openvswitch.h that stand
//! beside it. Cost: linear in the words; what lies about its length is [`CodecError::Malformed`].

use ib_dpif::netlink::CodecError;
use ib_flow::Flow;
use ib_flow::key::FLOW_WORDS;

/// Words of bitmap.
const MAP: usize = FLOW_WORDS.div_ceil(64);

/// Changes with every change of the key's layout that its size shows; [`LAYOUT`] is for the others.
pub const FINGERPRINT: u64 = (FLOW_WORDS as u64) << 32 | LAYOUT;

/// Raised by hand when fields of a key change places.
const LAYOUT: u64 = 1;

/// The words of a key or mask.
pub fn to_bytes(flow: &Flow) -> Vec<u8> {
    let words = flow.words();
    let mut map = [0u64; MAP];
    let mut out = Vec::with_capacity(8 * (1 + MAP + 24));
    out.extend_from_slice(&FINGERPRINT.to_ne_bytes());
    out.resize(8 * (1 + MAP), 0);
    for (at, word) in words.iter().enumerate().filter(|(_, w)| **w != 0) {
        map[at / 64] |= 1 << (at % 64);
        out.extend_from_slice(&word.to_ne_bytes());
    }
    for (place, bits) in out[8..].chunks_exact_mut(8).zip(map) {
        place.copy_from_slice(&bits.to_ne_bytes());
    }
    out
}

/// A key or mask back; `None` if it is of another layout.
pub fn from_bytes(bytes: &[u8]) -> Result<Option<Flow>, CodecError> {
    let bad = CodecError::Malformed("exact key");
    let (words, rest) = bytes.as_chunks::<8>();
    let mut words = words.iter().map(|w| u64::from_ne_bytes(*w));
    if words.next().ok_or(bad)? != FINGERPRINT {
        return Ok(None);
    }
    let mut map = [0u64; MAP];
    for bits in &mut map {
        *bits = words.next().ok_or(bad)?;
    }
    let mut flow = Flow::zeroed();
    for (at, word) in flow.words_mut().iter_mut().enumerate() {
        if map[at / 64] >> (at % 64) & 1 != 0 {
            *word = words.next().ok_or(bad)?;
        }
    }
    let beyond = |at: usize| at >= FLOW_WORDS && map[at / 64] >> (at % 64) & 1 != 0;
    if (0..64 * MAP).any(beyond) || words.next().is_some() || !rest.is_empty() {
        Err(bad)
    } else {
        Ok(Some(flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_word_for_word() {
        let mut flow = Flow::zeroed();
        for (at, word) in flow.words_mut().iter_mut().enumerate() {
            *word = if at % 3 == 0 { at as u64 + 1 } else { 0 };
        }
        assert_eq!(from_bytes(&to_bytes(&flow)), Ok(Some(flow)));
    }

    #[test]
    fn another_layout_is_told_and_a_lie_refused() {
        let mut bytes = to_bytes(&Flow::zeroed());
        bytes.push(0);
        assert!(from_bytes(&bytes).is_err());
        bytes.pop();
        bytes[8] = 1;
        assert!(from_bytes(&bytes).is_err(), "a word that is missing");
        bytes[0] ^= 0xff;
        assert_eq!(from_bytes(&bytes), Ok(None));
        assert!(from_bytes(&bytes[..4]).is_err());
    }
}
