//! The containers by id and by name. A name is reserved before its container exists; no two containers share one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::EngineError;
use crate::container::Container;
use crate::names::random_name;
use crate::validate::check_name;

/// Random names tried before a container gets its short id as its name.
const NAME_ATTEMPTS: u32 = 6;

#[derive(Debug, Default)]
struct State {
    containers: BTreeMap<String, Arc<Container>>,
    /// Name without `/` → container id.
    names: BTreeMap<String, String>,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<State>);

fn name_conflict(name: &str, id: &str) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that \
         container to be able to reuse that name."
    ))
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a name for an id; without one a random one is found.
    pub(crate) fn reserve(&self, name: Option<&str>, id: &str) -> Result<String, EngineError> {
        let Some(name) = name else { return Ok(self.reserve_random(id)) };
        check_name(name)?;
        let name = name.strip_prefix('/').unwrap_or(name);
        let mut state = self.lock();
        match state.names.get(name) {
            Some(holder) if holder != id => Err(name_conflict(name, holder)),
            _ => {
                state.names.insert(name.to_owned(), id.to_owned());
                Ok(name.to_owned())
            }
        }
    }

    fn reserve_random(&self, id: &str) -> String {
        let mut state = self.lock();
        let mut attempts = (0..NAME_ATTEMPTS).map(random_name);
        let name = attempts.find(|name| !state.names.contains_key(name)).unwrap_or_else(|| id[..12].to_owned());
        state.names.insert(name.clone(), id.to_owned());
        name
    }

    /// Gives a name back.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut state = self.lock();
        if state.names.get(name).is_some_and(|holder| holder == id) {
            state.names.remove(name);
        }
    }

    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.lock().containers.insert(container.id.clone(), container);
    }

    /// Takes a container and its names out.
    pub(crate) fn remove(&self, id: &str) {
        let mut state = self.lock();
        state.containers.remove(id);
        state.names.retain(|_, holder| holder != id);
    }

    /// By id, by name, by the start of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>, EngineError> {
        let state = self.lock();
        let missing = || EngineError::no_such_container(text);
        if let Some(container) = state.containers.get(text) {
            return Ok(container.clone());
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(id) = state.names.get(name) {
            return state.containers.get(id).cloned().ok_or_else(missing);
        }
        if text.is_empty() {
            return Err(EngineError::invalid("Container name or ID must be provided"));
        }
        let mut matches = state.containers.range(text.to_owned()..).take_while(|(id, _)| id.starts_with(text));
        match (matches.next(), matches.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(EngineError::invalid(format!("multiple IDs found with provided prefix: {text}"))),
            (None, _) => Err(missing()),
        }
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.lock().containers.values().cloned().collect()
    }
}
