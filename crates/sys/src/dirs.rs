//! Where things lie: run, log, database, configuration and package data directories.
//!
//! Each comes from its environment variable or is that of Debian's packages. A program that embeds daemons and tools
//! chooses one directory for all that is written, [`set_rundir`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Makes `dir` the run, log and database directory of this process, whatever the environment says. The first call
/// counts; it comes before anything asks.
pub fn set_rundir(dir: &Path) {
    let _ = CHOSEN.set(dir.to_path_buf());
}

fn dir(variable: &str, default: &str) -> PathBuf {
    let value = std::env::var_os(variable).filter(|v| !v.is_empty());
    PathBuf::from(value.unwrap_or_else(|| OsString::from(default)))
}

/// `$OVS_RUNDIR`: sockets and pidfiles.
pub fn rundir() -> PathBuf {
    CHOSEN.get().cloned().unwrap_or_else(|| dir("OVS_RUNDIR", "/var/run/openvswitch"))
}

/// `$OVS_LOGDIR`.
pub fn logdir() -> PathBuf {
    CHOSEN.get().cloned().unwrap_or_else(|| dir("OVS_LOGDIR", "/var/log/openvswitch"))
}

/// `$OVS_DBDIR`, else `openvswitch` in [`sysconfdir`].
pub fn dbdir() -> PathBuf {
    if let Some(chosen) = CHOSEN.get() {
        return chosen.clone();
    }
    match std::env::var_os("OVS_DBDIR").filter(|v| !v.is_empty()) {
        Some(v) => PathBuf::from(v),
        None => sysconfdir().join("openvswitch"),
    }
}

/// `$OVS_SYSCONFDIR`.
pub fn sysconfdir() -> PathBuf {
    dir("OVS_SYSCONFDIR", "/etc")
}

/// `$OVS_PKGDATADIR`: schemas.
pub fn pkgdatadir() -> PathBuf {
    dir("OVS_PKGDATADIR", "/usr/share/openvswitch")
}

/// `name` in `base`, unless `name` is absolute.
pub fn in_dir(base: &Path, name: impl AsRef<Path>) -> PathBuf {
    base.join(name)
}
