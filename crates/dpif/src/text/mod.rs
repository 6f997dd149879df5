//! The text form of keys and actions: what `dpctl/dump-flows` prints and `dpctl/add-flow`,
//! `netdev-dummy/receive` and `ofproto/trace` read. One file formats and parses keys, one does actions;
//! both share the scanner here.
//!
//! Parsing never panics; errors name the place.

mod action;
mod key;
mod tnl_push;
mod userspace;

pub use action::{format_actions, parse_actions};
pub use key::{format_kernel_key, format_key, parse_key};
pub use userspace::{SLOW_PATH_REASONS, UserCookie};

use std::collections::BTreeMap;
use std::fmt;

use ib_flow::OdpPort;

/// Port names for texts: which number has which name. Empty: numbers only.
#[derive(Debug, Clone, Default)]
pub struct PortNames(BTreeMap<OdpPort, String>);

impl PortNames {
    /// No names.
    pub fn none() -> PortNames {
        PortNames::default()
    }
    /// Adds a port.
    pub fn add(&mut self, port: OdpPort, name: &str) {
        self.0.insert(port, name.to_owned());
    }
    /// Name of a port.
    pub fn name(&self, port: OdpPort) -> Option<&str> {
        self.0.get(&port).map(String::as_str)
    }
    /// Number of a port by name.
    pub fn number(&self, name: &str) -> Option<OdpPort> {
        self.0.iter().find(|(_, n)| *n == name).map(|(p, _)| *p)
    }
    /// Name if there is one, else the number.
    pub fn show(&self, port: OdpPort) -> String {
        self.name(port).map_or_else(|| port.to_string(), str::to_owned)
    }
}

/// Text that is not a key or an action list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub what: String,
    /// Byte offset in the text.
    pub at: usize,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "syntax error at offset {}: {}", self.at, self.what)
    }
}

impl std::error::Error for ParseError {}

type Res<T> = Result<T, ParseError>;

/// A cursor over text.
pub(crate) struct Scan<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a str) -> Scan<'a> {
        Scan { text, pos: 0 }
    }
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }
    pub(crate) fn at_end(&self) -> bool {
        self.pos >= self.text.len()
    }
    pub(crate) fn err<T>(&self, what: impl Into<String>) -> Res<T> {
        Err(ParseError { what: what.into(), at: self.pos })
    }
    /// Consumes `token` if it is next.
    pub(crate) fn eat(&mut self, token: &str) -> bool {
        let hit = self.rest().starts_with(token);
        if hit {
            self.pos += token.len();
        }
        hit
    }
    pub(crate) fn expect(&mut self, token: &str) -> Res<()> {
        if self.eat(token) { Ok(()) } else { self.err(format!("expected '{token}'")) }
    }
    /// Skips blanks, commas and line ends between attributes.
    pub(crate) fn skip_delimiters(&mut self) {
        let n = self.rest().bytes().take_while(|b| b", \t\r\n".contains(b)).count();
        self.pos += n;
    }
    /// The longest run of bytes that `accept` takes; may be empty.
    pub(crate) fn take(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let n = self.rest().bytes().take_while(|b| b.is_ascii() && accept(*b)).count();
        let token = &self.rest()[..n];
        self.pos += n;
        token
    }
    /// A word: letters, digits, `_`.
    pub(crate) fn word(&mut self) -> &'a str {
        self.take(|b| b.is_ascii_alphanumeric() || b == b'_')
    }
    /// A name of a device: anything but delimiters.
    pub(crate) fn name(&mut self) -> &'a str {
        self.take(|b| b.is_ascii_alphanumeric() || b"_-.@:+".contains(&b))
    }
    /// Decimal, or hexadecimal after `0x`, at most `max`.
    pub(crate) fn number(&mut self, max: u128) -> Res<u128> {
        let start = self.pos;
        let v = if self.eat("0x") || self.eat("0X") {
            u128::from_str_radix(self.take(|b| b.is_ascii_hexdigit()), 16)
        } else {
            self.take(|b| b.is_ascii_digit()).parse()
        };
        match v {
            Ok(v) if v <= max => Ok(v),
            _ => {
                self.pos = start;
                self.err("expected a number")
            }
        }
    }
    pub(crate) fn u8(&mut self) -> Res<u8> {
        Ok(u8::try_from(self.number(u128::from(u8::MAX))?).unwrap_or(u8::MAX))
    }
    pub(crate) fn u16(&mut self) -> Res<u16> {
        Ok(u16::try_from(self.number(u128::from(u16::MAX))?).unwrap_or(u16::MAX))
    }
    pub(crate) fn u32(&mut self) -> Res<u32> {
        Ok(u32::try_from(self.number(u128::from(u32::MAX))?).unwrap_or(u32::MAX))
    }
    pub(crate) fn u64(&mut self) -> Res<u64> {
        Ok(u64::try_from(self.number(u128::from(u64::MAX))?).unwrap_or(u64::MAX))
    }
    /// Parses the longest token made of `accept` bytes with `FromStr`.
    pub(crate) fn parsed<T: std::str::FromStr>(&mut self, what: &str, accept: impl Fn(u8) -> bool) -> Res<T> {
        let start = self.pos;
        let token = self.take(accept);
        token.parse().or_else(|_| {
            self.pos = start;
            self.err(format!("expected {what}"))
        })
    }
    pub(crate) fn mac(&mut self) -> Res<ib_packet::Mac> {
        self.parsed("an Ethernet address", |b| b.is_ascii_hexdigit() || b == b':')
    }
    pub(crate) fn ipv4(&mut self) -> Res<std::net::Ipv4Addr> {
        self.parsed("an IPv4 address", |b| b.is_ascii_digit() || b == b'.')
    }
    pub(crate) fn ipv6(&mut self) -> Res<std::net::Ipv6Addr> {
        self.parsed("an IPv6 address", |b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
    }
    /// The text up to the `)` that closes a parenthesis already consumed, which is consumed too.
    pub(crate) fn balanced(&mut self) -> Res<&'a str> {
        let mut depth = 1usize;
        for (i, b) in self.rest().bytes().enumerate() {
            match b {
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        let inner = &self.rest()[..i];
                        self.pos += i + 1;
                        return Ok(inner);
                    }
                }
                _ => {}
            }
        }
        self.err("missing ')'")
    }
}

