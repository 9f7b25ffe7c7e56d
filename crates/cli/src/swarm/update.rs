//! `skep swarm update`, and the options that it shares with `swarm init`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::token;
use crate::context::Context;
use crate::json::number;
use crate::text::parse_duration;

/// What of the cluster's spec can be set.
#[derive(Debug, Args)]
pub(crate) struct SpecOptions {
    /// Validity period for node certificates (ns|us|ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    cert_expiry: Option<i64>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    dispatcher_heartbeat: Option<i64>,
    /// Number of additional Raft snapshots to retain.
    #[arg(long)]
    max_snapshots: Option<u64>,
    /// Number of log entries between Raft snapshots.
    #[arg(long)]
    snapshot_interval: Option<u64>,
    /// Task history retention limit.
    #[arg(long)]
    task_history_limit: Option<i64>,
}

impl SpecOptions {
    /// Writes what was given into a spec.
    pub(crate) fn apply(&self, spec: &mut Value) -> Result<()> {
        let mut set = |section: &str, key: &str, value: Value| spec[section][key] = value;
        if let Some(expiry) = self.cert_expiry {
            set("CAConfig", "NodeCertExpiry", json!(expiry));
        }
        if let Some(period) = self.dispatcher_heartbeat {
            set("Dispatcher", "HeartbeatPeriod", json!(period));
        }
        if let Some(count) = self.max_snapshots {
            set("Raft", "KeepOldSnapshots", json!(count));
        }
        if let Some(count) = self.snapshot_interval {
            set("Raft", "SnapshotInterval", json!(count));
        }
        if let Some(limit) = self.task_history_limit {
            set("Orchestration", "TaskHistoryRetentionLimit", json!(limit));
        }
        Ok(())
    }
}

/// Options of `swarm update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Change manager autolocking setting (true|false).
    #[arg(long)]
    autolock: Option<bool>,
    /// Add or change a label of the cluster (key=value).
    #[arg(long)]
    label_add: Vec<String>,
    /// Remove a label of the cluster.
    #[arg(long)]
    label_rm: Vec<String>,
    #[command(flatten)]
    spec: SpecOptions,
}

impl Update {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let swarm: Value = context.client.get("/swarm").await?;
        let mut spec = swarm.get("Spec").cloned().unwrap_or_default();
        self.spec.apply(&mut spec)?;
        if let Some(locked) = self.autolock {
            spec["EncryptionConfig"]["AutoLockManagers"] = json!(locked);
        }
        if !spec["Labels"].is_object() {
            spec["Labels"] = json!({});
        }
        for label in &self.label_add {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            spec["Labels"][key] = json!(value);
        }
        if let Some(labels) = spec["Labels"].as_object_mut() {
            labels.retain(|key, _| !self.label_rm.contains(key));
        }
        let path = format!("/swarm/update?version={}", number(&swarm, "Version.Index"));
        context.client.post(&path, Some(&spec)).await?;
        println!("Swarm updated.");
        if self.autolock == Some(true) {
            let key: Value = context.client.get("/swarm/unlockkey").await?;
            token::print_unlock_key(&key);
        }
        Ok(())
    }
}
