//! The options that `service create` and `service update` share, and what they do to a spec.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::text::{parse_bytes, parse_duration};

/// What of a service's spec has one value.
#[derive(Debug, Default, Args)]
pub(crate) struct Common {
    /// Number of tasks.
    #[arg(long)]
    pub replicas: Option<u64>,
    /// Maximum number of tasks per node (default 0 = unlimited).
    #[arg(long)]
    pub replicas_max_per_node: Option<u64>,
    /// Working directory inside the container.
    #[arg(short, long)]
    workdir: Option<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>]).
    #[arg(short, long)]
    user: Option<String>,
    /// Container hostname.
    #[arg(long)]
    hostname: Option<String>,
    /// Limit CPUs.
    #[arg(long)]
    limit_cpu: Option<f64>,
    /// Limit memory.
    #[arg(long, value_parser = parse_bytes)]
    limit_memory: Option<i64>,
    /// Limit maximum number of processes (default 0 = unlimited).
    #[arg(long)]
    limit_pids: Option<i64>,
    /// Reserve CPUs.
    #[arg(long)]
    reserve_cpu: Option<f64>,
    /// Reserve memory.
    #[arg(long, value_parser = parse_bytes)]
    reserve_memory: Option<i64>,
    /// Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s).
    #[arg(long, value_parser = parse_duration)]
    stop_grace_period: Option<i64>,
    /// Signal to stop the container.
    #[arg(long)]
    stop_signal: Option<String>,
    /// Restart when condition is met (none, on-failure, any) (default any).
    #[arg(long)]
    restart_condition: Option<String>,
    /// Delay between restart attempts (ns|us|ms|s|m|h) (default 5s).
    #[arg(long, value_parser = parse_duration)]
    restart_delay: Option<i64>,
    /// Maximum number of restarts before giving up.
    #[arg(long)]
    restart_max_attempts: Option<u64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    restart_window: Option<i64>,
    /// Mount the container's root filesystem as read only.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    read_only: Option<bool>,
    /// Use an init inside each service container.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    init: Option<bool>,
    /// Allocate a pseudo-TTY.
    #[arg(short, long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    tty: Option<bool>,
    /// Logging driver for service.
    #[arg(long)]
    log_driver: Option<String>,
    /// Logging driver options.
    #[arg(long)]
    log_opt: Vec<String>,
    /// Endpoint mode (vip or dnsrr) (default vip).
    #[arg(long)]
    endpoint_mode: Option<String>,
    #[command(flatten)]
    health: Health,
    #[command(flatten)]
    updates: Updates,
}

/// Health check options.
#[derive(Debug, Default, Args)]
pub(crate) struct Health {
    /// Command to run to check health.
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy.
    #[arg(long)]
    health_retries: Option<i64>,
    /// Start period for the container to initialize before counting retries towards unstable (ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    health_start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    health_timeout: Option<i64>,
    /// Disable any container-specified HEALTHCHECK.
    #[arg(long)]
    no_healthcheck: bool,
}

/// Update and rollback options.
#[derive(Debug, Default, Args)]
pub(crate) struct Updates {
    /// Delay between updates (ns|us|ms|s|m|h) (default 0s).
    #[arg(long, value_parser = parse_duration)]
    update_delay: Option<i64>,
    /// Action on update failure (pause, continue, rollback) (default pause).
    #[arg(long)]
    update_failure_action: Option<String>,
    /// Failure rate to tolerate during an update (default 0).
    #[arg(long)]
    update_max_failure_ratio: Option<f64>,
    /// Duration after each task update to monitor for failure (ns|us|ms|s|m|h) (default 5s).
    #[arg(long, value_parser = parse_duration)]
    update_monitor: Option<i64>,
    /// Update order (start-first, stop-first) (default stop-first).
    #[arg(long)]
    update_order: Option<String>,
    /// Maximum number of tasks updated simultaneously (0 to update all at once) (default 1).
    #[arg(long)]
    update_parallelism: Option<u64>,
    /// Delay between task rollbacks (ns|us|ms|s|m|h) (default 0s).
    #[arg(long, value_parser = parse_duration)]
    rollback_delay: Option<i64>,
    /// Action on rollback failure (pause, continue) (default pause).
    #[arg(long)]
    rollback_failure_action: Option<String>,
    /// Failure rate to tolerate during a rollback (default 0).
    #[arg(long)]
    rollback_max_failure_ratio: Option<f64>,
    /// Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h) (default 5s).
    #[arg(long, value_parser = parse_duration)]
    rollback_monitor: Option<i64>,
    /// Rollback order (start-first, stop-first) (default stop-first).
    #[arg(long)]
    rollback_order: Option<String>,
    /// Maximum number of tasks rolled back simultaneously (0 to roll back all at once) (default 1).
    #[arg(long)]
    rollback_parallelism: Option<u64>,
}

/// Sets `spec`'s value at a dotted path, making the objects on the way.
pub(crate) fn set(spec: &mut Value, path: &str, value: impl Into<Value>) {
    let mut place = spec;
    for key in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[key];
    }
    *place = value.into();
}

fn put<T: Into<Value> + Clone>(spec: &mut Value, path: &str, value: Option<&T>) {
    if let Some(value) = value {
        set(spec, path, value.clone());
    }
}

fn nano_cpus(cpus: Option<f64>) -> Option<i64> {
    cpus.map(|cpus| (cpus * 1e9).round() as i64)
}

