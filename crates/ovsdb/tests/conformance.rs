//! A table of requests and the answers that programs around a database have learned to expect.
//!
//! `conformance.txt` was recorded from Open vSwitch's server where the two agree to the byte but for identifiers and
//! the order of members; see its first lines for the notation.

use ib_base::json::{Json, Style};
use ib_ovsdb::Schema;
use ib_ovsdb::database::Database;
use ib_ovsdb::server::{Action, Now, Server, SessionId};
use std::collections::HashMap;

struct Client {
    server: Server,
    session: SessionId,
    names: HashMap<String, String>,
}

impl Client {
    fn new() -> Client {
        let schema = Schema::parse(include_str!("conformance.ovsschema")).unwrap();
        let mut server = Server::new();
        server.add_database(Database::new(schema), Now::default()).unwrap();
        let session = server.open_session(false);
        Client { server, session, names: HashMap::new() }
    }

    /// The answers to a request, the notifications before it sorted by what they are about.
    fn ask(&mut self, request: &str) -> Vec<String> {
        let (method, params) = match Json::parse(request).unwrap() {
            Json::Array(operations) => {
                let mut params = vec![Json::from("T")];
                params.extend(operations);
                ("transact".to_string(), Json::Array(params))
            }
            object => (
                object.get("method").unwrap().as_str().unwrap().to_string(),
                object.get("params").unwrap().clone(),
            ),
        };
        let message =
            Json::object([("method", Json::from(method)), ("params", params), ("id", Json::Integer(7))]);
        self.server.receive(self.session, message, Now::default());
        let mut answers: Vec<Json> = Vec::new();
        for action in self.server.take_actions() {
            match action {
                Action::Send(_, text) => answers.push(Json::parse(&text).unwrap()),
                Action::Close { why, .. } => panic!("closed: {why}"),
                other => panic!("{other:?}"),
            }
        }
        self.server.drained(self.session);
        let last = answers.pop().unwrap();
        answers.sort_by_key(|a| a.get("params").unwrap().as_array().unwrap()[0].to_string());
        answers.push(last);
        answers.iter().map(|a| self.rename(&a.to_text(Style::SORTED))).collect()
    }

    /// Replaces UUIDs by names in order of appearance.
    fn rename(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let uuid = rest.get(..36).filter(|u| ib_ovsdb::Uuid::parse(u).is_some());
            match uuid {
                Some(uuid) if !uuid.starts_with("00000000-0000-0000") => {
                    let n = self.names.len();
                    out.push_str(self.names.entry(uuid.to_string()).or_insert_with(|| format!("U{n}")));
                    rest = &rest[36..];
                }
                _ => {
                    out.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        out
    }
}

#[test]
fn answers_are_as_recorded() {
    let mut client = Client::new();
    let mut pending: Vec<String> = Vec::new();
    let mut request = String::new();
    let mut wrong = String::new();
    let mut count = 0;
    for line in include_str!("conformance.txt").lines() {
        let (kind, text) = line.split_at(line.len().min(2));
        match kind {
            "= " => client = Client::new(),
            "> " => {
                if !pending.is_empty() {
                    wrong.push_str(&format!("{request}\n   also {pending:?}\n"));
                }
                request = text.to_string();
                pending = client.ask(text);
                pending.reverse();
                count += 1;
            }
            "< " if text == "*" => pending.clear(),
            "< " => {
                let got = pending.pop().unwrap_or_default();
                if got != text {
                    wrong.push_str(&format!("{request}\n   want {text}\n   got  {got}\n"));
                }
            }
            _ => {}
        }
    }
    assert!(count > 300, "only {count} requests");
    assert!(wrong.is_empty(), "{wrong}");
}
