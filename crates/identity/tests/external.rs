//! CAs outside the cluster: what is asked, what is believed, and how a root is replaced with their help.

mod fixture;

use std::sync::{Arc, Mutex};

use fixture::{CLUSTER, Ca};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use identity::{
    ActiveSigner, CaOutcome, CaRefusal, ExternalError, ExternalSigner, LeafRequest, NodeKey, RootAuthority, RootBundle,
    Signer, WhichCa, finish_rotation, plan_root_ca, probe_external_ca, settle_root_ca, wanted_issuer,
};
use model::{CaConfig, ExternalCa, NodeRole, RootCa, RootRotation, Timestamp};
use rcgen::SanType;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How an external CA behaves.
type Behaviour = Box<dyn Fn(&Ca, &Value) -> (u16, String) + Send + Sync>;

/// A cfssl server; it ends when dropped.
struct Cfssl {
    ca: Arc<Ca>,
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
    _task: JoinSet<()>,
}

async fn start(ca: Ca, behaviour: Behaviour) -> Cfssl {
    let ca = Arc::new(ca);
    let (chain, key) = ca.forge(|leaf| {
        leaf.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    });
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).map(Result::unwrap).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&key.pem).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/api/v1/cfssl/sign", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut task = JoinSet::new();
    let (shared, log) = (ca.clone(), asked.clone());
    task.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
                assert_eq!(request.uri().path(), "/api/v1/cfssl/sign");
                assert_eq!(request.headers()["content-type"], "application/json");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let (status, answer) = behaviour(&shared, &body);
                log.lock().unwrap().push(body);
                let answer = hyper::Response::builder().status(status).body(Full::new(bytes::Bytes::from(answer)));
                Ok::<_, std::convert::Infallible>(answer.unwrap())
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    });
    Cfssl { ca, url, asked, _task: task }
}

fn good(certificate: &[u8]) -> (u16, String) {
    let certificate = String::from_utf8(certificate.to_vec()).unwrap();
    (200, json!({"success": true, "result": {"certificate": certificate}, "errors": [], "messages": []}).to_string())
}

/// Signs what was asked for, or with something changed.
fn signs(node: Option<&'static str>, role: Option<NodeRole>, cluster: &'static str) -> Behaviour {
    Box::new(move |ca, asked| {
        let unit = asked["subject"]["names"][0]["OU"].as_str().unwrap();
        let asked_role = if unit == "swarm-manager" { NodeRole::Manager } else { NodeRole::Worker };
        let node = node.unwrap_or(asked["subject"]["CN"].as_str().unwrap());
        let csr = asked["certificate_request"].as_str().unwrap().as_bytes();
        let role = role.unwrap_or(asked_role);
        let leaf = LeafRequest { csr_pem: csr, node: &node.into(), role, cluster: &cluster.into() };
        good(&ca.signer().sign_csr(leaf, None, identity::system_now()).unwrap())
    })
}

async fn sign(cfssl: &Cfssl, trust: &RootBundle, csr: &[u8]) -> Result<Vec<u8>, ExternalError> {
    let urls = [cfssl.url.clone()];
    let node = cfssl.ca.node("manager", NodeRole::Manager);
    let signer = ExternalSigner { urls: &urls, tls_roots: &cfssl.ca.bundle, node: Some(&node), intermediates_pem: &[] };
    let leaf = LeafRequest { csr_pem: csr, node: &"w1".into(), role: NodeRole::Worker, cluster: &CLUSTER.into() };
    signer.sign(leaf, trust, identity::system_now()).await
}

#[tokio::test]
async fn an_external_ca_signs_what_it_is_asked_for() {
    let cfssl = start(Ca::new(), signs(None, None, CLUSTER)).await;
    let csr = NodeKey::generate().request().unwrap();
    let chain = sign(&cfssl, &cfssl.ca.bundle, &csr).await.unwrap();
    assert_eq!(identity::PeerIdentity::from_pem(&chain).unwrap().node_id.as_str(), "w1");
    let wanted = json!({
        "hosts": ["swarm-worker", "w1"],
        "certificate_request": String::from_utf8(csr).unwrap(),
        "subject": {"CN": "w1", "names": [{"OU": "swarm-worker", "O": CLUSTER}]},
        "profile": "",
    });
    assert_eq!(*cfssl.asked.lock().unwrap(), [wanted]);
}

