//! Runs the simulation: `sim [--seeds N | --seconds S] [--from SEED] [--seed X [--trace]]`. Prints the seed of a failure.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sim::{Bug, Options, run};

const USAGE: &str = "usage: sim [--seeds N | --seconds S] [--from SEED] [--bug NAME] [--keep-going]
       sim --seed X [--trace] [--bug NAME]";

struct Arguments {
    seeds: u64,
    seconds: Option<u64>,
    from: u64,
    one: Option<u64>,
    trace: bool,
    keep_going: bool,
    bug: Option<Bug>,
}

fn parse() -> Option<Arguments> {
    let mut arguments =
        Arguments { seeds: 100, seconds: None, from: 1, one: None, trace: false, keep_going: false, bug: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--seconds" => arguments.seconds = Some(number()?),
            "--from" => arguments.from = number()?,
            "--seed" => arguments.one = Some(number()?),
            "--trace" => arguments.trace = true,
            "--keep-going" => arguments.keep_going = true,
            "--bug" => {
                let name = words.next()?;
                arguments.bug = Some(Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name)?);
            }
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(arguments) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    let seeds = match (arguments.one, limit) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(_)) => arguments.from..u64::MAX,
        (None, None) => arguments.from..arguments.from.saturating_add(arguments.seeds),
    };
    let (mut runs, mut bad) = (0_u64, 0_u64);
    for seed in seeds {
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        let report = run(Options { seed, bug: arguments.bug, print: arguments.trace });
        runs += 1;
        if arguments.one.is_some() {
            let (took, entries) = (report.took / 1_000_000, report.entries);
            println!("seed {seed}: {took} s, {entries} entries, {} acknowledged", report.acknowledged);
        }
        if let Some(failure) = report.failures.first() {
            bad += 1;
            let at = failure.at as f64 / 1e6;
            println!("seed {seed} failed: {:?} at {at:.3} s: {}", failure.checker, failure.text);
            println!("  again: cargo xtask sim --seed {seed} --trace");
            if !arguments.keep_going {
                break;
            }
        }
    }
    let rate = runs as f64 / started.elapsed().as_secs_f64();
    println!("{runs} seeds, {bad} failed, {rate:.1} seeds a second");
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
