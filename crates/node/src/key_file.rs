//! Keeps the node's key file as the cluster wants it: locked with the current unlock key, or open. The key of the raft
//! log itself is not changed when managers are locked; who has read the open file before could read the log.

use identity::{CertificateFiles, KeyFile};
use manager::{Manager, Watch};

/// The key that locks this manager's file, by its own store.
pub(crate) fn unlock_key_of(manager: &Manager) -> Option<[u8; 32]> {
    manager.shared().view().the_cluster().and_then(|cluster| manager::unlock_key(cluster))
}

/// Rewrites the file whenever the cluster's unlock key is another one. Runs until dropped, or until the manager ends.
pub(crate) async fn keep(mut watch: Watch, files: CertificateFiles, mut key: KeyFile, mut kek: Option<[u8; 32]>) {
    loop {
        let wanted = watch.view.the_cluster().map(|cluster| (manager::unlock_key(cluster), cluster.meta.version.0));
        if let Some((wanted, version)) = wanted
            && wanted != kek
        {
            key.kek_version = version;
            match files.store_key(&key, wanted.as_ref()) {
                Ok(()) => kek = wanted,
                Err(error) => tracing::error!(%error, "the node's key file could not be locked anew"),
            }
        }
        if watch.next().await.is_none() {
            return;
        }
    }
}
