//! The configuration file of `--config-file`: databases and remotes in JSON.
//!
//! ```json
//! {"remotes": {"punix:/run/db.sock": {}, "ptcp:6640": {"inactivity-probe": 0, "read-only": true}},
//!  "databases": {"conf.db": {"service-model": "standalone"}}}
//! ```

use std::collections::BTreeMap;

use ib_base::json::{Json, Object};
use ib_base::vlog::module::OVSDB_SERVER;
use ib_base::vlog_info;
use ib_sys::dirs;

use super::App;
use super::remotes::RemoteOptions;

impl App {
    /// Reads the configuration file and makes the server what it says. On an error nothing has changed but databases that
    /// could be opened.
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
        let section = |name: &str| config.get(name).and_then(Json::as_object).unwrap_or(&none);
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for (file, options) in section("databases").iter() {
            let model = options.get("service-model").and_then(Json::as_str).unwrap_or("standalone");
            if !matches!(model, "standalone" | "") {
                return Err(format!("config: {file}: service model '{model}' is not supported yet"));
            }
            let path = dirs::in_dir(&dirs::dbdir(), &**file).display().to_string();
            files.insert(path, file.to_string());
        }
        let mut remotes = Vec::new();
        for (target, options) in section("remotes").iter() {
            remotes.push((target.to_string(), remote_options(target, options)?));
        }
        let gone: Vec<String> = self
            .files
            .iter()
            .filter(|(_, open)| !files.keys().any(|f| super::same_file(open, f.as_ref())))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.close_database(&name);
        }
        for file in files.keys() {
            if !self.files.values().any(|open| super::same_file(open, file.as_ref())) {
                self.open_database(file)?;
            }
        }
        self.remotes.replace(remotes, &self.server)
    }
}

fn remote_options(target: &str, json: &Json) -> Result<RemoteOptions, String> {
    let mut options = RemoteOptions::default_for(target);
    let none = Object::new();
    for (name, value) in json.as_object().unwrap_or(&none).iter() {
        let bad = || format!("config: {target}: bad value of '{name}'");
        let ms = || value.as_integer().and_then(|n| u64::try_from(n).ok()).ok_or_else(bad);
        match &**name {
            "inactivity-probe" => options.probe_ms = ms()?,
            "max-backoff" => options.max_backoff_ms = ms()?,
            "read-only" => options.read_only = value.as_bool().ok_or_else(bad)?,
            "dscp" => options.dscp = Some(u8::try_from(ms()?).ok().filter(|d| *d < 64).ok_or_else(bad)?),
            "role" if value.as_str() == Some("") => {}
            "role" => {
                return Err(format!("config: {target}: role-based access control is not supported yet"));
            }
            _ => return Err(format!("config: {target}: unexpected member '{name}'")),
        }
    }
    Ok(options)
}
