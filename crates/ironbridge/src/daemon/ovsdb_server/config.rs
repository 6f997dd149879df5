//! The configuration file of `--config-file`: databases and remotes in JSON.
//!
//! ```json
//! {"remotes": {"punix:/run/db.sock": {}, "ptcp:6640": {"inactivity-probe": 0, "read-only": true}},
//!  "databases": {"conf.db": {"service-model": "standalone"},
//!                "b.db": {"service-model": "active-backup", "backup": true, "source": {"tcp:10.0.0.1:6640": null},
//!                         "exclude-tables": ["Manager"]},
//!                "OVN_Southbound": {"service-model": "relay", "source": {"tcp:10.0.0.1:6642": {"max-backoff": 4000}}}}}
//! ```

use std::collections::{BTreeMap, BTreeSet};

use ib_base::json::{Json, Object};
use ib_base::vlog::module::OVSDB_SERVER;
use ib_base::vlog_info;
use ib_sys::dirs;

use super::App;
use super::remotes::RemoteOptions;
use super::sources::{PROBE_MS, SourceOptions};

impl App {
    /// Reads the configuration file and makes the server what it says. On an error in the file, or if one of its database files cannot
    /// be read, nothing has changed.
    pub(crate) fn load_config(&mut self) -> Result<(), String> {
        let Some(path) = self.config_file.clone() else { return Ok(()) };
        vlog_info!(OVSDB_SERVER, "loading configuration from '{}'", path.display());
        let name = path.display();
        let text = std::fs::read(&path).map_err(|e| {
            format!("failed to read configuration file '{name}': {}", ib_base::errno::strerror(&e))
        })?;
        let json = Json::parse_bytes(&text).map_err(|e| format!("config: reading JSON failed ({e})"))?;
        let Some(config) = json.as_object() else {
            return Err("configuration in a file must be a JSON object".to_string());
        };
        if let Some(unknown) = config.keys().find(|k| !matches!(&***k, "remotes" | "databases")) {
            return Err(format!("config: unexpected member '{unknown}'"));
        }
        let none = Object::new();
        if let Some(bad) =
            ["remotes", "databases"].iter().find(|s| config.get(s).is_some_and(|j| j.as_object().is_none()))
        {
            return Err(format!("config: '{bad}' is not a JSON object"));
        }
        let section = |name: &str| config.get(name).and_then(Json::as_object).unwrap_or(&none);
        let mut files: BTreeMap<String, Wanted> = BTreeMap::new();
        let mut relays: BTreeMap<String, SourceOptions> = BTreeMap::new();
        for (name, options) in section("databases").iter() {
            match wanted_database(name, options)? {
                Wanted::Relay(source) => {
                    relays.insert(name.to_string(), source);
                }
                wanted => {
                    let path = dirs::in_dir(&dirs::dbdir(), &**name).display().to_string();
                    files.insert(path, wanted);
                }
            }
        }
        let mut remotes = Vec::new();
        for (target, options) in section("remotes").iter() {
            remotes.push((target.to_string(), remote_options(target, options)?));
        }
        // What may fail comes first, so that a mistake in the file ends nothing that is served.
        let mut read = BTreeMap::new();
        for file in files.keys() {
            if !self.files.values().any(|open| super::same_file(open, file.as_ref())) {
                read.insert(file.clone(), self.read_database(file)?);
            }
        }
        let gone: Vec<String> = self
            .files
            .iter()
            .filter(|(_, open)| !files.keys().any(|f| super::same_file(open, f.as_ref())))
            .map(|(name, _)| name.clone())
            .chain(
                self.copying
                    .relays
                    .iter()
                    .filter(|(n, (_, o))| relays.get(*n) != Some(o))
                    .map(|(n, _)| n.clone()),
            )
            .collect();
        for name in gone {
            self.close_database(&name);
        }
        for (name, source) in relays {
            if !self.copying.relays.contains_key(&name) {
                self.add_relay(&name, source)?;
            }
        }
        for (file, wanted) in files {
            let open = |app: &App| {
                let found = app.files.iter().find(|(_, open)| super::same_file(open, file.as_ref()));
                found.map(|(name, _)| name.clone())
            };
            if let Some(database) = read.remove(&file) {
                self.serve_database(&file, database)?;
            }
            let Some(name) = open(self) else { continue };
            match wanted {
                Wanted::Backup(source, exclude) => self.start_file_backup(&name, source, exclude),
                _ => self.stop_file_backup(&name),
            }
        }
        self.remotes.replace(remotes, &self.server)
    }
}

