//! The service over gRPC on loopback, in front of a raft that answers as it is told.

use std::sync::Mutex;

use swarm_proto::swarmkit::raft_client::RaftClient;
use swarm_proto::swarmkit::raft_server::RaftServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::{Channel, Server};

use super::*;

#[derive(Default)]
struct Fake {
    answers: Mutex<Vec<ReceiveError>>,
    received: Mutex<Vec<raftpb::Message>>,
}

#[tonic::async_trait]
impl RaftPort for Fake {
    async fn receive(&self, message: raftpb::Message) -> Result<(), ReceiveError> {
        self.received.lock().unwrap().push(message);
        self.answers.lock().unwrap().pop().map_or(Ok(()), Err)
    }

    fn resolve_address(&self, raft_id: u64) -> Option<String> {
        (raft_id == 7).then(|| "m7:2377".to_owned())
    }
}

async fn serve(
    fake: Arc<Fake>,
    authorize: impl Fn(&Extensions) -> Result<(), Status> + Send + Sync + 'static,
) -> RaftClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::builder().add_service(RaftServer::new(RaftService::new(fake, authorize)));
    // Ends with the test's runtime.
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    RaftClient::connect(format!("http://{addr}")).await.unwrap()
}

fn streamed(message: raftpb::Message) -> p::StreamRaftMessageRequest {
    p::StreamRaftMessageRequest { message: Some(message) }
}

#[tokio::test]
async fn answers_are_those_of_swarmkit() {
    let fake = Arc::new(Fake::default());
    let mut client = serve(fake.clone(), |_| Ok(())).await;
    let cases = [
        (ReceiveError::Step(StepError::SenderRemoved), Code::NotFound, "raft: member was removed from the cluster"),
        (ReceiveError::Stopped, Code::Unavailable, "raft: failed to process the request: node is stopped"),
        (ReceiveError::Busy, Code::ResourceExhausted, "raft's queue is full"),
        (ReceiveError::Step(StepError::NotForUs(3)), Code::Ok, ""),
        (ReceiveError::Step(StepError::KindNotTaken(2)), Code::Ok, ""),
        (ReceiveError::Step(StepError::UnknownCandidate(3)), Code::Ok, ""),
        (ReceiveError::CandidateUnreachable(3), Code::Ok, ""),
    ];
    for (answer, code, text) in cases {
        fake.answers.lock().unwrap().push(answer);
        let request = tokio_stream::once(streamed(raftpb::Message::default()));
        match client.stream_raft_message(request).await {
            Ok(_) => assert_eq!(code, Code::Ok),
            Err(status) => assert_eq!((status.code(), status.message()), (code, text)),
        }
    }
    let resolved = client.resolve_address(p::ResolveAddressRequest { raft_id: 7 }).await.unwrap();
    assert_eq!(resolved.into_inner().addr, "m7:2377");
    let status = client.resolve_address(p::ResolveAddressRequest { raft_id: 0xab }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "member ab not found"));
    client.process_raft_message(p::ProcessRaftMessageRequest { message: None }).await.unwrap();
    assert_eq!(fake.received.lock().unwrap().len(), 7);
}

#[tokio::test]
async fn parts_make_one_message_and_others_are_refused() {
    let fake = Arc::new(Fake::default());
    let mut client = serve(fake.clone(), |_| Ok(())).await;
    let part = |data: &[u8]| raftpb::Message {
        kind: raftpb::MessageType::MsgSnap as i32,
        snapshot: Some(raftpb::Snapshot { data: data.to_vec(), ..Default::default() }),
        ..Default::default()
    };
    let parts = [b"ab", b"cd"].map(|data| streamed(part(data)));
    client.stream_raft_message(tokio_stream::iter(parts)).await.unwrap();
    assert_eq!(fake.received.lock().unwrap().pop(), Some(part(b"abcd")));
    let check = |message: &str, status: Status| assert!(status.message().contains(message), "{status:?}");
    let other = raftpb::Message { index: 4, ..part(b"x") };
    let parts = tokio_stream::iter([streamed(part(b"a")), streamed(other)]);
    check("chunk with index 4 is different", client.stream_raft_message(parts).await.unwrap_err());
    let parts = tokio_stream::iter(vec![streamed(raftpb::Message::default()); 2]);
    check("chunk is not of type 7", client.stream_raft_message(parts).await.unwrap_err());
    let none = tokio_stream::iter(Vec::<p::StreamRaftMessageRequest>::new());
    check("empty raft message", client.stream_raft_message(none).await.unwrap_err());
    assert!(fake.received.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_method_serves_others_than_managers() {
    let fake = Arc::new(Fake::default());
    let mut client = serve(fake.clone(), |_| Err(Status::permission_denied("not a manager"))).await;
    let request = p::ProcessRaftMessageRequest { message: Some(raftpb::Message::default()) };
    let process = client.process_raft_message(request).await.map(drop);
    let stream = client.stream_raft_message(tokio_stream::once(streamed(raftpb::Message::default()))).await.map(drop);
    let resolve = client.resolve_address(p::ResolveAddressRequest { raft_id: 7 }).await.map(drop);
    for answer in [process, stream, resolve] {
        assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
    }
    assert!(fake.received.lock().unwrap().is_empty());
}
