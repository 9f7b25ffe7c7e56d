//! Encryption at rest: NaCl secretbox records, as SwarmKit writes them.

use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use prost::Message;
use ring::rand::{SecureRandom, SystemRandom};
use swarm_proto::swarmkit::MaybeEncryptedRecord;

/// SwarmKit's number for plain records.
const PLAIN: i32 = 0;
/// SwarmKit's number for secretbox.
const SECRETBOX: i32 = 1;

/// The key that encrypts the log and the snapshots.
#[derive(Clone)]
pub struct Dek(XSalsa20Poly1305);

/// Why a record could not be read or written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The bytes are no record.
    #[error("not an encrypted record")]
    Malformed,
    /// The key is another one, or the record was changed.
    #[error("the record cannot be decrypted with this key")]
    WrongKey,
    /// A form that is not built.
    #[error("the record is encrypted in a form {0} that is not supported")]
    Unsupported(i32),
    /// Encryption failed.
    #[error("the record could not be encrypted")]
    Encrypt,
}

impl Dek {
    /// From 32 bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(XSalsa20Poly1305::new(Key::from_slice(key)))
    }

    /// A record of `plain`.
    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, CipherError> {
        let mut nonce = [0; 24];
        SystemRandom::new().fill(&mut nonce).map_err(|_| CipherError::Encrypt)?;
        let data = self.0.encrypt(Nonce::from_slice(&nonce), plain).map_err(|_| CipherError::Encrypt)?;
        Ok(MaybeEncryptedRecord { algorithm: SECRETBOX, data, nonce: nonce.to_vec() }.encode_to_vec())
    }

    /// What a record holds.
    pub(crate) fn open(&self, record: &[u8]) -> Result<Vec<u8>, CipherError> {
        let record = MaybeEncryptedRecord::decode(record).map_err(|_| CipherError::Malformed)?;
        match record.algorithm {
            PLAIN => Ok(record.data),
            SECRETBOX if record.nonce.len() == 24 => {
                let opened = self.0.decrypt(Nonce::from_slice(&record.nonce), record.data.as_slice());
                opened.map_err(|_| CipherError::WrongKey)
            }
            SECRETBOX => Err(CipherError::Malformed),
            other => Err(CipherError::Unsupported(other)),
        }
    }
}

/// The key that new records get, and the one that older records may still have.
#[derive(Clone)]
pub(crate) struct Keys {
    current: Dek,
    older: Option<Dek>,
}

impl Keys {
    pub(crate) fn new(current: Dek, older: Option<Dek>) -> Self {
        Self { current, older }
    }

    pub(crate) fn current(&self) -> &Dek {
        &self.current
    }

    /// What a record holds, whichever key it has.
    pub(crate) fn open(&self, record: &[u8]) -> Result<Vec<u8>, CipherError> {
        match (self.current.open(record), &self.older) {
            (Err(CipherError::WrongKey), Some(older)) => older.open(record),
            (opened, _) => opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_open_with_their_key_only() {
        let dek = Dek::new(&[1; 32]);
        let record = dek.seal(b"secret").unwrap();
        assert_eq!(dek.open(&record).unwrap(), b"secret");
        assert_eq!(Dek::new(&[2; 32]).open(&record), Err(CipherError::WrongKey));
        assert!(dek.open(b"\xff\xff").is_err());
        let keys = Keys::new(Dek::new(&[2; 32]), Some(dek));
        assert_eq!(keys.open(&record).unwrap(), b"secret");
        assert_eq!(keys.open(&keys.current().seal(b"new").unwrap()).unwrap(), b"new");
    }
}
