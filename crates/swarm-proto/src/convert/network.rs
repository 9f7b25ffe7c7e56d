//! Conversions of `model::network`: one field a line, nothing decided.

use std::sync::Arc;

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::NetworkAttachmentConfig {
    type Proto = p::NetworkAttachmentConfig;
    fn to_proto(&self) -> p::NetworkAttachmentConfig {
        p::NetworkAttachmentConfig {
            target: self.target.clone(),
            aliases: self.aliases.clone(),
            addresses: self.addresses.clone(),
            driver_attachment_opts: self.driver_attachment_opts.clone().into_iter().collect(),
        }
    }
}

impl FromProto for m::NetworkAttachmentConfig {
    type Proto = p::NetworkAttachmentConfig;
    fn from_proto(p: p::NetworkAttachmentConfig) -> Result<Self, ConvertError> {
        Ok(m::NetworkAttachmentConfig {
            target: p.target,
            aliases: p.aliases,
            addresses: p.addresses,
            driver_attachment_opts: p.driver_attachment_opts.into_iter().collect(),
        })
    }
}

impl ToProto for m::IpamConfig {
    type Proto = p::IpamConfig;
    fn to_proto(&self) -> p::IpamConfig {
        p::IpamConfig {
            family: self.family as i32,
            subnet: self.subnet.clone(),
            range: self.range.clone(),
            gateway: self.gateway.clone(),
            reserved: self.reserved.clone().into_iter().collect(),
        }
    }
}

impl FromProto for m::IpamConfig {
    type Proto = p::IpamConfig;
    fn from_proto(p: p::IpamConfig) -> Result<Self, ConvertError> {
        Ok(m::IpamConfig {
            family: m::AddressFamily::from_number(p.family)
                .ok_or(ConvertError { field: "IPAMConfig.family", number: p.family })?,
            subnet: p.subnet,
            range: p.range,
            gateway: p.gateway,
            reserved: p.reserved.into_iter().collect(),
        })
    }
}

impl ToProto for m::PortConfig {
    type Proto = p::PortConfig;
    fn to_proto(&self) -> p::PortConfig {
        p::PortConfig {
            name: self.name.clone(),
            protocol: self.protocol as i32,
            target_port: self.target_port,
            published_port: self.published_port,
            publish_mode: self.publish_mode as i32,
        }
    }
}

impl FromProto for m::PortConfig {
    type Proto = p::PortConfig;
    fn from_proto(p: p::PortConfig) -> Result<Self, ConvertError> {
        Ok(m::PortConfig {
            name: p.name,
            protocol: m::PortProtocol::from_number(p.protocol)
                .ok_or(ConvertError { field: "PortConfig.protocol", number: p.protocol })?,
            target_port: p.target_port,
            published_port: p.published_port,
            publish_mode: m::PublishMode::from_number(p.publish_mode)
                .ok_or(ConvertError { field: "PortConfig.publish_mode", number: p.publish_mode })?,
        })
    }
}

impl ToProto for m::IpamOptions {
    type Proto = p::IpamOptions;
    fn to_proto(&self) -> p::IpamOptions {
        p::IpamOptions { driver: option_to_proto(self.driver.as_ref()), configs: list_to_proto(&self.configs) }
    }
}

impl FromProto for m::IpamOptions {
    type Proto = p::IpamOptions;
    fn from_proto(p: p::IpamOptions) -> Result<Self, ConvertError> {
        Ok(m::IpamOptions { driver: option_from_proto(p.driver)?, configs: list_from_proto(p.configs)? })
    }
}

impl ToProto for m::EndpointSpec {
    type Proto = p::EndpointSpec;
    fn to_proto(&self) -> p::EndpointSpec {
        p::EndpointSpec { mode: self.mode as i32, ports: list_to_proto(&self.ports) }
    }
}

impl FromProto for m::EndpointSpec {
    type Proto = p::EndpointSpec;
    fn from_proto(p: p::EndpointSpec) -> Result<Self, ConvertError> {
        Ok(m::EndpointSpec {
            mode: m::ResolutionMode::from_number(p.mode)
                .ok_or(ConvertError { field: "EndpointSpec.mode", number: p.mode })?,
            ports: list_from_proto(p.ports)?,
        })
    }
}

