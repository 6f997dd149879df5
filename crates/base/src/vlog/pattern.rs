//! Log patterns: the `%` escapes of ovs-appctl(8), compiled when the pattern is set.

use std::fmt::Write;
use std::sync::OnceLock;

use super::{Level, Module};
use crate::time::strftime;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    source: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    what: What,
    left: bool,
    zero: bool,
    width: usize,
}

#[derive(Clone, Debug)]
enum What {
    Literal(String),
    Program,
    Pri,
    Module,
    Date { format: String, local: bool },
    Host,
    Message,
    Serial,
    NewLine,
    Level,
    Pid,
    Elapsed,
    Thread,
    ThreadInParens,
}

/// What a pattern draws on.
pub(super) struct Record<'a> {
    pub module: &'a Module,
    pub level: Level,
    pub message: &'a str,
    pub serial: u32,
    pub wall_ms: u64,
    pub elapsed_ms: u64,
    pub program: &'a str,
    pub thread: &'a str,
    pub facility: u8,
}

impl Pattern {
    pub(super) fn new(source: &str) -> Pattern {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut literal = String::new();
        let mut chars = source.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let left = chars.next_if_eq(&'-').is_some();
            let zero = chars.next_if_eq(&'0').is_some();
            let mut width = 0usize;
            while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                // A field wider than this is nobody's wish.
                width = (width * 10 + d as usize).min(4_096);
            }
            let what = match chars.next() {
                Some('A') => What::Program,
                Some('B') => What::Pri,
                Some('c') => What::Module,
                Some(d @ ('d' | 'D')) => {
                    let mut format = String::new();
                    let rest: String = chars.clone().collect();
                    if let Some(end) = rest.strip_prefix('{').and_then(|r| r.find('}')) {
                        format.push_str(&rest[1..=end]);
                        for _ in 0..rest[..end + 2].chars().count() {
                            chars.next();
                        }
                    } else {
                        format.push_str("%Y-%m-%d %H:%M:%S.###");
                    }
                    What::Date { format, local: d == 'd' }
                }
                Some('E') => What::Host,
                Some('m') => What::Message,
                Some('N') => What::Serial,
                Some('n') => What::NewLine,
                Some('p') => What::Level,
                Some('P') => What::Pid,
                Some('r') => What::Elapsed,
                Some('t') => What::Thread,
                Some('T') => What::ThreadInParens,
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some(other) => {
                    literal.push(other);
                    continue;
                }
                None => break,
            };
            if !literal.is_empty() {
                let what = What::Literal(std::mem::take(&mut literal));
                pieces.push(Piece { what, left: false, zero: false, width: 0 });
            }
            pieces.push(Piece { what, left, zero, width });
        }
        if !literal.is_empty() {
            pieces.push(Piece { what: What::Literal(literal), left: false, zero: false, width: 0 });
        }
        Pattern { source: source.to_string(), pieces }
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn format(&self, r: &Record<'_>, out: &mut String) {
        for piece in &self.pieces {
            let start = out.len();
            // Writing to a String cannot fail.
            let _ = match &piece.what {
                What::Literal(s) => out.write_str(s),
                What::Program => out.write_str(r.program),
                What::Pri => write!(out, "{}", u32::from(r.facility) * 8 + r.level.syslog_severity()),
                What::Module => out.write_str(r.module.name()),
                What::Date { format, local } => out.write_str(&strftime(format, r.wall_ms, *local)),
                What::Host => out.write_str(hostname()),
                What::Message => out.write_str(r.message),
                What::Serial => write!(out, "{}", r.serial),
                What::NewLine => out.write_str("\n"),
                What::Level => out.write_str(r.level.name()),
                What::Pid => write!(out, "{}", std::process::id()),
                What::Elapsed => write!(out, "{}", r.elapsed_ms),
                What::Thread => out.write_str(if r.thread.is_empty() { "main" } else { r.thread }),
                What::ThreadInParens if r.thread.is_empty() => Ok(()),
                What::ThreadInParens => write!(out, "({})", r.thread),
            };
            let len = out.len() - start;
            if len < piece.width {
                let pad = piece.width - len;
                if piece.left {
                    out.extend(std::iter::repeat_n(' ', pad));
                } else {
                    let fill = if piece.zero { "0" } else { " " };
                    out.insert_str(start, &fill.repeat(pad));
                }
            }
        }
    }
}

fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        if name.is_empty() { "-".to_string() } else { name.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlog::module;

    fn check(pattern: &str, expect: &str) {
        let r = Record {
            module: &module::BRIDGE,
            level: Level::Warn,
            message: "hello",
            serial: 78,
            wall_ms: 1_795_359_472_328,
            elapsed_ms: 1_234,
            program: "ovs-vswitchd",
            thread: "revalidator5",
            facility: 3,
        };
        let mut out = String::new();
        Pattern::new(pattern).format(&r, &mut out);
        assert_eq!(out, expect, "{pattern}");
    }

    #[test]
    fn escapes() {
        check(
            "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m",
            "2026-11-22T14:57:52.328Z|00078|bridge(revalidator5)|WARN|hello",
        );
        check("<%B> %A %t%n%%", "<28> ovs-vswitchd revalidator5\n%");
        check("[%8p|%-8p|%08r|%2m]", "[    WARN|WARN    |00001234|hello]");
        check("%D", "2026-11-22 14:57:52.328");
        check("%D{unclosed", "2026-11-22 14:57:52.328{unclosed");
        check("100%", "100");
    }
}
