//! Castagnoli's CRC, which guards SCTP packets (RFC 9260, appendix A).
//!
//! A table of one byte's steps: a few nanoseconds a byte, which only SCTP pays.

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut c, mut bit) = (i as u32, 0);
        while bit < 8 {
            c = if c & 1 != 0 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 };
            bit += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
};

fn update(crc: u32, d: &[u8]) -> u32 {
    d.iter().fold(crc, |c, b| TABLE[usize::from(c as u8 ^ b)] ^ c >> 8)
}

/// Of a packet that begins with SCTP's header, whose checksum field counts as zero. It is stored little end first.
pub fn of_sctp(d: &[u8]) -> u32 {
    let (head, rest) = d.split_at(d.len().min(8));
    let body = rest.get(4..).unwrap_or_default();
    !update(update(update(!0, head), &[0; 4]), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // RFC 3720, B.4.
        assert_eq!(!update(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!update(!0, b"123456789"), 0xe306_9283);
        assert_eq!(of_sctp(&[0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9]), !update(!0, &[0; 12]));
    }
}
