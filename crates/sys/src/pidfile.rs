//! Pidfiles: the lock that lets one instance of a daemon run, and the way to find it.
//!
//! A pidfile holds a pid in decimal and is locked with `fcntl` by that process for its life. A pidfile that nobody
//! locks is stale: its daemon is dead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ib_base::errno::strerror;
use ib_base::vlog::module::DAEMON_UNIX;
use ib_base::vlog_warn;

/// Holds the locks, one for each daemon in the process: a file must stay open, for closing any descriptor of it gives
/// its lock up.
static HELD: Mutex<Vec<(PathBuf, File)>> = Mutex::new(Vec::new());

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: flock is plain data; zeros mean the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

fn errno(n: i32) -> io::Error {
    io::Error::from_raw_os_error(n)
}

/// The pid of the process that holds the pidfile `path`. A stale file is `ESRCH`; with `remove_stale` it is removed.
pub fn read(path: &Path, remove_stale: bool) -> io::Result<i32> {
    for (_, file) in HELD.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        use std::os::unix::fs::MetadataExt;
        // Our own: opening and closing it here would give our lock up.
        if let (Ok(ours), Ok(named)) = (file.metadata(), std::fs::metadata(path))
            && (ours.dev(), ours.ino()) == (named.dev(), named.ino())
        {
            return Ok(std::process::id() as i32);
        }
    }
    let file = match OpenOptions::new().read(true).write(remove_stale).open(path) {
        Ok(file) => file,
        Err(e) => {
            if !(remove_stale && e.kind() == io::ErrorKind::NotFound) {
                vlog_warn!(DAEMON_UNIX, "{}: open: {}", path.display(), strerror(&e));
            }
            return Err(e);
        }
    };
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and `lock` is a valid flock.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) } < 0 {
        let e = io::Error::last_os_error();
        vlog_warn!(DAEMON_UNIX, "{}: fcntl: {}", path.display(), strerror(&e));
        return Err(e);
    }
    if lock.l_type == libc::F_UNLCK as libc::c_short {
        if remove_stale {
            std::fs::remove_file(path)?;
        }
        return Err(errno(libc::ESRCH));
    }
    let mut text = String::new();
    if let Err(e) = (&file).take(64).read_to_string(&mut text) {
        vlog_warn!(DAEMON_UNIX, "{}: read: {}", path.display(), strerror(&e));
        return Err(e);
    }
    let Ok(pid) = text.trim().parse::<i32>() else {
        vlog_warn!(DAEMON_UNIX, "{}: does not contain a pid", path.display());
        return Err(errno(libc::EINVAL));
    };
    if pid != lock.l_pid {
        // The holder may run in another pid namespace, where its number is another.
        if lock.l_pid == 0 {
            return Ok(pid);
        }
        vlog_warn!(
            DAEMON_UNIX,
            "{}: stale pidfile for pid {} being deleted by pid {}",
            path.display(),
            pid,
            lock.l_pid
        );
        return Err(errno(libc::ESRCH));
    }
    Ok(pid)
}

/// Makes and locks the pidfile `path` for this process, and has it removed at exit. Without `overwrite` an existing
/// file is `EEXIST`.
pub fn create(path: &Path, overwrite: bool) -> io::Result<()> {
    let tmp = PathBuf::from(format!("{}.tmp", path.display()));
    let _ = std::fs::remove_file(&tmp);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&tmp)?;
    let written = (|| {
        let mut lock = whole_file(libc::F_WRLCK);
        writeln!(file, "{}", std::process::id())?;
        // SAFETY: the descriptor is open and `lock` is a valid flock.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &mut lock) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if overwrite {
            return std::fs::rename(&tmp, path);
        }
        match std::fs::hard_link(&tmp, path) {
            // What a crash has left behind does not count.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_stale(path) => {
                std::fs::hard_link(&tmp, path)
            }
            other => other,
        }
    })();
    let _ = std::fs::remove_file(&tmp);
    written?;
    crate::signal::unlink_at_exit(path);
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_path_buf(), file));
    Ok(())
}

/// Whether the file is stale; it is removed if so.
fn is_stale(path: &Path) -> bool {
    read(path, true).is_err_and(|e| e.raw_os_error() == Some(libc::ESRCH))
}

/// Removes the pidfile that [`create`] made, before the process ends.
pub fn remove(path: &Path) {
    crate::signal::unlink_now(path);
    HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|(held, _)| held != path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_instance_and_stale() {
        let dir = std::env::temp_dir().join(format!("pidfile-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("d.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(read(&path, false).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert!(path.exists());
        assert_eq!(read(&path, true).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert!(!path.exists());
        std::fs::write(&path, "1\n").unwrap();
        create(&path, false).unwrap();
        assert_eq!(create(&path, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path, false).unwrap(), std::process::id() as i32);
        // Another process sees the lock.
        let (mut from_child, mut to_parent) = crate::process::pipe(false).unwrap();
        match crate::process::fork().unwrap() {
            crate::process::Fork::Child => {
                HELD.lock().unwrap().clear();
                let answer = read(&path, false).map_or(0, |pid| pid);
                to_parent.write_all(&answer.to_le_bytes()).unwrap();
                // SAFETY: _exit ends the child without running the test harness's cleanup.
                unsafe { libc::_exit(0) }
            }
            crate::process::Fork::Parent(pid) => {
                let mut answer = [0; 4];
                from_child.read_exact(&mut answer).unwrap();
                crate::process::wait(pid).unwrap();
                assert_eq!(i32::from_le_bytes(answer), std::process::id() as i32);
            }
        }
        remove(&path);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
