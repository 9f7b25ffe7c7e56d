//! The swarm's keys of encrypted networks, and the numbers that both ends derive from them without a word: as dockerd does,
//! bit for bit, so that nodes of both kinds understand each other.

use std::fmt;
use std::net::Ipv4Addr;

/// Bytes of a key: AES-128.
pub const ENCRYPTION_KEY_BYTES: usize = 16;
/// Keys that are kept. Managers give three: one that goes, one that is in use, one to come.
pub const ENCRYPTION_KEYS_MAX: usize = 8;

/// A key of the swarm's encrypted networks.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKey {
    /// When it was made, on the managers' Lamport clock.
    pub lamport_time: u64,
    /// The key itself.
    pub key: [u8; ENCRYPTION_KEY_BYTES],
}

/// Keys stay out of logs.
impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("lamport_time", &self.lamport_time).finish_non_exhaustive()
    }
}

impl EncryptionKey {
    /// What dockerd calls its tag.
    fn tag(&self) -> u32 {
        self.lamport_time as u32
    }

    /// The index of the association by which `source` sends to `destination` with this key.
    pub(super) fn spi(&self, source: Ipv4Addr, destination: Ipv4Addr) -> u32 {
        spi(source, destination, self.tag())
    }

    /// The key as the kernel takes it: the salt of the nonces stands behind it.
    pub(super) fn with_salt(&self, spi: u32) -> [u8; ENCRYPTION_KEY_BYTES + 4] {
        let mut bytes = [0; ENCRYPTION_KEY_BYTES + 4];
        bytes[..ENCRYPTION_KEY_BYTES].copy_from_slice(&self.key);
        bytes[ENCRYPTION_KEY_BYTES..].copy_from_slice(&spi.to_be_bytes());
        bytes
    }
}

/// FNV-1a over both addresses, as IPv6 has them, and the key's tag between them.
fn spi(source: Ipv4Addr, destination: Ipv4Addr, tag: u32) -> u32 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let (source, destination) = (source.to_ipv6_mapped().octets(), destination.to_ipv6_mapped().octets());
    let tag = tag.to_be_bytes();
    let bytes = source.iter().chain(&tag).chain(&destination);
    bytes.fold(BASIS, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME))
}

/// All keys that count, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyRing(Vec<EncryptionKey>);

impl KeyRing {
    /// The newest of `keys`, if there are too many.
    pub(crate) fn new(mut keys: Vec<EncryptionKey>) -> Self {
        keys.sort_by_key(|key| key.lamport_time);
        keys.dedup_by_key(|key| key.lamport_time);
        Self(keys.split_off(keys.len().saturating_sub(ENCRYPTION_KEYS_MAX)))
    }

    /// Every key: what is sealed with any of them is taken.
    pub(super) fn all(&self) -> &[EncryptionKey] {
        &self.0
    }

    /// The key to send with: the second, which all nodes have had since the rotation before.
    pub(super) fn primary(&self) -> Option<&EncryptionKey> {
        self.0.get(1).or_else(|| self.0.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lamport_time: u64) -> EncryptionKey {
        EncryptionKey { lamport_time, key: [lamport_time as u8; ENCRYPTION_KEY_BYTES] }
    }

    #[test]
    fn indices_are_dockerds() {
        let (one, two) = ([192, 168, 1, 1].into(), [192, 168, 1, 2].into());
        assert_eq!(key(5).spi(one, two), 0x36ce_3b0f);
        assert_eq!(key(5).spi(two, one), 0x8fd1_5a43);
        // the lower half of the clock alone
        assert_eq!(key(5).spi(one, two), key((7 << 32) | 5).spi(one, two));
        assert_ne!(key(5).spi(one, two), key(6).spi(one, two));
    }

    #[test]
    fn the_salt_is_the_index() {
        let bytes = key(7).with_salt(0x0102_0304);
        assert_eq!((&bytes[..16], &bytes[16..]), (&[7; 16][..], &[1, 2, 3, 4][..]));
    }

    #[test]
    fn the_second_oldest_key_seals() {
        let primary = |times: &[u64]| {
            let ring = KeyRing::new(times.iter().copied().map(key).collect());
            ring.primary().map(|key| key.lamport_time)
        };
        assert_eq!(primary(&[3, 1, 2]), Some(2));
        // the whole clock counts, not the tag
        assert_eq!(primary(&[1 << 32, 2, 3]), Some(3));
        assert_eq!(primary(&[4]), Some(4));
        assert_eq!(primary(&[4, 4]), Some(4));
        assert_eq!(primary(&[]), None);
    }

    #[test]
    fn the_newest_keys_are_kept() {
        let most = ENCRYPTION_KEYS_MAX as u64;
        let times = |count: u64| {
            let ring = KeyRing::new((1..=count).map(key).collect());
            ring.all().iter().map(|key| key.lamport_time).collect::<Vec<_>>()
        };
        assert_eq!(times(most), (1..=most).collect::<Vec<_>>());
        assert_eq!(times(most + 2), (3..=most + 2).collect::<Vec<_>>());
    }

    #[test]
    fn keys_stay_out_of_logs() {
        let text = format!("{:?}", KeyRing::new(vec![EncryptionKey { lamport_time: 1, key: [0xab; 16] }]));
        assert!(text.contains("lamport_time: 1") && !text.contains("171") && !text.contains("ab"), "{text}");
    }
}
