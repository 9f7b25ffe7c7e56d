//! The nodes' side of the log broker: who listens for subscriptions, and what is published.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::log_broker_server::LogBroker as Service;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{ListenerId, LogBroker};
use crate::caller::Caller;

/// The log broker as a gRPC service.
#[derive(Clone)]
pub struct LogBrokerService(pub Arc<LogBroker>);

/// What a node listens to; that it listens no more is known when this is dropped.
struct Listening {
    broker: Arc<LogBroker>,
    id: ListenerId,
    messages: mpsc::Receiver<Result<p::SubscriptionMessage, Status>>,
}

impl Stream for Listening {
    type Item = Result<p::SubscriptionMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.broker.hung_up(&self.id);
    }
}

#[tonic::async_trait]
impl Service for LogBrokerService {
    type ListenSubscriptionsStream = Pin<Box<dyn Stream<Item = Result<p::SubscriptionMessage, Status>> + Send>>;

    async fn listen_subscriptions(
        &self,
        request: Request<p::ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        let caller = Caller::of(&request)?;
        let (id, messages) = self.0.listen(&caller.node_id)?;
        Ok(Response::new(Box::pin(Listening { broker: self.0.clone(), id, messages })))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<p::PublishLogsMessage>>,
    ) -> Result<Response<p::PublishLogsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut stream = request.into_inner();
        let mut current: Option<String> = None;
        let mut problem = Some(super::disconnected(&caller.node_id));
        let result = loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            };
            if message.subscription_id.is_empty() {
                break Err(Status::invalid_argument("missing subscription ID"));
            }
            if current.get_or_insert_with(|| message.subscription_id.clone()) != &message.subscription_id {
                break Err(Status::invalid_argument("different subscription IDs in one session"));
            }
            if message.close {
                problem = None;
                break Ok(());
            }
            if let Err(status) = self.deliver(&caller, message).await {
                break Err(status);
            }
        };
        if let Some(id) = current {
            self.0.node_done(&id, &caller.node_id, problem);
        }
        result.map(|()| Response::new(p::PublishLogsResponse {}))
    }
}

impl LogBrokerService {
    async fn deliver(&self, caller: &Caller, message: p::PublishLogsMessage) -> Result<(), Status> {
        let unknown = || Status::not_found("unknown subscription ID");
        let out = self.0.subscriber(&message.subscription_id).ok_or_else(unknown)?;
        let view = self.0.view();
        for log in message.messages {
            let context = log.context.clone().unwrap_or_default();
            if context.node_id != caller.node_id.as_str() {
                return Err(Status::permission_denied("log context node_id does not match the caller"));
            }
            // A node does not speak for the tasks of others.
            let task = view.task(&context.task_id.as_str().into());
            if task.is_some_and(|task| task.node_id.as_ref() != Some(&caller.node_id)) {
                return Err(Status::permission_denied("log context task_id is not a task of the caller"));
            }
            out.send(Ok(log)).await.map_err(|_| unknown())?;
        }
        Ok(())
    }
}
