//! IGMP (RFC 2236, RFC 3376).

use super::header;
use crate::be::{Be16, Be32};

header! {
    /// An IGMP message; version 3 reports have group records instead of the group.
    Igmp 8 {
        /// Type: 0x11 query, 0x12, 0x16 and 0x22 reports, 0x17 leave.
        kind set_kind u8, 0;
        /// Maximum response time, or unused.
        code set_code u8, 1;
        /// Checksum over the message.
        checksum set_checksum Be16, 2;
        /// Group.
        group set_group Be32, 4;
    }
}

impl<T: AsRef<[u8]>> Igmp<T> {
    /// What follows the header: sources of a query, records of a version 3 report.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[8..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let i = Igmp::new_checked(&[0x16, 0, 0, 0, 224, 0, 0, 9, 1][..]).unwrap();
        assert_eq!((i.kind(), i.group().get(), i.payload()), (0x16, 0xe000_0009, &[1][..]));
    }
}
