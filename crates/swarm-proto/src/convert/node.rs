//! Conversions of `model::node`: one field a line, nothing decided.

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::PluginDescription {
    type Proto = p::PluginDescription;
    fn to_proto(&self) -> p::PluginDescription {
        p::PluginDescription { kind: self.kind.clone(), name: self.name.clone() }
    }
}

impl FromProto for m::PluginDescription {
    type Proto = p::PluginDescription;
    fn from_proto(p: p::PluginDescription) -> Result<Self, ConvertError> {
        Ok(m::PluginDescription { kind: p.kind, name: p.name })
    }
}

impl ToProto for m::EngineDescription {
    type Proto = p::EngineDescription;
    fn to_proto(&self) -> p::EngineDescription {
        p::EngineDescription {
            engine_version: self.engine_version.clone(),
            labels: self.labels.clone().into_iter().collect(),
            plugins: list_to_proto(&self.plugins),
        }
    }
}

impl FromProto for m::EngineDescription {
    type Proto = p::EngineDescription;
    fn from_proto(p: p::EngineDescription) -> Result<Self, ConvertError> {
        Ok(m::EngineDescription {
            engine_version: p.engine_version,
            labels: p.labels.into_iter().collect(),
            plugins: list_from_proto(p.plugins)?,
        })
    }
}

impl ToProto for m::NodeDescription {
    type Proto = p::NodeDescription;
    fn to_proto(&self) -> p::NodeDescription {
        p::NodeDescription {
            hostname: self.hostname.clone(),
            platform: option_to_proto(self.platform.as_ref()),
            resources: option_to_proto(self.resources.as_ref()),
            engine: option_to_proto(self.engine.as_ref()),
            tls_info: option_to_proto(self.tls_info.as_ref()),
            fips: self.fips,
            csi_info: list_to_proto(&self.csi_info),
        }
    }
}

impl FromProto for m::NodeDescription {
    type Proto = p::NodeDescription;
    fn from_proto(p: p::NodeDescription) -> Result<Self, ConvertError> {
        Ok(m::NodeDescription {
            hostname: p.hostname,
            platform: option_from_proto(p.platform)?,
            resources: option_from_proto(p.resources)?,
            engine: option_from_proto(p.engine)?,
            tls_info: option_from_proto(p.tls_info)?,
            fips: p.fips,
            csi_info: list_from_proto(p.csi_info)?,
        })
    }
}

impl ToProto for m::NodeTlsInfo {
    type Proto = p::NodeTlsInfo;
    fn to_proto(&self) -> p::NodeTlsInfo {
        p::NodeTlsInfo {
            trust_root: self.trust_root.clone(),
            cert_issuer_subject: self.cert_issuer_subject.clone(),
            cert_issuer_public_key: self.cert_issuer_public_key.clone(),
        }
    }
}

impl FromProto for m::NodeTlsInfo {
    type Proto = p::NodeTlsInfo;
    fn from_proto(p: p::NodeTlsInfo) -> Result<Self, ConvertError> {
        Ok(m::NodeTlsInfo {
            trust_root: p.trust_root,
            cert_issuer_subject: p.cert_issuer_subject,
            cert_issuer_public_key: p.cert_issuer_public_key,
        })
    }
}

impl ToProto for m::NodeCsiInfo {
    type Proto = p::NodeCsiInfo;
    fn to_proto(&self) -> p::NodeCsiInfo {
        p::NodeCsiInfo {
            plugin_name: self.plugin_name.clone(),
            node_id: self.node_id.clone(),
            max_volumes_per_node: self.max_volumes_per_node,
            accessible_topology: option_to_proto(self.accessible_topology.as_ref()),
        }
    }
}

impl FromProto for m::NodeCsiInfo {
    type Proto = p::NodeCsiInfo;
    fn from_proto(p: p::NodeCsiInfo) -> Result<Self, ConvertError> {
        Ok(m::NodeCsiInfo {
            plugin_name: p.plugin_name,
            node_id: p.node_id,
            max_volumes_per_node: p.max_volumes_per_node,
            accessible_topology: option_from_proto(p.accessible_topology)?,
        })
    }
}

impl ToProto for m::RaftMemberStatus {
    type Proto = p::RaftMemberStatus;
    fn to_proto(&self) -> p::RaftMemberStatus {
        p::RaftMemberStatus {
            leader: self.leader,
            reachability: self.reachability as i32,
            message: self.message.clone(),
        }
    }
}

impl FromProto for m::RaftMemberStatus {
    type Proto = p::RaftMemberStatus;
    fn from_proto(p: p::RaftMemberStatus) -> Result<Self, ConvertError> {
        Ok(m::RaftMemberStatus {
            leader: p.leader,
            reachability: m::Reachability::from_number(p.reachability)
                .ok_or(ConvertError { field: "RaftMemberStatus.reachability", number: p.reachability })?,
            message: p.message,
        })
    }
}

impl ToProto for m::NodeStatus {
    type Proto = p::NodeStatus;
    fn to_proto(&self) -> p::NodeStatus {
        p::NodeStatus { state: self.state as i32, message: self.message.clone(), addr: self.addr.clone() }
    }
}

