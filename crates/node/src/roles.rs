//! When a node starts and stops its manager. Pure: events and the time in, actions and a deadline out.
//!
//! ```text
//!           certificate says manager                 started
//!  Worker ───────────────────────────► Starting ───────────────► Manager
//!    ▲                                  ▲  │ failed                │   │ removed from the raft group
//!    │ certificate says worker          │  ▼                       │   ▼
//!    ├──────────────────────────────────┤ Retry (back-off)         │ Removed ──16 s──► renewal ──16 s──► Starting
//!    └──────────────────────────────────┴──────────────────────────┴───┘
//! ```
//!
//! Invariants: a manager's raft state is wiped exactly when it stops for good (demoted, or removed from the group), never
//! when it failed; a removed manager comes back only if its certificate still says manager after a forced renewal, since
//! a node that was demoted may learn of its removal first.

use std::time::{Duration, Instant};

use model::NodeRole;

/// How long a removed manager waits for its new role, and then for the answer to a forced renewal. SwarmKit's.
const ROLE_CHANGE_TIMEOUT: Duration = Duration::from_secs(16);
/// First pause after a manager failed; doubles up to [`MAX_PAUSE`]. dockerd's.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between tries to start a manager: each reads the whole log.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A manager that ran for so long was well. One that starts and breaks at once, say over what its log holds or a full disk,
/// is tried at longer and longer intervals like one that does not start.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleEvent {
    /// The node's certificate gives it this role.
    Certificate(NodeRole),
    /// The manager runs.
    Started,
    /// The manager could not start, or broke.
    Failed,
    /// The manager was removed from the raft group.
    Removed,
    /// The deadline has passed.
    Deadline,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleAction {
    /// Start the manager: it joins the group if it has no log.
    Start,
    /// Stop the manager and keep its log.
    Stop,
    /// Stop the manager and forget its log.
    StopAndWipe,
    /// Ask for a certificate at once.
    Renew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Worker,
    Starting,
    /// Since then.
    Manager(Instant),
    Retry(Instant),
    /// Waits for the new role until then; whether a renewal was asked for already.
    Removed(Instant, Renewal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    ToCome,
    Asked,
}

/// The state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleMachine {
    phase: Phase,
    role: NodeRole,
    pause: Duration,
}

