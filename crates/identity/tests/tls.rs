//! TLS between nodes: who gets in, who is believed to be a manager, what a change of credentials does, and whether
//! OpenSSL can talk with both sides.

mod fixture;

use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fixture::{CLUSTER, Ca};
use identity::{
    Credentials, DialError, Expiry, ListenLimits, NodeCredential, PeerInfo, PeerListener, RootBundle, ServerRole,
    connect, connect_lazy, tls_accept, tls_connect,
};
use model::{NodeRole, Timestamp};
use rcgen::DnType;
use rustls::pki_types::UnixTime;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::ca_client::CaClient;
use swarm_proto::swarmkit::ca_server::{Ca as CaService, CaServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

/// Answers with who calls.
struct Mirror;

#[tonic::async_trait]
impl CaService for Mirror {
    async fn get_root_ca_certificate(
        &self,
        request: Request<p::GetRootCaCertificateRequest>,
    ) -> Result<Response<p::GetRootCaCertificateResponse>, Status> {
        let peer = request.extensions().get::<PeerInfo>().expect("each connection says who calls");
        let who = match &peer.identity {
            Some(peer) => format!("{} {:?} {}", peer.node_id, peer.role, peer.cluster_id),
            None => "nobody".to_owned(),
        };
        assert!(peer.remote_addr.ip().is_loopback());
        Ok(Response::new(p::GetRootCaCertificateResponse { certificate: who.into_bytes() }))
    }

    async fn get_unlock_key(
        &self,
        _: Request<p::GetUnlockKeyRequest>,
    ) -> Result<Response<p::GetUnlockKeyResponse>, Status> {
        Err(Status::unimplemented("no"))
    }
}

/// A gRPC server; it ends when the set is dropped.
struct Server {
    addr: String,
    _task: JoinSet<()>,
}

async fn serve(credentials: &Credentials, limits: ListenLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = PeerListener::start(listener, credentials, limits).unwrap();
    let addr = listener.local_addr().to_string();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let server = tonic::transport::Server::builder().add_service(CaServer::new(Mirror));
        server.serve_with_incoming(listener).await.unwrap();
    });
    Server { addr, _task: task }
}

async fn who_am_i(channel: tonic::transport::Channel) -> Result<String, Status> {
    let answer = CaClient::new(channel).get_root_ca_certificate(p::GetRootCaCertificateRequest {}).await?;
    Ok(String::from_utf8(answer.into_inner().certificate).unwrap())
}

async fn call(server: &Server, role: ServerRole, credentials: &Credentials) -> Result<String, DialError> {
    let channel = connect(&server.addr, role, credentials).await?;
    // With TLS 1.3 a server refuses a client's certificate after the client is content.
    who_am_i(channel).await.map_err(|status| DialError::Address(status.message().to_owned()))
}

#[tokio::test]
async fn callers_are_known_by_their_certificates() {
    let ca = Ca::new();
    let server = serve(&ca.credentials("m1", NodeRole::Manager), ListenLimits::default()).await;
    let worker = ca.credentials("w1", NodeRole::Worker);
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Worker cluster1");
    let manager = ca.credentials("m2", NodeRole::Manager);
    assert_eq!(call(&server, ServerRole::Manager, &manager).await.unwrap(), "m2 Manager cluster1");
    let nobody = Credentials::new(ca.bundle.clone(), None);
    assert_eq!(call(&server, ServerRole::Ca, &nobody).await.unwrap(), "nobody");
    let lazy = connect_lazy(&server.addr, ServerRole::Manager, &worker).unwrap();
    assert_eq!(who_am_i(lazy).await.unwrap(), "w1 Worker cluster1");
    for bad in ["", "x", "127.0.0.1", ":1", "http://x:1", "a b:1"] {
        assert!(matches!(connect(bad, ServerRole::Ca, &nobody).await, Err(DialError::Address(_))), "{bad:?}");
    }
}

