//! ICMP (RFC 792).

use super::header;
use crate::be::{Be16, Be32};

header! {
    /// An ICMP message.
    Icmp 8 {
        /// Type.
        kind set_kind u8, 0;
        /// Code.
        code set_code u8, 1;
        /// Checksum over the message.
        checksum set_checksum Be16, 2;
        /// What the second word means depends on the type: id and sequence of an echo, gateway, MTU.
        rest set_rest Be32, 4;
        /// Id of an echo.
        id set_id Be16, 4;
        /// Sequence number of an echo.
        sequence set_sequence Be16, 6;
    }
}

impl<T: AsRef<[u8]>> Icmp<T> {
    /// Whether this reports an error about the packet that it quotes.
    pub fn is_error(&self) -> bool {
        matches!(self.kind(), 3 | 4 | 5 | 11 | 12)
    }
    /// What follows the header; of an error, the packet that it is about.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[8..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote() {
        let b = [3, 1, 0, 0, 0, 0, 0, 0, 0x45];
        let i = Icmp::new_checked(&b[..]).unwrap();
        assert!(i.is_error());
        assert_eq!(i.payload(), [0x45]);
    }
}
