//! The managers that this node knows, each with a weight that says how well sessions with it went; `state.json` keeps
//! them for the next run, in dockerd's form. Decisions are pure: randomness is a parameter. Owned by `broker`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stdx::Rng;

use crate::state::{StateError, replace_file};

/// What one good or bad session counts, and what managers that the leader names start with.
const STEP: i32 = 10;
/// Bounds of a weight.
const LIMIT: i32 = 256;
/// Chance of a manager of weight 0 or less beside one of weight 1, in thousandths: never none.
const SCALE: u64 = 1000;
/// Managers that are remembered; a swarm has a handful.
const MAX_MANAGERS: usize = 1024;
const FILE: &str = "state.json";

/// A manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemoteManager {
    /// Its node; empty while only the address is known.
    #[serde(default)]
    pub node_id: String,
    /// `host:port`.
    pub addr: String,
}

/// Managers and their weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remotes {
    weights: BTreeMap<RemoteManager, i32>,
}

/// How a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Experience {
    Good,
    Bad,
}

/// Half of what was known, half of what is seen.
fn smoothed(known: i32, seen: i32) -> i32 {
    ((known + seen) / 2).clamp(-LIMIT, LIMIT)
}

impl Remotes {
    /// Managers of which nothing is known yet.
    pub(crate) fn of(managers: impl IntoIterator<Item = RemoteManager>) -> Self {
        let known = managers.into_iter().filter(|manager| !manager.addr.is_empty()).take(MAX_MANAGERS);
        Self { weights: known.map(|manager| (manager, STEP)).collect() }
    }

    /// The leader's complete list takes the place of what was known; weights of those that stay are kept. An empty list
    /// says nothing. Returns whether the managers changed.
    pub(crate) fn replace(&mut self, managers: impl IntoIterator<Item = RemoteManager>) -> bool {
        let mut named = Self::of(managers);
        if named.weights.is_empty() {
            return false;
        }
        for (manager, weight) in &mut named.weights {
            *weight = self.weights.get(manager).map_or(STEP, |known| smoothed(*known, STEP));
        }
        let changed = !named.weights.keys().eq(self.weights.keys());
        *self = named;
        changed
    }

    /// Learns from a session with the manager at this address.
    pub(crate) fn observe(&mut self, addr: &str, experience: Experience) {
        let seen = if experience == Experience::Good { STEP } else { -STEP };
        for (_, weight) in self.weights.iter_mut().filter(|(manager, _)| manager.addr == addr) {
            *weight = smoothed(*weight, seen);
        }
    }

    /// A manager, better ones more often; never this node itself.
    pub(crate) fn pick(&self, own_node_id: &str, rng: &mut Rng) -> Option<RemoteManager> {
        let chance = |weight: i32| u64::try_from(weight).unwrap_or(0) * SCALE + 1;
        let others =
            self.weights.iter().filter(|(manager, _)| own_node_id.is_empty() || manager.node_id != own_node_id);
        let total: u64 = others.clone().map(|(_, weight)| chance(*weight)).sum();
        if total == 0 {
            return None;
        }
        let mut at = rng.below(total);
        for (manager, weight) in others {
            match at.checked_sub(chance(*weight)) {
                Some(rest) => at = rest,
                None => return Some(manager.clone()),
            }
        }
        None
    }

    /// All of them, by node.
    pub(crate) fn list(&self) -> Vec<RemoteManager> {
        self.weights.keys().cloned().collect()
    }
}

/// `state.json` of a swarm's folder.
pub(crate) struct RemotesFile {
    path: PathBuf,
}

impl RemotesFile {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// The managers of the last run; none if the file is missing or cannot be read: it is a help, not the truth.
    pub(crate) fn load(&self) -> Vec<RemoteManager> {
        let Ok(text) = std::fs::read(&self.path) else { return Vec::new() };
        match serde_json::from_slice(&text) {
            Ok(managers) => managers,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the list of managers cannot be read");
                Vec::new()
            }
        }
    }

    /// Keeps them for the next run.
    pub(crate) fn save(&self, managers: &[RemoteManager]) -> Result<(), StateError> {
        let json = serde_json::to_vec(managers);
        let text = json.map_err(|source| StateError::Json { path: self.path.clone(), source })?;
        replace_file(&self.path, &text, 0o600).map_err(|source| StateError::Io { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(id: &str, addr: &str) -> RemoteManager {
        RemoteManager { node_id: id.to_owned(), addr: addr.to_owned() }
    }

    fn picks(remotes: &Remotes, own: &str) -> BTreeMap<String, u32> {
        let mut rng = Rng::new(7);
        let mut counts = BTreeMap::new();
        for _ in 0..10_000 {
            let picked = remotes.pick(own, &mut rng).expect("a manager");
            *counts.entry(picked.node_id).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn better_managers_are_picked_more_often_and_bad_ones_still_sometimes() {
        let mut remotes = Remotes::of([manager("a", "a:1"), manager("b", "b:1")]);
        let even = picks(&remotes, "");
        assert!(even["a"] > 4_500 && even["b"] > 4_500, "{even:?}");
        for _ in 0..8 {
            remotes.observe("b:1", Experience::Bad);
        }
        let skewed = picks(&remotes, "");
        assert!(skewed["a"] > 9_900, "{skewed:?}");
        assert_eq!(picks(&remotes, "a"), BTreeMap::from([("b".to_owned(), 10_000)]), "never this node itself");
        remotes.observe("b:1", Experience::Good);
        remotes.observe("b:1", Experience::Good);
        assert!(picks(&remotes, "")["b"] > 2_000, "a manager that answers again is forgiven");
        assert_eq!(Remotes::default().pick("", &mut Rng::new(1)), None);
    }

    #[test]
    fn the_leaders_list_is_complete_and_an_empty_one_says_nothing() {
        let mut remotes = Remotes::of([manager("", "join:1")]);
        assert!(remotes.replace([manager("b", "b:1"), manager("a", "a:1"), manager("c", "")]));
        assert_eq!(remotes.list(), [manager("a", "a:1"), manager("b", "b:1")]);
        assert!(!remotes.replace([]));
        assert!(!remotes.replace([manager("a", "a:1"), manager("b", "b:1")]));
        assert!(remotes.replace([manager("a", "a:2")]), "an address is part of it");
        assert_eq!(remotes.list(), [manager("a", "a:2")]);
    }

    #[test]
    fn the_list_has_a_limit() {
        let many = (0..MAX_MANAGERS + 1).map(|n| manager(&n.to_string(), "x:1"));
        assert_eq!(Remotes::of(many).list().len(), MAX_MANAGERS);
    }

    #[test]
    fn the_file_is_dockerds() {
        let folder = tempfile::tempdir().unwrap();
        let file = RemotesFile::new(folder.path());
        assert!(file.load().is_empty());
        file.save(&[manager("a", "10.0.0.1:2377")]).unwrap();
        let text = std::fs::read_to_string(folder.path().join("state.json")).unwrap();
        assert_eq!(text, r#"[{"node_id":"a","addr":"10.0.0.1:2377"}]"#);
        assert_eq!(file.load(), [manager("a", "10.0.0.1:2377")]);
        std::fs::write(folder.path().join("state.json"), "[").unwrap();
        assert!(file.load().is_empty());
    }
}
