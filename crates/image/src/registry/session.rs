//! Talking to one endpoint about one repository: authentication, redirects, errors.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde::Deserialize;

use super::challenge::{self, Challenge, error_body};
use super::endpoint::{Endpoint, Role, verify_for};
use super::http::{Answer, SendError, Target, Timeouts, send};
use super::tls::TlsSettings;
use crate::{AuthConfig, ImageError, RegistryConfig};

const REDIRECTS_MAX: usize = 5;
const ERROR_BODY_BYTES_MAX: u64 = 64 << 10;
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// Name that we give to token servers.
const CLIENT_ID: &str = "docker";

/// What all sessions share.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) config: Arc<RegistryConfig>,
    pub(super) tls: Arc<TlsSettings>,
    pub(super) timeouts: Timeouts,
}

/// An answer to an authenticated request.
pub(crate) type SessionResult = Result<Answer, ImageError>;

/// A conversation. Clones share the token that was got.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    client: Client,
    endpoint: Endpoint,
    auth: AuthConfig,
    /// `repository:library/x:pull`; empty for a login.
    scope: String,
    challenges: Arc<Mutex<Vec<Challenge>>>,
    authorization: Arc<tokio::sync::Mutex<Option<HeaderValue>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

impl Client {
    fn target(&self, host: &str, tls: bool) -> Result<Target, ImageError> {
        let tls = match tls {
            false => None,
            true => {
                let config = self.tls.client(host, verify_for(&self.config, host));
                Some(config.map_err(|error| ImageError::Registry(format!("certificates for {host}: {error}")))?)
            }
        };
        Ok(Target { host: host.to_string(), tls })
    }

    /// Sends to a URL; no redirects, no authentication of its own.
    async fn send(&self, url: &str, mut request: Request<Full<Bytes>>) -> SessionResult {
        let bad_url = || ImageError::Registry(format!("invalid URL {url:?} from the registry"));
        let uri: Uri = url.parse().map_err(|_| bad_url())?;
        let authority = uri.authority().ok_or_else(bad_url)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad_url()),
        };
        // credentials do not belong into the host
        let host = authority.as_str().rsplit('@').next().unwrap_or_default().to_string();
        let target = self.target(&host, tls)?;
        *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|_| bad_url())?;
        let headers = request.headers_mut();
        headers.insert("host", HeaderValue::from_str(&host).map_err(|_| bad_url())?);
        let agent = HeaderValue::from_str(&self.config.user_agent);
        headers.insert(USER_AGENT, agent.unwrap_or(HeaderValue::from_static("skep")));
        let answer = send(&target, request, self.timeouts).await;
        answer.map_err(|error| ImageError::Unreachable { url: url.to_string(), reason: error.reason() })
    }
}

impl Session {
    /// Asks the endpoint who it is (`GET /v2/`).
    pub(super) async fn open(
        client: &Client,
        endpoint: &Endpoint,
        auth: Option<&AuthConfig>,
        scope: String,
    ) -> Result<Self, ImageError> {
        let url = endpoint.url("/v2/");
        let request = Request::new(Full::default());
        let answer = client.send(&url, request).await?;
        let challenges = match answer.status() {
            StatusCode::OK => Vec::new(),
            StatusCode::UNAUTHORIZED => challenges_of(&answer),
            status if status.is_success() => Vec::new(),
            // as dockerd: something that answers, though not as a registry; the next request tells
            status if status.is_client_error() => Vec::new(),
            status => {
                return Err(ImageError::Registry(format!(
                    "received unexpected HTTP status: {} {}",
                    status.as_u16(),
                    status.canonical_reason().unwrap_or_default()
                )));
            }
        };
        let auth = match endpoint.role {
            Role::Mirror => AuthConfig::default(),
            Role::Registry => auth.cloned().unwrap_or_default(),
        };
        let challenges = Arc::new(Mutex::new(challenges));
        let authorization = Arc::default();
        Ok(Self { client: client.clone(), endpoint: endpoint.clone(), auth, scope, challenges, authorization })
    }

    /// The URL of a path at this endpoint.
    pub(crate) fn url(&self, path: &str) -> String {
        self.endpoint.url(path)
    }

    /// `GET`, authenticated, following redirects; any status.
    pub(super) async fn get(&self, path: &str, accept: &[&str], from: u64) -> SessionResult {
        let mut refreshed = false;
        loop {
            let answer = self.get_once(path, accept, from).await?;
            if answer.status() != StatusCode::UNAUTHORIZED || refreshed {
                return Ok(answer);
            }
            // tokens live for minutes, layers may take longer; and some registries ask only where it matters
            let asked = challenges_of(&answer);
            if !asked.is_empty() {
                *self.challenges.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            }
            if self.challenges().is_empty() {
                return Ok(answer);
            }
            refreshed = true;
            *self.authorization.lock().await = None;
        }
    }

