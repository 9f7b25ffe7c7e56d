//! Services: resolved ports and virtual addresses.

use super::Allocator;
use super::networks::{Held, ingress, resolve};
use super::ports::PortKey;
use model::{Endpoint, Network, PublishMode, ResolutionMode, Service, ServiceId, ServiceSpec, VirtualIp};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Transaction, View};

/// What a service has.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceState {
    ports: BTreeSet<PortKey>,
    addresses: Vec<Held>,
}

/// Whether the service publishes a port in ingress mode, so that it and its tasks are on the ingress network.
pub fn needs_ingress(spec: &ServiceSpec) -> bool {
    spec.endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.ports.iter().any(|port| port.publish_mode == PublishMode::Ingress))
}

/// The networks that the service's tasks name, and the deprecated list only if they name none.
pub(super) fn network_targets(spec: &ServiceSpec) -> &[model::NetworkAttachmentConfig] {
    if spec.task.networks.is_empty() { &spec.networks } else { &spec.task.networks }
}

/// The ingress network if `spec` needs it, then the named ones, each once.
fn networks_of(view: &View, spec: &ServiceSpec) -> Result<Vec<Arc<Network>>, String> {
    let mut networks = Vec::new();
    if needs_ingress(spec) {
        networks.push(ingress(view).ok_or("ingress network is missing")?.clone());
    }
    for config in network_targets(spec) {
        let network = resolve(view, &config.target).ok_or_else(|| format!("network {} not found", config.target))?;
        if !networks.iter().any(|other: &Arc<Network>| other.id == network.id) {
            networks.push(network.clone());
        }
    }
    Ok(networks)
}

fn ingress_ports(endpoint: Option<&Endpoint>) -> BTreeSet<PortKey> {
    let ports = endpoint.map_or(&[][..], |endpoint| &endpoint.ports);
    let ports = ports.iter().filter(|port| port.publish_mode == PublishMode::Ingress && port.published_port != 0);
    ports.map(|port| (port.protocol, port.published_port)).collect()
}

impl Allocator {
    /// Takes what the stored service has, as far as nobody else has it.
    pub(super) fn adopt_service(&mut self, service: &Service) {
        let mut state = ServiceState::default();
        for key in ingress_ports(service.endpoint.as_ref()) {
            if self.ports.reserve(&service.id, key).is_ok() {
                state.ports.insert(key);
            }
        }
        for vip in service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips) {
            let network = self.networks.get_mut(&vip.network_id).filter(|network| !network.local);
            if let Some(Ok((address, _))) = network.map(|network| network.reserve(&vip.addr)) {
                state.addresses.push(Held { network: vip.network_id.clone(), address });
            }
        }
        self.services.insert(service.id.clone(), state);
    }

    pub(super) fn forget_service(&mut self, id: &ServiceId) {
        if let Some(state) = self.services.remove(id) {
            self.freed |= !state.ports.is_empty();
            state.ports.into_iter().for_each(|key| self.ports.release(key));
            self.release(&state.addresses);
        }
    }

    pub(super) fn plan_service(&mut self, transaction: &mut Transaction, id: &ServiceId) -> Result<(), String> {
        let Some(service) = transaction.service(id).cloned() else { return Ok(()) };
        let networks = match service.spec.endpoint.as_ref().map(|endpoint| endpoint.mode) {
            Some(ResolutionMode::Dnsrr) => Vec::new(),
            _ => networks_of(transaction.view(), &service.spec)?,
        };
        let (ports, added) = self
            .ports
            .allocate(id, service.spec.endpoint.as_ref(), service.endpoint.as_ref())
            .map_err(|error| error.to_string())?;
        let virtual_ips = match self.virtual_ips(&service, &networks) {
            Ok(virtual_ips) => virtual_ips,
            Err(error) => {
                added.into_iter().for_each(|key| self.ports.release(key));
                return Err(error);
            }
        };
        let endpoint = Endpoint { spec: service.spec.endpoint.clone(), ports, virtual_ips };
        self.keep_ports(id, &endpoint);
        let progressed = self.waiting.contains_key(&id.clone().into()) || service.endpoint.is_none();
        // as SwarmKit: a service that never had a port or an address has no endpoint either
        let needless = service.endpoint.is_none() && endpoint.ports.is_empty() && endpoint.virtual_ips.is_empty();
        if !needless && service.endpoint.as_ref() != Some(&endpoint) {
            super::write(transaction, Service { endpoint: Some(endpoint), ..(*service).clone() });
        }
        if progressed {
            let tasks = transaction.tasks_of_service(id).filter(|task| super::tasks::is_unallocated(task));
            self.dirty.tasks.extend(tasks.map(|task| task.id.clone()));
        }
        Ok(())
    }

    /// The service has exactly the ports of `endpoint` from now on.
    fn keep_ports(&mut self, id: &ServiceId, endpoint: &Endpoint) {
        let ports = ingress_ports(Some(endpoint));
        let state = self.services.entry(id.clone()).or_default();
        let before = std::mem::replace(&mut state.ports, ports.clone());
        for key in before.difference(&ports) {
            self.ports.release(*key);
            self.freed = true;
        }
    }

    /// Keeps the present virtual addresses on `networks`, adds those that lack, gives the others back. On an error
    /// nothing has changed.
    fn virtual_ips(&mut self, service: &Service, networks: &[Arc<Network>]) -> Result<Vec<VirtualIp>, String> {
        let before = self.services.get(&service.id).map_or(Vec::new(), |state| state.addresses.clone());
        let is_wanted = |id: &model::NetworkId| networks.iter().any(|network| network.id == *id);
        let present = service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        let is_kept = |vip: &VirtualIp| {
            let is_local = vip.addr.is_empty();
            is_wanted(&vip.network_id) && (is_local || before.iter().any(|held| held.network == vip.network_id))
        };
        let mut virtual_ips: Vec<VirtualIp> = present.filter(|vip| is_kept(vip)).cloned().collect();
        let mut added = Vec::new();
        for network in networks {
            if virtual_ips.iter().any(|vip| vip.network_id == network.id) {
                continue;
            }
            let all_nodes = self.nodes.len();
            let taken = self.allocated(network).and_then(|state| match state.local {
                true => Ok(None),
                false => state.take_spare(all_nodes, 0).map(Some),
            });
            let addr = match taken {
                Ok(None) => String::new(),
                Ok(Some((address, text))) => {
                    added.push(Held { network: network.id.clone(), address });
                    text
                }
                Err(error) => {
                    self.give_back(&added);
                    return Err(error);
                }
            };
            virtual_ips.push(VirtualIp { network_id: network.id.clone(), addr });
        }
        let (mut kept, gone): (Vec<_>, Vec<_>) = before.into_iter().partition(|held| is_wanted(&held.network));
        self.release(&gone);
        kept.extend(added);
        self.services.entry(service.id.clone()).or_default().addresses = kept;
        Ok(virtual_ips)
    }
}
