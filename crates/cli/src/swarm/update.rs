//! `skep swarm update`, and the options that it shares with `swarm init`.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::token;
use crate::context::Context;
use crate::json::{at, change_labels, number, text};
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
    /// As the API takes it; without a certificate of its own with `root`.
    pub(crate) fn to_json(&self, root: &str) -> Value {
        let cert = if self.ca_cert.is_empty() { root } else { &self.ca_cert };
        json!({"Protocol": "cfssl", "URL": self.url, "Options": self.options, "CACert": cert})
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
    /// Writes what was given into a spec. `root` is the certificate that an external CA without one signs for.
    pub(crate) fn apply(&self, spec: &mut Value, root: &str) -> Result<()> {
        let mut set = |section: &str, key: &str, value: Value| spec[section][key] = value;
        if let Some(expiry) = self.cert_expiry {
            set("CAConfig", "NodeCertExpiry", json!(expiry));
        }
        if !self.external_ca.is_empty() {
            set("CAConfig", "ExternalCAs", self.external_ca.iter().map(|ca| ca.to_json(root)).collect());
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
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
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
        self.spec.apply(&mut spec, text(&swarm, "TLSInfo.TrustRoot"))?;
        let was_locking = at(&spec, "EncryptionConfig.AutoLockManagers") == true;
        if let Some(locking) = self.autolock {
            spec["EncryptionConfig"]["AutoLockManagers"] = json!(locking);
        }
        change_labels(&mut spec, &self.label_add, &self.label_rm, "swarm")?;
        let path = format!("/swarm/update?version={}", number(&swarm, "Version.Index"));
        context.client.post(&path, Some(&spec)).await?;
        println!("Swarm updated.");
        if self.autolock == Some(true) && !was_locking {
            let key: Value = context.client.get("/swarm/unlockkey").await?;
            print!("{}", token::unlock_key_text(&key));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::ExternalCa;
    use crate::fake_daemon::FakeDaemon;

    #[test]
    fn external_cas_are_read_as_docker_reads_them() {
        let ca: ExternalCa = "protocol=cfssl,url=https://ca.example/sign,profile=x".parse().unwrap();
        assert_eq!(
            ca.to_json(""),
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

    #[tokio::test]
    async fn an_update_sends_the_whole_spec_with_what_was_asked_for() {
        async fn check(words: &[&str], locking: bool, expected: Result<&[&str], &str>) {
            let daemon = FakeDaemon::start().await;
            let swarm = json!({"Version": {"Index": 11}, "TLSInfo": {"TrustRoot": "PEM"}, "Spec": {"Labels": {"a": "b"},
                "EncryptionConfig": {"AutoLockManagers": locking}}});
            daemon.answer("GET /swarm", 200, swarm);
            daemon.answer("GET /swarm/unlockkey", 200, json!({"UnlockKey": "SWMKEY-1-x"}));
            daemon.answer("POST /swarm/update", 200, Value::Null);
            let result = daemon.run(&[&["swarm", "update"], words].concat()).await.map_err(|error| error.to_string());
            assert_eq!(result, expected.map(drop).map_err(str::to_owned), "{words:?}");
            let after_the_first = daemon.requests(|request| request != "GET /swarm");
            assert_eq!(after_the_first, expected.unwrap_or_default(), "{words:?}");
        }
        let locked =
            r#"POST /swarm/update?version=11 {"EncryptionConfig":{"AutoLockManagers":true},"Labels":{"a":"b"}}"#;
        check(&["--autolock"], false, Ok(&[locked, "GET /swarm/unlockkey"])).await;
        check(&["--autolock=true"], true, Ok(&[locked])).await;
        let labels = r#"POST /swarm/update?version=11 {"EncryptionConfig":{"AutoLockManagers":false},"Labels":{"skep.rebalance":"auto"}}"#;
        check(&["--label-add", "skep.rebalance=auto", "--label-rm", "a"], false, Ok(&[labels])).await;
        check(&["--label-rm", "none"], false, Err("key none doesn't exist in swarm's labels")).await;
        let external = r#"POST /swarm/update?version=11 {"CAConfig":{"ExternalCAs":[{"CACert":"PEM","Options":{},"Protocol":"cfssl","URL":"https://y"}]},"EncryptionConfig":{"AutoLockManagers":false},"Labels":{"a":"b"},"Orchestration":{"TaskHistoryRetentionLimit":3}}"#;
        check(&["--task-history-limit", "3", "--external-ca", "protocol=cfssl,url=https://y"], false, Ok(&[external]))
            .await;
    }
}
