//! Which crate may depend on which of ours: words < wire < pure < shells on floors. A crate that is in no row is an error,
//! so that every new one gets its place.

/// The tiers from the bottom: a crate may depend on crates of lower rows, and on those that its own row allows.
const FLOORS: &[(&str, &[&str])] = &[
    ("words", &["stdx", "model"]),
    ("wire", &["swarm-proto", "docker-types", "oci-types"]),
    ("store", &["store"]),
    ("pure", &["orchestration", "lifecycle", "gossip", "discovery", "doctor"]),
    ("shells 1", &["consensus", "identity", "image", "runtime", "shim", "net", "gossip-io", "client"]),
    ("shells 2", &["manager", "agent", "engine"]),
    ("shells 3", &["api", "cli", "node"]),
    ("daemon", &["daemon"]),
    ("proof", &["testkit", "sim", "conformance", "cluster", "fleet", "xtask"]),
];

/// Sideways steps inside a row.
const SIDEWAYS: &[(&str, &str)] = &[("model", "stdx")];

/// Crates that decide and must not touch the world.
pub(crate) const PURE: &[&str] = &[
    "stdx",
    "model",
    "swarm-proto",
    "docker-types",
    "oci-types",
    "store",
    "orchestration",
    "lifecycle",
    "gossip",
    "discovery",
    "doctor",
];

/// Crates that may hold `unsafe`.
pub(crate) const UNSAFE_HOMES: &[&str] = &["runtime", "shim", "net"];

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, crates)| crates.contains(&name))
}

/// What is wrong with a crate's dependencies, one line each.
pub(crate) fn check(name: &str, dependencies: &[String]) -> Vec<String> {
    let Some(own) = floor(name) else {
        return vec![format!("crate {name} has no place: add it to a row of xtask/src/layers.rs")];
    };
    let mut wrong = Vec::new();
    for dependency in dependencies {
        let Some(other) = floor(dependency) else { continue };
        let sideways = SIDEWAYS.contains(&(name, dependency));
        // Wire and pure crates know words; of the pure ones only `orchestration` knows the store.
        let below = other < own && (FLOORS[other].0 != "store" || own > 3 || name == "orchestration");
        if !below && !sideways {
            wrong.push(format!(
                "crate {name} ({}) must not depend on {dependency} ({})",
                FLOORS[own].0, FLOORS[other].0
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn floors_hold() {
        let deps = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(check("engine", &deps(&["image", "shim", "model"])).is_empty());
        assert!(check("orchestration", &deps(&["store"])).is_empty());
        assert_eq!(check("lifecycle", &deps(&["store"])).len(), 1);
        assert_eq!(check("engine", &deps(&["agent"])).len(), 1);
        assert_eq!(check("image", &deps(&["api"])).len(), 1);
        assert_eq!(check("newcomer", &[]).len(), 1);
    }
}
