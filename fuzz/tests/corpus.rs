//! Every target over its corpus and a bounded number of mutations from a fixed seed.

#[test]
fn targets_survive_their_corpus_and_its_neighbourhood() {
    let mut failures = Vec::new();
    for target in fuzz::TARGETS {
        if let Err((input, why)) = fuzz::run(target, 3_000, 42) {
            failures.push(format!("{}: {why}\n  input: {:?}", target.name, String::from_utf8_lossy(&input)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
