//! Which network a container's wish means, and its place there.

use std::collections::BTreeMap;

use engine::{AttachmentRequest, ErrorKind, NetworkDriver, NetworkError, NetworkMember};
use model::Task;
use net::{BridgeEndpointSpec, Connection, DnsNetwork, NameRecord, NetworkInfo, OverlayEndpointSpec};

use super::EngineNetwork;
use crate::overlay::{address_of, network_of};

/// The driver of networks over machines.
const OVERLAY: &str = "overlay";
/// The default network, which has no names.
const DEFAULT_BRIDGE: &str = "bridge";
/// The bridge that leads out of the swarm's networks; it has none either.
const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// On a bridge of this machine; with names, unless it is the default one.
    Bridge { spec: BridgeEndpointSpec, dns: Option<DnsNetwork> },
    /// On a network of the swarm, as a manager gave it.
    Overlay { spec: OverlayEndpointSpec, dns: DnsNetwork },
}

impl Placed {
    pub(super) fn network_id(&self) -> &str {
        match self {
            Self::Bridge { spec, .. } => &spec.network_id,
            Self::Overlay { spec, .. } => &spec.network_id,
        }
    }

    pub(super) fn driver(&self) -> NetworkDriver {
        match self {
            Self::Bridge { .. } => NetworkDriver::Bridge,
            Self::Overlay { .. } => NetworkDriver::Overlay,
        }
    }

    pub(super) fn connection(&self) -> Connection {
        match self {
            Self::Bridge { spec, .. } => Connection::Bridge(spec.clone()),
            Self::Overlay { spec, .. } => Connection::Overlay(spec.clone()),
        }
    }

    pub(super) fn dns(&self) -> Option<&DnsNetwork> {
        match self {
            Self::Bridge { dns, .. } => dns.as_ref(),
            Self::Overlay { dns, .. } => Some(dns),
        }
    }
}

/// The network that a word means: by id, by name, by the beginning of an id that only one has.
pub(super) fn find<'a>(networks: &'a [NetworkInfo], term: &str) -> Option<&'a NetworkInfo> {
    let by_id = networks.iter().find(|network| network.id == term);
    if let Some(found) = by_id.or_else(|| networks.iter().find(|network| network.name == term)) {
        return Some(found);
    }
    let mut beginning = networks.iter().filter(|network| !term.is_empty() && network.id.starts_with(term));
    beginning.next().filter(|_| beginning.next().is_none())
}

fn has_names(network: &NetworkInfo) -> bool {
    ![DEFAULT_BRIDGE, GATEWAY_BRIDGE].contains(&network.name.as_str())
}

fn dns_network(id: &str, name: &str, links: &BTreeMap<String, String>) -> DnsNetwork {
    DnsNetwork { id: id.to_owned(), name: name.to_owned(), aliases: links.clone() }
}

impl EngineNetwork {
    /// A container's place on a network: one of this machine's, or one of the swarm's, which a manager is asked for.
    pub(super) async fn place(
        &self,
        member: &NetworkMember,
        wanted: &AttachmentRequest,
    ) -> Result<Placed, NetworkError> {
        let networks = self.net.networks();
        match find(&networks, &wanted.network) {
            Some(found) if found.driver == DEFAULT_BRIDGE => Ok(on_bridge(found, member, wanted)),
            Some(found) if found.driver != OVERLAY => {
                let text = format!("a container with networks of its own cannot be on network {}", found.name);
                Err(NetworkError::new(ErrorKind::InvalidParameter, text))
            }
            _ => {
                let asked = [wanted.address.map(|it| it.to_string()), wanted.address_v6.map(|it| it.to_string())];
                let asked = asked.into_iter().flatten().collect();
                let task = self.attachments.attach(&member.container_id, &wanted.network, asked).await?;
                on_overlay(&task, wanted)
            }
        }
    }
}

fn on_bridge(found: &NetworkInfo, member: &NetworkMember, wanted: &AttachmentRequest) -> Placed {
    let others = || NameRecord::aliases_of(&member.name, &wanted.aliases, &member.container_id, &member.hostname);
    let names = has_names(found).then(|| [member.name.clone()].into_iter().chain(others()).collect());
    let spec = BridgeEndpointSpec {
        network_id: found.id.clone(),
        address: wanted.address,
        mac: wanted.mac_address,
        names: names.unwrap_or_default(),
        gateway_priority: wanted.gateway_priority,
    };
    let dns = has_names(found).then(|| dns_network(&found.id, &found.name, &wanted.links));
    Placed::Bridge { spec, dns }
}

fn on_overlay(task: &Task, wanted: &AttachmentRequest) -> Result<Placed, NetworkError> {
    let attachment = network_of(task);
    let network = attachment.and_then(|attachment| attachment.network.as_ref());
    let (Some(attachment), Some(network)) = (attachment, network) else {
        return Err(NetworkError::failed(format!("the managers gave no place on network {}", wanted.network)));
    };
    let id = network.id.as_str();
    let address = address_of(attachment);
    let address = address.ok_or_else(|| NetworkError::failed(format!("no address was given on network {id}")))?;
    let v6 = attachment.addresses.iter().find_map(|text| {
        let (address, prefix) = text.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    });
    let spec = OverlayEndpointSpec { address6: v6, mac: wanted.mac_address, ..OverlayEndpointSpec::new(id, address) };
    Ok(Placed::Overlay { spec, dns: dns_network(id, &network.spec.annotations.name, &wanted.links) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(id: &str, name: &str) -> NetworkInfo {
        NetworkInfo { id: id.to_owned(), name: name.to_owned(), ..NetworkInfo::default() }
    }

    #[test]
    fn a_network_is_found_by_id_name_and_beginning() {
        let networks = [network("abc1", "one"), network("abd2", "abc1"), network("xyz3", "abd")];
        let found = |term: &str| find(&networks, term).map(|network| network.id.as_str());
        assert_eq!(found("abc1"), Some("abc1"), "an id before a name");
        assert_eq!(found("one"), Some("abc1"));
        assert_eq!(found("abd"), Some("xyz3"), "a name before a beginning");
        assert_eq!(found("xy"), Some("xyz3"));
        assert_eq!((found("ab"), found(""), found("none")), (None, None, None));
    }

    #[test]
    fn names_on_this_machines_networks() {
        let member =
            NetworkMember { container_id: "0123456789abcdef".into(), name: "web".into(), hostname: "host".into() };
        let wanted = AttachmentRequest { aliases: vec!["www".into()], ..AttachmentRequest::default() };
        let Placed::Bridge { spec, dns } = on_bridge(&network("n", "own"), &member, &wanted) else { unreachable!() };
        assert_eq!(spec.names, ["web", "www", "0123456789ab", "host"]);
        assert_eq!(dns.unwrap().name, "own");
        let Placed::Bridge { spec, dns } = on_bridge(&network("n", "bridge"), &member, &wanted) else { unreachable!() };
        assert!(spec.names.is_empty() && dns.is_none());
    }
}
