//! One set of daemons, tools and files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; -1 if it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// How both daemons are started.
const DAEMON: [&str; 4] = ["--detach", "--no-chdir", "--pidfile", "--log-file"];

/// A running switch on dummy devices. Dropping it ends its daemons and removes its folder.
pub struct World {
    dir: PathBuf,
    /// Folders with the programs, first match wins.
    programs: Vec<PathBuf>,
    schema: Option<PathBuf>,
}

/// Debian's Open vSwitch; an error names what is missing.
pub fn debian() -> Result<World, String> {
    for program in ["/usr/sbin/ovs-vswitchd", "/usr/sbin/ovsdb-server", "/usr/bin/ovs-vsctl"] {
        if !Path::new(program).exists() {
            return Err(format!("{program} is missing (apt-get install openvswitch-switch)"));
        }
    }
    let schema = PathBuf::from("/usr/share/openvswitch/vswitch.ovsschema");
    World::start("theirs", vec!["/usr/sbin".into(), "/usr/bin".into()], Some(schema))
}

/// Ironbridge: `binary` under all of its names.
pub fn ours(binary: &Path) -> Result<World, String> {
    let links = scratch("links")?;
    let made = Command::new(binary)
        .arg("links")
        .arg(&links)
        .output()
        .map_err(|e| format!("{}: {e}", binary.display()))?;
    if !made.status.success() {
        return Err(format!("ironbridge links: {}", String::from_utf8_lossy(&made.stderr)));
    }
    World::start("ours", vec![links], None)
}

/// A new folder for one world.
fn scratch(name: &str) -> Result<PathBuf, String> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("ironbridge-{}-{n}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

impl World {
    fn start(name: &str, programs: Vec<PathBuf>, schema: Option<PathBuf>) -> Result<World, String> {
        let world = World { dir: scratch(name)?, programs, schema };
        let db = world.path("conf.db");
        let mut create = vec!["ovsdb-tool".to_owned(), "create".into(), db];
        create.extend(world.schema.iter().map(|s| s.display().to_string()));
        let server = world.server();
        let mut switch: Vec<String> =
            ["ovs-vswitchd", "--enable-dummy=override", "--disable-system", "--disable-system-route"]
                .iter()
                .map(|s| (*s).to_owned())
                .collect();
        switch.extend(DAEMON.map(str::to_owned));
        let init = ["ovs-vsctl", "--no-wait", "init"].map(str::to_owned).to_vec();
        for command in [create, server, init, switch] {
            let out = world.run(&command, "");
            if out.code != 0 {
                return Err(format!("{}: exit {}: {}", command.join(" "), out.code, out.stderr));
            }
        }
        Ok(world)
    }

    /// The command that starts the database server.
    fn server(&self) -> Vec<String> {
        let mut words = vec!["ovsdb-server".to_owned(), format!("--remote=punix:{}", self.path("db.sock"))];
        words.extend(DAEMON.map(str::to_owned));
        words
    }

    /// Starts the database server again if it has died; whether it had.
    pub fn revive(&self) -> Result<bool, String> {
        let pid = std::fs::read_to_string(self.path("ovsdb-server.pid")).unwrap_or_default();
        if Path::new("/proc").join(pid.trim()).join("exe").exists() {
            return Ok(false);
        }
        let out = self.run(&self.server(), "");
        if out.code == 0 { Ok(true) } else { Err(format!("ovsdb-server: exit {}: {}", out.code, out.stderr)) }
    }

    /// A file of this world.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Runs a program of this world with arguments, `input` on standard input, at most 30 s.
    pub fn run(&self, words: &[String], input: &str) -> Output {
        let failed = |why: String| Output { code: -1, stdout: String::new(), stderr: why };
        let Some((name, args)) = words.split_first() else { return failed("empty command".into()) };
        let found = self.programs.iter().map(|d| d.join(name)).find(|p| p.exists());
        let program = found.unwrap_or_else(|| PathBuf::from(name));
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.dir).env("OVS_CTL_TIMEOUT", "30");
        for var in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(var, &self.dir);
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(e) => return failed(format!("{name}: {e}")),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input closes it early; that is its business.
            let _ = stdin.write_all(input.as_bytes());
        }
        match child.wait_with_output() {
            Ok(out) => Output {
                code: out.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
            },
            Err(e) => failed(format!("{name}: {e}")),
        }
    }

    /// Runs a command line, split as a shell would (quotes, no expansion).
    pub fn sh(&self, line: &str, input: &str) -> Output {
        self.run(&split_words(line), input)
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, line: &str) -> Result<String, String> {
        let out = self.sh(line, "");
        if out.code == 0 {
            Ok(out.stdout)
        } else {
            Err(format!("$ {line}\nexit {}\n{}", out.code, out.stderr))
        }
    }

    /// Log lines at WARN and above.
    pub fn faults(&self) -> String {
        let log = std::fs::read_to_string(self.path("ovs-vswitchd.log")).unwrap_or_default();
        let severe = |l: &&str| ["|WARN|", "|ERR|", "|EMER|"].iter().any(|s| l.contains(s));
        log.lines().filter(severe).map(|l| format!("{l}\n")).collect()
    }

    fn end(&self, program: &str) {
        let Ok(text) = std::fs::read_to_string(self.path(&format!("{program}.pid"))) else { return };
        let Ok(pid) = text.trim().parse::<u32>() else { return };
        let _ = Command::new("kill").arg(pid.to_string()).output();
        for _ in 0..200 {
            if !Path::new(&format!("/proc/{pid}")).exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = Command::new("kill").arg("-9").arg(pid.to_string()).output();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end("ovs-vswitchd");
        self.end("ovsdb-server");
        if std::env::var_os("DIFFER_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        for dir in self.programs.iter().filter(|d| d.starts_with(std::env::temp_dir())) {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Splits a command line at blanks; `'` and `"` quote.
pub fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut in_word, mut quote) = (String::new(), false, None);
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                in_word = true;
            }
            None if c.is_whitespace() => {
                if in_word {
                    words.push(std::mem::take(&mut word));
                    in_word = false;
                }
            }
            None => {
                word.push(c);
                in_word = true;
            }
        }
    }
    if in_word {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_as_in_a_shell() {
        assert_eq!(split_words("a 'b c' d=\"e f\" ''"), ["a", "b c", "d=e f", ""]);
    }
}
