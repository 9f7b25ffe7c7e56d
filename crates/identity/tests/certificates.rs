//! Who gets which certificate, and which certificates count: attacks, other libraries' opinions, imported CAs.

mod fixture;

use fixture::{CLUSTER, Ca, greedy_request, openssl, openssl_ok, plain_leaf};
use identity::{
    CertificateError, ChainError, CsrError, Expiry, IssuerInfo, LeafRequest, NodeCredential, NodeKey, PeerIdentity,
    RootAuthority, RootBundle, SignError, SignatureError, Signer, SignerError, Usage, verify_chain,
};
use model::{NodeRole, Timestamp};
use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// 2027-01-15.
const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 0 };

fn chain(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect()
}

fn request<'a>(csr_pem: &'a [u8], node: &'a model::NodeId, role: NodeRole) -> LeafRequest<'a> {
    static CLUSTER_ID: std::sync::LazyLock<model::ClusterId> = std::sync::LazyLock::new(|| CLUSTER.into());
    LeafRequest { csr_pem, node, role, cluster: &CLUSTER_ID }
}

#[test]
fn a_worker_that_asks_for_more_gets_a_workers_certificate() {
    let ca = Ca::new();
    let key = KeyPair::generate().unwrap();
    let csr = greedy_request(&key);
    let signed = ca.signer().sign_csr(request(&csr, &"w1".into(), NodeRole::Worker), None, NOW).unwrap();
    let der = chain(&signed);
    assert_eq!(der.len(), 1);
    let (_, leaf) = X509Certificate::from_der(&der[0]).unwrap();
    assert_eq!(leaf.subject().to_string(), "O=cluster1, OU=swarm-worker, CN=w1");
    assert!(!leaf.is_ca());
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["DNSName(swarm-worker)", "DNSName(w1)"]);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any && extended.other.is_empty());
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
    let peer = verify_chain(&der, &ca.bundle, NOW, Expiry::Refuse, Usage::Both).unwrap();
    assert_eq!((peer.node_id.as_str(), peer.role, peer.cluster_id.as_str()), ("w1", NodeRole::Worker, CLUSTER));
}

#[test]
fn a_request_must_be_signed_with_its_key() {
    let ca = Ca::new();
    let sign = |csr: &[u8]| ca.signer().sign_csr(request(csr, &"w1".into(), NodeRole::Worker), None, NOW);
    let good = NodeKey::generate().request().unwrap();
    assert!(sign(&good).is_ok());
    // Another's public key in a request of one's own would give a certificate in the other's name.
    let mut der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(&good).unwrap().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let text = |der: &[u8]| {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n").into_bytes()
    };
    assert_eq!(sign(&text(&der)), Err(SignError::Request(CsrError::Signature(SignatureError::Wrong))));
    for bad in [b"".as_slice(), b"x", &text(b"\x30\x03\x02\x01\x01"), &text(&[]), &ca.root.cert_pem] {
        assert!(matches!(sign(bad), Err(SignError::Request(CsrError::Unreadable(_)))));
    }
    for cut in (0..der.len()).step_by(7) {
        assert!(sign(&text(&der[..cut])).is_err());
    }
}

#[test]
fn other_kinds_of_keys_are_signed_as_far_as_they_are_safe() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let check = |kind: &[&str], fine: bool| {
        let args = [&["req", "-new", "-nodes", "-keyout", "k.pem", "-out", "r.pem", "-subj", "/CN=x"], kind].concat();
        openssl_ok(folder.path(), &args);
        let csr = std::fs::read(folder.path().join("r.pem")).unwrap();
        let signed = ca.signer().sign_csr(request(&csr, &"w1".into(), NodeRole::Worker), None, NOW);
        assert_eq!(signed.is_ok(), fine, "{kind:?}: {signed:?}");
    };
    check(&["-newkey", "rsa:2048"], true);
    check(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], true);
    check(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"], true);
    check(&["-newkey", "rsa:1024"], false);
    check(&["-newkey", "rsa:2048", "-sha1"], false);
    check(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], false);
}

