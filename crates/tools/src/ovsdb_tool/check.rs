//! `check-cluster`: whether the files of members can be those of one cluster.
//!
//! Headers are compared: one cluster, each member once; then the entries, which must say the same in every file that has
//! them, and at least one file must have some.

use super::cluster::{fault, header, read_records, short};
use super::{Done, Session, Stop, is_clustered};
use ib_base::json::Json;
use std::collections::HashMap;
use std::path::Path;

/// The command.
pub fn check(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let mut cluster: Option<(&String, Json)> = None;
    let mut members: HashMap<String, &String> = HashMap::new();
    let mut entries: HashMap<i64, (&String, Json)> = HashMap::new();
    let mut strangers = Vec::new();
    for path in arguments {
        if !is_clustered(Path::new(path))? {
            return Err(fault(format!("{path}: cannot identify file type")));
        }
        let header = header(Path::new(path))?;
        let id = |name: &str| header.get(name).cloned().unwrap_or(Json::Null);
        let cid = id("cluster_id");
        match &cluster {
            _ if cid.is_null() => {}
            None => cluster = Some((path, cid)),
            Some((first, known)) if *known != cid => {
                let (known, cid) = (short(known), short(&cid));
                return Err(Stop::Fatal(format!(
                    "{first} has cluster ID {known} but {path} has cluster ID {cid}"
                )));
            }
            Some(_) => {}
        }
        let sid = id("server_id");
        if let Some(other) = members.insert(sid.to_string(), path) {
            return Err(Stop::Fatal(format!("Duplicate server ID {} in {other} and {path}.", short(&sid))));
        }
        if header.get("remote_addresses").is_some() {
            strangers.push(path);
            continue;
        }
        for record in read_records(Path::new(path))?.into_iter().skip(1) {
            let Some(index) = record.get("index").and_then(Json::as_integer) else { continue };
            // Terms may differ from file to file while an entry is not committed; what an entry says may not.
            let (term, eid) = (record.get("term").cloned(), record.get("eid").cloned());
            match entries.get(&index) {
                Some((first, other)) if other.get("term") == term.as_ref() && *other != record => {
                    let name = |eid: Option<&Json>| eid.map_or("0000", short).to_string();
                    let (one, two) = (name(other.get("eid")), name(eid.as_ref()));
                    return Err(Stop::Fatal(format!(
                        "log entries with index {index} differ: {first} has eid {one}, {path} has eid {two}"
                    )));
                }
                Some(_) => {}
                None => {
                    entries.insert(index, (path, record));
                }
            }
        }
    }
    for path in strangers {
        session.io.out(format!("{path} has not joined the cluster, omitting\n"));
    }
    if entries.is_empty() {
        return Err(Stop::Fatal("all logs are empty".to_string()));
    }
    Ok(())
}
