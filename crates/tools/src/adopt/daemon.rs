//! A daemon as it was started, and how to start it that way again.
//!
//! What proc(5) tells of a running daemon (executable, words, directory, environment) is all that is needed to have the same one
//! again after it has ended. Only daemons that detach by themselves qualify: others have a parent that would notice.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ib_base::errno::strerror;
use ib_base::json::{Json, Object};

use ib_sys::{dirs, pidfile, process};

use crate::port::switch;

/// How long a daemon may take to end, and again after each harder way of asking.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// How a daemon is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// `ovsdb-server` or `ovs-vswitchd`: its pidfile's name.
    pub name: String,
    /// Executable.
    pub exe: PathBuf,
    /// Words, from its name on.
    pub words: Vec<OsString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Environment.
    pub env: Vec<(OsString, OsString)>,
}

fn file(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{path}: {}", strerror(&e)))
}

fn link(path: &str) -> Result<PathBuf, String> {
    std::fs::read_link(path).map_err(|e| format!("{path}: {}", strerror(&e)))
}

fn split(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes.split(|b| *b == 0).map(|w| OsStr::from_bytes(w).to_owned()).collect()
}

/// The process of a daemon, by its pidfile in the run directory.
pub fn pid_of(name: &str) -> Result<i32, String> {
    let path = dirs::rundir().join(format!("{name}.pid"));
    let pid = pidfile::read(&path, false)
        .map_err(|e| format!("{name} does not run: {}: {}", path.display(), strerror(&e)))?;
    if runs(pid) { Ok(pid) } else { Err(format!("{name} does not run")) }
}

impl Launch {
    /// How a daemon that runs was started.
    pub fn of_running(name: &str) -> Result<Launch, String> {
        let proc = format!("/proc/{}", pid_of(name)?);
        let exe = link(&format!("{proc}/exe"))?;
        // An upgrade has put another file in its place, which is what a restart would run too.
        let text = exe.as_os_str().as_bytes();
        let exe = match text.strip_suffix(b" (deleted)") {
            Some(path) => PathBuf::from(OsStr::from_bytes(path)),
            None => exe,
        };
        let env = split(&file(&format!("{proc}/environ"))?)
            .into_iter()
            .filter_map(|pair| {
                let at = pair.as_bytes().iter().position(|b| *b == b'=')?;
                let (name, value) = pair.as_bytes().split_at(at);
                Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()))
            })
            .collect();
        let words = split(&file(&format!("{proc}/cmdline"))?);
        Ok(Launch { name: name.to_owned(), exe, words, cwd: link(&format!("{proc}/cwd"))?, env })
    }

    /// The same daemon of another make.
    pub fn by(&self, program: Option<&Path>) -> Result<Launch, String> {
        let mut other = self.clone();
        let rest = self.words.iter().skip(1).cloned();
        match program {
            // A program that is told which of its names is meant.
            Some(program) => {
                other.exe = program.to_owned();
                other.words = [program.as_os_str().to_owned(), self.name.clone().into()]
                    .into_iter()
                    .chain(rest)
                    .collect();
            }
            None => {
                other.exe = std::env::current_exe().map_err(|e| strerror(&e))?;
                other.words = std::iter::once(OsString::from(&self.name)).chain(rest).collect();
            }
        }
        Ok(other)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.exe);
        if let Some(first) = self.words.first() {
            command.arg0(first);
        }
        command
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(&self.cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Whether the executable can be run at all: it is asked for its version.
    pub fn try_out(&self) -> Result<(), String> {
        let named = self.words.get(1).filter(|w| **w == *self.name);
        let out = self.command().args(named).arg("--version").stderr(Stdio::null()).status();
        let failed = |why: String| format!("{}: {} cannot be run: {why}", self.exe.display(), self.name);
        match out {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(status.to_string())),
            Err(e) => Err(failed(strerror(&e))),
        }
    }

    /// Starts it and waits until it serves.
    pub fn start(&self) -> Result<(), String> {
        let failed =
            |why: String| format!("{} could not be started by {}: {why}", self.name, self.exe.display());
        // A pipe for its messages would stay open in the daemon.
        let mut command = self.command();
        let status = command.args(self.words.iter().skip(1)).stderr(Stdio::null()).status();
        let status = status.map_err(|e| failed(strerror(&e)))?;
        if !status.success() {
            return Err(failed(format!("{status}; its log says more")));
        }
        pid_of(&self.name).map(drop).map_err(|_| failed("it ended at once".into()))
    }

    /// What is against starting it again.
    pub fn obstacles(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !self.words.iter().any(|w| w == "--detach") {
            out.push(format!(
                "{} was started without --detach: whoever started it would notice its end",
                self.name
            ));
        }
        if !self.exe.is_file() {
            out.push(format!("{}: the executable of {} is gone", self.exe.display(), self.name));
        }
        out
    }

    /// The systemd service that it runs in.
    pub fn service(&self) -> Option<String> {
        let groups = file(&format!("/proc/{}/cgroup", pid_of(&self.name).ok()?)).ok()?;
        let groups = String::from_utf8_lossy(&groups).into_owned();
        let unit = groups.lines().find_map(|l| l.rsplit('/').next().filter(|u| u.ends_with(".service")))?;
        // A shell in a service, as in tests and containers, is not the switch's service.
        ["openvswitch", "ovs", "ironbridge"].iter().any(|p| unit.starts_with(p)).then(|| unit.to_owned())
    }

    /// For the record.
    pub fn to_json(&self) -> Result<Json, String> {
        let text = |s: &OsStr| match s.to_str() {
            Some(s) => Ok(Json::from(s)),
            None => Err(format!("{}: \"{}\" is no UTF-8", self.name, s.to_string_lossy())),
        };
        let words: Result<Vec<Json>, String> = self.words.iter().map(|w| text(w)).collect();
        let env: Result<Vec<Json>, String> =
            self.env.iter().map(|(k, v)| Ok(Json::array([text(k)?, text(v)?]))).collect();
        let mut o = Object::new();
        o.insert("name", self.name.as_str());
        o.insert("exe", text(self.exe.as_os_str())?);
        o.insert("cwd", text(self.cwd.as_os_str())?);
        o.insert("words", words?);
        o.insert("env", env?);
        Ok(Json::Object(o))
    }

    /// From the record.
    pub fn from_json(json: &Json) -> Option<Launch> {
        let text = |name| json.get(name)?.as_str();
        let words = json.get("words")?.as_array()?.iter().map(|w| w.as_str().map(OsString::from));
        let env = json.get("env")?.as_array()?.iter().map(|pair| match pair.as_array()? {
            [k, v] => Some((k.as_str()?.into(), v.as_str()?.into())),
            _ => None,
        });
        Some(Launch {
            name: text("name")?.to_owned(),
            exe: text("exe")?.into(),
            words: words.collect::<Option<_>>()?,
            cwd: text("cwd")?.into(),
            env: env.collect::<Option<_>>()?,
        })
    }
}

