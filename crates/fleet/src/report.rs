//! What a run came to.

use std::fmt;

use serde::Serialize;

use crate::Options;

/// What a stage took of the managers.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Stage {
    /// On the wall.
    pub(crate) seconds: f64,
    /// Of their processor time.
    pub(crate) cpu_seconds: f64,
    /// Growth of their memory.
    pub(crate) memory_bytes: i64,
}

/// The figures.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    agents: u32,
    tasks: u32,
    managers: u8,
    /// From the first request for a certificate to the last certificate.
    pub(crate) join: Stage,
    /// From the first connection to the last registered session.
    pub(crate) register: Stage,
    /// Sessions that only beat.
    pub(crate) idle: Stage,
    /// From the first service to the last task that the store shows Running.
    pub(crate) place: Stage,
    /// Sessions after registration.
    pub(crate) sessions_open: u64,
    /// Tasks at the end that the store shows Running.
    pub(crate) tasks_running: u64,
    /// Sessions that broke.
    pub(crate) lost: u64,
    /// Sessions that could not be opened at first.
    pub(crate) refused: u64,
    /// Nodes that are DOWN at the end.
    pub(crate) nodes_down: u64,
    /// Why services could not be created.
    pub(crate) failed: Option<String>,
    /// Why a session was lost or refused at last.
    pub(crate) last_loss: Option<String>,
}

impl Report {
    /// Nothing yet.
    pub(crate) fn of(options: &Options) -> Self {
        Self { agents: options.agents, tasks: options.tasks, managers: options.managers, ..Self::default() }
    }

    /// Whether every agent had one session all the time and every task runs.
    pub(crate) fn is_whole(&self) -> bool {
        self.sessions_open == u64::from(self.agents)
            && self.tasks_running == u64::from(self.tasks)
            && (self.lost, self.refused, self.nodes_down) == (0, 0, 0)
            && self.failed.is_none()
    }
}

fn per(value: f64, count: u32) -> f64 {
    value / f64::from(count.max(1))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agents, tasks, managers, join, register, idle, place, .. } = self;
        writeln!(f, "{managers} managers, {agents} agents, {tasks} tasks")?;
        let stage = |f: &mut fmt::Formatter<'_>, name: &str, stage: &Stage, count: u32, what: &str| {
            let rate = f64::from(count) / stage.seconds.max(1e-9);
            let Stage { seconds, cpu_seconds, memory_bytes } = stage;
            let (cpu, memory) = (per(*cpu_seconds * 1e6, count), per(*memory_bytes as f64, count));
            writeln!(
                f,
                "{name:<9} {seconds:8.2} s {rate:9.0} {what}/s  managers' CPU {cpu_seconds:7.2} s = {cpu:6.0} µs each  \
                 memory {:+7.1} MiB = {memory:+7.0} bytes each",
                *memory_bytes as f64 / f64::from(1 << 20)
            )
        };
        stage(f, "join", join, *agents, "certificates")?;
        stage(f, "register", register, *agents, "sessions")?;
        writeln!(
            f,
            "idle      {:8.2} s  managers' CPU {:.2} % of a core for all sessions",
            idle.seconds,
            100.0 * idle.cpu_seconds / idle.seconds.max(1e-9)
        )?;
        stage(f, "place", place, u32::try_from(self.tasks_running).unwrap_or(0), "tasks")?;
        writeln!(
            f,
            "sessions {} open, {} lost, {} refused; tasks {} running; nodes {} down",
            self.sessions_open, self.lost, self.refused, self.tasks_running, self.nodes_down
        )?;
        for text in [&self.failed, &self.last_loss].into_iter().flatten() {
            writeln!(f, "failed: {text}")?;
        }
        Ok(())
    }
}
