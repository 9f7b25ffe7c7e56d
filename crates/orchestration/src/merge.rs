//! Folds the actions of a step into as few as possible: each object occurs once, at the place of its first action, in its
//! last state. Every batch is one entry of the raft log and one flush to disk.

use std::collections::BTreeMap;
use store::{Action, ObjectId};

/// Actions in order, each object once.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    actions: Vec<Option<Action>>,
    places: BTreeMap<ObjectId, usize>,
}

impl Merged {
    /// Adds an action that was done after all others.
    pub(crate) fn push(&mut self, action: Action) {
        let id = action.id();
        let Some(&place) = self.places.get(&id) else {
            self.places.insert(id, self.actions.len());
            self.actions.push(Some(action));
            return;
        };
        let before = self.actions[place].take();
        let merged = match (before, action) {
            (Some(Action::Create(_)), Action::Update(object)) => Some(Action::Create(object)),
            (Some(Action::Create(_)), Action::Remove(_)) => None,
            // What was removed and made anew was there before the step.
            (Some(Action::Remove(_)), Action::Create(object)) => Some(Action::Update(object)),
            (_, action) => Some(action),
        };
        match merged {
            Some(action) => self.actions[place] = Some(action),
            None => drop(self.places.remove(&id)),
        }
    }

    /// The actions in batches of at most `limit`.
    pub(crate) fn into_batches(self, limit: usize) -> Vec<Vec<Action>> {
        let actions: Vec<Action> = self.actions.into_iter().flatten().collect();
        let mut batches = Vec::with_capacity(actions.len().div_ceil(limit));
        let mut actions = actions.into_iter().peekable();
        while actions.peek().is_some() {
            batches.push(actions.by_ref().take(limit).collect());
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::Merged;
    use model::{Task, TaskState};
    use store::Action;

    fn task(id: &str, desired_state: TaskState) -> Task {
        Task { id: id.into(), desired_state, ..Default::default() }
    }

    #[test]
    fn each_object_occurs_once_in_its_last_state_at_its_first_place() {
        let mut merged = Merged::default();
        merged.push(Action::Create(task("a", TaskState::New).into()));
        merged.push(Action::Update(task("b", TaskState::Ready).into()));
        merged.push(Action::Create(task("c", TaskState::New).into()));
        merged.push(Action::Update(task("a", TaskState::Running).into()));
        merged.push(Action::Remove(task("b", TaskState::Ready).into()));
        merged.push(Action::Remove(task("c", TaskState::New).into()));
        merged.push(Action::Create(task("d", TaskState::New).into()));
        let expected = vec![
            vec![
                Action::Create(task("a", TaskState::Running).into()),
                Action::Remove(task("b", TaskState::Ready).into()),
            ],
            vec![Action::Create(task("d", TaskState::New).into())],
        ];
        assert_eq!(merged.into_batches(2), expected);
    }
}
