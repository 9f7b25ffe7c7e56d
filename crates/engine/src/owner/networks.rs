//! Which networks a container is on: what a start found of them, connecting and disconnecting while it runs or rests.
//!
//! While it rests only its record is changed, and the next start does the rest; so a network that this machine does not know
//! (one of the swarm, not asked for yet) may be connected to, as with dockerd.

use docker_types::container::EndpointSettings;
use std::collections::BTreeMap;

use super::Owner;
use crate::launch::{self, network_mode};
use crate::network::{ContainerNetwork, NetworkDriver, NetworkMember, NetworkMode, NetworkName};
use crate::options::DisconnectMode;
use crate::record::{Flush, Phase};
use crate::{EngineError, ErrorKind, endpoint_settings};

const SHARED: &str =
    "container sharing network namespace with another container or host cannot be connected to any other network";
const INTO_HOST: &str = "cannot connect container to host network - container must be created in host network mode";
const OUT_OF_HOST: &str = "cannot disconnect container from host network - container was created in host network mode";
const WITH_NONE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

type Networks = BTreeMap<String, EndpointSettings>;

impl Owner {
    /// As networks know it.
    pub(super) fn member(&self) -> NetworkMember {
        NetworkMember {
            container_id: self.record.id.clone(),
            name: self.record.name.clone(),
            hostname: self.record.config.hostname.clone(),
        }
    }

    /// Keeps what its networks are called, now that they have been found.
    pub(super) fn note_networks(&mut self, found: &ContainerNetwork) {
        if self.record.task.is_some() {
            return;
        }
        let mut named = Networks::new();
        for (network, mut settings) in endpoint_settings::networks(&self.record) {
            let is_it = |name: &str, id: &str| name == network || id.starts_with(&network) || id == settings.network_id;
            let mut endpoints = found.endpoints.iter();
            let endpoint = endpoints.find(|endpoint| is_it(&endpoint.network_name, &endpoint.network_id));
            let name = match endpoint {
                Some(endpoint) => Some((endpoint.network_name.clone(), endpoint.network_id.clone())),
                None => self.engine.network.network(&network).map(|found| (found.name, found.id)),
            };
            let (name, id) = name.unwrap_or_else(|| (network.clone(), String::new()));
            let mode = &mut self.record.host_config.network_mode;
            if *mode == network && *mode != name && *mode != id && !id.is_empty() {
                mode.clone_from(&id);
            }
            settings.network_id = id;
            named.insert(name, settings);
        }
        self.set_networks(named);
    }

    fn set_networks(&mut self, networks: Networks) {
        self.record.left_all_networks = networks.is_empty();
        let endpoints = networks.into_iter().map(|(name, settings)| (name, Some(settings))).collect();
        self.record.networking.endpoints_config = Some(endpoints);
    }

    pub(super) async fn connect_network(
        &mut self,
        network: &str,
        mut settings: EndpointSettings,
    ) -> Result<(), EngineError> {
        self.check_changeable()?;
        let found = self.engine.network.network(network);
        self.check_company(network, found.as_ref())?;
        endpoint_settings::check(network, found.as_ref(), &settings)?;
        if self.record.life.phase.has_process() {
            return self.connect_now(network, found, settings).await;
        }
        let mut networks = endpoint_settings::networks(&self.record);
        let name = found.as_ref().map_or(network, |found| &found.name).to_owned();
        // dockerd leaves what it has as it is
        if networks.contains_key(&name) && found.as_ref().is_some_and(|it| it.driver != NetworkDriver::Overlay) {
            return Ok(());
        }
        settings.network_id = found.map(|found| found.id).unwrap_or_default();
        networks.insert(name, settings);
        self.set_networks(networks);
        self.save(Flush::Wait).await?;
        self.publish();
        Ok(())
    }

    async fn connect_now(
        &mut self,
        network: &str,
        found: Option<NetworkName>,
        mut settings: EndpointSettings,
    ) -> Result<(), EngineError> {
        if let Some(found) = found.filter(|found| self.endpoint_on(&found.id)) {
            let (name, network) = (&self.record.name, &found.name);
            return Err(match found.driver {
                NetworkDriver::Overlay => {
                    EngineError::conflict(format!("{name} is already attached to network {network}"))
                }
                _ => {
                    let text = format!("endpoint with name {name} already exists in network {network}");
                    EngineError::new(ErrorKind::Forbidden, text)
                }
            });
        }
        let before = self.engine.network.etc_files(&self.record.id)?;
        let request = endpoint_settings::request(network, &settings);
        let endpoint = self.engine.network.connect(self.member(), request).await?;
        let mut networks = endpoint_settings::networks(&self.record);
        settings.network_id.clone_from(&endpoint.network_id);
        networks.insert(endpoint.network_name.clone(), settings);
        self.set_networks(networks);
        self.save_or_warn(Flush::Wait).await;
        launch::refresh_etc(&self.engine, &self.record, &self.paths, &before);
        self.publish();
        self.log_network("connect", &endpoint);
        Ok(())
    }

