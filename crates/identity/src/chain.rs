//! Whether a chain of certificates leads to a trust root, and whose it is. Pure: the time is a parameter.

use std::sync::Arc;

use model::{NodeTlsInfo, Timestamp};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

use crate::bundle::RootBundle;
use crate::certificate::{self, CertificateError, PeerIdentity};
use crate::csr::NodeKey;
use crate::pem;
use crate::signature;

/// Most certificates in a chain; more are refused unread.
pub(crate) const MAX_CHAIN: usize = 8;

/// What a certificate is to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To be called.
    Server,
    /// To call.
    Client,
    /// Both, as a node's must be.
    Both,
}

/// What an expired certificate counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing.
    Refuse,
    /// What it was: a node with an expired certificate still knows who it is, and that it must renew.
    Allow,
}

/// Why a chain is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate.
    #[error("no certificates to validate")]
    Empty,
    /// Too many of them.
    #[error("{0} certificates in a chain, at most {MAX_CHAIN}")]
    TooLong(usize),
    /// A certificate of the chain cannot be read, or names no node.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A certificate's life is over. The text begins as dockerd's.
    #[error("certificate ({position} - {name}) not valid after {}, and it is currently {}", date(*not_after), date(*now))]
    Expired {
        /// Which of the chain, 1 is the leaf.
        position: usize,
        /// Its CN.
        name: String,
        /// Its end.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// A certificate's life has not begun: a clock is wrong.
    #[error("certificate ({position} - {name}) not valid before {}, and it is currently {}", date(*not_before), date(*now))]
    NotYetValid {
        /// Which of the chain, 1 is the leaf.
        position: usize,
        /// Its CN.
        name: String,
        /// Its begin.
        not_before: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// No trust root is valid at this time.
    #[error("no root CA certificate is valid at {}", date(*now))]
    NoRoot {
        /// The clock.
        now: Timestamp,
    },
    /// It leads to no trust root.
    #[error("x509: certificate signed by unknown authority")]
    UnknownAuthority,
    /// It must not be used for this.
    #[error("x509: certificate specifies an incompatible key usage")]
    Usage,
    /// The key is another one's.
    #[error("certificate key mismatch")]
    KeyMismatch,
    /// The key cannot be read.
    #[error("malformed private key")]
    Key(String),
    /// Anything else that the rules for certificates forbid.
    #[error("the certificate is not valid: {0}")]
    Invalid(String),
}

/// A node's own chain with its key, checked against the trust roots.
#[derive(Clone)]
pub struct NodeCredential {
    certified: Arc<CertifiedKey>,
    identity: PeerIdentity,
    chain_pem: Vec<u8>,
    issuer: NodeTlsInfo,
}

impl std::fmt::Debug for NodeCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCredential").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl NodeCredential {
    /// Checks a chain (leaf first, PEM) and its key.
    pub fn load(
        chain_pem: &[u8],
        key: &NodeKey,
        roots: &RootBundle,
        now: Timestamp,
        expiry: Expiry,
    ) -> Result<Self, ChainError> {
        let chain = pem::certificates(chain_pem).map_err(CertificateError::Unreadable)?;
        let identity = verify_chain(&chain, roots, now, expiry, Usage::Both)?;
        let signing = key.signing().map_err(ChainError::Key)?;
        let leaf = certificate::parse(&chain[0])?;
        if leaf.public_key().raw != signature::public_key(&signing) {
            return Err(ChainError::KeyMismatch);
        }
        let issuer = issuer_of(&chain, roots)?;
        let certified = Arc::new(CertifiedKey::new(chain, signing));
        Ok(Self { certified, identity, chain_pem: chain_pem.to_vec(), issuer })
    }

    /// Whose it is.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// The chain, PEM.
    pub fn chain_pem(&self) -> &[u8] {
        &self.chain_pem
    }

    /// What the node tells of its certificate: the roots it trusted when it was loaded, and who issued it.
    pub fn tls_info(&self) -> &NodeTlsInfo {
        &self.issuer
    }

    /// The same chain and key under other trust roots. An expired chain stays what it was.
    pub(crate) fn under(&self, roots: &RootBundle, now: Timestamp) -> Result<Self, ChainError> {
        let chain = &self.certified.cert;
        let identity = verify_chain(chain, roots, now, Expiry::Allow, Usage::Both)?;
        let issuer = issuer_of(chain, roots)?;
        Ok(Self { certified: self.certified.clone(), identity, chain_pem: self.chain_pem.clone(), issuer })
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// Checks a chain, leaf first, against trust roots, and tells whose it is.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    roots: &RootBundle,
    now: Timestamp,
    expiry: Expiry,
    usage: Usage,
) -> Result<PeerIdentity, ChainError> {
    let (leaf, intermediates) = chain.split_first().ok_or(ChainError::Empty)?;
    if chain.len() > MAX_CHAIN {
        return Err(ChainError::TooLong(chain.len()));
    }
    let identity = PeerIdentity::from_der(leaf)?;
    let now = match expiry {
        Expiry::Refuse => now,
        Expiry::Allow => now.min(identity.not_after),
    };
    check_life(1, leaf, now)?;
    trace(leaf, intermediates, roots, now, usage)?;
    Ok(identity)
}

/// Builds the path from `leaf` to a root.
pub(crate) fn trace(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootBundle,
    now: Timestamp,
    usage: Usage,
) -> Result<(), ChainError> {
    let invalid = |error: webpki::Error| ChainError::Invalid(error.to_string());
    let end = EndEntityCert::try_from(leaf).map_err(invalid)?;
    let anchors = roots.anchors_at(now);
    if anchors.is_empty() {
        return Err(ChainError::NoRoot { now });
    }
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.seconds.max(0).unsigned_abs()));
    let usages: &[KeyUsage] = match usage {
        Usage::Server => &[KeyUsage::server_auth()],
        Usage::Client => &[KeyUsage::client_auth()],
        Usage::Both => &[KeyUsage::server_auth(), KeyUsage::client_auth()],
    };
    for usage in usages {
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let path = end.verify_for_usage(algorithms, &anchors, intermediates, time, *usage, None, None);
        if let Err(error) = path {
            for (at, intermediate) in intermediates.iter().enumerate() {
                check_life(at + 2, intermediate, now)?;
            }
            return Err(match error {
                // All roots of SwarmKit have one name, so that another cluster's differs in its key only.
                webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                    ChainError::UnknownAuthority
                }
                webpki::Error::RequiredEkuNotFoundContext(_) => ChainError::Usage,
                other => ChainError::Invalid(other.to_string()),
            });
        }
    }
    Ok(())
}

