//! Has certificates signed by a CA outside the cluster, which speaks cfssl's protocol over HTTPS.
//!
//! What comes back is checked here and not only by the node that gets it: it must be the node's key under the node's
//! name, and lead to the cluster's root. SwarmKit checks neither key nor name, so that an external CA, or who sits on
//! its socket, could make any node a manager.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use model::{NodeRole, Timestamp};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::authority::LeafRequest;
use crate::bundle::RootBundle;
use crate::certificate::{self, CA, CertificateError, role_name};
use crate::chain::{ChainError, Expiry, NodeCredential, Usage, verify_chain};
use crate::csr::{self, CsrError};
use crate::der;
use crate::dial::dial_tls;
use crate::pem::{self, MAX_PEM_BYTES};
use crate::signature;
use crate::tls::https_client_config;

/// How long one CA may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Profile that an external CA signs another CA with.
const CROSS_SIGN_PROFILE: &str = "CA";
/// Object identifier of the basic constraints, as text.
const BASIC_CONSTRAINTS: &str = "2.5.29.19";

/// An external CA.
#[derive(Clone)]
pub struct ExternalSigner<'a> {
    /// Where it can be asked; the first that answers counts.
    pub urls: &'a [String],
    /// What its HTTPS certificate must lead to; while a root is replaced, the old root and the new.
    pub tls_roots: &'a RootBundle,
    /// What this manager shows it.
    pub node: Option<&'a NodeCredential>,
    /// Appended to each leaf, PEM: the cross-signed certificate while a root is replaced, else empty.
    pub intermediates_pem: &'a [u8],
}

/// Why an external CA gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// None is configured.
    #[error("no external CA URLs")]
    NoUrls,
    /// The URL is none, or not HTTPS.
    #[error("invalid external CA URL: {0}")]
    Url(String),
    /// It cannot be reached.
    #[error("unable to perform certificate signing request")]
    Connect(#[source] std::io::Error),
    /// It took too long.
    #[error("unable to perform certificate signing request: no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// HTTP failed.
    #[error("unable to perform certificate signing request: {0}")]
    Http(String),
    /// Its answer could not be read, or is longer than 256 KiB.
    #[error("unable to read CSR response body: {0}")]
    Body(String),
    /// It answered with another status than 200.
    #[error("unexpected status code in CSR response: {0}")]
    Status(u16),
    /// Its answer is no JSON.
    #[error("unable to parse JSON response: {0}")]
    Json(String),
    /// It refused.
    #[error("response errors: {0}")]
    Refused(String),
    /// The request is unusable.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// It signed something, but not this.
    #[error("the external CA signed another {0}")]
    Wrong(&'static str),
    /// What it signed leads to no root of this cluster.
    #[error("the external CA's certificate is not trusted")]
    Chain(#[from] ChainError),
    /// What it signed cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The new root's key cannot sign.
    #[error("malformed private key: {0}")]
    Key(String),
}

impl ExternalError {
    /// Whether to try again later: the node's certificate stays pending. Otherwise it has failed.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::NoUrls
                | Self::Connect(_)
                | Self::Timeout
                | Self::Http(_)
                | Self::Body(_)
                | Self::Status(_)
                | Self::Json(_)
        )
    }
}

