//! Nodes.

use std::collections::BTreeMap;

use model as m;
use serde::{Deserialize, Serialize};

use crate::json::{Base64, is_zero};
use crate::service::{SpecError, annotations};
use crate::swarm::{TlsInfo, Version, lossy};
use crate::task::{Platform, Resources};
use crate::time::Time;
use crate::words::Word;

/// `GET /nodes/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: NodeSpec,
    pub description: NodeDescription,
    pub status: NodeStatus,
    #[serde(skip_serializing_if = "is_zero")]
    pub manager_status: Option<ManagerStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub role: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub availability: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeDescription {
    #[serde(skip_serializing_if = "is_zero")]
    pub hostname: String,
    pub platform: Platform,
    pub resources: Resources,
    pub engine: EngineDescription,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    #[serde(rename = "CSIInfo", skip_serializing_if = "is_zero")]
    pub csi_info: Vec<NodeCsiInfo>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EngineDescription {
    #[serde(skip_serializing_if = "is_zero")]
    pub engine_version: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub plugins: Vec<PluginDescription>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PluginDescription {
    #[serde(rename = "Type", skip_serializing_if = "is_zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeCsiInfo {
    #[serde(skip_serializing_if = "is_zero")]
    pub plugin_name: String,
    #[serde(rename = "NodeID", skip_serializing_if = "is_zero")]
    pub node_id: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_volumes_per_node: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub accessible_topology: Option<Topology>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Topology {
    #[serde(skip_serializing_if = "is_zero")]
    pub segments: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeStatus {
    #[serde(skip_serializing_if = "is_zero")]
    pub state: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub message: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub addr: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ManagerStatus {
    #[serde(skip_serializing_if = "is_zero")]
    pub leader: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub reachability: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub addr: String,
}

impl NodeSpec {
    /// What it means in the model. Membership is not said, as dockerd does not.
    pub fn to_model(&self) -> Result<m::NodeSpec, SpecError> {
        Ok(m::NodeSpec {
            annotations: annotations(&self.name, &self.labels),
            desired_role: m::NodeRole::from_word(&self.role).ok_or_else(|| SpecError::NodeRole(self.role.clone()))?,
            membership: m::NodeMembership::Pending,
            availability: m::NodeAvailability::from_word(&self.availability)
                .ok_or_else(|| SpecError::NodeAvailability(self.availability.clone()))?,
        })
    }

    fn from_model(spec: &m::NodeSpec) -> Self {
        Self {
            name: spec.annotations.name.clone(),
            labels: spec.annotations.labels.clone(),
            role: spec.desired_role.word().to_owned(),
            availability: spec.availability.word().to_owned(),
        }
    }
}

impl Node {
    /// How a node is shown.
    pub fn from_model(node: &m::Node) -> Self {
        Self {
            id: node.id.to_string(),
            version: Version { index: node.meta.version.0 },
            created_at: node.meta.created_at.into(),
            updated_at: node.meta.updated_at.into(),
            spec: NodeSpec::from_model(&node.spec),
            description: node.description.as_ref().map(NodeDescription::from_model).unwrap_or_default(),
            status: NodeStatus {
                state: node.status.state.word().to_owned(),
                message: node.status.message.clone(),
                addr: node.status.addr.clone(),
            },
            manager_status: node.manager_status.as_ref().map(|status| ManagerStatus {
                leader: status.leader,
                reachability: status.reachability.word().to_owned(),
                addr: status.addr.clone(),
            }),
        }
    }
}

impl NodeDescription {
    fn from_model(description: &m::NodeDescription) -> Self {
        Self {
            hostname: description.hostname.clone(),
            platform: description.platform.as_ref().map(Platform::from_model).unwrap_or_default(),
            resources: description.resources.as_ref().map(Resources::from_model).unwrap_or_default(),
            engine: description.engine.as_ref().map(EngineDescription::from_model).unwrap_or_default(),
            tls_info: description.tls_info.as_ref().map(TlsInfo::from_model).unwrap_or_default(),
            csi_info: description.csi_info.iter().map(NodeCsiInfo::from_model).collect(),
        }
    }
}

impl TlsInfo {
    fn from_model(info: &m::NodeTlsInfo) -> Self {
        Self {
            trust_root: lossy(&info.trust_root),
            cert_issuer_subject: Base64(info.cert_issuer_subject.clone()),
            cert_issuer_public_key: Base64(info.cert_issuer_public_key.clone()),
        }
    }
}

impl EngineDescription {
    fn from_model(engine: &m::EngineDescription) -> Self {
        let shown =
            |plugin: &m::PluginDescription| PluginDescription { kind: plugin.kind.clone(), name: plugin.name.clone() };
        Self {
            engine_version: engine.engine_version.clone(),
            labels: engine.labels.clone(),
            plugins: engine.plugins.iter().map(shown).collect(),
        }
    }
}

impl NodeCsiInfo {
    fn from_model(info: &m::NodeCsiInfo) -> Self {
        Self {
            plugin_name: info.plugin_name.clone(),
            node_id: info.node_id.clone(),
            max_volumes_per_node: info.max_volumes_per_node,
            accessible_topology: info
                .accessible_topology
                .as_ref()
                .map(|topology| Topology { segments: topology.segments.clone() }),
        }
    }
}
