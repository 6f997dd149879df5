//! Where things lie: run, log, database, configuration and package data directories.
//!
//! Each comes from its environment variable or is that of Debian's packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

fn dir(variable: &str, default: &str) -> PathBuf {
    let value = std::env::var_os(variable).filter(|v| !v.is_empty());
    PathBuf::from(value.unwrap_or_else(|| OsString::from(default)))
}

/// `$OVS_RUNDIR`: sockets and pidfiles.
pub fn rundir() -> PathBuf {
    dir("OVS_RUNDIR", "/var/run/openvswitch")
}

/// `$OVS_LOGDIR`.
pub fn logdir() -> PathBuf {
    dir("OVS_LOGDIR", "/var/log/openvswitch")
}

/// `$OVS_DBDIR`, else `openvswitch` in [`sysconfdir`].
pub fn dbdir() -> PathBuf {
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
