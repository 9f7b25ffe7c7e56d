//! `skep swarm ca`: shows the swarm's root CA, or replaces it and waits until every node has a certificate of the new one.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::update::ExternalCa;
use crate::context::Context;
use crate::json::{at, number, text};
use crate::text::parse_duration;

/// Pause between looks at the rotation; docker's.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Options of `swarm ca`.
#[derive(Debug, Args)]
pub(crate) struct Ca {
    /// Rotate the swarm CA - if no certificate or key are provided, new ones will be generated.
    #[arg(long)]
    rotate: bool,
    /// Path to the PEM-formatted root CA certificate to use for the new cluster.
    #[arg(long, requires = "rotate")]
    ca_cert: Option<std::path::PathBuf>,
    /// Path to the PEM-formatted root CA key to use for the new cluster.
    #[arg(long, requires = "rotate")]
    ca_key: Option<std::path::PathBuf>,
    /// Validity period for node certificates (ns|us|ms|s|m|h).
    #[arg(long, value_parser = parse_duration, requires = "rotate")]
    cert_expiry: Option<i64>,
    /// Specifications of one or more certificate signing endpoints.
    #[arg(long, requires = "rotate")]
    external_ca: Vec<ExternalCa>,
    /// Exit immediately instead of waiting for the root rotation to converge.
    #[arg(short, long, requires = "rotate")]
    detach: bool,
    /// Suppress progress output.
    #[arg(short, long, requires = "rotate")]
    quiet: bool,
}

impl Ca {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let swarm: Value = context.client.get("/swarm").await?;
        if !self.rotate {
            return show(&swarm);
        }
        if self.ca_cert.is_none() && self.ca_key.is_some() {
            bail!("the --ca-key flag requires that a --ca-cert flag and/or --external-ca flag be provided as well");
        }
        let mut spec = swarm.get("Spec").cloned().unwrap_or_default();
        self.apply(&mut spec)?;
        let path = format!("/swarm/update?version={}", number(&swarm, "Version.Index"));
        context.client.post(&path, Some(&spec)).await?;
        if self.detach {
            return Ok(());
        }
        self.wait(context).await?;
        show(&context.client.get("/swarm").await?)
    }

    fn apply(&self, spec: &mut Value) -> Result<()> {
        let config = &mut spec["CAConfig"];
        if !config.is_object() {
            *config = json!({});
        }
        if let Some(path) = &self.ca_cert {
            config["SigningCACert"] = json!(std::fs::read_to_string(path)?);
        } else {
            config["ForceRotate"] = json!(config["ForceRotate"].as_u64().unwrap_or(0) + 1);
            config["SigningCACert"] = json!("");
        }
        config["SigningCAKey"] = match &self.ca_key {
            Some(path) => json!(std::fs::read_to_string(path)?),
            None => json!(""),
        };
        if let Some(expiry) = self.cert_expiry {
            config["NodeCertExpiry"] = json!(expiry);
        }
        if !self.external_ca.is_empty() {
            config["ExternalCAs"] = self.external_ca.iter().map(ExternalCa::to_json).collect();
        }
        Ok(())
    }

    async fn wait(&self, context: &Context) -> Result<()> {
        let mut last = String::new();
        loop {
            let swarm: Value = context.client.get("/swarm").await?;
            let nodes: Value = context.client.get("/nodes").await?;
            let progress = Progress::of(&swarm, &nodes);
            let line = progress.line();
            if !self.quiet && line != last {
                eprintln!("{line}");
                last = line;
            }
            if progress.is_done() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn show(swarm: &Value) -> Result<()> {
    let root = text(swarm, "TLSInfo.TrustRoot");
    if root.is_empty() {
        bail!("No CA information available");
    }
    println!("{}", root.trim_end());
    Ok(())
}

/// How far a rotation is.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    nodes: usize,
    /// Whose certificate is of the new issuer.
    certified: usize,
    /// Who trusts the new root alone.
    trusting: usize,
    /// Whether the managers have not ended it yet.
    rotating: bool,
}

impl Progress {
    fn of(swarm: &Value, nodes: &Value) -> Self {
        let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
        let issuer = |value: &Value, of: &str| {
            (
                text(value, &format!("{of}.CertIssuerSubject")).to_owned(),
                text(value, &format!("{of}.CertIssuerPublicKey")).to_owned(),
            )
        };
        let (wanted, root) = (issuer(swarm, "TLSInfo"), text(swarm, "TLSInfo.TrustRoot"));
        let certified = nodes.iter().filter(|node| issuer(node, "Description.TLSInfo") == wanted).count();
        let trusting = nodes.iter().filter(|node| text(node, "Description.TLSInfo.TrustRoot") == root).count();
        let rotating = at(swarm, "RootRotationInProgress").as_bool().unwrap_or(false);
        Self { nodes: nodes.len(), certified, trusting, rotating }
    }

    fn is_done(&self) -> bool {
        !self.rotating && self.certified == self.nodes && self.trusting == self.nodes
    }

    fn line(&self) -> String {
        let trusting = if self.rotating { 0 } else { self.trusting };
        format!(
            "rotated TLS certificates: {}/{} nodes, rotated CA certificates: {trusting}/{} nodes",
            self.certified, self.nodes, self.nodes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(root: &str, subject: &str, key: &str) -> Value {
        json!({"TrustRoot": root, "CertIssuerSubject": subject, "CertIssuerPublicKey": key})
    }

    #[test]
    fn a_rotation_is_done_when_every_node_has_followed() {
        let node = |root, key| json!({"Description": {"TLSInfo": info(root, "cn", key)}});
        let swarm = |rotating| json!({"TLSInfo": info("new", "cn", "k2"), "RootRotationInProgress": rotating});
        let half = Progress::of(&swarm(true), &json!([node("old", "k1"), node("new", "k2")]));
        assert_eq!(half, Progress { nodes: 2, certified: 1, trusting: 1, rotating: true });
        assert!(!half.is_done());
        assert_eq!(half.line(), "rotated TLS certificates: 1/2 nodes, rotated CA certificates: 0/2 nodes");
        assert!(!Progress::of(&swarm(false), &json!([node("old", "k2")])).is_done());
        assert!(Progress::of(&swarm(false), &json!([node("new", "k2")])).is_done());
    }

    #[test]
    fn a_rotation_without_a_certificate_makes_a_new_one() {
        let none = Ca {
            rotate: true,
            ca_cert: None,
            ca_key: None,
            cert_expiry: Some(5),
            external_ca: Vec::new(),
            detach: true,
            quiet: true,
        };
        let mut spec = json!({"CAConfig": {"ForceRotate": 4}});
        none.apply(&mut spec).unwrap();
        assert_eq!(spec["CAConfig"]["ForceRotate"], 5);
        assert_eq!(spec["CAConfig"]["NodeCertExpiry"], 5);
    }
}
