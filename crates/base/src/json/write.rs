//! Values to text.
//!
//! The compact form has no white space. The pretty form indents by two spaces and hugs closing brackets to the last
//! element, as the database's tools print it. Strings escape what JSON requires and nothing more: quotation mark,
//! reverse solidus and controls below U+0020, the latter by their short form where there is one.

use super::Json;
use super::parse::skip_plain;
use std::fmt::Write as _;

/// How to lay a value out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// One member or element a line, indented.
    pub pretty: bool,
    /// Object members in the order of their names rather than that of insertion.
    pub sort: bool,
}

impl Style {
    /// No white space, members in order of insertion.
    pub const COMPACT: Style = Style { pretty: false, sort: false };
    /// Indented, members in order of insertion.
    pub const PRETTY: Style = Style { pretty: true, sort: false };
    /// No white space, members sorted.
    pub const SORTED: Style = Style { pretty: false, sort: true };
    /// Indented, members sorted.
    pub const PRETTY_SORTED: Style = Style { pretty: true, sort: true };
}

pub(super) fn write_json(out: &mut String, json: &Json, style: Style) {
    write_value(out, json, style, 0);
}

fn write_value(out: &mut String, json: &Json, style: Style, depth: usize) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Integer(i) => write_integer(out, *i),
        Json::Real(r) if r.is_finite() => write_real(out, *r),
        Json::Real(_) => out.push_str("null"),
        Json::String(s) => write_string(out, s),
        Json::Array(elements) => {
            out.push('[');
            for (i, element) in elements.iter().enumerate() {
                separate(out, style, depth + 1, i);
                write_value(out, element, style, depth + 1);
            }
            out.push(']');
        }
        Json::Object(object) => {
            out.push('{');
            let mut member = |i: usize, k: &str, v: &Json| {
                separate(out, style, depth + 1, i);
                write_string(out, k);
                out.push_str(if style.pretty { ": " } else { ":" });
                write_value(out, v, style, depth + 1);
            };
            if style.sort {
                object.sorted().iter().enumerate().for_each(|(i, (k, v))| member(i, k, v));
            } else {
                object.iter().enumerate().for_each(|(i, (k, v))| member(i, k, v));
            }
            out.push('}');
        }
        Json::Serialized(text) => out.push_str(text),
    }
}

fn separate(out: &mut String, style: Style, depth: usize, i: usize) {
    if i > 0 {
        out.push(',');
    }
    if style.pretty {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

/// Appends a whole number.
pub fn write_integer(out: &mut String, i: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut n = i.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    if i < 0 {
        out.push('-');
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// Appends `s` as a JSON string with its quotation marks.
pub fn write_string(out: &mut String, s: &str) {
    out.push('"');
    let mut plain = 0;
    let (begin, _) = skip_plain(s.as_bytes(), 0);
    for (i, b) in s.bytes().enumerate().skip(begin) {
        let escape = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0c => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => {
                out.push_str(&s[plain..i]);
                let _ = write!(out, "\\u{b:04x}");
                plain = i + 1;
                continue;
            }
            _ => continue,
        };
        out.push_str(&s[plain..i]);
        out.push_str(escape);
        plain = i + 1;
    }
    out.push_str(&s[plain..]);
    out.push('"');
}

/// `r` with 15 significant digits, in the shorter of fixed and scientific notation, without trailing zeros.
pub fn format_real(r: f64) -> String {
    let mut out = String::new();
    write_real(&mut out, r);
    out
}

fn write_real(out: &mut String, r: f64) {
    const DIGITS: usize = 15;
    if r == 0.0 {
        out.push('0');
        return;
    }
    let scientific = format!("{r:.*e}", DIGITS - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        out.push_str(&scientific);
        return;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |s: &str| -> String {
        if s.contains('.') {
            s.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            s.to_string()
        }
    };
    if !(-4..DIGITS as i32).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{}e{sign}{:02}", trim(mantissa), exponent.unsigned_abs());
    } else {
        let decimals = usize::try_from(DIGITS as i32 - 1 - exponent).unwrap_or(0);
        out.push_str(&trim(&format!("{r:.decimals$}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reals_print_with_fifteen_digits() {
        for (r, expect) in [
            (1.5, "1.5"),
            (1e20, "1e+20"),
            (1.2345678901234567e29, "1.23456789012346e+29"),
            (0.1, "0.1"),
            (1e-7, "1e-07"),
            (2.5e-5, "2.5e-05"),
            (0.0001, "0.0001"),
            (123456.789, "123456.789"),
            (1.7976931348623157e308, "1.79769313486232e+308"),
            (0.30000000000000004, "0.3"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(format_real(r), expect);
        }
    }

    #[test]
    fn integers_print_as_elsewhere() {
        for i in [0, 1, -1, 9, 10, -10, 123_456, i64::MAX, i64::MIN] {
            let mut out = String::new();
            write_integer(&mut out, i);
            assert_eq!(out, i.to_string());
        }
    }

    #[test]
    fn strings_escape_what_they_must() {
        let mut out = String::new();
        write_string(&mut out, "é\u{1}\u{7f}/\u{8}\u{c}\n\r\t\\\"<𝄞");
        // Wherever in a run of eight bytes it stands.
        for n in 0..20 {
            let mut out = String::new();
            write_string(&mut out, &format!("{}\"{}", "a".repeat(n), "é".repeat(n)));
            assert_eq!(out, format!("\"{}\\\"{}\"", "a".repeat(n), "é".repeat(n)));
        }
        assert_eq!(out, "\"é\\u0001\u{7f}/\\b\\f\\n\\r\\t\\\\\\\"<𝄞\"");
    }

    #[test]
    fn pretty_hugs_closing_brackets() {
        let json = Json::parse(r#"{"b":[1,{"x":null}],"a":{},"c":[]}"#).unwrap();
        assert_eq!(
            json.to_text(Style::PRETTY_SORTED),
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"x\": null}],\n  \"c\": []}"
        );
        assert_eq!(json.to_text(Style::SORTED), r#"{"a":{},"b":[1,{"x":null}],"c":[]}"#);
    }
}
