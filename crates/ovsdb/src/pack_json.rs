//! From JSON text to cells in one step.
//!
//! Nearly all of a database file is data in the form in which this program or the original wrote it, with nothing
//! out of bounds. [`pack_json`] reads that form only. Whatever else it meets it leaves to the ordinary way, over values
//! and [`crate::Datum`], which knows all forms and what is wrong with each.

use crate::Uuid;
use crate::atom::{Atom, AtomicType};
use crate::cell::{pack_head, pack_integer, pack_real, pack_utf8, pack_uuid};
use crate::types::{BaseType, ColumnType};
use ib_base::json::{Json, Pull};
use std::ops::Range;

/// What is used again from one value to the next.
#[derive(Default)]
pub struct Scratch {
    /// Elements (pairs): where they begin, where the bytes are that their order goes by, where they end.
    spans: Vec<Span>,
    sorted: Vec<u8>,
}

struct Span {
    start: usize,
    key: Range<usize>,
    end: usize,
}

/// Appends the cell that the value here is in a column of this type. False if that takes another way; then the walk may be
/// anywhere inside of the value.
pub fn pack_json(kind: &ColumnType, pull: &mut Pull<'_>, out: &mut Vec<u8>, scratch: &mut Scratch) -> bool {
    let start = out.len();
    let packed = match &kind.value {
        Some(value) => map(kind, value, pull, out, scratch),
        None => set(kind, pull, out, scratch),
    };
    if packed.is_none() {
        out.truncate(start);
    }
    packed.is_some()
}

fn yes(b: bool) -> Option<()> {
    b.then_some(())
}

/// The elements inside of brackets, each appended by `one`, which says where its key is. Puts them in order.
fn elements(
    kind: &ColumnType,
    pull: &mut Pull<'_>,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    one: impl Fn(&mut Pull<'_>, &mut Vec<u8>) -> Option<Range<usize>>,
) -> Option<()> {
    let spans = &mut scratch.spans;
    spans.clear();
    yes(pull.take_byte(b',') && pull.take_byte(b'['))?;
    if !pull.take_byte(b']') {
        pack_head(kind.key.kind, kind.value.as_ref().map(|v| v.kind), out);
        let begin = out.len();
        let mut ordered = true;
        loop {
            let start = out.len();
            let key = one(pull, out)?;
            ordered &= spans.last().is_none_or(|before| out[before.key.clone()] < out[key.clone()]);
            spans.push(Span { start, key, end: out.len() });
            if !pull.take_byte(b',') {
                break;
            }
        }
        yes(pull.take_byte(b']'))?;
        if !ordered {
            spans.sort_by(|a, b| out[a.key.clone()].cmp(&out[b.key.clone()]));
            yes(spans.windows(2).all(|w| out[w[0].key.clone()] != out[w[1].key.clone()]))?;
            scratch.sorted.clear();
            spans.iter().for_each(|s| scratch.sorted.extend_from_slice(&out[s.start..s.end]));
            out.truncate(begin);
            out.extend_from_slice(&scratch.sorted);
        }
    }
    let n = spans.len();
    yes(pull.take_byte(b']') && n >= kind.min as usize && n <= kind.max as usize)
}

/// `["map",[[key,value],...]]`
fn map(
    kind: &ColumnType,
    value: &BaseType,
    pull: &mut Pull<'_>,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Option<()> {
    yes(pull.take_byte(b'[') && *pull.take_utf8()? == *b"map")?;
    elements(kind, pull, out, scratch, |pull, out| {
        yes(pull.take_byte(b'['))?;
        let key = element(&kind.key, pull, out)?;
        yes(pull.take_byte(b','))?;
        element(value, pull, out)?;
        yes(pull.take_byte(b']')).map(|()| key)
    })
}

/// `element`, `["set",[element,...]]`
fn set(kind: &ColumnType, pull: &mut Pull<'_>, out: &mut Vec<u8>, scratch: &mut Scratch) -> Option<()> {
    let start = pull.position();
    let is_set = pull.take_byte(b'[') && *pull.take_utf8()? == *b"set";
    if is_set {
        return elements(kind, pull, out, scratch, |pull, out| element(&kind.key, pull, out));
    }
    pull.rewind(start);
    pack_head(kind.key.kind, None, out);
    element(&kind.key, pull, out).map(drop)
}

