//! Ways in which a worker could try to become a manager, on the wire, at the leader and at a follower.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use hyper_util::rt::TokioIo;
use identity::{Credentials, Expiry, NodeCredential, NodeKey, RemoteList, ServerRole, system_now};
use model::{NodeId, NodeRole};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::ca_client::CaClient;
use swarm_proto::swarmkit::control_client::ControlClient;
use swarm_proto::swarmkit::health_client::HealthClient;
use swarm_proto::swarmkit::node_ca_client::NodeCaClient;
use swarm_proto::swarmkit::raft_client::RaftClient;
use swarm_proto::swarmkit::raft_membership_client::RaftMembershipClient;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tower::ServiceExt;

use crate::harness::{Member, Peer, leader, until};

const MANAGER: i32 = p::NodeRole::Manager as i32;

/// A leader, a follower, a worker.
struct Scene {
    leader: Peer,
    follower: Peer,
    worker: Member,
}

async fn scene() -> Scene {
    let leader = Peer::found().await;
    let follower = Peer::join(&leader, "28.5.2+skep.test").await;
    let worker = Member::join(&leader.addr, &leader.tokens().0).await;
    until("the worker on the follower", async || follower.node(&worker.node_id)).await;
    Scene { leader, follower, worker }
}

impl Scene {
    fn addresses(&self) -> [&str; 2] {
        [&self.leader.addr, &self.follower.addr]
    }

    async fn end(self) {
        self.follower.kill().await;
        self.leader.kill().await;
    }
}

/// A request for a certificate that claims to be the named manager's in every way that a request can.
fn greedy_request(node: &NodeId) -> (NodeKey, Vec<u8>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["swarm-manager".to_owned(), "swarm-ca".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "swarm-manager");
    params.distinguished_name.push(rcgen::DnType::CommonName, node.as_str());
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap().into_bytes();
    (NodeKey { pem: key.serialize_pem().into_bytes() }, csr)
}

/// Asks for a certificate and waits for it.
async fn issue(channel: &Channel, token: &str, csr: &[u8]) -> Result<(String, Vec<u8>), Status> {
    let mut client = NodeCaClient::new(channel.clone());
    let request =
        p::IssueNodeCertificateRequest { role: MANAGER, csr: csr.to_vec(), token: token.to_owned(), availability: 0 };
    let node_id = client.issue_node_certificate(request).await?.into_inner().node_id;
    let request = p::NodeCertificateStatusRequest { node_id: node_id.clone() };
    let certificate = client.node_certificate_status(request).await?.into_inner().certificate.unwrap();
    assert_eq!(certificate.csr, csr);
    Ok((node_id, certificate.certificate))
}

/// A channel of somebody who has the root and nothing else.
async fn strangers_channel(scene: &Scene, addr: &str) -> Channel {
    let roots = scene.worker.credentials.current().roots.as_ref().clone();
    identity::connect(addr, ServerRole::Ca, &Credentials::new(roots, None)).await.unwrap()
}

/// The same from another of this machine's addresses.
async fn strangers_channel_from(scene: &Scene, source: [u8; 4], addr: &str) -> Channel {
    let roots = scene.worker.credentials.current().roots.as_ref().clone();
    let addr: SocketAddr = addr.parse().unwrap();
    let dial = tower::service_fn(move |_: http::Uri| {
        let nobody = Credentials::new(roots.clone(), None);
        async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((source, 0)))?;
            identity::tls_connect(socket.connect(addr).await?, ServerRole::Ca, &nobody).await.map(TokioIo::new)
        }
    });
    tonic::transport::Endpoint::from_static("http://manager").connect_with_connector(dial).await.unwrap()
}

