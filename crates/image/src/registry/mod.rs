//! The registry client: the distribution API over our own small HTTP client.
//!
//! It is our own because pulls must resume, mirrors and plain HTTP must be tried in dockerd's order, credentials must
//! never reach a mirror or the target of a redirect, and errors must be told in dockerd's words.

mod challenge;
mod endpoint;
mod http;
mod session;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::StatusCode;
use oci_types::{Descriptor, Digest, ImageDocument, Index, Manifest, Platform, Reference, media_type};

pub(crate) use self::http::Answer;
pub(crate) use self::http::SendError;
use self::http::Timeouts;
pub(crate) use self::session::Session;
use self::session::{Client, RefusedRequest, broken};
use self::tls::TlsSettings;
use crate::store::blobs::{DOCUMENT_BYTES_MAX, digest_of};
use crate::{AuthConfig, AuthStatus, Distribution, ImageError, RegistryConfig};
pub(crate) use endpoint::Endpoint;

/// `GET /distribution/…` waits this long for a first sign of life, all endpoints together.
const DISTRIBUTION_CONNECT_BUDGET: Duration = Duration::from_millis(1600);
const DISTRIBUTION_STALL: Duration = Duration::from_secs(10);
/// Pages of one list of tags; a registry chooses how much is on one.
const TAG_PAGES_MAX: usize = 1000;
/// What docker takes for Docker Hub in a login.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

const MANIFEST_TYPES: [&str; 4] =
    [media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST, media_type::OCI_MANIFEST, media_type::OCI_INDEX];

/// The registries as configured.
#[derive(Debug)]
pub(crate) struct Registries {
    client: Client,
}

