//! Scenarios and properties of the leader as a whole, with a simulated swarm. What a task does is said by its image:
//! `ok` runs, `crash` fails when it starts, `flaky` fails a second after it started, `done` ends well after a second,
//! `reject` fails while it is prepared, `stubborn` never stops.

mod jobs;
mod nodes;
mod properties;
mod reaper;
mod rebalance;
mod rebalance_properties;
mod replicated;
mod restart;
mod sim;
mod updater;
mod whole;
