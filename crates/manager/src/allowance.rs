//! What nodes that are no managers may have under way on a manager, however many connections they open: a worker is one
//! machine, and a broken or hostile one must not use up the memory that all others need.
//!
//! A worker needs a session, its assignments, the subscriptions to its logs, a heartbeat and a report now and then; beside
//! them a stream for each subscription to its logs, and a call for each container that waits for an attachable network.
//! Messages of megabytes are none of that: its largest are reports of statuses, a hundred at a time. Managers have no
//! bound here: they forward what other nodes call, each of which has its own at the leader, too.
//!
//! Counted is, for each call until its answer is out, the largest message that it brought so far: that is what the
//! connection, the decoder and the service hold at a time.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use model::NodeId;
use tonic::Status;
use tonic::body::Body;

/// Calls of one node at a time, streams included.
const MAX_CALLS: usize = 1024;
/// Bytes of one node's requests at a time: a few of SwarmKit's largest messages, and far more than a worker sends.
const MAX_BYTES: usize = 16 << 20;
/// What opens a message in a gRPC stream: a flag and its length.
const PREFIX_BYTES: usize = 5;

/// What each node has under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowances(Arc<Mutex<BTreeMap<NodeId, UnderWay>>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnderWay {
    calls: usize,
    bytes: usize,
}

/// One call of a node's, counted until the last of request, answer and this is gone.
#[derive(Debug)]
pub(crate) struct Call {
    allowances: Allowances,
    node: NodeId,
    /// What is counted for it.
    bytes: Mutex<usize>,
}

impl Allowances {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, UnderWay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a node begin a call, if it has not too many.
    pub(crate) fn begin(&self, node: &NodeId) -> Result<Arc<Call>, Status> {
        let mut nodes = self.lock();
        let under_way = nodes.entry(node.clone()).or_default();
        if under_way.calls >= MAX_CALLS {
            return Err(Status::resource_exhausted(format!("node {node} has {MAX_CALLS} calls under way")));
        }
        under_way.calls += 1;
        Ok(Arc::new(Call { allowances: self.clone(), node: node.clone(), bytes: Mutex::new(0) }))
    }
}

impl Call {
    /// Counts a message that has got this large.
    fn hold(&self, bytes: usize) -> Result<(), Status> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let more = bytes.saturating_sub(*held);
        if more == 0 {
            return Ok(());
        }
        let mut nodes = self.allowances.lock();
        let under_way = nodes.entry(self.node.clone()).or_default();
        if under_way.bytes + more > MAX_BYTES {
            let text = format!("requests of node {} take more than {MAX_BYTES} bytes", self.node);
            return Err(Status::resource_exhausted(text));
        }
        under_way.bytes += more;
        *held = bytes;
        Ok(())
    }

    /// The request's body, counted as it comes in.
    pub(crate) fn counted(self: &Arc<Self>, body: Body) -> Body {
        Body::new(Counted { body, call: self.clone(), message: Message::default() })
    }

    /// The answer, with which the call ends.
    pub(crate) fn answered(self: Arc<Self>, answer: Response<Body>) -> Response<Body> {
        answer.map(|body| Body::new(Answer { body, _call: self }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let held = *self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = self.allowances.lock();
        let Some(under_way) = nodes.get_mut(&self.node) else { return };
        under_way.calls -= 1;
        under_way.bytes -= held;
        if under_way.calls == 0 {
            nodes.remove(&self.node);
        }
    }
}

/// Where in a gRPC message a body stands.
#[derive(Debug, Default)]
struct Message {
    /// What is there of its prefix.
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// How much of it is to come, and how much there is.
    left: usize,
    bytes: usize,
}

impl Message {
    /// Goes on by some bytes, and says how large the largest message in them has got.
    fn advance(&mut self, mut data: &[u8]) -> usize {
        let mut largest = 0;
        while !data.is_empty() {
            if self.left == 0 && self.prefix_bytes == PREFIX_BYTES {
                *self = Self::default();
            }
            let taken = if self.prefix_bytes < PREFIX_BYTES {
                let taken = data.len().min(PREFIX_BYTES - self.prefix_bytes);
                self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&data[..taken]);
                self.prefix_bytes += taken;
                if let [_, length @ ..] = self.prefix
                    && self.prefix_bytes == PREFIX_BYTES
                {
                    self.left = u32::from_be_bytes(length) as usize;
                }
                taken
            } else {
                let taken = data.len().min(self.left);
                self.left -= taken;
                taken
            };
            self.bytes += taken;
            largest = largest.max(self.bytes);
            data = &data[taken..];
        }
        largest
    }
}

struct Counted {
    body: Body,
    call: Arc<Call>,
    message: Message,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.call.hold(this.message.advance(data))?;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Answer {
    body: Body,
    _call: Arc<Call>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend((bytes as u32).to_be_bytes());
        message.resize(PREFIX_BYTES + bytes, 7);
        message
    }

    fn body(data: Vec<u8>) -> Body {
        Body::new(Full::new(Bytes::from(data)))
    }

    #[test]
    fn the_largest_message_counts_however_it_is_cut() {
        let stream = [message(0), message(10), message(300), message(20)].concat();
        for chunk in [1, 2, 5, 7, 64, stream.len()] {
            let mut at = Message::default();
            let largest = stream.chunks(chunk).map(|data| at.advance(data)).max().unwrap();
            assert_eq!(largest, PREFIX_BYTES + 300, "in pieces of {chunk}");
            assert_eq!((at.left, at.bytes), (0, PREFIX_BYTES + 20));
        }
    }

    #[tokio::test]
    async fn a_node_has_so_many_bytes_under_way_and_others_have_theirs() {
        let allowances = Allowances::default();
        let large = MAX_BYTES / 2 - PREFIX_BYTES;
        let (one, two) = (allowances.begin(&"w1".into()).unwrap(), allowances.begin(&"w1".into()).unwrap());
        for call in [&one, &two] {
            // What has been used up does not add up.
            let stream = [message(large), message(1), message(large)].concat();
            call.counted(body(stream)).collect().await.unwrap();
        }
        let three = allowances.begin(&"w1".into()).unwrap();
        let refused = three.counted(body(message(1))).collect().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let other = allowances.begin(&"w2".into()).unwrap();
        other.counted(body(message(large))).collect().await.unwrap();
        // A call counts until its answer has been sent.
        let answer = one.answered(Response::new(body(vec![1])));
        assert!(three.counted(body(message(1))).collect().await.is_err());
        answer.into_body().collect().await.unwrap();
        three.counted(body(message(1))).collect().await.unwrap();
        drop((two, three, other));
        assert!(allowances.lock().is_empty());
    }

    #[test]
    fn a_node_has_so_many_calls_under_way() {
        let allowances = Allowances::default();
        let calls: Vec<_> = (0..MAX_CALLS).map(|_| allowances.begin(&"w1".into()).unwrap()).collect();
        assert_eq!(allowances.begin(&"w1".into()).unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert!(allowances.begin(&"w2".into()).is_ok());
        drop(calls);
        assert!(allowances.begin(&"w1".into()).is_ok());
    }
}
