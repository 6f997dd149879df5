//! The file: a JSON object that names its format and version, and tells whether it is whole.
//!
//! ```json
//! {"format":"ironbridge-port","version":1,"sha1":"...","content":{...}}
//! ```
//!
//! The digest is of the content's text in the form that [`write()`] gives it: it finds accidents, not forgers. Unknown versions are refused.
//! docs/port-state.md describes the content.

use std::io::Read;

use ib_base::json::{Json, Style};
use sha1::{Digest, Sha1};

const FORMAT: &str = "ironbridge-port";
const VERSION: i64 = 1;
/// Larger files are not of ours.
pub const MAX_BYTES: u64 = 1 << 30;

fn digest(content: &Json) -> String {
    let text = content.to_text(Style::SORTED);
    Sha1::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// The text of a file with this content.
pub fn write(content: Json) -> String {
    let digest = digest(&content);
    let whole = Json::object([
        ("format", Json::from(FORMAT)),
        ("version", Json::from(VERSION)),
        ("sha1", Json::from(digest)),
        ("content", content),
    ]);
    let mut text = whole.to_text(Style::default());
    text.push('\n');
    text
}

/// All bytes, or so many more than `max` that [`read`] refuses them: a device has no end.
pub fn take(from: &mut dyn Read, max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The content of a file. The error says what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Json, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err("the file is larger than 1 GiB".into());
    }
    let json = Json::parse_bytes(bytes).map_err(|e| format!("the file is no JSON, or not whole: {e}"))?;
    if json.get("format").and_then(Json::as_str) != Some(FORMAT) {
        return Err(format!("the file is of another format than \"{FORMAT}\""));
    }
    match json.get("version").and_then(Json::as_integer) {
        Some(VERSION) => {}
        other => {
            let found = other.map_or("none".to_owned(), |v| v.to_string());
            return Err(format!("the file's version is {found}; this program reads version {VERSION}"));
        }
    }
    let content = json.get("content").filter(|c| c.as_object().is_some()).ok_or("the file has no content")?;
    if json.get("sha1").and_then(Json::as_str) != Some(&digest(content)) {
        return Err("the file was damaged or changed: its digest does not fit".into());
    }
    Ok(content.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        assert_eq!(take(&mut std::io::repeat(0), 10).unwrap().len(), 11);
        assert_eq!(take(&mut &b"12"[..], 10).unwrap(), b"12");
    }

    #[test]
    fn what_was_written_is_read() {
        let content = Json::object([("b", Json::from(1)), ("a", Json::from("x\u{e9}\n"))]);
        let text = write(content.clone());
        assert_eq!(read(text.as_bytes()), Ok(content));
    }

    #[test]
    fn damage_is_found() {
        let text = write(Json::object([("port", Json::from("vm1"))]));
        for (from, to, why) in [
            ("vm1", "vm2", "digest"),
            ("\"version\":1", "\"version\":9", "version is 9"),
            ("ironbridge-port", "tarball", "another format"),
            ("\"content\"", "\"contents\"", "no content"),
            ("}\n", "\n", "no JSON"),
        ] {
            let said = read(text.replace(from, to).as_bytes()).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        for n in 0..text.len() - 1 {
            assert!(read(&text.as_bytes()[..n]).is_err(), "{n} bytes");
        }
    }
}
