//! The keys of encrypted networks, from the managers into the kernel.

use model::EncryptionKey;
use net::{ENCRYPTION_KEY_BYTES, Net};

use crate::errors::chain;

/// What keys of encrypted networks are called.
const IPSEC_SUBSYSTEM: &str = "networking:ipsec";

/// Takes the swarm's keys. A set without any says nothing: managers without keys have not told of them yet.
pub(crate) async fn set_keys(net: &Net, keys: &[EncryptionKey]) {
    let keys = ipsec_keys(keys);
    if !keys.is_empty() {
        apply(net, keys).await;
    }
}

/// The node has left the swarm.
pub(crate) async fn forget_keys(net: &Net) {
    apply(net, Vec::new()).await;
}

async fn apply(net: &Net, keys: Vec<net::EncryptionKey>) {
    if let Err(error) = net.set_encryption_keys(keys).await {
        tracing::error!(error = chain(&error), "encrypted networks do not work by the swarm's keys");
    }
}

fn ipsec_keys(keys: &[EncryptionKey]) -> Vec<net::EncryptionKey> {
    let keys = keys.iter().filter(|key| key.subsystem == IPSEC_SUBSYSTEM);
    keys.filter_map(|key| {
        let lamport_time = key.lamport_time;
        match <[u8; ENCRYPTION_KEY_BYTES]>::try_from(key.key.as_slice()) {
            Ok(key) => Some(net::EncryptionKey { lamport_time, key }),
            Err(_) => {
                tracing::warn!(lamport_time, bytes = key.key.len(), "a key of encrypted networks has a wrong size");
                None
            }
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_encrypted_networks_alone() {
        let key = |subsystem: &str, lamport_time: u64, len: usize| EncryptionKey {
            subsystem: subsystem.to_owned(),
            key: vec![7; len],
            lamport_time,
            ..EncryptionKey::default()
        };
        let keys = [key("networking:gossip", 1, 16), key(IPSEC_SUBSYSTEM, 2, 16), key(IPSEC_SUBSYSTEM, 3, 32)];
        assert_eq!(ipsec_keys(&keys), [net::EncryptionKey { lamport_time: 2, key: [7; 16] }]);
        assert_eq!(ipsec_keys(&keys[..1]), []);
    }
}
