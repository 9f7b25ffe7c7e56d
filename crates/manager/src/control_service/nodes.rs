//! Nodes over gRPC.

use model::{Node, NodeSpec};
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;

use super::filter::{any_or_none, has_labels};
use super::handlers::{Handlers, given, required, version};
use crate::control::{RemoveKind, fill_manager_status};
use crate::error::ControlError;

impl Handlers {
    fn node(&self, node: &Node) -> p::Node {
        let mut node = node.clone();
        fill_manager_status(&self.control.group(), &mut node);
        node.to_proto()
    }

    pub(super) fn get_node(&self, request: p::GetNodeRequest) -> Result<p::GetNodeResponse, ControlError> {
        let id = given(request.node_id)?;
        let view = self.view();
        let node = view.node(&id).ok_or_else(|| ControlError::not_found("node", &id))?;
        Ok(p::GetNodeResponse { node: Some(self.node(node)) })
    }

    pub(super) fn list_nodes(&self, request: p::ListNodesRequest) -> Result<p::ListNodesResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let view = self.view();
        let nodes = view.nodes().filter(|node| takes(&filters, node)).map(|node| self.node(node)).collect();
        Ok(p::ListNodesResponse { nodes })
    }

    pub(super) async fn update_node(
        &self,
        request: p::UpdateNodeRequest,
    ) -> Result<p::UpdateNodeResponse, ControlError> {
        let id = given(request.node_id)?;
        let version = version(request.node_version)?;
        self.control.update_node(&id, version, required::<NodeSpec>(request.spec)?).await?;
        Ok(p::UpdateNodeResponse { node: Some(self.read::<Node>("node", &id)?) })
    }

    pub(super) async fn remove_node(
        &self,
        request: p::RemoveNodeRequest,
    ) -> Result<p::RemoveNodeResponse, ControlError> {
        let kind = if request.force { RemoveKind::Force } else { RemoveKind::Safe };
        self.control.remove_node(&given(request.node_id)?, kind).await?;
        Ok(p::RemoveNodeResponse {})
    }
}

fn takes(filters: &p::ListNodesRequestFilters, node: &Node) -> bool {
    let hostname = node.description.as_ref().map(|description| description.hostname.as_str());
    let engine = node.description.as_ref().and_then(|description| description.engine.as_ref());
    any_or_none(&filters.names, |name| Some(name.as_str()) == hostname)
        && any_or_none(&filters.name_prefixes, |prefix| hostname.is_some_and(|name| name.starts_with(prefix.as_str())))
        && any_or_none(&filters.id_prefixes, |prefix| node.id.as_str().starts_with(prefix.as_str()))
        && (filters.labels.is_empty() || engine.is_some_and(|engine| has_labels(&filters.labels, &engine.labels)))
        && has_labels(&filters.node_labels, &node.spec.annotations.labels)
        && any_or_none(&filters.roles, |role| *role == node.role as i32)
        && any_or_none(&filters.memberships, |membership| *membership == node.spec.membership as i32)
}
