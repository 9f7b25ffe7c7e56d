//! What an open session sends by itself: heartbeats, statuses, and the notice of a node that leaves. Each loop ends with
//! the reason why the session is over.

use std::time::Duration;

use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::reporter::{Batch, Reporter};

/// How long opening a session, a heartbeat and the leave notice may take.
pub(crate) const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest pause between heartbeats, whatever the manager says.
const MIN_PERIOD: Duration = Duration::from_millis(10);
/// Metadata of the last heartbeat of a node that leaves in order. Managers that do not know it take it as a heartbeat.
const LEAVE_KEY: &str = "skep-leave";
/// The same of one whose join came to nothing, beside [`LEAVE_KEY`].
const WITHDRAW_KEY: &str = "skep-withdraw";

type Client = p::dispatcher_client::DispatcherClient<Channel>;

pub(crate) async fn heartbeat(channel: Channel, session_id: String, broken: mpsc::Sender<Status>) {
    let mut client = Client::new(channel);
    let status = loop {
        let beat = client.heartbeat(p::HeartbeatRequest { session_id: session_id.clone() });
        let period = match tokio::time::timeout(RPC_TIMEOUT, beat).await {
            Ok(Ok(response)) => response.into_inner().period.unwrap_or_default(),
            Ok(Err(status)) => break status,
            Err(_) => break Status::deadline_exceeded("heartbeat not answered"),
        };
        let nanos = period.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(period.nanos));
        let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).max(MIN_PERIOD);
        tokio::time::sleep(pause).await;
    };
    if broken.send(status).await.is_err() {
        tracing::debug!("the session was gone before its heartbeat");
    }
}

/// Why a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It leaves the swarm.
    Leave,
    /// It was to be a manager and could not become one: it has never been there.
    Withdraw,
}

/// Tells the manager that this node's tasks are stopped and that it will not come back.
pub(crate) async fn leave_notice(channel: Channel, session_id: String, farewell: Farewell) -> Result<(), Status> {
    let mut request = Request::new(p::HeartbeatRequest { session_id });
    request.metadata_mut().insert(LEAVE_KEY, MetadataValue::from_static("1"));
    if farewell == Farewell::Withdraw {
        request.metadata_mut().insert(WITHDRAW_KEY, MetadataValue::from_static("1"));
    }
    let mut client = Client::new(channel);
    let timed_out = |_| Status::deadline_exceeded("the leave notice was not answered");
    tokio::time::timeout(RPC_TIMEOUT, client.heartbeat(request)).await.map_err(timed_out)??;
    Ok(())
}

pub(crate) async fn send_statuses(
    channel: Channel,
    session_id: String,
    reporter: Reporter,
    broken: mpsc::Sender<Status>,
) {
    let mut client = Client::new(channel);
    let status = loop {
        let batch = reporter.next_batch().await;
        let sent = match send(&mut client, &session_id, &batch).await {
            // A manager refuses a whole call for one task that is no longer this node's.
            Err(status) if status.code() == Code::PermissionDenied => {
                send_singly(&mut client, &session_id, &reporter, &batch).await
            }
            sent => sent,
        };
        match sent {
            Ok(()) => reporter.taken(&batch),
            // A manager that does not know this node's session hears every status again in the next one.
            Err(status) => break status,
        }
    };
    if broken.send(status).await.is_err() {
        tracing::debug!("the session was gone before its statuses");
    }
}

/// Sends the statuses of a refused batch one by one. A task that is refused alone is not heard of again in this session.
async fn send_singly(client: &mut Client, session_id: &str, reporter: &Reporter, batch: &Batch) -> Result<(), Status> {
    for one in batch.singles() {
        match send(client, session_id, &one).await {
            Ok(()) => {}
            Err(status) if status.code() == Code::PermissionDenied => {
                let task = one.statuses.first().map(|(id, _)| id.as_str());
                tracing::warn!(task, %status, "the status of a task was refused");
            }
            Err(status) => return Err(status),
        }
        reporter.taken(&one);
    }
    Ok(())
}

async fn send(client: &mut Client, session_id: &str, batch: &Batch) -> Result<(), Status> {
    let updates = batch.statuses.iter().map(|(id, status)| p::UpdateTaskStatusRequestTaskStatusUpdate {
        task_id: id.to_string(),
        status: Some(status.to_proto()),
    });
    let request = p::UpdateTaskStatusRequest { session_id: session_id.to_owned(), updates: updates.collect() };
    client.update_task_status(request).await.map(drop)
}