#[tokio::test]
async fn an_external_ca_cannot_make_more_of_a_node() {
    let check = async |behaviour: Behaviour, temporary: bool, wanted: &str| {
        let cfssl = start(Ca::new(), behaviour).await;
        let csr = NodeKey::generate().request().unwrap();
        let error = sign(&cfssl, &cfssl.ca.bundle, &csr).await.unwrap_err();
        assert!(error.to_string().starts_with(wanted), "{error} instead of {wanted}");
        assert_eq!(error.is_temporary(), temporary, "{error}");
    };
    check(signs(None, Some(NodeRole::Manager), CLUSTER), false, "the external CA signed another role").await;
    check(signs(Some("w2"), None, CLUSTER), false, "the external CA signed another node").await;
    check(signs(None, None, "other"), false, "the external CA signed another cluster").await;
    let thief: Behaviour = Box::new(|ca, _| good(&ca.pair_at("w1", NodeRole::Worker, identity::system_now()).0));
    check(thief, false, "the external CA signed another key").await;
    let two_roles: Behaviour =
        Box::new(|ca, _| good(&ca.forge(|leaf| leaf.distinguished_name.push(rcgen::DnType::CommonName, "w1")).0));
    check(two_roles, false, "the external CA signed another").await;
    let stranger = Ca::new();
    let foreign: Behaviour =
        Box::new(move |_, _| good(&stranger.pair_at("w1", NodeRole::Worker, identity::system_now()).0));
    check(foreign, false, "the external CA's certificate is not trusted").await;
    check(Box::new(|_, _| (500, "x".into())), true, "unexpected status code in CSR response: 500").await;
    check(Box::new(|_, _| (200, "x".into())), true, "unable to parse JSON response").await;
    check(Box::new(|_, _| (200, "x".repeat(300 << 10))), true, "unable to read CSR response body").await;
    let refuses = || json!({"success": false, "errors": [{"code": 7, "message": "no"}]}).to_string();
    check(Box::new(move |_, _| (200, refuses())), false, "response errors: 7: no").await;
    check(Box::new(|_, _| (200, "{}".into())), false, "response errors: certificate signing request failed").await;
}

#[tokio::test]
async fn external_cas_are_probed() {
    let cfssl = start(Ca::new(), signs(None, None, CLUSTER)).await;
    let other = Ca::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("https://{closed}/");
    let both = [closed.clone(), cfssl.url.clone()];
    probe_external_ca(&both, &cfssl.ca.bundle, None).await.unwrap();
    let check =
        async |url: &str, root: &RootBundle| probe_external_ca(&[url.to_owned()], root, None).await.unwrap_err();
    assert!(matches!(check(&cfssl.url, &other.bundle).await, ExternalError::Connect(_)));
    assert!(matches!(check(&closed, &cfssl.ca.bundle).await, ExternalError::Connect(_)));
    for bad in ["http://127.0.0.1:1/", "x", "", "https://"] {
        assert!(matches!(check(bad, &cfssl.ca.bundle).await, ExternalError::Url(_)), "{bad:?}");
    }
    assert!(matches!(probe_external_ca(&[], &cfssl.ca.bundle, None).await, Err(ExternalError::NoUrls)));
}

fn internal(ca: &Ca) -> RootCa {
    RootCa { ca_key: ca.root.key_pem.clone(), ca_cert: ca.root.cert_pem.clone(), ..RootCa::default() }
}

fn without_key(ca: &Ca) -> RootCa {
    RootCa { ca_key: Vec::new(), ..internal(ca) }
}

/// A configuration that asks for this CA.
fn desires(ca: &Ca, external: &[(&str, &Ca)]) -> CaConfig {
    let external_cas = external.iter().map(|(url, ca)| ExternalCa {
        url: (*url).to_owned(),
        ca_cert: ca.root.cert_pem.clone(),
        ..ExternalCa::default()
    });
    CaConfig {
        signing_ca_cert: ca.root.cert_pem.clone(),
        signing_ca_key: ca.root.key_pem.clone(),
        external_cas: external_cas.collect(),
        force_rotate: 1,
        ..CaConfig::default()
    }
}

fn replaced(outcome: CaOutcome) -> RootCa {
    match outcome {
        CaOutcome::Replace(root_ca) => *root_ca,
        other => panic!("{other:?}"),
    }
}

