//! Logs of tasks, from the log broker.

use api::swarm_backend::{
    GrpcCode, LogMessage, LogOptions, LogSelector, LogStream, STREAM_QUEUE_LIMIT, SwarmError, SwarmResult,
};
use manager::Manager;
use model::Timestamp;
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::swarmkit as p;
use tokio::sync::mpsc;

use super::convert::from_control;

/// Subscribes and turns the broker's messages into lines.
pub(super) async fn subscribe(
    manager: &Manager,
    selector: LogSelector,
    options: LogOptions,
) -> SwarmResult<mpsc::Receiver<SwarmResult<LogMessage>>> {
    let selector = p::LogSelector {
        service_ids: selector.service_ids.iter().map(ToString::to_string).collect(),
        node_ids: selector.node_ids.iter().map(ToString::to_string).collect(),
        task_ids: selector.task_ids.iter().map(ToString::to_string).collect(),
    };
    let mut messages =
        manager.log_broker().subscribe(selector, encode_options(&options)).await.map_err(from_control)?;
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE_LIMIT);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                // `recv` is cancel-safe.
                next = messages.recv() => next,
                // The subscription ends with its receiver.
                () = sender.closed() => return,
            };
            let item = match next {
                None => return,
                Some(Ok(message)) => Ok(decode(message)),
                Some(Err(missing)) => Err(SwarmError::grpc(GrpcCode::Unknown, missing)),
            };
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn encode_options(options: &LogOptions) -> p::LogSubscriptionOptions {
    let mut streams = Vec::new();
    if options.stdout {
        streams.push(p::LogStream::Stdout as i32);
    }
    if options.stderr {
        streams.push(p::LogStream::Stderr as i32);
    }
    // SwarmKit: -n-1 asks for the last n lines, 0 for all.
    let tail = options.tail.map_or(0, |lines| -i64::try_from(lines).unwrap_or(i64::MAX - 1) - 1);
    p::LogSubscriptionOptions {
        streams,
        follow: options.follow,
        tail,
        since: options.since.map(|since| since.to_proto()),
    }
}

fn decode(message: p::LogMessage) -> LogMessage {
    let context = message.context.unwrap_or_default();
    LogMessage {
        service_id: context.service_id.into(),
        node_id: context.node_id.into(),
        task_id: context.task_id.into(),
        timestamp: message.timestamp.and_then(|at| Timestamp::from_proto(at).ok()),
        stream: if message.stream == p::LogStream::Stderr as i32 { LogStream::Stderr } else { LogStream::Stdout },
        data: message.data,
        attrs: message.attrs.into_iter().map(|attr| (attr.key, attr.value)).collect(),
    }
}
