//! Which tasks of this node stand behind which published ports. A task joins when it is running and healthy, and is out
//! of the kernel's tables before `leave` returns.
//!
//! The table lies in the exec root, so that a new daemon knows the tasks of the former one: what it does not find there
//! (after a reboot) is gone from the kernel as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use model::TaskId;
use net::{Backend, ClientAddress, IngressPort, Net, NetError, PortGroup};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Time between two looks at the open connections of a task that leaves; it doubles.
const SHORTEST_LOOK: Duration = Duration::from_millis(2);
/// Longest time between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// Places of tasks behind published ports.
pub(crate) struct Balancer {
    net: Net,
    file: PathBuf,
    table: Mutex<Table>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    services: BTreeMap<String, Members>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Members {
    ports: Vec<IngressPort>,
    /// Task to its address on the ingress network.
    tasks: BTreeMap<String, Ipv4Addr>,
}

/// Where a task stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) service_id: String,
    pub(crate) task_id: TaskId,
    pub(crate) address: Ipv4Addr,
    pub(crate) ports: Vec<IngressPort>,
}

impl Balancer {
    /// Takes over what the former daemon had. A table that cannot be read counts as empty: every running task joins
    /// again when it is assigned again.
    pub(crate) fn open(net: Net, exec_root: &std::path::Path) -> Self {
        let file = exec_root.join("ingress-tasks.json");
        let table = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(file = %file.display(), %error, "the table of the mesh's tasks is damaged");
                Table::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::default(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the table of the mesh's tasks cannot be read");
                Table::default()
            }
        };
        Self { net, file, table: Mutex::new(table) }
    }

    /// Puts a task behind its service's ports; returns when the kernel has it.
    pub(crate) async fn join(&self, place: &Place) -> Result<(), NetError> {
        let mut table = self.table.lock().await;
        let members = table.services.entry(place.service_id.clone()).or_default();
        let known = members.tasks.insert(place.task_id.to_string(), place.address) == Some(place.address);
        if known && members.ports == place.ports {
            return Ok(());
        }
        members.ports.clone_from(&place.ports);
        self.write(&mut table, &place.service_id).await
    }

    /// Takes a task out; returns when the kernel sends it no new connection. `Ok(false)`: it was not in.
    pub(crate) async fn leave(&self, service_id: &str, task: &TaskId) -> Result<bool, NetError> {
        let mut table = self.table.lock().await;
        let Some(members) = table.services.get_mut(service_id) else { return Ok(false) };
        if members.tasks.remove(task.as_str()).is_none() {
            return Ok(false);
        }
        self.write(&mut table, service_id).await.map(|()| true)
    }

    /// Waits until no connection to a task that has left is open, at the most for `limit`: what was asked before it left
    /// may be answered.
    pub(crate) async fn drain(&self, address: Ipv4Addr, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut pause = SHORTEST_LOOK;
        loop {
            match self.net.open_connections(address) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::warn!(%error, "open connections cannot be counted"),
            }
            if Instant::now() + pause > deadline {
                return;
            }
            // The kernel tells of ends by events only if nf_conntrack_events is on, and of all flows at once.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Takes out every task but these.
    pub(crate) async fn retain(&self, tasks: &BTreeSet<TaskId>) -> Result<(), NetError> {
        let mut table = self.table.lock().await;
        let mut changed = Vec::new();
        for (service, members) in &mut table.services {
            let before = members.tasks.len();
            members.tasks.retain(|task, _| tasks.contains(&TaskId::from(task.as_str())));
            if members.tasks.len() != before {
                changed.push(service.clone());
            }
        }
        for service in changed {
            self.write(&mut table, &service).await?;
        }
        let strangers = self.net.services().into_iter().filter(|service| !table.services.contains_key(service));
        for service in strangers.collect::<Vec<_>>() {
            self.net.remove_service(&service).await?;
        }
        Ok(())
    }

    async fn write(&self, table: &mut Table, service: &str) -> Result<(), NetError> {
        let Some(members) = table.services.get(service) else { return Ok(()) };
        if members.tasks.is_empty() {
            self.net.remove_service(service).await?;
            table.services.remove(service);
        } else {
            let backends = members.tasks.values().map(|address| Backend::here(*address)).collect();
            let group = PortGroup { ports: members.ports.clone(), backends };
            self.net.set_service(service, vec![group], ClientAddress::Kept).await?;
        }
        if let Err(error) = self.save(table) {
            tracing::warn!(file = %self.file.display(), %error, "the table of the mesh's tasks could not be written");
        }
        Ok(())
    }

    /// The exec root is lost with the kernel's tables, so nothing needs to reach a disk.
    fn save(&self, table: &Table) -> io::Result<()> {
        let temporary = self.file.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(table)?)?;
        std::fs::rename(&temporary, &self.file)
    }
}
