//! Changes of the tables, into the kernel and to the name server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use discovery::{Change, EndpointRecord, Service};
use net::{ClientAddress, NameRecord, NetError, Peer, ServiceNames};

use super::{Exchange, OWNER, State, words};
use crate::errors::chain;

impl Exchange {
    pub(super) async fn apply(&self, state: &mut State) -> bool {
        let applied = self.try_apply(state).await;
        if let Err(error) = &applied {
            tracing::error!(error = chain(error), "tables of the swarm's network could not be written");
        }
        applied.is_ok()
    }

    /// Writes what has changed; the first failure is told, the rest is written all the same. A link is there before
    /// connections are sent over it, and until none are.
    pub(super) async fn try_apply(&self, state: &mut State) -> Result<(), NetError> {
        let mut services = Vec::new();
        let (mut added, mut removed) = (BTreeMap::<_, Vec<Peer>>::new(), BTreeMap::<_, Vec<Peer>>::new());
        for change in state.tables.take_changes() {
            match change {
                Change::Link { network, before, after } => {
                    removed.entry(network.clone()).or_default().extend(before.as_ref().and_then(words::peer));
                    added.entry(network).or_default().extend(after.as_ref().and_then(words::peer));
                }
                Change::Names { network, endpoint, record } => self.name(&network, &endpoint, record.as_deref()),
                Change::Service { network, service, now } => services.push((network, service, now)),
            }
        }
        let mut failure = Ok(());
        for (network, peers) in added.into_iter().filter(|(_, peers)| !peers.is_empty()) {
            failure = failure.and(self.0.net.change_peers(&network, peers, Vec::new()).await);
        }
        for (network, service, now) in services {
            let held = state.held.get(&*network);
            let is_ingress = held.is_some_and(|held| held.is_ingress);
            let now = match held {
                Some(held) if !held.is_open => now.map(of_this_node),
                _ => now,
            };
            failure = failure.and(self.balance(&network, &service, now.as_ref(), is_ingress).await);
        }
        for (network, peers) in removed.into_iter().filter(|(_, peers)| !peers.is_empty()) {
            failure = failure.and(self.0.net.change_peers(&network, Vec::new(), peers).await);
        }
        failure
    }

    fn name(&self, network: &str, endpoint: &str, record: Option<&EndpointRecord>) {
        let names = self.0.net.names();
        let address = record.and_then(|record| record.address);
        let (Some(record), Some(IpAddr::V4(address))) = (record, address) else {
            return names.remove(network, endpoint, OWNER);
        };
        let v4 = |address: Option<IpAddr>| match address {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let service = (!record.service_name.is_empty()).then(|| ServiceNames {
            name: record.service_name.clone(),
            aliases: record.aliases.clone(),
            virtual_ip: v4(record.virtual_ip),
        });
        names.upsert(NameRecord {
            network_id: network.to_owned(),
            endpoint_id: endpoint.to_owned(),
            owner: OWNER.to_owned(),
            name: record.name.clone(),
            task_aliases: record.task_aliases.clone(),
            service,
            address,
            address_v6: None,
            is_disabled: record.disabled,
        });
    }

    async fn balance(
        &self,
        network: &str,
        service: &str,
        now: Option<&Service>,
        is_ingress: bool,
    ) -> Result<(), NetError> {
        let net = &self.0.net;
        match now {
            Some(now) if is_ingress => {
                let clients = if now.ingress.hides_clients { ClientAddress::Hidden } else { ClientAddress::Kept };
                net.set_service(service, words::port_groups(now), clients).await
            }
            None if is_ingress => net.remove_service(service).await,
            Some(Service { virtual_ip: Some(IpAddr::V4(address)), backends, .. }) => {
                net.set_virtual_service(network, service, *address, words::addresses(backends)).await
            }
            Some(_) | None => net.remove_virtual_service(network, service).await,
        }
    }
}

/// A service with those of its tasks that run here.
fn of_this_node(mut service: Service) -> Service {
    service.backends.retain(|backend| backend.here);
    service.groups.iter_mut().for_each(|group| group.backends.retain(|backend| backend.here));
    service
}