#[tokio::test]
async fn callers_with_bad_certificates_do_not_get_in() {
    let now = identity::system_now();
    let old = Timestamp { seconds: now.seconds - 2200 * 3600, nanos: 0 };
    let (ca, other) = (Ca::made_at(old), Ca::new());
    let server = serve(&ca.credentials("m1", NodeRole::Manager), ListenLimits::default()).await;
    // Each trusts the server's root, so that only the server can refuse.
    let refused = |node: NodeCredential| {
        let server = &server;
        let credentials = Credentials::new(ca.bundle.clone(), Some(node));
        async move {
            let outcome = call(server, ServerRole::Manager, &credentials).await;
            assert!(outcome.is_err(), "{outcome:?}");
        }
    };
    refused(other.node("m2", NodeRole::Manager)).await;
    let (chain, key) = ca.pair_at("m2", NodeRole::Manager, old);
    refused(NodeCredential::load(&chain, &key, &ca.bundle, now, Expiry::Allow).unwrap()).await;
    // A certificate that is not the node's key's is worth nothing: the handshake is signed with the wrong key.
    let (chain, _) = ca.pair_at("m2", NodeRole::Manager, now);
    let thief = identity::NodeKey::generate();
    assert!(NodeCredential::load(&chain, &thief, &ca.bundle, now, Expiry::Refuse).is_err());
    let alive = call(&server, ServerRole::Manager, &ca.credentials("w", NodeRole::Worker)).await;
    assert_eq!(alive.unwrap(), "w Worker cluster1");
}

#[tokio::test]
async fn only_a_manager_of_this_cluster_is_believed() {
    let (ca, other) = (Ca::new(), Ca::new());
    let node = ca.credentials("n1", NodeRole::Worker);
    let joining = Credentials::new(ca.bundle.clone(), None);
    let served = |credentials: Credentials| async move { serve(&credentials, ListenLimits::default()).await };
    // A worker's certificate does not carry a manager's names.
    let worker = served(ca.credentials("w1", NodeRole::Worker)).await;
    // One that an external CA gave a manager's names, but not the role.
    let named = ca.forged(|leaf| leaf.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-worker"));
    let named = served(Credentials::new(ca.bundle.clone(), Some(named.unwrap()))).await;
    for server in [&worker, &named] {
        for (role, credentials) in [(ServerRole::Manager, &node), (ServerRole::Ca, &joining)] {
            let outcome = call(server, role, credentials).await;
            assert!(matches!(outcome, Err(DialError::NotTheServer { .. })), "{outcome:?}");
        }
    }
    // A manager of another cluster under the same CA: a node knows better; one that joins knows only the root.
    let foreign = ca.forged(|leaf| leaf.distinguished_name.push(DnType::OrganizationName, "cluster2"));
    let foreign = served(Credentials::new(ca.bundle.clone(), Some(foreign.unwrap()))).await;
    assert!(matches!(call(&foreign, ServerRole::Manager, &node).await, Err(DialError::NotTheServer { .. })));
    assert_eq!(call(&foreign, ServerRole::Ca, &joining).await.unwrap(), "nobody");
    // Another CA.
    let other = served(other.credentials("m1", NodeRole::Manager)).await;
    assert!(matches!(call(&other, ServerRole::Manager, &node).await, Err(DialError::UnknownAuthority { .. })));
    // Nobody there.
    let closed = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string() };
    let outcome = connect(&closed, ServerRole::Manager, &node).await;
    assert!(
        matches!(&outcome, Err(DialError::Connect { source, .. })
        if source.kind() == std::io::ErrorKind::ConnectionRefused),
        "{outcome:?}"
    );
}

/// A clock that is off.
#[derive(Debug)]
struct Off(i64);

impl rustls::time_provider::TimeProvider for Off {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = identity::system_now().seconds + self.0;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds.unsigned_abs())))
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_named() {
    let long_ago = Timestamp { seconds: identity::system_now().seconds - 86_400, nanos: 0 };
    let ca = Ca::made_at(long_ago);
    let server = serve(&ca.credentials("m1", NodeRole::Manager), ListenLimits::default()).await;
    let off = |seconds: i64| {
        let credentials = Credentials::with_clock(ca.bundle.clone(), None, Arc::new(Off(seconds)));
        let server = &server;
        async move { call(server, ServerRole::Ca, &credentials).await }
    };
    assert!(off(0).await.is_ok());
    assert!(off(-3000).await.is_ok(), "a slow clock is allowed for");
    assert!(matches!(off(-7200).await, Err(DialError::ServerNotYetValid { .. })));
    assert!(matches!(off(2161 * 3600).await, Err(DialError::ServerExpired { .. })));
    let node = ca.credentials("n1", NodeRole::Worker);
    let now = identity::system_now();
    assert!(node.check_validity(now).is_ok());
    let late = Timestamp { seconds: now.seconds + 2161 * 3600, nanos: 0 };
    assert!(matches!(node.check_validity(late), Err(identity::ChainError::Expired { .. })));
}

