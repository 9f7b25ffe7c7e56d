//! Whether a caller may call. Texts are SwarmKit's; each is a `PermissionDenied`.

use model::{ClusterId, NodeId, NodeRole};

use crate::certificate::{PeerIdentity, role_name};

/// Why a caller is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It showed no certificate.
    #[error("no client certificates in request")]
    NoCertificate,
    /// Its role does not fit.
    #[error("Permission denied: remote certificate not part of OUs: [{}]", units(allowed))]
    Role {
        /// Roles that would.
        allowed: Vec<NodeRole>,
    },
    /// It is of another cluster.
    #[error("Permission denied: remote certificate not part of organization: {0}")]
    Cluster(ClusterId),
    /// It was removed from the cluster.
    #[error("Permission denied: node {0} was removed from swarm")]
    Removed(NodeId),
}

/// Lets a caller pass whose role is among `allowed`, whose cluster is `cluster`, and who was not removed. The answer is
/// the caller, so that nobody can use it without having asked.
pub fn authorize<'a>(
    peer: Option<&'a PeerIdentity>,
    cluster: &ClusterId,
    allowed: &[NodeRole],
    is_removed: impl FnOnce(&NodeId) -> bool,
) -> Result<&'a PeerIdentity, Refusal> {
    let peer = peer.ok_or(Refusal::NoCertificate)?;
    if !allowed.contains(&peer.role) {
        return Err(Refusal::Role { allowed: allowed.to_vec() });
    }
    if is_removed(&peer.node_id) {
        return Err(Refusal::Removed(peer.node_id.clone()));
    }
    if peer.cluster_id != *cluster {
        return Err(Refusal::Cluster(cluster.clone()));
    }
    Ok(peer)
}

fn units(roles: &[NodeRole]) -> String {
    roles.iter().map(|role| role_name(*role)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    fn peer(role: NodeRole) -> PeerIdentity {
        let (not_before, not_after) = (Timestamp::default(), Timestamp::default());
        PeerIdentity { node_id: "n".into(), role, cluster_id: "c".into(), not_before, not_after }
    }

    #[test]
    fn callers_pass_by_role_cluster_and_membership() {
        use NodeRole::{Manager, Worker};
        let check = |peer: Option<&PeerIdentity>, cluster: &str, allowed: &[NodeRole], removed: bool| {
            authorize(peer, &cluster.into(), allowed, |_| removed).map(|_| ()).map_err(|refusal| refusal.to_string())
        };
        let (worker, manager) = (peer(Worker), peer(Manager));
        assert_eq!(check(Some(&worker), "c", &[Worker, Manager], false), Ok(()));
        assert_eq!(check(Some(&manager), "c", &[Manager], false), Ok(()));
        let refused = |text: &str| Err(text.to_owned());
        assert_eq!(check(None, "c", &[Worker], false), refused("no client certificates in request"));
        let text = "Permission denied: remote certificate not part of OUs: [swarm-manager]";
        assert_eq!(check(Some(&worker), "c", &[Manager], false), refused(text));
        let text = "Permission denied: remote certificate not part of organization: d";
        assert_eq!(check(Some(&manager), "d", &[Manager], false), refused(text));
        let text = "Permission denied: node n was removed from swarm";
        assert_eq!(check(Some(&manager), "c", &[Manager], true), refused(text));
    }
}
