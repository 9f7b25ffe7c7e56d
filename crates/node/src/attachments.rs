//! Places on the swarm's networks for containers that are no tasks: asked of a manager, and given back (SwarmKit's resource
//! allocator). The place itself comes as an assignment, like a task's.

use std::sync::Arc;
use std::time::Duration;

use model::TaskId;
use swarm_proto::swarmkit as p;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::broker::Broker;
use crate::node::{Shown, SwarmNode};

/// First pause before a manager is asked again that could not be reached, or that has no leader; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

type Client = p::resource_allocator_client::ResourceAllocatorClient<Channel>;

/// Why there is no place.
#[derive(Debug, thiserror::Error)]
pub enum AttachmentError {
    /// This node is in no swarm, or could not start in it.
    #[error("this node is in no swarm")]
    NotInSwarm,
    /// A manager's refusal.
    #[error(transparent)]
    Refused(#[from] Box<Status>),
}

impl SwarmNode {
    /// Asks for a place on a network, by its name or id, for a container; returns the task that stands for it. Goes on until a
    /// manager has answered: the caller sets the time.
    pub async fn attach_network(
        &self,
        container_id: &str,
        network: &str,
        addresses: Vec<String>,
    ) -> Result<TaskId, AttachmentError> {
        let target = network.to_owned();
        let config = p::NetworkAttachmentConfig { target, addresses, ..p::NetworkAttachmentConfig::default() };
        let request = p::AttachNetworkRequest { config: Some(config), container_id: container_id.to_owned() };
        let mut pause = FIRST_PAUSE;
        loop {
            let client = connect(&*self.broker()?).await;
            let answer = match client {
                Ok(mut client) => client.attach_network(request.clone()).await,
                Err(status) => Err(status),
            };
            match answer {
                Ok(answer) => return Ok(answer.into_inner().attachment_id.into()),
                Err(status) if status.code() == Code::Unavailable => {
                    tracing::debug!(%status, "no manager answers about a network");
                }
                Err(status) => return Err(Box::new(status).into()),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Gives a place back, and does not try twice. `Ok` if the managers do not know of it.
    pub async fn detach_network(&self, attachment: &TaskId) -> Result<(), AttachmentError> {
        let mut client = connect(&*self.broker()?).await.map_err(Box::new)?;
        match client.detach_network(p::DetachNetworkRequest { attachment_id: attachment.to_string() }).await {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            answer => answer.map(drop).map_err(|status| Box::new(status).into()),
        }
    }

    fn broker(&self) -> Result<Arc<Broker>, AttachmentError> {
        match self.0.shown() {
            Shown::In(life, _) => Ok(life.broker.clone()),
            _ => Err(AttachmentError::NotInSwarm),
        }
    }
}

async fn connect(broker: &Broker) -> Result<Client, Status> {
    let connection = broker.open().await.map_err(|error| Status::unavailable(crate::error::chain(&error)))?;
    Ok(Client::new(connection.channel))
}
