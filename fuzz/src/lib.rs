//! Fuzzing: a table of targets and a deterministic mutator.
//!
//! A target is a function over bytes that must return: no panic, no overflow, no unbounded work. Most also
//! check a property, such as that what was printed parses back to the same. [`Mutator`] derives inputs from a corpus
//! by a seed, so that a failure names everything needed to see it again. Inputs that once failed live in
//! `fuzz/corpus/TARGET/` and run first.

mod choices;
mod mutate;
mod targets;

pub use mutate::Mutator;
pub use targets::{TARGETS, Target};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The corpus of a target: seeds that are compiled in, and files.
pub fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs: Vec<Vec<u8>> = target.seeds.iter().map(|s| s.to_vec()).collect();
    inputs.extend((target.made)());
    if let Ok(entries) = std::fs::read_dir(corpus_dir(target)) {
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        inputs.extend(paths.iter().filter_map(|p| std::fs::read(p).ok()));
    }
    inputs
}

/// Where a target's inputs are kept.
pub fn corpus_dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Runs one input. `Err` is the panic's text.
pub fn run_one(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|payload| {
        payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_else(|| "panic".into())
    })
}

/// Runs the corpus, then `rounds` mutations from `seed`.
///
/// Errors: the first failing input and its panic's text.
pub fn run(target: &Target, rounds: u64, seed: u64) -> Result<(), (Vec<u8>, String)> {
    let inputs = corpus(target);
    for input in &inputs {
        run_one(target, input).map_err(|e| (input.clone(), e))?;
    }
    let mut mutator = Mutator::new(inputs, seed);
    for _ in 0..rounds {
        let input = mutator.next_input();
        run_one(target, &input).map_err(|e| (input.clone(), e))?;
    }
    Ok(())
}
