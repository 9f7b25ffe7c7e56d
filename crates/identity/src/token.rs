//! Join tokens: `SWMTKN-1-<digest of the root CA>-<secret>`, both in base 36; `SWMTKN-2-<fips>-…` in clusters that ask
//! for FIPS.

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::random::random_bytes;

/// Digits of the digest.
const DIGEST_DIGITS: usize = 50;
/// Digits of the secret.
const SECRET_DIGITS: usize = 25;
/// What opens every token.
const PREFIX: &str = "SWMTKN";

/// A token's parts.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    text: String,
    digest: String,
    fips: bool,
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not in a token's form.
    #[error("invalid join token")]
    Malformed,
    /// The cluster asks for FIPS, which this program does not offer.
    #[error("node is not FIPS-enabled but cluster requires FIPS")]
    Fips,
}

impl std::fmt::Debug for JoinToken {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.split('-').collect();
        let (fips, digest, secret) = match parts.as_slice() {
            [PREFIX, "1", digest, secret] => (false, digest, secret),
            [PREFIX, "2", fips @ ("0" | "1"), digest, secret] => (*fips == "1", digest, secret),
            _ => return Err(TokenError::Malformed),
        };
        let digits = |part: &str, count: usize| {
            part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        };
        if !digits(digest, DIGEST_DIGITS) || !digits(secret, SECRET_DIGITS) {
            return Err(TokenError::Malformed);
        }
        Ok(Self { text: text.to_owned(), digest: (*digest).to_owned(), fips })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The digest part.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Refuses a token of a FIPS cluster.
    pub fn check_fips(&self) -> Result<(), TokenError> {
        if self.fips { Err(TokenError::Fips) } else { Ok(()) }
    }

    /// Whether a bundle, byte for byte, is the one that the token was made for.
    pub fn is_for(&self, ca_cert: &[u8]) -> bool {
        digest_text(ca_cert) == self.digest
    }
}

/// A new token for the root CA with this PEM bundle.
pub fn new_join_token(ca_cert: &[u8]) -> String {
    let secret: [u8; 16] = random_bytes();
    format!("SWMTKN-1-{}-{}", digest_text(ca_cert), model::base36(&secret, SECRET_DIGITS))
}

/// Whether a presented token is the cluster's, in a time that does not tell how far they agree. An unset token is
/// nobody's.
pub fn tokens_equal(presented: &str, wanted: &str) -> bool {
    !wanted.is_empty() && bool::from(presented.as_bytes().ct_eq(wanted.as_bytes()))
}

/// The digest part of a token.
fn digest_text(ca_cert: &[u8]) -> String {
    model::base36(digest(&SHA256, ca_cert).as_ref(), DIGEST_DIGITS)
}

/// `sha256:<hex>` of a PEM bundle.
pub fn ca_cert_hash(ca_cert: &[u8]) -> String {
    let hex: String = digest(&SHA256, ca_cert).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_match_swarmkits_vector() {
        assert_eq!(digest_text(b"abc"), "4nb7oofka9ml8nasnokxxc1unhmtpr1wxsuwhpd9km3vt5as31");
        let token = new_join_token(b"abc");
        assert_eq!(token.len(), 85);
        assert!(token.starts_with("SWMTKN-1-4nb7"));
        assert_ne!(token, new_join_token(b"abc"));
    }

    #[test]
    fn tokens_are_read_and_compared() {
        let text = new_join_token(b"abc");
        let token = JoinToken::parse(&text).unwrap();
        assert!(token.is_for(b"abc") && !token.is_for(b"abd"));
        assert_eq!((token.text(), token.check_fips()), (text.as_str(), Ok(())));
        assert!(!format!("{token:?}").contains(&text[60..]));
        let fips = JoinToken::parse(&text.replacen("-1-", "-2-1-", 1)).unwrap();
        assert_eq!(fips.check_fips(), Err(TokenError::Fips));
        assert_eq!(JoinToken::parse(&text.replacen("-1-", "-2-0-", 1)).unwrap().check_fips(), Ok(()));
        for bad in [
            "",
            "SWMTKN-1-x-y",
            &text[..84],
            &text.to_uppercase(),
            &text.replacen("-1-", "-3-", 1),
            &format!("{text}-"),
        ] {
            assert_eq!(JoinToken::parse(bad), Err(TokenError::Malformed), "{bad}");
        }
        assert!(tokens_equal(&text, &text));
        assert!(!tokens_equal("", "") && !tokens_equal(&text, "") && !tokens_equal("", &text));
        assert!(!tokens_equal(&new_join_token(b"abc"), &text));
    }
}