    pub(super) async fn disconnect_network(&mut self, network: &str, mode: DisconnectMode) -> Result<(), EngineError> {
        self.check_changeable()?;
        let found = self.engine.network.network(network);
        if self.record.life.phase.has_process() {
            match found {
                Some(found) => return self.disconnect_now(found).await,
                None if mode == DisconnectMode::Safe => {
                    return Err(EngineError::not_found(format!("network {network} not found")));
                }
                None => {}
            }
        }
        let name = found.map_or_else(|| network.to_owned(), |found| found.name);
        let mut networks = endpoint_settings::networks(&self.record);
        if networks.remove(&name).is_none() {
            let id = &self.record.id;
            return Err(EngineError::internal(format!("container {id} is not connected to the network {name}")));
        }
        self.set_networks(networks);
        self.save(Flush::Wait).await?;
        self.publish();
        Ok(())
    }

    async fn disconnect_now(&mut self, found: NetworkName) -> Result<(), EngineError> {
        if found.driver == NetworkDriver::Host && network_mode(&self.record) == NetworkMode::Host {
            return Err(EngineError::invalid(OUT_OF_HOST));
        }
        let mut networks = endpoint_settings::networks(&self.record);
        let (id, name) = (&self.record.id, &found.name);
        let network = self.engine.network.get(id).unwrap_or_default();
        let endpoint = network.endpoints.into_iter().find(|endpoint| endpoint.network_id == found.id);
        let is_loopback = found.driver == NetworkDriver::Null && networks.contains_key(name);
        if endpoint.is_none() && !is_loopback {
            return Err(EngineError::internal(format!("container {id} is not connected to network {name}")));
        }
        if let Some(endpoint) = endpoint {
            let before = self.engine.network.etc_files(id)?;
            self.engine.network.disconnect(id, &found.id).await?;
            launch::refresh_etc(&self.engine, &self.record, &self.paths, &before);
            self.log_network("disconnect", &endpoint);
        }
        networks.remove(&found.name);
        self.set_networks(networks);
        self.save_or_warn(Flush::Wait).await;
        self.publish();
        Ok(())
    }

    fn endpoint_on(&self, network_id: &str) -> bool {
        let network = self.engine.network.get(&self.record.id).unwrap_or_default();
        network.endpoints.iter().any(|endpoint| endpoint.network_id == network_id)
    }

    /// Whether its networks can be changed at all.
    fn check_changeable(&self) -> Result<(), EngineError> {
        let id = &self.record.id;
        if matches!(self.record.life.phase, Phase::Removing | Phase::Dead) {
            return Err(EngineError::internal(format!(
                "Container {id} is marked for removal and cannot be connected or disconnected to the network"
            )));
        }
        if self.record.task.is_some() {
            let text = format!("container {id} is a task of the swarm, which decides about its networks");
            return Err(EngineError::new(ErrorKind::Forbidden, text));
        }
        match network_mode(&self.record) {
            NetworkMode::Container(_) => Err(EngineError::invalid(SHARED)),
            _ => Ok(()),
        }
    }

    /// Whether a network goes together with those that it is on.
    fn check_company(&self, network: &str, found: Option<&NetworkName>) -> Result<(), EngineError> {
        let networks = endpoint_settings::networks(&self.record);
        let name = found.map_or(network, |found| &found.name);
        let has_others = networks.keys().any(|other| other != name);
        let mode = network_mode(&self.record);
        match found.map(|found| found.driver) {
            Some(NetworkDriver::Host) if mode != NetworkMode::Host => Err(EngineError::invalid(INTO_HOST)),
            Some(NetworkDriver::Host) => Ok(()),
            _ if mode == NetworkMode::Host => Err(EngineError::invalid(SHARED)),
            Some(NetworkDriver::Null) if has_others => Err(EngineError::invalid(WITH_NONE)),
            _ if name != "none" && networks.contains_key("none") => Err(EngineError::invalid(WITH_NONE)),
            _ => Ok(()),
        }
    }
}
