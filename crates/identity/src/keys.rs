//! The node's key file: PKCS#8 in PEM, with headers that carry the key of the raft log; locked with the swarm's unlock
//! key if managers are to be locked.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use prost::Message;
use swarm_proto::swarmkit as p;

use crate::csr::NodeKey;
use crate::lock::{self, KeyFileError};

/// Opens an unlock key's text.
const UNLOCK_PREFIX: &str = "SWMKEY-1-";
/// The header with the key of the raft log.
const DEK_HEADER: &str = "raft-dek";
/// The header with the key that is to follow it.
const PENDING_HEADER: &str = "raft-dek-pending";
/// The header that asks for yet another one after that.
const NEEDS_ROTATION_HEADER: &str = "raft-dek-needs-rotation";
/// The header with the version of the key that locks the file.
const KEK_VERSION_HEADER: &str = "kek-version";
/// Largest key file.
const MAX_KEY_FILE_BYTES: usize = 64 << 10;

/// What is in the key file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyFile {
    /// The node's key, PKCS#8 PEM without headers.
    pub key_pem: Vec<u8>,
    /// The key that encrypts the raft log; managers only.
    pub dek: Option<[u8; 32]>,
    /// The key that new entries are encrypted with until a snapshot has made the old one needless.
    pub dek_pending: Option<[u8; 32]>,
    /// Whether the key of the raft log must change once more after the pending one has taken over.
    pub dek_needs_rotation: bool,
    /// Version of the key that locks the file; 0 when it was never locked.
    pub kek_version: u64,
}

impl std::fmt::Debug for KeyFile {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("KeyFile");
        shown.field("dek", &self.dek.is_some()).field("dek_pending", &self.dek_pending.is_some());
        shown.field("dek_needs_rotation", &self.dek_needs_rotation).field("kek_version", &self.kek_version).finish()
    }
}

impl KeyFile {
    /// The file's text, locked if there is a key for it.
    pub fn encode(&self, kek: Option<&[u8; 32]>) -> Result<Vec<u8>, KeyFileError> {
        let pem = match kek {
            Some(kek) => lock::lock_key(&self.key_pem, kek)?,
            None => self.key_pem.clone(),
        };
        // In the order of their names, as Go writes them.
        let mut headers = vec![(KEK_VERSION_HEADER, self.kek_version.to_string())];
        for (name, dek) in [(DEK_HEADER, &self.dek), (PENDING_HEADER, &self.dek_pending)] {
            if let Some(dek) = dek {
                headers.push((name, encode_dek(dek, kek)?));
            }
        }
        if self.dek_needs_rotation {
            headers.push((NEEDS_ROTATION_HEADER, "true".to_owned()));
        }
        headers.sort_unstable();
        let text = String::from_utf8_lossy(&pem);
        let mut out = String::new();
        for line in text.lines() {
            out.push_str(line);
            out.push('\n');
            if line.starts_with("-----BEGIN ") {
                for (name, value) in &headers {
                    out.push_str(&format!("{name}: {value}\n"));
                }
                out.push('\n');
            }
        }
        Ok(out.into_bytes())
    }

    /// Reads the file's text; a locked one needs its key.
    pub fn decode(text: &[u8], kek: Option<&[u8; 32]>) -> Result<Self, KeyFileError> {
        if text.len() > MAX_KEY_FILE_BYTES {
            return Err(KeyFileError::Damaged("too large"));
        }
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
        let dek = |name| headers.get(name).map(|text| decode_dek(text, kek)).transpose();
        Ok(Self {
            dek: dek(DEK_HEADER)?,
            dek_pending: dek(PENDING_HEADER)?,
            dek_needs_rotation: headers.get(NEEDS_ROTATION_HEADER).is_some_and(|text| *text == "true"),
            kek_version: headers.get(KEK_VERSION_HEADER).and_then(|text| text.parse().ok()).unwrap_or(0),
            key_pem: match kek {
                Some(kek) if locked => lock::unlock_key(key.as_bytes(), kek)?,
                _ => key.into_bytes(),
            },
        })
    }

