//! The certificates folder of a swarm node: `swarm-root-ca.crt`, `swarm-node.crt`, `swarm-node.key`, each replaced
//! atomically.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::{ClusterId, NodeId, NodeRole, Timestamp};
use x509_parser::pem::Pem;

use crate::authority::role_name;
use crate::keys::KeyFile;
use crate::lock::KeyFileError;

/// Where a node keeps who it is.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    folder: PathBuf,
}

/// A node's identity as it lies on disk.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// CN.
    pub node_id: NodeId,
    /// OU.
    pub role: NodeRole,
    /// O.
    pub cluster_id: ClusterId,
    /// When the certificate expires.
    pub expires: Timestamp,
    /// The trust root, PEM.
    pub root_pem: Vec<u8>,
    /// The certificate, PEM.
    pub cert_pem: Vec<u8>,
    /// The key file.
    pub key: KeyFile,
}

/// Why an identity could not be stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file could not be read or written.
    #[error("{path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The certificate cannot be used.
    #[error("the node's certificate cannot be used: {0}")]
    Certificate(String),
}

impl CertificateFiles {
    /// The files in a swarm's state folder.
    pub fn new(swarm_folder: &Path) -> Self {
        Self { folder: swarm_folder.join("certificates") }
    }

    /// Stores an identity: root, key, then the certificate, so that a certificate is never without its key.
    pub fn store(
        &self,
        root_pem: &[u8],
        cert_pem: &[u8],
        key: &KeyFile,
        kek: Option<&[u8; 32]>,
    ) -> Result<(), DiskError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder);
        made.map_err(|source| DiskError::Io { path: self.folder.clone(), source })?;
        self.replace("swarm-root-ca.crt", root_pem, 0o644)?;
        self.replace("swarm-node.key", &key.encode(kek)?, 0o600)?;
        self.replace("swarm-node.crt", cert_pem, 0o644)
    }

    /// Writes the key file anew: locked, opened or with another key.
    pub fn store_key(&self, key: &KeyFile, kek: Option<&[u8; 32]>) -> Result<(), DiskError> {
        self.replace("swarm-node.key", &key.encode(kek)?, 0o600)
    }

    /// Loads the identity; `None` if there is no certificate. A locked key file needs its key.
    pub fn load(&self, kek: Option<&[u8; 32]>) -> Result<Option<NodeIdentity>, DiskError> {
        if !self.folder.join("swarm-node.crt").exists() {
            return Ok(None);
        }
        let root_pem = self.read("swarm-root-ca.crt")?;
        let cert_pem = self.read("swarm-node.crt")?;
        let key = KeyFile::decode(&self.read("swarm-node.key")?, kek)?;
        let bad = |text: &str| DiskError::Certificate(text.to_owned());
        let pem = Pem::iter_from_buffer(&cert_pem).next().and_then(Result::ok).ok_or_else(|| bad("no PEM block"))?;
        let leaf = pem.parse_x509().map_err(|error| DiskError::Certificate(error.to_string()))?;
        let subject = leaf.subject();
        let first = |mut parts: Vec<&str>| if parts.is_empty() { String::new() } else { parts.remove(0).to_owned() };
        let common = first(subject.iter_common_name().filter_map(|part| part.as_str().ok()).collect());
        let organization = first(subject.iter_organization().filter_map(|part| part.as_str().ok()).collect());
        let manager = role_name(NodeRole::Manager);
        let is_manager = subject.iter_organizational_unit().any(|part| part.as_str() == Ok(manager));
        let expires = Timestamp { seconds: leaf.validity().not_after.timestamp(), nanos: 0 };
        Ok(Some(NodeIdentity {
            node_id: common.into(),
            role: if is_manager { NodeRole::Manager } else { NodeRole::Worker },
            cluster_id: organization.into(),
            expires,
            root_pem,
            cert_pem,
            key,
        }))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        let path = self.folder.join(name);
        fs::read(&path).map_err(|source| DiskError::Io { path, source })
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
        let path = self.folder.join(name);
        let write = || -> io::Result<()> {
            let temporary = self.folder.join(format!(".{name}"));
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| DiskError::Io { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RootAuthority;

    #[test]
    fn an_identity_comes_back_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(folder.path());
        assert!(files.load(None).unwrap().is_none());
        let root = RootAuthority::generate().unwrap();
        let issued = root.issue(&"n1".into(), NodeRole::Manager, &"c1".into(), None).unwrap();
        let key = KeyFile { key_pem: issued.key_pem, dek: Some([1; 32]), kek_version: 0 };
        files.store(&root.cert_pem, &issued.cert_pem, &key, None).unwrap();
        let found = files.load(None).unwrap().unwrap();
        assert_eq!(found.node_id.as_str(), "n1");
        assert_eq!(found.cluster_id.as_str(), "c1");
        assert_eq!(found.role, NodeRole::Manager);
        assert_eq!(found.key, key);
    }
}