/// `%#x` of C: `0` for zero, `0x..` otherwise.
pub(crate) fn hex(v: u128) -> String {
    if v == 0 { "0".into() } else { format!("{v:#x}") }
}

/// A set of named bits as C's `format_flags_masked`: exact `a|b` or `0`; masked `+a-b`; no mask `0/0`.
pub(crate) fn flags_masked(flags: u32, mask: u32, max: u32, names: &[(u32, &str)]) -> String {
    let name = |bit: u32| names.iter().find(|(b, _)| *b == bit).map_or("[Unknown]", |(_, n)| n);
    let bits = |set: u32| (0..32).map(move |i| 1u32 << i).filter(move |b| set & b != 0);
    if mask & max == max {
        if flags & max == 0 {
            return "0".into();
        }
        return bits(flags & max).map(name).collect::<Vec<_>>().join("|");
    }
    if mask == 0 {
        return "0/0".into();
    }
    bits(mask).map(|b| format!("{}{}", if flags & b != 0 { '+' } else { '-' }, name(b))).collect()
}

/// Parses [`flags_masked`]'s forms (also a plain number with optional `/mask`) up to `)`.
pub(crate) fn parse_flags(s: &mut Scan<'_>, max: u32, names: &[(u32, &str)]) -> Res<(u32, u32)> {
    let find = |s: &Scan<'_>, word: &str| match names.iter().find(|(_, n)| *n == word) {
        Some((bit, _)) => Ok(*bit),
        None => s.err(format!("unknown flag '{word}'")),
    };
    if s.rest().starts_with(|c: char| c.is_ascii_digit()) {
        let v = s.u32()?;
        let m = if s.eat("/") { s.u32()? } else { max };
        return Ok((v & m, m));
    }
    let (mut flags, mut mask) = (0, 0);
    if s.rest().starts_with(['+', '-']) {
        loop {
            let set = if s.eat("+") {
                true
            } else if s.eat("-") {
                false
            } else {
                break;
            };
            let word = flag_word(s);
            let bit = find(s, word)?;
            mask |= bit;
            if set {
                flags |= bit;
            }
        }
        return Ok((flags, mask));
    }
    loop {
        let word = flag_word(s);
        if !word.is_empty() {
            flags |= find(s, word)?;
        }
        if !s.eat("|") && !s.eat(",") {
            return Ok((flags, max));
        }
    }
}

/// A flag's name; those without one are their bits in brackets.
fn flag_word<'a>(s: &mut Scan<'a>) -> &'a str {
    s.take(|b| b.is_ascii_alphanumeric() || b"_[]".contains(&b))
}

/// TCP flag bits by name.
pub(crate) const TCP_FLAGS: &[(u32, &str)] = &[
    (0x001, "fin"),
    (0x002, "syn"),
    (0x004, "rst"),
    (0x008, "psh"),
    (0x010, "ack"),
    (0x020, "urg"),
    (0x040, "ece"),
    (0x080, "cwr"),
    (0x100, "ns"),
    (0x200, "[200]"),
    (0x400, "[400]"),
    (0x800, "[800]"),
];

/// Connection state bits by name.
pub(crate) const CT_STATE: &[(u32, &str)] = &[
    (0x01, "new"),
    (0x02, "est"),
    (0x04, "rel"),
    (0x08, "rpl"),
    (0x10, "inv"),
    (0x20, "trk"),
    (0x40, "snat"),
    (0x80, "dnat"),
];

/// Tunnel flag bits by name.
pub(crate) const TUN_FLAGS: &[(u32, &str)] = &[
    (ib_flow::TunFlags::DF as u32, "df"),
    (ib_flow::TunFlags::CSUM as u32, "csum"),
    (ib_flow::TunFlags::KEY as u32, "key"),
    (ib_flow::TunFlags::OAM as u32, "oam"),
];