    async fn get_once(&self, path: &str, accept: &[&str], from: u64) -> SessionResult {
        let mut url = self.url(path);
        let own_host = self.endpoint.host.clone();
        let authorization = self.authorization().await?;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::new(Full::default());
            let headers = request.headers_mut();
            for kind in accept {
                headers.append(ACCEPT, HeaderValue::from_str(kind).expect("media types are plain text"));
            }
            if from > 0 {
                let range = HeaderValue::from_str(&format!("bytes={from}-")).expect("digits are plain text");
                headers.insert(RANGE, range);
            }
            let uri: Option<Uri> = url.parse().ok();
            let same_host = uri.as_ref().and_then(Uri::authority).is_some_and(|host| host.as_str() == own_host);
            if let Some(value) = authorization.as_ref().filter(|_| same_host) {
                headers.insert(AUTHORIZATION, value.clone());
            }
            let answer = self.client.send(&url, request).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let location = answer.header(LOCATION.as_str()).unwrap_or_default();
            url = join(&url, location)
                .ok_or_else(|| ImageError::Registry(format!("Get \"{url}\": invalid redirect to {location:?}")))?;
        }
        Err(ImageError::Registry(format!("Get \"{url}\": stopped after {REDIRECTS_MAX} redirects")))
    }

    fn challenges(&self) -> Vec<Challenge> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, ImageError> {
        let mut known = self.authorization.lock().await;
        if known.is_none() {
            *known = self.authenticate().await?.0;
        }
        Ok(known.clone())
    }

    /// Answers the challenge: the header for requests, and the refresh token if one is given.
    pub(super) async fn authenticate(&self) -> Result<(Option<HeaderValue>, String), ImageError> {
        let bearer = |token: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| ImageError::Registry("the token server sent an unusable token".into()))?;
            value.set_sensitive(true);
            Ok::<_, ImageError>(value)
        };
        if !self.auth.registrytoken.is_empty() {
            return Ok((Some(bearer(&self.auth.registrytoken)?), String::new()));
        }
        for challenge in self.challenges() {
            match challenge {
                Challenge::Bearer { realm, service } => {
                    let token = self.fetch_token(&realm, &service).await?;
                    let text = token.token.filter(|text| !text.is_empty()).or(token.access_token).unwrap_or_default();
                    if text.is_empty() {
                        return Err(ImageError::Registry(
                            "authorization server did not include a token in the response".into(),
                        ));
                    }
                    return Ok((Some(bearer(&text)?), token.refresh_token.unwrap_or_default()));
                }
                Challenge::Basic if !self.auth.username.is_empty() => {
                    return Ok((Some(self.basic()), String::new()));
                }
                Challenge::Basic => {}
            }
        }
        Ok((None, String::new()))
    }

    fn basic(&self) -> HeaderValue {
        let pair = format!("{}:{}", self.auth.username, self.auth.password);
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut value = HeaderValue::from_str(&text).expect("base64 is plain text");
        value.set_sensitive(true);
        value
    }

    async fn fetch_token(&self, realm: &str, service: &str) -> Result<Token, ImageError> {
        let mut fields = vec![("service", service)];
        if !self.scope.is_empty() {
            fields.push(("scope", &self.scope));
        }
        let (url, request) = if self.auth.identitytoken.is_empty() {
            if !self.auth.username.is_empty() {
                fields.push(("account", &self.auth.username));
            }
            if self.scope.is_empty() {
                fields.extend([("client_id", CLIENT_ID), ("offline_token", "true")]);
            }
            let separator = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::new(Full::default());
            if !self.auth.username.is_empty() {
                request.headers_mut().insert(AUTHORIZATION, self.basic());
            }
            (format!("{realm}{separator}{}", form(&fields)), request)
        } else {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", &self.auth.identitytoken),
            ]);
            let mut request = Request::new(Full::from(form(&fields)));
            *request.method_mut() = Method::POST;
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(CONTENT_TYPE, kind);
            (realm.to_string(), request)
        };
        let answer = self.client.send(&url, request).await?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.bytes(ERROR_BODY_BYTES_MAX).await.unwrap_or_default();
            return Err(self.token_refused(status, &error_body(&body).text));
        }
        let bytes = answer.bytes(TOKEN_BYTES_MAX).await.map_err(|error| broken(realm, error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::Registry(format!("unable to decode token response: {error}")))
    }

    fn token_refused(&self, status: StatusCode, text: &str) -> ImageError {
        let url = self.url("/v2/");
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let text = match text {
                "" => "unauthorized: authentication required".to_string(),
                text if text.contains(": ") => text.to_string(),
                text => format!("unauthorized: {text}"),
            };
            return ImageError::Unauthorized(format!("Get \"{url}\": {text}"));
        }
        let (number, words) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
        ImageError::Registry(format!("Get \"{url}\": failed to fetch token: {number} {words}"))
    }

    /// Whether the user gave credentials.
    pub(super) fn has_credentials(&self) -> bool {
        self.auth != AuthConfig::default()
    }

    /// Reads an error that the registry sent in place of content.
    pub(super) async fn refusal(&self, answer: Answer, what: &RefusedRequest<'_>) -> ImageError {
        let status = answer.status();
        let body = error_body(&answer.bytes(ERROR_BODY_BYTES_MAX).await.unwrap_or_default());
        let or = |text: &str| if body.text.is_empty() { text.to_string() } else { body.text.clone() };
        let url = self.url(what.path);
        match (status, body.code.as_str()) {
            (_, "DENIED") | (StatusCode::FORBIDDEN, _) => ImageError::PullDenied {
                repository: what.repository.to_string(),
                detail: format!(": {}", or("denied: requested access to the resource is denied")),
            },
            (StatusCode::UNAUTHORIZED, _)
                if !self.has_credentials() && self.challenges().contains(&Challenge::Basic) =>
            {
                ImageError::Unauthorized(format!("Head \"{url}\": no basic auth credentials"))
            }
            (StatusCode::UNAUTHORIZED, _) if self.has_credentials() => {
                ImageError::Unauthorized(or("unauthorized: authentication required"))
            }
            (StatusCode::UNAUTHORIZED, _) => ImageError::PullDenied {
                repository: what.repository.to_string(),
                detail: ": denied: requested access to the resource is denied".into(),
            },
            (_, "NAME_UNKNOWN") => {
                ImageError::RepositoryUnknown { repository: what.repository.to_string(), detail: or("name unknown") }
            }
            (StatusCode::NOT_FOUND, _) => ImageError::ManifestUnknown {
                reference: what.reference.to_string(),
                detail: or("manifest unknown: manifest unknown"),
            },
            (StatusCode::TOO_MANY_REQUESTS, _) => ImageError::Registry(or("toomanyrequests: too many requests")),
            _ => ImageError::Registry(or(&format!(
                "received unexpected HTTP status: {} {}",
                status.as_u16(),
                status.canonical_reason().unwrap_or_default()
            ))),
        }
    }
}

