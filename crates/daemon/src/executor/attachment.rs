//! A task that stands for a plain container's place on a network: it makes the network, hands the place over, and gives it
//! back when the container is gone. See [`Attachments`](crate::overlay::Attachments).

use std::sync::Arc;

use agent::{Controller, ControllerError, LogLine, LogRequest};
use async_trait::async_trait;
use engine::DisconnectMode;
use futures::stream::BoxStream;
use model::{ContainerStatus, PortStatus, Task};
use net::Ipv4Cidr;

use super::Shared;
use crate::overlay::{address_of, container_of, network_of};

pub(super) struct AttachmentController {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

impl AttachmentController {
    pub(super) fn new(shared: Arc<Shared>, task: Arc<Task>) -> Self {
        Self { shared, task }
    }

    /// The network, and the address on it.
    fn place(&self) -> Option<(&str, Ipv4Cidr)> {
        let attachment = network_of(&self.task)?;
        Some((attachment.network.as_ref()?.id.as_str(), address_of(attachment)?))
    }

    /// Whether the container is on the network with this very address.
    fn is_connected(&self) -> bool {
        let (Some(container), Some((network, address))) = (container_of(&self.task), self.place()) else {
            return false;
        };
        let sandbox = self.shared.net.sandbox(container);
        let mut endpoints = sandbox.iter().flat_map(|sandbox| &sandbox.endpoints);
        endpoints.any(|endpoint| endpoint.network_id == network && endpoint.address == address)
    }
}

#[async_trait]
impl Controller for AttachmentController {
    async fn update(&self, _task: Arc<Task>) -> Result<(), ControllerError> {
        // Nothing of an attachment changes but what is desired of it, which is the agent's business.
        Ok(())
    }

    async fn prepare(&self) -> Result<(), ControllerError> {
        let made = self.shared.make_networks(&self.task).await;
        if let Err(ControllerError::Fatal(reason)) = &made {
            self.shared.attachments.refuse(&self.task, reason);
        }
        made
    }

    async fn start(&self) -> Result<(), ControllerError> {
        self.shared.attachments.offer(&self.task);
        Ok(())
    }

    async fn wait(&self) -> Result<(), ControllerError> {
        let (attachments, id) = (&self.shared.attachments, &self.task.id);
        if !attachments.is_known(id) && self.is_connected() {
            // the container of a former daemon
            attachments.hold(&self.task);
        }
        attachments.until_left(id).await;
        attachments.give_back(id).await.map_err(ControllerError::Temporary)
    }

    async fn shutdown(&self) -> Result<(), ControllerError> {
        Ok(())
    }

    /// The managers know it no more. If the container is there all the same, its address may be another's at any time.
    async fn remove(&self) -> Result<(), ControllerError> {
        let was_known = self.shared.attachments.is_known(&self.task.id);
        let was_held = self.shared.attachments.forget(&self.task.id);
        if let (Some(container), Some((network, address))) = (container_of(&self.task), self.place())
            && (was_held || !was_known)
            && self.is_connected()
            && !self.shared.attachments.holds(container, network)
        {
            self.stay_or_leave(container, network, address).await;
        }
        self.shared.exchange.release(self.task.id.as_str()).await;
        Ok(())
    }

    async fn container_status(&self) -> Option<ContainerStatus> {
        None
    }

    async fn port_status(&self) -> Option<PortStatus> {
        None
    }

    async fn logs(&self, _wanted: LogRequest) -> Result<BoxStream<'static, LogLine>, ControllerError> {
        Err(ControllerError::Fatal("an attachment to a network has no log".to_owned()))
    }
}

impl AttachmentController {
    /// Asks for the same address once more: a node that was away for a day is taken for lost. Without it the container is
    /// disconnected.
    async fn stay_or_leave(&self, container: &str, network: &str, address: Ipv4Cidr) {
        let asked = self.shared.attachments.attach(container, network, vec![address.address.to_string()]).await;
        let Err(error) = asked else {
            return tracing::info!(container, network, %address, "the managers have given an address once more");
        };
        tracing::warn!(container, network, %error, "a container is disconnected from a network that it has no place on");
        if let Err(error) = self.shared.engine.disconnect(container, network, DisconnectMode::Safe).await {
            tracing::error!(container, network, %error, "the container is still connected");
        }
    }
}