#[test]
fn refused_configurations() {
    let (ca, other) = (Ca::new(), Ca::new());
    let now = identity::system_now();
    let check = |current: &RootCa, config: &CaConfig, wanted: CaRefusal| {
        assert_eq!(plan_root_ca(current, config, now).map(|_| ()), Err(wanted));
    };
    let current = internal(&ca);
    let base = desires(&other, &[]);
    check(&current, &CaConfig { signing_ca_cert: Vec::new(), ..base.clone() }, CaRefusal::KeyWithoutCertificate);
    let two = [&ca.root.cert_pem[..], &other.root.cert_pem].concat();
    check(&current, &CaConfig { signing_ca_cert: two, ..base.clone() }, CaRefusal::MultipleCertificates);
    check(&current, &CaConfig { signing_ca_cert: b"x".to_vec(), ..base.clone() }, CaRefusal::Unreadable);
    let (leaf, _) = ca.pair_at("n", NodeRole::Worker, now);
    let not_ca = CaRefusal::Root(identity::BundleError::NotCa);
    check(&current, &CaConfig { signing_ca_cert: leaf, ..base.clone() }, not_ca);
    let mismatch = CaConfig { signing_ca_key: ca.root.key_pem.clone(), ..base.clone() };
    check(&current, &mismatch, CaRefusal::Signer(identity::SignerError::Mismatch));
    let no_key = CaConfig { signing_ca_key: Vec::new(), ..base.clone() };
    check(&current, &no_key, CaRefusal::Unreachable(WhichCa::Desired));
    check(&without_key(&ca), &base, CaRefusal::Unreachable(WhichCa::Current));
    let both = [("https://a/", &ca), ("https://b/", &other)];
    let external = CaConfig { signing_ca_key: Vec::new(), ..desires(&other, &both) };
    check(&without_key(&ca), &external, CaRefusal::ExternalToExternal);
    // Nineteen years later.
    let late = Timestamp { seconds: now.seconds + 19 * 365 * 86_400 + 301, nanos: 0 };
    assert!(matches!(plan_root_ca(&current, &base, late), Err(CaRefusal::ExpiresTooSoon)));
    let text = CaRefusal::Unreachable(WhichCa::Next).to_string();
    let wanted = "there must be at least one valid, reachable external CA corresponding to the next CA certificate";
    assert_eq!(text, wanted);
}

#[test]
fn a_forced_rotation_runs_from_start_to_end() {
    let ca = Ca::new();
    let now = identity::system_now();
    let current = internal(&ca);
    let config = CaConfig { force_rotate: 1, ..CaConfig::default() };
    let plan = plan_root_ca(&current, &config, now).unwrap();
    assert!(plan.probes.is_empty());
    let rotating = replaced(plan.outcome);
    let rotation = rotating.root_rotation.clone().unwrap();
    assert_eq!((&rotating.ca_cert, rotating.last_forced_rotation), (&current.ca_cert, 1));
    assert!(matches!(plan_root_ca(&rotating, &config, now).unwrap().outcome, CaOutcome::Keep), "once only");

    // New leaves lead to the old root, and nodes that report the new issuer are done.
    let Ok(ActiveSigner::Local(signer)) = ActiveSigner::of(&rotating, &config) else { panic!("a key is here") };
    let key = NodeKey::generate();
    let csr = key.request().unwrap();
    let leaf = LeafRequest { csr_pem: &csr, node: &"n".into(), role: NodeRole::Worker, cluster: &CLUSTER.into() };
    let chain = signer.sign_csr(leaf, None, now).unwrap();
    let node = identity::NodeCredential::load(&chain, &key, &ca.bundle, now, identity::Expiry::Refuse).unwrap();
    assert!(wanted_issuer(&rotating).unwrap().is_reported_by(node.tls_info()));
    assert!(!wanted_issuer(&current).unwrap().is_reported_by(node.tls_info()));

    // Forced again meanwhile: another root, which the old one vouches for.
    let again = CaConfig { force_rotate: 2, ..CaConfig::default() };
    let again = replaced(plan_root_ca(&rotating, &again, now).unwrap().outcome);
    assert_ne!(again.root_rotation.unwrap().ca_cert, rotation.ca_cert);
    // The old certificate is wanted again.
    let back = CaConfig { force_rotate: 3, ..desires(&ca, &[]) };
    let back = replaced(plan_root_ca(&rotating, &back, now).unwrap().outcome);
    assert_eq!((back.root_rotation, &back.ca_key), (None, &current.ca_key));
    // The same new one, with a key.
    let same =
        RootCa { root_rotation: Some(RootRotation { ca_key: Vec::new(), ..rotation.clone() }), ..rotating.clone() };
    let config = CaConfig {
        signing_ca_cert: rotation.ca_cert.clone(),
        signing_ca_key: rotation.ca_key.clone(),
        ..CaConfig::default()
    };
    assert_eq!(replaced(plan_root_ca(&same, &config, now).unwrap().outcome).root_rotation, Some(rotation.clone()));

    let done = finish_rotation(&rotating).unwrap();
    assert_eq!((&done.ca_cert, &done.ca_key, &done.root_rotation), (&rotation.ca_cert, &rotation.ca_key, &None));
    assert_eq!(done.ca_cert_hash, identity::ca_cert_hash(&rotation.ca_cert));
    let token = identity::JoinToken::parse(&done.join_tokens.worker).unwrap();
    assert!(token.is_for(&rotation.ca_cert) && done.join_tokens.worker != done.join_tokens.manager);
    assert_eq!(finish_rotation(&done), None);
}

