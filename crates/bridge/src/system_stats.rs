//! What the machine does: the `statistics` column of `Open_vSwitch`, where `other_config:enable-statistics` asks for it.
//!
//! All of it is read from `/proc`, the list of file systems and the pidfiles of the run directory, every five seconds
//! ([`INTERVAL`]). What cannot be read is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ib_sys::{file_system, pidfile};

/// How often the column is renewed.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// Ticks a second in which `/proc` counts, whatever the kernel's own are.
const TICK_MS: u64 = 10;

/// All keys and values of the column. `rundir` is where pidfiles lie.
pub(crate) fn collect(rundir: &Path) -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let mut all = BTreeMap::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            all.insert(key.to_owned(), value);
        }
    };
    add("cpu", read("/proc/stat").as_deref().and_then(processors));
    add("load_average", read("/proc/loadavg").as_deref().and_then(load_average));
    add("memory", read("/proc/meminfo").as_deref().and_then(memory));
    add("file_systems", read("/etc/mtab").as_deref().map(file_systems));
    for (name, pid) in pidfiles(rundir) {
        add(&format!("process_{name}"), process(pid));
    }
    all
}

/// How many processors are online.
fn processors(stat: &str) -> Option<String> {
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let count = stat.lines().filter(is_one).count();
    (count > 0).then(|| count.to_string())
}

/// The three averages, joined by commas.
fn load_average(text: &str) -> Option<String> {
    let averages: Vec<&str> = text.split_whitespace().take(3).collect();
    (averages.len() == 3).then(|| averages.join(","))
}

/// The number behind `key` in lines of `key: number kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Total, used (caches included), caches, swap, swap used; KiB.
fn memory(info: &str) -> Option<String> {
    let at = |key| kib(info, key);
    let (total, swap) = (at("MemTotal")?, at("SwapTotal")?);
    let used = total.saturating_sub(at("MemFree")?);
    let cache = at("Buffers")? + at("Cached")?;
    let swap_used = swap.saturating_sub(at("SwapFree")?);
    Some(format!("{total},{used},{cache},{swap},{swap_used}"))
}

/// Local file systems that can be written: mount point, size and use in KiB, with spaces between them.
fn file_systems(mounts: &str) -> String {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split_whitespace();
        let (Some(device), Some(dir), _, Some(options)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        if !device.starts_with("/dev") || !options.split(',').any(|o| o == "rw") {
            continue;
        }
        if let Ok(usage) = file_system::usage(dir) {
            found.push(format!("{dir},{},{}", usage.total_kib, usage.used_kib));
        }
    }
    found.join(" ")
}

/// Names and numbers of the processes that have a pidfile in `dir`.
fn pidfiles(dir: &Path) -> Vec<(String, u32)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let one = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".pid")?;
        // Not by hand: to close our own would give its lock up.
        let pid = pidfile::read(path, false).ok()?;
        Some((name.to_owned(), u32::try_from(pid).ok()?))
    };
    entries.flatten().filter_map(|e| one(&e.path())).collect()
}

/// What `/proc/PID/stat` tells.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    cpu_time_ms: u64,
    /// After the machine's start.
    started_ms: u64,
    core: u64,
}

/// Reads `/proc/PID/stat`. The name, second, may have spaces and parentheses of its own.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    // The first of these is the third of proc(5).
    let at = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(at(4)?).ok()?,
        cpu_time_ms: at(14)?.checked_add(at(15)?)?.checked_mul(TICK_MS)?,
        started_ms: at(22)?.checked_mul(TICK_MS)?,
        core: at(39)?,
    })
}

