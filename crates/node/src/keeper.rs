//! Who this node is, live and on disk: its certificate and key, the trust roots, the keys that lock a manager's files.
//! One owner of the key file; every change is on disk before it counts.
//!
//! A worker's key file is never locked and holds no key of a raft log: nobody could unlock it, and there is no log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use identity::{
    CertificateFiles, ChainError, Credentials, DiskError, Expiry, Granted, KeyFile, KeyFileError, NodeCredential,
    NodeKey, RootBundle, UnlockKey, system_now,
};
use model::{ClusterId, NodeId, NodeRole, NodeTlsInfo, Timestamp};
use tokio::sync::watch;

/// The node's identity.
pub(crate) struct Keeper {
    files: CertificateFiles,
    credentials: Credentials,
    tls_info: watch::Sender<Option<NodeTlsInfo>>,
    /// Counts the demands for another key of the raft log.
    rotations: watch::Sender<u64>,
    held: Mutex<Held>,
}

struct Held {
    key: KeyFile,
    kek: Option<[u8; 32]>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// A file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The folder holds no certificate.
    #[error("the node's certificate is missing")]
    Missing,
    /// The trust roots cannot be read.
    #[error(transparent)]
    Roots(#[from] identity::BundleError),
    /// The certificate is not trusted, or has expired.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Keeper {
    /// Opens what is on disk; a locked key file needs its key.
    pub(crate) fn open(files: CertificateFiles, kek: Option<[u8; 32]>, expiry: Expiry) -> Result<Self, KeeperError> {
        // An open file is locked with nothing, whatever was given.
        let (found, kek) = match files.load(None) {
            Err(DiskError::Key(KeyFileError::Locked)) if kek.is_some() => (files.load(kek.as_ref())?, kek),
            found => (found?, None),
        };
        let identity = found.ok_or(KeeperError::Missing)?;
        let roots = RootBundle::parse(&identity.root_pem)?;
        let key = NodeKey { pem: identity.key.key_pem.clone() };
        let credential = NodeCredential::load(&identity.cert_pem, &key, &roots, system_now(), expiry)?;
        Ok(Self::of(files, roots, credential, identity.key, kek))
    }

    /// Keeps the first certificate of a node that joins.
    pub(crate) fn create(files: CertificateFiles, roots: RootBundle, granted: Granted) -> Result<Self, KeeperError> {
        let Granted { credential, key, unlock_key } = granted;
        let held = Held { key: KeyFile::default(), kek: None }.with(key, credential.identity().role, &unlock_key);
        files.store(roots.pem(), credential.chain_pem(), &held.key, held.kek.as_ref())?;
        Ok(Self::of(files, roots, credential, held.key, held.kek))
    }

    fn of(
        files: CertificateFiles,
        roots: RootBundle,
        credential: NodeCredential,
        key: KeyFile,
        kek: Option<[u8; 32]>,
    ) -> Self {
        let tls_info = watch::Sender::new(Some(credential.tls_info().clone()));
        let credentials = Credentials::new(roots, Some(credential));
        Self { files, credentials, tls_info, rotations: watch::Sender::new(0), held: Mutex::new(Held { key, kek }) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live credentials.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What the node tells of its certificate, as it changes.
    pub(crate) fn tls_info(&self) -> watch::Receiver<Option<NodeTlsInfo>> {
        self.tls_info.subscribe()
    }

    /// CN.
    pub(crate) fn node_id(&self) -> NodeId {
        self.identity(|identity| identity.node_id.clone())
    }

    /// O.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.identity(|identity| identity.cluster_id.clone())
    }

    /// OU.
    pub(crate) fn role(&self) -> NodeRole {
        self.identity(|identity| identity.role)
    }

    /// The certificate's life.
    pub(crate) fn validity(&self) -> (Timestamp, Timestamp) {
        self.identity(|identity| (identity.not_before, identity.not_after))
    }

    fn identity<T>(&self, read: impl Fn(&identity::PeerIdentity) -> T) -> T {
        let state = self.credentials.current();
        let node = state.node.as_ref().expect("a keeper is made with a certificate and never without one");
        read(node.identity())
    }

    /// Takes a renewed certificate.
    pub(crate) fn renew(&self, granted: Granted) -> Result<(), KeeperError> {
        let Granted { credential, key, unlock_key } = granted;
        let mut held = self.held();
        let new = held.with(key, credential.identity().role, &unlock_key);
        self.files.store_pair(credential.chain_pem(), &new.key, new.kek.as_ref())?;
        *held = new;
        drop(held);
        // It may have been locked in passing.
        self.rotations.send_modify(|count| *count += 1);
        self.credentials.set_node(credential);
        self.publish();
        Ok(())
    }

    /// Trusts another bundle, if this node's own certificate leads to it.
    pub(crate) fn set_roots(&self, pem: &[u8]) -> Result<(), KeeperError> {
        if self.credentials.current().roots.pem() == pem {
            return Ok(());
        }
        let roots = RootBundle::parse(pem)?;
        self.credentials.set_roots(roots, system_now())?;
        self.files.store_root(pem)?;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let state = self.credentials.current();
        let info = state.node.as_ref().map(|node| node.tls_info().clone());
        self.tls_info.send_if_modified(|held| {
            let changed = *held != info;
            *held = info;
            changed
        });
    }

    /// What locks the key file now.
    pub(crate) fn kek(&self) -> Option<[u8; 32]> {
        self.held().kek
    }

    /// Locks the key file with the cluster's key, or opens it. Older news than what is known are ignored.
    pub(crate) fn relock(&self, unlock_key: &UnlockKey) -> Result<Relocked, KeeperError> {
        let mut held = self.held();
        let (new, relocked) = held.relocked(unlock_key);
        if relocked != Relocked::Unchanged {
            self.files.store_key(&new.key, new.kek.as_ref())?;
            *held = new;
        }
        drop(held);
        if relocked == Relocked::NewlyLocked {
            self.rotations.send_modify(|count| *count += 1);
        }
        Ok(relocked)
    }

    /// Tells of each demand for another key of the raft log.
    pub(crate) fn rotations(&self) -> watch::Receiver<u64> {
        self.rotations.subscribe()
    }

    /// The keys of the raft log, made if there are none yet.
    pub(crate) fn raft_keys(&self) -> Result<RaftKeys, KeeperError> {
        let mut held = self.held();
        if held.key.dek.is_none() {
            let mut key = held.key.clone();
            key.dek = Some(identity::new_dek());
            self.files.store_key(&key, held.kek.as_ref())?;
            held.key = key;
        }
        let current = held.key.dek.expect("made above if it was missing");
        Ok(RaftKeys { current, pending: held.key.dek_pending, needs_rotation: held.key.dek_needs_rotation })
    }

    /// Makes the next key of the raft log; it is on disk before an entry is written with it.
    pub(crate) fn begin_rotation(&self) -> Result<[u8; 32], KeeperError> {
        let mut held = self.held();
        let mut key = held.key.clone();
        let next = *key.dek_pending.get_or_insert_with(identity::new_dek);
        // A lock that comes while the key changes sets it again.
        key.dek_needs_rotation = false;
        self.files.store_key(&key, held.kek.as_ref())?;
        held.key = key;
        Ok(next)
    }

    /// Nothing on disk is written with the old key any more.
    pub(crate) fn end_rotation(&self) -> Result<(), KeeperError> {
        let mut held = self.held();
        let mut key = held.key.clone();
        if let Some(next) = key.dek_pending.take() {
            key.dek = Some(next);
            self.files.store_key(&key, held.kek.as_ref())?;
            held.key = key;
        }
        Ok(())
    }
}

/// What a change of the cluster's unlock key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relocked {
    /// Nothing.
    Unchanged,
    /// The file is locked with another key, or open.
    Changed,
    /// The file was open and is locked.
    NewlyLocked,
}

/// The keys of the raft log.
pub(crate) struct RaftKeys {
    pub(crate) current: [u8; 32],
    pub(crate) pending: Option<[u8; 32]>,
    pub(crate) needs_rotation: bool,
}

impl Held {
    /// With the cluster's unlock key. A version that is older, or none at all (a manager that knows no unlock keys), says
    /// nothing.
    fn relocked(&self, unlock_key: &UnlockKey) -> (Self, Relocked) {
        let (mut key, kek) = (self.key.clone(), unlock_key.key);
        if kek == self.kek || unlock_key.version == 0 || unlock_key.version < key.kek_version {
            return (Self { key, kek: self.kek }, Relocked::Unchanged);
        }
        key.kek_version = unlock_key.version;
        if self.kek.is_some() || kek.is_none() {
            return (Self { key, kek }, Relocked::Changed);
        }
        // Whoever could read the open file must not be able to read what the log says from now on.
        key.dek_needs_rotation = key.dek.is_some();
        (Self { key, kek }, Relocked::NewlyLocked)
    }

    /// With another key for TLS.
    fn with(&self, key: NodeKey, role: NodeRole, unlock_key: &UnlockKey) -> Self {
        match role {
            NodeRole::Manager => {
                let (held, _) = self.relocked(unlock_key);
                Self { key: KeyFile { key_pem: key.pem, ..held.key }, kek: held.kek }
            }
            NodeRole::Worker => Self { key: KeyFile { key_pem: key.pem, ..KeyFile::default() }, kek: None },
        }
    }
}
