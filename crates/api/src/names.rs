//! Names for services that were given none: an adjective and a name, as Docker makes them.

use std::hash::{BuildHasher, Hasher, RandomState};

const ADJECTIVES: [&str; 32] = [
    "amber", "ample", "brave", "bright", "calm", "candid", "clever", "eager", "fair", "festive", "gentle", "golden",
    "happy", "honest", "jolly", "keen", "kind", "lively", "lucid", "merry", "modest", "nimble", "patient", "proud",
    "quick", "quiet", "rapid", "serene", "steady", "sunny", "vivid", "witty",
];

/// People who worked on bees, networks, or programs.
const NAMES: [&str; 32] = [
    "aristaeus",
    "babbage",
    "backus",
    "baran",
    "boole",
    "butler",
    "cerf",
    "dijkstra",
    "dzierzon",
    "engelbart",
    "frisch",
    "hamilton",
    "hoare",
    "hopper",
    "huber",
    "jansa",
    "kahn",
    "kildall",
    "knuth",
    "lamport",
    "langstroth",
    "liskov",
    "lovelace",
    "melissa",
    "noether",
    "perlman",
    "postel",
    "ritchie",
    "seeley",
    "shannon",
    "swammerdam",
    "turing",
];

/// A name.
pub(crate) fn random() -> String {
    // Every `RandomState` has keys of its own, so an empty hash of one is a random number good enough for a name.
    let number = RandomState::new().build_hasher().finish();
    pick(number)
}

fn pick(number: u64) -> String {
    let adjective = ADJECTIVES[(number % ADJECTIVES.len() as u64) as usize];
    let name = NAMES[(number / ADJECTIVES.len() as u64 % NAMES.len() as u64) as usize];
    format!("{adjective}_{name}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_valid_service_names() {
        for number in 0..1024 {
            let name = super::pick(number);
            let (adjective, person) = name.split_once('_').unwrap();
            assert!(adjective.bytes().chain(person.bytes()).all(|byte| byte.is_ascii_lowercase()), "{name}");
        }
        assert_ne!(super::random(), "");
    }
}