/// cfssl's profile for another CA: the old root vouches.
fn cross_signs() -> Behaviour {
    Box::new(|ca, asked| {
        assert_eq!(asked["profile"], "CA");
        let extension = json!([{"id": "2.5.29.19", "critical": true, "value": "30030101ff"}]);
        assert_eq!(asked["extensions"], extension);
        assert_eq!(asked["subject"]["CN"], "swarm-ca");
        // The request proves that the asker holds the new root's key.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("r.pem"), asked["certificate_request"].as_str().unwrap()).unwrap();
        fixture::openssl_ok(folder.path(), &["req", "-verify", "-noout", "-in", "r.pem"]);
        let new = NEW.lock().unwrap().clone();
        good(&ca.signer().cross_sign(&new).unwrap())
    })
}

/// The new root's certificate, which a request does not carry.
static NEW: Mutex<Vec<u8>> = Mutex::new(Vec::new());

#[tokio::test]
async fn an_external_root_vouches_for_an_internal_one() {
    let old = start(Ca::new(), cross_signs()).await;
    let new = Ca::new();
    *NEW.lock().unwrap() = new.root.cert_pem.clone();
    let now = identity::system_now();
    let current = without_key(&old.ca);
    let config = desires(&new, &[(&old.url, &old.ca)]);
    let settled = settle_root_ca(&current, &config, None, now).await.unwrap().unwrap();
    let rotation = settled.root_rotation.unwrap();
    assert_eq!((&rotation.ca_cert, &rotation.ca_key), (&new.root.cert_pem, &new.root.key_pem));
    let signer = Signer::new(&rotation.ca_cert, &rotation.ca_key, &rotation.cross_signed_ca_cert).unwrap();
    let key = NodeKey::generate();
    let csr = key.request().unwrap();
    let leaf = LeafRequest { csr_pem: &csr, node: &"n".into(), role: NodeRole::Worker, cluster: &CLUSTER.into() };
    let chain = signer.sign_csr(leaf, None, now).unwrap();
    identity::NodeCredential::load(&chain, &key, &old.ca.bundle, now, identity::Expiry::Refuse).unwrap();
    // It vouches for another: not taken.
    *NEW.lock().unwrap() = RootAuthority::generate(now).unwrap().cert_pem;
    let refused = settle_root_ca(&current, &config, None, now).await.unwrap_err();
    assert!(matches!(refused, CaRefusal::CrossSign { .. }), "{refused}");
}

#[tokio::test]
async fn an_internal_root_hands_over_to_an_external_one() {
    let (old, new) = (Ca::new(), start(Ca::new(), signs(None, None, CLUSTER)).await);
    let now = identity::system_now();
    let config = CaConfig { signing_ca_key: Vec::new(), ..desires(&new.ca, &[(&new.url, &new.ca)]) };
    let settled = settle_root_ca(&internal(&old), &config, None, now).await.unwrap().unwrap();
    let signer = ActiveSigner::of(&settled, &config).unwrap();
    let ActiveSigner::External { urls, intermediates_pem, tls_roots } = signer else { panic!("its key is elsewhere") };
    let signer =
        ExternalSigner { urls: &urls, tls_roots: &tls_roots, node: None, intermediates_pem: &intermediates_pem };
    let csr = NodeKey::generate().request().unwrap();
    let leaf = LeafRequest { csr_pem: &csr, node: &"n".into(), role: NodeRole::Manager, cluster: &CLUSTER.into() };
    signer.sign(leaf, &old.bundle, now).await.unwrap();
    assert_eq!(new.asked.lock().unwrap()[0]["hosts"], json!(["swarm-manager", "n", "swarm-ca"]));
    // While it rotates, the new CA must stay within reach.
    assert_eq!(
        settle_root_ca(&settled, &CaConfig { signing_ca_cert: Vec::new(), ..config.clone() }, None, now).await,
        Ok(None)
    );
    let gone = CaConfig { signing_ca_cert: Vec::new(), external_cas: Vec::new(), ..config };
    let refused = settle_root_ca(&settled, &gone, None, now).await;
    assert_eq!(refused, Err(CaRefusal::Unreachable(WhichCa::Next)));
}
