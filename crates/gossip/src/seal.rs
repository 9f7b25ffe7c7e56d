//! The encrypted layer and its keys: AES-GCM with a random nonce in front, version 1 as it is sent, version 0 (padded) as
//! old members send it. One key seals, all of them open.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;

use crate::limits::MAX_KEYS;

const VERSION_BYTES: usize = 1;
const TAG_BYTES: usize = 16;
/// How much longer a sealed message is.
pub(crate) const OVERHEAD: usize = VERSION_BYTES + NONCE_LEN + TAG_BYTES;
/// The block that version 0 pads to.
const BLOCK: usize = 16;

/// Why keys cannot be taken.
#[derive(Debug, Eq, Error, PartialEq)]
pub enum KeyError {
    /// AES-GCM has keys of 16 and 32 bytes here.
    #[error("a gossip key has {0} bytes, not 16 or 32")]
    Length(usize),
    /// More keys than a rotation needs.
    #[error("{0} gossip keys, at most {MAX_KEYS}")]
    TooMany(usize),
    /// The key to seal with is not among the keys.
    #[error("gossip key {primary} of {count} cannot be the primary one")]
    NoPrimary {
        /// The index that was asked for.
        primary: usize,
        /// How many keys there are.
        count: usize,
    },
}

/// Where nonces come from: it must never repeat itself, across members with the same key and across restarts.
pub trait Entropy: Send {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// For simulations: a seeded generator repeats itself on purpose. Never for real keys.
impl Entropy for stdx::Rng {
    fn fill(&mut self, bytes: &mut [u8]) {
        stdx::Rng::fill(self, bytes);
    }
}

/// The keys of the swarm's gossip. Without any, messages go in the clear.
#[derive(Default)]
pub(crate) struct Keyring {
    /// The first one seals.
    keys: Vec<LessSafeKey>,
}

impl Keyring {
    /// A ring of `keys` that seals with the one at `primary`.
    pub(crate) fn new(keys: &[Vec<u8>], primary: usize) -> Result<Self, KeyError> {
        if keys.len() > MAX_KEYS {
            return Err(KeyError::TooMany(keys.len()));
        }
        if primary >= keys.len() && !keys.is_empty() {
            return Err(KeyError::NoPrimary { primary, count: keys.len() });
        }
        let mut ring = Vec::new();
        for key in keys {
            let algorithm = match key.len() {
                16 => &AES_128_GCM,
                32 => &AES_256_GCM,
                length => return Err(KeyError::Length(length)),
            };
            ring.push(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("the length was checked")));
        }
        if !ring.is_empty() {
            ring.swap(0, primary);
        }
        Ok(Self { keys: ring })
    }

    /// Whether messages are sealed.
    pub(crate) fn is_active(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Appends the sealed `message` to `out`; its own bytes if there is no key.
    pub(crate) fn seal(&self, entropy: &mut dyn Entropy, message: &[u8], data: &[u8], out: &mut Vec<u8>) {
        let Some(key) = self.keys.first() else {
            out.extend(message);
            return;
        };
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut sealed = message.to_vec();
        let nonce_value = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce_value, Aad::from(data), &mut sealed)
            .expect("AES-GCM seals messages of less than 64 GiB");
        out.push(1);
        out.extend(nonce);
        out.extend(sealed);
    }

    /// The message that `sealed` holds, by whichever key opens it.
    pub(crate) fn open(&self, sealed: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let (&version, rest) = sealed.split_first()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        if version > 1 || body.len() < TAG_BYTES {
            return None;
        }
        self.keys.iter().find_map(|key| {
            let mut message = body.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(nonce, Aad::from(data), &mut message).ok()?.len();
            message.truncate(length);
            if version == 0 { unpad(message) } else { Some(message) }
        })
    }
}

fn unpad(mut message: Vec<u8>) -> Option<Vec<u8>> {
    let padding = usize::from(*message.last()?);
    if !(1..=BLOCK).contains(&padding) {
        return None;
    }
    message.truncate(message.len().checked_sub(padding)?);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[u8], primary: usize) -> Keyring {
        Keyring::new(&keys.iter().map(|key| vec![*key; 16]).collect::<Vec<_>>(), primary).expect("keys")
    }

    fn sealed(ring: &Keyring, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ring.seal(&mut stdx::Rng::new(1), b"word", data, &mut out);
        out
    }

    #[test]
    fn any_key_of_the_ring_opens_and_the_primary_seals() {
        let (old, both, new) = (ring(&[1], 0), ring(&[1, 2], 1), ring(&[2], 0));
        assert_eq!(both.open(&sealed(&old, b""), b"").as_deref(), Some(&b"word"[..]));
        assert_eq!(new.open(&sealed(&both, b"d"), b"d").as_deref(), Some(&b"word"[..]));
        assert_eq!(old.open(&sealed(&both, b""), b""), None);
        assert_eq!(new.open(&sealed(&both, b"d"), b"e"), None);
        assert_eq!(sealed(&old, b"").len(), 4 + OVERHEAD);
        assert_eq!(sealed(&Keyring::default(), b""), b"word");
    }

    #[test]
    fn keys_of_the_wrong_length_or_number_are_refused() {
        let new = |keys: &[usize], primary| {
            Keyring::new(&keys.iter().map(|it| vec![0; *it]).collect::<Vec<_>>(), primary).err()
        };
        assert_eq!(new(&[16, 32], 1), None);
        assert_eq!(new(&[24], 0), Some(KeyError::Length(24)));
        assert_eq!(new(&[16], 1), Some(KeyError::NoPrimary { primary: 1, count: 1 }));
        assert_eq!(new(&[16; MAX_KEYS], 0), None);
        assert_eq!(new(&[16; MAX_KEYS + 1], 0), Some(KeyError::TooMany(MAX_KEYS + 1)));
    }

    #[test]
    fn the_padding_of_version_0_is_taken_off_and_a_bad_one_refused() {
        let key = ring(&[1], 0);
        let seal = |plain: &[u8]| {
            let mut out = Vec::new();
            key.seal(&mut stdx::Rng::new(1), plain, b"", &mut out);
            out[0] = 0;
            out
        };
        let padded = [&b"word"[..], &[12; 12]].concat();
        assert_eq!(key.open(&seal(&padded), b"").as_deref(), Some(&b"word"[..]));
        for bad in [&b""[..], &[0; 16], &[17; 16], &[5; 4]] {
            assert_eq!(key.open(&seal(bad), b""), None, "{bad:?}");
        }
    }
}
