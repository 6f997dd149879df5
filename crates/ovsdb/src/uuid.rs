//! Row identifiers.

use ib_base::rng::Rng;
use std::cell::RefCell;
use std::fmt;
use std::io::Read;

/// A 128-bit identifier in the RFC 4122 text form. Order is that of the text.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid {
    hi: u64,
    lo: u64,
}

impl Uuid {
    /// The identifier of all zero bits, which no row has.
    pub const ZERO: Uuid = Uuid { hi: 0, lo: 0 };

    /// A fresh version-4 identifier from the system's random source.
    pub fn random() -> Uuid {
        let mut bytes = [0; 16];
        random_bytes(&mut bytes);
        ib_base::replay::uuid(&mut bytes);
        let n = u128::from_be_bytes(bytes);
        let n = n & !(0xf << 76) | (0x4 << 76);
        let n = n & !(0x3 << 62) | (0x2 << 62);
        Uuid::from_u128(n)
    }

    /// A fresh identifier where nothing bad comes of it if somebody predicts it: for versions, not for rows.
    pub fn random_version() -> Uuid {
        thread_local! {
            static RNG: RefCell<Rng> = RefCell::new(Rng::from_os());
        }
        let (hi, lo) = RNG.with_borrow_mut(|rng| (rng.next_u64(), rng.next_u64()));
        Uuid { hi: hi & !0xf000 | 0x4000, lo: lo & !(3 << 62) | 1 << 63 }
    }

    /// The identifier with these bits, most significant first in text.
    pub const fn from_u128(n: u128) -> Uuid {
        Uuid { hi: (n >> 64) as u64, lo: n as u64 }
    }

    /// The bits, most significant first in text.
    pub const fn as_u128(self) -> u128 {
        ((self.hi as u128) << 64) | self.lo as u128
    }

    /// True if all bits are zero.
    pub fn is_zero(self) -> bool {
        self == Uuid::ZERO
    }

    /// Parses the 36-character text form; hexadecimal digits of either case.
    pub fn parse(text: &str) -> Option<Uuid> {
        Uuid::from_utf8(text.as_bytes())
    }

    /// [`Uuid::parse`] on bytes.
    pub fn from_utf8(text: &[u8]) -> Option<Uuid> {
        if text.len() != 36 { None } else { Uuid::from_prefix(text) }
    }

    /// Parses a text that begins with a UUID.
    pub fn parse_prefix(text: &str) -> Option<Uuid> {
        Uuid::from_prefix(text.as_bytes())
    }

    fn from_prefix(text: &[u8]) -> Option<Uuid> {
        let text = text.first_chunk::<36>()?;
        if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
            return None;
        }
        let mut bad = 0;
        let mut part = |from: usize, to: usize| {
            text[from..to].iter().fold(0u64, |n, &b| {
                let digit = DIGITS[usize::from(b)];
                bad |= digit;
                n << 4 | u64::from(digit & 15)
            })
        };
        let hi = part(0, 8) << 32 | part(9, 13) << 16 | part(14, 18);
        let lo = part(19, 23) << 48 | part(24, 36);
        (bad & 0x80 == 0).then_some(Uuid { hi, lo })
    }

    /// How many leading characters of `text` fit a UUID: 36 for a whole one, fewer for the beginning of one,
    /// 0 if `text` is not the beginning of a UUID.
    pub fn partial_match(text: &str) -> usize {
        let bytes = text.as_bytes();
        if bytes.len() > 36 {
            return 0;
        }
        let fits = |(i, b): (usize, &u8)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        };
        if bytes.iter().enumerate().all(fits) { bytes.len() } else { 0 }
    }

    /// The 36-character text form.
    pub fn to_text(self) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'-'; 36];
        let mut put = |to: std::ops::Range<usize>, mut n: u64| {
            for digit in out[to].iter_mut().rev() {
                *digit = HEX[(n & 0xf) as usize];
                n >>= 4;
            }
        };
        put(0..8, self.hi >> 32);
        put(9..13, self.hi >> 16);
        put(14..18, self.hi);
        put(19..23, self.lo >> 48);
        put(24..36, self.lo);
        out
    }

    /// Appends the text form.
    pub fn write_to(self, out: &mut String) {
        out.push_str(std::str::from_utf8(&self.to_text()).unwrap_or_default());
    }
}

/// The values of hexadecimal digits; the top bit in all others.
const DIGITS: [u8; 256] = {
    let mut digits = [0x80; 256];
    let mut i = 0;
    while i < 16 {
        digits[b"0123456789abcdef"[i] as usize] = i as u8;
        digits[b"0123456789ABCDEF"[i] as usize] = i as u8;
        i += 1;
    }
    digits
};

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Fills `out` from the system's random source, in gulps: a busy database makes 100,000 rows a second.
fn random_bytes(out: &mut [u8; 16]) {
    const GULP: usize = 32 * 1024;
    thread_local! {
        static POOL: RefCell<(Vec<u8>, usize)> = const { RefCell::new((Vec::new(), 0)) };
    }
    POOL.with_borrow_mut(|(pool, used)| {
        if *used + out.len() > pool.len() {
            pool.resize(GULP, 0);
            let filled = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(pool));
            // Without randomness identifiers could collide, and a collision corrupts data.
            assert!(filled.is_ok(), "cannot read /dev/urandom");
            *used = 0;
        }
        let end = *used + out.len();
        out.copy_from_slice(&pool[*used..end]);
        *used = end;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_order() {
        let text = "6c3e27e7-f170-4534-babc-97dfc9ee0a10";
        let uuid = Uuid::parse(text).unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(Uuid::parse(&text.to_uppercase()), Some(uuid));
        assert!(Uuid::parse("00000000-0000-0000-0000-000000000001").unwrap() < uuid);
        for bad in ["", "x", &text[1..], &format!("{text}0"), "6c3e27e7xf170-4534-babc-97dfc9ee0a10"] {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn random_ones_are_version_4_and_differ() {
        let many: std::collections::HashSet<Uuid> = (0..1000).map(|_| Uuid::random()).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().all(|u| u.to_string().as_bytes()[14] == b'4'));
        let version = Uuid::random_version().to_string();
        assert!(version.as_bytes()[14] == b'4' && matches!(version.as_bytes()[19], b'8'..=b'b'));
    }

    #[test]
    fn beginnings_match() {
        assert_eq!(Uuid::partial_match("6c3e27e7-f1"), 11);
        assert_eq!(Uuid::partial_match("6c3e27e7f"), 0);
        assert_eq!(Uuid::partial_match("xyz"), 0);
    }
}
