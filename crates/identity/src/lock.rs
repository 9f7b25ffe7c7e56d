//! How a manager's key file is locked with the swarm's unlock key (KEK): the private key as PBES2-encrypted PKCS#8, the
//! headers as NaCl secretboxes. Parameters are SwarmKit's.

use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, Nonce, XSalsa20Poly1305};
use pkcs8::der::{Decode, Encode};
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf};
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, SecretDocument};
use swarm_proto::swarmkit as p;

use crate::random::random_bytes;

/// PEM label of a locked key.
pub(crate) const LOCKED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// PEM label of an open key.
const OPEN_LABEL: &str = "PRIVATE KEY";
/// Rounds of PBKDF2; the password is a random key, not a word.
const ITERATIONS: u32 = 2048;
/// `MaybeEncryptedRecord.algorithm` of what is not encrypted.
pub(crate) const PLAIN: i32 = 0;
/// `MaybeEncryptedRecord.algorithm` of a secretbox.
const SECRETBOX: i32 = 1;
/// `MaybeEncryptedRecord.algorithm` of a Fernet token, which SwarmKit writes in FIPS mode only.
pub(crate) const FERNET: i32 = 2;

/// Why a key file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The file is encrypted and no key was given.
    #[error("the node's key is locked")]
    Locked,
    /// The file is encrypted with another key.
    #[error("the unlock key is another one")]
    WrongKey,
    /// The file was written by a manager in FIPS mode.
    #[error("the raft key is encrypted with Fernet, as in FIPS mode, which is not supported")]
    Fernet,
    /// The file is damaged.
    #[error("the node's key file is damaged: {0}")]
    Damaged(&'static str),
}

const DAMAGED: KeyFileError = KeyFileError::Damaged("the private key is no PKCS#8");

/// Locks a PKCS#8 key in PEM.
pub(crate) fn lock_key(key_pem: &[u8], kek: &[u8; 32]) -> Result<Vec<u8>, KeyFileError> {
    let text = std::str::from_utf8(key_pem).map_err(|_| DAMAGED)?;
    let (_, document) = SecretDocument::from_pem(text).map_err(|_| DAMAGED)?;
    let (salt, iv): ([u8; 8], [u8; 16]) = (random_bytes(), random_bytes());
    let kdf =
        Pbkdf2Params { salt: &salt, iteration_count: ITERATIONS, key_length: Some(32), prf: Pbkdf2Prf::HmacWithSha1 };
    let parameters = Parameters { kdf: Kdf::Pbkdf2(kdf), encryption: EncryptionScheme::Aes256Cbc { iv: &iv } };
    let encrypted = parameters.encrypt(kek, document.as_bytes()).map_err(|_| DAMAGED)?;
    let info = EncryptedPrivateKeyInfo { encryption_algorithm: parameters.into(), encrypted_data: &encrypted };
    let der = info.to_der().map_err(|_| DAMAGED)?;
    let document = SecretDocument::try_from(der).map_err(|_| DAMAGED)?;
    Ok(document.to_pem(LOCKED_LABEL, LineEnding::LF).map_err(|_| DAMAGED)?.as_bytes().to_vec())
}

/// Opens a locked key; the PEM that comes out has no headers.
pub(crate) fn unlock_key(locked_pem: &[u8], kek: &[u8; 32]) -> Result<Vec<u8>, KeyFileError> {
    let text = std::str::from_utf8(locked_pem).map_err(|_| DAMAGED)?;
    let (_, document) = SecretDocument::from_pem(text).map_err(|_| DAMAGED)?;
    let info = EncryptedPrivateKeyInfo::from_der(document.as_bytes()).map_err(|_| DAMAGED)?;
    let opened = info.decrypt(kek).map_err(|_| KeyFileError::WrongKey)?;
    Ok(opened.to_pem(OPEN_LABEL, LineEnding::LF).map_err(|_| DAMAGED)?.as_bytes().to_vec())
}

/// A header's value, sealed.
pub(crate) fn seal(data: &[u8], kek: &[u8; 32]) -> Result<p::MaybeEncryptedRecord, KeyFileError> {
    let nonce: [u8; 24] = random_bytes();
    let sealed = XSalsa20Poly1305::new(kek.into()).encrypt(Nonce::from_slice(&nonce), data);
    let data = sealed.map_err(|_| KeyFileError::Damaged("the raft key cannot be sealed"))?;
    Ok(p::MaybeEncryptedRecord { algorithm: SECRETBOX, data, nonce: nonce.to_vec() })
}

/// A sealed header's value.
pub(crate) fn open(record: &p::MaybeEncryptedRecord, kek: &[u8; 32]) -> Result<Vec<u8>, KeyFileError> {
    if record.algorithm != SECRETBOX || record.nonce.len() != 24 {
        return Err(KeyFileError::Damaged("the raft key is sealed in an unknown way"));
    }
    let opened = XSalsa20Poly1305::new(kek.into()).decrypt(Nonce::from_slice(&record.nonce), record.data.as_slice());
    opened.map_err(|_| KeyFileError::WrongKey)
}