impl FromProto for m::NodeStatus {
    type Proto = p::NodeStatus;
    fn from_proto(p: p::NodeStatus) -> Result<Self, ConvertError> {
        Ok(m::NodeStatus {
            state: m::NodeState::from_number(p.state)
                .ok_or(ConvertError { field: "NodeStatus.state", number: p.state })?,
            message: p.message,
            addr: p.addr,
        })
    }
}

impl ToProto for m::IssuanceStatus {
    type Proto = p::IssuanceStatus;
    fn to_proto(&self) -> p::IssuanceStatus {
        p::IssuanceStatus { state: self.state as i32, err: self.err.clone() }
    }
}

impl FromProto for m::IssuanceStatus {
    type Proto = p::IssuanceStatus;
    fn from_proto(p: p::IssuanceStatus) -> Result<Self, ConvertError> {
        Ok(m::IssuanceStatus {
            state: m::IssuanceState::from_number(p.state)
                .ok_or(ConvertError { field: "IssuanceStatus.state", number: p.state })?,
            err: p.err,
        })
    }
}

impl ToProto for m::Certificate {
    type Proto = p::Certificate;
    fn to_proto(&self) -> p::Certificate {
        p::Certificate {
            role: self.role as i32,
            csr: self.csr.clone(),
            status: Some(self.status.to_proto()),
            certificate: self.certificate.clone(),
            cn: self.cn.clone(),
        }
    }
}

impl FromProto for m::Certificate {
    type Proto = p::Certificate;
    fn from_proto(p: p::Certificate) -> Result<Self, ConvertError> {
        Ok(m::Certificate {
            role: m::NodeRole::from_number(p.role).ok_or(ConvertError { field: "Certificate.role", number: p.role })?,
            csr: p.csr,
            status: FromProto::from_proto(p.status.unwrap_or_default())?,
            certificate: p.certificate,
            cn: p.cn,
        })
    }
}

impl ToProto for m::ManagerStatus {
    type Proto = p::ManagerStatus;
    fn to_proto(&self) -> p::ManagerStatus {
        p::ManagerStatus {
            raft_id: self.raft_id.0,
            addr: self.addr.clone(),
            leader: self.leader,
            reachability: self.reachability as i32,
        }
    }
}

impl FromProto for m::ManagerStatus {
    type Proto = p::ManagerStatus;
    fn from_proto(p: p::ManagerStatus) -> Result<Self, ConvertError> {
        Ok(m::ManagerStatus {
            raft_id: m::RaftId(p.raft_id),
            addr: p.addr,
            leader: p.leader,
            reachability: m::Reachability::from_number(p.reachability)
                .ok_or(ConvertError { field: "ManagerStatus.reachability", number: p.reachability })?,
        })
    }
}

impl ToProto for m::NodeSpec {
    type Proto = p::NodeSpec;
    fn to_proto(&self) -> p::NodeSpec {
        p::NodeSpec {
            annotations: Some(self.annotations.to_proto()),
            desired_role: self.desired_role as i32,
            membership: self.membership as i32,
            availability: self.availability as i32,
        }
    }
}

impl FromProto for m::NodeSpec {
    type Proto = p::NodeSpec;
    fn from_proto(p: p::NodeSpec) -> Result<Self, ConvertError> {
        Ok(m::NodeSpec {
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            desired_role: m::NodeRole::from_number(p.desired_role)
                .ok_or(ConvertError { field: "NodeSpec.desired_role", number: p.desired_role })?,
            membership: m::NodeMembership::from_number(p.membership)
                .ok_or(ConvertError { field: "NodeSpec.membership", number: p.membership })?,
            availability: m::NodeAvailability::from_number(p.availability)
                .ok_or(ConvertError { field: "NodeSpec.availability", number: p.availability })?,
        })
    }
}

impl ToProto for m::Node {
    type Proto = p::Node;
    fn to_proto(&self) -> p::Node {
        p::Node {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            spec: Some(self.spec.to_proto()),
            description: option_to_proto(self.description.as_ref()),
            status: Some(self.status.to_proto()),
            manager_status: option_to_proto(self.manager_status.as_ref()),
            attachment: option_to_proto(self.attachment.as_ref()),
            certificate: Some(self.certificate.to_proto()),
            role: self.role as i32,
            attachments: list_to_proto(&self.attachments),
            vxlan_udp_port: self.vxlan_udp_port,
        }
    }
}

impl FromProto for m::Node {
    type Proto = p::Node;
    fn from_proto(p: p::Node) -> Result<Self, ConvertError> {
        Ok(m::Node {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: FromProto::from_proto(p.spec.unwrap_or_default())?,
            description: option_from_proto(p.description)?,
            status: FromProto::from_proto(p.status.unwrap_or_default())?,
            manager_status: option_from_proto(p.manager_status)?,
            attachment: option_from_proto(p.attachment)?,
            certificate: FromProto::from_proto(p.certificate.unwrap_or_default())?,
            role: m::NodeRole::from_number(p.role).ok_or(ConvertError { field: "Node.role", number: p.role })?,
            attachments: list_from_proto(p.attachments)?,
            vxlan_udp_port: p.vxlan_udp_port,
        })
    }
}
