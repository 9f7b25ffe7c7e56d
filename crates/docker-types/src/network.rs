//! Networks, local and of the swarm; endpoints and published ports.

use std::collections::BTreeMap;

use model as m;
use serde::{Deserialize, Serialize};

use crate::container::EndpointSettings;
use crate::json::is_zero;
use crate::service::{SpecError, annotations};
use crate::swarm::Version;
use crate::task::Driver;
use crate::time::Time;
use crate::words::Word;

/// The label of the swarm's own copies of `bridge` and `host`.
pub const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// The label that marked ingress networks before they had a field.
const INTERNAL_LABEL: &str = "com.docker.swarm.internal";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub protocol: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub target_port: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub published_port: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub publish_mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Endpoint {
    pub spec: EndpointSpec,
    #[serde(skip_serializing_if = "is_zero")]
    pub ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "is_zero")]
    pub virtual_ips: Vec<EndpointVirtualIp>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointVirtualIp {
    #[serde(rename = "NetworkID", skip_serializing_if = "is_zero")]
    pub network_id: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub addr: String,
}

/// A task's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachment {
    pub network: SwarmNetwork,
    #[serde(skip_serializing_if = "is_zero")]
    pub addresses: Vec<String>,
}

/// A network of the swarm as tasks show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SwarmNetwork {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: SwarmNetworkSpec,
    pub driver_state: Driver,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "is_zero")]
    pub ipam_options: Option<IpamOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SwarmNetworkSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub driver_configuration: Option<Driver>,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "is_zero")]
    pub ipv6_enabled: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub internal: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub attachable: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub ingress: bool,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "is_zero")]
    pub ipam_options: Option<IpamOptions>,
    #[serde(skip_serializing_if = "is_zero")]
    pub config_from: Option<ConfigReference>,
    #[serde(skip_serializing_if = "is_zero")]
    pub scope: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamOptions {
    pub driver: Driver,
    #[serde(skip_serializing_if = "is_zero")]
    pub configs: Vec<SwarmIpamConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SwarmIpamConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub subnet: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub range: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub gateway: String,
}

/// `ConfigFrom`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    pub network: String,
}

/// `GET /networks/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    pub name: String,
    pub id: String,
    pub created: Time,
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigReference,
    pub config_only: bool,
    pub containers: Option<BTreeMap<String, EndpointResource>>,
    pub options: Option<BTreeMap<String, String>>,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub peers: Vec<PeerInfo>,
    #[serde(skip_serializing_if = "is_zero")]
    pub services: BTreeMap<String, ServiceInfo>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ipam {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Option<Vec<IpamConfig>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "is_zero")]
    pub ip_range: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub gateway: String,
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "is_zero")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// A container in a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointResource {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerInfo {
    pub name: String,
    #[serde(rename = "IP")]
    pub ip: String,
}

/// A service on a network, with `verbose`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceInfo {
    /// Its address; `<nil>` without one.
    #[serde(rename = "VIP")]
    pub vip: String,
    /// `Target: 80, Publish: 8080`.
    #[serde(rename = "Ports")]
    pub ports: Vec<String>,
    #[serde(rename = "LocalLBIndex")]
    pub local_lb_index: u32,
    #[serde(rename = "Tasks")]
    pub tasks: Vec<TaskInfo>,
}

/// One task of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskInfo {
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    #[serde(rename = "EndpointIP")]
    pub endpoint_ip: String,
    /// `Host IP`: the node's address for VXLAN.
    #[serde(rename = "Info")]
    pub info: BTreeMap<String, String>,
}

/// `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkCreateRequest {
    pub name: String,
    pub driver: String,
    pub scope: String,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    pub config_only: bool,
    pub config_from: Option<ConfigReference>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Old clients only; means nothing.
    pub check_duplicate: bool,
}

/// `POST /networks/{id}/connect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkConnectRequest {
    pub container: String,
    pub endpoint_config: Option<EndpointSettings>,
}

