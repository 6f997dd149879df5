//! Lock files: who may write a database file.
//!
//! The lock is an `fcntl` lock of a file that is otherwise empty and stays behind, so it excludes other programs that lock in
//! the same way. Such a lock belongs to the process; a table of the files locked keeps a process from locking one twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ib_base::vlog::module::LOCKFILE;
use ib_base::{coverage, vlog_warn};

/// Device and inode of the files that this process has locked.
static HELD: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// A lock. Dropping it gives it up; the file stays.
#[derive(Debug)]
pub struct LockFile {
    id: (u64, u64),
    _file: File,
}

impl LockFile {
    /// Locks `path`, which is made if it does not exist. Does not wait: if another process has the lock the error is
    /// `EAGAIN`, if this one has, `EDEADLK`.
    pub fn lock(path: &Path) -> io::Result<LockFile> {
        coverage::lockfile_lock.inc();
        let result = LockFile::try_lock(path);
        if let Err((error, holder)) = result {
            coverage::lockfile_error.inc();
            match holder {
                Some(0) => vlog_warn!(
                    LOCKFILE,
                    "{}: cannot lock file because this process has already locked it",
                    path.display()
                ),
                Some(pid) => vlog_warn!(
                    LOCKFILE,
                    "{}: cannot lock file because it is already locked by pid {pid}",
                    path.display()
                ),
                None => {
                    let why = ib_base::errno::strerror(&error);
                    vlog_warn!(LOCKFILE, "{}: failed to open lock file: {why}", path.display());
                    vlog_warn!(LOCKFILE, "{}: failed to lock file: {why}", path.display());
                }
            }
            return Err(error);
        }
        result.map_err(|(error, _)| error)
    }

    /// On failure, also who holds the lock: 0 for this process.
    fn try_lock(path: &Path) -> Result<LockFile, (io::Error, Option<i32>)> {
        let open =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        // Closing any descriptor of a locked file gives the lock up: look before opening.
        if let Ok(m) = std::fs::metadata(path)
            && held.contains(&(m.dev(), m.ino()))
        {
            return Err((io::Error::from_raw_os_error(libc::EDEADLK), Some(0)));
        }
        let file = open().map_err(|e| (e, None))?;
        let m = file.metadata().map_err(|e| (e, None))?;
        // SAFETY: flock is plain data; zeros mean the whole file.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        // SAFETY: the descriptor is open and `lock` is a valid flock.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &mut lock) } < 0 {
            let error = io::Error::last_os_error();
            // SAFETY: as above.
            let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) };
            let holder = (asked == 0 && lock.l_pid > 0).then_some(lock.l_pid);
            return Err((error, holder));
        }
        held.push((m.dev(), m.ino()));
        Ok(LockFile { id: (m.dev(), m.ino()), _file: file })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lock_a_process_until_dropped() {
        let path = std::env::temp_dir().join(format!("lockfile-{}", std::process::id()));
        let lock = LockFile::lock(&path).unwrap();
        assert_eq!(LockFile::lock(&path).unwrap_err().raw_os_error(), Some(libc::EDEADLK));
        drop(lock);
        drop(LockFile::lock(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
