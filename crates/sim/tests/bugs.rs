//! Each bug is put in, and a checker must find it within a few seeds.

use sim::{Bug, Options, run};

/// Seeds until a bug must be found.
const SEEDS: u64 = 40;

fn check(bug: Bug) {
    for seed in 1..=SEEDS {
        let report = run(Options { seed, bug: Some(bug), print: false });
        if let Some(failure) = report.failures.first() {
            println!("{bug:?}: seed {seed}, {:?}: {}", failure.checker, failure.text);
            return;
        }
    }
    panic!("{bug:?} was not found within {SEEDS} seeds");
}

#[test]
fn all() {
    Bug::ALL.into_iter().for_each(check);
}