/// Whether one certificate lives at `now`.
pub(crate) fn check_life(position: usize, der: &[u8], now: Timestamp) -> Result<(), ChainError> {
    let parsed = certificate::parse(der)?;
    let (not_before, not_after) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let name =
        || parsed.subject().iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default().to_owned();
    if now.seconds > not_after {
        return Err(ChainError::Expired { position, name: name(), not_after: certificate::seconds(not_after), now });
    }
    if now.seconds < not_before {
        let not_before = certificate::seconds(not_before);
        return Err(ChainError::NotYetValid { position, name: name(), not_before, now });
    }
    Ok(())
}

/// The issuer of the leaf as nodes report it: its name stands in the leaf, its key in the certificate of that name,
/// which is an intermediate or a root.
fn issuer_of(chain: &[CertificateDer<'_>], roots: &RootBundle) -> Result<NodeTlsInfo, ChainError> {
    let leaf = certificate::parse(&chain[0])?;
    let wanted = leaf.issuer().as_raw();
    let candidates = chain[1..].iter().map(|der| der.as_ref()).chain(roots.by_subject(wanted).map(|der| der.as_ref()));
    for der in candidates {
        let candidate = certificate::parse(der)?;
        let spki = candidate.public_key().raw;
        if candidate.subject().as_raw() == wanted && signature::verify(&chain[0], spki).is_ok() {
            return Ok(NodeTlsInfo {
                trust_root: roots.pem().to_vec(),
                cert_issuer_subject: wanted.to_vec(),
                cert_issuer_public_key: spki.to_vec(),
            });
        }
    }
    Err(ChainError::UnknownAuthority)
}

/// A time as Go prints it by RFC 1123.
fn date(at: Timestamp) -> String {
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(at.seconds) else { return at.seconds.to_string() };
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    let (weekday, day, month, year) = (&weekday[..3], at.day(), &month[..3], at.year());
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} UTC")
}