#[tokio::test]
async fn new_credentials_count_at_the_next_handshake() {
    let (old, new) = (Ca::new(), Ca::new());
    let now = identity::system_now();
    let manager = old.credentials("m1", NodeRole::Manager);
    let server = serve(&manager, ListenLimits::default()).await;
    let worker = old.credentials("w1", NodeRole::Worker);
    let standing = connect(&server.addr, ServerRole::Manager, &worker).await.unwrap();
    assert_eq!(who_am_i(standing.clone()).await.unwrap(), "w1 Worker cluster1");
    let mut changes = worker.subscribe();

    // A renewal that makes a manager of the worker.
    worker.set_node(old.node("w1", NodeRole::Manager));
    assert!(changes.has_changed().unwrap());
    assert_eq!(changes.borrow_and_update().node.as_ref().unwrap().identity().role, NodeRole::Manager);
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Manager cluster1");
    assert_eq!(who_am_i(standing.clone()).await.unwrap(), "w1 Worker cluster1", "the old connection stays what it was");

    // A bundle that shuts the node out is not taken; one that holds both is, and changes nothing for others.
    let shut_out = worker.set_roots(new.bundle.clone(), now);
    assert!(shut_out.is_err() && worker.current().roots.pem() == old.bundle.pem());
    let both = [&old.root.cert_pem[..], &new.root.cert_pem].concat();
    let both = RootBundle::parse(&both).unwrap();
    for credentials in [&worker, &manager] {
        credentials.set_roots(both.clone(), now).unwrap();
    }
    assert_eq!(changes.borrow_and_update().node.as_ref().unwrap().tls_info().trust_root, both.pem());
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Manager cluster1");

    // The server's new certificate is of the new root, which only those who took the bundle trust.
    manager.set_node(new.node("m1", NodeRole::Manager));
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Manager cluster1");
    let stale = old.credentials("w2", NodeRole::Worker);
    assert!(matches!(call(&server, ServerRole::Manager, &stale).await, Err(DialError::UnknownAuthority { .. })));
    // And the old root's callers are refused once it is trusted no more.
    manager.set_roots(new.bundle.clone(), now).unwrap();
    assert!(call(&server, ServerRole::Manager, &worker).await.is_err());
    worker.set_node(new.node("w1", NodeRole::Worker));
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Worker cluster1");
}

#[tokio::test]
async fn slow_handshakes_hold_nobody_up_for_long() {
    let ca = Ca::new();
    let limits =
        ListenLimits { handshake_timeout: Duration::from_millis(300), handshakes: 2, ..ListenLimits::default() };
    let server = serve(&ca.credentials("m1", NodeRole::Manager), limits).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(&server.addr).await.unwrap());
    }
    let worker = ca.credentials("w1", NodeRole::Worker);
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Worker cluster1");
    // The silent ones were cut off.
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    // Garbage, too.
    let mut stream = TcpStream::connect(&server.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Worker cluster1");
}

#[tokio::test]
async fn callers_without_a_certificate_are_few_and_not_for_long() {
    let ca = Ca::new();
    let limits = ListenLimits { guests: 2, guest_time: Duration::from_millis(500), ..ListenLimits::default() };
    let server = serve(&ca.credentials("m1", NodeRole::Manager), limits).await;
    let nobody = Credentials::new(ca.bundle.clone(), None);
    let mut guests = Vec::new();
    for _ in 0..2 {
        let tcp = TcpStream::connect(&server.addr).await.unwrap();
        let mut guest = tls_connect(tcp, ServerRole::Ca, &nobody).await.unwrap();
        // The server's first frame: it has its place.
        guest.read_exact(&mut [0; 9]).await.unwrap();
        guests.push(guest);
    }
    assert!(call(&server, ServerRole::Ca, &nobody).await.is_err(), "one too many");
    let worker = ca.credentials("w1", NodeRole::Worker);
    assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Worker cluster1");
    for mut guest in guests {
        let mut rest = Vec::new();
        let _ = guest.read_to_end(&mut rest).await;
    }
    assert_eq!(call(&server, ServerRole::Ca, &nobody).await.unwrap(), "nobody");
}

