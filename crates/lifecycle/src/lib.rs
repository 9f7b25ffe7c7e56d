//! The next step of a task and of a container: pure decisions that the agent and the engine carry out.

#![forbid(unsafe_code)]

pub mod task;