impl ExternalSigner<'_> {
    /// Has a node's request signed. The result is the leaf, what the CA sent with it, and the intermediates, PEM; it leads
    /// to `trust` and says what was asked for.
    pub async fn sign(
        &self,
        leaf: LeafRequest<'_>,
        trust: &RootBundle,
        now: Timestamp,
    ) -> Result<Vec<u8>, ExternalError> {
        let spki = csr::public_key(leaf.csr_pem)?;
        let unit = role_name(leaf.role);
        let mut hosts = vec![unit.to_owned(), leaf.node.to_string()];
        if leaf.role == NodeRole::Manager {
            hosts.push(CA.to_owned());
        }
        let request = SignRequest {
            hosts,
            certificate_request: String::from_utf8_lossy(leaf.csr_pem).into_owned(),
            subject: Subject {
                common_name: leaf.node.to_string(),
                names: vec![Name { unit: unit.to_owned(), organization: leaf.cluster.to_string() }],
            },
            ..SignRequest::default()
        };
        self.ask(&request, |answer| {
            let mut chain = pem::normalize_certificates(answer);
            chain.extend_from_slice(self.intermediates_pem);
            check_leaf(&chain, &spki, leaf, trust, now)?;
            Ok(chain)
        })
        .await
    }

    /// Has a new root vouched for by this CA: the same name and key. `old_root` is the CA's certificate.
    pub async fn cross_sign(
        &self,
        new_root_pem: &[u8],
        new_key_pem: &[u8],
        old_root: &RootBundle,
    ) -> Result<Vec<u8>, ExternalError> {
        let unreadable = |text: String| CertificateError::Unreadable(text);
        let found = pem::certificates(new_root_pem).map_err(unreadable)?;
        let der = found.first().ok_or_else(|| unreadable("no certificate".to_owned()))?;
        let root = certificate::parse(der)?;
        let key = signature::read_key(new_key_pem).map_err(ExternalError::Key)?;
        let subject = root.subject();
        let build = |_: &[u8]| {
            let spki = root.public_key().raw;
            der::sequence(&[&der::integer(&[0]), subject.as_raw(), spki, &der::explicit(0, &[])])
        };
        let csr = signature::sign(&key, build).map_err(ExternalError::Key)?;
        let first = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let constraints = root.extensions().iter().find(|extension| extension.oid.to_id_string() == BASIC_CONSTRAINTS);
        let request = SignRequest {
            certificate_request: String::from_utf8_lossy(&pem::encode("CERTIFICATE REQUEST", &csr)).into_owned(),
            subject: Subject {
                common_name: first(subject.iter_common_name().find_map(|part| part.as_str().ok())),
                names: vec![Name {
                    unit: first(subject.iter_organizational_unit().find_map(|part| part.as_str().ok())),
                    organization: first(subject.iter_organization().find_map(|part| part.as_str().ok())),
                }],
            },
            profile: CROSS_SIGN_PROFILE.to_owned(),
            // cfssl ignores extensions of the request itself.
            extensions: constraints.map(|constraints| {
                let value = constraints.value.iter().map(|byte| format!("{byte:02x}")).collect();
                vec![Extension { id: BASIC_CONSTRAINTS.to_owned(), critical: constraints.critical, value }]
            }),
            ..SignRequest::default()
        };
        self.ask(&request, |answer| check_cross_signed(answer, &root, old_root)).await
    }

    /// Asks each URL in turn; the first good answer counts, else the last error.
    async fn ask(
        &self,
        request: &SignRequest,
        check: impl Fn(&[u8]) -> Result<Vec<u8>, ExternalError>,
    ) -> Result<Vec<u8>, ExternalError> {
        let body = serde_json::to_vec(request).map_err(|error| ExternalError::Json(error.to_string()))?;
        let config = https_client_config(self.tls_roots, self.node);
        let mut last = ExternalError::NoUrls;
        for url in self.urls {
            let asked = timeout(TIMEOUT, post(url, body.clone(), config.clone())).await;
            match asked.unwrap_or(Err(ExternalError::Timeout)).and_then(|answer| check(answer.as_bytes())) {
                Ok(chain) => return Ok(chain),
                Err(error) => {
                    tracing::debug!(%url, %error, "an external CA did not sign");
                    last = error;
                }
            }
        }
        Err(last)
    }
}

/// Whether an external CA's server can be reached and has a certificate of `root`: one of `urls` is enough.
pub async fn probe_external_ca(
    urls: &[String],
    root: &RootBundle,
    node: Option<&NodeCredential>,
) -> Result<(), ExternalError> {
    let config = https_client_config(root, node);
    let mut last = ExternalError::NoUrls;
    for url in urls {
        match timeout(TIMEOUT, open(url, config.clone())).await.unwrap_or(Err(ExternalError::Timeout)) {
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::warn!(%url, %error, "an external CA cannot be reached");
                last = error;
            }
        }
    }
    Err(last)
}

