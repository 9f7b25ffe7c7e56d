//! `skep node inspect`, also `--pretty`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::path_of;
use crate::context::Context;
use crate::inspect::{Format, Found};
use crate::json::{at, list, number, text};
use crate::text::{binary_size, capital, go_time};

/// Options of `node inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    format: Format,
    /// Print the information in a human friendly format.
    #[arg(long)]
    pretty: bool,
    /// Nodes by name or identifier; `self` for the one that answers.
    #[arg(required = true)]
    nodes: Vec<String>,
}

impl Inspect {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut found = Found::default();
        for name in &self.nodes {
            let path = match path_of(context, name).await {
                Ok(path) => path,
                Err(error) => {
                    found.add(Err(error.to_string()));
                    continue;
                }
            };
            found.add(context.client.get(&path).await.map_err(|error| error.to_string()));
        }
        if !self.pretty {
            return found.print(&self.format);
        }
        for node in std::mem::take(&mut found.objects) {
            print!("{}", pretty(&serde_json::from_str(node.get())?));
        }
        found.end()
    }
}

fn pretty(node: &Value) -> String {
    let mut out = format!("ID:\t\t\t{}\n", text(node, "ID"));
    let mut line = |head: &str, value: &str| out.push_str(&format!("{head}{value}\n"));
    if !text(node, "Spec.Name").is_empty() {
        line("Name:\t\t\t", text(node, "Spec.Name"));
    }
    labels("Labels:", at(node, "Spec.Labels"), &mut line);
    line("Hostname:              \t", text(node, "Description.Hostname"));
    line("Joined at:             \t", &joined_at(text(node, "CreatedAt")));
    line("Status:", "");
    line(" State:\t\t\t", &capital(text(node, "Status.State")));
    if !text(node, "Status.Message").is_empty() {
        line(" Message:              \t", &capital(text(node, "Status.Message")));
    }
    line(" Availability:         \t", &capital(text(node, "Spec.Availability")));
    if !text(node, "Status.Addr").is_empty() {
        line(" Address:\t\t", text(node, "Status.Addr"));
    }
    let manager = at(node, "ManagerStatus");
    if !manager.is_null() {
        line("Manager Status:", "");
        line(" Address:\t\t", text(manager, "Addr"));
        line(" Raft Status:\t\t", &capital(text(manager, "Reachability")));
        line(" Leader:\t\t", if at(manager, "Leader") == true { "Yes" } else { "No" });
    }
    machine(at(node, "Description"), &mut line);
    out
}

fn machine(description: &Value, line: &mut impl FnMut(&str, &str)) {
    line("Platform:", "");
    line(" Operating System:\t", text(description, "Platform.OS"));
    line(" Architecture:\t\t", text(description, "Platform.Architecture"));
    line("Resources:", "");
    line(" CPUs:\t\t\t", &(number(description, "Resources.NanoCPUs") / 1_000_000_000).to_string());
    let memory = number(description, "Resources.MemoryBytes");
    line(" Memory:\t\t", &if memory == 0 { String::new() } else { binary_size(memory) });
    let mut plugins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for plugin in list(description, "Engine.Plugins") {
        plugins.entry(text(plugin, "Type")).or_default().push(text(plugin, "Name"));
    }
    if !plugins.is_empty() {
        line("Plugins:", "");
    }
    for (kind, names) in plugins {
        line(&format!(" {kind}:\t\t"), &names.join(", "));
    }
    line("Engine Version:\t\t", text(description, "Engine.EngineVersion"));
    labels("Engine Labels:", at(description, "Engine.Labels"), line);
    let tls = at(description, "TLSInfo");
    if !text(tls, "TrustRoot").is_empty() {
        line("TLS Info:", "");
        line(" TrustRoot:", "");
        line("", text(tls, "TrustRoot"));
        line(" Issuer Subject:\t", text(tls, "CertIssuerSubject"));
        line(" Issuer Public Key:\t", text(tls, "CertIssuerPublicKey"));
    }
}

fn labels(title: &str, labels: &Value, line: &mut impl FnMut(&str, &str)) {
    let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else { return };
    line(title, "");
    for (key, value) in labels {
        match value.as_str().unwrap_or_default() {
            "" => line(" - ", key),
            value => line(" - ", &format!("{key}={value}")),
        }
    }
}

/// A time as docker shows it: Go's form, in small letters.
fn joined_at(time: &str) -> String {
    let Ok(at) = chrono::DateTime::parse_from_rfc3339(time) else { return time.to_owned() };
    go_time(at.to_utc()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manager_is_described_as_docker_describes_it() {
        let node = json!({
            "ID": "mmm", "CreatedAt": "2026-01-02T03:04:05.678901234Z",
            "Spec": {"Labels": {"rack": "r1", "ssd": ""}, "Role": "manager", "Availability": "active"},
            "Description": {"Hostname": "web2", "Platform": {"Architecture": "x86_64", "OS": "linux"},
                "Resources": {"NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 4_123_168_768_u64},
                "Engine": {"EngineVersion": "28.5.2", "Labels": {"zone": "a"}, "Plugins": [
                    {"Type": "Log", "Name": "json-file"}, {"Type": "Network", "Name": "bridge"},
                    {"Type": "Network", "Name": "overlay"}, {"Type": "Volume", "Name": "local"}]},
                "TLSInfo": {"TrustRoot": "PEM\n", "CertIssuerSubject": "AAE=", "CertIssuerPublicKey": "AAI="}},
            "Status": {"State": "ready", "Addr": "10.0.0.4"},
            "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.4:2377"},
        });
        let expected = "ID:\t\t\tmmm\nLabels:\n - rack=r1\n - ssd\nHostname:              \tweb2\n\
            Joined at:             \t2026-01-02 03:04:05.678901234 +0000 utc\nStatus:\n State:\t\t\tReady\n \
            Availability:         \tActive\n Address:\t\t10.0.0.4\nManager Status:\n Address:\t\t10.0.0.4:2377\n \
            Raft Status:\t\tReachable\n Leader:\t\tYes\nPlatform:\n Operating System:\tlinux\n \
            Architecture:\t\tx86_64\nResources:\n CPUs:\t\t\t2\n Memory:\t\t3.84GiB\nPlugins:\n Log:\t\tjson-file\n \
            Network:\t\tbridge, overlay\n Volume:\t\tlocal\nEngine Version:\t\t28.5.2\nEngine Labels:\n - zone=a\n\
            TLS Info:\n TrustRoot:\nPEM\n\n Issuer Subject:\tAAE=\n Issuer Public Key:\tAAI=\n";
        assert_eq!(pretty(&node), expected);
    }

    #[test]
    fn a_worker_that_is_down_says_why() {
        let node = json!({"ID": "www", "CreatedAt": "2026-01-02T03:04:05Z", "Spec": {"Name": "n", "Availability": "drain"},
            "Description": {"Hostname": "web10"}, "Status": {"State": "down", "Message": "heartbeat failure"}});
        let expected = "ID:\t\t\twww\nName:\t\t\tn\nHostname:              \tweb10\n\
            Joined at:             \t2026-01-02 03:04:05 +0000 utc\nStatus:\n State:\t\t\tDown\n \
            Message:              \tHeartbeat failure\n Availability:         \tDrain\nPlatform:\n";
        assert!(pretty(&node).starts_with(expected), "{}", pretty(&node));
    }
}