/// How often process `pid` crashed, if `title` is that of its monitor.
fn crashes(title: &str, pid: u32) -> Option<u32> {
    let rest = title.split_once("monitoring pid ")?.1;
    let (watched, rest) = rest.split_once(' ')?;
    if watched.parse() != Ok(pid) {
        return None;
    }
    let count = rest.strip_prefix('(').and_then(|r| r.split_whitespace().next());
    Some(count.and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// Virtual and resident size in KiB; time of processor, ms; crashes; ms since it was first started, and since it was
/// started; the processor that it last ran on.
fn process(pid: u32) -> Option<String> {
    let stat_of = |pid: u32| parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    let up = fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = up.split_whitespace().next()?.split_once('.')?;
    let now_ms = seconds.parse::<u64>().ok()?.checked_mul(1000)? + hundredths.parse::<u64>().ok()? * 10;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let stat = stat_of(pid)?;
    let uptime = now_ms.saturating_sub(stat.started_ms);
    let title = fs::read(format!("/proc/{}/cmdline", stat.parent)).unwrap_or_default();
    let crashed = crashes(&String::from_utf8_lossy(&title), pid);
    let booted = crashed
        .filter(|&n| n > 0)
        .and_then(|_| stat_of(stat.parent))
        .map_or(uptime, |monitor| now_ms.saturating_sub(monitor.started_ms));
    Some(format!(
        "{},{},{},{},{booted},{uptime},{}",
        kib(&status, "VmSize")?,
        kib(&status, "VmRSS")?,
        stat.cpu_time_ms,
        crashed.unwrap_or(0),
        stat.core
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_proc_become_values() {
        assert_eq!(processors("cpu  1 2\ncpu0 1\ncpu1 1\nintr 5\n").as_deref(), Some("2"));
        assert_eq!(processors("intr 5\n"), None);
        assert_eq!(load_average("3.18 3.20 2.11 4/500 77\n").as_deref(), Some("3.18,3.20,2.11"));
        assert_eq!(load_average("3.18 3.20"), None);
        let info = "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 5 kB\nBuffers: 20 kB\nCached: 30 kB\n\
                    SwapCached: 1 kB\nSwapTotal: 50 kB\nSwapFree: 40 kB\n";
        assert_eq!(memory(info).as_deref(), Some("1000,700,50,50,10"));
        assert_eq!(memory("MemTotal: 1000 kB\n"), None);
    }

    #[test]
    fn only_local_file_systems_that_can_be_written_count() {
        let mounts = "proc /proc proc rw 0 0\n/dev/vda / ext4 rw,relatime 0 0\n/dev/vdb / ext4 ro,errors=rw 0 0\n\
                      /dev/vdc /no/such/dir ext4 rw 0 0\nshort\n";
        let text = file_systems(mounts);
        assert_eq!(text.split(' ').count(), 1, "{text}");
        assert!(text.starts_with("/,"), "{text}");
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let mut text = "7 (a) b (c) S 42 7 7 0 -1 0 0 0 0 0 120 30 0 0 20 0 1 0 900 1000000 50".to_owned();
        text.push_str(&" 0".repeat(14));
        text.push_str(" 3 0 0");
        let expected = Stat { parent: 42, cpu_time_ms: 1500, started_ms: 9000, core: 3 };
        assert_eq!(parse_stat(&text), Some(expected));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(crashes("ovs-vswitchd: monitoring pid 7 (healthy)", 7), Some(0));
        assert_eq!(crashes("ovs-vswitchd: monitoring pid 7 (2 crashes: pid 6 died)", 7), Some(2));
        assert_eq!(crashes("ovs-vswitchd: monitoring pid 8 (2 crashes: pid 6 died)", 7), None);
        assert_eq!(crashes("/sbin/init", 7), None);
    }

    #[test]
    fn our_own_process_is_found_and_keeps_its_pidfile() {
        let dir = std::env::temp_dir().join(format!("system-stats-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("me.pid");
        pidfile::create(&path, true).unwrap();
        fs::write(dir.join("stale.pid"), "1\n").unwrap();
        let all = collect(&dir);
        // Whether it is still locked, another process can tell; see /proc/locks.
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        pidfile::remove(&path);
        fs::remove_dir_all(&dir).unwrap();
        let me = all.get("process_me").expect("this process runs");
        assert_eq!(me.split(',').filter(|n| n.parse::<u64>().is_ok()).count(), 7, "{me}");
        assert!(!all.contains_key("process_stale"), "{all:?}");
        assert!(all.contains_key("cpu") && all.contains_key("memory"), "{all:?}");
        let is_locked = |line: &str| line.contains("POSIX") && line.contains(&format!(":{inode} "));
        assert!(locks.is_empty() || locks.lines().any(is_locked), "{locks}");
    }
}