/// `POST /networks/{id}/disconnect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkDisconnectRequest {
    pub container: String,
    pub force: bool,
}

/// Answer to `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkCreateResponse {
    pub id: String,
    pub warning: String,
}

/// `POST /networks/prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworksPruneResponse {
    pub networks_deleted: Option<Vec<String>>,
}

impl EndpointSpec {
    pub(crate) fn to_model(&self) -> Result<m::EndpointSpec, SpecError> {
        let mode = match self.mode.as_str() {
            "" => m::ResolutionMode::Vip,
            word @ ("vip" | "dnsrr") => m::ResolutionMode::from_word(word).unwrap_or_default(),
            _ => return Err(SpecError::ResolutionMode(self.mode.clone())),
        };
        Ok(m::EndpointSpec { mode, ports: self.ports.iter().map(PortConfig::to_model).collect() })
    }

    pub(crate) fn from_model(spec: &m::EndpointSpec) -> Self {
        Self { mode: spec.mode.word().to_owned(), ports: spec.ports.iter().map(PortConfig::from_model).collect() }
    }
}

impl PortConfig {
    /// Unknown words become the default, as in dockerd.
    fn to_model(&self) -> m::PortConfig {
        m::PortConfig {
            name: self.name.clone(),
            protocol: m::PortProtocol::from_word(&self.protocol).unwrap_or_default(),
            target_port: self.target_port,
            published_port: self.published_port,
            publish_mode: m::PublishMode::from_word(&self.publish_mode).unwrap_or_default(),
        }
    }

    pub(crate) fn from_model(port: &m::PortConfig) -> Self {
        Self {
            name: port.name.clone(),
            protocol: port.protocol.word().to_owned(),
            target_port: port.target_port,
            published_port: port.published_port,
            publish_mode: port.publish_mode.word().to_owned(),
        }
    }
}

impl Endpoint {
    pub(crate) fn from_model(endpoint: Option<&m::Endpoint>) -> Self {
        let Some(endpoint) = endpoint else { return Self::default() };
        Self {
            spec: endpoint.spec.as_ref().map(EndpointSpec::from_model).unwrap_or_default(),
            ports: endpoint.ports.iter().map(PortConfig::from_model).collect(),
            virtual_ips: endpoint
                .virtual_ips
                .iter()
                .map(|vip| EndpointVirtualIp { network_id: vip.network_id.to_string(), addr: vip.addr.clone() })
                .collect(),
        }
    }
}

impl NetworkAttachment {
    pub(crate) fn from_model(attachment: &m::NetworkAttachment) -> Self {
        Self {
            network: attachment.network.as_deref().map(SwarmNetwork::from_model).unwrap_or_default(),
            addresses: attachment.addresses.clone(),
        }
    }
}

/// Whether it is the routing mesh's network, by its field or by the labels of old swarms.
fn is_ingress(network: &m::Network) -> bool {
    let old =
        network.spec.annotations.labels.contains_key(INTERNAL_LABEL) && network.spec.annotations.name == "ingress";
    network.spec.ingress || old
}

impl SwarmNetwork {
    fn from_model(network: &m::Network) -> Self {
        let spec = &network.spec;
        Self {
            id: network.id.to_string(),
            version: Version { index: network.meta.version.0 },
            created_at: network.meta.created_at.into(),
            updated_at: network.meta.updated_at.into(),
            spec: SwarmNetworkSpec {
                name: spec.annotations.name.clone(),
                labels: spec.annotations.labels.clone(),
                driver_configuration: spec.driver_config.as_ref().map(Driver::from_model),
                ipv6_enabled: spec.ipv6_enabled,
                internal: spec.internal,
                attachable: spec.attachable,
                ingress: is_ingress(network),
                ipam_options: spec.ipam.as_ref().map(IpamOptions::from_model),
                config_from: spec.network.clone().map(|network| ConfigReference { network }),
                scope: "swarm".to_owned(),
            },
            driver_state: network.driver_state.as_ref().map(Driver::from_model).unwrap_or_default(),
            ipam_options: network.ipam.as_ref().map(IpamOptions::from_model),
        }
    }
}

