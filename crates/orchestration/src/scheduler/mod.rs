//! Decides on which node a task runs.

pub mod constraint;