/// Connects from another of this machine's addresses.
async fn connect_from(source: &str, server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(server.addr.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_crowd_of_silent_connections_keeps_no_other_address_out() {
    let ca = Ca::new();
    // Who gets in does so because others are given up, not because they ended.
    let limits = ListenLimits { handshake_timeout: Duration::from_hours(1), handshakes: 64, ..ListenLimits::default() };
    let server = serve(&ca.credentials("m1", NodeRole::Manager), limits).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect_from("127.0.0.2", &server).await);
    }
    let worker = ca.credentials("w1", NodeRole::Worker);
    for _ in 0..10 {
        assert_eq!(call(&server, ServerRole::Manager, &worker).await.unwrap(), "w1 Worker cluster1");
    }
    // And the first ones of the crowd were cut off.
    assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_crowd_of_guests_keeps_no_other_address_out() {
    let ca = Ca::new();
    let limits = ListenLimits { guests: 3, guest_time: Duration::from_hours(1), ..ListenLimits::default() };
    let server = serve(&ca.credentials("m1", NodeRole::Manager), limits).await;
    let nobody = Credentials::new(ca.bundle.clone(), None);
    let mut crowd = Vec::new();
    for _ in 0..3 {
        let tcp = connect_from("127.0.0.2", &server).await;
        let mut guest = tls_connect(tcp, ServerRole::Ca, &nobody).await.unwrap();
        // The server's first frame: it has its place.
        guest.read_exact(&mut [0; 9]).await.unwrap();
        crowd.push(guest);
    }
    assert_eq!(call(&server, ServerRole::Ca, &nobody).await.unwrap(), "nobody");
    let mut rest = Vec::new();
    let _ = crowd[0].read_to_end(&mut rest).await;
}

#[tokio::test]
async fn a_worker_has_a_few_connections_and_keeps_nobody_out() {
    let ca = Ca::new();
    let limits = ListenLimits { connections_of_worker: 2, ..ListenLimits::default() };
    let server = serve(&ca.credentials("m1", NodeRole::Manager), limits).await;
    let open = async |credentials: &Credentials| {
        let tcp = TcpStream::connect(&server.addr).await.unwrap();
        let mut stream = tls_connect(tcp, ServerRole::Manager, credentials).await.unwrap();
        // The server's first frame: it has its place.
        stream.read_exact(&mut [0; 9]).await.unwrap();
        stream
    };
    let (one, manager) = (ca.credentials("w1", NodeRole::Worker), ca.credentials("m2", NodeRole::Manager));
    let mut oldest = open(&one).await;
    let _two = [open(&one).await, open(&one).await];
    // What is to be read of the first ends with it.
    let mut rest = Vec::new();
    let _ = oldest.read_to_end(&mut rest).await;
    let other = ca.credentials("w2", NodeRole::Worker);
    assert_eq!(call(&server, ServerRole::Manager, &other).await.unwrap(), "w2 Worker cluster1");
    // Managers have as many as they need.
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(connect(&server.addr, ServerRole::Manager, &manager).await.unwrap());
    }
    for channel in channels {
        assert_eq!(who_am_i(channel).await.unwrap(), "m2 Manager cluster1");
    }
}