impl ToProto for m::NetworkSpec {
    type Proto = p::NetworkSpec;
    fn to_proto(&self) -> p::NetworkSpec {
        p::NetworkSpec {
            annotations: Some(self.annotations.to_proto()),
            driver_config: option_to_proto(self.driver_config.as_ref()),
            ipv6_enabled: self.ipv6_enabled,
            internal: self.internal,
            ipam: option_to_proto(self.ipam.as_ref()),
            attachable: self.attachable,
            ingress: self.ingress,
            config_from: self.network.clone().map(p::network_spec::ConfigFrom::Network),
        }
    }
}

impl FromProto for m::NetworkSpec {
    type Proto = p::NetworkSpec;
    fn from_proto(p: p::NetworkSpec) -> Result<Self, ConvertError> {
        Ok(m::NetworkSpec {
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            driver_config: option_from_proto(p.driver_config)?,
            ipv6_enabled: p.ipv6_enabled,
            internal: p.internal,
            ipam: option_from_proto(p.ipam)?,
            attachable: p.attachable,
            ingress: p.ingress,
            network: p.config_from.map(|p::network_spec::ConfigFrom::Network(v)| v),
        })
    }
}

impl ToProto for m::Endpoint {
    type Proto = p::Endpoint;
    fn to_proto(&self) -> p::Endpoint {
        p::Endpoint {
            spec: option_to_proto(self.spec.as_ref()),
            ports: list_to_proto(&self.ports),
            virtual_ips: list_to_proto(&self.virtual_ips),
        }
    }
}

impl FromProto for m::Endpoint {
    type Proto = p::Endpoint;
    fn from_proto(p: p::Endpoint) -> Result<Self, ConvertError> {
        Ok(m::Endpoint {
            spec: option_from_proto(p.spec)?,
            ports: list_from_proto(p.ports)?,
            virtual_ips: list_from_proto(p.virtual_ips)?,
        })
    }
}

impl ToProto for m::VirtualIp {
    type Proto = p::VirtualIp;
    fn to_proto(&self) -> p::VirtualIp {
        p::VirtualIp { network_id: self.network_id.to_string(), addr: self.addr.clone() }
    }
}

impl FromProto for m::VirtualIp {
    type Proto = p::VirtualIp;
    fn from_proto(p: p::VirtualIp) -> Result<Self, ConvertError> {
        Ok(m::VirtualIp { network_id: p.network_id.into(), addr: p.addr })
    }
}

impl ToProto for m::NetworkAttachment {
    type Proto = p::NetworkAttachment;
    fn to_proto(&self) -> p::NetworkAttachment {
        p::NetworkAttachment {
            network: self.network.as_ref().map(|v| v.to_proto()),
            addresses: self.addresses.clone(),
            aliases: self.aliases.clone(),
            driver_attachment_opts: self.driver_attachment_opts.clone().into_iter().collect(),
        }
    }
}

impl FromProto for m::NetworkAttachment {
    type Proto = p::NetworkAttachment;
    fn from_proto(p: p::NetworkAttachment) -> Result<Self, ConvertError> {
        Ok(m::NetworkAttachment {
            network: option_from_proto(p.network)?.map(Arc::new),
            addresses: p.addresses,
            aliases: p.aliases,
            driver_attachment_opts: p.driver_attachment_opts.into_iter().collect(),
        })
    }
}

impl ToProto for m::Network {
    type Proto = p::Network;
    fn to_proto(&self) -> p::Network {
        p::Network {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            spec: Some(self.spec.to_proto()),
            driver_state: option_to_proto(self.driver_state.as_ref()),
            ipam: option_to_proto(self.ipam.as_ref()),
            pending_delete: self.pending_delete,
            extra: option_to_proto(self.extra.as_ref()),
        }
    }
}

impl FromProto for m::Network {
    type Proto = p::Network;
    fn from_proto(p: p::Network) -> Result<Self, ConvertError> {
        Ok(m::Network {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: FromProto::from_proto(p.spec.unwrap_or_default())?,
            driver_state: option_from_proto(p.driver_state)?,
            ipam: option_from_proto(p.ipam)?,
            pending_delete: p.pending_delete,
            extra: option_from_proto(p.extra)?,
        })
    }
}
