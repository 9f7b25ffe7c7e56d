//! The node's key file: PKCS#8 in PEM, with headers that carry the key of the raft log; locked with the swarm's unlock
//! key if managers are to be locked.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use prost::Message;
use swarm_proto::swarmkit as p;

use crate::lock::{self, KeyFileError};

/// Opens an unlock key's text.
const UNLOCK_PREFIX: &str = "SWMKEY-1-";
/// The header with the key of the raft log.
const DEK_HEADER: &str = "raft-dek";
/// The header with the version of the key that locks the file.
const KEK_VERSION_HEADER: &str = "kek-version";

/// What is in the key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The node's key, PKCS#8 PEM without headers.
    pub key_pem: Vec<u8>,
    /// The key that encrypts the raft log; managers only.
    pub dek: Option<[u8; 32]>,
    /// Version of the key that locks the file; 0 when it was never locked.
    pub kek_version: u64,
}

impl KeyFile {
    /// The file's text, locked if there is a key for it.
    pub fn encode(&self, kek: Option<&[u8; 32]>) -> Result<Vec<u8>, KeyFileError> {
        let pem = match kek {
            Some(kek) => lock::lock_key(&self.key_pem, kek)?,
            None => self.key_pem.clone(),
        };
        let text = String::from_utf8_lossy(&pem);
        let mut out = String::new();
        for line in text.lines() {
            out.push_str(line);
            out.push('\n');
            if line.starts_with("-----BEGIN ") {
                out.push_str(&format!("{KEK_VERSION_HEADER}: {}\n", self.kek_version));
                if let Some(dek) = &self.dek {
                    let record = match kek {
                        Some(kek) => lock::seal(dek, kek)?,
                        None => p::MaybeEncryptedRecord { algorithm: 0, data: dek.to_vec(), nonce: Vec::new() },
                    };
                    out.push_str(&format!("{DEK_HEADER}: {}\n", STANDARD.encode(record.encode_to_vec())));
                }
                out.push('\n');
            }
        }
        Ok(out.into_bytes())
    }

    /// Reads the file's text; a locked one needs its key.
    pub fn decode(text: &[u8], kek: Option<&[u8; 32]>) -> Result<Self, KeyFileError> {
        let text = std::str::from_utf8(text).map_err(|_| KeyFileError::Damaged("not text"))?;
        let mut lines = text.lines();
        let begin = lines.next().ok_or(KeyFileError::Damaged("empty"))?;
        let locked = begin == format!("-----BEGIN {}-----", lock::LOCKED_LABEL);
        if locked && kek.is_none() {
            return Err(KeyFileError::Locked);
        }
        if !begin.starts_with("-----BEGIN ") {
            return Err(KeyFileError::Damaged("no PEM block"));
        }
        let mut headers = BTreeMap::new();
        let mut key = format!("{begin}\n");
        for line in lines {
            match line.split_once(": ") {
                Some((name, value)) => drop(headers.insert(name, value)),
                None if line.is_empty() => {}
                None => {
                    key.push_str(line);
                    key.push('\n');
                }
            }
        }
        let kek_version = headers.get(KEK_VERSION_HEADER).and_then(|text| text.parse().ok()).unwrap_or(0);
        let dek = headers.get(DEK_HEADER).map(|text| decode_dek(text, kek)).transpose()?;
        let key_pem = match kek {
            Some(kek) if locked => lock::unlock_key(key.as_bytes(), kek)?,
            _ => key.into_bytes(),
        };
        Ok(Self { key_pem, dek, kek_version })
    }
}

fn decode_dek(text: &str, kek: Option<&[u8; 32]>) -> Result<[u8; 32], KeyFileError> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyFileError::Damaged("the raft key is not base64"))?;
    let record = p::MaybeEncryptedRecord::decode(bytes.as_slice());
    let record = record.map_err(|_| KeyFileError::Damaged("the raft key is no record"))?;
    let data = match (record.algorithm, kek) {
        (0, _) => record.data,
        (_, Some(kek)) => lock::open(&record, kek)?,
        (_, None) => return Err(KeyFileError::Locked),
    };
    data.try_into().map_err(|_| KeyFileError::Damaged("the raft key has not 32 bytes"))
}

/// The text that users keep: `SWMKEY-1-…`.
pub fn unlock_key_text(key: &[u8]) -> String {
    format!("{UNLOCK_PREFIX}{}", STANDARD_NO_PAD.encode(key))
}

/// The key of a user's text; `None` if it is none.
pub fn parse_unlock_key(text: &str) -> Option<[u8; 32]> {
    let key = STANDARD_NO_PAD.decode(text.strip_prefix(UNLOCK_PREFIX)?).ok()?;
    key.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_comes_back() {
        let root = crate::RootAuthority::generate().unwrap();
        let issued = root.issue(&"n1".into(), model::NodeRole::Manager, &"c1".into(), None).unwrap();
        let file = KeyFile { key_pem: issued.key_pem, dek: Some([7; 32]), kek_version: 3 };
        let open = file.encode(None).unwrap();
        assert_eq!(KeyFile::decode(&open, None).unwrap(), file);
        assert_eq!(KeyFile::decode(&open, Some(&[1; 32])).unwrap(), file, "a key for an open file does no harm");
        let locked = file.encode(Some(&[1; 32])).unwrap();
        assert!(locked.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert_eq!(KeyFile::decode(&locked, Some(&[1; 32])).unwrap(), file);
        assert_eq!(KeyFile::decode(&locked, None), Err(KeyFileError::Locked));
        assert_eq!(KeyFile::decode(&locked, Some(&[2; 32])), Err(KeyFileError::WrongKey));
        assert!(KeyFile::decode(b"x", None).is_err());
    }

    #[test]
    fn unlock_keys_come_back() {
        let text = unlock_key_text(&[9; 32]);
        assert_eq!(parse_unlock_key(&text), Some([9; 32]));
        assert_eq!(parse_unlock_key("SWMKEY-1-x"), None);
    }
}
