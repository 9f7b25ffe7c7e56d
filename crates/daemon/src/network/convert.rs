//! The same words in the engine's types and in `net`'s.

use engine::{
    ContainerNetwork, ErrorKind, IngressAttachment, NetworkDriver, NetworkEndpoint, NetworkError, NetworkMode,
    NetworkName, NetworkRequest, OverlayAttachment, PortRequest, PublishedPort,
};
use net::{
    BridgeEndpointSpec, DnsConfig, DnsNetwork, Endpoint, IngressEndpointSpec, IngressPort, NetError, NetworkInfo,
    OverlayEndpointSpec, PortBinding, Sandbox, SandboxMode, SandboxSpec,
};

use super::place::Placed;

/// An error of `net` with the status that dockerd answers it with.
pub(crate) fn failed(error: NetError) -> NetworkError {
    let kind = match &error {
        NetError::AddressInUse
        | NetError::PoolOverlap
        | NetError::NetworkInUse { .. }
        | NetError::EndpointExists { .. } => ErrorKind::Forbidden,
        NetError::NetworkExists(_) => ErrorKind::Conflict,
        NetError::NoNetwork(_) => ErrorKind::NotFound,
        NetError::Invalid(_) | NetError::NoFreeSubnet => ErrorKind::InvalidParameter,
        NetError::NotBuilt(_) => ErrorKind::NotImplemented,
        _ => ErrorKind::Internal,
    };
    NetworkError::new(kind, crate::errors::chain(&error))
}

fn bad(error: net::CidrError) -> NetworkError {
    NetworkError::failed(error.to_string())
}

pub(super) fn sandbox_spec(request: NetworkRequest, placed: &[Placed]) -> Result<SandboxSpec, NetworkError> {
    let mode = match request.mode {
        NetworkMode::Networks => SandboxMode::Networks,
        NetworkMode::Host => SandboxMode::Host,
        NetworkMode::None => SandboxMode::None,
        NetworkMode::Container(id) => SandboxMode::Container(id),
        NetworkMode::Swarm => SandboxMode::Swarm,
    };
    let given = request.overlays.iter().map(overlay_endpoint).collect::<Result<Vec<_>, _>>()?;
    let own = placed.iter().filter_map(|placed| match placed {
        Placed::Overlay { spec, .. } => Some(spec.clone()),
        Placed::Bridge { .. } => None,
    });
    let bridges = placed.iter().filter_map(|placed| match placed {
        Placed::Bridge { spec, .. } => Some(spec.clone()),
        Placed::Overlay { .. } => None,
    });
    let mut dns_networks: Vec<DnsNetwork> = request.overlays.iter().map(dns_network).collect();
    dns_networks.extend(placed.iter().filter_map(|placed| placed.dns().cloned()));
    Ok(SandboxSpec {
        container_id: request.container_id,
        name: request.name,
        hostname: request.hostname,
        domainname: request.domainname,
        mode,
        ingress: request.ingress.map(ingress_spec).transpose()?,
        overlays: given.into_iter().chain(own).collect(),
        bridges: bridges.collect::<Vec<BridgeEndpointSpec>>(),
        ports: request.ports.into_iter().map(port_binding).collect(),
        dns: DnsConfig { servers: request.dns_servers, search: request.dns_search, options: request.dns_options },
        dns_networks,
        extra_hosts: request.extra_hosts,
        mac_address: None,
        sysctls: request.sysctls,
    })
}

fn overlay_endpoint(attachment: &OverlayAttachment) -> Result<OverlayEndpointSpec, NetworkError> {
    let mut spec = OverlayEndpointSpec::new(&attachment.network_id, attachment.address.parse().map_err(bad)?);
    spec.address6 = attachment.address_v6.as_ref().and_then(|text| {
        let (address, prefix) = text.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    });
    Ok(spec)
}

fn dns_network(attachment: &OverlayAttachment) -> DnsNetwork {
    DnsNetwork {
        id: attachment.network_id.clone(),
        name: attachment.network_name.clone(),
        aliases: std::collections::BTreeMap::new(),
    }
}

fn ingress_spec(attachment: IngressAttachment) -> Result<IngressEndpointSpec, NetworkError> {
    let ports = attachment.ports.iter().map(|port| IngressPort {
        protocol: protocol(port.protocol),
        published_port: port.published,
        target_port: port.target,
    });
    Ok(IngressEndpointSpec {
        network_id: attachment.network_id,
        address: attachment.address.parse().map_err(bad)?,
        ports: ports.collect(),
    })
}

fn port_binding(port: PortRequest) -> PortBinding {
    PortBinding {
        protocol: protocol(port.protocol),
        container_port: port.container_port,
        host_address: port.host_address,
        host_port: port.host_port,
        host_port_end: port.host_port_end,
    }
}

pub(super) fn container_network(sandbox: Sandbox, is_overlay: impl Fn(&str) -> bool) -> ContainerNetwork {
    let driver = |endpoint: &Endpoint| match is_overlay(&endpoint.network_id) {
        true => NetworkDriver::Overlay,
        false => NetworkDriver::Bridge,
    };
    let endpoints = sandbox.endpoints.into_iter().map(|it| {
        let driver = driver(&it);
        endpoint(it, driver)
    });
    let ports = sandbox.ports.into_iter().map(|port| PublishedPort {
        protocol: match port.protocol {
            net::Protocol::Tcp => engine::Protocol::Tcp,
            net::Protocol::Udp => engine::Protocol::Udp,
            net::Protocol::Sctp => engine::Protocol::Sctp,
        },
        container_port: port.container_port,
        host_address: port.host_address,
        host_port: port.host_port,
    });
    ContainerNetwork {
        sandbox_id: sandbox.sandbox_id,
        netns: sandbox.netns,
        endpoints: endpoints.collect(),
        ports: ports.collect(),
    }
}

pub(super) fn endpoint(endpoint: Endpoint, driver: NetworkDriver) -> NetworkEndpoint {
    NetworkEndpoint {
        network_name: endpoint.network_name,
        network_id: endpoint.network_id,
        endpoint_id: endpoint.endpoint_id,
        mac: endpoint.mac,
        address: Some((endpoint.address.address, endpoint.address.prefix)),
        address_v6: endpoint.address6,
        gateway: endpoint.gateway,
        driver,
    }
}

pub(super) fn network_name(info: &NetworkInfo) -> NetworkName {
    let chosen = info.subnets.iter().filter(|subnet| subnet.is_chosen);
    NetworkName {
        name: info.name.clone(),
        id: info.id.clone(),
        driver: match info.driver.as_str() {
            "host" => NetworkDriver::Host,
            "null" => NetworkDriver::Null,
            "overlay" => NetworkDriver::Overlay,
            _ => NetworkDriver::Bridge,
        },
        chosen_subnets: chosen.map(|subnet| subnet.subnet.to_string()).collect(),
    }
}

/// The same protocol in `net`'s words.
fn protocol(protocol: engine::Protocol) -> net::Protocol {
    match protocol {
        engine::Protocol::Tcp => net::Protocol::Tcp,
        engine::Protocol::Udp => net::Protocol::Udp,
        engine::Protocol::Sctp => net::Protocol::Sctp,
    }
}