/// How a database is to be served.
enum Wanted {
    /// From its file, to all.
    Active,
    /// From its file, as a copy of a source's, but for some tables.
    Backup(SourceOptions, BTreeSet<String>),
    /// As a copy of a source's, without a file.
    Relay(SourceOptions),
}

fn wanted_database(name: &str, json: &Json) -> Result<Wanted, String> {
    let none = Object::new();
    let Some(options) = json.as_object().or_else(|| matches!(json, Json::Null).then_some(&none)) else {
        return Err(format!("config: {name}: options of a database must be a JSON object"));
    };
    let known = ["service-model", "source", "backup", "exclude-tables"];
    if let Some(unknown) = options.keys().find(|k| !known.contains(&&***k)) {
        return Err(format!("config: {name}: unexpected member '{unknown}'"));
    }
    let bad = |member: &str| format!("config: {name}: bad value of '{member}'");
    let model = match options.get("service-model") {
        None => "standalone",
        Some(model) => model.as_str().ok_or_else(|| bad("service-model"))?,
    };
    let source = || {
        let sources = options.get("source").and_then(Json::as_object).ok_or_else(|| bad("source"))?;
        match sources.iter().next().filter(|_| sources.len() == 1) {
            Some((remotes, json)) => source_options(remotes, json),
            None => Err(bad("source")),
        }
    };
    match model {
        "standalone" | "" => Ok(Wanted::Active),
        "relay" => Ok(Wanted::Relay(source()?)),
        "active-backup" => {
            let backup = match options.get("backup") {
                None => false,
                Some(backup) => backup.as_bool().ok_or_else(|| bad("backup"))?,
            };
            let list = match options.get("exclude-tables") {
                None => &[][..],
                Some(list) => list.as_array().ok_or_else(|| bad("exclude-tables"))?,
            };
            let tables = list.iter().map(|t| t.as_str().map(str::to_string));
            let tables: Option<BTreeSet<String>> = tables.collect();
            let tables = tables.ok_or_else(|| bad("exclude-tables"))?;
            // A source that is wrong is wrong before it is needed.
            let source = if backup || options.contains_key("source") { Some(source()?) } else { None };
            Ok(match source.filter(|_| backup) {
                Some(source) => Wanted::Backup(source, tables),
                None => Wanted::Active,
            })
        }
        "clustered" => Err(format!("config: {name}: service model 'clustered' is not supported yet")),
        other => Err(format!("config: {name}: unknown service model '{other}'")),
    }
}

fn source_options(remotes: &str, json: &Json) -> Result<SourceOptions, String> {
    let options = remote_options(remotes, json)?;
    let mut source = SourceOptions::new(remotes, PROBE_MS);
    source.max_backoff_ms = options.max_backoff_ms;
    if json.get("inactivity-probe").is_some() {
        source.probe_ms = options.probe_ms;
    }
    Ok(source)
}

fn remote_options(target: &str, json: &Json) -> Result<RemoteOptions, String> {
    let mut options = RemoteOptions::default_for(target);
    let none = Object::new();
    let members = match json {
        Json::Null => &none,
        json => json
            .as_object()
            .ok_or_else(|| format!("config: {target}: options of a remote must be a JSON object"))?,
    };
    for (name, value) in members.iter() {
        let bad = || format!("config: {target}: bad value of '{name}'");
        let ms = || value.as_integer().and_then(|n| u64::try_from(n).ok()).ok_or_else(bad);
        match &**name {
            "inactivity-probe" => options.probe_ms = ms()?,
            "max-backoff" => options.max_backoff_ms = ms()?,
            "read-only" => options.read_only = value.as_bool().ok_or_else(bad)?,
            "dscp" => options.dscp = Some(u8::try_from(ms()?).ok().filter(|d| *d < 64).ok_or_else(bad)?),
            "role" => options.role = value.as_str().ok_or_else(bad)?.to_string(),
            _ => return Err(format!("config: {target}: unexpected member '{name}'")),
        }
    }
    Ok(options)
}
