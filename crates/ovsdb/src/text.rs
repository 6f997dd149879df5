//! Atoms and data as people write them on command lines.
//!
//! `key=value` pairs and elements are separated by commas or blanks; braces round a map and brackets round a set are optional;
//! strings are bare or in double quotes with JSON's escapes; in sets of integers `1-5` is a range; where a
//! symbol table is given, `@name` names a row to be. See ovs-vsctl(8), Database Values.

use crate::atom::{Atom, AtomicType, SymbolTable};
use crate::datum::Datum;
use crate::types::{BaseType, ColumnType};
use crate::uuid::Uuid;
use ib_base::json::unescape;

/// A range of integers may have at most this many elements.
const MAX_RANGE: i128 = 4096;

/// Characters that end a bare token.
pub fn is_delimiter(c: char) -> bool {
    ":=, []{}!<>".contains(c)
}

/// Takes one token from the front of `s`: up to the next delimiter outside of quotes. Quotes and backslashes
/// are kept. Returns the token and the rest.
pub fn take_token(s: &str) -> Result<(&str, &str), String> {
    let mut in_quotes = false;
    let mut escape = false;
    for (i, c) in s.char_indices() {
        if escape {
            escape = false;
        } else if c == '\\' {
            escape = true;
        } else if !in_quotes && is_delimiter(c) {
            return Ok((&s[..i], &s[i..]));
        } else if c == '"' {
            in_quotes = !in_quotes;
        }
    }
    if escape {
        return Err(format!("{s}: backslash at end of argument"));
    }
    if in_quotes {
        return Err(format!("{s}: quoted string extends past end of argument"));
    }
    Ok((s, ""))
}

/// Reads one atom of type `base`, with its constraints.
pub fn atom_from_string(base: &BaseType, s: &str, symbols: Option<&mut SymbolTable>) -> Result<Atom, String> {
    let (atom, range_end) = atom_or_range(base, s, false, symbols)?;
    debug_assert!(range_end.is_none());
    Ok(atom)
}

fn atom_or_range(
    base: &BaseType,
    s: &str,
    ranges: bool,
    symbols: Option<&mut SymbolTable>,
) -> Result<(Atom, Option<i64>), String> {
    let mut range_end = None;
    let atom = match base.kind {
        AtomicType::Integer => match parse_integer(s) {
            Some(i) => Atom::Integer(i),
            None => {
                let (start, end) = parse_range(s)
                    .filter(|_| ranges)
                    .ok_or_else(|| format!("\"{s}\" is not a valid integer or range"))?;
                if end < start {
                    return Err(format!("\"{s}\" is not a valid range. Range end cannot be before start."));
                }
                range_end = Some(end);
                Atom::Integer(start)
            }
        },
        AtomicType::Real => {
            let usable = |r: &f64| r.is_finite();
            let r = s.trim_start().parse::<f64>().ok().filter(usable);
            Atom::Real(r.ok_or_else(|| format!("\"{s}\" is not a valid real number"))?)
        }
        AtomicType::Boolean => match s {
            "true" | "yes" | "on" | "1" => Atom::Boolean(true),
            "false" | "no" | "off" | "0" => Atom::Boolean(false),
            _ => return Err(format!("\"{s}\" is not a valid boolean (use \"true\" or \"false\")")),
        },
        AtomicType::String => {
            if s.is_empty() {
                let message = "An empty string is not valid as input; use \"\" to represent the empty string";
                return Err(message.to_string());
            }
            if let Some(inside) = s.strip_prefix('"') {
                let Some(inside) = inside.strip_suffix('"') else {
                    return Err(format!("{s}: missing quote at end of quoted string"));
                };
                Atom::string(unescape(inside).map_err(|e| format!("{s}: {e}"))?)
            } else {
                Atom::string(s)
            }
        }
        AtomicType::Uuid => match (s.strip_prefix('@'), symbols) {
            (Some(_), Some(symbols)) => {
                let symbol = symbols.entry(s);
                symbol.strong_ref |= base.is_strong_ref();
                symbol.weak_ref |= base.is_weak_ref();
                Atom::Uuid(symbol.uuid)
            }
            _ => Atom::Uuid(Uuid::parse(s).ok_or_else(|| format!("\"{s}\" is not a valid UUID"))?),
        },
    };
    base.check(&atom).map_err(|e| e.to_string())?;
    if let Some(end) = range_end {
        base.check(&Atom::Integer(end)).map_err(|e| e.to_string())?;
        let start = atom.as_integer().unwrap_or(end);
        if i128::from(end) - i128::from(start) >= MAX_RANGE {
            return Err(format!(
                "constraint violation: Range \"{s}\" is too big. Maximum allowed size is {MAX_RANGE}."
            ));
        }
    }
    Ok((atom, range_end))
}

