//! A node's side of getting a certificate: the root by the token's digest, the request, the wait for the answer, the
//! unlock key. Time-outs and numbers of tries are SwarmKit's; who calls may drop the future at any point, nothing is
//! stored here.
//!
//! ```text
//!   fetch_root ──► request_certificate: issue ──► poll until issued ──► verify ──► unlock key (managers)
//!                        ▲ up to 5 tries │ an RPC fails: another manager, same node
//! ```

use std::time::Duration;

use model::{ClusterId, NodeAvailability, NodeId, NodeRole};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::ca_client::CaClient;
use swarm_proto::swarmkit::node_ca_client::NodeCaClient;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::bundle::{BundleError, RootBundle};
use crate::chain::{ChainError, Expiry, NodeCredential};
use crate::csr::NodeKey;
use crate::dial::{DialError, connect, connect_unverified};
use crate::random::system_now;
use crate::tls::{Credentials, ServerRole};
use crate::token::{JoinToken, TokenError};

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of each step.
pub const TRIES: u32 = 5;
/// Pause between tries of a node that joins.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// First pause between questions whether the certificate is there.
const FIRST_POLL_PAUSE: Duration = Duration::from_secs(1);
/// Longest.
const MAX_POLL_PAUSE: Duration = Duration::from_secs(30);
/// Prefix of the identifier of a cluster that asks for FIPS.
const FIPS_CLUSTER: &str = "FIPS.";

/// Which managers can be asked; the caller's.
pub trait Remotes: Send + Sync {
    /// A manager to ask, `host:port`; one that did badly should come up less often.
    fn select(&self) -> Option<String>;
    /// How a manager did.
    fn observe(&self, addr: &str, outcome: Outcome);
}

/// How a manager did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Good,
    /// It did not.
    Bad,
}

/// A list of addresses, asked in turn.
#[derive(Debug)]
pub struct RemoteList {
    addrs: Vec<String>,
    next: std::sync::atomic::AtomicUsize,
}

impl RemoteList {
    /// From addresses, `host:port`.
    pub fn new(addrs: Vec<String>) -> Self {
        Self { addrs, next: 0.into() }
    }
}

impl Remotes for RemoteList {
    fn select(&self) -> Option<String> {
        let at = self.next.load(std::sync::atomic::Ordering::Relaxed);
        self.addrs.get(at % self.addrs.len().max(1)).cloned()
    }

    fn observe(&self, _addr: &str, outcome: Outcome) {
        if outcome == Outcome::Bad {
            self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is no manager to ask.
    #[error("no remote hosts provided")]
    NoRemote,
    /// A manager could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A manager refused or failed. The text is the manager's own.
    #[error("{}", .0.message())]
    Rpc(Status),
    /// A manager did not answer in time.
    #[error("{addr} did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout {
        /// Whom.
        addr: String,
    },
    /// The manager's root is not the one that the token was made for.
    #[error("remote CA does not match fingerprint. Expected: {expected}")]
    Fingerprint {
        /// The token's digest, in the token's form.
        expected: String,
    },
    /// The root cannot be used.
    #[error(transparent)]
    Root(#[from] BundleError),
    /// The token cannot be used by this node.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The answer has no certificate.
    #[error("no certificate in CertificateStatus response")]
    NoCertificate,
    /// The certificate is not trusted, or not for the key.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A renewed certificate is another node's, or another cluster's.
    #[error("the renewed certificate is for node {node} of cluster {cluster}, not for this one")]
    AnotherNode {
        /// Its CN.
        node: NodeId,
        /// Its O.
        cluster: ClusterId,
    },
    /// The request could not be made.
    #[error("error when generating new node certs: {0}")]
    Request(String),
    /// The unlock key has not 32 bytes.
    #[error("the cluster's unlock key has {0} bytes instead of 32")]
    UnlockKey(usize),
}

/// What a node asks for.
#[derive(Clone, Copy)]
pub enum CertificateRequest<'a> {
    /// The first certificate.
    Join {
        /// The token, which decides the role.
        token: &'a JoinToken,
        /// What the new node should be available for.
        availability: NodeAvailability,
        /// The verified root.
        roots: &'a RootBundle,
    },
    /// Another one for the same node, asked for with the one it has.
    Renew {
        /// The node's.
        credentials: &'a Credentials,
    },
}

/// What a node got. The caller stores it, the key locked with the unlock key if there is one, and only then uses it.
#[derive(Debug)]
pub struct Granted {
    /// The verified chain with its key.
    pub credential: NodeCredential,
    /// The key.
    pub key: NodeKey,
    /// What locks a manager's key file; of a worker, none.
    pub unlock_key: UnlockKey,
}

/// The key that locks managers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UnlockKey {
    /// The key; `None` if managers are not locked.
    pub key: Option<[u8; 32]>,
    /// The cluster's version when it was asked for.
    pub version: u64,
}

