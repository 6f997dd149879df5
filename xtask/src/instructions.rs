//! `cargo xtask instructions`: what each hot path costs, in executed instructions an operation.
//!
//! The figures do not depend on what else a machine does, so CI can hold them: each path of `benches/` has a line in
//! `benches/instructions.txt`, and a path that costs more than a tenth above its line fails. `--bless` writes the lines anew. The
//! count comes from valgrind, of two runs whose difference leaves start-up out; without valgrind the check is skipped, and says so.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::{Command, Stdio};

const BUDGETS: &str = "benches/instructions.txt";
/// Operations of the short run and of the long one.
const RUNS: [u64; 2] = [2_000, 12_000];
/// What a path may cost above its line, in percent.
const TOLERANCE: u64 = 10;

/// Measures every path and compares, or with `--bless` records.
pub fn run(args: &[&str]) -> Result<(), String> {
    let bless = match args {
        [] => false,
        ["--bless"] => true,
        _ => return Err("usage: cargo xtask instructions [--bless]".into()),
    };
    if !Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success()) {
        eprintln!(
            "xtask: valgrind is missing: instructions are not counted; to have it: apt-get install valgrind"
        );
        return Ok(());
    }
    super::cargo(&["build", "--release", "--quiet", "-p", "benches"])?;
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let program = format!("{target}/release/hot-paths");
    let list = output(Command::new(&program))?.0;
    let budgets = parse(&fs::read_to_string(BUDGETS).unwrap_or_default())?;
    let (mut record, mut over) = (String::new(), Vec::new());
    for path in list.lines() {
        let cost = measure(&program, path)?;
        let budget = budgets.get(path).copied();
        let shown = budget.map_or_else(|| "none".into(), |b| b.to_string());
        println!("{path:30} {cost:8} instructions an operation, recorded {shown}");
        // Writing to a String cannot fail.
        let _ = writeln!(record, "{path} {cost}");
        match budget {
            Some(budget) if cost * 100 > budget * (100 + TOLERANCE) => {
                over.push(format!("{path} costs {cost}, recorded are {budget}"));
            }
            None if !bless => over.push(format!("{path} has no line in {BUDGETS}")),
            _ => {}
        }
    }
    if bless {
        return fs::write(BUDGETS, record).map_err(|e| format!("{BUDGETS}: {e}"));
    }
    if over.is_empty() {
        Ok(())
    } else {
        Err(format!("{}; mend it, or record it on purpose with --bless", over.join("; ")))
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let line =
        |l: &str| Some(l.split_once(' ')?).and_then(|(path, n)| Some((path.to_owned(), n.parse().ok()?)));
    text.lines().map(|l| line(l).ok_or_else(|| format!("{BUDGETS}: not a path and a number: {l}"))).collect()
}

/// Instructions an operation.
fn measure(program: &str, path: &str) -> Result<u64, String> {
    let mut totals = [(0, 0); 2];
    for (total, n) in totals.iter_mut().zip(RUNS) {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
        valgrind.args([program, path, &n.to_string()]);
        let (out, err) = output(valgrind)?;
        let operations: u64 = out.trim().parse().map_err(|e| format!("{path}: {out:?}: {e}"))?;
        let refs = err.lines().find_map(|l| l.split_once("I refs:").or_else(|| l.split_once("I   refs:")));
        let refs = refs.ok_or_else(|| format!("{path}: valgrind said no count: {err}"))?.1;
        *total =
            (refs.trim().replace(',', "").parse().map_err(|e| format!("{path}: {refs}: {e}"))?, operations);
    }
    let [(short, few), (long, many)] = totals;
    if many <= few {
        return Err(format!("{path}: {many} operations done where {} were asked for", RUNS[1]));
    }
    Ok((long - short) / (many - few))
}

fn output(mut command: Command) -> Result<(String, String), String> {
    let done = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (out, err) = (text(done.stdout), text(done.stderr));
    if done.status.success() { Ok((out, err)) } else { Err(format!("{command:?}: {}: {err}", done.status)) }
}