/// A manifest or index, verified.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Registries {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let tls = Arc::new(TlsSettings::new(config.ca_bundle.clone(), config.certs_dir.clone()));
        let timeouts = Timeouts::of(&config);
        Self { client: Client { config: Arc::new(config), tls, timeouts } }
    }

    pub(crate) fn attempts_max(&self) -> usize {
        self.client.config.max_download_attempts.max(1)
    }

    /// The endpoints for a reference, in the order of asking.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        endpoint::endpoints(&self.client.config, reference.domain())
    }

    /// Begins to talk to an endpoint.
    pub(crate) async fn session(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<&AuthConfig>,
    ) -> Result<Session, ImageError> {
        Session::open(&self.client, endpoint, auth, pull_scope(reference)).await
    }

    /// What the reference stands for, without pulling it.
    pub(crate) async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<&AuthConfig>,
    ) -> Result<Distribution, ImageError> {
        let deadline = Instant::now() + DISTRIBUTION_CONNECT_BUDGET;
        let endpoints = self.endpoints(reference);
        let mut last = no_endpoint(reference);
        let mut answered: Option<String> = None;
        for (index, endpoint) in endpoints.iter().enumerate() {
            if answered.as_ref().is_some_and(|host| endpoint.is_plain_of(host)) {
                continue;
            }
            // each gets its share of the time, the last one all that is left
            let share = (endpoints.len() - index) as u32;
            let connect = deadline.saturating_duration_since(Instant::now()) / share;
            let timeouts = Timeouts { connect, stall: DISTRIBUTION_STALL };
            let client = Client { timeouts, ..self.client.clone() };
            let open = Session::open(&client, endpoint, auth, pull_scope(reference));
            let silent = || ImageError::Unreachable {
                url: endpoint.url("/v2/"),
                reason: "net/http: request canceled while waiting for connection".into(),
            };
            // who takes a connection and then says nothing is not reached either
            let session = match tokio::time::timeout(connect, open).await.unwrap_or_else(|_| Err(silent())) {
                Ok(session) => session,
                // what one that answered has said counts for more
                Err(_) if answered.is_some() => continue,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            answered = Some(endpoint.host().to_string());
            match session.inspect(reference).await {
                Ok(distribution) => return Ok(distribution),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Checks credentials.
    pub(crate) async fn login(&self, auth: &AuthConfig) -> Result<AuthStatus, ImageError> {
        let mut auth = auth.clone();
        auth.complete();
        let server = if auth.serveraddress.is_empty() { HUB_SERVER } else { &auth.serveraddress };
        let domain = login_domain(server);
        let mut last = ImageError::Registry(format!("no endpoints found for {domain}"));
        for endpoint in endpoint::registry_endpoints(&self.client.config, &domain) {
            match self.login_at(&endpoint, &auth).await {
                Ok(status) => return Ok(status),
                Err(error @ ImageError::Unauthorized(_)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn login_at(&self, endpoint: &Endpoint, auth: &AuthConfig) -> Result<AuthStatus, ImageError> {
        let session = Session::open(&self.client, endpoint, Some(auth), String::new()).await?;
        let (_, identity_token) = session.authenticate().await?;
        let answer = session.get("/v2/", &[], 0).await?;
        match answer.status() {
            status if status.is_success() => Ok(AuthStatus { status: "Login Succeeded".into(), identity_token }),
            status => {
                let words = status.canonical_reason().unwrap_or_default();
                let url = session.url("/v2/");
                let text = format!("login attempt to {url} failed with status: {} {words}", status.as_u16());
                match status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ImageError::Unauthorized(text)),
                    _ => Err(ImageError::Registry(text)),
                }
            }
        }
    }
}

pub(crate) fn no_endpoint(reference: &Reference) -> ImageError {
    ImageError::Registry(format!("no endpoints found for {}", reference.familiar_name()))
}

fn pull_scope(reference: &Reference) -> String {
    format!("repository:{}:pull", reference.path())
}

/// The registry that a login's server address means.
fn login_domain(server: &str) -> String {
    let rest = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = rest.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => oci_types::DEFAULT_DOMAIN.to_string(),
        host => host.to_string(),
    }
}

/// Where a registry says that its list goes on: `<…>; rel="next"`, by path or by URL.
fn next_page(link: &str) -> Option<String> {
    let target = link.split(';').next()?.trim().strip_prefix('<')?.strip_suffix('>')?;
    let target: ::http::Uri = target.parse().ok()?;
    let path = target.path_and_query()?.as_str();
    path.starts_with('/').then(|| path.to_owned())
}

impl Session {
    /// The tags of a repository, however many pages they take.
    pub(crate) async fn tags(&self, repository: &Reference) -> Result<Vec<String>, ImageError> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut path = format!("/v2/{}/tags/list", repository.path());
        let mut tags = Vec::new();
        for _ in 0..TAG_PAGES_MAX {
            let answer = self.get(&path, &[], 0).await?;
            if answer.status() != StatusCode::OK {
                let name = repository.familiar_name();
                let request = RefusedRequest { path: &path, repository: &name, reference: &name };
                return Err(self.refusal(answer, &request).await);
            }
            let next = answer.header("link").and_then(next_page);
            let bytes = answer.bytes(DOCUMENT_BYTES_MAX).await.map_err(|error| broken(&self.url(&path), error))?;
            tags.extend(parse::<Page>("list of tags", &bytes)?.tags.unwrap_or_default());
            match next {
                Some(next) => path = next,
                None => return Ok(tags),
            }
        }
        Err(ImageError::bad(repository.familiar_name(), format!("more than {TAG_PAGES_MAX} pages of tags")))
    }

    /// Fetches and verifies a manifest or index: by digest if the reference has one.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<Document, ImageError> {
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, tag) => tag.unwrap_or(oci_types::DEFAULT_TAG),
        };
        let path = format!("/v2/{}/manifests/{wanted}", reference.path());
        let answer = self.get(&path, &MANIFEST_TYPES, 0).await?;
        if answer.status() != StatusCode::OK {
            let (repository, shown) = (reference.familiar_name(), reference.familiar());
            let request = RefusedRequest { path: &path, repository: &repository, reference: &shown };
            return Err(self.refusal(answer, &request).await);
        }
        let header = answer.header("content-type").unwrap_or_default();
        let header = header.split(';').next().unwrap_or_default().trim().to_string();
        let bytes = answer.bytes(DOCUMENT_BYTES_MAX).await.map_err(|error| broken(&self.url(&path), error))?;
        let digest = digest_of(&bytes);
        if reference.digest().is_some_and(|wanted| *wanted != digest) {
            let reason = format!("manifest verification failed for digest {wanted}");
            return Err(ImageError::bad(reference.familiar(), reason));
        }
        Ok(Document { media_type: document_type(&header, &bytes), digest, bytes })
    }

    /// Fetches a small blob and verifies it.
    pub(crate) async fn small_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, ImageError> {
        let answer = self.blob(reference, &descriptor.digest, 0).await?;
        let url = self.url(&blob_path(reference, &descriptor.digest));
        let bytes = answer.bytes(DOCUMENT_BYTES_MAX).await.map_err(|error| broken(&url, error))?;
        if digest_of(&bytes) != descriptor.digest {
            let reason = format!("image config verification failed for digest {}", descriptor.digest);
            return Err(ImageError::bad(reference.familiar(), reason));
        }
        Ok(bytes)
    }

    /// Begins to fetch a blob from an offset. The answer's status is 200 (from the start) or 206, or 416.
    pub(crate) async fn blob(&self, reference: &Reference, digest: &Digest, from: u64) -> Result<Answer, ImageError> {
        let path = blob_path(reference, digest);
        let answer = self.get(&path, &[], from).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Ok(answer),
            _ => {
                let (repository, shown) = (reference.familiar_name(), digest.to_string());
                let request = RefusedRequest { path: &path, repository: &repository, reference: &shown };
                Err(match self.refusal(answer, &request).await {
                    ImageError::ManifestUnknown { detail, .. } => {
                        ImageError::Registry(format!("blob {digest} not found: {detail}"))
                    }
                    other => other,
                })
            }
        }
    }

    async fn inspect(&self, reference: &Reference) -> Result<Distribution, ImageError> {
        let document = self.manifest(reference).await?;
        let platforms = if media_type::is_index(&document.media_type) {
            let index: Index = parse("manifest list", &document.bytes)?;
            index.manifests.into_iter().filter_map(|manifest| manifest.platform).collect()
        } else {
            let manifest: Manifest = parse("manifest", &document.bytes)?;
            let config: ImageDocument = parse("image config", &self.small_blob(reference, &manifest.config).await?)?;
            let (architecture, os, os_version, variant) =
                (config.architecture, config.os, config.os_version, config.variant);
            if os.is_empty() { Vec::new() } else { vec![Platform { architecture, os, os_version, variant }] }
        };
        let descriptor = Descriptor {
            media_type: document.media_type,
            digest: document.digest,
            size: document.bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
            urls: Vec::new(),
        };
        Ok(Distribution { descriptor, platforms })
    }
}

/// What broke off the body of an answer.
pub(crate) fn interrupted(url: &str, error: SendError) -> ImageError {
    broken(url, error)
}

pub(crate) fn blob_path(reference: &Reference, digest: &Digest) -> String {
    format!("/v2/{}/blobs/{digest}", reference.path())
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::bad(format!("invalid {what}"), error))
}

/// The registry's header, or what the document says of itself, or what it looks like.
fn document_type(header: &str, bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Shape {
        media_type: String,
        manifests: Option<serde_json::Value>,
    }
    if media_type::is_index(header) || media_type::is_manifest(header) {
        return header.to_string();
    }
    let shape: Shape = serde_json::from_slice(bytes).unwrap_or_default();
    match shape {
        Shape { media_type, .. } if !media_type.is_empty() => media_type,
        Shape { manifests: Some(_), .. } => media_type::OCI_INDEX.to_string(),
        _ if header.contains("prettyjws") || header.contains("manifest.v1+json") => header.to_string(),
        _ => media_type::OCI_MANIFEST.to_string(),
    }
}
