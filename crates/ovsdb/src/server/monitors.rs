//! Monitors of all sessions, grouped so that equal ones are served by one computation.

use super::lag::{Backlog, Since};
use super::session::{Monitor, Session};
use super::{ALL_LAG_BYTES, LAG_BYTES, LEAST_LAG_BYTES, Server, SessionId};
use crate::Uuid;
use crate::database::{Commit, Database};
use crate::error::Error;
use crate::monitor::{ChangesByTable, MonitorSpec, Version};
use crate::table::{FastMap, Row};
use crate::txn::Change;
use ib_base::json::{Json, Object};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Monitors that are equal but for who has them.
struct Group {
    spec: Arc<MonitorSpec>,
    /// Sessions, and the text of each one's name for the monitor.
    members: Vec<(SessionId, Arc<str>)>,
    /// The text of the whole content at the state that the name says.
    initial: Option<(Uuid, Arc<str>)>,
    /// What those have to be told who lag since then, if anything; until the next commit.
    missed: Option<(Since, Option<Arc<str>>)>,
}

/// Groups by database and key.
#[derive(Default)]
pub(super) struct Monitors {
    groups: HashMap<String, HashMap<Arc<str>, Group>>,
    /// By database; only where sessions lag.
    backlogs: HashMap<String, Backlog>,
}

impl Monitors {
    fn join(
        &mut self,
        database: &str,
        spec: MonitorSpec,
        id: SessionId,
        name: &Arc<str>,
    ) -> (Arc<str>, Arc<MonitorSpec>) {
        let key: Arc<str> = format!("{:?}{}", spec.version, spec.key()).into();
        let groups = self.groups.entry(database.to_string()).or_default();
        let group = match groups.entry(key.clone()) {
            Entry::Occupied(group) => group.into_mut(),
            Entry::Vacant(slot) => {
                slot.insert(Group { spec: Arc::new(spec), members: Vec::new(), initial: None, missed: None })
            }
        };
        group.members.push((id, name.clone()));
        (key, group.spec.clone())
    }

    pub fn leave(&mut self, monitor: &Monitor, id: SessionId) {
        let Some(groups) = self.groups.get_mut(&monitor.database) else { return };
        let Some(group) = groups.get_mut(&monitor.group) else { return };
        group.members.retain(|(session, name)| *session != id || *name != monitor.id);
        if group.members.is_empty() {
            groups.remove(&monitor.group);
        }
    }
}

impl Monitors {
    /// A session that lagged has caught up, or is gone.
    pub fn end_lag(&mut self, database: &str, since: Since) {
        if let Some(backlog) = self.backlogs.get_mut(database) {
            backlog.end(since);
            if backlog.is_empty() {
                self.backlogs.remove(database);
            }
        }
    }

    /// The database is gone, or another one: what its sessions have missed is void.
    pub fn forget_lag(&mut self, database: &str) {
        self.backlogs.remove(database);
    }
}

impl Server {
    pub(super) fn monitor(&mut self, id: SessionId, method: &str, params: Json, request_id: &Json) {
        match self.try_monitor(id, method, &params) {
            Err(error) => self.reply(id, request_id, Err(error.to_json())),
            Ok(result) => self.reply(id, request_id, Ok(result)),
        }
    }

