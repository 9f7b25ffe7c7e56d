//! How one root takes another's place. Pure: what an update of the cluster makes of its root, and the next step of a
//! rotation that runs. Codes and texts of the refusals are SwarmKit's.
//!
//! ```text
//!  force_rotate or a new signing certificate ─► root_rotation{new, cross-signed by the old}
//!     ─► every node's issuer is the new root (30 at a time to ROTATE) ─► root_ca = new, tokens anew
//! ```

use std::collections::BTreeSet;

use identity::{RootBundle, Signer};
use model::{CaConfig, Cluster, IssuanceState, Node, NodeId, NodeTlsInfo, RootCa, RootRotation, Timestamp};
use store::View;
use tonic::Code;

use super::signing::external_urls;
use crate::error::ControlError;

/// Nodes that are told to renew at once; SwarmKit's number.
const ROTATE_AT_ONCE: usize = 30;
/// Shortest life that a new root may have left: a year of 365 days.
const MIN_ROOT_LIFE_SECS: i64 = 365 * 24 * 3600;

/// Roots of which an external CA that can be reached is needed. The shell asks for [`needed_probes`], looks, and gives
/// those that answered; so the decision itself needs no network.
pub(crate) type Reachable = BTreeSet<Vec<u8>>;

/// What an update makes of the root.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RootPlan {
    /// Nothing.
    Keep,
    /// This, at once.
    Set(Box<RootCa>),
    /// A rotation to this root starts once the present one has vouched for it.
    Rotate(NewRoot),
}

/// The root that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewRoot {
    /// Certificate and key, PEM; `None`: to be made.
    pub(crate) given: Option<(Vec<u8>, Vec<u8>)>,
    /// Who signs its certificate for those who trust the present root.
    pub(crate) voucher: Voucher,
    /// `force_rotate` of the update.
    pub(crate) forced: u64,
}

/// Who vouches for a new root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Voucher {
    /// The present root's key in the store.
    Key,
    /// External CAs with the present root's key.
    External(Vec<String>),
}

/// The roots, as PEM, for which [`plan`] wants to know whether one of their external CAs answers.
pub(crate) fn needed_probes(cluster: &Cluster, wanted: &CaConfig) -> Vec<Vec<u8>> {
    let root = &cluster.root_ca;
    let current = identity::normalize_certificates(&root.ca_cert);
    let signing = identity::normalize_certificates(&wanted.signing_ca_cert);
    let mut needed = Vec::new();
    if root.ca_key.is_empty() && !(signing == current && has_key(wanted)) {
        needed.push(current);
    }
    match &root.root_rotation {
        _ if !signing.is_empty() && !has_key(wanted) => needed.push(signing),
        Some(next) if signing.is_empty() && next.ca_key.is_empty() => {
            needed.push(identity::normalize_certificates(&next.ca_cert));
        }
        _ => {}
    }
    needed
}

/// The URLs of a root's external CAs under a wanted configuration.
pub(crate) fn probe_urls(cluster: &Cluster, wanted: &CaConfig, cert: &[u8]) -> Vec<String> {
    let mut cluster = cluster.clone();
    cluster.spec.ca_config = wanted.clone();
    external_urls(&cluster, cert)
}

