//! The node's key file: PKCS#8 in PEM, with headers that carry the key of the raft log. Locked managers are not built
//! yet: a key file that is encrypted is recognised and refused.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use prost::Message;
use swarm_proto::swarmkit as p;

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

/// Why a key file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The file is encrypted.
    #[error("the node's key is locked")]
    Locked,
    /// The file is damaged.
    #[error("the node's key file is damaged: {0}")]
    Damaged(&'static str),
}

impl KeyFile {
    /// The file's text.
    pub fn encode(&self) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.key_pem);
        let mut out = String::new();
        for line in text.lines() {
            out.push_str(line);
            out.push('\n');
            if line.starts_with("-----BEGIN ") {
                out.push_str(&format!("{KEK_VERSION_HEADER}: {}\n", self.kek_version));
                if let Some(dek) = &self.dek {
                    let record = p::MaybeEncryptedRecord { algorithm: 0, data: dek.to_vec(), nonce: Vec::new() };
                    out.push_str(&format!("{DEK_HEADER}: {}\n", STANDARD.encode(record.encode_to_vec())));
                }
                out.push('\n');
            }
        }
        out.into_bytes()
    }

    /// Reads the file's text.
    pub fn decode(text: &[u8]) -> Result<Self, KeyFileError> {
        let text = std::str::from_utf8(text).map_err(|_| KeyFileError::Damaged("not text"))?;
        let mut lines = text.lines();
        let begin = lines.next().ok_or(KeyFileError::Damaged("empty"))?;
        if begin == "-----BEGIN ENCRYPTED PRIVATE KEY-----" {
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
        let dek = headers.get(DEK_HEADER).map(|text| decode_dek(text)).transpose()?;
        Ok(Self { key_pem: key.into_bytes(), dek, kek_version })
    }
}

fn decode_dek(text: &str) -> Result<[u8; 32], KeyFileError> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyFileError::Damaged("the raft key is not base64"))?;
    let record = p::MaybeEncryptedRecord::decode(bytes.as_slice());
    let record = record.map_err(|_| KeyFileError::Damaged("the raft key is no record"))?;
    if record.algorithm != 0 {
        return Err(KeyFileError::Locked);
    }
    record.data.try_into().map_err(|_| KeyFileError::Damaged("the raft key has not 32 bytes"))
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
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec();
        let file = KeyFile { key_pem: key, dek: Some([7; 32]), kek_version: 3 };
        assert_eq!(KeyFile::decode(&file.encode()), Ok(file));
        let locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(KeyFile::decode(locked), Err(KeyFileError::Locked));
        assert!(KeyFile::decode(b"x").is_err());
    }

    #[test]
    fn unlock_keys_come_back() {
        let text = unlock_key_text(&[9; 32]);
        assert_eq!(parse_unlock_key(&text), Some([9; 32]));
        assert_eq!(parse_unlock_key("SWMKEY-1-x"), None);
    }
}
