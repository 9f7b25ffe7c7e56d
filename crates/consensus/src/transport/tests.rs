//! The sending side against servers on loopback.

use swarm_proto::swarmkit::health_server::{Health, HealthServer};
use swarm_proto::swarmkit::raft_server::{Raft, RaftServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Streaming};

use super::*;
use crate::inbox::{Outbox, inbox};

struct Plain;

#[async_trait::async_trait]
impl Dial for Plain {
    async fn dial(&self, addr: &str) -> Result<Channel, DialError> {
        let failed = |error: tonic::transport::Error| DialError { addr: addr.to_owned(), source: Box::new(error) };
        Endpoint::from_shared(format!("http://{addr}")).map_err(failed)?.connect().await.map_err(failed)
    }
}

/// Notes what it gets; says that somebody was removed, knows one address, serves raft or not.
#[derive(Clone)]
struct Peer {
    received: mpsc::UnboundedSender<raftpb::Message>,
    removed: Option<u64>,
    knows: Option<(u64, String)>,
    health: p::ServingStatus,
}

#[tonic::async_trait]
impl Raft for Peer {
    async fn process_raft_message(
        &self,
        _: Request<p::ProcessRaftMessageRequest>,
    ) -> Result<Response<p::ProcessRaftMessageResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("streams only"))
    }

    async fn stream_raft_message(
        &self,
        request: Request<Streaming<p::StreamRaftMessageRequest>>,
    ) -> Result<Response<p::StreamRaftMessageResponse>, tonic::Status> {
        let mut stream = request.into_inner();
        let mut parts = SnapshotAssembler::default();
        while let Some(part) = stream.message().await? {
            parts.push(part.message.unwrap()).unwrap();
        }
        let message = parts.finish().unwrap();
        if Some(message.from) == self.removed {
            return Err(tonic::Status::not_found("raft: member was removed from the cluster"));
        }
        self.received.send(message).unwrap();
        Ok(Response::new(p::StreamRaftMessageResponse {}))
    }

    async fn resolve_address(
        &self,
        request: Request<p::ResolveAddressRequest>,
    ) -> Result<Response<p::ResolveAddressResponse>, tonic::Status> {
        match &self.knows {
            Some((id, addr)) if *id == request.into_inner().raft_id => {
                Ok(Response::new(p::ResolveAddressResponse { addr: addr.clone() }))
            }
            _ => Err(tonic::Status::not_found("member 9 not found")),
        }
    }
}

#[tonic::async_trait]
impl Health for Peer {
    async fn check(
        &self,
        request: Request<p::HealthCheckRequest>,
    ) -> Result<Response<p::HealthCheckResponse>, tonic::Status> {
        assert_eq!(request.into_inner().service, "Raft");
        Ok(Response::new(p::HealthCheckResponse { status: self.health as i32 }))
    }
}

type Received = mpsc::UnboundedReceiver<raftpb::Message>;

