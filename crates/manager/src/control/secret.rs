//! Secrets and configs: created once, labels may change, removed when no service uses them.

use model::{Config, ConfigId, ConfigSpec, ObjectVersion, Secret, SecretId, SecretSpec};
use store::{RefTarget, StoreError, View};
use tonic::Code;

use super::LocalControl;
use super::annotations::check_secret_name;
use crate::error::ControlError;

/// Largest secret, in bytes, plus one.
const SECRET_LIMIT: usize = 512_000;
/// Largest config, in bytes, plus one.
const CONFIG_LIMIT: usize = 1_024_000;

impl LocalControl {
    /// Creates a secret.
    pub(crate) async fn create_secret(&self, spec: SecretSpec) -> Result<SecretId, ControlError> {
        check_secret_name(&spec.annotations.name)?;
        match &spec.driver {
            Some(driver) if driver.name.is_empty() => {
                return Err(ControlError::invalid("secret driver must have a name"));
            }
            // drivers are plugins, and there are none
            Some(driver) => {
                return Err(ControlError::new(Code::Unknown, format!("plugin {:?} not found", driver.name)));
            }
            None if spec.data.is_empty() || spec.data.len() >= SECRET_LIMIT => {
                let text = "secret data must be larger than 0 and less than 512000 bytes";
                return Err(ControlError::invalid(text));
            }
            None => {}
        }
        let id = SecretId::from(identity::random_id());
        let name = spec.annotations.name.clone();
        let secret = Secret { id: id.clone(), spec, ..Default::default() };
        let written =
            self.writer.write(|transaction| transaction.create(secret).map_err(|e| exists(e, "secret", &name)));
        written.await.map(|()| id)
    }

    /// Changes a secret's labels.
    pub(crate) async fn update_secret(
        &self,
        id: &SecretId,
        version: ObjectVersion,
        spec: SecretSpec,
    ) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let stored = transaction.secret(id).ok_or_else(|| ControlError::not_found("secret", id))?;
            let mut secret = Secret::clone(stored);
            let same = spec.annotations.name == secret.spec.annotations.name
                && (spec.data.is_empty() || spec.data == secret.spec.data);
            if !same {
                return Err(ControlError::invalid("only updates to Labels are allowed"));
            }
            secret.meta.version = version;
            secret.spec.annotations.labels = spec.annotations.labels;
            transaction.update(secret).map_err(ControlError::from)
        });
        written.await
    }

    /// Removes a secret that no service uses.
    pub(crate) async fn remove_secret(&self, id: &SecretId) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let gone = || ControlError::new(Code::NotFound, format!("could not find secret {id}"));
            let secret = transaction.secret(id).ok_or_else(gone)?.clone();
            in_use(transaction, &RefTarget::Secret(id.clone()), "secret", &secret.spec.annotations.name)?;
            transaction.remove::<Secret>(id).map_err(ControlError::from)
        });
        written.await
    }

    /// Creates a config.
    pub(crate) async fn create_config(&self, spec: ConfigSpec) -> Result<ConfigId, ControlError> {
        check_secret_name(&spec.annotations.name)?;
        if spec.data.is_empty() || spec.data.len() >= CONFIG_LIMIT {
            let text = "config data must be larger than 0 and less than 1024000 bytes";
            return Err(ControlError::invalid(text));
        }
        let id = ConfigId::from(identity::random_id());
        let name = spec.annotations.name.clone();
        let config = Config { id: id.clone(), spec, ..Default::default() };
        let written =
            self.writer.write(|transaction| transaction.create(config).map_err(|e| exists(e, "config", &name)));
        written.await.map(|()| id)
    }

    /// Changes a config's labels.
    pub(crate) async fn update_config(
        &self,
        id: &ConfigId,
        version: ObjectVersion,
        spec: ConfigSpec,
    ) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let stored = transaction.config(id).ok_or_else(|| ControlError::not_found("config", id))?;
            let mut config = Config::clone(stored);
            let same = spec.annotations.name == config.spec.annotations.name
                && (spec.data.is_empty() || spec.data == config.spec.data);
            if !same {
                return Err(ControlError::invalid("only updates to Labels are allowed"));
            }
            config.meta.version = version;
            config.spec.annotations.labels = spec.annotations.labels;
            transaction.update(config).map_err(ControlError::from)
        });
        written.await
    }

    /// Removes a config that no service uses.
    pub(crate) async fn remove_config(&self, id: &ConfigId) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let gone = || ControlError::new(Code::NotFound, format!("could not find config {id}"));
            let config = transaction.config(id).ok_or_else(gone)?.clone();
            in_use(transaction, &RefTarget::Config(id.clone()), "config", &config.spec.annotations.name)?;
            transaction.remove::<Config>(id).map_err(ControlError::from)
        });
        written.await
    }
}

fn exists(error: StoreError, kind: &str, name: &str) -> ControlError {
    match error {
        StoreError::NameConflict { .. } => {
            ControlError::new(Code::AlreadyExists, format!("{kind} {name} already exists"))
        }
        other => other.into(),
    }
}

fn in_use(view: &View, target: &RefTarget, kind: &str, name: &str) -> Result<(), ControlError> {
    let mut users: Vec<&str> =
        view.services_using(target).map(|service| service.spec.annotations.name.as_str()).collect();
    users.sort_unstable();
    match users.len() {
        0 => Ok(()),
        1 => Err(ControlError::invalid(format!("{kind} '{name}' is in use by the following service: {}", users[0]))),
        _ => Err(ControlError::invalid(format!(
            "{kind} '{name}' is in use by the following services: {}",
            users.join(", ")
        ))),
    }
}