impl std::fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnlockKey").field("locked", &self.key.is_some()).field("version", &self.version).finish()
    }
}

/// Downloads the root from any manager over a connection that nothing verifies, and takes it if it is the one of the
/// token. There is no way to take a root without a digest: SwarmKit's workers do so after a rotation that they missed,
/// which lets whoever sits on the wire put his own root beside the real one.
pub async fn fetch_root(remotes: &dyn Remotes, token: &JoinToken) -> Result<RootBundle, JoinError> {
    token.check_fips()?;
    let mut last = JoinError::NoRemote;
    for attempt in 0..TRIES {
        pause(attempt, RETRY_PAUSE).await;
        match fetch_root_once(remotes, token).await {
            Ok(roots) => return Ok(roots),
            Err(JoinError::NoRemote) => return Err(last),
            Err(error) => {
                tracing::warn!(%error, "the root CA certificate could not be downloaded");
                last = error;
            }
        }
    }
    Err(last)
}

async fn fetch_root_once(remotes: &dyn Remotes, token: &JoinToken) -> Result<RootBundle, JoinError> {
    let addr = remotes.select().ok_or(JoinError::NoRemote)?;
    let fetch = async {
        let mut client = CaClient::new(connect_unverified(&addr).await?);
        let call = client.get_root_ca_certificate(limited(p::GetRootCaCertificateRequest {}));
        let answer = called(&addr, call).await?;
        if !token.is_for(&answer.certificate) {
            return Err(JoinError::Fingerprint { expected: token.digest().to_owned() });
        }
        Ok(RootBundle::parse(&answer.certificate)?)
    };
    judged(remotes, &addr, fetch.await)
}

/// Gets a certificate: makes a key, asks, waits for as long as it takes, verifies. Drop the future to give up.
pub async fn request_certificate(remotes: &dyn Remotes, request: CertificateRequest<'_>) -> Result<Granted, JoinError> {
    let (credentials, server, retry_pause) = match request {
        CertificateRequest::Join { token, roots, .. } => {
            token.check_fips()?;
            (Credentials::new(roots.clone(), None), ServerRole::Ca, RETRY_PAUSE)
        }
        CertificateRequest::Renew { credentials } => (credentials.clone(), ServerRole::Manager, Duration::ZERO),
    };
    let key = NodeKey::generate();
    let csr = key.request().map_err(JoinError::Request)?;
    let session = Session { remotes, credentials: &credentials, server, csr: &csr };
    let chain_pem = session.ask(&request, retry_pause).await?;
    let roots = credentials.current().roots.clone();
    let credential = NodeCredential::load(&chain_pem, &key, &roots, system_now(), Expiry::Refuse)?;
    let peer = credential.identity();
    if peer.cluster_id.as_str().starts_with(FIPS_CLUSTER) {
        return Err(TokenError::Fips.into());
    }
    if let Some(own) = &credentials.current().node
        && (own.identity().node_id != peer.node_id || own.identity().cluster_id != peer.cluster_id)
    {
        return Err(JoinError::AnotherNode { node: peer.node_id.clone(), cluster: peer.cluster_id.clone() });
    }
    let unlock_key = match peer.role {
        NodeRole::Manager => fetch_unlock_key(remotes, &roots, &credential, retry_pause).await?,
        NodeRole::Worker => UnlockKey::default(),
    };
    Ok(Granted { credential, key, unlock_key })
}

