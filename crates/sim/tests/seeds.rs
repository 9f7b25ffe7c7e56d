//! A fixed number of seeds without a bug, and equal traces of equal seeds.

use sim::{Options, run};

/// Seeds that `./check` runs.
const SEEDS: u64 = 40;

/// Each test takes a part of them, so that they run side by side.
fn check(part: u64, parts: u64) {
    for seed in (1..=SEEDS).filter(|seed| seed % parts == part) {
        let report = run(Options { seed, bug: None, print: false });
        if let Some(failure) = report.failures.first() {
            let at = failure.at as f64 / 1e6;
            panic!(
                "{:?} at {at:.3} s: {}; again: cargo xtask sim --seed {seed} --trace",
                failure.checker, failure.text
            );
        }
        assert!(report.entries > 10, "seed {seed} did nothing");
    }
}

#[test]
fn seeds_with_an_even_number_find_their_rest() {
    check(0, 2);
}

#[test]
fn seeds_with_an_odd_number_find_their_rest() {
    check(1, 2);
}

#[test]
fn equal_seeds_have_equal_traces() {
    let trace = |seed| run(Options { seed, bug: None, print: false }).trace;
    for seed in [3, 8] {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(3), trace(8));
}
