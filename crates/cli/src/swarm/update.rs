//! `skep swarm update`, and the options that it shares with `swarm init`.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::token;
use crate::context::Context;
use crate::json::number;
use crate::text::parse_duration;

/// An external CA: `protocol=cfssl,url=https://…[,cacert=path][,option=value…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalCa {
    url: String,
    ca_cert: String,
    options: BTreeMap<String, String>,
}

impl FromStr for ExternalCa {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut ca = Self { url: String::new(), ca_cert: String::new(), options: BTreeMap::new() };
        let mut protocol = None;
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=') else {
                bail!("invalid field '{field}' must be a key=value pair");
            };
            match key.to_ascii_lowercase().as_str() {
                "protocol" if value.eq_ignore_ascii_case("cfssl") => protocol = Some(value),
                "protocol" => bail!("unrecognized external CA protocol {value}"),
                "url" => value.clone_into(&mut ca.url),
                "cacert" => {
                    let read = std::fs::read_to_string(value);
                    ca.ca_cert = read.with_context(|| format!("unable to read CA cert for external CA: {value}"))?;
                }
                _ => drop(ca.options.insert(key.to_owned(), value.to_owned())),
            }
        }
        if protocol.is_none() {
            bail!("the external-ca option needs a protocol= parameter");
        }
        if ca.url.is_empty() {
            bail!("the external-ca option needs a url= parameter");
        }
        Ok(ca)
    }
}

impl ExternalCa {
    /// As the API takes it.
    pub(crate) fn to_json(&self) -> Value {
        json!({"Protocol": "cfssl", "URL": self.url, "Options": self.options, "CACert": self.ca_cert})
    }
}

/// What of the cluster's spec can be set.
#[derive(Debug, Args)]
pub(crate) struct SpecOptions {
    /// Validity period for node certificates (ns|us|ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    cert_expiry: Option<i64>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    dispatcher_heartbeat: Option<i64>,
    /// Specifications of one or more certificate signing endpoints.
    #[arg(long)]
    external_ca: Vec<ExternalCa>,
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
        if !self.external_ca.is_empty() {
            set("CAConfig", "ExternalCAs", self.external_ca.iter().map(ExternalCa::to_json).collect());
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

#[cfg(test)]
mod tests {
    use super::ExternalCa;

    #[test]
    fn external_cas_are_read_as_docker_reads_them() {
        let ca: ExternalCa = "protocol=cfssl,url=https://ca.example/sign,profile=x".parse().unwrap();
        assert_eq!(
            ca.to_json(),
            serde_json::json!({"Protocol": "cfssl", "URL": "https://ca.example/sign", "Options": {"profile": "x"}, "CACert": ""})
        );
        for (text, expected) in [
            ("url=x", "the external-ca option needs a protocol= parameter"),
            ("protocol=cfssl", "the external-ca option needs a url= parameter"),
            ("protocol=other,url=x", "unrecognized external CA protocol other"),
            ("nonsense", "invalid field 'nonsense' must be a key=value pair"),
        ] {
            assert_eq!(text.parse::<ExternalCa>().unwrap_err().to_string(), expected);
        }
    }
}