/// Appends an element. Returns where the bytes are that its order goes by.
fn element(base: &BaseType, pull: &mut Pull<'_>, out: &mut Vec<u8>) -> Option<Range<usize>> {
    let start = out.len();
    let checked = !base.allows_all();
    let check = |atom: &Atom| yes(!checked || base.check(atom).is_ok());
    match base.kind {
        AtomicType::String => {
            let s = pull.take_utf8()?;
            if checked {
                check(&Atom::from(std::str::from_utf8(&s).ok()?))?;
            }
            pack_utf8(&s, out);
            return Some(out.len() - s.len()..out.len());
        }
        AtomicType::Uuid => {
            yes(pull.take_byte(b'[') && *pull.take_utf8()? == *b"uuid" && pull.take_byte(b','))?;
            let uuid = Uuid::from_utf8(&pull.take_utf8()?)?;
            yes(pull.take_byte(b']'))?;
            check(&Atom::Uuid(uuid))?;
            pack_uuid(uuid, out);
        }
        kind => match (kind, pull.take_scalar()?) {
            (AtomicType::Integer, Json::Integer(i)) => {
                check(&Atom::Integer(i))?;
                pack_integer(i, out);
            }
            (AtomicType::Real, Json::Integer(i)) => {
                check(&Atom::Real(i as f64))?;
                pack_real(i as f64, out);
            }
            (AtomicType::Real, Json::Real(r)) => {
                check(&Atom::Real(r))?;
                pack_real(r, out);
            }
            (AtomicType::Boolean, Json::Bool(b)) => {
                check(&Atom::Boolean(b))?;
                out.push(u8::from(b));
            }
            _ => return None,
        },
    }
    Some(start..out.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::OwnedCell;
    use crate::datum::Datum;

    fn kind(text: &str) -> ColumnType {
        let wrapped = Json::parse(&format!("[{text}]")).unwrap();
        ColumnType::from_json(&wrapped.as_array().unwrap()[0]).unwrap()
    }

    /// Where this way is taken, the other leads to the same.
    #[test]
    fn agrees_with_the_way_over_values() {
        let kinds = [
            r#""integer""#,
            r#"{"key":{"type":"integer","minInteger":0,"maxInteger":10},"min":0,"max":3}"#,
            r#""real""#,
            r#""boolean""#,
            r#"{"key":"string","min":0,"max":"unlimited"}"#,
            r#"{"key":{"type":"string","enum":["set",["a","b"]]}}"#,
            r#"{"key":"uuid","min":0,"max":2}"#,
            r#"{"key":"string","value":"integer","min":0,"max":"unlimited"}"#,
            r#"{"key":"integer","value":"string","min":1,"max":2}"#,
        ];
        let values = [
            "1",
            "11",
            "-5",
            "1.5",
            "0.0",
            "true",
            "null",
            "\"a\"",
            "\"c\"",
            "\"\\u00e9\\n\"",
            "[]",
            "{}",
            r#"["set",[]]"#,
            r#"["set",[1,2]]"#,
            r#"["set",[2,1]]"#,
            r#"["set",[1,1]]"#,
            r#"["set",[1,2,3,4]]"#,
            r#"["set",["a","ab","b"]]"#,
            r#"["set",["b","a"]]"#,
            r#"["set", [ "a" ] ]"#,
            r#"["set"]"#,
            r#"["set",1]"#,
            r#"["uuid","5b8a2d3f-0000-4000-8000-000000000001"]"#,
            r#"["uuid","5b8a2d3f"]"#,
            r#"["named-uuid","x"]"#,
            r#"["set",[["uuid","5b8a2d3f-0000-4000-8000-000000000001"],["uuid","5b8a2d3f-0000-4000-8000-000000000002"]]]"#,
            r#"["map",[]]"#,
            r#"["map",[["a",1],["b",2]]]"#,
            r#"["map",[["b",1],["a",2]]]"#,
            r#"["map",[["a",1],["a",1]]]"#,
            r#"["map",[[1,"x"]]]"#,
            r#"["map",[[1,"x"],[2,"y"],[3,"z"]]]"#,
            r#"["map",[[1]]]"#,
            r#"["map",[1]]"#,
        ];
        let mut direct = 0;
        for k in kinds {
            let kind = kind(k);
            for value in values {
                let text = format!("{{\"c\":{value}}}");
                let mut pull = Pull::new(text.as_bytes());
                pull.enter().unwrap();
                pull.next_key().unwrap();
                let mut cell = Vec::new();
                let packed = pack_json(&kind, &mut pull, &mut cell, &mut Scratch::default());
                let json = Json::parse(&text).unwrap();
                let datum = Datum::from_json(&kind, json.get("c").unwrap(), None);
                if packed {
                    direct += 1;
                    let expect = OwnedCell::new(&datum.unwrap_or_else(|e| panic!("{k} {value}: {e}")));
                    assert_eq!(cell, expect.cell().packed(), "{k} {value}");
                    assert_eq!(pull.next_key().unwrap(), None);
                } else {
                    assert!(cell.is_empty(), "{k} {value}");
                }
            }
        }
        assert!(direct > 20, "{direct}");
    }
}
