//! Whether a call is allowed, and in whose name it runs. Pure: certificate, metadata and a view of the store in, caller or
//! refusal out; SwarmKit's texts.
//!
//! ```text
//!  connection's certificate ──no forwarded_cert*──► is the caller
//!                           ──forwarded_cert*─────► must be a manager's; then the metadata names the caller
//! ```
//!
//! Invariants: metadata of a connection that is not a manager's is never believed; what is forwarded is checked as if
//! the forwarded node had called itself, so it never widens anything; a removed node is refused whoever speaks for it;
//! where the store is authoritative, a certificate gives no role that the node object does not give.

use http::HeaderMap;
use identity::{PeerIdentity, Refusal};
use model::{ClusterId, NodeId, NodeRole, Timestamp};
use store::View;
use tonic::Status;

use crate::caller::Caller;
use crate::methods::{Access, Method};

/// Says that the caller is named by the keys below.
pub(crate) const FORWARDED: &str = "forwarded_cert";
/// CN of the forwarded caller.
pub(crate) const FORWARDED_CN: &str = "forwarded_cert_cn";
/// O of the forwarded caller.
pub(crate) const FORWARDED_ORG: &str = "forwarded_cert_org";
/// OUs of the forwarded caller, one value each.
pub(crate) const FORWARDED_OU: &str = "forwarded_cert_ou";
/// Address of the forwarded caller, `host:port`.
pub(crate) const REMOTE_ADDR: &str = "remote_addr";
/// Marks a call that a follower passed on.
pub(crate) const REDIRECT: &str = "redirect";
/// Every key that only managers may set.
pub(crate) const FORWARDING_KEYS: [&str; 6] =
    [FORWARDED, FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU, REMOTE_ADDR, REDIRECT];

/// A subject: of the connection's verified certificate, or as a manager forwarded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// CN.
    pub(crate) node_id: NodeId,
    /// OUs, in any order.
    pub(crate) units: Vec<String>,
    /// O.
    pub(crate) cluster_id: ClusterId,
}

/// What decides a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// The store, which is up to date here: a manager's certificate of a node that is no manager any more, or that is
    /// gone, gives a manager's rights no longer.
    Store,
    /// The certificate alone: this manager may lag behind the leader, or the method must answer former managers.
    Certificate,
}

/// What is known when a call is checked.
pub(crate) struct Facts<'a> {
    pub(crate) cluster_id: &'a ClusterId,
    pub(crate) view: &'a View,
    pub(crate) authority: Authority,
}

/// The subject and address of a call that a manager forwarded.
#[derive(Debug, PartialEq, Eq)]
struct Forwarded {
    /// `None` for a joiner without a certificate.
    subject: Option<Subject>,
    address: Option<String>,
}

