//! `cargo xtask fuzz [TARGET] [ROUNDS] [SEED]`: runs one target or all for as long as one likes. A failing input is
//! kept in the target's corpus folder, so that tests run it from then on.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let only = args.first().filter(|a| *a != "all");
    let number = |i: usize, default: u64| args.get(i).and_then(|v| v.parse().ok()).unwrap_or(default);
    let (rounds, seed) = (number(1, 1_000_000), number(2, 1));
    if let Some(name) = only
        && !fuzz::TARGETS.iter().any(|t| t.name == name)
    {
        let names: Vec<&str> = fuzz::TARGETS.iter().map(|t| t.name).collect();
        eprintln!("fuzz: no target {name}; there are: all {}", names.join(" "));
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = false;
    for target in fuzz::TARGETS.iter().filter(|t| only.is_none_or(|n| t.name == n)) {
        match fuzz::run(target, rounds, seed) {
            Ok(()) => println!("{}: {rounds} rounds from seed {seed}: ok", target.name),
            Err((input, why)) => {
                failed = true;
                let dir = fuzz::corpus_dir(target);
                let path = dir.join(format!("crash-{seed}-{}", input.len()));
                let kept = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, &input));
                println!("{}: {why}", target.name);
                match kept {
                    Ok(()) => println!("  kept as {}", path.display()),
                    Err(e) => println!("  could not be kept as {}: {e}", path.display()),
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
