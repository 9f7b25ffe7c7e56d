//! The certificates folder of a swarm node: `swarm-root-ca.crt`, `swarm-node.crt`, `swarm-node.key`, each replaced
//! atomically.
//!
//! Key and certificate are two files, so a crash can fall between them. A certificate is therefore first laid down under
//! its temporary name, then the key is replaced, then the certificate renamed: whoever finds a certificate that does not
//! fit the key takes the temporary one, which does. SwarmKit has the same order, so either program can go on after the
//! other.
//!
//! ```text
//!   .swarm-node.crt := new   swarm-node.key := new   .swarm-node.crt -> swarm-node.crt
//!   old pair fits            temporary one fits      new pair fits
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::{ClusterId, NodeId, NodeRole, Timestamp};

use crate::bundle::{BundleError, RootBundle};
use crate::certificate::{self, CertificateError, PeerIdentity};
use crate::chain::{ChainError, Expiry, NodeCredential};
use crate::keys::KeyFile;
use crate::lock::KeyFileError;
use crate::pem;
use crate::signature;
use crate::tls::Credentials;

const ROOT: &str = "swarm-root-ca.crt";
const KEY: &str = "swarm-node.key";
const CERTIFICATE: &str = "swarm-node.crt";

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
    #[error("the node's certificate cannot be used")]
    Certificate(#[source] CertificateError),
    /// No certificate fits the key.
    #[error("certificate key mismatch")]
    Mismatch,
}

/// Why an identity on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The trust root cannot.
    #[error("the cluster's trust root cannot be used")]
    Roots(#[from] BundleError),
    /// The chain is not trusted, has expired, or is not for the key.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl NodeIdentity {
    /// Live credentials from what lies on disk. [`Expiry::Allow`] lets a node start that has to renew first.
    pub fn credentials(&self, now: Timestamp, expiry: Expiry) -> Result<Credentials, CredentialsError> {
        let roots = RootBundle::parse(&self.root_pem)?;
        let node = NodeCredential::load(&self.cert_pem, &self.key.node_key(), &roots, now, expiry)?;
        Ok(Credentials::new(roots, Some(node)))
    }
}

impl CertificateFiles {
    /// The files in a swarm's state folder.
    pub fn new(swarm_folder: &Path) -> Self {
        Self { folder: swarm_folder.join("certificates") }
    }

    /// Stores an identity so that a crash at any point leaves the old one or the new one.
    pub fn store(
        &self,
        root_pem: &[u8],
        cert_pem: &[u8],
        key: &KeyFile,
        kek: Option<&[u8; 32]>,
    ) -> Result<(), DiskError> {
        self.store_root(root_pem)?;
        self.store_pair(cert_pem, key, kek)
    }