fn forged<T>(scene: &Scene, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let cluster = scene.leader.manager.shared().view().the_cluster().unwrap().id.clone();
    let metadata = request.metadata_mut();
    metadata.insert("forwarded_cert", "true".parse().unwrap());
    metadata.insert("forwarded_cert_cn", scene.leader.member.node_id.as_str().parse().unwrap());
    metadata.insert("forwarded_cert_org", cluster.as_str().parse().unwrap());
    metadata.append("forwarded_cert_ou", "swarm-manager".parse().unwrap());
    metadata.insert("remote_addr", "127.0.0.1:1".parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_cannot_choose_its_role_or_name() {
    let scene = scene().await;
    let victim = scene.leader.member.node_id.clone();
    let (worker_token, manager_token) = scene.leader.tokens();
    let roots = scene.worker.credentials.current().roots.clone();
    for addr in scene.addresses() {
        let (key, csr) = greedy_request(&victim);
        // With its own certificate: a renewal, as what the node is, whatever token it shows.
        for token in ["", &worker_token, &manager_token] {
            let (node_id, chain) = issue(&scene.worker.channel(addr).await, token, &csr).await.unwrap();
            let got = NodeCredential::load(&chain, &key, &roots, system_now(), Expiry::Refuse).unwrap();
            let got = got.identity();
            assert_eq!((node_id.as_str(), got.role), (scene.worker.node_id.as_str(), NodeRole::Worker));
            assert_eq!(got.node_id, scene.worker.node_id);
        }
        // Without one: a new node, as what the token says.
        let stranger = strangers_channel(&scene, addr).await;
        let (node_id, chain) = issue(&stranger, &worker_token, &csr).await.unwrap();
        let got = NodeCredential::load(&chain, &key, &roots, system_now(), Expiry::Refuse).unwrap();
        assert_eq!((got.identity().role, got.identity().node_id.as_str()), (NodeRole::Worker, node_id.as_str()));
        assert_ne!(got.identity().node_id, victim);
        // A token that is nearly right is wrong.
        let mut nearly = manager_token.clone();
        nearly.pop();
        for token in ["", &nearly, &format!("{manager_token} ")] {
            let refused = issue(&stranger, token, &csr).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert_eq!(refused.message(), "A valid join token is necessary to join this cluster");
        }
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_forwarding_is_refused() {
    let scene = scene().await;
    let (_, csr) = greedy_request(&scene.leader.member.node_id);
    let issue = p::IssueNodeCertificateRequest { csr, ..Default::default() };
    for addr in scene.addresses() {
        for channel in [scene.worker.channel(addr).await, strangers_channel(&scene, addr).await] {
            let refused = [
                NodeCaClient::new(channel.clone()).issue_node_certificate(forged(&scene, issue.clone())).await.err(),
                CaClient::new(channel.clone()).get_unlock_key(forged(&scene, p::GetUnlockKeyRequest {})).await.err(),
                RaftMembershipClient::new(channel.clone())
                    .join(forged(&scene, p::JoinRequest { addr: "127.0.0.1:1".to_owned() }))
                    .await
                    .err(),
                RaftClient::new(channel.clone())
                    .resolve_address(forged(&scene, p::ResolveAddressRequest { raft_id: 1 }))
                    .await
                    .err(),
                ControlClient::new(channel.clone())
                    .update_node(forged(&scene, p::UpdateNodeRequest::default()))
                    .await
                    .err(),
            ];
            for (at, refused) in refused.into_iter().enumerate() {
                let refused = refused.unwrap_or_else(|| panic!("call {at} at {addr} went through"));
                assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
                let text = "Permission denied: unauthorized forwarder role: ";
                assert!(refused.message().starts_with(text), "{refused}");
            }
        }
    }
    // The manager's entry is untouched.
    let node = scene.leader.node(&scene.leader.member.node_id).unwrap();
    assert!(node.certificate.csr.is_empty());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_call_nothing_of_a_managers() {
    let scene = scene().await;
    for addr in scene.addresses() {
        let channel = scene.worker.channel(addr).await;
        let spec = p::NodeSpec { desired_role: MANAGER, ..Default::default() };
        let promote =
            p::UpdateNodeRequest { node_id: scene.worker.node_id.to_string(), spec: Some(spec), ..Default::default() };
        let refused = [
            CaClient::new(channel.clone()).get_unlock_key(p::GetUnlockKeyRequest {}).await.err(),
            RaftMembershipClient::new(channel.clone()).join(p::JoinRequest::default()).await.err(),
            RaftMembershipClient::new(channel.clone()).leave(p::LeaveRequest::default()).await.err(),
            HealthClient::new(channel.clone()).check(p::HealthCheckRequest::default()).await.err(),
            ControlClient::new(channel.clone()).update_node(promote).await.err(),
        ];
        for refused in refused {
            let refused = refused.unwrap();
            assert_eq!(refused.code(), Code::PermissionDenied);
            let text = "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                        Permission denied: remote certificate not part of OUs: [swarm-manager]";
            assert_eq!(refused.message(), text);
        }
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_were_issued_is_of_no_use() {
    let scene = scene().await;
    // A manager that joins: its request and its certificate can be read by anybody, its key by nobody.
    let manager = Member::join(&scene.follower.addr, &scene.leader.tokens().1).await;
    let roots = scene.worker.credentials.current().roots.clone();
    for addr in scene.addresses() {
        let mut client = NodeCaClient::new(scene.worker.channel(addr).await);
        let request = p::NodeCertificateStatusRequest { node_id: manager.node_id.to_string() };
        let status = client.node_certificate_status(request).await.unwrap().into_inner();
        let certificate = status.certificate.unwrap();
        let own = NodeKey::generate();
        let stolen = NodeCredential::load(&certificate.certificate, &own, &roots, system_now(), Expiry::Refuse);
        assert!(stolen.is_err(), "a certificate without its key");
        // Its request sent again is a request for the sender.
        let (node_id, chain) = issue(&scene.worker.channel(addr).await, "", &certificate.csr).await.unwrap();
        assert_eq!(node_id, scene.worker.node_id.as_str());
        let named = identity::PeerIdentity::from_pem(&chain).unwrap();
        assert_eq!((named.node_id, named.role), (scene.worker.node_id.clone(), NodeRole::Worker));
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_managers_certificate_opens_nothing_any_more() {
    let scene = scene().await;
    let peer = Peer::join(&scene.leader, "28.5.2+skep.test").await;
    let former = &peer.member;
    assert_eq!(former.role(), NodeRole::Manager);
    leader(&[&scene.leader, &scene.follower, &peer]).await.set_role(&former.node_id, NodeRole::Worker).await;
    until("the demotion", async || scene.leader.node(&former.node_id).filter(|node| node.role == NodeRole::Worker))
        .await;
    for addr in scene.addresses() {
        let channel = former.channel(addr).await;
        let key = CaClient::new(channel.clone()).get_unlock_key(p::GetUnlockKeyRequest {}).await;
        assert_eq!(key.unwrap_err().code(), Code::PermissionDenied);
        let join = p::JoinRequest { addr: "127.0.0.1:1".to_owned() };
        let join = RaftMembershipClient::new(channel.clone()).join(join).await;
        assert_eq!(join.unwrap_err().code(), Code::PermissionDenied);
        // It forwards for nobody.
        let forwarded = NodeCaClient::new(channel).issue_node_certificate(forged(&scene, Default::default())).await;
        assert!(forwarded.is_err());
    }
    let remotes = RemoteList::new(vec![scene.follower.addr.clone()]);
    let renew = identity::CertificateRequest::Renew { credentials: &former.credentials };
    let granted = identity::request_certificate(&remotes, renew).await.unwrap();
    assert_eq!(granted.credential.identity().role, NodeRole::Worker);
    peer.kill().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_once() {
    let scene = scene().await;
    let channel = scene.leader.member.channel(&scene.follower.addr).await;
    for keys in [&["redirect"][..], &["forwarded_cert", "forwarded_cert_cn", "forwarded_cert_org"]] {
        let mut request = Request::new(p::GetRootCaCertificateRequest {});
        for key in keys {
            let value = if *key == "forwarded_cert" { "true" } else { "" };
            request.metadata_mut().insert(*key, value.parse().unwrap());
        }
        let refused = CaClient::new(channel.clone()).get_root_ca_certificate(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().starts_with("more than one redirect to leader from: ["), "{refused}");
    }
    // Of a worker the key is not believed.
    let mut request = Request::new(p::GetRootCaCertificateRequest {});
    request.metadata_mut().insert("redirect", "10.0.0.1:1".parse().unwrap());
    let mut client = CaClient::new(scene.worker.channel(&scene.follower.addr).await);
    client.get_root_ca_certificate(request).await.unwrap();
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_refused() {
    let scene = scene().await;
    let control = leader(&[&scene.leader, &scene.follower]).await.manager.control().clone();
    control.remove_node(&scene.worker.node_id, manager::RemoveKind::Force).await.unwrap();
    until("the removal on the follower", async || scene.follower.node(&scene.worker.node_id).is_none().then_some(()))
        .await;
    for addr in scene.addresses() {
        let refused = scene.worker.session(addr, "28.5.2+skep.test").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let text = format!("node {} was removed from swarm", scene.worker.node_id);
        assert!(refused.message().ends_with(&text), "{refused}");
        // Its certificate renews nothing: without a token it is a stranger.
        let (_, csr) = greedy_request(&scene.worker.node_id);
        let refused = issue(&scene.worker.channel(addr).await, "", &csr).await.unwrap_err();
        assert_eq!(refused.message(), "A valid join token is necessary to join this cluster");
    }
    scene.end().await;
}

/// A call of a stranger whose message never ends.
fn endless() -> http::Request<Body> {
    let body = http_body_util::StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Status>>());
    http::Request::post("/docker.swarmkit.v1.NodeCA/IssueNodeCertificate")
        .header("content-type", "application/grpc")
        .body(Body::new(body))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_use_up_a_managers_memory() {
    let scene = scene().await;
    for addr in scene.addresses() {
        let channel = strangers_channel(&scene, addr).await;
        let refused = issue(&channel, "SWMTKN-1-x-y", &[b'a'; 200 << 10]).await.unwrap_err();
        // Not even read: the service itself would say InvalidArgument.
        assert_ne!(refused.code(), Code::InvalidArgument, "{refused}");
        // Connections of their own: a refused call may take its connection with it.
        let (crowd, channel) = (strangers_channel(&scene, addr).await, strangers_channel(&scene, addr).await);
        let mut calls = JoinSet::new();
        for _ in 0..1024 {
            let crowd = crowd.clone();
            // Again when it is refused: the question below may have had the last place just then.
            calls.spawn(async move { while crowd.clone().oneshot(endless()).await.is_ok() {} });
        }
        let ask =
            async || CaClient::new(channel.clone()).get_root_ca_certificate(p::GetRootCaCertificateRequest {}).await;
        let full =
            async |answer: Result<_, Status>| answer.err().filter(|status| status.code() == Code::ResourceExhausted);
        until("no place left", async || full(ask().await).await).await;
        // Strangers from elsewhere do not wait for them, nor do nodes.
        let elsewhere = strangers_channel_from(&scene, [127, 0, 0, 2], addr).await;
        CaClient::new(elsewhere).get_root_ca_certificate(p::GetRootCaCertificateRequest {}).await.unwrap();
        let mut node = CaClient::new(scene.worker.channel(addr).await);
        node.get_root_ca_certificate(p::GetRootCaCertificateRequest {}).await.unwrap();
        calls.shutdown().await;
        until("places again", async || ask().await.ok()).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cannot_use_up_a_managers_memory() {
    let scene = scene().await;
    for addr in scene.addresses() {
        // Messages of four MiB that lack their last byte, as many as a connection takes.
        let unfinished = || {
            let length = (4_u32 << 20) - 1;
            let start = [&[0][..], &length.to_be_bytes(), &vec![0; length as usize - 1]].concat();
            let start = futures::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from(start)))]);
            let body = http_body_util::StreamBody::new(start.chain(futures::stream::pending()));
            http::Request::post("/docker.swarmkit.v1.Dispatcher/UpdateTaskStatus")
                .header("content-type", "application/grpc")
                .body(Body::new(body))
                .unwrap()
        };
        let crowd = scene.worker.channel(addr).await;
        let mut calls: JoinSet<_> = (0..16).map(|_| crowd.clone().oneshot(unfinished())).collect();
        let refused = calls.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(Status::from_header_map(refused.headers()).unwrap().code(), Code::ResourceExhausted);
        // It holds up nobody else.
        let other = Member::join(&scene.leader.addr, &scene.leader.tokens().0).await;
        drop(other.session(addr, "28.5.2+skep.test").await.unwrap());
        calls.shutdown().await;
        // And gets on itself when it has stopped.
        until("its allowance back", async || scene.worker.session(addr, "28.5.2+skep.test").await.ok()).await;
    }
    scene.end().await;
}