/// What becomes of the root when `wanted` is to be the cluster's configuration.
pub(crate) fn plan(
    cluster: &Cluster,
    wanted: &CaConfig,
    reachable: &Reachable,
    now: Timestamp,
) -> Result<RootPlan, ControlError> {
    let root = &cluster.root_ca;
    let current = identity::normalize_certificates(&root.ca_cert);
    let signing = identity::normalize_certificates(&wanted.signing_ca_cert);
    if !wanted.signing_ca_key.is_empty() && wanted.signing_ca_cert.is_empty() {
        let text = "if a signing CA key is provided, the signing CA cert must also be provided";
        return Err(ControlError::invalid(text));
    }
    let voucher = if !root.ca_key.is_empty() {
        Voucher::Key
    } else if signing == current && has_key(wanted) {
        check_pair(wanted)?;
        return Ok(same_root(root, wanted));
    } else {
        reach(reachable, &current, "current")?;
        Voucher::External(probe_urls(cluster, wanted, &current))
    };
    if wanted.signing_ca_cert.is_empty() {
        return without_certificate(root, wanted, reachable, voucher);
    }
    check_certificate(wanted, now)?;
    if !has_key(wanted) {
        reach(reachable, &signing, "desired")?;
    }
    if signing == current {
        return Ok(same_root(root, wanted));
    }
    if has_key(wanted) && wanted.signing_ca_key == root.ca_key {
        return Err(ControlError::invalid("Cannot update to a cert with an identical key"));
    }
    if let Some(next) = &root.root_rotation
        && identity::normalize_certificates(&next.ca_cert) == signing
    {
        let mut root = root.clone();
        root.root_rotation = Some(RootRotation { ca_key: wanted.signing_ca_key.clone(), ..next.clone() });
        root.last_forced_rotation = wanted.force_rotate;
        return Ok(RootPlan::Set(Box::new(root)));
    }
    rotate(wanted, Some((signing, wanted.signing_ca_key.clone())), voucher)
}

/// No root was named: a new one if it is forced, else all stays.
fn without_certificate(
    root: &RootCa,
    wanted: &CaConfig,
    reachable: &Reachable,
    voucher: Voucher,
) -> Result<RootPlan, ControlError> {
    if root.last_forced_rotation != wanted.force_rotate {
        return rotate(wanted, None, voucher);
    }
    if let Some(next) = root.root_rotation.as_ref().filter(|next| next.ca_key.is_empty()) {
        reach(reachable, &identity::normalize_certificates(&next.ca_cert), "next")?;
    }
    Ok(RootPlan::Keep)
}

fn rotate(wanted: &CaConfig, given: Option<(Vec<u8>, Vec<u8>)>, voucher: Voucher) -> Result<RootPlan, ControlError> {
    let has_own_key = given.as_ref().is_none_or(|(_, key)| !key.is_empty());
    match &voucher {
        Voucher::External(_) if !has_own_key => {
            let text = "rotating from one external CA to a different external CA is not supported";
            return Err(ControlError::invalid(text));
        }
        Voucher::External(urls) if urls.is_empty() => {
            let text = "must provide an external CA for the current external root CA to generate a cross-signed \
                        certificate";
            return Err(ControlError::invalid(text));
        }
        Voucher::External(_) | Voucher::Key => {}
    }
    Ok(RootPlan::Rotate(NewRoot { given, voucher, forced: wanted.force_rotate }))
}

/// The present root named again: what runs is called off, its key comes or goes.
fn same_root(root: &RootCa, wanted: &CaConfig) -> RootPlan {
    RootPlan::Set(Box::new(RootCa {
        ca_key: wanted.signing_ca_key.clone(),
        root_rotation: None,
        last_forced_rotation: wanted.force_rotate,
        ..root.clone()
    }))
}

fn has_key(wanted: &CaConfig) -> bool {
    !wanted.signing_ca_cert.is_empty() && !wanted.signing_ca_key.is_empty()
}

fn check_pair(wanted: &CaConfig) -> Result<(), ControlError> {
    let signer = Signer::new(&wanted.signing_ca_cert, &wanted.signing_ca_key, &[]);
    signer.map(drop).map_err(|error| ControlError::invalid(error.to_string()))
}

fn check_certificate(wanted: &CaConfig, now: Timestamp) -> Result<(), ControlError> {
    let unreadable = |_| ControlError::invalid("could not parse the desired CA certificate");
    let bundle = RootBundle::parse(&wanted.signing_ca_cert).map_err(unreadable)?;
    if bundle.certificates().len() != 1 {
        return Err(ControlError::invalid("the desired CA certificate cannot contain multiple certificates"));
    }
    if has_key(wanted) {
        check_pair(wanted)?;
    }
    let expiry = identity::certificate_expiry(&wanted.signing_ca_cert).map_or(0, |expiry| expiry.seconds);
    if expiry < now.seconds + MIN_ROOT_LIFE_SECS {
        return Err(ControlError::invalid("CA certificate expires too soon"));
    }
    Ok(())
}