    /// Stores the trust root.
    pub fn store_root(&self, root_pem: &[u8]) -> Result<(), DiskError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder);
        made.map_err(|source| DiskError::Io { path: self.folder.clone(), source })?;
        self.replace(ROOT, root_pem, 0o644)
    }

    /// Stores a renewed certificate and its key.
    pub fn store_pair(&self, cert_pem: &[u8], key: &KeyFile, kek: Option<&[u8; 32]>) -> Result<(), DiskError> {
        let key = key.encode(kek)?;
        self.write_temporary(CERTIFICATE, cert_pem, 0o644)?;
        self.replace(KEY, &key, 0o600)?;
        self.rename_temporary(CERTIFICATE)
    }

    /// The trust root, if there is one: a node that joins keeps it before it has a certificate.
    pub fn load_root(&self) -> Result<Option<Vec<u8>>, DiskError> {
        self.read_if_there(ROOT)
    }

    /// Whether a node's identity lies here, locked or not.
    pub fn exists(&self) -> bool {
        self.folder.join(KEY).exists()
            && [CERTIFICATE, ".swarm-node.crt"].iter().any(|name| self.folder.join(name).exists())
    }

    /// Writes the key file anew: locked, opened or with another key.
    pub fn store_key(&self, key: &KeyFile, kek: Option<&[u8; 32]>) -> Result<(), DiskError> {
        self.replace(KEY, &key.encode(kek)?, 0o600)
    }

    /// Loads the identity; `None` if there is no certificate. A locked key file needs its key. The chain is not verified
    /// here ([`NodeCredential::load`](crate::NodeCredential::load)), so that an expired one can be told from none.
    pub fn load(&self, kek: Option<&[u8; 32]>) -> Result<Option<NodeIdentity>, DiskError> {
        if !self.exists() {
            return Ok(None);
        }
        let root_pem = self.read(ROOT)?;
        let key = KeyFile::decode(&self.read(KEY)?, kek)?;
        let cert_pem = self.fitting_certificate(&key)?;
        let peer = PeerIdentity::from_pem(&cert_pem).map_err(DiskError::Certificate)?;
        Ok(Some(NodeIdentity {
            node_id: peer.node_id,
            role: peer.role,
            cluster_id: peer.cluster_id,
            expires: peer.not_after,
            root_pem,
            cert_pem,
            key,
        }))
    }

    /// The certificate that fits the key; the temporary one takes its place if it is that.
    fn fitting_certificate(&self, key: &KeyFile) -> Result<Vec<u8>, DiskError> {
        let current = self.read_if_there(CERTIFICATE)?;
        if let Some(pem) = &current
            && fits(pem, key)?
        {
            return Ok(pem.clone());
        }
        match self.read_if_there(".swarm-node.crt")? {
            Some(pem) if fits(&pem, key).unwrap_or(false) => {
                self.rename_temporary(CERTIFICATE)?;
                Ok(pem)
            }
            _ => Err(DiskError::Mismatch),
        }
    }

    fn read_if_there(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        match self.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(DiskError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        let path = self.folder.join(name);
        fs::read(&path).map_err(|source| DiskError::Io { path, source })
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
        self.write_temporary(name, bytes, mode)?;
        self.rename_temporary(name)
    }

    fn write_temporary(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
        let path = self.folder.join(format!(".{name}"));
        let write = || -> io::Result<()> {
            // A left-over may have another mode, or be half a certificate: begin with none.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| DiskError::Io { path: path.clone(), source })
    }

    fn rename_temporary(&self, name: &str) -> Result<(), DiskError> {
        let path = self.folder.join(name);
        let rename = || -> io::Result<()> {
            fs::rename(self.folder.join(format!(".{name}")), &path)?;
            File::open(&self.folder)?.sync_all()
        };
        rename().map_err(|source| DiskError::Io { path: path.clone(), source })
    }
}

/// Whether a certificate was made out for a key.
fn fits(cert_pem: &[u8], key: &KeyFile) -> Result<bool, DiskError> {
    let chain = pem::certificates(cert_pem).map_err(CertificateError::Unreadable);
    let chain = chain.map_err(DiskError::Certificate)?;
    let Some(leaf) = chain.first() else { return Ok(false) };
    let leaf = certificate::parse(leaf).map_err(DiskError::Certificate)?;
    let signing = key.node_key().signing().map_err(|_| KeyFileError::Damaged("the private key cannot be used"))?;
    Ok(leaf.public_key().raw == signature::public_key(&signing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RootAuthority;

    struct Case {
        _folder: tempfile::TempDir,
        path: PathBuf,
        files: CertificateFiles,
        root: RootAuthority,
    }

    const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 0 };

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let files = CertificateFiles::new(folder.path());
            let path = folder.path().join("certificates");
            Self { path, files, root: RootAuthority::generate(NOW).unwrap(), _folder: folder }
        }

        fn issue(&self, node: &str) -> (Vec<u8>, KeyFile) {
            let issued = self.root.issue(&node.into(), NodeRole::Manager, &"c1".into(), None, NOW).unwrap();
            (issued.cert_pem, KeyFile { key_pem: issued.key_pem, dek: Some([1; 32]), ..KeyFile::default() })
        }

        fn found(&self) -> Result<Option<String>, DiskError> {
            Ok(self.files.load(None)?.map(|identity| identity.node_id.to_string()))
        }
    }

    #[test]
    fn an_identity_comes_back_from_disk() {
        use std::os::unix::fs::PermissionsExt;
        let case = Case::new();
        assert!(case.files.load(None).unwrap().is_none() && !case.files.exists());
        let (cert, key) = case.issue("n1");
        case.files.store(&case.root.cert_pem, &cert, &key, None).unwrap();
        let found = case.files.load(None).unwrap().unwrap();
        assert_eq!((found.node_id.as_str(), found.cluster_id.as_str(), found.role), ("n1", "c1", NodeRole::Manager));
        assert_eq!(found.key, key);
        let credentials = found.credentials(NOW, Expiry::Refuse).unwrap();
        assert_eq!(credentials.current().node.as_ref().unwrap().identity().node_id.as_str(), "n1");
        let late = Timestamp { seconds: NOW.seconds + 2161 * 3600, nanos: 0 };
        let expired = found.credentials(late, Expiry::Refuse);
        assert!(matches!(expired, Err(CredentialsError::Chain(ChainError::Expired { .. }))));
        assert!(found.credentials(late, Expiry::Allow).unwrap().check_validity(late).is_err());
        for (name, mode) in [(ROOT, 0o644), (CERTIFICATE, 0o644), (KEY, 0o600)] {
            assert_eq!(fs::metadata(case.path.join(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
        case.files.store_key(&key, Some(&[3; 32])).unwrap();
        assert!(matches!(case.files.load(None), Err(DiskError::Key(KeyFileError::Locked))));
        assert_eq!(case.files.load(Some(&[3; 32])).unwrap().unwrap().key, key);
    }

    #[test]
    fn a_crash_at_any_point_leaves_one_pair() {
        let case = Case::new();
        let (old_cert, old_key) = case.issue("old");
        let (new_cert, new_key) = case.issue("new");
        case.files.store(&case.root.cert_pem, &old_cert, &old_key, None).unwrap();
        // Before the certificate was whole.
        fs::write(case.path.join(".swarm-node.crt"), &new_cert[..100]).unwrap();
        assert_eq!(case.found().unwrap().as_deref(), Some("old"));
        // Before the key.
        fs::write(case.path.join(".swarm-node.crt"), &new_cert).unwrap();
        fs::write(case.path.join(".swarm-node.key"), b"half a key").unwrap();
        assert_eq!(case.found().unwrap().as_deref(), Some("old"));
        // Between key and certificate.
        fs::write(case.path.join(KEY), new_key.encode(None).unwrap()).unwrap();
        assert_eq!(case.found().unwrap().as_deref(), Some("new"));
        assert!(!case.path.join(".swarm-node.crt").exists(), "it took its place");
        assert_eq!(case.found().unwrap().as_deref(), Some("new"));
        // The first pair of all, between key and certificate.
        fs::rename(case.path.join(CERTIFICATE), case.path.join(".swarm-node.crt")).unwrap();
        assert_eq!(case.found().unwrap().as_deref(), Some("new"));
        // Nothing fits.
        fs::write(case.path.join(CERTIFICATE), &old_cert).unwrap();
        assert!(matches!(case.found(), Err(DiskError::Mismatch)));
        // And a left-over does not stand in the way of the next.
        fs::write(case.path.join(".swarm-node.crt"), b"x").unwrap();
        case.files.store_pair(&old_cert, &old_key, None).unwrap();
        assert_eq!(case.found().unwrap().as_deref(), Some("old"));
    }
}