async fn open(url: &str, config: Arc<ClientConfig>) -> Result<(Uri, TlsStream<TcpStream>), ExternalError> {
    let bad = || ExternalError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(bad)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| bad())?;
    let addr = format!("{host}:{}", uri.port_u16().unwrap_or(443));
    let stream = dial_tls(&addr, name, config).await.map_err(ExternalError::Connect)?;
    Ok((uri, stream))
}

async fn post(url: &str, body: Vec<u8>, config: Arc<ClientConfig>) -> Result<String, ExternalError> {
    let http = |error: hyper::Error| ExternalError::Http(error.to_string());
    let (uri, stream) = open(url, config).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    // Ends with this call.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = http::Request::post(path)
        .header(http::header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| ExternalError::Http(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_PEM_BYTES).collect().await;
    let body = body.map_err(|error| ExternalError::Body(error.to_string()))?.to_bytes();
    if status != http::StatusCode::OK {
        return Err(ExternalError::Status(status.as_u16()));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| ExternalError::Json(error.to_string()))?;
    match answer.result {
        Some(result) if answer.success => Ok(result.certificate),
        _ if answer.errors.is_empty() => Err(ExternalError::Refused("certificate signing request failed".to_owned())),
        _ => {
            let texts: Vec<String> = answer.errors.iter().map(|e| format!("{}: {}", e.code, e.message)).collect();
            Err(ExternalError::Refused(texts.join(", ")))
        }
    }
}

fn check_leaf(
    chain_pem: &[u8],
    spki: &[u8],
    asked: LeafRequest<'_>,
    trust: &RootBundle,
    now: Timestamp,
) -> Result<(), ExternalError> {
    let chain = pem::certificates(chain_pem).map_err(CertificateError::Unreadable)?;
    let peer = verify_chain(&chain, trust, now, Expiry::Refuse, Usage::Both)?;
    let leaf = certificate::parse(&chain[0])?;
    // More than one OU would be more than one role.
    let units = leaf.subject().iter_organizational_unit().count();
    match () {
        () if leaf.public_key().raw != spki => Err(ExternalError::Wrong("key")),
        () if peer.node_id != *asked.node => Err(ExternalError::Wrong("node")),
        () if peer.role != asked.role || units != 1 => Err(ExternalError::Wrong("role")),
        () if peer.cluster_id != *asked.cluster => Err(ExternalError::Wrong("cluster")),
        () => Ok(()),
    }
}

fn check_cross_signed(
    answer: &[u8],
    new: &x509_parser::certificate::X509Certificate<'_>,
    old_root: &RootBundle,
) -> Result<Vec<u8>, ExternalError> {
    let found = pem::certificates(answer).map_err(CertificateError::Unreadable)?;
    let der = found.first().ok_or(ExternalError::Wrong("thing than a certificate"))?;
    let signed = certificate::parse(der)?;
    if signed.subject().as_raw() != new.subject().as_raw() {
        return Err(ExternalError::Wrong("name"));
    }
    if signed.public_key().raw != new.public_key().raw {
        return Err(ExternalError::Wrong("key"));
    }
    if !signed.is_ca() {
        return Err(ExternalError::Wrong("kind of certificate: not a CA's"));
    }
    let by_old = old_root.by_subject(signed.issuer().as_raw());
    let by_old = by_old.map(|root| certificate::parse(root)).transpose()?;
    if by_old.is_none_or(|root| signature::verify(der, root.public_key().raw).is_err()) {
        return Err(ExternalError::Wrong("root's certificate"));
    }
    Ok(pem::encode("CERTIFICATE", der))
}

#[derive(Default, Serialize)]
struct SignRequest {
    hosts: Vec<String>,
    certificate_request: String,
    subject: Subject,
    profile: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Default, Serialize)]
struct Subject {
    #[serde(rename = "CN")]
    common_name: String,
    names: Vec<Name>,
}

#[derive(Serialize)]
struct Name {
    #[serde(rename = "OU", skip_serializing_if = "String::is_empty")]
    unit: String,
    #[serde(rename = "O", skip_serializing_if = "String::is_empty")]
    organization: String,
}

#[derive(Serialize)]
struct Extension {
    id: String,
    critical: bool,
    value: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    result: Option<Signed>,
    #[serde(default)]
    errors: Vec<AnswerError>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}
