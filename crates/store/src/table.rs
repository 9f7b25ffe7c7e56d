//! One kind's objects by identifier, and by lower-cased name if names are unique in that kind.

use crate::object::StoreObject;
use imbl::OrdMap;
use std::borrow::Borrow;
use std::ops::Bound;
use std::sync::Arc;

/// The objects of one kind.
pub struct Table<T: StoreObject> {
    objects: OrdMap<T::Id, Arc<T>>,
    names: OrdMap<Arc<str>, T::Id>,
}

impl<T: StoreObject> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { objects: self.objects.clone(), names: self.names.clone() }
    }
}

impl<T: StoreObject> Default for Table<T> {
    fn default() -> Self {
        Self { objects: OrdMap::new(), names: OrdMap::new() }
    }
}

impl<T: StoreObject> Table<T> {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.objects.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.iter().map(|(_, object)| object)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<T>> {
        let id = self.names.get(name.to_lowercase().as_str())?;
        self.objects.get(id)
    }

    pub(crate) fn by_id_prefix<'a>(&'a self, prefix: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        let prefix = prefix.to_owned();
        self.objects
            .range::<_, str>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(move |(id, _)| Borrow::<str>::borrow(*id).starts_with(&prefix))
            .map(|(_, object)| object)
    }

    pub(crate) fn by_name_prefix<'a>(&'a self, prefix: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        let prefix = prefix.to_lowercase();
        self.names
            .range::<_, str>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(&prefix))
            .filter_map(|(_, id)| self.objects.get(id))
    }

    /// Whether `object` may have its name: no other object has it.
    pub(crate) fn name_is_free_for(&self, object: &T) -> bool {
        let name = object.unique_name();
        name.is_empty() || self.names.get(name.to_lowercase().as_str()).is_none_or(|holder| holder == object.id())
    }

    /// Puts `object` in, over an older one with its identifier, which is returned.
    pub(crate) fn put(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let name = object.unique_name();
        let old = self.objects.insert(object.id().clone(), object.clone());
        let kept = old.as_ref().is_some_and(|old| old.unique_name() == name);
        if !kept {
            if let Some(old) = &old {
                self.forget_name(old);
            }
            if !name.is_empty() {
                self.names.insert(name.to_lowercase().into(), object.id().clone());
            }
        }
        old
    }

    pub(crate) fn take(&mut self, id: &T::Id) -> Option<Arc<T>> {
        let old = self.objects.remove(id)?;
        self.forget_name(&old);
        Some(old)
    }

    fn forget_name(&mut self, old: &T) {
        if !old.unique_name().is_empty() {
            self.names.remove(old.unique_name().to_lowercase().as_str());
        }
    }
}
