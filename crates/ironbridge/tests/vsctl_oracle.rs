//! The database tools against Debian's: every line of `vsctl.corpus` and `vtep.corpus` runs on both, each on a database of its own
//! served by Debian's `ovsdb-server`, and must print the same on both outputs and exit the same way.
//!
//! What must differ is made equal first: UUIDs, times, directories, the order of rows (which neither side
//! promises), columns that Debian's schema does not have. Without Debian's tools the test says so and passes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SERVER: &str = "/usr/sbin/ovsdb-server";
const TOOL: &str = "/usr/bin/ovsdb-tool";

/// A tool to compare.
struct Tool {
    name: &'static str,
    oracle: &'static str,
    schema: &'static str,
    /// What goes before every line's words.
    options: &'static [&'static str],
    corpus: &'static str,
    /// The least number of lines in it.
    lines: usize,
}

const VSCTL: Tool = Tool {
    name: "ovs-vsctl",
    oracle: "/usr/bin/ovs-vsctl",
    schema: "/usr/share/openvswitch/vswitch.ovsschema",
    options: &["--no-wait"],
    corpus: include_str!("vsctl.corpus"),
    lines: 200,
};

const VTEP_CTL: Tool = Tool {
    name: "vtep-ctl",
    oracle: "/usr/bin/vtep-ctl",
    schema: "/usr/share/openvswitch/vtep.ovsschema",
    options: &[],
    corpus: include_str!("vtep.corpus"),
    lines: 100,
};

/// Columns that the oracle's ovs-vsctl has not heard of.
const NEWER_COLUMNS: [&str; 6] =
    ["limit", "ct_zone_default_limit", "local_group_id", "stats_interval", "template_interval", "filter"];

/// A database being served in a directory of its own.
struct Database {
    dir: PathBuf,
    server: Child,
}

impl Database {
    fn start(dir: PathBuf, schema: &str) -> Database {
        fs::create_dir_all(&dir).unwrap();
        let made = Command::new(TOOL).arg("create").arg(dir.join("conf.db")).arg(schema).status().unwrap();
        assert!(made.success());
        let server = Command::new(SERVER)
            .arg(dir.join("conf.db"))
            .arg(format!("--remote=punix:{}/db.sock", dir.display()))
            .arg(format!("--unixctl={}/ctl", dir.display()))
            .env("OVS_RUNDIR", &dir)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !dir.join("db.sock").exists() {
            assert!(Instant::now() < deadline, "ovsdb-server does not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        Database { dir, server }
    }

    /// Runs one command line; the result is its normalized trace.
    fn run(&self, tool: &Tool, exe: &Path, words: &[String]) -> String {
        let output = Command::new(exe)
            .args(tool.options)
            .args(words)
            .env("OVS_RUNDIR", &self.dir)
            .env("OVS_LOGDIR", &self.dir)
            .env("OVS_SYSLOG_METHOD", "null")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let text = text.replace(&*self.dir.to_string_lossy(), "DIR");
            text.replace(&*exe.to_string_lossy(), tool.name)
        };
        format!("{}2> {}rc {:?}\n", text(&output.stdout), text(&output.stderr), output.status)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Splits a line as a shell would, without anything but quotes and backslashes.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (Some(_), '\\') => {
                let next = chars.next().unwrap_or('\\');
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() >= 36
        && text[..36].iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

fn is_time(text: &[u8]) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    text.len() >= SHAPE.len()
        && SHAPE.iter().zip(text).all(|(s, t)| if *s == b'0' { t.is_ascii_digit() } else { s == t })
}

fn mask(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if is_uuid(rest.as_bytes()) {
            out.push_str("UUID");
            36
        } else if is_time(rest.as_bytes()) {
            out.push_str("TIME");
            20
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[skip..];
    }
    out
}

/// Makes equal what is not compared.
fn normalize(line: &str, trace: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for text in mask(trace).lines() {
        if text.split_once(':').is_some_and(|(column, _)| NEWER_COLUMNS.contains(&column.trim_end())) {
            continue;
        }
        // Which of two rows is the first is chance.
        let text = text.split("  First row,").next().unwrap_or(text);
        // A map of smap type is listed in the order of its hashes.
        let mut words: Vec<&str> = text.split(' ').collect();
        if line.starts_with("list-dp-cap") {
            words.sort_unstable();
        }
        lines.push(words.join(" "));
    }
    if line.split(' ').any(|word| matches!(word, "show" | "list" | "find")) {
        lines.sort();
    }
    lines.join("\n")
}

#[test]
fn vsctl_texts_and_exit_codes_agree() {
    compare(&VSCTL);
}

#[test]
fn vtep_texts_and_exit_codes_agree() {
    compare(&VTEP_CTL);
}

fn compare(tool: &Tool) {
    for needed in [SERVER, TOOL, tool.oracle, tool.schema] {
        if !Path::new(needed).exists() {
            eprintln!("skipped: {needed} is not installed");
            return;
        }
    }
    let base = std::env::temp_dir().join(format!("{}-oracle-{}", tool.name, std::process::id()));
    fs::create_dir_all(&base).unwrap();
    let ours = base.join(tool.name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ironbridge"), &ours).unwrap();

    let mut databases: Option<(Database, Database)> = None;
    let mut group = 0;
    let mut compared = 0;
    let mut differences = String::new();
    let mut heading = "";
    for line in tool.corpus.lines() {
        if line.starts_with("# ") {
            group += 1;
            heading = line;
            databases = Some((
                Database::start(base.join(format!("{group}.oracle")), tool.schema),
                Database::start(base.join(format!("{group}.ours")), tool.schema),
            ));
            continue;
        }
        let (theirs, own) = databases.as_ref().expect("the corpus begins with a heading");
        let words = split(line);
        let expect = normalize(line, &theirs.run(tool, Path::new(tool.oracle), &words));
        let got = normalize(line, &own.run(tool, &ours, &words));
        compared += 1;
        if got != expect {
            differences.push_str(&format!(
                "{heading}\n$ {} {line}\n--- oracle\n{expect}\n--- ours\n{got}\n\n",
                tool.name
            ));
        }
    }
    drop(databases);
    let _ = fs::remove_dir_all(&base);
    assert!(compared > tool.lines, "{compared}");
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn lines_split_as_a_shell_splits_them() {
    let words: BTreeSet<Vec<String>> = [r#"a "b c" 'd e'"#, r#"a b\ c "d e""#]
        .map(split)
        .into_iter()
        .map(|words| words.iter().map(|w| w.replace(' ', "_")).collect())
        .collect();
    assert_eq!(words.into_iter().next().unwrap(), ["a", "b_c", "d_e"]);
    assert_eq!(split(r#"x=\"q\\\"r\" """#), [r#"x="q\"r""#, ""]);
}
