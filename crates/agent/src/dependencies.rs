//! The secrets and configs that this node's tasks may read, as the dispatcher last sent them. In memory only.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use model::{Config, ConfigId, Secret, SecretId};

/// Shared by the worker, which fills it, and the controllers, which read it.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    secrets: BTreeMap<SecretId, Arc<Secret>>,
    configs: BTreeMap<ConfigId, Arc<Config>>,
}

impl Dependencies {
    /// The secret for a task: its own copy (`<secret>.<task>`) if a driver made one, else the shared one.
    pub fn secret(&self, id: &SecretId, task: &model::TaskId) -> Option<Arc<Secret>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let own = SecretId::from(format!("{id}.{task}"));
        inner.secrets.get(&own).or_else(|| inner.secrets.get(id)).cloned()
    }

    /// The config with this identifier.
    pub fn config(&self, id: &ConfigId) -> Option<Arc<Config>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).configs.get(id).cloned()
    }

    pub(crate) fn clear(&self) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Inner::default();
    }

    pub(crate) fn put_secret(&self, secret: Secret) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.secrets.insert(secret.id.clone(), Arc::new(secret));
    }

    pub(crate) fn put_config(&self, config: Config) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.configs.insert(config.id.clone(), Arc::new(config));
    }

    pub(crate) fn remove_secret(&self, id: &SecretId) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).secrets.remove(id);
    }

    pub(crate) fn remove_config(&self, id: &ConfigId) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).configs.remove(id);
    }
}
