//! The server on a disk that fails and forgets: what it has answered is there afterwards, whole.

use super::{Action, Now, Server, SessionId};
use crate::Uuid;
use crate::database::Database;
use crate::log::sim::{Rng, SimDisk};
use crate::log::{Log, OpenMode, Storage};
use ib_base::json::Json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const PATH: &str = "/s.db";
const SCHEMA: &str = r#"{"name":"S","version":"1.0.0","tables":{
    "T":{"isRoot":true,"columns":{"name":{"type":"string"}},"indexes":[["name"]]},
    "Sum":{"isRoot":true,"columns":{"all":{"type":{"key":"integer","min":0,"max":"unlimited"}}}}}}"#;

fn open(disk: &SimDisk, mode: OpenMode) -> Log {
    Log::open_on(Arc::new(disk.clone()), Path::new(PATH), mode, None).unwrap()
}

/// Transaction `i`: two rows and a difference to a third, so that a half would show.
fn operations(i: usize, durable: bool) -> String {
    format!(
        r#"["S",{{"op":"insert","table":"T","row":{{"name":"{i}.a"}}}},
                {{"op":"mutate","table":"Sum","where":[],"mutations":[["all","insert",{i}]]}},
                {{"op":"insert","table":"T","row":{{"name":"{i}.b"}}}},
                {{"op":"commit","durable":{durable}}}]"#
    )
}

fn request(server: &mut Server, id: SessionId, number: usize, params: &str) {
    let params = Json::parse(params).unwrap();
    let message = Json::object([
        ("method", Json::from("transact")),
        ("params", params),
        ("id", Json::from(i64::try_from(number).unwrap())),
    ]);
    server.receive(id, message, Now::default());
}

/// The transactions that a file holds; fails if one is there in part.
fn transactions(disk: &SimDisk, seed: u64) -> BTreeSet<usize> {
    let database = Database::load(Box::new(open(disk, OpenMode::ReadOnly))).unwrap().database;
    let sum = database.table("Sum").unwrap().rows.values().next();
    let all: BTreeSet<usize> = sum.map_or_else(BTreeSet::new, |entry| {
        let all = entry.row.get(2);
        let numbers = all.as_set().iter().filter_map(|a| a.as_integer());
        numbers.map(|n| usize::try_from(n).unwrap()).collect()
    });
    let names: BTreeSet<String> = database
        .table("T")
        .unwrap()
        .rows
        .values()
        .map(|e| e.row.get(2).as_str().unwrap().to_string())
        .collect();
    let expected: BTreeSet<String> = all.iter().flat_map(|i| [format!("{i}.a"), format!("{i}.b")]).collect();
    assert_eq!(names, expected, "seed {seed}");
    all
}

fn life(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xdb);
    let disk = SimDisk::new(seed);
    let mut log = open(&disk, OpenMode::CreateExcl);
    log.append(&Json::parse(SCHEMA).unwrap().to_string()).unwrap();
    log.append(&format!("{{\"Sum\":{{\"{}\":{{}}}}}}", Uuid::random())).unwrap();
    log.flush().unwrap();
    drop(log);
    let loaded = Database::load(Box::new(open(&disk, OpenMode::ReadWrite))).unwrap();
    let mut server = Server::new();
    server.add_database(loaded.database, Now::default()).unwrap();
    let id = server.open_session(false);
    server.take_actions();
    let faults = [0, 0, 8, 30][rng.below(4)];
    disk.arm(rng.below(100), faults);

    let (mut accepted, mut durable) = (Vec::new(), BTreeSet::new());
    let (mut refused, mut unanswered) = (BTreeSet::new(), Vec::new());
    let mut next = 0;
    let mut job = None;
    while !disk.crashed() && next < 80 {
        match rng.below(8) {
            0 => job = server.database_mut("S").unwrap().begin_compaction("", 0, 0),
            1 => {
                let written = job.take().and_then(|job| job.write().ok());
                if let Some(written) = written {
                    // Whether it is adopted shows in what is found.
                    let _ = server.database_mut("S").unwrap().finish_compaction(written, 0);
                }
            }
            _ => {}
        }
        let first = next;
        let mut durably = false;
        for _ in 0..=rng.below(4) {
            let wait = rng.one_in(2);
            durably |= wait;
            request(&mut server, id, next, &operations(next, wait));
            next += 1;
        }
        let actions = server.take_actions();
        if disk.crashed() {
            // The program has ended in the midst of this; nobody was told anything.
            unanswered = (first..next).collect();
            break;
        }
        let mut all_well = true;
        for action in actions {
            let Action::Send(_, text) = action else { continue };
            let answer = Json::parse(&text).unwrap();
            let i = usize::try_from(answer.get("id").and_then(Json::as_integer).unwrap()).unwrap();
            if text.contains("I/O error") {
                refused.insert(i);
                all_well = false;
            } else {
                accepted.push(i);
            }
        }
        if durably && all_well {
            durable.extend(accepted.iter().copied());
        }
    }
    let faulty = server.database("S").unwrap().fault().is_some();
    drop(server);
    for power_cut in [false, true, true] {
        let found = transactions(&disk.survivor(power_cut, rng.below(1 << 30) as u64), seed);
        let must: BTreeSet<usize> =
            if power_cut { durable.clone() } else { accepted.iter().copied().collect() };
        let missing: Vec<_> = must.difference(&found).collect();
        assert!(missing.is_empty(), "seed {seed}, power cut {power_cut}: {missing:?} of {must:?} are lost");
        if power_cut && faulty {
            continue;
        }
        // What is there is what was answered first, and then perhaps what was on its way.
        let order: Vec<usize> = accepted.iter().chain(&unanswered).copied().collect();
        let known = order.iter().take_while(|i| found.contains(i)).count();
        let extra: Vec<_> = found.iter().filter(|i| !order[..known].contains(i)).collect();
        assert!(
            extra.iter().all(|i| faults > 0 && refused.contains(i)),
            "seed {seed}, power cut {power_cut}: found {found:?}; answered {accepted:?}, then {unanswered:?}"
        );
    }
}

#[test]
fn what_was_answered_is_there_whole_after_any_crash() {
    for seed in 1..=400 {
        life(seed);
    }
}