fn parse_integer(s: &str) -> Option<i64> {
    s.trim_start().parse().ok()
}

fn parse_range(s: &str) -> Option<(i64, i64)> {
    let dash = s.char_indices().skip(1).find(|(_, c)| *c == '-')?.0;
    Some((parse_integer(&s[..dash])?, parse_integer(&s[dash + 1..])?))
}

fn skip_blanks(s: &str) -> &str {
    s.trim_start_matches(' ')
}

fn skip_separators(s: &str) -> &str {
    let s = skip_blanks(s);
    match s.strip_prefix(',') {
        Some(rest) => skip_blanks(rest),
        None => s,
    }
}

/// Reads a datum of type `kind`.
pub fn datum_from_string(
    kind: &ColumnType,
    s: &str,
    mut symbols: Option<&mut SymbolTable>,
) -> Result<Datum, String> {
    let (open, close) = if kind.is_map() { ('{', '}') } else { ('[', ']') };
    let mut p = skip_blanks(s);
    let bracketed = p.starts_with(open);
    if bracketed {
        p = skip_blanks(&p[1..]);
    }
    let mut keys = Vec::new();
    let mut pairs = Vec::new();
    let ends = |p: &str| p.is_empty() || (bracketed && p.starts_with(close));
    while !ends(p) {
        let first = p.chars().next().unwrap_or(' ');
        if is_delimiter(first) {
            return Err(format!("{s}: unexpected \"{first}\" parsing {}", kind.to_english()));
        }
        let (token, rest) = take_token(p)?;
        p = rest;
        let ranges = kind.value.is_none() && kind.max > 1;
        let (key, range_end) = atom_or_range(&kind.key, token, ranges, symbols.as_deref_mut())?;
        match &kind.value {
            Some(value_type) => {
                p = skip_blanks(p);
                let Some(rest) = p.strip_prefix('=') else {
                    // At the end of the argument the original prints up to its missing character.
                    let found = p.chars().next().map_or(String::new(), |c| format!("{c}\" expecting \"=\""));
                    return Err(format!("{s}: syntax error at \"{found}"));
                };
                p = skip_blanks(rest);
                let (token, rest) = take_token(p)?;
                p = rest;
                pairs.push((key, atom_or_range(value_type, token, false, symbols.as_deref_mut())?.0));
            }
            None => {
                let start = key.as_integer().unwrap_or(0);
                keys.push(key);
                if let Some(end) = range_end {
                    keys.extend((start + 1..=end).map(Atom::Integer));
                }
            }
        }
        p = skip_separators(p);
    }
    if bracketed {
        let Some(rest) = p.strip_prefix(close) else {
            return Err(format!("{s}: missing \"{close}\" at end of data"));
        };
        p = skip_blanks(rest);
        if !p.is_empty() {
            return Err(format!("{s}: trailing garbage after \"{close}\""));
        }
    }
    let (n, noun) = if kind.is_map() { (pairs.len(), "pair(s)") } else { (keys.len(), "value(s)") };
    if n < kind.min as usize {
        return Err(format!("{s}: {n} {noun} specified but the minimum number is {}", kind.min));
    }
    if n > kind.max as usize {
        return Err(format!("{s}: {n} {noun} specified but the maximum number is {}", kind.max));
    }
    let datum = if kind.is_map() { Datum::map(pairs) } else { Datum::set(keys) };
    if datum.len() < n {
        return Err(if kind.is_map() {
            format!("{s}: map contains duplicate key")
        } else {
            format!("{s}: set contains duplicate value")
        });
    }
    Ok(datum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UNLIMITED;
    use ib_base::json::Json;

    fn column(text: &str) -> ColumnType {
        let wrapped = Json::parse(&format!("[{text}]")).unwrap();
        ColumnType::from_json(&wrapped.as_array().unwrap()[0]).unwrap()
    }

    const MAP: &str = r#"{"key":"string","value":"string","min":0,"max":"unlimited"}"#;
    const VLANS: &str = r#"{"key":{"type":"integer","minInteger":0,"maxInteger":4095},"min":0,"max":4096}"#;

    fn check(kind: &str, s: &str, expect: &str) {
        let kind = column(kind);
        let got = datum_from_string(&kind, s, None).map_or_else(|e| e, |d| d.to_text(&kind));
        assert_eq!(got, expect, "for {s}");
    }

    #[test]
    fn maps() {
        check(MAP, "a=b", "{a=b}");
        check(MAP, "a=b,", "{a=b}");
        check(MAP, "{}", "{}");
        check(MAP, "{\"a b\"=c, d = e}", "{\"a b\"=c, d=e}");
        check(MAP, "x=\"q\\u00e9\"", "{x=\"qé\"}");
        check(MAP, "1", "1: syntax error at \"");
        check(MAP, "a=1,a=2", "a=1,a=2: map contains duplicate key");
        check(MAP, "{a=1", "{a=1: missing \"}\" at end of data");
        check(MAP, "a=1}", "a=1}: unexpected \"}\" parsing map of (string, string) pairs");
        check(MAP, "a:1", "a:1: syntax error at \":\" expecting \"=\"");
        check(MAP, "a=", "An empty string is not valid as input; use \"\" to represent the empty string");
        check(MAP, ",", ",: unexpected \",\" parsing map of (string, string) pairs");
        check(MAP, "a b=c", "a b=c: syntax error at \"b\" expecting \"=\"");
        check(MAP, "x=\"a\"b", "\"a\"b: missing quote at end of quoted string");
    }

    #[test]
    fn sets() {
        check(VLANS, "[1 2]", "[1, 2]");
        check(VLANS, "1-3", "[1, 2, 3]");
        check(VLANS, "010", "[10]");
        check(VLANS, "+1", "[1]");
        check(VLANS, "1,2,2", "1,2,2: set contains duplicate value");
        check(VLANS, "5000", "constraint violation: 5000 is not in the valid range 0 to 4095 (inclusive)");
        check(VLANS, "1x", "\"1x\" is not a valid integer or range");
        check(VLANS, "0x10", "\"0x10\" is not a valid integer or range");
        check(VLANS, "[1,2", "[1,2: missing \"]\" at end of data");
        check(VLANS, "1,,2", "1,,2: unexpected \",\" parsing set of up to 4096 integers");
        check(r#""boolean""#, "maybe", "\"maybe\" is not a valid boolean (use \"true\" or \"false\")");
        check(r#""boolean""#, "[]", "[]: 0 value(s) specified but the minimum number is 1");
        check(
            r#""boolean""#,
            "[true,false]",
            "[true,false]: 2 value(s) specified but the maximum number is 1",
        );
        check(r#""uuid""#, "6c3e27e7", "\"6c3e27e7\" is not a valid UUID");
    }

    #[test]
    fn symbols_stand_for_rows() {
        let kind = column(r#"{"key":{"type":"uuid","refTable":"Port"},"min":0,"max":"unlimited"}"#);
        assert_eq!(kind.max, UNLIMITED);
        let mut symbols = SymbolTable::new();
        let datum = datum_from_string(&kind, "@p,@q", Some(&mut symbols)).unwrap();
        assert_eq!(datum.len(), 2);
        assert!(symbols.get("@p").unwrap().strong_ref);
    }
}
