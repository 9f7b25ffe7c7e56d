//! The agent's state machine of a task: one step a turn, from what is desired and what was seen to what to do next.
//!
//! ```text
//!  assigned ─Accept─► accepted ─BeginPrepare─► preparing ─Prepare─► ready ─BeginStart─► starting ─Start─► running
//!                                                  │                                       │               │ Wait
//!                                          fatal ──┴─► rejected                    fatal ──┴─► failed ◄────┤
//!                                                                                                          └─► complete
//!  desired shutdown or remove, at any state before complete: ─Shutdown─► shutdown
//! ```
//!
//! Invariant: [`after_step`] never moves a task back.

use model::{TaskState, TaskStatus, Timestamp};

/// What to do with a task now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the assignment.
    Accept,
    /// Say that preparing begins.
    BeginPrepare,
    /// Image, network, container.
    Prepare,
    /// Say that starting begins.
    BeginStart,
    /// Start, and wait until healthy.
    Start,
    /// Wait for the end.
    Wait,
    /// Stop it.
    Shutdown,
    /// Nothing until the task changes.
    Nothing,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It failed and is worth another try.
    Temporary(String),
    /// It failed for good.
    Fatal(String),
}

/// The next step of a task in `observed` that should be in `desired`.
pub fn next_step(desired: TaskState, observed: TaskState) -> Step {
    if desired >= TaskState::Shutdown {
        return if observed < TaskState::Complete { Step::Shutdown } else { Step::Nothing };
    }
    if observed > desired {
        return Step::Nothing;
    }
    match observed {
        TaskState::New | TaskState::Pending | TaskState::Assigned => Step::Accept,
        TaskState::Accepted => Step::BeginPrepare,
        TaskState::Preparing => Step::Prepare,
        TaskState::Ready if desired > TaskState::Ready => Step::BeginStart,
        TaskState::Starting => Step::Start,
        TaskState::Running => Step::Wait,
        _ => Step::Nothing,
    }
}

/// The status after `step` came to `outcome`. Container and port statuses are kept; the agent fills them.
pub fn after_step(step: Step, status: &TaskStatus, outcome: Outcome, now: Timestamp) -> TaskStatus {
    let moved = |state: TaskState, message: &str, err: String| TaskStatus {
        state: state.max(status.state),
        message: message.to_owned(),
        err,
        timestamp: Some(now),
        ..status.clone()
    };
    match outcome {
        // A temporary error leaves the state where it is and shows the text.
        Outcome::Temporary(err) => TaskStatus { err, ..status.clone() },
        Outcome::Done => match step {
            Step::Accept => moved(TaskState::Accepted, "accepted", String::new()),
            Step::BeginPrepare => moved(TaskState::Preparing, "preparing", String::new()),
            Step::Prepare => moved(TaskState::Ready, "prepared", String::new()),
            Step::BeginStart => moved(TaskState::Starting, "starting", String::new()),
            Step::Start => moved(TaskState::Running, "started", String::new()),
            Step::Wait => moved(TaskState::Complete, "finished", String::new()),
            Step::Shutdown => moved(TaskState::Shutdown, "shutdown", String::new()),
            Step::Nothing => status.clone(),
        },
        Outcome::Fatal(err) => {
            let state = if status.state < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed };
            moved(state, &status.message, err)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TaskState::*;

    #[test]
    fn steps_follow_the_table() {
        let check =
            |desired, observed, step| assert_eq!(next_step(desired, observed), step, "{desired:?} {observed:?}");
        check(Running, Assigned, Step::Accept);
        check(Running, Accepted, Step::BeginPrepare);
        check(Running, Preparing, Step::Prepare);
        check(Ready, Ready, Step::Nothing);
        check(Running, Ready, Step::BeginStart);
        check(Complete, Ready, Step::BeginStart);
        check(Running, Starting, Step::Start);
        check(Running, Running, Step::Wait);
        check(Running, Failed, Step::Nothing);
        check(Shutdown, Running, Step::Shutdown);
        check(Remove, Accepted, Step::Shutdown);
        check(Shutdown, Complete, Step::Nothing);
        check(Ready, Running, Step::Nothing);
    }

    #[test]
    fn errors_reject_before_starting_and_fail_after() {
        let now = Timestamp::default();
        let at = |state| TaskStatus { state, message: "m".into(), ..TaskStatus::default() };
        let fatal = || Outcome::Fatal("boom".into());
        let rejected = after_step(Step::Prepare, &at(Preparing), fatal(), now);
        assert_eq!((rejected.state, rejected.err.as_str()), (Rejected, "boom"));
        assert_eq!(after_step(Step::Wait, &at(Running), fatal(), now).state, Failed);
        let again = after_step(Step::Prepare, &at(Preparing), Outcome::Temporary("later".into()), now);
        assert_eq!((again.state, again.err.as_str()), (Preparing, "later"));
        let done = after_step(Step::Prepare, &again, Outcome::Done, now);
        assert_eq!((done.state, done.err.as_str(), done.message.as_str()), (Ready, "", "prepared"));
    }
}