impl Facts<'_> {
    /// Who the call runs as; `None` for a stranger, whom only methods for anyone let in.
    pub(crate) fn authorize(
        &self,
        method: Method,
        peer: Option<&Subject>,
        address: Option<String>,
        metadata: &HeaderMap,
    ) -> Result<Option<Caller>, Status> {
        let Some(forwarded) = self.forwarded(peer, metadata)? else {
            let caller = self.direct(method.access, peer);
            let caller = caller.map_err(|refused| denied(format!("unauthorized peer role: {}", shown(&refused))))?;
            return Ok(caller.map(|caller| Caller { address, ..caller }));
        };
        let caller = self.on_behalf(method.access, &forwarded)?;
        let forwarded_by = peer.map(|peer| peer.node_id.clone());
        Ok(caller.map(|caller| Caller { address: forwarded.address, forwarded_by, ..caller }))
    }

    /// Reads what a manager forwarded. From anybody else it is refused.
    fn forwarded(&self, peer: Option<&Subject>, metadata: &HeaderMap) -> Result<Option<Forwarded>, Status> {
        let cert_keys = [FORWARDED, FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU];
        if !cert_keys.iter().any(|key| metadata.contains_key(*key)) {
            return Ok(None);
        }
        let forwarder = self.member(peer, Access::Managers);
        forwarder.map_err(|refused| denied(format!("unauthorized forwarder role: {}", shown(&refused))))?;
        read_forwarded(metadata).map(Some).ok_or_else(|| denied("missing information in forwarded request"))
    }

    fn direct(&self, access: Access, peer: Option<&Subject>) -> Result<Option<Caller>, Status> {
        match access {
            Access::Anyone => Ok(peer.and_then(|peer| self.acquaintance(peer))),
            Access::Nodes | Access::Managers => self.member(peer, access).map(Some),
        }
    }

    fn on_behalf(&self, access: Access, forwarded: &Forwarded) -> Result<Option<Caller>, Status> {
        if access == Access::Anyone {
            return Ok(forwarded.subject.as_ref().and_then(|subject| self.acquaintance(subject)));
        }
        let missing = || denied("missing information in forwarded request");
        let subject = forwarded.subject.as_ref().ok_or_else(missing)?;
        if !self.role(subject).is_some_and(|role| access.roles().contains(&role)) {
            return Err(denied(format!("unauthorized forwarded role, expecting: {}", access.units())));
        }
        if subject.cluster_id != *self.cluster_id {
            return Err(denied(format!("organization mismatch, expecting: {}", self.cluster_id)));
        }
        if self.is_removed(subject, access) {
            return Err(denied(format!("node {} was removed from swarm", subject.node_id)));
        }
        Ok(Some(self.caller(subject)))
    }

    /// The caller behind a certificate where none is needed: whoever could not use it comes as a stranger.
    fn acquaintance(&self, subject: &Subject) -> Option<Caller> {
        self.member(Some(subject), Access::Nodes).ok()
    }

    /// The checks of a certificate, in SwarmKit's order: role, cluster, removed nodes.
    fn member(&self, peer: Option<&Subject>, access: Access) -> Result<Caller, Status> {
        let refused = |refusal: Refusal| Status::permission_denied(refusal.to_string());
        let peer = peer.ok_or_else(|| refused(Refusal::NoCertificate))?;
        let allowed = access.roles();
        let role = self.role(peer).ok_or_else(|| refused(Refusal::Role { allowed: allowed.to_vec() }))?;
        let identity = PeerIdentity {
            node_id: peer.node_id.clone(),
            role,
            cluster_id: peer.cluster_id.clone(),
            // TLS has looked at the certificate's life.
            not_before: Timestamp::default(),
            not_after: Timestamp::default(),
        };
        let removed = |_: &NodeId| self.is_removed(peer, access);
        identity::authorize(Some(&identity), self.cluster_id, allowed, removed).map_err(refused)?;
        Ok(self.caller(peer))
    }

    fn caller(&self, subject: &Subject) -> Caller {
        Caller {
            node_id: subject.node_id.clone(),
            role: self.role(subject),
            cluster_id: subject.cluster_id.clone(),
            address: None,
            forwarded_by: None,
            local: false,
        }
    }

    /// What a subject may be here: what its certificate says, but never more than its node object says. A node object
    /// that is missing is the business of [`Self::is_removed`].
    fn role(&self, subject: &Subject) -> Option<NodeRole> {
        let has = |unit: &str| subject.units.iter().any(|held| held == unit);
        if !has(identity::role_name(NodeRole::Manager)) {
            return has(identity::role_name(NodeRole::Worker)).then_some(NodeRole::Worker);
        }
        match self.view.node(&subject.node_id) {
            Some(node) if self.authority == Authority::Store => Some(node.role),
            _ => Some(NodeRole::Manager),
        }
    }

    fn is_removed(&self, subject: &Subject, access: Access) -> bool {
        let cluster = self.view.the_cluster();
        let listed =
            cluster.is_some_and(|cluster| cluster.blacklisted_certificates.contains_key(subject.node_id.as_str()));
        let gone = access == Access::Managers
            && self.authority == Authority::Store
            && self.view.node(&subject.node_id).is_none();
        listed || gone
    }
}

impl From<&PeerIdentity> for Subject {
    fn from(peer: &PeerIdentity) -> Self {
        let units = vec![identity::role_name(peer.role).to_owned()];
        Self { node_id: peer.node_id.clone(), units, cluster_id: peer.cluster_id.clone() }
    }
}

fn read_forwarded(metadata: &HeaderMap) -> Option<Forwarded> {
    if one(metadata, FORWARDED)? != "true" {
        return None;
    }
    let (node_id, cluster_id) = (one(metadata, FORWARDED_CN)?, one(metadata, FORWARDED_ORG)?);
    let units: Result<Vec<_>, _> = metadata.get_all(FORWARDED_OU).iter().map(|unit| unit.to_str()).collect();
    let units: Vec<_> = units.ok()?.into_iter().filter(|unit| !unit.is_empty()).map(str::to_owned).collect();
    let subject = match (node_id.is_empty(), cluster_id.is_empty(), units.is_empty()) {
        (true, true, true) => None,
        (false, false, false) => Some(Subject { node_id: node_id.into(), units, cluster_id: cluster_id.into() }),
        _ => return None,
    };
    let address = one(metadata, REMOTE_ADDR).map(|address| host_of(address).to_owned());
    Some(Forwarded { subject, address })
}

/// The only value of a key; `None` if there is none, or more than one.
fn one<'a>(metadata: &'a HeaderMap, key: &str) -> Option<&'a str> {
    let mut values = metadata.get_all(key).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// The host of a `host:port`.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

fn denied(text: impl std::fmt::Display) -> Status {
    Status::permission_denied(format!("Permission denied: {text}"))
}

/// An error inside another's text, as Go prints it.
fn shown(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

#[cfg(test)]
mod tests;
