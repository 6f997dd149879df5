//! What is copied from where: relays, and the role of a backup.
//!
//! The role belongs to the server as a whole if it comes from the command line or the control socket, and to single databases if it
//! comes from a configuration file.

use std::collections::{BTreeMap, BTreeSet};

use ib_ovsdb::server::{SourceId, parse_excluded};

use super::App;
use super::sources::{PROBE_MS, SourceOptions};

/// A database that a configuration file makes a backup.
pub(crate) struct FileBackup {
    pub source: SourceId,
    pub options: SourceOptions,
    pub exclude: BTreeSet<String>,
}

/// What is copied.
pub(crate) struct Copying {
    /// The active server; empty if none was named.
    pub active: String,
    /// Tables that are not copied from there, as the user wrote them.
    pub exclude: String,
    pub active_probe_ms: u64,
    pub relay_probe_ms: u64,
    /// While the server is a backup: of whom, which may be another than `active` names by now.
    backup: Option<(SourceId, String)>,
    /// By database.
    pub file_backups: BTreeMap<String, FileBackup>,
    /// By database.
    pub relays: BTreeMap<String, (SourceId, SourceOptions)>,
}

impl Default for Copying {
    fn default() -> Copying {
        Copying {
            active: String::new(),
            exclude: String::new(),
            active_probe_ms: PROBE_MS,
            relay_probe_ms: PROBE_MS,
            backup: None,
            file_backups: BTreeMap::new(),
            relays: BTreeMap::new(),
        }
    }
}

impl App {
    /// Takes the role of a backup of the active server, anew if that is the role already.
    pub(crate) fn become_backup(&mut self) {
        self.become_active();
        // The control socket takes any text; what names no table excludes none.
        let exclude = parse_excluded(&self.copying.exclude).unwrap_or_default();
        let id = self.server.add_backup(None, exclude);
        let options = SourceOptions::new(&self.copying.active, self.copying.active_probe_ms);
        self.sources.add(id, &options);
        self.copying.backup = Some((id, self.copying.active.clone()));
    }

    /// Takes the role of an active server.
    pub(crate) fn become_active(&mut self) {
        if let Some((id, _)) = self.copying.backup.take() {
            self.remove_source(id);
        }
    }

    /// True if the server as a whole is a backup.
    pub(crate) fn is_backup(&self) -> bool {
        self.copying.backup.is_some()
    }

    /// Changes after how long a silence the active server is probed.
    pub(crate) fn set_active_probe(&mut self, ms: u64) {
        self.copying.active_probe_ms = ms;
        if let Some((id, _)) = self.copying.backup {
            self.sources.set_probe_interval(id, ms);
        }
    }

    /// Changes after how long a silence the sources of relays are probed.
    pub(crate) fn set_relay_probe(&mut self, ms: u64) {
        self.copying.relay_probe_ms = ms;
        for (id, _) in self.copying.relays.values() {
            self.sources.set_probe_interval(*id, ms);
        }
    }

    pub(crate) fn remove_source(&mut self, id: SourceId) {
        let now = self.now();
        self.server.remove_source(id, now);
        self.sources.remove(id);
    }

    /// Gives up what cannot be copied.
    pub(crate) fn check_copying(&mut self) {
        if self.copying.backup.as_ref().is_some_and(|(id, _)| self.server.source_status(*id).dead) {
            self.become_active();
        }
        let dead = |b: &FileBackup| self.server.source_status(b.source).dead;
        let gone: Vec<String> =
            self.copying.file_backups.iter().filter(|(_, b)| dead(b)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.stop_file_backup(&name);
        }
    }

    /// Makes a database writable that a configuration file had made a backup.
    pub(crate) fn stop_file_backup(&mut self, name: &str) {
        if let Some(backup) = self.copying.file_backups.remove(name) {
            self.remove_source(backup.source);
        }
    }

    /// Makes one database a backup.
    pub(crate) fn start_file_backup(
        &mut self,
        name: &str,
        options: SourceOptions,
        exclude: BTreeSet<String>,
    ) {
        if self.copying.file_backups.get(name).is_some_and(|b| b.options == options && b.exclude == exclude) {
            return;
        }
        self.stop_file_backup(name);
        let tables = BTreeMap::from([(name.to_string(), exclude.clone())]);
        let source = self.server.add_backup(Some(BTreeSet::from([name.to_string()])), tables);
        self.sources.add(source, &options);
        self.copying.file_backups.insert(name.to_string(), FileBackup { source, options, exclude });
    }

    /// Serves a relay. The error is a sentence.
    pub(crate) fn add_relay(&mut self, name: &str, options: SourceOptions) -> Result<(), String> {
        let now = self.now();
        let id = self.server.add_relay(name, now).map_err(|e| e.to_string())?;
        self.sources.add(id, &options);
        self.copying.relays.insert(name.to_string(), (id, options));
        Ok(())
    }

    /// The text of `ovsdb-server/sync-status`.
    pub(crate) fn sync_status(&self) -> String {
        if let Some((id, active)) = &self.copying.backup {
            return format!("state: backup\n{}\n", self.source_text(*id, active, &self.copying.exclude));
        }
        if self.copying.file_backups.is_empty() {
            return "state: active\n".to_string();
        }
        let mut out = String::from("state: backup\n");
        for (name, backup) in &self.copying.file_backups {
            let tables: Vec<String> = backup.exclude.iter().map(|t| format!("{name}:{t}")).collect();
            out.push_str(&self.source_text(backup.source, &backup.options.remotes, &tables.join(",")));
            out.push('\n');
        }
        out
    }

    fn source_text(&self, id: SourceId, remote: &str, exclude: &str) -> String {
        let status = self.server.source_status(id);
        if status.databases.is_empty() {
            return format!("connecting: {remote}");
        }
        let mut out = format!("replicating: {remote}\ndatabase: {}", status.databases.join(", "));
        if !exclude.is_empty() {
            out.push_str(&format!("\nexclude: {exclude}"));
        }
        out
    }
}
