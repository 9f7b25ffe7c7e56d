//! Content digests. Only `sha256` is in use; other algorithms are refused where content must be verified.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The form is wrong.
    #[error("invalid checksum digest format")]
    Format,
    /// The length does not fit the algorithm.
    #[error("invalid checksum digest length")]
    Length,
    /// The algorithm is not known.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

impl Digest {
    /// The prefix of the only algorithm.
    const PREFIX: &'static str = "sha256:";

    /// Reads `sha256:<hex>`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let Some((algorithm, hex)) = text.split_once(':') else { return Err(DigestError::Format) };
        if algorithm.is_empty() || hex.is_empty() {
            return Err(DigestError::Format);
        }
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm);
        }
        if hex.len() != 64 {
            return Err(DigestError::Length);
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Format);
        }
        Ok(Self(text.to_string()))
    }

    /// The digest with these 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(Self::PREFIX.len() + 64);
        text.push_str(Self::PREFIX);
        for byte in bytes {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
        }
        Self(text)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    /// The first twelve digits, as docker shows ids.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl std::str::FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let good = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap().short(), "abababababab");
        assert_eq!(Digest::from_bytes(&[0xab; 32]).as_str(), good);
        for (text, error) in [
            ("sha256", DigestError::Format),
            ("sha256:", DigestError::Format),
            ("sha256:ab", DigestError::Length),
            ("md5:ab", DigestError::Algorithm),
        ] {
            assert_eq!(Digest::parse(text), Err(error), "{text}");
        }
        assert_eq!(Digest::parse(&good.to_uppercase().replace("SHA", "sha")), Err(DigestError::Format));
        assert_eq!(Digest::parse(&format!("sha256:{}/", "a".repeat(63))), Err(DigestError::Format));
    }
}