impl RoleMachine {
    /// A node whose manager does not run yet.
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Worker, role: NodeRole::Worker, pause: FIRST_PAUSE }
    }

    /// When [`RoleEvent::Deadline`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Retry(at) | Phase::Removed(at, _) => Some(at),
            Phase::Worker | Phase::Starting | Phase::Manager(_) => None,
        }
    }

    /// Takes an event.
    pub(crate) fn on(&mut self, event: RoleEvent, now: Instant) -> Option<RoleAction> {
        match event {
            RoleEvent::Certificate(role) => {
                self.role = role;
                self.on_role()
            }
            RoleEvent::Started => self.on_started(now),
            RoleEvent::Failed => self.on_failed(now),
            RoleEvent::Removed => self.on_removed(now),
            RoleEvent::Deadline => self.on_deadline(now),
        }
    }

    fn on_role(&mut self) -> Option<RoleAction> {
        match (self.role, self.phase) {
            (NodeRole::Manager, Phase::Worker) => {
                self.phase = Phase::Starting;
                Some(RoleAction::Start)
            }
            (NodeRole::Worker, Phase::Worker) => None,
            (NodeRole::Worker, _) => {
                self.phase = Phase::Worker;
                self.pause = FIRST_PAUSE;
                Some(RoleAction::StopAndWipe)
            }
            // Still a manager: a removed one waits, since this certificate may be older than its removal.
            (NodeRole::Manager, _) => None,
        }
    }

    fn on_started(&mut self, now: Instant) -> Option<RoleAction> {
        if self.phase == Phase::Starting {
            self.phase = Phase::Manager(now);
        }
        None
    }

    fn on_failed(&mut self, now: Instant) -> Option<RoleAction> {
        match self.phase {
            Phase::Starting => {}
            Phase::Manager(since) if now >= since + WELL_AFTER => self.pause = FIRST_PAUSE,
            Phase::Manager(_) => {}
            Phase::Worker | Phase::Retry(_) | Phase::Removed(..) => return None,
        }
        self.phase = Phase::Retry(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Some(RoleAction::Stop)
    }

    fn on_removed(&mut self, now: Instant) -> Option<RoleAction> {
        if !matches!(self.phase, Phase::Starting | Phase::Manager(_) | Phase::Retry(_)) {
            return None;
        }
        self.phase = Phase::Removed(now + ROLE_CHANGE_TIMEOUT, Renewal::ToCome);
        Some(RoleAction::StopAndWipe)
    }

    fn on_deadline(&mut self, now: Instant) -> Option<RoleAction> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.phase {
            Phase::Removed(_, Renewal::ToCome) => {
                self.phase = Phase::Removed(now + ROLE_CHANGE_TIMEOUT, Renewal::Asked);
                Some(RoleAction::Renew)
            }
            _ => {
                self.phase = Phase::Starting;
                Some(RoleAction::Start)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        machine: RoleMachine,
        now: Instant,
    }

    impl Case {
        fn new() -> Self {
            Self { machine: RoleMachine::new(), now: Instant::now() }
        }

        fn manager() -> Self {
            let mut case = Self::new();
            assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Manager)), Some(RoleAction::Start));
            assert_eq!(case.on(RoleEvent::Started), None);
            case
        }

        fn on(&mut self, event: RoleEvent) -> Option<RoleAction> {
            self.machine.on(event, self.now)
        }

        /// How long until the deadline, which then passes.
        fn wait(&mut self) -> (Duration, Option<RoleAction>) {
            let deadline = self.machine.deadline().expect("a deadline");
            let waited = deadline - self.now;
            assert_eq!(self.machine.on(RoleEvent::Deadline, deadline - Duration::from_nanos(1)), None, "too early");
            self.now = deadline;
            (waited, self.on(RoleEvent::Deadline))
        }
    }

    #[test]
    fn promotion_starts_and_demotion_wipes() {
        let mut case = Case::new();
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Worker)), None);
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Manager)), Some(RoleAction::Start));
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Manager)), None, "a renewal changes nothing");
        assert_eq!(case.on(RoleEvent::Started), None);
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Worker)), Some(RoleAction::StopAndWipe));
        assert_eq!(case.on(RoleEvent::Removed), None, "it is none any more");
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Manager)), Some(RoleAction::Start));
    }

    #[test]
    fn a_removed_manager_waits_for_its_role_before_it_comes_back() {
        let mut case = Case::manager();
        assert_eq!(case.on(RoleEvent::Removed), Some(RoleAction::StopAndWipe));
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Manager)), None, "an old certificate proves nothing");
        assert_eq!(case.wait(), (ROLE_CHANGE_TIMEOUT, Some(RoleAction::Renew)));
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Manager)), None);
        assert_eq!(case.wait(), (ROLE_CHANGE_TIMEOUT, Some(RoleAction::Start)));
        let mut case = Case::manager();
        case.on(RoleEvent::Removed);
        assert_eq!(case.on(RoleEvent::Certificate(NodeRole::Worker)), Some(RoleAction::StopAndWipe));
        assert_eq!(case.machine.deadline(), None);
    }

    #[test]
    fn a_manager_that_fails_is_tried_again_with_its_log() {
        let mut case = Case::new();
        case.on(RoleEvent::Certificate(NodeRole::Manager));
        let mut pauses = Vec::new();
        for started in 0..11 {
            // Whether it starts and breaks or does not start.
            if started % 2 == 0 {
                assert_eq!(case.on(RoleEvent::Started), None);
            }
            assert_eq!(case.on(RoleEvent::Failed), Some(RoleAction::Stop));
            let (pause, action) = case.wait();
            assert_eq!(action, Some(RoleAction::Start));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000]);
        case.on(RoleEvent::Started);
        case.now += WELL_AFTER - Duration::from_nanos(1);
        case.on(RoleEvent::Failed);
        assert_eq!(case.wait().0, MAX_PAUSE);
        case.on(RoleEvent::Started);
        case.now += WELL_AFTER;
        case.on(RoleEvent::Failed);
        assert_eq!(case.wait().0, FIRST_PAUSE, "it was well, which forgets the failures");
    }
}
