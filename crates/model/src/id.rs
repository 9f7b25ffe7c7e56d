//! Identifiers: cheap to clone, one type for each kind of object. SwarmKit's form is 25 characters of base 36.

use std::fmt;
use std::sync::Arc;

/// How many random bytes an identifier is made of.
pub const ID_BYTES: usize = 17;

/// Writes 17 random bytes as SwarmKit does: top bit set, read as a big-endian number, base 36, first digit dropped, 25 kept.
pub fn id_text(mut bytes: [u8; ID_BYTES]) -> String {
    bytes[0] |= 0x80;
    base36(&bytes, 27)[1..26].to_owned()
}

/// `bytes` as a big-endian number in base 36, left-padded with `0` to `width` digits.
pub fn base36(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = Vec::new();
    while number.iter().any(|&byte| byte != 0) {
        let mut rest = 0u32;
        for byte in &mut number {
            let part = rest * 256 + u32::from(*byte);
            *byte = (part / 36) as u8;
            rest = part % 36;
        }
        digits.push(char::from_digit(rest, 36).expect("a remainder of 36 is a digit"));
    }
    while digits.len() < width {
        digits.push('0');
    }
    digits.iter().rev().collect()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// A new identifier from random bytes.
            pub fn from_random(bytes: [u8; ID_BYTES]) -> Self {
                Self(id_text(bytes).into())
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Default for $name {
            /// The empty identifier: an object that was not given one yet.
            fn default() -> Self {
                Self("".into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

ids! {
    /// A node's identifier: the CN of its certificate.
    NodeId,
    /// A service's identifier.
    ServiceId,
    /// A task's identifier.
    TaskId,
    /// A network's identifier.
    NetworkId,
    /// The cluster's identifier: the O of every certificate.
    ClusterId,
    /// A secret's identifier; `<secret>.<task>` for driver-backed secrets in assignments.
    SecretId,
    /// A config's identifier.
    ConfigId,
    /// A custom resource's identifier.
    ResourceId,
    /// An extension's identifier.
    ExtensionId,
    /// A cluster volume's identifier.
    VolumeId,
}

#[cfg(test)]
mod tests {
    use super::{base36, id_text};

    #[test]
    fn identifiers_match_swarmkits_vector() {
        let bytes: [u8; 17] = std::array::from_fn(|i| i as u8);
        assert_eq!(id_text(bytes), "hw05xdvcpbrfi4jekqvbjy4b2");
    }

    #[test]
    fn join_token_secret_matches_swarmkits_vector() {
        let bytes: Vec<u8> = (0..16).collect();
        assert_eq!(base36(&bytes, 25), "000avh9he7dy896m08s18udxr");
    }
}
