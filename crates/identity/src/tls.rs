//! TLS between nodes. [`Credentials`] holds what a node trusts and who it is; the TLS configurations made from it look
//! there at every handshake, so that a renewed certificate or a new root counts at once, for new connections. Those that
//! stand keep what they were made with.
//!
//! Sessions are never resumed: a resumed one would bring back a certificate without looking at it again.

use std::sync::Arc;

use model::{NodeRole, Timestamp};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CertificateError as TlsCertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::sync::watch;
use webpki::EndEntityCert;

use crate::bundle::RootBundle;
use crate::certificate::{CA, MANAGER, seconds};
use crate::chain::{self, ChainError, Expiry, NodeCredential, Usage, verify_chain};

/// The protocol inside TLS.
const H2: &[u8] = b"h2";

/// Which name a caller expects of the manager that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRole {
    /// `swarm-manager`: every ordinary connection.
    Manager,
    /// `swarm-ca`: asking for the first certificate, and for the unlock key.
    Ca,
}

impl ServerRole {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manager => MANAGER,
            Self::Ca => CA,
        }
    }

    pub(crate) fn server_name(self) -> ServerName<'static> {
        ServerName::try_from(self.name()).expect("both names are DNS names")
    }
}

/// What a node trusts and who it is, at one moment.
#[derive(Clone, Debug)]
pub struct CredentialState {
    /// The trust roots.
    pub roots: Arc<RootBundle>,
    /// The node's chain and key; none while it has not joined.
    pub node: Option<Arc<NodeCredential>>,
}

/// The shared, live credentials of this node. Clones share them.
#[derive(Clone, Debug)]
pub struct Credentials {
    state: Arc<watch::Sender<Arc<CredentialState>>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Credentials {
    /// Credentials that go by the system's clock.
    pub fn new(roots: RootBundle, node: Option<NodeCredential>) -> Self {
        Self::with_clock(roots, node, Arc::new(DefaultTimeProvider))
    }

    /// Credentials that go by another clock.
    pub fn with_clock(roots: RootBundle, node: Option<NodeCredential>, clock: Arc<dyn TimeProvider>) -> Self {
        let state = CredentialState { roots: Arc::new(roots), node: node.map(Arc::new) };
        let state = Arc::new(watch::Sender::new(Arc::new(state)));
        let live = Arc::new(Live { state: state.clone(), provider: provider() });
        Self { server: server_config(&live, clock.clone()), client: client_config(&live, clock), state }
    }

    /// What counts now.
    pub fn current(&self) -> Arc<CredentialState> {
        self.state.borrow().clone()
    }

    /// Tells of each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<CredentialState>> {
        self.state.subscribe()
    }

    /// Trusts other roots from now on, if the node's own chain leads to one of them: a node must not lose its cluster to
    /// a bundle that shuts itself out.
    pub fn set_roots(&self, roots: RootBundle, now: Timestamp) -> Result<(), ChainError> {
        let mut outcome = Ok(());
        self.state.send_if_modified(|state| {
            if state.roots.pem() == roots.pem() {
                return false;
            }
            let node = match &state.node {
                None => Ok(None),
                Some(node) => node.under(&roots, now).map(|node| Some(Arc::new(node))),
            };
            match node {
                Ok(node) => {
                    *state = Arc::new(CredentialState { roots: Arc::new(roots), node });
                    true
                }
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            }
        });
        outcome
    }

    /// Shows another certificate from now on.
    pub fn set_node(&self, node: NodeCredential) {
        let node = Some(Arc::new(node));
        self.state.send_modify(|state| *state = Arc::new(CredentialState { roots: state.roots.clone(), node }));
    }

    /// Whether the node's certificate is valid at `now`; a node without one has nothing that could expire.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), ChainError> {
        match &self.current().node {
            Some(node) => chain::check_life(1, &node.certified().cert[0], now),
            None => Ok(()),
        }
    }

    /// For listeners: asks for a client's certificate and verifies it if there is one; selects `h2`.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For callers of managers: shows the node's certificate if there is one, offers `h2`. The server must be a manager
    /// of the trusted roots and, once this node has a certificate, of its cluster.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }
}

/// The one cryptographic provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_config(live: &Arc<Live>, clock: Arc<dyn TimeProvider>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_details(live.provider.clone(), clock);
    let mut config = builder
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_client_cert_verifier(live.clone())
        .with_cert_resolver(live.clone());
    config.alpn_protocols = vec![H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn client_config(live: &Arc<Live>, clock: Arc<dyn TimeProvider>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_details(live.provider.clone(), clock);
    let mut config = builder
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(live.clone())
        .with_client_cert_resolver(live.clone());
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// For fetching a root whose digest is known and nothing else: verifies no certificate and shows none.
pub fn unverified_client_config() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider());
    let mut config = builder
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// For HTTPS servers outside the cluster: any name, verified by these roots; shows the node's certificate.
pub(crate) fn https_client_config(roots: &RootBundle, node: Option<&NodeCredential>) -> Arc<ClientConfig> {
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(roots.certificates().cloned());
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_root_certificates(store);
    let mut config = match node {
        Some(node) => {
            let certified = node.certified().clone();
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Looks at the live credentials during handshakes.
struct Live {
    state: Arc<watch::Sender<Arc<CredentialState>>>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

impl Live {
    fn current(&self) -> Arc<CredentialState> {
        self.state.borrow().clone()
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.current().node.as_ref().map(|node| node.certified().clone())
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.current().node.is_some()
    }
}

impl ClientCertVerifier for Live {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None, so that a client shows what it has: while roots change, its issuer may be missing in any list.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = whole(end_entity, intermediates);
        let roots = self.current().roots.clone();
        verify_chain(&chain, &roots, timestamp(now), Expiry::Refuse, Usage::Client).map_err(tls_error)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Live {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let state = self.current();
        let chain = whole(end_entity, intermediates);
        let peer = verify_chain(&chain, &state.roots, timestamp(now), Expiry::Refuse, Usage::Server);
        let peer = peer.map_err(tls_error)?;
        let named =
            EndEntityCert::try_from(end_entity).and_then(|end| end.verify_is_valid_for_subject_name(server_name));
        // An external CA may sign for several clusters, and any name: who is called must be a manager of this one.
        let foreign = state.node.as_ref().is_some_and(|node| node.identity().cluster_id != peer.cluster_id);
        if named.is_err() || peer.role != NodeRole::Manager || foreign {
            return Err(TlsCertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes any certificate, but has its owner prove that it holds the key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn whole<'a>(end_entity: &CertificateDer<'a>, intermediates: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(end_entity).chain(intermediates).cloned().collect()
}

fn timestamp(now: UnixTime) -> Timestamp {
    seconds(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// The alert that the peer gets, and the error that the dialler reads again (`DialError`).
fn tls_error(error: ChainError) -> rustls::Error {
    match error {
        ChainError::Expired { .. } => TlsCertificateError::Expired,
        ChainError::NotYetValid { .. } => TlsCertificateError::NotValidYet,
        ChainError::UnknownAuthority | ChainError::NoRoot { .. } => TlsCertificateError::UnknownIssuer,
        ChainError::Usage => TlsCertificateError::InvalidPurpose,
        other => TlsCertificateError::Other(rustls::OtherError(Arc::new(other))),
    }
    .into()
}
