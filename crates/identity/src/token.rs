//! Join tokens: `SWMTKN-1-<digest of the root CA>-<secret>`, both in base 36.

use ring::digest::{SHA256, digest};

use crate::random::random_bytes;

/// Digits of the digest.
const DIGEST_DIGITS: usize = 50;
/// Digits of the secret.
const SECRET_DIGITS: usize = 25;

/// A new token for the root CA with this PEM bundle.
pub fn new_join_token(ca_cert: &[u8]) -> String {
    let secret: [u8; 16] = random_bytes();
    format!("SWMTKN-1-{}-{}", digest_text(ca_cert), model::base36(&secret, SECRET_DIGITS))
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
}
