//! Names for containers that the user gives none: an adjective and a craft.

use ring::rand::{SecureRandom, SystemRandom};

const ADJECTIVES: [&str; 48] = [
    "amber", "brave", "brisk", "calm", "candid", "cheerful", "clever", "cosy", "curious", "dapper", "eager", "early",
    "faithful", "fearless", "festive", "gentle", "gifted", "golden", "graceful", "happy", "hardy", "honest", "humble",
    "jolly", "keen", "kind", "lively", "lucky", "merry", "mild", "modest", "nimble", "patient", "placid", "plucky",
    "polite", "proud", "quick", "quiet", "ready", "serene", "sharp", "sincere", "steady", "sunny", "tidy", "warm",
    "witty",
];
const CRAFTS: [&str; 48] = [
    "baker",
    "barber",
    "beekeeper",
    "binder",
    "brewer",
    "carpenter",
    "carver",
    "chandler",
    "cobbler",
    "cooper",
    "cutler",
    "dyer",
    "engraver",
    "fiddler",
    "fletcher",
    "florist",
    "gardener",
    "gilder",
    "glazier",
    "glover",
    "grinder",
    "hatter",
    "joiner",
    "knitter",
    "luthier",
    "mason",
    "miller",
    "miner",
    "painter",
    "piper",
    "plumber",
    "potter",
    "printer",
    "roofer",
    "saddler",
    "sailor",
    "sawyer",
    "scribe",
    "shepherd",
    "smith",
    "spinner",
    "tailor",
    "tanner",
    "thatcher",
    "tiler",
    "tinker",
    "turner",
    "weaver",
];

/// A name; from the `attempt`th collision on with a digit, as dockerd does.
pub(crate) fn random_name(attempt: u32) -> String {
    let mut bytes = [0u8; 3];
    // without randomness every name collides, and the caller tells so
    let _ = SystemRandom::new().fill(&mut bytes);
    let adjective = ADJECTIVES[usize::from(bytes[0]) % ADJECTIVES.len()];
    let craft = CRAFTS[usize::from(bytes[1]) % CRAFTS.len()];
    if attempt == 0 { format!("{adjective}_{craft}") } else { format!("{adjective}_{craft}{}", bytes[2] % 10) }
}
