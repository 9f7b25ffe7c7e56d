//! Validated writes on a clone of a view. A write that is refused leaves the transaction as it was.

use crate::error::StoreError;
use crate::object::{Action, Object, ObjectId, StoreObject};
use crate::view::View;
use std::collections::BTreeMap;
use std::ops::Deref;

/// A transaction being built: it reads as a [`View`] (and sees its own writes); [`Self::finish`] gives what to propose.
///
/// Writes to the same object are folded into one action, at the place of the first. So no object occurs twice, except one
/// that was removed and made anew, and one that was renamed (the new name may be free only since a write in between).
#[derive(Clone)]
pub struct Transaction {
    view: View,
    actions: Vec<Option<Action>>,
    last: BTreeMap<ObjectId, usize>,
}

impl Deref for Transaction {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Transaction {
    /// An empty one on top of `view`.
    pub fn new(view: &View) -> Self {
        Self { view: view.clone(), actions: Vec::new(), last: BTreeMap::new() }
    }

    /// The state with this transaction's writes.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.actions.iter().all(Option::is_none)
    }

    /// Adds a new object: its identifier and name must be free.
    pub fn create(&mut self, object: impl Into<Object>) -> Result<(), StoreError> {
        let action = Action::Create(object.into());
        self.view.apply_one(&action)?;
        self.push(action);
        Ok(())
    }

    /// Changes an object: it must be there, with the version that `object` carries, and the name must be free.
    pub fn update(&mut self, object: impl Into<Object>) -> Result<(), StoreError> {
        let object = object.into();
        let stored = self.view.find(&object).ok_or_else(|| StoreError::NotFound(object.id()))?;
        let (given, stored) = (object.meta().version, stored.meta().version);
        if given != stored {
            return Err(StoreError::OutOfSequence { id: object.id(), given, stored });
        }
        let action = Action::Update(object);
        self.view.apply_one(&action)?;
        self.push(action);
        Ok(())
    }

    /// Removes an object, which must be there.
    pub fn remove<T: StoreObject>(&mut self, id: &T::Id) -> Result<(), StoreError> {
        let stored = self.view.get::<T>(id).cloned().ok_or_else(|| StoreError::NotFound(id.clone().into()))?;
        self.remove_object(T::into_object(stored))
    }

    /// Removes the object with the kind and identifier of `object`, which must be there.
    pub fn remove_object(&mut self, object: impl Into<Object>) -> Result<(), StoreError> {
        let action = Action::Remove(object.into());
        self.view.apply_one(&action)?;
        self.push(action);
        Ok(())
    }

    /// What to propose, in the order in which the objects were first written.
    pub fn finish(self) -> Vec<Action> {
        // The view goes first: it shares the objects, and stamping a shared object would copy it.
        drop(self.view);
        self.actions.into_iter().flatten().collect()
    }

    fn push(&mut self, action: Action) {
        let id = action.id();
        let folded = match self.last.get(&id) {
            None => None,
            Some(&at) => match (&self.actions[at], &action) {
                (Some(Action::Create(_)), Action::Remove(_)) => Some((at, None)),
                (Some(Action::Update(_)), Action::Remove(_)) => Some((at, Some(action.clone()))),
                (Some(Action::Create(before)), Action::Update(object)) if keeps_name(before, object) => {
                    Some((at, Some(Action::Create(object.clone()))))
                }
                (Some(Action::Update(before)), Action::Update(object)) if keeps_name(before, object) => {
                    Some((at, Some(action.clone())))
                }
                _ => None,
            },
        };
        match folded {
            Some((at, Some(action))) => self.actions[at] = Some(action),
            Some((at, None)) => {
                self.actions[at] = None;
                self.last.remove(&id);
            }
            None => {
                self.last.insert(id, self.actions.len());
                self.actions.push(Some(action));
            }
        }
    }
}

fn keeps_name(before: &Object, after: &Object) -> bool {
    before.unique_name().to_lowercase() == after.unique_name().to_lowercase()
}
