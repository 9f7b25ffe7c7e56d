//! Each bug is put in, and the checker that is named must find it within a few seeds. `docs/design/0007` lists them.

use sim::{Bug, Checker, Options, run};

/// Seeds until a bug must be found.
const SEEDS: u64 = 40;

fn check(bug: Bug, checkers: &[Checker]) {
    for seed in 1..=SEEDS {
        let report = run(Options { seed, bug: Some(bug), print: false });
        if let Some(failure) = report.failures.first() {
            let found = failure.checker;
            assert!(checkers.contains(&found), "{bug:?} was found by {found:?} at seed {seed}: {}", failure.text);
            return;
        }
    }
    panic!("{bug:?} was not found within {SEEDS} seeds");
}

#[test]
fn ack_before_sync() {
    check(Bug::AckBeforeSync, &[Checker::SameStores, Checker::AcknowledgedWrites, Checker::OneLeader, Checker::Disks]);
}

#[test]
fn vote_forgotten() {
    check(Bug::VoteForgotten, &[Checker::OneVote]);
}

#[test]
fn snapshot_without_membership() {
    check(Bug::SnapshotWithoutMembership, &[Checker::Convergence]);
}

#[test]
fn compact_before_snapshot() {
    check(Bug::CompactBeforeSnapshot, &[Checker::Disks]);
}

#[test]
fn key_forgotten() {
    check(Bug::KeyForgotten, &[Checker::Disks]);
}

#[test]
fn stale_read() {
    check(Bug::StaleRead, &[Checker::Reads]);
}

#[test]
fn ack_before_commit() {
    check(Bug::AckBeforeCommit, &[Checker::AcknowledgedWrites]);
}

#[test]
fn speculation_kept() {
    check(Bug::SpeculationKept, &[Checker::Convergence, Checker::FitsStore, Checker::Versions]);
}

#[test]
fn applied_twice() {
    check(Bug::AppliedTwice, &[Checker::FitsStore]);
}

#[test]
fn lost_assignment() {
    check(Bug::LostAssignment, &[Checker::Convergence]);
}

#[test]
fn status_back() {
    check(Bug::StatusBack, &[Checker::TaskStates]);
}

#[test]
fn demoted_still_counted() {
    check(Bug::DemotedStillCounted, &[Checker::Convergence]);
}

#[test]
fn stopped_too_early() {
    check(Bug::StoppedTooEarly, &[Checker::Slots]);
}
