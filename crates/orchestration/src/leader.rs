//! The leader's decisions in one call: runs every planner until none has anything to add, and hands back what to propose.
//!
//! Each planner's actions are done on a speculative view; the resulting events go to all planners, its own included. A
//! service that was created comes out with tasks that are allocated and have a node, in one batch where the limit of a raft
//! entry allows. Called by the manager's writer, on top of everything that is proposed.

use crate::allocator::Allocator;
use crate::enforcer::Enforcer;
use crate::merge::Merged;
use crate::node_down::NodeDown;
use crate::plan::{Plan, Reason};
use crate::reaper::Reaper;
use crate::rebalance::{Hold, Rebalance};
use crate::scheduler::Scheduler;
use crate::services::Services;
use model::{Duration, ServiceId, Timestamp};
use std::collections::BTreeMap;
use stdx::Rng;
use store::{Action, Event, View};

/// Most actions of a batch: SwarmKit's limit of a raft entry.
pub const BATCH_LIMIT: usize = 200;
/// How often all planners are run in a step at most; the rest follows in the next step.
pub const ROUND_LIMIT: usize = 64;
/// How long after such a step the next one is due.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How many planners there are.
const PLANNERS: usize = 7;
/// The one that is asked only when the others rest.
const LAST: usize = PLANNERS - 1;

/// What a step wants done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaderPlan {
    /// To be proposed in this order: at most [`BATCH_LIMIT`] actions each, each object in one action only.
    pub batches: Vec<Vec<Action>>,
    /// When the leader must be called again even if nothing changes. In the past: at once.
    pub deadline: Option<Timestamp>,
    /// What waits, and for what; told when the reason is new.
    pub reasons: Vec<Reason>,
    /// The planners had not come to rest after [`ROUND_LIMIT`] rounds. This is a bug, to be logged.
    pub rounds_exceeded: bool,
}

/// All planners.
#[derive(Clone, Debug)]
pub struct Leader {
    node_down: NodeDown,
    enforcer: Enforcer,
    services: Services,
    allocator: Allocator,
    scheduler: Scheduler,
    reaper: Reaper,
    rebalance: Rebalance,
}

impl Leader {
    /// One for an empty swarm. `seed` must be drawn anew from the system's randomness for every leader: identifiers of
    /// tasks are made from it.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            node_down: NodeDown::default(),
            enforcer: Enforcer::default(),
            services: Services::new(rng.next_u64()),
            allocator: Allocator::new(),
            scheduler: Scheduler::new(rng.next_u64()),
            reaper: Reaper::default(),
            rebalance: Rebalance::new(rng.next_u64()),
        }
    }

    /// On becoming leader, or when the actions of a step were not taken: forgets everything and takes every object of
    /// `view` as changed.
    pub fn rebuild(&mut self, view: &View) {
        self.node_down.rebuild(view);
        self.enforcer.rebuild(view);
        self.services.rebuild(view);
        self.allocator.rebuild(view);
        self.scheduler.rebuild(view);
        self.reaper.rebuild(view);
        self.rebalance.rebuild(view);
    }

    /// Decides what to do. `events` are the changes that led to `view` since the last call (or since the view of
    /// [`Self::rebuild`]), in order, including those of the former step's own actions.
    pub fn step(&mut self, view: &View, events: &[Event], now: Timestamp) -> LeaderPlan {
        let mut view = view.clone();
        let mut log: Vec<Event> = events.to_vec();
        let mut seen = [0; PLANNERS];
        let mut deadlines = [None; PLANNERS];
        let mut was_asked = [false; PLANNERS];
        let mut merged = Merged::default();
        let mut result = LeaderPlan::default();
        for round in 0.. {
            let mut rests = true;
            for planner in 0..PLANNERS {
                let is_due = deadlines[planner].is_some_and(|at| at <= now);
                let has_news = !was_asked[planner] || seen[planner] != log.len() || is_due;
                if !has_news || (planner == LAST && !rests) {
                    continue;
                }
                was_asked[planner] = true;
                let plan = self.plan(planner, &view, &log[seen[planner]..], now);
                seen[planner] = log.len();
                deadlines[planner] = plan.deadline;
                result.reasons.extend(plan.reasons);
                rests &= plan.actions.is_empty() && plan.deadline.is_none_or(|at| at > now);
                log.extend(view.apply(&plan.actions).expect("a planner writes what it read from this view"));
                plan.actions.into_iter().for_each(|action| merged.push(action));
            }
            if rests {
                break;
            }
            if round == ROUND_LIMIT {
                result.rounds_exceeded = true;
                deadlines = [Some(now.plus(BACK_OFF)); PLANNERS];
                break;
            }
        }
        // The view shares the objects; stamping a shared object would copy it.
        drop((view, log));
        result.deadline = deadlines.into_iter().flatten().min();
        result.batches = merged.into_batches(BATCH_LIMIT);
        result
    }

    /// The order within a round: who ends tasks, who makes new ones, who gives them what they need, who deletes; and who
    /// moves what is well.
    fn plan(&mut self, planner: usize, view: &View, events: &[Event], now: Timestamp) -> Plan {
        match planner {
            0 => self.node_down.plan(view, events, now),
            1 => self.enforcer.plan(view, events, now),
            2 => self.services.plan(view, events, now),
            3 => self.allocator.plan(view, events, now),
            4 => self.scheduler.plan(view, events, now),
            5 => self.reaper.plan(view, events, now),
            _ => self.rebalance.plan(view, events, now, &mut self.scheduler),
        }
    }

    /// Why services that are to be rebalanced are not moved at present.
    pub fn rebalance_holds(&self) -> &BTreeMap<ServiceId, Hold> {
        self.rebalance.holds()
    }

    /// How many tasks wait for a node.
    pub fn waiting_count(&self) -> usize {
        self.scheduler.waiting_count()
    }
}
