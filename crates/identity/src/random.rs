//! Random identifiers and keys, and the clock, from the operating system.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes.
///
/// # Panics
/// When the kernel gives no randomness: nothing that this process makes would be safe then.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// A new identifier in SwarmKit's form: 25 characters of base 36.
pub fn random_id() -> String {
    model::id_text(random_bytes())
}

/// A new raft identifier: 63 random bits plus one, never 0.
pub fn random_raft_id() -> u64 {
    (u64::from_le_bytes(random_bytes()) >> 1) + 1
}

/// A new key that locks managers (KEK).
pub fn new_kek() -> [u8; 32] {
    random_bytes()
}

/// A new key that encrypts the raft log (DEK).
pub fn new_dek() -> [u8; 32] {
    random_bytes()
}

/// The system's clock, for callers of what takes the time as a parameter.
pub fn system_now() -> model::Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    model::Timestamp::from_unix_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
