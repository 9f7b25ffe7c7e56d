//! Secrets and configs over gRPC. A secret's data never goes this way.

use model::{Config, ConfigSpec, Secret, SecretId, SecretSpec};
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;

use super::filter::common;
use super::handlers::{Handlers, given, required, version};
use crate::error::ControlError;

fn secret_id(id: String) -> Result<SecretId, ControlError> {
    given(id).map_err(|_| ControlError::invalid("secret ID must be provided"))
}

fn config_id(id: String) -> Result<model::ConfigId, ControlError> {
    given(id).map_err(|_| ControlError::invalid("config ID must be provided"))
}

fn without_data(secret: &Secret) -> p::Secret {
    let mut shown = secret.clone();
    shown.spec.data.clear();
    shown.to_proto()
}

impl Handlers {
    fn secret(&self, id: &SecretId) -> Result<p::Secret, ControlError> {
        let view = self.view();
        view.secret(id).map(|secret| without_data(secret)).ok_or_else(|| ControlError::not_found("secret", id))
    }

    pub(super) fn get_secret(&self, request: p::GetSecretRequest) -> Result<p::GetSecretResponse, ControlError> {
        Ok(p::GetSecretResponse { secret: Some(self.secret(&secret_id(request.secret_id)?)?) })
    }

    pub(super) fn list_secrets(&self, request: p::ListSecretsRequest) -> Result<p::ListSecretsResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let common = common!(filters);
        let view = self.view();
        let takes = |secret: &&std::sync::Arc<Secret>| {
            !secret.internal && common.takes(secret.id.as_str(), &secret.spec.annotations)
        };
        let secrets = view.secrets().filter(takes).map(|secret| without_data(secret)).collect();
        Ok(p::ListSecretsResponse { secrets })
    }

    pub(super) async fn create_secret(
        &self,
        request: p::CreateSecretRequest,
    ) -> Result<p::CreateSecretResponse, ControlError> {
        let id = self.control.create_secret(required::<SecretSpec>(request.spec)?).await?;
        Ok(p::CreateSecretResponse { secret: Some(self.secret(&id)?) })
    }

    pub(super) async fn update_secret(
        &self,
        request: p::UpdateSecretRequest,
    ) -> Result<p::UpdateSecretResponse, ControlError> {
        let id = given(request.secret_id)?;
        let version = version(request.secret_version)?;
        self.control.update_secret(&id, version, required::<SecretSpec>(request.spec)?).await?;
        Ok(p::UpdateSecretResponse { secret: Some(self.secret(&id)?) })
    }

    pub(super) async fn remove_secret(
        &self,
        request: p::RemoveSecretRequest,
    ) -> Result<p::RemoveSecretResponse, ControlError> {
        self.control.remove_secret(&secret_id(request.secret_id)?).await?;
        Ok(p::RemoveSecretResponse {})
    }

    pub(super) fn get_config(&self, request: p::GetConfigRequest) -> Result<p::GetConfigResponse, ControlError> {
        let config = self.read::<Config>("config", &config_id(request.config_id)?)?;
        Ok(p::GetConfigResponse { config: Some(config) })
    }

    pub(super) fn list_configs(&self, request: p::ListConfigsRequest) -> Result<p::ListConfigsResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let common = common!(filters);
        let configs = self.list(|config: &Config| common.takes(config.id.as_str(), &config.spec.annotations));
        Ok(p::ListConfigsResponse { configs })
    }

    pub(super) async fn create_config(
        &self,
        request: p::CreateConfigRequest,
    ) -> Result<p::CreateConfigResponse, ControlError> {
        let id = self.control.create_config(required::<ConfigSpec>(request.spec)?).await?;
        Ok(p::CreateConfigResponse { config: Some(self.read::<Config>("config", &id)?) })
    }

    pub(super) async fn update_config(
        &self,
        request: p::UpdateConfigRequest,
    ) -> Result<p::UpdateConfigResponse, ControlError> {
        let id = given(request.config_id)?;
        let version = version(request.config_version)?;
        self.control.update_config(&id, version, required::<ConfigSpec>(request.spec)?).await?;
        Ok(p::UpdateConfigResponse { config: Some(self.read::<Config>("config", &id)?) })
    }

    pub(super) async fn remove_config(
        &self,
        request: p::RemoveConfigRequest,
    ) -> Result<p::RemoveConfigResponse, ControlError> {
        self.control.remove_config(&config_id(request.config_id)?).await?;
        Ok(p::RemoveConfigResponse {})
    }
}
