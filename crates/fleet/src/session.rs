//! One agent's session with the dispatcher: it registers, beats, takes assignments, and reports at once what each task asks
//! for. Opens the same calls as the real agent, its log subscriptions too.

use std::time::Duration;

use identity::{Credentials, ServerRole};
use model::{EngineDescription, NodeDescription, Platform, PluginDescription, Resources};
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::dispatcher_client::DispatcherClient;
use swarm_proto::swarmkit::log_broker_client::LogBrokerClient;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Statuses in one call at the most, as the real agent sends them.
const MAX_BATCH: usize = 100;
/// How long a call may take, streams apart; the real agent's.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

type Client = DispatcherClient<Channel>;

/// What a node of the fleet says of itself, as Skep's daemon does.
pub(crate) fn description(hostname: String) -> NodeDescription {
    let plugins = [("Log", "json-file"), ("Network", "bridge"), ("Network", "overlay"), ("Volume", "local")];
    let plugin = |(kind, name): (&str, &str)| PluginDescription { kind: kind.to_owned(), name: name.to_owned() };
    NodeDescription {
        hostname,
        platform: Some(Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() }),
        resources: Some(Resources { nano_cpus: 64_000_000_000, memory_bytes: 1 << 38, generic: Vec::new() }),
        engine: Some(EngineDescription {
            // Managers that are all Skep's use its fast timing.
            engine_version: concat!("28.5.2+skep", env!("CARGO_PKG_VERSION")).to_owned(),
            plugins: plugins.into_iter().map(plugin).collect(),
            ..EngineDescription::default()
        }),
        ..NodeDescription::default()
    }
}

/// An open session.
pub(crate) struct Session {
    client: Client,
    session_id: String,
    messages: Streaming<p::SessionMessage>,
    assignments: Streaming<p::AssignmentsMessage>,
    logs: LogBrokerClient<Channel>,
}

impl Session {
    /// Connects and registers.
    pub(crate) async fn open(addr: &str, credentials: &Credentials, hostname: String) -> Result<Self, Status> {
        let channel = identity::connect(addr, ServerRole::Manager, credentials).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let logs = LogBrokerClient::new(channel.clone());
        let mut client = Client::new(channel).max_decoding_message_size(usize::MAX);
        let description = Some(description(hostname).to_proto());
        let request = p::SessionRequest { description, session_id: String::new() };
        let mut messages = client.session(request).await?.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::aborted("session ended at once"))?;
        let session_id = first.session_id;
        let request = p::AssignmentsRequest { session_id: session_id.clone() };
        let assignments = client.assignments(request).await?.into_inner();
        Ok(Self { client, session_id, messages, assignments, logs })
    }

    /// Serves it until it breaks; says why.
    pub(crate) async fn serve(self) -> Status {
        let Self { client, session_id, messages, assignments, logs } = self;
        tokio::select! {
            // Whichever ends, the session is over.
            over = beat(client.clone(), &session_id) => over,
            over = work(client, &session_id, assignments) => over,
            over = drain(messages) => over,
            over = subscriptions(logs) => over,
        }
    }
}

async fn beat(mut client: Client, session_id: &str) -> Status {
    loop {
        let beat = client.heartbeat(p::HeartbeatRequest { session_id: session_id.to_owned() });
        let period = match tokio::time::timeout(CALL_TIMEOUT, beat).await {
            Ok(Ok(response)) => response.into_inner().period.unwrap_or_default(),
            Ok(Err(status)) => return status,
            Err(_) => return Status::deadline_exceeded("heartbeat not answered"),
        };
        tokio::time::sleep(Duration::try_from(period).unwrap_or(Duration::from_secs(5))).await;
    }
}

async fn work(mut client: Client, session_id: &str, mut assignments: Streaming<p::AssignmentsMessage>) -> Status {
    loop {
        let message = match assignments.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Status::aborted("assignments closed by the manager"),
            Err(status) => return status,
        };
        let updates: Vec<_> = message.changes.into_iter().filter_map(done).collect();
        for batch in updates.chunks(MAX_BATCH) {
            let request = p::UpdateTaskStatusRequest { session_id: session_id.to_owned(), updates: batch.to_vec() };
            if let Err(status) = client.update_task_status(request).await {
                return status;
            }
        }
    }
}

/// The status of a task that does at once what is asked of it.
fn done(change: p::AssignmentChange) -> Option<p::UpdateTaskStatusRequestTaskStatusUpdate> {
    let Some(p::assignment::Item::Task(task)) = change.assignment.and_then(|assignment| assignment.item) else {
        return None;
    };
    if change.action == p::AssignmentAction::Remove as i32 {
        return None;
    }
    let state = task.desired_state.min(p::TaskState::Shutdown as i32);
    let container = p::ContainerStatus { container_id: "0".repeat(64), pid: 1, exit_code: 0 };
    let status = p::TaskStatus {
        state,
        message: "started".to_owned(),
        runtime_status: Some(p::task_status::RuntimeStatus::Container(container)),
        timestamp: Some(std::time::SystemTime::now().into()),
        ..p::TaskStatus::default()
    };
    Some(p::UpdateTaskStatusRequestTaskStatusUpdate { task_id: task.id, status: Some(status) })
}

/// News of managers and keys concern nobody here.
async fn drain(mut messages: Streaming<p::SessionMessage>) -> Status {
    loop {
        match messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::aborted("session closed by the manager"),
            Err(status) => return status,
        }
    }
}

/// Nobody asks for logs.
async fn subscriptions(mut logs: LogBrokerClient<Channel>) -> Status {
    let stream = match logs.listen_subscriptions(p::ListenSubscriptionsRequest {}).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    let mut stream = stream;
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::aborted("subscriptions closed by the manager"),
            Err(status) => return status,
        }
    }
}
