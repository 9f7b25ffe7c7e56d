//! The cluster object: its spec and the rotation of tokens and keys.

use identity::{CaRefusal, IssuerInfo};
use model::{CaConfig, Cluster, ClusterSpec, EncryptionAlgorithm, EncryptionKey, ObjectVersion, RootCa};
use store::StoreError;
use tonic::Code;

use super::LocalControl;
use crate::blacklist;
use crate::error::ControlError;
use crate::writer::now;

/// Shortest life of a node certificate.
const MIN_CERT_EXPIRY_SECS: i64 = 3600;
/// The subsystem whose key locks managers.
const UNLOCK_SUBSYSTEM: &str = "swarm-manager";

/// Which keys an update makes anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRotation {
    /// The workers' join token.
    pub worker_join_token: bool,
    /// The managers' join token.
    pub manager_join_token: bool,
    /// The key that unlocks managers.
    pub manager_unlock_key: bool,
}

impl LocalControl {
    /// Replaces the cluster's spec, if `version` is the current one, and rotates what is asked for.
    pub(crate) async fn update_cluster(
        &self,
        version: ObjectVersion,
        spec: ClusterSpec,
        rotation: KeyRotation,
    ) -> Result<(), ControlError> {
        check_cluster_spec(&spec)?;
        let view = self.writer.shared().view();
        let seen = view.the_cluster().ok_or_else(|| ControlError::new(Code::NotFound, "no cluster"))?;
        // External CAs may have to be asked, so this comes before the write.
        let root_ca = self.next_root(seen, &spec.ca_config).await?;
        let written = self.writer.write(|transaction| {
            let stored = transaction.the_cluster().ok_or_else(|| ControlError::new(Code::NotFound, "no cluster"))?;
            let mut cluster = Cluster::clone(stored);
            if spec.annotations.name != cluster.spec.annotations.name {
                return Err(ControlError::invalid("modification of cluster name is not allowed"));
            }
            if stored.root_ca != seen.root_ca {
                // What was decided was decided for another root.
                let (given, stored) = (seen.meta.version, stored.meta.version);
                return Err(StoreError::OutOfSequence { id: cluster.id.clone().into(), given, stored }.into());
            }
            cluster.meta.version = version;
            cluster.root_ca = root_ca.unwrap_or(cluster.root_ca);
            blacklist::forget_expired(&mut cluster, now());
            let root = cluster.root_ca.ca_cert.clone();
            let tokens = &mut cluster.root_ca.join_tokens;
            if rotation.worker_join_token {
                tokens.worker = identity::new_join_token(&root);
            }
            if rotation.manager_join_token {
                tokens.manager = identity::new_join_token(&root);
            }
            set_unlock_key(&mut cluster, spec.encryption_config.auto_lock_managers, rotation.manager_unlock_key);
            cluster.spec = spec;
            transaction.update(cluster).map_err(ControlError::from)
        });
        written.await
    }

    /// What the wanted configuration makes of the root; `None` if it stays.
    async fn next_root(&self, cluster: &Cluster, wanted: &CaConfig) -> Result<Option<RootCa>, ControlError> {
        if has_key_of_present_root(&cluster.root_ca, &wanted.signing_ca_cert) {
            // Chains through two certificates of one key are not verified by Go.
            return Err(ControlError::invalid("Cannot update to a cert with an identical key"));
        }
        let credentials = self.credentials.current();
        let settled = identity::settle_root_ca(&cluster.root_ca, wanted, credentials.node.as_deref(), now()).await;
        settled.map_err(|refusal| match &refusal {
            CaRefusal::CrossSign { reason } => {
                tracing::error!(reason, "nobody vouched for the new root");
                ControlError::new(Code::Internal, refusal.to_string())
            }
            _ => ControlError::invalid(refusal.to_string()),
        })
    }
}

fn has_key_of_present_root(root: &RootCa, wanted: &[u8]) -> bool {
    let (present, wanted_issuer) = (IssuerInfo::of_ca(&root.ca_cert), IssuerInfo::of_ca(wanted));
    let same_key = matches!((present, wanted_issuer), (Ok(a), Ok(b)) if a.public_key == b.public_key);
    same_key && identity::normalize_certificates(&root.ca_cert) != identity::normalize_certificates(wanted)
}

/// What a cluster's spec must keep to, at init as at updates.
pub fn check_cluster_spec(spec: &ClusterSpec) -> Result<(), ControlError> {
    let expiry = spec.ca_config.node_cert_expiry;
    if expiry.is_some_and(|expiry| expiry.total_nanos() != 0 && expiry.seconds < MIN_CERT_EXPIRY_SECS) {
        return Err(ControlError::invalid("minimum certificate expiry time is: 1h0m0s"));
    }
    if spec.dispatcher.heartbeat_period.is_some_and(|period| period.total_nanos() < 0) {
        return Err(ControlError::invalid("heartbeat time period cannot be a negative duration"));
    }
    Ok(())
}

/// The key that locks this cluster's managers; `None` while they are not locked.
pub fn unlock_key(cluster: &Cluster) -> Option<[u8; 32]> {
    if !cluster.spec.encryption_config.auto_lock_managers {
        return None;
    }
    let key = cluster.unlock_keys.iter().find(|key| key.subsystem == UNLOCK_SUBSYSTEM)?;
    key.key.as_slice().try_into().ok()
}

/// Makes the key when the lock goes on or the key is rotated, and drops it when the lock goes off.
fn set_unlock_key(cluster: &mut Cluster, locked: bool, rotate: bool) {
    let has_key = cluster.unlock_keys.iter().any(|key| key.subsystem == UNLOCK_SUBSYSTEM);
    if locked && has_key && !rotate {
        return;
    }
    cluster.unlock_keys.retain(|key| key.subsystem != UNLOCK_SUBSYSTEM);
    if locked {
        cluster.unlock_keys.push(EncryptionKey {
            subsystem: UNLOCK_SUBSYSTEM.to_owned(),
            algorithm: EncryptionAlgorithm::Aes128Gcm,
            key: identity::new_kek().to_vec(),
            lamport_time: 0,
        });
    }
}
