//! TCP and TLS listeners, as `dockerd -H tcp://… --tlsverify` has them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::listen::{self, ListenError, Listener, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::process::Command;

use crate::support::{FakeSwarm, Server};

/// Writes `ca.pem`, `server.pem`, `client.pem`, and a key beside each.
fn certificates(directory: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(directory.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    for (name, purpose) in
        [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

fn files(directory: &Path) -> TlsFiles {
    TlsFiles {
        cert: directory.join("server.pem"),
        key: directory.join("server-key.pem"),
        client_ca: Some(directory.join("ca.pem")),
    }
}

async fn docker(port: u16, arguments: &[PathBuf]) -> Option<(bool, String)> {
    let output = Command::new("docker")
        .args(["-H", &format!("tcp://127.0.0.1:{port}")])
        .args(arguments)
        .args(["version", "-f", "{{.Server.Version}}"])
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_HOST")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(20), output).await.expect("docker hangs").ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn option(name: &str, file: PathBuf) -> PathBuf {
    format!("--{name}={}", file.display()).into()
}

#[tokio::test]
async fn clients_without_a_certificate_are_turned_away() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let listener = listen::bind_tcp("127.0.0.1:0", Some(&files(directory.path()))).await.unwrap();
    let Listener::Tls(socket, _) = &listener else { panic!("no TLS") };
    let port = socket.local_addr().unwrap().port();
    let _server = Server::start_on(Arc::new(FakeSwarm::default()), vec![listener]).await;
    let file = |name: &str| directory.path().join(name);
    let mut options = vec!["--tlsverify".into(), option("tlscacert", file("ca.pem"))];
    let Some((succeeded, text)) = docker(port, &options).await else { return };
    assert!(!succeeded, "{text}");
    options.extend([option("tlscert", file("client.pem")), option("tlskey", file("client-key.pem"))]);
    let (succeeded, text) = docker(port, &options).await.unwrap();
    assert!(succeeded && text.starts_with("28.5.2+skep."), "{text}");
    let (succeeded, text) = docker(port, &[]).await.unwrap();
    assert!(!succeeded, "plain text is not understood: {text}");
}

#[tokio::test]
async fn tcp_in_the_clear_answers() {
    let listener = listen::bind_tcp("127.0.0.1:0", None).await.unwrap();
    let Listener::Tcp(socket) = &listener else { panic!("TLS") };
    let port = socket.local_addr().unwrap().port();
    let _server = Server::start_on(Arc::new(FakeSwarm::default()), vec![listener]).await;
    let Some((succeeded, text)) = docker(port, &[]).await else { return };
    assert!(succeeded && text.starts_with("28.5.2+skep."), "{text}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let listen = async |files: TlsFiles| match listen::bind_tcp("127.0.0.1:0", Some(&files)).await {
        Err(ListenError::Tls { path, .. }) => path,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it listens"),
    };
    let good = files(directory.path());
    let nothing = directory.path().join("nothing.pem");
    assert_eq!(listen(TlsFiles { cert: nothing.clone(), ..good.clone() }).await, nothing);
    assert_eq!(listen(TlsFiles { client_ca: Some(nothing.clone()), ..good.clone() }).await, nothing);
    let no_key = TlsFiles { key: directory.path().join("ca.pem"), ..good.clone() };
    assert_eq!(listen(no_key.clone()).await, no_key.key);
}