    fn try_monitor(&mut self, id: SessionId, method: &str, params: &Json) -> Result<Json, Error> {
        let version = match method {
            "monitor" => Version::V1,
            "monitor_cond" => Version::V2,
            _ => Version::V3,
        };
        let list = params.as_array().unwrap_or_default();
        let database_name = self.named_database(method, list)?;
        // The original looks at what is there before it counts: of two parameters the second counts for both.
        let requests = match (version, list) {
            (Version::V1, [_, _, requests, ..]) => requests,
            (Version::V1, [_, requests]) if requests.as_object().is_none() => requests,
            (Version::V2, [_, _, requests]) | (Version::V3, [_, _, requests, _]) => requests,
            _ => return Err(Error::syntax(params, "invalid parameters")),
        };
        if self.sessions.get(&id).is_some_and(|s| s.missed.contains_key(&database_name)) {
            // The new monitor begins with what is there now; what the others have missed must not come after it.
            self.catch_up(id);
        }
        let monitor_id = &list[1];
        let key = monitor_id.to_string();
        if self.sessions.get(&id).is_none_or(|s| s.monitors.contains_key(&key)) {
            return Err(Error::syntax(monitor_id, "duplicate monitor ID"));
        }
        let Some(database) = self.databases.get(&database_name) else {
            return Err(Error::tag_only("unknown database"));
        };
        let spec = MonitorSpec::from_json(&database.schema, requests, version)?;
        let since = match list.get(3).filter(|_| version == Version::V3) {
            Some(Json::String(text)) => Some(
                Uuid::parse(text)
                    .ok_or_else(|| Error::syntax(&list[3], "last-txn-id must be UUID format."))?,
            ),
            Some(other) => return Err(Error::syntax(other, "last-txn-id must be string")),
            None => None,
        };
        let name: Arc<str> = key.as_str().into();
        let (group, spec) = self.monitors.join(&database_name, spec, id, &name);
        let database = &self.databases[&database_name];
        let last_id = database.last_id();
        let missed = since.and_then(|since| database.commits_since(since));
        let found = missed.is_some();
        let text = match missed {
            Some(commits) => {
                let sum = sum_of_changes(commits.iter().flat_map(|c| &c.changes));
                spec.update(&ChangesByTable::new(&sum)).unwrap_or_else(|| "{}".into())
            }
            None => {
                let cached = self.monitors.groups.get_mut(&database_name).and_then(|g| g.get_mut(&group));
                match cached {
                    Some(Group { initial: Some((at, text)), .. }) if *at == last_id => text.clone(),
                    Some(group) => {
                        let text = spec.initial(database);
                        // Keep it only where another client may soon ask for the same: a copy of everything is large.
                        group.initial = (group.members.len() > 1).then(|| (last_id, text.clone()));
                        text
                    }
                    None => spec.initial(database),
                }
            }
        };
        let monitor = Monitor { id: name, database: database_name, version, spec, group };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.monitors.insert(key, monitor);
        }
        Ok(match version {
            Version::V3 => {
                Json::Array(vec![Json::Bool(found), Json::from(last_id.to_string()), Json::Serialized(text)])
            }
            _ => Json::Serialized(text),
        })
    }

    pub(super) fn monitor_cancel(&mut self, id: SessionId, params: &[Json]) -> Result<Json, Json> {
        let [monitor_id] = params else {
            return Err(Json::from("invalid parameters"));
        };
        let monitor = self.sessions.get_mut(&id).and_then(|s| s.monitors.remove(&monitor_id.to_string()));
        match monitor {
            Some(monitor) => {
                self.monitors.leave(&monitor, id);
                Ok(Json::Object(Object::new()))
            }
            None => Err(Json::from("unknown monitor")),
        }
    }

    pub(super) fn monitor_cond_change(&mut self, id: SessionId, params: Json, request_id: &Json) {
        let answer = self.try_cond_change(id, &params);
        self.reply(id, request_id, answer.map(|()| Json::Object(Object::new())).map_err(|e| e.to_json()));
    }

    fn try_cond_change(&mut self, id: SessionId, params: &Json) -> Result<(), Error> {
        let Some([old_id, new_id, requests]) = params.as_array() else {
            return Err(Error::syntax(params, "invalid parameters"));
        };
        let (old_key, new_key) = (old_id.to_string(), new_id.to_string());
        // What the client missed comes under the old conditions and name.
        if self.sessions.get(&id).is_some_and(|s| s.lagging) {
            self.catch_up(id);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Some(monitor) = session.monitors.get(&old_key) else {
            return Err(Error::syntax(old_id, "unknown monitor session"));
        };
        if old_key != new_key && session.monitors.contains_key(&new_key) {
            return Err(Error::syntax(new_id, "duplicate monitor ID"));
        }
        let Some(database) = self.databases.get(&monitor.database) else { return Ok(()) };
        let (spec, update) = monitor.spec.change_conditions(&database.schema, database, requests)?;
        let last_id = database.last_id();
        let Some(mut monitor) = session.monitors.remove(&old_key) else { return Ok(()) };
        self.monitors.leave(&monitor, id);
        monitor.id = new_key.as_str().into();
        let (group, spec) = self.monitors.join(&monitor.database, spec, id, &monitor.id);
        monitor.group = group;
        monitor.spec = spec;
        let text = update.map(|update| notification(monitor.version, &monitor.id, last_id, &update));
        session.monitors.insert(new_key, monitor);
        if let Some(text) = text {
            self.send(id, text);
        }
        Ok(())
    }

    /// Sends a commit to all who want to know. Each group's text is made once, and so is the message of members that call their
    /// monitor by the same name.
    pub(super) fn monitor_commit(&mut self, database: &str, commit: &Arc<Commit>) {
        let Some(groups) = self.monitors.groups.get_mut(database) else { return };
        if groups.is_empty() {
            return;
        }
        let lag_bytes = (ALL_LAG_BYTES / self.sessions.len().max(1)).clamp(LEAST_LAG_BYTES, LAG_BYTES);
        let changes = ChangesByTable::new(&commit.changes);
        for group in groups.values_mut() {
            group.initial = None;
            group.missed = None;
            let Some(update) = group.spec.update(&changes) else { continue };
            let mut last: Option<(&Arc<str>, Arc<str>)> = None;
            for (id, name) in &group.members {
                let Some(session) = self.sessions.get_mut(id).filter(|s| !s.closing) else { continue };
                if session.lagging || session.unsent > lag_bytes {
                    session.lagging = true;
                    if !session.missed.contains_key(database) {
                        let backlog = self.monitors.backlogs.entry(database.to_string()).or_default();
                        session.missed.insert(database.to_string(), backlog.begin());
                    }
                    continue;
                }
                let text = match &last {
                    Some((n, text)) if *n == name => text,
                    _ => {
                        let text = notification(group.spec.version, name, commit.id, &update);
                        &last.insert((name, text)).1
                    }
                };
                session.unsent += text.len();
                session.sent_in = self.batch;
                self.actions.push(super::Action::Send(*id, text.clone()));
            }
        }
        if let Some(backlog) = self.monitors.backlogs.get_mut(database) {
            backlog.record(&commit.changes);
            self.bound_backlog(database);
        }
    }

    /// Lets those go who have lagged the longest, while what is kept for them is too much.
    fn bound_backlog(&mut self, database: &str) {
        let rows = self.databases.get(database).map_or(0, |d| d.tables.iter().map(|t| t.rows.len()).sum());
        while let Some(since) = self.monitors.backlogs.get(database).and_then(|b| b.too_old(rows)) {
            let lags = |s: &Session| s.missed.get(database) == Some(&since);
            let mut ids: Vec<SessionId> =
                self.sessions.iter().filter(|(_, s)| lags(s)).map(|(id, _)| *id).collect();
            ids.sort_unstable();
            debug_assert!(!ids.is_empty(), "a stretch is as old as those who lag");
            if ids.is_empty() {
                return;
            }
            for id in ids {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.missed.remove(database);
                }
                self.monitors.end_lag(database, since);
                self.push_close(id, "does not read what it is sent, and has missed too much", false);
            }
        }
    }

    /// Sends a session that lagged the sum of what it missed.
    pub(super) fn catch_up(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.lagging = false;
        let mut texts = Vec::new();
        for (name, since) in std::mem::take(&mut session.missed) {
            if let (Some(database), Some(groups), Some(backlog)) = (
                self.databases.get(&name),
                self.monitors.groups.get_mut(&name),
                self.monitors.backlogs.get(&name),
            ) {
                let mut missed = None;
                for monitor in session.monitors.values().filter(|m| m.database == name) {
                    let Some(group) = groups.get_mut(&monitor.group) else { continue };
                    if group.missed.as_ref().is_none_or(|(at, _)| *at != since) {
                        let changes = missed.get_or_insert_with(|| changes_since(backlog, since, database));
                        let update = monitor.spec.update(&ChangesByTable::new(&*changes));
                        group.missed = Some((since, update));
                    }
                    if let Some((_, Some(update))) = &group.missed {
                        texts.push(notification(monitor.version, &monitor.id, database.last_id(), update));
                    }
                }
            }
            self.monitors.end_lag(&name, since);
        }
        for text in texts {
            self.send(id, text);
        }
    }
}

