//! A node's key and its request for a certificate; and the reading of such a request, which takes nothing from it but a
//! public key whose owner signed it.

use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::der;
use crate::pem;
use crate::signature::{self, SignatureError};

/// A node's private key.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeKey {
    /// PKCS#8 PEM.
    pub pem: Vec<u8>,
}

/// Why a request cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It cannot be read.
    #[error("could not parse the certificate request: {0}")]
    Unreadable(String),
    /// Who sent it does not hold the key, or the key is of a kind that is not supported.
    #[error("the certificate request is not signed with its key: {0}")]
    Signature(SignatureError),
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey")
    }
}

impl NodeKey {
    /// A new P-256 key.
    ///
    /// # Panics
    /// When the kernel gives no randomness.
    pub fn generate() -> Self {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let der = made.expect("the kernel gives random bytes");
        Self { pem: pem::encode("PRIVATE KEY", der.as_ref()) }
    }

    /// A request for a certificate with this key, PEM. Its subject is empty: the CA decides.
    pub fn request(&self) -> Result<Vec<u8>, String> {
        let key = signature::read_key(&self.pem)?;
        let spki = signature::public_key(&key);
        let build =
            |_: &[u8]| der::sequence(&[&der::integer(&[0]), &der::sequence(&[]), &spki, &der::explicit(0, &[])]);
        Ok(pem::encode("CERTIFICATE REQUEST", &signature::sign(&key, build)?))
    }

    /// The key as TLS uses it.
    pub(crate) fn signing(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, String> {
        signature::read_key(&self.pem)
    }
}

/// The public key of a request, DER SubjectPublicKeyInfo, after its signature was checked.
pub(crate) fn public_key(csr_pem: &[u8]) -> Result<Vec<u8>, CsrError> {
    let der = pem::request(csr_pem).map_err(CsrError::Unreadable)?;
    let parsed = match X509CertificationRequest::from_der(&der) {
        Ok(([], parsed)) => parsed,
        Ok(_) => return Err(CsrError::Unreadable("trailing bytes".to_owned())),
        Err(error) => return Err(CsrError::Unreadable(error.to_string())),
    };
    let spki = parsed.certification_request_info.subject_pki.raw;
    signature::verify(&der, spki).map_err(CsrError::Signature)?;
    Ok(spki.to_vec())
}