fn reach(reachable: &Reachable, cert: &[u8], which: &str) -> Result<(), ControlError> {
    if reachable.contains(cert) {
        return Ok(());
    }
    let text = "there must be at least one valid, reachable external CA corresponding to the";
    Err(ControlError::invalid(format!("{text} {which} CA certificate")))
}

/// The root with a rotation under way to a new one, whose certificate the present root signed, too.
pub(crate) fn begin(root: &RootCa, new: (Vec<u8>, Vec<u8>), cross_signed: &[u8], forced: u64) -> RootCa {
    let rotation = RootRotation {
        ca_cert: new.0,
        ca_key: new.1,
        cross_signed_ca_cert: identity::normalize_certificates(cross_signed),
    };
    RootCa { root_rotation: Some(rotation), last_forced_rotation: forced, ..root.clone() }
}

/// The present root vouches for a new one with its key in the store.
pub(crate) fn vouch(root: &RootCa, new_cert: &[u8]) -> Result<Vec<u8>, ControlError> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "the present root could not vouch for the new one");
        cannot_vouch()
    };
    let signer = Signer::new(&root.ca_cert, &root.ca_key, &[]).map_err(|error| failed(&error))?;
    signer.cross_sign(new_cert).map_err(|error| failed(&error))
}

/// What the user is told when nobody vouched.
pub(crate) fn cannot_vouch() -> ControlError {
    ControlError::new(Code::Internal, "unable to generate a cross-signed certificate for root rotation")
}

/// What a running rotation needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// No rotation runs.
    Idle,
    /// These nodes are to renew their certificates; more will follow. Empty: those that are at it are waited for.
    Renew(Vec<NodeId>),
    /// All nodes have certificates of the new root.
    Finish,
}

/// The next step of the rotation, if one runs. Nodes that are down are waited for, too: they would be shut out.
pub(crate) fn next_step(view: &View) -> Step {
    let cluster = view.the_cluster();
    let Some(next) = cluster.and_then(|cluster| cluster.root_ca.root_rotation.as_ref()) else { return Step::Idle };
    // A rotation begins with a certificate that could be read.
    let Ok(issuer) = identity::tls_info(&[], &next.ca_cert) else { return Step::Renew(Vec::new()) };
    let mut missing = view.nodes().filter(|node| !is_issued_by(node, &issuer)).peekable();
    if missing.peek().is_none() {
        return Step::Finish;
    }
    let idle = missing.filter(|node| !is_renewing(node)).map(|node| node.id.clone());
    Step::Renew(idle.take(ROTATE_AT_ONCE).collect())
}

fn is_issued_by(node: &Node, issuer: &NodeTlsInfo) -> bool {
    let told = node.description.as_ref().and_then(|description| description.tls_info.as_ref());
    told.is_some_and(|told| {
        told.cert_issuer_subject == issuer.cert_issuer_subject
            && told.cert_issuer_public_key == issuer.cert_issuer_public_key
    })
}

pub(super) fn is_renewing(node: &Node) -> bool {
    matches!(node.certificate.status.state, IssuanceState::Renew | IssuanceState::Pending | IssuanceState::Rotate)
}

/// The root after its rotation; `None` if no rotation runs.
pub(crate) fn finished(cluster: &Cluster) -> Option<RootCa> {
    let next = cluster.root_ca.root_rotation.clone()?;
    let token = || identity::new_join_token(&next.ca_cert);
    Some(RootCa {
        ca_cert_hash: identity::ca_cert_hash(&next.ca_cert),
        join_tokens: model::JoinTokens { worker: token(), manager: token() },
        root_rotation: None,
        last_forced_rotation: cluster.root_ca.last_forced_rotation,
        ca_cert: next.ca_cert,
        ca_key: next.ca_key,
    })
}

#[cfg(test)]
mod tests;
