//! Scripts: one command a line, run in both worlds.
//!
//! `#` begins a comment line. A line that begins with `!` is run but not compared (set-up whose text
//! depends on the machine); one with `~` is compared but for its exit code, where newer versions of the original exit
//! differently from Debian's. Before comparing, what can't be the same is replaced: UUIDs, times, durations, versions,
//! folders.

use crate::{Difference, World};

/// Runs `text` in both worlds; returns every difference.
pub fn run(theirs: &World, ours: &World, text: &str) -> Vec<Difference> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let compared = !line.starts_with('!');
        let with_code = !line.starts_with('~');
        let command = line.trim_start_matches(['!', '~']).trim();
        let (a, b) = (theirs.sh(command, ""), ours.sh(command, ""));
        if !compared {
            continue;
        }
        let show = |world: &World, o: &crate::Output| {
            let code = if with_code { format!("exit {}\n", o.code) } else { String::new() };
            // Connections come in no order.
            let stdout =
                if command.contains("dump-conntrack") { sorted(&o.stdout) } else { o.stdout.clone() };
            normalize(&format!("{stdout}{}{code}", o.stderr), &world.path(""))
        };
        let (a, b) = (show(theirs, &a), show(ours, &b));
        if a != b {
            found.push(Difference { command: command.to_owned(), theirs: a, ours: b });
        }
    }
    found
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|l| format!("{l}\n")).collect()
}

/// Replaces what differs from run to run by its kind.
pub fn normalize(text: &str, dir: &str) -> String {
    let text = text.replace(dir.trim_end_matches('/'), "<DIR>");
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        // Logs on the terminal begin with a time.
        let dated = line.split_once('|').filter(|(t, _)| t.len() > 18 && t.ends_with('Z') && t.contains('T'));
        let line = dated.map_or(line, |(_, rest)| rest);
        let line = strip_after(line, "duration=", |c| c.is_ascii_digit() || c == '.' || c == 's');
        let line = strip_after(&line, "used:", |c| c.is_ascii_digit() || c == '.' || c == 's');
        let line = strip_after(&line, "xid=0x", |c| c.is_ascii_hexdigit());
        out.push_str(&replace_uuids(&line));
        out.push('\n');
    }
    out
}

/// Replaces the run of `class` behind each `key` by `?`.
pub(crate) fn strip_after(line: &str, key: &str, class: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(key) {
        let (head, tail) = rest.split_at(at + key.len());
        out.push_str(head);
        let end = tail.find(|c| !class(c)).unwrap_or(tail.len());
        if end > 0 {
            out.push('?');
        }
        rest = &tail[end..];
    }
    out + rest
}

fn replace_uuids(line: &str) -> String {
    const SHAPE: [usize; 5] = [8, 4, 4, 4, 12];
    let bytes = line.as_bytes();
    let uuid_at = |at: usize| -> bool {
        let mut i = at;
        for (n, len) in SHAPE.iter().enumerate() {
            if n > 0 {
                if bytes.get(i) != Some(&b'-') {
                    return false;
                }
                i += 1;
            }
            if i + len > bytes.len() || !bytes[i..i + len].iter().all(u8::is_ascii_hexdigit) {
                return false;
            }
            i += len;
        }
        true
    };
    let mut out = String::with_capacity(line.len());
    let mut i = 0;
    while i < line.len() {
        if line.is_char_boundary(i) && uuid_at(i) {
            out.push_str("<UUID>");
            i += 36;
        } else {
            let c = line[i..].chars().next().unwrap_or('?');
            out.push(c);
            i += c.len_utf8();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_equal_is_replaced() {
        assert_eq!(
            normalize(
                "cookie=0x0, duration=1.25s, used:0.1s, xid=0x4 12272b11-9007-4f8b-8d4b-55ebc7abc5be /t/d/x",
                "/t/d/"
            ),
            "cookie=0x0, duration=?, used:?, xid=0x? <UUID> <DIR>/x\n"
        );
    }
}