    /// Whether the file's text is locked.
    pub fn is_locked(text: &[u8]) -> bool {
        text.starts_with(format!("-----BEGIN {}-----", lock::LOCKED_LABEL).as_bytes())
    }

    /// The node's key, for TLS.
    pub fn node_key(&self) -> NodeKey {
        NodeKey { pem: self.key_pem.clone() }
    }
}

fn encode_dek(dek: &[u8; 32], kek: Option<&[u8; 32]>) -> Result<String, KeyFileError> {
    let record = match kek {
        Some(kek) => lock::seal(dek, kek)?,
        None => p::MaybeEncryptedRecord { algorithm: 0, data: dek.to_vec(), nonce: Vec::new() },
    };
    Ok(STANDARD.encode(record.encode_to_vec()))
}

fn decode_dek(text: &str, kek: Option<&[u8; 32]>) -> Result<[u8; 32], KeyFileError> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyFileError::Damaged("the raft key is not base64"))?;
    let record = p::MaybeEncryptedRecord::decode(bytes.as_slice());
    let record = record.map_err(|_| KeyFileError::Damaged("the raft key is no record"))?;
    let data = match (record.algorithm, kek) {
        (lock::PLAIN, _) => record.data,
        (lock::FERNET, _) => return Err(KeyFileError::Fernet),
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

    fn file() -> KeyFile {
        let key_pem = NodeKey::generate().pem;
        KeyFile { key_pem, dek: Some([7; 32]), kek_version: 3, ..KeyFile::default() }
    }

    #[test]
    fn a_key_file_comes_back() {
        let file = file();
        let open = file.encode(None).unwrap();
        assert_eq!(KeyFile::decode(&open, None).unwrap(), file);
        assert_eq!(KeyFile::decode(&open, Some(&[1; 32])).unwrap(), file, "a key for an open file does no harm");
        let locked = file.encode(Some(&[1; 32])).unwrap();
        assert!(locked.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert!(KeyFile::is_locked(&locked) && !KeyFile::is_locked(&open));
        assert_eq!(KeyFile::decode(&locked, Some(&[1; 32])).unwrap(), file);
        assert_eq!(KeyFile::decode(&locked, None), Err(KeyFileError::Locked));
        assert_eq!(KeyFile::decode(&locked, Some(&[2; 32])), Err(KeyFileError::WrongKey));
        assert!(KeyFile::decode(b"x", None).is_err());
        assert!(KeyFile::decode(&vec![b'-'; MAX_KEY_FILE_BYTES + 1], None).is_err());
    }

    #[test]
    fn all_headers_come_back_in_gos_order() {
        let file = KeyFile { dek_pending: Some([8; 32]), dek_needs_rotation: true, ..file() };
        for kek in [None, Some([1; 32])] {
            let text = file.encode(kek.as_ref()).unwrap();
            assert_eq!(KeyFile::decode(&text, kek.as_ref()).unwrap(), file);
            let text = String::from_utf8(text).unwrap();
            let names: Vec<&str> =
                text.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
            assert_eq!(names, ["kek-version", "raft-dek", "raft-dek-needs-rotation", "raft-dek-pending"]);
        }
        assert!(!format!("{file:?}").contains('7'), "keys are not printed");
    }

    #[test]
    fn a_fips_key_file_is_told_apart() {
        let record = p::MaybeEncryptedRecord { algorithm: lock::FERNET, data: b"gAAAAA".to_vec(), nonce: Vec::new() };
        let header = format!("{DEK_HEADER}: {}", STANDARD.encode(record.encode_to_vec()));
        let text = String::from_utf8(KeyFile { dek: None, ..file() }.encode(None).unwrap()).unwrap();
        let text = text.replacen("kek-version: 3", &header, 1);
        assert_eq!(KeyFile::decode(text.as_bytes(), Some(&[1; 32])), Err(KeyFileError::Fernet));
    }

    #[test]
    fn unlock_keys_come_back() {
        let text = unlock_key_text(&[9; 32]);
        assert_eq!(parse_unlock_key(&text), Some([9; 32]));
        assert_eq!(parse_unlock_key("SWMKEY-1-x"), None);
    }
}
