//! The cluster object: its spec and the rotation of tokens and keys.

use model::{Cluster, ClusterSpec, EncryptionAlgorithm, EncryptionKey, ObjectVersion};
use tonic::Code;

use super::LocalControl;
use crate::error::ControlError;

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
    pub async fn update_cluster(
        &self,
        version: ObjectVersion,
        spec: ClusterSpec,
        rotation: KeyRotation,
    ) -> Result<(), ControlError> {
        check_cluster_spec(&spec)?;
        let written = self.writer.write(|transaction| {
            let stored = transaction.the_cluster().ok_or_else(|| ControlError::new(Code::NotFound, "no cluster"))?;
            let mut cluster = Cluster::clone(stored);
            if spec.annotations.name != cluster.spec.annotations.name {
                return Err(ControlError::invalid("modification of cluster name is not allowed"));
            }
            if changes_ca(&cluster, &spec) {
                let text = "root CA rotation is not built yet; see docs/compatibility.md";
                return Err(ControlError::new(Code::Unimplemented, text));
            }
            cluster.meta.version = version;
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

fn changes_ca(cluster: &Cluster, spec: &ClusterSpec) -> bool {
    let wanted = &spec.ca_config;
    let foreign = |pem: &[u8]| !pem.is_empty() && pem != cluster.root_ca.ca_cert;
    wanted.force_rotate != cluster.root_ca.last_forced_rotation
        || foreign(&wanted.signing_ca_cert)
        || wanted.external_cas != cluster.spec.ca_config.external_cas
}

/// Makes the key when the lock goes on or the key is rotated, and drops it when the lock goes off.
/// The key that locks this cluster's managers; `None` while they are not locked.
pub fn unlock_key(cluster: &Cluster) -> Option<[u8; 32]> {
    if !cluster.spec.encryption_config.auto_lock_managers {
        return None;
    }
    let key = cluster.unlock_keys.iter().find(|key| key.subsystem == UNLOCK_SUBSYSTEM)?;
    key.key.as_slice().try_into().ok()
}

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