impl IpamOptions {
    fn from_model(options: &m::IpamOptions) -> Self {
        let shown = |config: &m::IpamConfig| SwarmIpamConfig {
            subnet: config.subnet.clone(),
            range: config.range.clone(),
            gateway: config.gateway.clone(),
        };
        Self {
            driver: options.driver.as_ref().map(Driver::from_model).unwrap_or_default(),
            configs: options.configs.iter().map(shown).collect(),
        }
    }
}

impl Network {
    /// How a network of the swarm is shown where this node has no part in it.
    pub fn from_model(network: &m::Network) -> Self {
        let spec = &network.spec;
        let ipam = network.ipam.as_ref().or(spec.ipam.as_ref());
        let driver = network.driver_state.as_ref().or(spec.driver_config.as_ref());
        Self {
            name: spec.annotations.name.clone(),
            id: network.id.to_string(),
            created: network.meta.created_at.into(),
            scope: "swarm".to_owned(),
            driver: driver.map(|driver| driver.name.clone()).unwrap_or_default(),
            enable_ipv4: true,
            enable_ipv6: spec.ipv6_enabled,
            ipam: Ipam::from_model(ipam),
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: is_ingress(network),
            config_from: ConfigReference { network: spec.network.clone().unwrap_or_default() },
            config_only: false,
            containers: None,
            options: driver.map(|driver| driver.options.clone()).filter(|options| !options.is_empty()),
            labels: (!spec.annotations.labels.is_empty()).then(|| spec.annotations.labels.clone()),
            peers: Vec::new(),
            services: BTreeMap::new(),
        }
    }
}

impl Ipam {
    fn from_model(options: Option<&m::IpamOptions>) -> Self {
        let Some(options) = options else { return Self::default() };
        let shown = |config: &m::IpamConfig| IpamConfig {
            subnet: config.subnet.clone(),
            ip_range: config.range.clone(),
            gateway: config.gateway.clone(),
            auxiliary_addresses: config.reserved.clone(),
        };
        let driver = options.driver.as_ref();
        Self {
            driver: driver.map(|driver| driver.name.clone()).unwrap_or_default(),
            options: driver.map(|driver| driver.options.clone()).filter(|options| !options.is_empty()),
            config: Some(options.configs.iter().map(shown).collect()),
        }
    }
}

impl NetworkCreateRequest {
    /// What it means as a network of the swarm.
    pub fn to_model(&self) -> m::NetworkSpec {
        m::NetworkSpec {
            annotations: annotations(&self.name, &self.labels),
            driver_config: Some(m::Driver { name: self.driver.clone(), options: self.options.clone() }),
            ipv6_enabled: self.enable_ipv6.unwrap_or(false),
            internal: self.internal,
            ipam: self.ipam.as_ref().map(Ipam::to_model),
            attachable: self.attachable,
            ingress: self.ingress,
            network: self.config_from.as_ref().map(|from| from.network.clone()).filter(|name| !name.is_empty()),
        }
    }
}

impl Ipam {
    fn to_model(&self) -> m::IpamOptions {
        let driver = if self.driver.is_empty() { "default" } else { &self.driver };
        let meant = |config: &IpamConfig| m::IpamConfig {
            family: m::AddressFamily::Unknown,
            subnet: config.subnet.clone(),
            range: config.ip_range.clone(),
            gateway: config.gateway.clone(),
            reserved: config.auxiliary_addresses.clone(),
        };
        m::IpamOptions {
            driver: Some(m::Driver { name: driver.to_owned(), options: self.options.clone().unwrap_or_default() }),
            configs: self.config.iter().flatten().map(meant).collect(),
        }
    }
}
