//! Credentials for registries, in the form of docker's `X-Registry-Auth`, and what registries answer about themselves.

use base64::Engine;
use oci_types::{Descriptor, Platform};
use serde::{Deserialize, Serialize};

use crate::ImageError;

/// Credentials, as the CLI sends them. Empty strings mean "not given".
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// base64 of `user:password`, an older form.
    pub auth: String,
    /// The registry these are for.
    pub serveraddress: String,
    /// A refresh token, in place of a password.
    pub identitytoken: String,
    /// A bearer token to be sent as it is.
    pub registrytoken: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AuthConfig").field("username", &self.username).finish_non_exhaustive()
    }
}

impl AuthConfig {
    /// Reads an `X-Registry-Auth` header: base64url of JSON. Empty means no credentials.
    pub fn decode(header: &str) -> Result<Option<Self>, ImageError> {
        let header = header.trim().trim_end_matches('=');
        if header.is_empty() {
            return Ok(None);
        }
        let invalid =
            |reason: String| ImageError::InvalidParameter(format!("invalid X-Registry-Auth header: {reason}"));
        let normal: String = header
            .chars()
            .map(|c| {
                if c == '+' {
                    '-'
                } else if c == '/' {
                    '_'
                } else {
                    c
                }
            })
            .collect();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(normal)
            .map_err(|error| invalid(error.to_string()))?;
        let mut auth: Self = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        auth.complete();
        Ok((auth != Self::default()).then_some(auth))
    }

    /// Fills user and password from the older form.
    pub(crate) fn complete(&mut self) {
        if !self.username.is_empty() || self.auth.is_empty() {
            return;
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(&self.auth).unwrap_or_default();
        if let Some((user, password)) = String::from_utf8_lossy(&decoded).split_once(':') {
            self.username = user.to_string();
            self.password = password.trim_end_matches('\0').to_string();
        }
    }
}

/// The answer to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthStatus {
    /// `Login Succeeded`.
    pub status: String,
    /// A refresh token to be kept in place of the password; empty if the registry gives none.
    pub identity_token: String,
}

/// What a registry says about an image without a pull (`GET /distribution/{name}/json`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// The manifest or index that the name stands for.
    pub descriptor: Descriptor,
    /// What the image runs on.
    pub platforms: Vec<Platform>,
}
