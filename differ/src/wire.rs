//! JSON-RPC to a server under test, and names that do not differ between two of them.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ib_base::json::Json;

use crate::World;

/// A JSON-RPC session that is waited for.
pub(crate) struct Session {
    socket: UnixStream,
    received: Vec<u8>,
    last_id: u64,
}

impl Session {
    pub fn open(world: &World) -> Result<Session, String> {
        let socket = UnixStream::connect(world.path("db.sock")).map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
        Ok(Session { socket, received: Vec::new(), last_id: 0 })
    }

    /// Sends a whole message.
    pub fn send(&mut self, text: &str) -> Result<(), String> {
        self.socket.write_all(text.as_bytes()).map_err(|e| e.to_string())
    }

    /// The next message. The error is `closed` if the server has hung up.
    fn message(&mut self) -> Result<Json, String> {
        loop {
            if let Some(end) = end_of_object(&self.received) {
                let message: Vec<u8> = self.received.drain(..end).collect();
                return Json::parse_bytes(&message).map_err(|e| e.to_string());
            }
            let mut buf = [0; 65536];
            match self.socket.read(&mut buf) {
                Ok(0) => return Err("closed".into()),
                Ok(n) => self.received.extend(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err("closed".into()),
                Err(e) => return Err(format!("no answer: {e}")),
            }
        }
    }

    /// The answer to a request, and what came before it. An error, too, comes with what came before it.
    pub fn call(&mut self, method: &str, params: &str) -> Result<(Json, Vec<Json>), (Vec<Json>, String)> {
        self.last_id += 1;
        // Names of its own, beside those that messages given to `send` have.
        let id = Json::string(format!("call{}", self.last_id));
        // If the server has hung up, what it said before that is still to be read.
        let _ = self.send(&format!(r#"{{"id":{id},"method":"{method}","params":{params}}}"#));
        let mut before = Vec::new();
        loop {
            match self.message() {
                Ok(message) if message.get("method").is_none() && message.get("id") == Some(&id) => {
                    return Ok((message, before));
                }
                Ok(message) => before.push(message),
                Err(e) => return Err((before, e)),
            }
        }
    }
}

/// Where the first object ends, its braces counted outside of strings.
fn end_of_object(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() >= 36
        && text[..36].iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// What one server calls the UUIDs that both have told of, by number: `@N@` in a case is the N-th.
#[derive(Default)]
pub(crate) struct Names {
    uuids: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    /// Puts the UUIDs of this server into a request.
    pub fn fill(&self, text: &str) -> String {
        let mut out = String::new();
        for (i, part) in text.split('@').enumerate() {
            match part.parse::<usize>() {
                Ok(n) if i % 2 == 1 => match self.uuids.get(n) {
                    Some(uuid) => out.push_str(uuid),
                    None => out.push_str(&format!("{n:08x}-0000-4000-8000-000000000000")),
                },
                _ => out.push_str(part),
            }
        }
        out
    }

    /// Takes down the rows that an answer says were made.
    pub fn learn_rows(&mut self, reply: &Json) {
        for result in reply.get("result").and_then(Json::as_array).unwrap_or_default() {
            let Some(uuid) = result.get("uuid").and_then(Json::as_array) else { continue };
            if let Some(text) = uuid.get(1).and_then(Json::as_str) {
                self.learn(text);
            }
        }
    }

    /// Gives a UUID the next number, if it has none.
    pub fn learn(&mut self, text: &str) {
        if !self.numbers.contains_key(text) {
            self.numbers.insert(text.to_string(), self.uuids.len());
            self.uuids.push(text.to_string());
        }
    }

    /// Replaces UUIDs and sorts what has no order.
    pub fn normal(&self, json: &Json) -> String {
        match json {
            Json::String(text) => {
                let mut out = String::new();
                let mut rest: &str = text;
                while let Some(c) = rest.chars().next() {
                    if is_uuid(rest.as_bytes()) {
                        match self.numbers.get(&rest[..36]) {
                            Some(n) => out.push_str(&format!("@{n}@")),
                            None => out.push_str("UUID"),
                        }
                        rest = &rest[36..];
                    } else {
                        out.push(c);
                        rest = &rest[c.len_utf8()..];
                    }
                }
                Json::string(out).to_string()
            }
            Json::Array(elements) => {
                let mut all: Vec<String> = elements.iter().map(|e| self.normal(e)).collect();
                let is_set = all.len() == 2 && matches!(all[0].as_str(), "\"set\"" | "\"map\"");
                if is_set && let Some(Json::Array(members)) = elements.get(1) {
                    let mut members: Vec<String> = members.iter().map(|e| self.normal(e)).collect();
                    members.sort();
                    all[1] = format!("[{}]", members.join(","));
                }
                format!("[{}]", all.join(","))
            }
            Json::Object(object) => {
                let mut members = Vec::new();
                for (name, value) in object.iter() {
                    let mut text = self.normal(value);
                    if &**name == "rows"
                        && let Json::Array(rows) = value
                    {
                        let mut rows: Vec<String> = rows.iter().map(|e| self.normal(e)).collect();
                        rows.sort();
                        text = format!("[{}]", rows.join(","));
                    }
                    members.push(format!("{}:{text}", self.normal(&Json::String(name.clone()))));
                }
                members.sort();
                format!("{{{}}}", members.join(","))
            }
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_end_where_their_braces_do() {
        assert_eq!(end_of_object(br#"{"a":"}\""} x"#), Some(11));
        assert_eq!(end_of_object(br#"{"a":{"#), None);
    }
}
