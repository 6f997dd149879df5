//! ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861).

use super::header;
use crate::be::{Be16, Be32, Be128};
use crate::mac::Mac;

header! {
    /// An ICMPv6 message.
    Icmpv6 8 {
        /// Type.
        kind set_kind u8, 0;
        /// Code.
        code set_code u8, 1;
        /// Checksum over pseudo header and message.
        checksum set_checksum Be16, 2;
        /// The second word: id and sequence of an echo, flags of an advertisement.
        rest set_rest Be32, 4;
        /// Id of an echo.
        id set_id Be16, 4;
        /// Sequence number of an echo.
        sequence set_sequence Be16, 6;
    }
}

header! {
    /// A neighbour solicitation or advertisement.
    Neighbor 24 {
        /// Type, 135 or 136.
        kind set_kind u8, 0;
        /// Code, 0.
        code set_code u8, 1;
        /// Checksum.
        checksum set_checksum Be16, 2;
        /// Flags and reserved bits.
        reserved set_reserved Be32, 4;
        /// Target address.
        target set_target Be128, 8;
    }
}

impl<T: AsRef<[u8]>> Icmpv6<T> {
    /// Whether this reports an error about the packet that it quotes.
    pub fn is_error(&self) -> bool {
        self.kind() < 128
    }
    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[8..]
    }
}

/// A link-layer address option's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdOption {
    /// 1 source, 2 target.
    pub kind: u8,
    /// The address.
    pub mac: Mac,
    /// Offset of the option from the message's first byte.
    pub offset: usize,
}

impl<T: AsRef<[u8]>> Neighbor<T> {
    /// Link-layer address options, until the first broken option.
    pub fn options(&self) -> impl Iterator<Item = NdOption> + '_ {
        let b = self.0.as_ref();
        let mut at = 24;
        std::iter::from_fn(move || {
            loop {
                let o = b.get(at..at + 8)?;
                let len = usize::from(o[1]) * 8;
                if len == 0 || at + len > b.len() {
                    return None;
                }
                let offset = at;
                at += len;
                if len == 8 && matches!(o[0], 1 | 2) {
                    let mac = Mac([o[2], o[3], o[4], o[5], o[6], o[7]]);
                    return Some(NdOption { kind: o[0], mac, offset });
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_an_advertisement() {
        let mut b = vec![0u8; 24];
        b[0] = 136;
        b.extend_from_slice(&[5, 1, 0, 0, 0, 0, 5, 220]);
        b.extend_from_slice(&[2, 1, 1, 2, 3, 4, 5, 6]);
        b.extend_from_slice(&[2, 0, 1, 2, 3, 4, 5, 6]);
        let n = Neighbor::new_checked(&b[..]).unwrap();
        let all: Vec<_> = n.options().collect();
        assert_eq!(all, [NdOption { kind: 2, mac: Mac([1, 2, 3, 4, 5, 6]), offset: 32 }]);
    }
}