/// Asks with a manager's new certificate for the key that is to lock its key file.
pub async fn fetch_unlock_key(
    remotes: &dyn Remotes,
    roots: &RootBundle,
    credential: &NodeCredential,
    retry_pause: Duration,
) -> Result<UnlockKey, JoinError> {
    let credentials = Credentials::new(roots.clone(), Some(credential.clone()));
    let mut last = JoinError::NoRemote;
    for attempt in 0..TRIES {
        pause(attempt, retry_pause).await;
        let Some(addr) = remotes.select() else { return Err(last) };
        let fetch = async {
            let mut client = CaClient::new(connect(&addr, ServerRole::Ca, &credentials).await?);
            called(&addr, client.get_unlock_key(limited(p::GetUnlockKeyRequest {}))).await
        };
        match judged(remotes, &addr, fetch.await) {
            Ok(answer) => return unlock_key(answer),
            Err(JoinError::Rpc(status)) if status.code() == Code::Unimplemented => return Ok(UnlockKey::default()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unlock_key(answer: p::GetUnlockKeyResponse) -> Result<UnlockKey, JoinError> {
    let version = answer.version.map(|version| version.index).unwrap_or_default();
    let key = match answer.unlock_key.as_slice() {
        [] => None,
        bytes => Some(bytes.try_into().map_err(|_| JoinError::UnlockKey(bytes.len()))?),
    };
    Ok(UnlockKey { key, version })
}

/// One certificate's way, over as many connections as it takes.
struct Session<'a> {
    remotes: &'a dyn Remotes,
    credentials: &'a Credentials,
    server: ServerRole,
    csr: &'a [u8],
}

impl Session<'_> {
    async fn ask(&self, request: &CertificateRequest<'_>, retry_pause: Duration) -> Result<Vec<u8>, JoinError> {
        let mut last = JoinError::NoRemote;
        for attempt in 0..TRIES {
            pause(attempt, retry_pause).await;
            match self.ask_once(request).await {
                Ok(chain) => return Ok(chain),
                Err(JoinError::NoRemote) => return Err(last),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "no certificate yet");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn ask_once(&self, request: &CertificateRequest<'_>) -> Result<Vec<u8>, JoinError> {
        let (addr, channel) = self.connect().await?;
        let (token, availability) = match request {
            CertificateRequest::Join { token, availability, .. } => (token.text().to_owned(), *availability as i32),
            CertificateRequest::Renew { .. } => (String::new(), 0),
        };
        let issue =
            p::IssueNodeCertificateRequest { csr: self.csr.to_vec(), token, availability, ..Default::default() };
        let mut client = NodeCaClient::new(channel.clone());
        let issued = called(&addr, client.issue_node_certificate(limited(issue))).await;
        let issued = judged(self.remotes, &addr, issued)?;
        self.poll(issued.node_id, addr, channel).await
    }

    /// Asks until the answer to this very request is there.
    async fn poll(&self, node_id: String, mut addr: String, channel: Channel) -> Result<Vec<u8>, JoinError> {
        let mut client = NodeCaClient::new(channel);
        let mut wait = FIRST_POLL_PAUSE;
        loop {
            let ask = p::NodeCertificateStatusRequest { node_id: node_id.clone() };
            match called(&addr, client.node_certificate_status(limited(ask))).await {
                Ok(answer) => {
                    if let Some(chain) = self.issued(answer)? {
                        self.remotes.observe(&addr, Outcome::Good);
                        return Ok(chain);
                    }
                }
                Err(JoinError::Timeout { .. }) => {}
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, %addr, "another manager is asked for the certificate");
                    self.remotes.observe(&addr, Outcome::Bad);
                    let (other, channel) = self.connect().await?;
                    addr = other;
                    client = NodeCaClient::new(channel);
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(MAX_POLL_PAUSE);
        }
    }

    /// The chain, if it was issued for this request: an older one may still stand there.
    fn issued(&self, answer: p::NodeCertificateStatusResponse) -> Result<Option<Vec<u8>>, JoinError> {
        use p::IssuanceState as State;
        let status = answer.status.unwrap_or_default();
        if status.state == State::Failed as i32 {
            tracing::warn!(error = %status.err, "the certificate could not be signed, which the CA may try again");
        }
        if status.state != State::Issued as i32 && status.state != State::Rotate as i32 {
            return Ok(None);
        }
        let certificate = answer.certificate.ok_or(JoinError::NoCertificate)?;
        if certificate.csr != self.csr {
            return Ok(None);
        }
        if certificate.certificate.is_empty() {
            return Err(JoinError::NoCertificate);
        }
        Ok(Some(certificate.certificate))
    }

    async fn connect(&self) -> Result<(String, Channel), JoinError> {
        let addr = self.remotes.select().ok_or(JoinError::NoRemote)?;
        let channel = connect(&addr, self.server, self.credentials).await.map_err(JoinError::from);
        let channel = judged(self.remotes, &addr, channel)?;
        Ok((addr, channel))
    }
}

/// Answers that no other manager would give differently.
fn is_final(error: &JoinError) -> bool {
    match error {
        JoinError::Rpc(status) => {
            matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied | Code::NotFound)
        }
        JoinError::NoCertificate => true,
        _ => false,
    }
}

/// Tells the caller's list how a manager did.
fn judged<T>(remotes: &dyn Remotes, addr: &str, outcome: Result<T, JoinError>) -> Result<T, JoinError> {
    let refused = matches!(&outcome, Err(error) if is_final(error));
    remotes.observe(addr, if outcome.is_ok() || refused { Outcome::Good } else { Outcome::Bad });
    outcome
}

async fn pause(attempt: u32, length: Duration) {
    if attempt > 0 {
        sleep(length).await;
    }
}

/// A call's message; the server is told the time-out, so that it does not hold calls that nobody waits for.
fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

async fn called<T>(addr: &str, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, JoinError> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => {
            Err(JoinError::Timeout { addr: addr.to_owned() })
        }
        Ok(Err(status)) => Err(JoinError::Rpc(status)),
        Err(_) => Err(JoinError::Timeout { addr: addr.to_owned() }),
    }
}