#[tokio::test]
async fn tls_runs_over_any_stream() {
    let ca = Ca::new();
    let (manager, worker) = (ca.credentials("m1", NodeRole::Manager), ca.credentials("w1", NodeRole::Worker));
    let (near, far) = tokio::io::duplex(4096);
    let from: SocketAddr = "10.0.0.1:5".parse().unwrap();
    let accept = async { tls_accept(far, from, &manager).await.unwrap() };
    let dial = async { tls_connect(near, ServerRole::Manager, &worker).await.unwrap() };
    let (mut server, mut client) = tokio::join!(accept, dial);
    assert_eq!(server.peer().identity.as_ref().unwrap().node_id.as_str(), "w1");
    assert_eq!(server.peer().remote_addr, from);
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    client.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"hello");
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write_node(folder: &Path, ca: &Ca, node: &str, role: NodeRole) {
    let (chain, key) = ca.pair_at(node, role, identity::system_now());
    std::fs::write(folder.join("ca.crt"), &ca.root.cert_pem).unwrap();
    std::fs::write(folder.join("node.crt"), chain).unwrap();
    std::fs::write(folder.join("node.key"), key.pem).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_calls_us() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    write_node(folder.path(), &ca, "w1", NodeRole::Worker);
    let manager = ca.credentials("m1", NodeRole::Manager);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let check = async |version: &str, extra: &[&str], wanted: Result<Option<&str>, ()>| {
        let mut args = vec!["s_client", "-connect", &addr, "-CAfile", "ca.crt", "-verify_return_error", "-brief"];
        args.extend(["-verify_hostname", "swarm-manager", "-servername", "swarm-manager", "-ign_eof", version]);
        args.extend(extra);
        let mut command = Command::new("openssl");
        command.args(&args).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = Running(command.spawn().unwrap());
        let (stream, from) = listener.accept().await.unwrap();
        let accepted = tls_accept(stream, from, &manager).await;
        let who = accepted.as_ref().map_err(|_| ());
        let who = who.map(|stream| stream.peer().identity.as_ref().map(|peer| peer.node_id.to_string()));
        assert_eq!(who, wanted.map(|node| node.map(str::to_owned)), "{version} {extra:?}: {accepted:?}");
        if let Ok(mut stream) = accepted {
            stream.write_all(b"hello from skep\n").await.unwrap();
            stream.shutdown().await.unwrap();
            drop(stream);
            let mut text = String::new();
            client.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            assert!(text.contains("hello from skep"), "{text}");
        }
    };
    let own = ["-cert", "node.crt", "-key", "node.key", "-alpn", "h2"];
    for version in ["-tls1_2", "-tls1_3"] {
        check(version, &own, Ok(Some("w1"))).await;
        check(version, &[], Ok(None)).await;
        check(version, &["-alpn", "http/1.1"], Err(())).await;
    }
    check("-tls1_1", &["-cipher", "DEFAULT@SECLEVEL=0"], Err(())).await;
    check("-tls1_2", &["-cipher", "AES128-GCM-SHA256"], Err(())).await;
    // Another cluster's node.
    write_node(folder.path(), &Ca::new(), "x1", NodeRole::Manager);
    std::fs::write(folder.path().join("ca.crt"), &ca.root.cert_pem).unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        check(version, &own, Err(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_call_openssl() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    write_node(folder.path(), &ca, "m1", NodeRole::Manager);
    for (version, alpn) in [("-tls1_2", Some("h2")), ("-tls1_3", Some("h2")), ("-tls1_3", None), ("-tls1_2", None)] {
        let mut args =
            vec!["s_server", "-accept", "127.0.0.1:0", "-cert", "node.crt", "-key", "node.key", "-CAfile", "ca.crt"];
        args.extend(["-Verify", "3", "-verify_return_error", "-naccept", "1", version]);
        args.extend(alpn.iter().flat_map(|alpn| ["-alpn", alpn]));
        let mut command = Command::new("openssl");
        command.args(&args).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server = Running(command.spawn().unwrap());
        let mut shown = std::io::BufReader::new(server.0.stdout.take().unwrap());
        let mut text = String::new();
        let addr = loop {
            let before = text.len();
            assert!(shown.read_line(&mut text).unwrap() > 0, "openssl s_server ended: {text}");
            if let Some(addr) = text[before..].strip_prefix("ACCEPT ") {
                break addr.trim().to_owned();
            }
        };
        let stream = TcpStream::connect(addr).await.unwrap();
        let worker = ca.credentials("w1", NodeRole::Worker);
        let mut stream = tls_connect(stream, ServerRole::Manager, &worker).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), alpn.map(str::as_bytes), "offered, not demanded");
        server.0.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
        let mut buffer = [0; 6];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello\n");
        drop(stream);
        shown.read_to_string(&mut text).unwrap();
        let wanted = format!("O = {CLUSTER}, OU = swarm-worker, CN = w1");
        assert!(text.contains(&wanted), "openssl saw no certificate of ours: {text}");
    }
}
