//! A fixed set of scripts and seeds against Debian's Open vSwitch. `cargo xtask diff` goes on from there by hand.

use std::path::{Path, PathBuf};

use differ::World;

/// Seeds that are compared each time.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

/// Seeds of databases that are compared each time.
const DATABASE_SEEDS: std::ops::RangeInclusive<u64> = 1..=10;

/// Seeds of sessions that are compared each time.
const SESSION_SEEDS: std::ops::RangeInclusive<u64> = 1..=15;

/// Both worlds; else prints why the test is skipped.
fn worlds() -> Option<(World, World)> {
    // Tests lie in `deps`, programs beside it.
    let me = std::env::current_exe().expect("a test has a path");
    let binary: PathBuf = me.parent()?.parent()?.join("ironbridge");
    if !binary.exists() {
        println!("skipped: needs {} (cargo build --workspace --bins)", binary.display());
        return None;
    }
    let theirs = match differ::debian() {
        Ok(world) => world,
        Err(e) => {
            println!("skipped: {e}");
            return None;
        }
    };
    let ours = differ::ours(&binary).unwrap_or_else(|e| panic!("our daemons: {e}"));
    Some((theirs, ours))
}

#[test]
fn scripts_print_the_same_on_both() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(scripts).unwrap().flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut report = String::new();
    for path in paths {
        let Some((theirs, ours)) = worlds() else { return };
        let text = std::fs::read_to_string(&path).unwrap();
        for d in differ::script::run(&theirs, &ours, &text) {
            report.push_str(&format!("{}: {d}\n", path.display()));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn random_tables_translate_the_same_on_both() {
    let Some((theirs, ours)) = worlds() else { return };
    differ::random::set_up(&theirs).unwrap();
    differ::random::set_up(&ours).unwrap();
    let mut report = String::new();
    for seed in SEEDS {
        let case = differ::random::Case::generate(seed);
        match differ::random::compare(&theirs, &ours, &case) {
            Ok(None) => {}
            Ok(Some(small)) => report.push_str(&format!("seed {seed}:\n{small}\n")),
            Err(e) => report.push_str(&format!("seed {seed}: {e}\n")),
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn random_databases_answer_the_same_on_both() {
    let Some((theirs, ours)) = worlds() else { return };
    let mut report = String::new();
    for seed in DATABASE_SEEDS {
        match differ::ovsdb::compare(&theirs, &ours, &differ::ovsdb::Case::generate(seed)) {
            Ok(None) => {}
            Ok(Some(small)) => report.push_str(&format!("seed {seed}:\n{small}\n")),
            Err(e) => report.push_str(&format!("seed {seed}: {e}\n")),
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn random_sessions_are_told_the_same_on_both() {
    let Some((theirs, ours)) = worlds() else { return };
    let mut report = String::new();
    for seed in SESSION_SEEDS {
        match differ::sessions::compare(&theirs, &ours, &differ::sessions::Case::generate(seed)) {
            Ok(None) => {}
            Ok(Some(small)) => report.push_str(&format!("seed {seed}:\n{small}\n")),
            Err(e) => report.push_str(&format!("seed {seed}: {e}\n")),
        }
    }
    assert!(report.is_empty(), "\n{report}");
}
