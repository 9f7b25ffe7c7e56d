//! The trust roots of a cluster: one certificate, or several while a root is replaced.

use model::Timestamp;
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::{self, CertificateError, seconds};
use crate::pem;
use crate::token;

/// Most certificates in a bundle.
pub const MAX_ROOTS: usize = 32;

/// Certificates that are trusted, as they were given.
#[derive(Clone, Debug)]
pub struct RootBundle {
    pem: Vec<u8>,
    roots: Vec<Root>,
}

#[derive(Clone, Debug)]
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// Why a text is no bundle of trust roots.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Nothing in it.
    #[error("no valid root CA certificates found")]
    Empty,
    /// More than [`MAX_ROOTS`].
    #[error("{0} root certificates, at most {MAX_ROOTS}")]
    TooMany(usize),
    /// A certificate cannot be read.
    #[error("invalid root certificates")]
    Certificate(#[from] CertificateError),
    /// A certificate is no CA's.
    #[error("certificate not a CA")]
    NotCa,
}

impl RootBundle {
    /// Reads a bundle. Whether its certificates are valid at some time is asked when a chain is verified.
    pub fn parse(bundle_pem: &[u8]) -> Result<Self, BundleError> {
        let found = pem::certificates(bundle_pem).map_err(CertificateError::Unreadable)?;
        if found.len() > MAX_ROOTS {
            return Err(BundleError::TooMany(found.len()));
        }
        let mut roots = Vec::new();
        for der in found {
            let parsed = certificate::parse(&der)?;
            if !parsed.is_ca() {
                return Err(BundleError::NotCa);
            }
            let not_before = seconds(parsed.validity().not_before.timestamp());
            let not_after = seconds(parsed.validity().not_after.timestamp());
            let anchor = webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned());
            let anchor = anchor.map_err(|error| CertificateError::Unreadable(error.to_string()))?;
            roots.push(Root { der, anchor, not_before, not_after });
        }
        if roots.is_empty() {
            return Err(BundleError::Empty);
        }
        Ok(Self { pem: bundle_pem.to_vec(), roots })
    }

    /// The text, byte for byte as it was given: join tokens hold its digest.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The certificates.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// `sha256:<hex>` of the text.
    pub fn hash(&self) -> String {
        token::ca_cert_hash(&self.pem)
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> [u8; 32] {
        digest(&SHA256, &self.pem).as_ref().try_into().unwrap_or_default()
    }

    /// The anchors that are valid at `now`. The library takes an anchor for valid at all times; a root that has expired
    /// ends its cluster, as it does with dockerd.
    pub(crate) fn anchors_at(&self, now: Timestamp) -> Vec<TrustAnchor<'static>> {
        let valid = self.roots.iter().filter(|root| root.not_before <= now && now <= root.not_after);
        valid.map(|root| root.anchor.clone()).collect()
    }

    /// The certificate of the root with this name, DER.
    pub(crate) fn by_subject(&self, subject: &[u8]) -> Option<&CertificateDer<'static>> {
        self.certificates().find(|der| certificate::parse(der).is_ok_and(|root| root.subject().as_raw() == subject))
    }
}
