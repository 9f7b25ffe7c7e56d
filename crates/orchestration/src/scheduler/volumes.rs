//! Cluster volumes (CSI): who uses which, which fits a mount, and when a node must publish or unpublish one.

use super::nodes::{NodeInfo, is_on_node};
use model::{
    Node, NodeId, Task, TaskId, TaskRuntime, Topology, Volume, VolumeAttachment, VolumeAvailability,
    VolumePublishState, VolumePublishStatus, VolumeScope, VolumeSharing,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Action, View};

/// The prefix of a mount's source that means any volume of a group.
const GROUP_PREFIX: &str = "group:";

/// One task's use of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    node: NodeId,
    readonly: bool,
}

/// Who uses which volume.
#[derive(Clone, Debug, Default)]
pub(super) struct VolumeUses {
    by_volume: BTreeMap<String, BTreeMap<TaskId, Use>>,
    by_task: BTreeMap<TaskId, BTreeSet<String>>,
}

impl VolumeUses {
    /// Counts a task as it is now.
    pub(super) fn count(&mut self, task: &Task) {
        if task.volumes.is_empty() && !self.by_task.contains_key(&task.id) {
            return;
        }
        self.forget(&task.id);
        let Some(node) = task.node_id.as_ref().filter(|_| is_on_node(task)) else { return };
        for attachment in &task.volumes {
            let used = Use { node: node.clone(), readonly: is_readonly(task, attachment) };
            self.by_volume.entry(attachment.id.clone()).or_default().insert(task.id.clone(), used);
            self.by_task.entry(task.id.clone()).or_default().insert(attachment.id.clone());
        }
    }

    pub(super) fn forget(&mut self, task: &TaskId) {
        for volume in self.by_task.remove(task).unwrap_or_default() {
            if let Some(uses) = self.by_volume.get_mut(&volume) {
                uses.remove(task);
                if uses.is_empty() {
                    self.by_volume.remove(&volume);
                }
            }
        }
    }

    /// A volume for each (source, target, read-only) mount on the node; `None` if one lacks.
    pub(super) fn choose(
        &self,
        view: &View,
        info: &NodeInfo,
        mounts: &[(String, String, bool)],
    ) -> Option<Vec<VolumeAttachment>> {
        let mut chosen: Vec<VolumeAttachment> = Vec::with_capacity(mounts.len());
        for (source, target, readonly) in mounts {
            let fits = |volume: &&Arc<Volume>| {
                self.fits(volume, &info.node, *readonly) && !chosen.iter().any(|it| it.id == volume.id.as_str())
            };
            let volume = match source.strip_prefix(GROUP_PREFIX) {
                Some(group) => view.volumes().filter(|volume| volume.spec.group == group).find(fits),
                None => view.by_name::<Volume>(source).filter(fits),
            }?;
            let id = volume.id.to_string();
            chosen.push(VolumeAttachment { id, source: source.clone(), target: target.clone() });
        }
        Some(chosen)
    }

    fn fits(&self, volume: &Volume, node: &Node, readonly: bool) -> bool {
        let Some(created) = &volume.volume_info else { return false };
        if volume.spec.availability != VolumeAvailability::Active || volume.pending_delete {
            return false;
        }
        let none = BTreeMap::new();
        let uses = self.by_volume.get(volume.id.as_str()).unwrap_or(&none);
        let mode = volume.spec.access_mode.clone().unwrap_or_default();
        if mode.scope == VolumeScope::SingleNode && uses.values().any(|it| it.node != node.id) {
            return false;
        }
        let may_share = match mode.sharing {
            VolumeSharing::None => uses.is_empty(),
            VolumeSharing::OneWriter => readonly || uses.values().all(|it| it.readonly),
            VolumeSharing::ReadOnly => readonly,
            VolumeSharing::All => true,
        };
        may_share && is_accessible(&created.accessible_topology, volume, node)
    }

    fn is_used_on(&self, volume: &Volume, node: &NodeId) -> bool {
        self.by_volume.get(volume.id.as_str()).is_some_and(|uses| uses.values().any(|it| it.node == *node))
    }

    /// Volumes that a node is to publish for its tasks, or to unpublish since none of them uses it any more.
    pub(super) fn plan(&self, view: &View) -> Vec<Action> {
        let mut actions = Vec::new();
        for volume in view.volumes() {
            let mut changed = (**volume).clone();
            for status in &mut changed.publish_status {
                if status.state == VolumePublishState::Published && !self.is_used_on(volume, &status.node_id) {
                    status.state = VolumePublishState::PendingNodeUnpublish;
                }
            }
            let uses = self.by_volume.get(volume.id.as_str());
            let nodes: BTreeSet<_> = uses.into_iter().flat_map(|uses| uses.values()).map(|it| &it.node).collect();
            for node in nodes {
                if !changed.publish_status.iter().any(|status| status.node_id == *node) {
                    let status = VolumePublishStatus { node_id: node.clone(), ..Default::default() };
                    changed.publish_status.push(status);
                }
            }
            if changed != **volume {
                actions.push(Action::Update(changed.into()));
            }
        }
        actions
    }
}

fn is_readonly(task: &Task, attachment: &VolumeAttachment) -> bool {
    let Some(TaskRuntime::Container(container)) = &task.spec.runtime else { return false };
    container.mounts.iter().any(|it| it.source == attachment.source && it.target == attachment.target && it.readonly)
}

fn is_accessible(from: &[Topology], volume: &Volume, node: &Node) -> bool {
    if from.is_empty() {
        return true;
    }
    let driver = volume.spec.driver.as_ref().map_or("", |driver| &driver.name);
    let csi_info = node.description.iter().flat_map(|it| &it.csi_info);
    let here = csi_info.filter(|it| it.plugin_name == driver).find_map(|it| it.accessible_topology.as_ref());
    here.is_some_and(|here| {
        from.iter().any(|wanted| wanted.segments.iter().all(|(key, value)| here.segments.get(key) == Some(value)))
    })
}