/// What has changed since a session began to lag.
fn changes_since(backlog: &Backlog, since: Since, database: &Database) -> Vec<Change> {
    let change = |((table, uuid), old): ((usize, Uuid), Option<Row>)| {
        let new = database.tables[table].row(uuid).cloned();
        Change { table, uuid, old, new }
    };
    backlog.missed(since).into_iter().map(change).collect()
}

/// The sum of changes in their order: what each row was first and is last.
fn sum_of_changes<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<Change> {
    let mut sum: Vec<Change> = Vec::new();
    let mut index: FastMap<(usize, Uuid), usize> = FastMap::default();
    for change in changes {
        match index.entry((change.table, change.uuid)) {
            Entry::Occupied(at) => sum[*at.get()].new = change.new.clone(),
            Entry::Vacant(slot) => {
                slot.insert(sum.len());
                sum.push(change.clone());
            }
        }
    }
    sum
}

fn notification(version: Version, name: &str, last_id: Uuid, update: &str) -> Arc<str> {
    let mut text = String::with_capacity(update.len() + name.len() + 100);
    text.push_str("{\"id\":null,\"method\":\"");
    text.push_str(version.update_method());
    text.push_str("\",\"params\":[");
    text.push_str(name);
    if version == Version::V3 {
        text.push_str(",\"");
        last_id.write_to(&mut text);
        text.push('"');
    }
    text.push(',');
    text.push_str(update);
    text.push_str("]}");
    text.into()
}
