//! House rules as failing checks.
//!
//! *Layers*: `LAYERS` lists the crates as the design's table does, packet first. A crate may depend only on
//! crates above it. *Modules*: each source file opens with an essay (`//!`). *Words*: no unfinished work left in
//! comments, no path of somebody's machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ib_base::json::Json;

/// Crates in order of imports: each may use those before it.
const LAYERS: &[&str] = &[
    "ib-base",
    "ib-rcu",
    "ib-sys",
    "ib-packet",
    "ib-flow",
    "ib-classifier",
    "ib-dpif",
    "ib-openflow",
    "ib-ovsdb",
    "ib-stream",
    "ib-vhost",
    "ib-netdev",
    "ib-accel",
    "ib-conntrack",
    "ib-tunnel",
    "ib-l2",
    "ib-export",
    "ib-dp-userspace",
    "ib-dp-kernel",
    "ib-ofproto",
    "ib-bridge",
    "ib-tools",
    "ironbridge",
    "benches",
    "fuzz",
    "differ",
    "xtask",
];

/// Crates that may contain `unsafe`.
const UNSAFE_ALLOWED: &[&str] = &[
    "crates/rcu",
    "crates/sys",
    "crates/packet",
    // A counting allocator cannot be written without.
    "crates/dp-userspace/tests/allocation.rs",
];

/// Runs every rule and reports all violations at once.
pub fn run() -> Result<(), String> {
    let mut problems = layers()?;
    let mut files = Vec::new();
    for root in ["crates", "xtask", "fuzz", "differ", "benches"] {
        collect(Path::new(root), &mut files);
    }
    for file in &files {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        problems.extend(source_rules(file, &text));
    }
    if problems.is_empty() {
        return Ok(());
    }
    for p in &problems {
        eprintln!("tidy: {p}");
    }
    Err(format!("{} house rules broken", problems.len()))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target" && n != "corpus") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn source_rules(path: &Path, text: &str) -> Vec<String> {
    let name = path.display();
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push(format!("{name}: opens without an essay (//!)"));
    }
    // Spelled in two halves so that this file passes its own rule.
    for word in [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
    ] {
        if let Some(line) = text.lines().position(|l| l.contains(word)) {
            problems.push(format!("{name}:{}: contains \"{word}\"", line + 1));
        }
    }
    let crate_allows = UNSAFE_ALLOWED.iter().any(|c| path.starts_with(c));
    if text.contains("allow(unsafe_code)") && !crate_allows && !path.starts_with("xtask") {
        problems.push(format!("{name}: unsafe is not for this crate"));
    }
    problems
}

fn layers() -> Result<Vec<String>, String> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let meta = Json::parse(text.trim()).map_err(|e| format!("cargo metadata: {e}"))?;
    let rank = |name: &str| LAYERS.iter().position(|l| *l == name);
    let array =
        |j: &Json, key: &str| j.get(key).and_then(Json::as_array).map(<[Json]>::to_vec).unwrap_or_default();
    let string = |j: &Json, key: &str| j.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    let mut problems = Vec::new();
    for package in array(&meta, "packages") {
        let name = string(&package, "name");
        let Some(own) = rank(&name) else {
            problems.push(format!("crate {name} has no place in LAYERS (xtask/src/tidy.rs)"));
            continue;
        };
        for dep in array(&package, "dependencies") {
            let dep_name = string(&dep, "name");
            let dev_only = dep.get("kind").and_then(Json::as_str) == Some("dev");
            if !dev_only && rank(&dep_name).is_some_and(|r| r >= own) {
                problems.push(format!("crate {name} imports {dep_name}, which lies below it"));
            }
        }
    }
    Ok(problems)
}