/// State and parent of a process (proc_pid_stat(5)).
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|(_, parent)| parent)
}

/// Whether a process runs. One that nobody has waited for yet does not.
fn runs(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Ends a daemon, gently first; whether it ran.
pub fn stop(name: &str) -> Result<bool, String> {
    const SIGTERM: i32 = 15;
    const SIGKILL: i32 = 9;
    let Ok(pid) = pid_of(name) else { return Ok(false) };
    // Its monitor ends after it.
    let monitor = parent(pid).filter(|parent| {
        let words = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).starts_with(&format!("{name}: monitoring pid"))
    });
    let gone = || {
        let start = Instant::now();
        while runs(pid) || monitor.is_some_and(runs) {
            if start.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    };
    let asked = switch::call(name, "exit", &[]).is_ok();
    if asked && gone() {
        return Ok(true);
    }
    for signo in [SIGTERM, SIGKILL] {
        // It may have ended meanwhile.
        let _ = process::kill(pid, signo);
        if gone() {
            return Ok(true);
        }
    }
    Err(format!("{name} (process {pid}) does not end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_launch_survives_its_record() {
        let l = Launch {
            name: "ovs-vswitchd".into(),
            exe: "/usr/sbin/ovs-vswitchd".into(),
            words: ["ovs-vswitchd", "--detach", ""].map(OsString::from).to_vec(),
            cwd: "/".into(),
            env: vec![("A".into(), "b=c".into())],
        };
        assert_eq!(Launch::from_json(&l.to_json().unwrap()), Some(l.clone()));
        assert_eq!(l.obstacles().len(), usize::from(!l.exe.is_file()));
        let ours = l.by(Some(Path::new("/opt/ib"))).unwrap();
        assert_eq!(ours.words, ["/opt/ib", "ovs-vswitchd", "--detach", ""].map(OsString::from));
        let odd = Launch { words: vec![OsString::from_vec(vec![0xff])], ..l };
        assert!(odd.to_json().is_err());
        assert!(odd.obstacles()[0].contains("--detach"));
    }

    #[test]
    fn words_end_with_zeros() {
        assert_eq!(split(b"a\0\0b\0"), ["a", "", "b"].map(OsString::from));
    }
}
