//! Setting right what is not as it should be: at the start, and whenever the caller knows which containers there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::NetError;
use crate::ingress::sandbox_path;
use crate::links::Links;
use crate::net::Inner;
use crate::netns::{self, Namespace};
use crate::overlay::{OverlayRecord, balancer_path, network_path};
use crate::state::kernel;
use crate::store::{Folder, Place, SandboxRecord};

/// What [`crate::Net::reconcile`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReconcileReport {
    /// Containers whose sandboxes were left over.
    pub removed_sandboxes: Vec<String>,
    /// Pinned namespaces that belonged to nobody.
    pub removed_namespaces: Vec<String>,
    /// Known containers whose namespace is gone (after a reboot); their sandboxes must be made anew.
    pub lost_sandboxes: Vec<String>,
}

impl Inner {
    /// See [`crate::Net::reconcile`].
    pub(crate) async fn reconcile(&self, known: &BTreeSet<String>) -> Result<ReconcileReport, NetError> {
        let mut report = ReconcileReport::default();
        self.mend_overlays().await?;
        let records: Vec<SandboxRecord> = self.state().sandboxes.values().cloned().collect();
        for record in records {
            let container_id = &record.spec.container_id;
            if !known.contains(container_id) {
                self.remove_sandbox(container_id).await?;
                report.removed_sandboxes.push(container_id.clone());
            } else if is_lost(&record) || self.has_lost_link(&record).await? {
                self.remove_sandbox(container_id).await?;
                report.lost_sandboxes.push(container_id.clone());
            }
        }
        report.removed_namespaces = self.remove_stray_namespaces()?;
        self.remove_stray_links().await?;
        let mut state = self.state();
        if let Some(ingress) = &mut state.ingress {
            ingress.mesh.restore().map_err(kernel("write the mesh"))?;
        }
        state.write_host(&self.config)?;
        Ok(report)
    }

    /// Removes pins that belong to nobody.
    fn remove_stray_namespaces(&self) -> Result<Vec<String>, NetError> {
        let folder = self.config.exec_root.join("netns");
        let owned: BTreeSet<_> = {
            let state = self.state();
            let sandboxes = state.sandboxes.values().filter_map(|record| record.sandbox.netns.clone());
            let records = self.store.read_all::<OverlayRecord>(Folder::Overlays)?;
            let overlays = records.iter().map(|(network_id, _)| network_path(&self.config, network_id));
            let balancers = records.iter().filter(|(_, record)| record.balancer.is_some());
            let balancers = balancers.map(|(network_id, _)| balancer_path(&self.config, network_id));
            let ingress = state.ingress.iter().map(|_| sandbox_path(&self.config));
            sandboxes.chain(overlays).chain(balancers).chain(ingress).collect()
        };
        let mut removed = Vec::new();
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(removed) };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| !owned.contains(path)) {
            netns::remove(&path).map_err(|source| NetError::File { path: path.clone(), source })?;
            removed.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        Ok(removed)
    }

    /// Removes veth ends on our bridges whose sandbox is gone.
    async fn remove_stray_links(&self) -> Result<(), NetError> {
        let owned: BTreeSet<String> = {
            let state = self.state();
            let sandboxes = state.sandboxes.values().flat_map(|record| record.links.clone());
            let ingress = state.ingress.iter().flat_map(|ingress| ingress.record.links.clone());
            let balancers = state.overlays.values().filter_map(|overlay| overlay.record.balancer.as_ref());
            sandboxes
                .chain(ingress)
                .chain(balancers.map(|balancer| balancer.link.clone()))
                .map(|link| link.name)
                .chain(self.fading.names())
                .collect()
        };
        let bridges: Vec<(Arc<Links>, u32)> = {
            let state = self.state();
            let own = [Some(self.bridge_index), state.gwbridge_index].into_iter();
            let own = own.chain(state.bridges.values().map(|bridge| bridge.index)).flatten();
            let own = own.map(|index| (Arc::clone(&self.links), index));
            let overlays = state.overlays.values();
            let overlays =
                overlays.flat_map(|overlay| overlay.devices.iter().map(|device| (&overlay.links, device.bridge)));
            own.chain(overlays.map(|(links, index)| (Arc::clone(links), index))).collect()
        };
        for (links, bridge) in bridges {
            for port in links.ports(bridge).await.map_err(kernel("list links"))? {
                if is_ours(&port) && !owned.contains(&port) {
                    links.remove(&port).await.map_err(kernel(format!("remove link {port}")))?;
                }
            }
        }
        Ok(())
    }

    /// Whether a link of a sandbox went with an overlay network that has been made anew, or is gone.
    async fn has_lost_link(&self, record: &SandboxRecord) -> Result<bool, NetError> {
        for link in record.links.iter().filter(|link| link.place != Place::Host) {
            let found = match self.links_at(&link.place) {
                Some(links) => links.index(&link.name).await.map_err(kernel("find a link"))?,
                None => None,
            };
            if found.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A veth name of ours: `veth` and seven hex digits. Others' links on a shared bridge are not touched.
fn is_ours(link: &str) -> bool {
    link.strip_prefix("veth").is_some_and(|rest| rest.len() == 7 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether the namespace of a record is gone, or was never finished.
pub(crate) fn is_lost(record: &SandboxRecord) -> bool {
    match &record.sandbox.netns {
        _ if !record.is_ready => true,
        Some(path) => !matches!(Namespace::pinned(path), Ok(Some(_))),
        None => false,
    }
}
