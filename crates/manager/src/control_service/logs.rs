//! Log subscriptions of managers that pass on what their users ask for.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::logs_server::Logs as Service;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::error::ControlError;
use crate::log_broker::LogBroker;

/// The Logs service. It answers for this manager: nothing is passed on from here.
#[derive(Clone)]
pub(crate) struct LogsService(pub(crate) Arc<LogBroker>);

#[tonic::async_trait]
impl Service for LogsService {
    type SubscribeLogsStream = Pin<Box<dyn Stream<Item = Result<p::SubscribeLogsMessage, Status>> + Send>>;

    async fn subscribe_logs(
        &self,
        request: Request<p::SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeLogsStream>, Status> {
        let request = request.into_inner();
        let selector = request.selector.ok_or_else(|| ControlError::invalid("log selector must be provided"))?;
        let messages = self.0.subscribe_here(selector, request.options.unwrap_or_default())?;
        let stream = ReceiverStream::new(messages).map(|item| match item {
            Ok(message) => Ok(p::SubscribeLogsMessage { messages: vec![message] }),
            Err(missing) => Err(Status::unknown(missing)),
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
