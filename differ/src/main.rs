//! `cargo xtask diff [--ovsdb|--sessions] [--seeds FIRST..LAST] [SCRIPT...]`: compares with Open vSwitch, by scripts, by random tables,
//! random databases or random sessions.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(n) => {
            eprintln!("differ: {n} differences");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("differ: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut seeds = 1..=20;
    let (mut databases, mut sessions) = (false, false);
    let mut scripts = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--ovsdb" {
            databases = true;
        } else if word == "--sessions" {
            sessions = true;
        } else if word == "--seeds" {
            let text = words.next().ok_or("--seeds needs FIRST..LAST")?;
            let (a, b) = text.split_once("..").ok_or("--seeds needs FIRST..LAST")?;
            let number = |s: &str| s.parse::<u64>().map_err(|e| format!("--seeds {text}: {e}"));
            seeds = number(a)?..=number(b)?;
        } else {
            scripts.push(PathBuf::from(word));
        }
    }
    // Beside this program lies the one under test.
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let binary = me.with_file_name("ironbridge");
    let theirs = differ::debian()?;
    let ours = differ::ours(&binary)?;
    let mut found = 0;
    if !scripts.is_empty() {
        for path in &scripts {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            for d in differ::script::run(&theirs, &ours, &text) {
                println!("{d}");
                found += 1;
            }
        }
        return Ok(found);
    }
    if databases {
        for seed in seeds {
            let case = differ::ovsdb::Case::generate(seed);
            if let Some(small) = differ::ovsdb::compare(&theirs, &ours, &case)? {
                found += 1;
                println!("seed {seed}:\n{small}");
            }
        }
        return Ok(found);
    }
    if sessions {
        for seed in seeds {
            let case = differ::sessions::Case::generate(seed);
            if let Some(small) = differ::sessions::compare(&theirs, &ours, &case)? {
                found += 1;
                println!("seed {seed}:\n{small}");
            }
        }
        return Ok(found);
    }
    differ::random::set_up(&theirs)?;
    differ::random::set_up(&ours)?;
    for seed in seeds {
        let case = differ::random::Case::generate(seed);
        if let Some(small) = differ::random::compare(&theirs, &ours, &case)? {
            found += 1;
            println!("seed {seed}:\n{small}");
        }
    }
    Ok(found)
}
