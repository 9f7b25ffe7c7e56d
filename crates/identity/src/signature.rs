//! Signatures over certificates and requests: what may sign, and whether it did. SHA-256 and SHA-384 with ECDSA (P-256,
//! P-384) or RSA of 2048 bits and more. P-521 is missing because no provider of this program has it.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::{AlgorithmIdentifier, PrivateKeyDer, alg_id};
use rustls::sign::SigningKey;

use crate::der;
use crate::pem;

/// A private key that can sign.
pub(crate) type Key = Arc<dyn SigningKey>;

/// What a CA's key may sign with.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// Reads a private key; its text tells what is wrong with it.
pub(crate) fn read_key(key_pem: &[u8]) -> Result<Key, String> {
    from_der(&pem::private_key(key_pem)?)
}

/// A private key from DER.
pub(crate) fn from_der(der: &PrivateKeyDer<'_>) -> Result<Key, String> {
    rustls::crypto::ring::sign::any_supported_type(der).map_err(|error| error.to_string())
}

/// The key's public half, DER SubjectPublicKeyInfo.
pub(crate) fn public_key(key: &Key) -> Vec<u8> {
    key.public_key().map(|spki| spki.to_vec()).unwrap_or_default()
}

/// Signs: `tbs`, the algorithm and the signature in one SEQUENCE. `build` gets the algorithm, since a certificate names
/// it inside, too.
pub(crate) fn sign(key: &Key, build: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Vec<u8>, String> {
    let signer = key.choose_scheme(SCHEMES).ok_or("unsupported key")?;
    let id: AlgorithmIdentifier = match signer.scheme() {
        SignatureScheme::ECDSA_NISTP256_SHA256 => alg_id::ECDSA_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384 => alg_id::ECDSA_SHA384,
        _ => alg_id::RSA_PKCS1_SHA256,
    };
    let algorithm = der::sequence(&[id.as_ref()]);
    let tbs = build(&algorithm);
    let signature = signer.sign(&tbs).map_err(|error| error.to_string())?;
    Ok(der::sequence(&[&tbs, &algorithm, &der::bit_string(&signature)]))
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The structure around it cannot be read.
    #[error("malformed signed structure")]
    Malformed,
    /// Its algorithm or the key's kind is not supported.
    #[error("unsupported signature algorithm")]
    Unsupported,
    /// It was not made with this key, or over something else.
    #[error("the signature is wrong")]
    Wrong,
}

/// Whether `signed` (a certificate or a request: content, algorithm, signature) was signed with the key of `spki`.
pub(crate) fn verify(signed: &[u8], spki: &[u8]) -> Result<(), SignatureError> {
    let parts = der::read_sequence(signed).ok_or(SignatureError::Malformed)?;
    let key = der::read_sequence(spki).ok_or(SignatureError::Malformed)?;
    let ([content, algorithm, signature], [key_algorithm, key_bits]) = (parts.as_slice(), key.as_slice()) else {
        return Err(SignatureError::Malformed);
    };
    let signature = der::read_bit_string(signature).ok_or(SignatureError::Malformed)?;
    let key_bits = der::read_bit_string(key_bits).ok_or(SignatureError::Malformed)?;
    let mut outcome = SignatureError::Unsupported;
    for candidate in webpki::ALL_VERIFICATION_ALGS {
        let fits = candidate.signature_alg_id().as_ref() == algorithm.content
            && candidate.public_key_alg_id().as_ref() == key_algorithm.content;
        if fits {
            match candidate.verify_signature(key_bits, content.raw, signature) {
                Ok(()) => return Ok(()),
                Err(_) => outcome = SignatureError::Wrong,
            }
        }
    }
    Err(outcome)
}