#[test]
fn lives_are_back_dated_bounded_and_end_with_the_ca() {
    let ca = RootAuthority::generate(NOW).unwrap();
    let signer = Signer::new(&ca.cert_pem, &ca.key_pem, &[]).unwrap();
    let csr = NodeKey::generate().request().unwrap();
    let life = |seconds: i64, now: Timestamp| {
        let life = model::Duration { seconds, nanos: 0 };
        let signed = signer.sign_csr(request(&csr, &"n".into(), NodeRole::Worker), Some(life), now)?;
        let peer = PeerIdentity::from_pem(&signed).unwrap();
        Ok::<_, SignError>((peer.not_before.seconds - now.seconds, peer.not_after.seconds - now.seconds))
    };
    assert_eq!(life(7200, NOW), Ok((-3600, 7200)));
    assert_eq!(life(3600, NOW), Ok((-3600, 3600)));
    assert_eq!(life(3599, NOW), Ok((-3600, 2160 * 3600)), "too short is the default");
    assert_eq!(life(7200, at(NOW.seconds + 29)), Ok((-3629, 7171)), "rounded to the minute");
    assert_eq!(life(7200, at(NOW.seconds + 30)), Ok((-3570, 7230)));
    let end = NOW.seconds - 300 + 630_720_000;
    assert_eq!(life(7200, at(end - 600)).map(|life| life.1), Ok(600), "not past the CA's end");
    assert_eq!(life(7200, at(end)), Err(SignError::CaExpired));
    let root = PeerIdentity::from_pem(&ca.cert_pem);
    assert_eq!(root, Err(CertificateError::IsCa));
}