impl Common {
    /// Writes what was given into `spec`.
    pub(crate) fn apply(&self, spec: &mut Value) -> Result<()> {
        const C: &str = "TaskTemplate.ContainerSpec";
        put(spec, "Mode.Replicated.Replicas", self.replicas.as_ref());
        put(spec, "TaskTemplate.Placement.MaxReplicas", self.replicas_max_per_node.as_ref());
        put(spec, &format!("{C}.Dir"), self.workdir.as_ref());
        put(spec, &format!("{C}.User"), self.user.as_ref());
        put(spec, &format!("{C}.Hostname"), self.hostname.as_ref());
        put(spec, &format!("{C}.StopGracePeriod"), self.stop_grace_period.as_ref());
        put(spec, &format!("{C}.StopSignal"), self.stop_signal.as_ref());
        put(spec, &format!("{C}.ReadOnly"), self.read_only.as_ref());
        put(spec, &format!("{C}.Init"), self.init.as_ref());
        put(spec, &format!("{C}.TTY"), self.tty.as_ref());
        put(spec, "TaskTemplate.Resources.Limits.NanoCPUs", nano_cpus(self.limit_cpu).as_ref());
        put(spec, "TaskTemplate.Resources.Limits.MemoryBytes", self.limit_memory.as_ref());
        put(spec, "TaskTemplate.Resources.Limits.Pids", self.limit_pids.as_ref());
        put(spec, "TaskTemplate.Resources.Reservations.NanoCPUs", nano_cpus(self.reserve_cpu).as_ref());
        put(spec, "TaskTemplate.Resources.Reservations.MemoryBytes", self.reserve_memory.as_ref());
        put(spec, "EndpointSpec.Mode", self.endpoint_mode.as_ref());
        self.apply_restart(spec);
        if let Some(driver) = &self.log_driver {
            set(spec, "TaskTemplate.LogDriver", json!({"Name": driver}));
        }
        if !self.log_opt.is_empty() {
            set(spec, "TaskTemplate.LogDriver.Options", crate::json::pairs(&self.log_opt));
        }
        self.health.apply(spec);
        self.updates.apply(spec);
        Ok(())
    }

    fn apply_restart(&self, spec: &mut Value) {
        const R: &str = "TaskTemplate.RestartPolicy";
        let given = self.restart_condition.is_some()
            || self.restart_delay.is_some()
            || self.restart_max_attempts.is_some()
            || self.restart_window.is_some();
        if given && crate::json::at(spec, R).is_null() {
            set(spec, R, json!({"Condition": "any", "Delay": 5_000_000_000i64, "MaxAttempts": 0}));
        }
        put(spec, &format!("{R}.Condition"), self.restart_condition.as_ref());
        put(spec, &format!("{R}.Delay"), self.restart_delay.as_ref());
        put(spec, &format!("{R}.MaxAttempts"), self.restart_max_attempts.as_ref());
        put(spec, &format!("{R}.Window"), self.restart_window.as_ref());
    }
}

impl Health {
    fn apply(&self, spec: &mut Value) {
        const H: &str = "TaskTemplate.ContainerSpec.Healthcheck";
        if self.no_healthcheck {
            set(spec, H, json!({"Test": ["NONE"]}));
            return;
        }
        if let Some(command) = &self.health_cmd {
            set(spec, &format!("{H}.Test"), json!(["CMD-SHELL", command]));
        }
        put(spec, &format!("{H}.Interval"), self.health_interval.as_ref());
        put(spec, &format!("{H}.Timeout"), self.health_timeout.as_ref());
        put(spec, &format!("{H}.StartPeriod"), self.health_start_period.as_ref());
        put(spec, &format!("{H}.Retries"), self.health_retries.as_ref());
    }
}

impl Updates {
    fn apply(&self, spec: &mut Value) {
        let update = UpdateFields {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            action: self.update_failure_action.as_deref(),
            monitor: self.update_monitor,
            ratio: self.update_max_failure_ratio,
            order: self.update_order.as_deref(),
        };
        update.apply(spec, "UpdateConfig");
        let rollback = UpdateFields {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            action: self.rollback_failure_action.as_deref(),
            monitor: self.rollback_monitor,
            ratio: self.rollback_max_failure_ratio,
            order: self.rollback_order.as_deref(),
        };
        rollback.apply(spec, "RollbackConfig");
    }
}

struct UpdateFields<'a> {
    parallelism: Option<u64>,
    delay: Option<i64>,
    action: Option<&'a str>,
    monitor: Option<i64>,
    ratio: Option<f64>,
    order: Option<&'a str>,
}

impl UpdateFields<'_> {
    fn apply(&self, spec: &mut Value, key: &str) {
        let given = self.parallelism.is_some()
            || self.delay.is_some()
            || self.action.is_some()
            || self.monitor.is_some()
            || self.ratio.is_some()
            || self.order.is_some();
        if given && crate::json::at(spec, key).is_null() {
            let defaults = json!({"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000i64,
                "MaxFailureRatio": 0, "Order": "stop-first"});
            set(spec, key, defaults);
        }
        put(spec, &format!("{key}.Parallelism"), self.parallelism.as_ref());
        put(spec, &format!("{key}.Delay"), self.delay.as_ref());
        put(spec, &format!("{key}.FailureAction"), self.action.map(str::to_owned).as_ref());
        put(spec, &format!("{key}.Monitor"), self.monitor.as_ref());
        put(spec, &format!("{key}.MaxFailureRatio"), self.ratio.as_ref());
        put(spec, &format!("{key}.Order"), self.order.map(str::to_owned).as_ref());
    }
}
