//! The engine's network over `net` and the swarm: containers get their places, networks are found.
//!
//! ```text
//!  engine ─create, connect─► place: which network is meant ─► of this machine: a wish ──────────► net ─► links, names
//!                                                        └─► of the swarm: asked of a manager ──┘   └─► exchange: others
//! ```

mod convert;
mod place;

use std::collections::BTreeSet;

use discovery::EndpointRecord;
use engine::{
    AttachmentRequest, ContainerNetwork, EtcFiles, NetworkBackend, NetworkEndpoint, NetworkError, NetworkMember,
    NetworkMode, NetworkName, NetworkRequest,
};
use net::{NameRecord, Net, Sandbox};

use crate::overlay::{Attachments, Exchange};
pub(crate) use convert::failed;
use convert::{container_network, endpoint, sandbox_spec};
use place::{Placed, find};

/// Implements the engine's trait.
pub(crate) struct EngineNetwork {
    pub(crate) net: Net,
    /// Told of links, so that other nodes know them before the program starts.
    pub(crate) exchange: Exchange,
    /// Where places on networks of the swarm come from.
    pub(crate) attachments: Attachments,
}

#[async_trait::async_trait]
impl NetworkBackend for EngineNetwork {
    async fn create(&self, request: NetworkRequest) -> Result<ContainerNetwork, NetworkError> {
        let member = NetworkMember {
            container_id: request.container_id.clone(),
            name: request.name.clone(),
            hostname: request.hostname.clone(),
        };
        let attachments = request.attachments.clone();
        let mut placed = Vec::new();
        if request.mode == NetworkMode::Networks {
            for attachment in &attachments {
                placed.push(self.place(&member, attachment).await?);
            }
        }
        let sandbox = self.net.create_sandbox(sandbox_spec(request, &placed)?).await.map_err(failed)?;
        self.exchange.link(&member.container_id, &sandbox).await;
        for (attachment, placed) in attachments.iter().zip(&placed) {
            self.enable(&member, attachment, placed).await?;
        }
        Ok(self.shown(sandbox))
    }

    async fn remove(&self, container_id: &str) -> Result<(), NetworkError> {
        self.exchange.unlink(container_id).await;
        let removed = self.net.remove_sandbox(container_id).await.map_err(failed);
        self.attachments.leave(container_id, None).await;
        removed
    }

    async fn connect(
        &self,
        member: NetworkMember,
        attachment: AttachmentRequest,
    ) -> Result<NetworkEndpoint, NetworkError> {
        let id = member.container_id.as_str();
        let placed = self.place(&member, &attachment).await?;
        let connected = self.net.connect(id, placed.connection(), attachment.links.clone()).await;
        let enabled = match connected {
            Ok(made) => {
                if let Some(sandbox) = self.net.sandbox(id) {
                    self.exchange.link(id, &sandbox).await;
                }
                self.enable(&member, &attachment, &placed).await.map(|()| made)
            }
            Err(error) => Err(failed(error)),
        };
        match enabled {
            Ok(made) => Ok(endpoint(made, placed.driver())),
            Err(error) => {
                self.attachments.leave(id, Some(placed.network_id())).await;
                Err(error)
            }
        }
    }

    async fn disconnect(&self, container_id: &str, network_id: &str) -> Result<(), NetworkError> {
        self.exchange.unlink_from(container_id, network_id).await;
        self.net.disconnect(container_id, network_id).await.map_err(failed)?;
        self.exchange.release_from(container_id, network_id).await;
        self.attachments.leave(container_id, Some(network_id)).await;
        Ok(())
    }

    async fn rename(&self, member: NetworkMember) -> Result<(), NetworkError> {
        self.exchange.rename(&member.container_id, &member.name).await;
        self.net.rename(&member.container_id, &member.name).map_err(failed)
    }

    fn network(&self, term: &str) -> Option<NetworkName> {
        find(&self.net.networks(), term).map(convert::network_name)
    }

    fn get(&self, container_id: &str) -> Option<ContainerNetwork> {
        self.net.sandbox(container_id).map(|sandbox| self.shown(sandbox))
    }

    async fn release_ports(&self, container_id: &str) -> Result<(), NetworkError> {
        self.net.release_ports(container_id).await.map_err(failed)
    }

    fn etc_files(&self, container_id: &str) -> Result<EtcFiles, NetworkError> {
        let files = self.net.etc_files(container_id).map_err(failed)?;
        Ok(EtcFiles { hosts: files.hosts, resolv_conf: files.resolv_conf, hostname: files.hostname })
    }

    async fn reconcile(&self, running: &BTreeSet<String>) -> Result<(), NetworkError> {
        self.net.reconcile(running).await.map(drop).map_err(failed)?;
        self.exchange.adopt(running).await;
        Ok(())
    }
}

impl EngineNetwork {
    fn shown(&self, sandbox: Sandbox) -> ContainerNetwork {
        container_network(sandbox, |network_id| self.net.is_overlay(network_id))
    }

    /// Lets others ask for a container by its names on a network of the swarm.
    async fn enable(
        &self,
        member: &NetworkMember,
        attachment: &AttachmentRequest,
        placed: &Placed,
    ) -> Result<(), NetworkError> {
        let Placed::Overlay { spec, .. } = placed else { return Ok(()) };
        let NetworkMember { container_id, name, hostname } = member;
        let record = EndpointRecord {
            name: name.clone(),
            address: Some(spec.address.address.into()),
            task_aliases: NameRecord::aliases_of(name, &attachment.aliases, container_id, hostname),
            ..EndpointRecord::default()
        };
        let of_network = |network: &str| (network == spec.network_id).then(|| record.clone());
        self.exchange.enable(container_id, of_network).await.map_err(failed)
    }
}
