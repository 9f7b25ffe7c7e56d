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
    #[arg(long, value_parser = pem_file)]
    ca_cert: Option<String>,
    /// Path to the PEM-formatted root CA key to use for the new cluster.
    #[arg(long, value_parser = pem_file)]
    ca_key: Option<String>,
    /// Validity period for node certificates (ns|us|ms|s|m|h).
    #[arg(long, value_parser = parse_duration)]
    cert_expiry: Option<i64>,
    /// Specifications of one or more certificate signing endpoints.
    #[arg(long)]
    external_ca: Vec<ExternalCa>,
    /// Exit immediately instead of waiting for the root rotation to converge.
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output.
    #[arg(short, long)]
    quiet: bool,
}

impl Ca {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let swarm: Value = context.client.get("/swarm").await?;
        self.check()?;
        if !self.rotate {
            return show(&swarm);
        }
        let mut spec = swarm.get("Spec").cloned().unwrap_or_default();
        self.apply(&mut spec);
        let path = format!("/swarm/update?version={}", number(&swarm, "Version.Index"));
        context.client.post(&path, Some(&spec)).await?;
        if self.detach {
            return Ok(());
        }
        self.wait(context).await?;
        if self.quiet {
            return Ok(());
        }
        show(&context.client.get("/swarm").await?)
    }

    /// Whether the options go together.
    fn check(&self) -> Result<()> {
        let given = [
            ("ca-cert", self.ca_cert.is_some()),
            ("ca-key", self.ca_key.is_some()),
            ("cert-expiry", self.cert_expiry.is_some()),
            ("external-ca", !self.external_ca.is_empty()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given && !self.rotate) {
            bail!("`--{name}` flag requires the `--rotate` flag to update the CA");
        }
        if !self.external_ca.is_empty() && self.ca_cert.is_none() {
            bail!(
                "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - to add an \
                 external CA with the current root CA certificate, use the `update` command instead"
            );
        }
        if self.ca_cert.is_some() && self.external_ca.is_empty() && self.ca_key.is_none() {
            bail!("the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well");
        }
        Ok(())
    }

    fn apply(&self, spec: &mut Value) {
        let config = &mut spec["CAConfig"];
        if !config.is_object() {
            *config = json!({});
        }
        let given = |pem: &Option<String>| pem.clone().unwrap_or_default();
        let (cert, key) = (given(&self.ca_cert), given(&self.ca_key));
        if cert.is_empty() && key.is_empty() {
            config["ForceRotate"] = json!(config["ForceRotate"].as_u64().unwrap_or(0) + 1);
        }
        if !self.external_ca.is_empty() {
            config["ExternalCAs"] = self.external_ca.iter().map(|ca| ca.to_json(&cert)).collect();
        }
        (config["SigningCACert"], config["SigningCAKey"]) = (json!(cert), json!(key));
        if let Some(expiry) = self.cert_expiry {
            config["NodeCertExpiry"] = json!(expiry);
        }
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

/// The contents of a file in PEM.
fn pem_file(path: &str) -> Result<String, String> {
    let contents = std::fs::read_to_string(path).map_err(|error| format!("open {path}: {error}"))?;
    if contents.contains("-----BEGIN ") { Ok(contents) } else { Err("file contents must be in PEM format".to_owned()) }
}

fn show(swarm: &Value) -> Result<()> {
    let root = text(swarm, "TLSInfo.TrustRoot");
    if root.is_empty() {
        bail!("No CA information available");
    }
    println!("{}", root.trim());
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

    fn ca(rotate: bool) -> Ca {
        Ca {
            rotate,
            ca_cert: None,
            ca_key: None,
            cert_expiry: None,
            external_ca: Vec::new(),
            detach: true,
            quiet: true,
        }
    }

    #[test]
    fn a_rotation_without_a_certificate_makes_a_new_one() {
        let mut spec = json!({"CAConfig": {"ForceRotate": 4}});
        Ca { cert_expiry: Some(5), ..ca(true) }.apply(&mut spec);
        let expected = json!({"ForceRotate": 5, "NodeCertExpiry": 5, "SigningCACert": "", "SigningCAKey": ""});
        assert_eq!(spec["CAConfig"], expected);
    }

    #[test]
    fn a_given_certificate_is_the_external_cas_too() {
        let mut spec = json!({});
        let external: ExternalCa = "protocol=cfssl,url=https://y".parse().unwrap();
        Ca { ca_cert: Some("PEM".into()), external_ca: vec![external], ..ca(true) }.apply(&mut spec);
        assert_eq!(spec["CAConfig"]["SigningCACert"], "PEM");
        assert_eq!(spec["CAConfig"]["ExternalCAs"][0]["CACert"], "PEM");
        assert!(spec["CAConfig"]["ForceRotate"].is_null());
    }

    #[test]
    fn options_that_do_not_go_together_are_refused_in_dockers_words() {
        let check = |ca: Ca, expected: Result<(), &str>| {
            assert_eq!(ca.check().map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{ca:?}");
        };
        let external = || vec!["protocol=cfssl,url=https://y".parse::<ExternalCa>().unwrap()];
        let pem = || Some("PEM".to_owned());
        check(ca(false), Ok(()));
        check(ca(true), Ok(()));
        check(Ca { ca_cert: pem(), ca_key: pem(), ..ca(true) }, Ok(()));
        check(Ca { ca_cert: pem(), external_ca: external(), ..ca(true) }, Ok(()));
        let expiry = "`--cert-expiry` flag requires the `--rotate` flag to update the CA";
        check(Ca { cert_expiry: Some(1), ..ca(false) }, Err(expiry));
        let key = "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well";
        check(Ca { ca_cert: pem(), ..ca(true) }, Err(key));
        let cert = "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - to add \
                    an external CA with the current root CA certificate, use the `update` command instead";
        check(Ca { external_ca: external(), ..ca(true) }, Err(cert));
    }
}
