//! Decides what the swarm does: which tasks there shall be, what they are given, where they run and when they are
//! replaced. Pure: a planner reads a view and what changed, and answers with actions and a deadline. The manager calls
//! [`leader::Leader`], which runs all planners; everything else here is a part of it.
//!
//! | planner | decides | file 04 of the wire facts |
//! |---|---|---|
//! | [`services::Services`] | which tasks there are and shall run: slots, global tasks, jobs, [`restart`], [`updater`] | §3 to §5 |
//! | [`reaper::Reaper`] | which tasks are deleted | §6 |
//! | [`node_down::NodeDown`] | which tasks are given up with their node | §7.2 |
//! | [`enforcer::Enforcer`] | which tasks must leave their node | §8 |
//! | [`scheduler::Scheduler`] | on which node a task runs | §9 |
//! | [`allocator::Allocator`] | ports, subnets, addresses | §10 |
//! | [`rebalance::Rebalance`] | which tasks move to other nodes, by [`moves`] | none: Skep's own, `docs/design/0005` |

#![forbid(unsafe_code)]

pub mod allocator;
pub mod dirty;
pub mod enforcer;
mod global;
mod jobs;
pub mod leader;
mod merge;
pub mod moves;
pub mod node_down;
pub mod plan;
pub mod reaper;
pub mod rebalance;
mod replicated;
pub mod restart;
pub mod scheduler;
pub mod services;
mod slots;
pub mod tasks;
#[cfg(test)]
mod tests;
pub mod updater;

pub use dirty::is_task_dirty;