#[test]
fn certificates_that_do_not_count() {
    let ca = Ca::new();
    let now = identity::system_now();
    let other = Ca::new();
    let check = |pem: &[u8], usage: Usage| verify_chain(&chain(pem), &ca.bundle, now, Expiry::Refuse, usage);
    // The forger's tool makes good ones, too: what is refused below is refused for the one thing that is changed.
    let (good, _) = ca.forge(|_| {});
    assert_eq!(check(&good, Usage::Both).map(|peer| peer.role), Ok(NodeRole::Manager));

    let (foreign, _) = other.pair_at("n", NodeRole::Manager, now);
    assert_eq!(check(&foreign, Usage::Client), Err(ChainError::UnknownAuthority));
    let (client_only, _) = ca.forge(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert_eq!(check(&client_only, Usage::Server), Err(ChainError::Usage));
    assert_eq!(check(&client_only, Usage::Both), Err(ChainError::Usage));
    let (server_only, _) = ca.forge(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(check(&server_only, Usage::Client), Err(ChainError::Usage));
    let (no_role, _) = ca.forge(|leaf| leaf.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-boss"));
    let unknown = CertificateError::UnknownRole("swarm-boss".to_owned());
    assert_eq!(check(&no_role, Usage::Both), Err(ChainError::Certificate(unknown)));
    let (nameless, _) = ca.forge(|leaf| leaf.distinguished_name.remove(DnType::CommonName).then_some(()).unwrap());
    assert_eq!(check(&nameless, Usage::Both), Err(ChainError::Certificate(CertificateError::NoName("common name"))));
    let (is_ca, _) = ca.forge(|leaf| leaf.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    assert_eq!(check(&is_ca, Usage::Both), Err(ChainError::Certificate(CertificateError::IsCa)));
    assert_eq!(check(&ca.root.cert_pem, Usage::Both), Err(ChainError::Certificate(CertificateError::IsCa)));
    assert_eq!(check(b"", Usage::Both), Err(ChainError::Empty));
    let many = good.repeat(9);
    assert_eq!(check(&many, Usage::Both), Err(ChainError::TooLong(9)));
}

#[test]
fn a_workers_key_signs_nothing() {
    let ca = Ca::new();
    let now = identity::system_now();
    let (worker, worker_key) = ca.pair_at("w1", NodeRole::Worker, now);
    let key = KeyPair::from_pem(std::str::from_utf8(&worker_key.pem).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(std::str::from_utf8(&worker).unwrap(), key).unwrap();
    let forged = plain_leaf().signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let pem = [forged.pem().as_bytes(), &worker].concat();
    for usage in [Usage::Server, Usage::Client, Usage::Both] {
        let verdict = verify_chain(&chain(&pem), &ca.bundle, now, Expiry::Refuse, usage);
        assert!(matches!(verdict, Err(ChainError::UnknownAuthority | ChainError::Invalid(_))), "{verdict:?}");
    }
}

#[test]
fn clocks_are_told_of() {
    let now = identity::system_now().seconds;
    let ca = Ca::made_at(at(now - 86_400));
    let (pem, key) = ca.pair_at("n1", NodeRole::Worker, at(now));
    let check = |now: i64| verify_chain(&chain(&pem), &ca.bundle, at(now), Expiry::Refuse, Usage::Both);
    assert!(check(now - 3500).is_ok(), "an hour behind is allowed for");
    assert!(matches!(check(now - 3700), Err(ChainError::NotYetValid { position: 1, .. })));
    let late = check(now + 2161 * 3600);
    assert!(matches!(&late, Err(ChainError::Expired { position: 1, name, .. }) if name == "n1"));
    let text = late.unwrap_err().to_string();
    assert!(text.starts_with("certificate (1 - n1) not valid after ") && text.ends_with(" UTC"), "{text}");
    let verify = |ca: &Ca, now: i64| verify_chain(&chain(&pem), &ca.bundle, at(now), Expiry::Refuse, Usage::Both);
    // Who it was is still known.
    let load = |expiry| NodeCredential::load(&pem, &key, &ca.bundle, at(now + 2161 * 3600), expiry);
    assert!(load(Expiry::Refuse).is_err());
    assert_eq!(load(Expiry::Allow).unwrap().identity().node_id.as_str(), "n1");
    // A root that is over, or not yet, is none.
    let late = Ca::made_at(at(now + 600));
    assert_eq!(verify(&late, now), Err(ChainError::NoRoot { now: at(now) }));
    let text =
        ChainError::Expired { position: 1, name: "n".into(), not_after: at(0), now: at(1_784_034_245) }.to_string();
    let wanted = "certificate (1 - n) not valid after Thu, 01 Jan 1970 00:00:00 UTC, and it is currently \
                  Tue, 14 Jul 2026 13:04:05 UTC";
    assert_eq!(text, wanted);
}

#[test]
fn a_key_must_be_the_certificates() {
    let ca = Ca::new();
    let now = identity::system_now();
    let (pem, _) = ca.pair_at("n1", NodeRole::Worker, now);
    let load = |key: &NodeKey| NodeCredential::load(&pem, key, &ca.bundle, now, Expiry::Refuse).map(|_| ());
    assert_eq!(load(&NodeKey::generate()), Err(ChainError::KeyMismatch));
    assert!(matches!(load(&NodeKey { pem: b"x".to_vec() }), Err(ChainError::Key(_))));
    let other = Ca::new();
    let mismatch = Signer::new(&ca.root.cert_pem, &other.root.key_pem, &[]).map(|_| ());
    assert_eq!(mismatch, Err(SignerError::Mismatch));
    let (leaf, key) = ca.pair_at("n1", NodeRole::Worker, now);
    assert_eq!(Signer::new(&leaf, &key.pem, &[]).map(|_| ()), Err(SignerError::NotCa));
}

#[test]
fn during_a_rotation_old_and_new_roots_trust_a_chain() {
    let (old, new, stranger) = (Ca::new(), Ca::new(), Ca::new());
    let now = identity::system_now();
    let cross = old.signer().cross_sign(&new.root.cert_pem).unwrap();
    let signer = Signer::new(&new.root.cert_pem, &new.root.key_pem, &cross).unwrap();
    let key = NodeKey::generate();
    let csr = key.request().unwrap();
    let pem = signer.sign_csr(request(&csr, &"n1".into(), NodeRole::Manager), None, now).unwrap();
    assert_eq!(chain(&pem).len(), 2);
    for (roots, trusted) in [(&old, true), (&new, true), (&stranger, false)] {
        let verdict = verify_chain(&chain(&pem), &roots.bundle, now, Expiry::Refuse, Usage::Both);
        assert_eq!(verdict.is_ok(), trusted);
    }
    let both = [&old.root.cert_pem[..], &stranger.root.cert_pem].concat();
    let both = RootBundle::parse(&both).unwrap();
    assert!(verify_chain(&chain(&pem), &both, now, Expiry::Refuse, Usage::Both).is_ok(), "any of a bundle");
    // Nodes report the new issuer whichever root they trust, and whether the old one's leaves do is what is waited for.
    for roots in [&old.bundle, &new.bundle] {
        let node = NodeCredential::load(&pem, &key, roots, now, Expiry::Refuse).unwrap();
        assert!(signer.issuer_info().is_reported_by(node.tls_info()));
        assert!(!old.signer().issuer_info().is_reported_by(node.tls_info()));
    }
    assert_eq!(IssuerInfo::of_ca(&new.root.cert_pem), Ok(signer.issuer_info()));
    let before = old.node("n1", NodeRole::Manager);
    assert!(old.signer().issuer_info().is_reported_by(before.tls_info()));
    assert_eq!(old.signer().cross_sign(&pem), Err(SignError::NotCa));
}

#[test]
fn openssl_agrees() {
    let (old, new, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let (leaf, _) = old.pair_at("n1", NodeRole::Manager, identity::system_now());
    let cross = old.signer().cross_sign(&new.root.cert_pem).unwrap();
    let (new_leaf, key) = new.pair_at("n2", NodeRole::Worker, identity::system_now());
    for (name, bytes) in [
        ("old.crt", &old.root.cert_pem),
        ("new.crt", &new.root.cert_pem),
        ("cross.crt", &cross),
        ("leaf.crt", &leaf),
        ("new-leaf.crt", &new_leaf),
        ("node.key", &key.pem),
        ("node.csr", &key.request().unwrap()),
    ] {
        write(name, bytes);
    }
    let verify = |args: &[&str]| openssl_ok(folder.path(), &[&["verify", "-check_ss_sig"], args].concat());
    verify(&[
        "-x509_strict",
        "-CAfile",
        "old.crt",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "swarm-ca",
        "leaf.crt",
    ]);
    verify(&["-x509_strict", "-CAfile", "old.crt", "-purpose", "sslclient", "leaf.crt"]);
    verify(&["-x509_strict", "-CAfile", "old.crt", "-untrusted", "cross.crt", "new-leaf.crt"]);
    verify(&["-x509_strict", "-CAfile", "new.crt", "-untrusted", "cross.crt", "new-leaf.crt"]);
    assert!(!openssl(folder.path(), &["verify", "-CAfile", "old.crt", "new-leaf.crt"]).status.success());
    openssl_ok(folder.path(), &["req", "-verify", "-noout", "-in", "node.csr"]);
    openssl_ok(folder.path(), &["pkey", "-check", "-noout", "-in", "node.key"]);
    let text = openssl_ok(folder.path(), &["x509", "-noout", "-text", "-in", "leaf.crt"]);
    for wanted in [
        "Subject: O = cluster1, OU = swarm-manager, CN = n1",
        "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "DNS:swarm-manager, DNS:n1, DNS:swarm-ca",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
    let text = openssl_ok(folder.path(), &["x509", "-noout", "-text", "-in", "old.crt"]);
    for wanted in [
        "Subject: CN = swarm-ca",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Basic Constraints: critical\n                CA:TRUE\n",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
    assert!(!text.contains("Authority Key Identifier") && !text.contains("Alternative Name"), "{text}");
}

#[test]
fn imported_cas_sign_whatever_their_name_is_encoded_in() {
    let folder = tempfile::tempdir().unwrap();
    let check = |kind: &[&str], fine: bool| {
        let subject = "/C=DE/O=Ünïcode & Söhne/OU=one/OU=two/CN=root";
        let fixed =
            ["req", "-x509", "-nodes", "-utf8", "-days", "400", "-keyout", "k.pem", "-out", "c.pem", "-subj", subject];
        openssl_ok(folder.path(), &[&fixed, kind].concat());
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let signer = Signer::new(&read("c.pem"), &read("k.pem"), &[]);
        assert_eq!(signer.is_ok(), fine, "{kind:?} {:?}", signer.err());
        let Ok(signer) = signer else { return };
        let bundle = RootBundle::parse(&read("c.pem")).unwrap();
        let now = identity::system_now();
        let key = NodeKey::generate();
        let csr = key.request().unwrap();
        let pem = signer.sign_csr(request(&csr, &"n1".into(), NodeRole::Manager), None, now).unwrap();
        NodeCredential::load(&pem, &key, &bundle, now, Expiry::Refuse).unwrap();
        std::fs::write(folder.path().join("leaf.pem"), &pem).unwrap();
        openssl_ok(folder.path(), &["verify", "-CAfile", "c.pem", "leaf.pem"]);
        // And it vouches for a new root, and is vouched for.
        let other = Ca::new();
        let cross = signer.cross_sign(&other.root.cert_pem).unwrap();
        let (leaf, _) = other.pair_at("n", NodeRole::Worker, now);
        let pem = [leaf, cross].concat();
        verify_chain(&chain(&pem), &bundle, now, Expiry::Refuse, Usage::Both).unwrap();
        let cross = other.signer().cross_sign(&read("c.pem")).unwrap();
        let pem = [read("leaf.pem"), cross].concat();
        verify_chain(&chain(&pem), &other.bundle, now, Expiry::Refuse, Usage::Both).unwrap();
    };
    check(&["-newkey", "rsa:2048"], true);
    check(&["-newkey", "rsa:4096", "-sha384"], true);
    check(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"], true);
    check(&["-newkey", "rsa:1024"], false);
    // No provider of this program signs with it.
    check(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], false);
    // The form in which SwarmKit writes its keys.
    openssl_ok(folder.path(), &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sec1.pem"]);
    check(&["-key", "sec1.pem"], true);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let sec1 = read("sec1.pem");
    assert!(sec1.starts_with(b"-----BEGIN EC PRIVATE KEY-----"));
    assert!(Signer::new(&read("c.pem"), &sec1, &[]).is_ok());
}
