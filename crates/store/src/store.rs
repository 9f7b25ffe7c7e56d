//! The committed state and the last changes made to it. The caller (the manager) serialises commits and wakes watchers:
//! a watcher takes a view and the sequence number under one lock, then asks for [`Store::changes_since`] that number, so
//! nothing is lost between the two.

use crate::error::StoreError;
use crate::object::{Action, Event};
use crate::snapshot::StoreSnapshot;
use crate::view::View;
use std::collections::VecDeque;

/// How many changes are kept for watchers that lag behind.
pub const CHANGE_LOG_LIMIT: usize = 65_536;

/// One committed change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its number: the first change after the start is 1.
    pub sequence: u64,
    /// What changed.
    pub event: Event,
}

/// The committed view and a bounded log of changes.
#[derive(Clone, Default)]
pub struct Store {
    view: View,
    sequence: u64,
    changes: VecDeque<Change>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The committed state; clone it to keep it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The number of the last change; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Does all `actions` or none, and remembers the changes.
    pub fn commit(&mut self, actions: &[Action]) -> Result<Vec<Event>, StoreError> {
        let events = self.view.apply(actions)?;
        for event in &events {
            self.sequence += 1;
            if self.changes.len() == CHANGE_LOG_LIMIT {
                self.changes.pop_front();
            }
            self.changes.push_back(Change { sequence: self.sequence, event: event.clone() });
        }
        Ok(events)
    }

    /// The changes after number `sequence`, oldest first; `None` if some of them are forgotten already (the watcher
    /// must start anew from a view) or if the number was never given.
    pub fn changes_since(&self, sequence: u64) -> Option<impl Iterator<Item = &Change>> {
        let first_kept = self.changes.front().map_or(self.sequence + 1, |change| change.sequence);
        if sequence + 1 < first_kept || sequence > self.sequence {
            return None;
        }
        Some(self.changes.range((sequence + 1 - first_kept) as usize..))
    }

    /// All objects.
    pub fn snapshot(&self) -> StoreSnapshot {
        self.view.snapshot()
    }

    /// Replaces everything by a snapshot. The change log is emptied and a number is skipped, so every watcher is told to
    /// start anew.
    pub fn restore(&mut self, snapshot: &StoreSnapshot) -> Result<(), StoreError> {
        self.view = View::restore(snapshot)?;
        self.changes.clear();
        self.sequence += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CHANGE_LOG_LIMIT, Store};
    use crate::Action;
    use model::Task;

    fn create(n: usize) -> Action {
        Action::Create(Task { id: format!("t{n}").into(), ..Default::default() }.into())
    }

    #[test]
    fn a_watcher_sees_every_change_once_or_is_told_to_start_anew() {
        let mut store = Store::new();
        let start = store.sequence();
        assert_eq!(store.changes_since(start).unwrap().count(), 0);
        for n in 0..CHANGE_LOG_LIMIT {
            store.commit(&[create(n)]).unwrap();
        }
        assert_eq!(store.changes_since(start).unwrap().count(), CHANGE_LOG_LIMIT);
        store.commit(&[create(CHANGE_LOG_LIMIT)]).unwrap();
        assert!(store.changes_since(start).is_none(), "one change is forgotten");
        let last = store.changes_since(store.sequence() - 1).unwrap().next().unwrap().clone();
        assert_eq!(last.event.object().id().as_str(), format!("t{CHANGE_LOG_LIMIT}"));
        assert!(store.changes_since(store.sequence() + 1).is_none());
    }

    #[test]
    fn after_a_restore_every_watcher_starts_anew() {
        let mut store = Store::new();
        store.commit(&[create(1)]).unwrap();
        let (seen, snapshot) = (store.sequence(), store.snapshot());
        store.restore(&snapshot).unwrap();
        assert!(store.changes_since(seen).is_none());
        assert_eq!(store.changes_since(store.sequence()).unwrap().count(), 0);
        assert_eq!(store.snapshot(), snapshot);
    }

    #[test]
    fn a_refused_commit_leaves_no_change() {
        let mut store = Store::new();
        store.commit(&[create(1)]).unwrap();
        store.commit(&[create(2), create(1)]).unwrap_err();
        assert_eq!((store.sequence(), store.view().count::<Task>()), (1, 1));
    }
}
