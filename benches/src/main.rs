//! The hot paths, each as a loop of so many operations: `hot-paths PATH N`.
//!
//! Nothing here looks at a clock. `cargo xtask instructions` runs each path twice under valgrind, with different `N`, and divides
//! the difference of executed instructions by the difference of operations: a figure that neither a busy machine nor start-up
//! work disturbs, and that CI holds against `benches/instructions.txt`. Each path prints how many operations it did.

use std::process::ExitCode;

mod connections;
mod control;
mod packets;

/// A path: its name, and the function that does about `n` operations and returns how many they were.
type Path = (&'static str, fn(u64) -> u64);

/// All paths; each has a line in `benches/instructions.txt`.
const PATHS: &[Path] = &[
    ("extract", packets::extract),
    ("forward-1-flow", packets::forward_one),
    ("forward-10k-flows-10-masks", packets::forward_many),
    ("miss", packets::miss),
    ("ct-established", connections::established),
    ("ct-commit", connections::commit),
    ("classifier-lookup", packets::classify),
    ("flow-text", control::flow_text),
    ("flow-mod-decode", control::flow_mod_decode),
    ("flow-mod-apply", control::flow_mod_apply),
    ("json-parse", control::json_parse),
    ("ovsdb-insert", control::ovsdb_insert),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, n] = args.as_slice() else {
        for (name, _) in PATHS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    match (PATHS.iter().find(|(p, _)| p == name), n.parse()) {
        (Some((_, run)), Ok(n)) => {
            println!("{}", run(n));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: hot-paths [PATH N]; without arguments it lists the paths");
            ExitCode::FAILURE
        }
    }
}