fn challenges_of(answer: &Answer) -> Vec<Challenge> {
    let headers = answer.headers().get_all(WWW_AUTHENTICATE);
    challenge::parse(headers.iter().filter_map(|value| value.to_str().ok()))
}

/// What was asked for when a registry refused.
pub(super) struct RefusedRequest<'a> {
    pub(super) path: &'a str,
    pub(super) repository: &'a str,
    pub(super) reference: &'a str,
}

pub(super) fn broken(url: &str, error: SendError) -> ImageError {
    ImageError::Unreachable { url: url.to_string(), reason: error.reason() }
}

/// `a=b&c=d`, percent-encoded.
fn form(fields: &[(&str, &str)]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (key, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                _ => write!(text, "%{byte:02X}").expect("writing to a string does not fail"),
            }
        }
    }
    text
}

/// Where a redirect leads: absolute, or on the same host.
fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_string());
    }
    let base: Uri = base.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    location.starts_with('/').then(|| format!("{scheme}://{authority}{location}"))
}

impl Timeouts {
    pub(super) fn of(config: &RegistryConfig) -> Self {
        let (connect, stall) = (config.connect_timeout_ms, config.stall_timeout_ms);
        Self { connect: Duration::from_millis(connect), stall: Duration::from_millis(stall) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_and_forms() {
        assert_eq!(join("http://a:1/x", "/y?z"), Some("http://a:1/y?z".into()));
        assert_eq!(join("https://a/x", "//b/y"), Some("https://b/y".into()));
        assert_eq!(join("https://a/x", "https://c/"), Some("https://c/".into()));
        assert_eq!(join("https://a/x", "y"), None);
        assert_eq!(form(&[("scope", "repository:a/b:pull"), ("x", "ä")]), "scope=repository%3Aa%2Fb%3Apull&x=%C3%A4");
    }
}
