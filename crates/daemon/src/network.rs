//! The engine's network over `net`: the same words in other types.

use std::collections::BTreeSet;

use engine::{
    ContainerNetwork, EtcFiles, IngressAttachment, NetworkBackend, NetworkEndpoint, NetworkError, NetworkMode,
    NetworkName, NetworkRequest, OverlayAttachment, PortRequest, PublishedPort,
};
use net::{
    DnsConfig, DnsNetwork, IngressEndpointSpec, IngressPort, Net, NetError, OverlayEndpointSpec, PortBinding, Sandbox,
    SandboxMode, SandboxSpec,
};

use crate::overlay::Exchange;

/// Implements the engine's trait.
pub(crate) struct EngineNetwork {
    pub(crate) net: Net,
    /// Told of links, so that other nodes know them before the program starts.
    pub(crate) exchange: Exchange,
}

#[async_trait::async_trait]
impl NetworkBackend for EngineNetwork {
    async fn create(&self, request: NetworkRequest) -> Result<ContainerNetwork, NetworkError> {
        let container = request.container_id.clone();
        let sandbox = self.net.create_sandbox(sandbox_spec(request)?).await.map_err(failed)?;
        self.exchange.link(&container, &sandbox).await;
        Ok(container_network(sandbox))
    }

    async fn remove(&self, container_id: &str) -> Result<(), NetworkError> {
        self.exchange.unlink(container_id).await;
        self.net.remove_sandbox(container_id).await.map_err(failed)
    }

    fn network(&self, term: &str) -> Option<NetworkName> {
        let found = self.net.networks().into_iter().find(|network| network.id == term || network.name == term)?;
        Some(NetworkName { name: found.name, id: found.id })
    }

    fn get(&self, container_id: &str) -> Option<ContainerNetwork> {
        self.net.sandbox(container_id).map(container_network)
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

fn failed(error: NetError) -> NetworkError {
    NetworkError::Failed(crate::errors::chain(&error))
}

fn sandbox_spec(request: NetworkRequest) -> Result<SandboxSpec, NetworkError> {
    let mode = match request.mode {
        NetworkMode::Bridge => SandboxMode::Bridge,
        NetworkMode::Host => SandboxMode::Host,
        NetworkMode::None => SandboxMode::None,
        NetworkMode::Container(id) => SandboxMode::Container(id),
        NetworkMode::Swarm => SandboxMode::Swarm,
    };
    Ok(SandboxSpec {
        container_id: request.container_id,
        name: request.name,
        hostname: request.hostname,
        domainname: request.domainname,
        mode,
        ingress: request.ingress.map(ingress_spec).transpose()?,
        overlays: request.overlays.iter().map(overlay_endpoint).collect::<Result<_, _>>()?,
        ports: request.ports.into_iter().map(port_binding).collect(),
        aliases: request.aliases,
        dns: DnsConfig { servers: request.dns_servers, search: request.dns_search, options: request.dns_options },
        dns_networks: request.overlays.iter().map(dns_network).collect(),
        extra_hosts: request.extra_hosts,
        mac_address: request.mac_address,
        sysctls: request.sysctls,
    })
}

fn overlay_endpoint(attachment: &OverlayAttachment) -> Result<OverlayEndpointSpec, NetworkError> {
    let bad = |error: net::CidrError| NetworkError::Failed(error.to_string());
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
    let address = attachment.address.parse();
    let ports = attachment.ports.iter().map(|port| IngressPort {
        protocol: protocol(port.protocol),
        published_port: port.published,
        target_port: port.target,
    });
    Ok(IngressEndpointSpec {
        network_id: attachment.network_id,
        address: address.map_err(|error: net::CidrError| NetworkError::Failed(error.to_string()))?,
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

fn container_network(sandbox: Sandbox) -> ContainerNetwork {
    let endpoints = sandbox.endpoints.into_iter().map(|endpoint| NetworkEndpoint {
        network_name: endpoint.network_name,
        network_id: endpoint.network_id,
        endpoint_id: endpoint.endpoint_id,
        mac: endpoint.mac,
        address: Some((endpoint.address.address, endpoint.address.prefix)),
        gateway: endpoint.gateway,
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

/// The same protocol in `net`'s words.
fn protocol(protocol: engine::Protocol) -> net::Protocol {
    match protocol {
        engine::Protocol::Tcp => net::Protocol::Tcp,
        engine::Protocol::Udp => net::Protocol::Udp,
        engine::Protocol::Sctp => net::Protocol::Sctp,
    }
}