async fn serve(change: impl FnOnce(&mut Peer)) -> (String, Received) {
    let (received, receiver) = mpsc::unbounded_channel();
    let mut peer = Peer { received, removed: None, knows: None, health: p::ServingStatus::Serving };
    change(&mut peer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = Server::builder().add_service(RaftServer::new(peer.clone())).add_service(HealthServer::new(peer));
    // Ends with the test's runtime.
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (addr, receiver)
}

fn members(members: &[(u64, &str)]) -> BTreeMap<u64, p::RaftMember> {
    let member = |(id, addr): &(u64, &str)| {
        (*id, p::RaftMember { raft_id: *id, addr: (*addr).to_owned(), ..Default::default() })
    };
    members.iter().map(member).collect()
}

fn transport(known: &[(u64, &str)], snapshots: SnapshotSource) -> (Transport, Outbox) {
    let status = Status { raft_id: 1, members: members(known), ..Default::default() };
    let (_, status) = watch::channel(status);
    let peers = Arc::new(Peers::new(Arc::new(Plain), status));
    let (inbox, outbox) = inbox();
    let mut transport = Transport::new(peers, inbox, snapshots, tokio::runtime::Handle::current());
    transport.set_members(1, &members(known));
    (transport, outbox)
}

fn no_snapshots() -> SnapshotSource {
    Arc::new(|_| Ok(None))
}

fn heartbeat(to: u64, term: u64) -> raftpb::Message {
    raftpb::Message { kind: raftpb::MessageType::MsgHeartbeat as i32, to, from: 1, term, ..Default::default() }
}

/// The next word to the raft thread.
async fn told(outbox: &Arc<Mutex<Outbox>>) -> Command {
    let outbox = outbox.clone();
    let next = move || outbox.lock().unwrap().next(Duration::from_secs(30)).unwrap().expect("a word in time");
    tokio::task::spawn_blocking(next).await.unwrap()
}

#[tokio::test]
async fn messages_arrive_in_order_and_a_moved_member_is_followed() {
    let (first, mut at_first) = serve(|_| {}).await;
    let (second, mut at_second) = serve(|_| {}).await;
    let (mut transport, outbox) = transport(&[(2, &first)], no_snapshots());
    let outbox = Arc::new(Mutex::new(outbox));
    transport.send((1..=100).map(|term| heartbeat(2, term)).collect());
    for term in 1..=100 {
        assert_eq!(at_first.recv().await.unwrap().term, term);
    }
    assert!(matches!(told(&outbox).await, Command::Reached { raft_id: 2, .. }));
    transport.set_members(1, &members(&[(2, &second)]));
    transport.send(vec![heartbeat(2, 101)]);
    assert_eq!(at_second.recv().await.unwrap().term, 101);
}

#[tokio::test]
async fn a_member_that_is_not_there_is_reported_and_one_that_was_removed_learns_it() {
    let (addr, _received) = serve(|peer| peer.removed = Some(1)).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let (mut transport, outbox) = transport(&[(2, &gone), (3, &addr)], no_snapshots());
    let outbox = Arc::new(Mutex::new(outbox));
    transport.send(vec![heartbeat(2, 1)]);
    assert!(matches!(told(&outbox).await, Command::Unreachable { raft_id: 2 }));
    transport.send(vec![heartbeat(3, 1)]);
    assert!(matches!(told(&outbox).await, Command::RemovedByPeer));
}

#[tokio::test]
async fn a_full_queue_drops_and_says_so() {
    let (addr, _received) = serve(|_| {}).await;
    let (mut transport, outbox) = transport(&[(2, &addr)], no_snapshots());
    // On one thread nothing is sent before this returns.
    transport.send((0..=QUEUE as u64).map(|term| heartbeat(2, term + 1)).collect());
    assert!(matches!(outbox.try_next(), Some(Command::Unreachable { raft_id: 2 })));
    assert!(outbox.try_next().is_none());
}

#[tokio::test]
async fn snapshots_are_read_sent_in_parts_and_reported() {
    let (addr, mut received) = serve(|_| {}).await;
    let data = vec![7; 9 << 20];
    let stored = raftpb::Snapshot { data: data.clone(), ..Default::default() };
    let source: SnapshotSource = Arc::new(move |index| Ok((index == 5).then(|| stored.clone())));
    let (mut transport, outbox) = transport(&[(2, &addr)], source);
    let outbox = Arc::new(Mutex::new(outbox));
    let snapshot = |index| {
        let metadata = raftpb::SnapshotMetadata { index, term: 1, ..Default::default() };
        let snapshot = Some(raftpb::Snapshot { data: Vec::new(), metadata: Some(metadata) });
        raftpb::Message { kind: raftpb::MessageType::MsgSnap as i32, snapshot, ..heartbeat(2, 1) }
    };
    transport.send(vec![snapshot(5)]);
    let message = received.recv().await.unwrap().snapshot.unwrap();
    assert!(message.data == data && message.metadata.unwrap().index == 5);
    assert!(matches!(told(&outbox).await, Command::SnapshotSent { raft_id: 2, delivery: Delivery::Done }));
    // Another one took its place.
    transport.send(vec![snapshot(4)]);
    assert!(matches!(told(&outbox).await, Command::Unreachable { raft_id: 2 }));
    assert!(matches!(told(&outbox).await, Command::SnapshotSent { raft_id: 2, delivery: Delivery::Failed }));
}

#[tokio::test]
async fn an_unknown_member_is_found_through_others() {
    let (unknown, mut received) = serve(|_| {}).await;
    let (known, _at_known) = serve(|peer| peer.knows = Some((9, unknown.clone()))).await;
    let (mut transport, _outbox) = transport(&[(1, "here:1"), (2, &known)], no_snapshots());
    transport.send(vec![heartbeat(9, 3)]);
    assert_eq!(received.recv().await.unwrap().term, 3);
    let error = transport.peers.send_stray(heartbeat(8, 3)).await.unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
}

#[tokio::test]
async fn a_candidate_must_serve_raft_where_it_says() {
    let (serving, _first) = serve(|_| {}).await;
    let (not_serving, _second) = serve(|peer| peer.health = p::ServingStatus::NotServing).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let (transport, _outbox) = transport(&[], no_snapshots());
    for (addr, expected) in [(serving, true), (not_serving, false), (gone, false)] {
        assert_eq!(transport.peers.is_healthy(2, &addr).await, expected);
    }
}
