//! Developer commands, the one script language of the project: `cargo xtask COMMAND`.
//!
//! | command | what it does |
//! |---|---|
//! | `ci` | all that a change must pass: `fmt`, `clippy`, `doc`, `tidy`, `instructions`, `test` |
//! | `tidy` | house rules: layers, module essays, words that must not appear |
//! | `test` | every test; names what is missing on this machine first |
//! | `bench` | builds for release and runs the benches |
//! | `instructions` | counts the instructions of each hot path and holds them against the record |
//! | `fuzz` | runs the fuzz targets for longer than the tests do |
//! | `idl` | writes the typed tables of the switch's schema, or prints those of the schema in a file |
//! | `diff` | compares with the original under random flow tables, from a seed |

use std::process::{Command, ExitCode};

mod instructions;
mod requirements;
mod tidy;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let done = match args.first().map(String::as_str) {
        Some("ci") => ci(),
        Some("tidy") => tidy::run(),
        Some("test") => test(&rest),
        Some("bench") => cargo(&[&["bench", "--workspace", "--"], rest.as_slice()].concat()),
        Some("instructions") => instructions::run(&rest),
        Some("fuzz") => {
            cargo(&[&["run", "--release", "--quiet", "-p", "fuzz", "--"], rest.as_slice()].concat())
        }
        Some("diff") => diff(&rest),
        Some("idl") => idl(&rest),
        _ => Err("usage: cargo xtask ci|tidy|test [CARGO TEST ARGS]|bench|instructions|fuzz|diff|idl [ARGS]"
            .into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), String>;

fn cargo(args: &[&str]) -> Done {
    eprintln!("xtask: cargo {}", args.join(" "));
    let status = Command::new(env!("CARGO")).args(args).status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed ({status})", args.join(" "))) }
}

fn test(args: &[&str]) -> Done {
    requirements::report();
    // Programs first: tests start them.
    cargo(&["build", "--workspace", "--bins"])?;
    cargo(&[&["test", "--workspace", "--no-fail-fast"], args].concat())
}

/// Typed tables. The program that makes them is an example of the crate that they are for.
fn idl(args: &[&str]) -> Done {
    let run = ["run", "--quiet", "-p", "ib-ovsdb", "--example", "tables", "--"];
    if !args.is_empty() {
        return cargo(&[&run[..], args].concat());
    }
    let out = Command::new(env!("CARGO")).args(run).output().map_err(|e| format!("cargo: {e}"))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let path = "crates/ovsdb/src/idl/vswitch.rs";
    std::fs::write(path, out.stdout).map_err(|e| format!("{path}: {e}"))
}

fn diff(args: &[&str]) -> Done {
    // The program under test lies beside the one that compares.
    cargo(&["build", "--workspace", "--bins"])?;
    cargo(&[&["run", "--quiet", "-p", "differ", "--"], args].concat())
}

fn ci() -> Done {
    cargo(&["fmt", "--all", "--check"])?;
    tidy::run()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo_doc()?;
    instructions::run(&[])?;
    test(&[])
}

fn cargo_doc() -> Done {
    eprintln!("xtask: cargo doc");
    let status = Command::new(env!("CARGO"))
        .args(["doc", "--workspace", "--no-deps", "--keep-going", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
        .map_err(|e| format!("cargo doc: {e}"))?;
    if status.success() { Ok(()) } else { Err("cargo doc failed".into()) }
}
