//! Tasks: network attachments, addresses, the copy of the service's endpoint, and the step from NEW to PENDING.

use super::Allocator;
use super::networks::{Held, ingress, resolve};
use super::services::{needs_ingress, network_targets};
use super::subnets::parse_address;
use model::{Network, NetworkAttachment, NetworkAttachmentConfig, Task, TaskId, TaskState, Timestamp};
use std::net::IpAddr;
use std::sync::Arc;
use store::{Transaction, View};

/// What a task that may be scheduled says.
pub const PENDING_MESSAGE: &str = "pending task scheduling";

/// Whether the task still lacks what the allocator gives, and shall have it.
pub(super) fn is_unallocated(task: &Task) -> bool {
    task.status.state < TaskState::Pending && task.desired_state <= TaskState::Complete
}

/// Whether the task's addresses are in use: from its allocation until it has stopped.
pub(super) fn is_live(task: &Task) -> bool {
    task.status.state <= TaskState::Running
}

/// Whether the task's node needs an address on each of the task's networks.
pub(super) fn needs_node_address(task: &Task) -> bool {
    is_live(task) && !task.networks.is_empty()
}

fn attachment(network: &Arc<Network>, config: &NetworkAttachmentConfig) -> NetworkAttachment {
    NetworkAttachment {
        network: Some(network.clone()),
        addresses: config.addresses.clone(),
        aliases: config.aliases.clone(),
        driver_attachment_opts: config.driver_attachment_opts.clone(),
    }
}

/// What the task is to be attached to; addresses are those asked for.
fn wanted_attachments(view: &View, task: &Task) -> Result<Vec<NetworkAttachment>, String> {
    if !task.networks.is_empty() {
        return Ok(task.networks.clone());
    }
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    let mut attachments = Vec::new();
    if service.is_some_and(|service| needs_ingress(&service.spec)) {
        let network = ingress(view).ok_or("ingress network is missing")?;
        attachments.push(attachment(network, &NetworkAttachmentConfig::default()));
    }
    let configs = match service {
        Some(service) if task.spec.networks.is_empty() => network_targets(&service.spec),
        _ => &task.spec.networks,
    };
    for config in configs {
        let network = resolve(view, &config.target).ok_or_else(|| format!("network {} not found", config.target))?;
        attachments.push(attachment(network, config));
    }
    Ok(attachments)
}

impl Allocator {
    /// Takes the addresses of a stored task.
    pub(super) fn adopt_task(&mut self, task: &Task) {
        if !is_live(task) || task.networks.is_empty() || task.status.state < TaskState::Pending {
            return;
        }
        let mut addresses = Vec::new();
        for attachment in &task.networks {
            let Some(network) = &attachment.network else { continue };
            let Some(state) = self.networks.get_mut(&network.id).filter(|state| !state.local) else { continue };
            for text in &attachment.addresses {
                if let Ok((address, _)) = state.reserve(text) {
                    addresses.push(Held { network: network.id.clone(), address });
                }
            }
        }
        self.hold(&task.id, addresses);
        if task.node_id.is_some() {
            self.place_task(&task.id);
        }
    }

    fn hold(&mut self, id: &TaskId, addresses: Vec<Held>) {
        for held in &addresses {
            if let Some(state) = self.networks.get_mut(&held.network) {
                state.await_node(id);
            }
        }
        if !addresses.is_empty() {
            self.tasks.insert(id.clone(), addresses.into_boxed_slice());
        }
    }

    /// The task is on its node, which is given its own address before anything else is handed out.
    pub(super) fn place_task(&mut self, id: &TaskId) {
        for held in self.tasks.get(id).iter().flat_map(|held| held.iter()) {
            if let Some(state) = self.networks.get_mut(&held.network) {
                self.freed |= state.is_placed(id);
            }
        }
    }

    /// Gives the task's addresses back; the second time there are none.
    pub(super) fn forget_task(&mut self, id: &TaskId) {
        self.place_task(id);
        if let Some(addresses) = self.tasks.remove(id) {
            self.release(&addresses);
        }
    }

    pub(super) fn plan_task(
        &mut self,
        transaction: &mut Transaction,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<(), String> {
        let Some(task) = transaction.task(id).cloned() else { return Ok(()) };
        if !is_unallocated(&task) {
            return Ok(());
        }
        // What its service waits for.
        if let Some(why) = task.service_id.as_ref().and_then(|id| self.waiting.get(&id.clone().into())) {
            return Err(why.clone());
        }
        let endpoint = match &task.service_id {
            None => task.endpoint.clone(),
            Some(service) => match transaction.service(service) {
                // Its tasks are about to be removed.
                None => return Ok(()),
                // Without an endpoint of the service the task keeps the spec it was made with: it tells later what changed.
                Some(service) => service.endpoint.clone().or_else(|| task.endpoint.clone()),
            },
        };
        let mut attachments = wanted_attachments(transaction.view(), &task)?;
        let mut taken = Vec::new();
        for attachment in &mut attachments {
            if let Err(error) = self.fill_attachment(attachment, &mut taken) {
                self.give_back(&taken);
                return Err(error);
            }
        }
        self.hold(id, taken);
        let mut filled = Task { networks: attachments, endpoint, ..(*task).clone() };
        filled.status.state = TaskState::Pending;
        filled.status.message = PENDING_MESSAGE.to_owned();
        filled.status.err = String::new();
        filled.status.timestamp = Some(now);
        super::write(transaction, filled);
        Ok(())
    }

    fn fill_attachment(&mut self, attachment: &mut NetworkAttachment, taken: &mut Vec<Held>) -> Result<(), String> {
        let network = attachment.network.as_ref().ok_or("an attachment names no network")?;
        let all_nodes = self.nodes.len();
        let state = self.allocated(network)?;
        if state.local {
            return Ok(());
        }
        let asked: Vec<_> = attachment.addresses.drain(..).filter(|text| !text.is_empty()).collect();
        let mut give = |result: Result<(IpAddr, String), String>| {
            let (address, text) = result?;
            taken.push(Held { network: network.id.clone(), address });
            attachment.addresses.push(text);
            Ok::<(), String>(())
        };
        if !asked.iter().any(|text| parse_address(text).is_some_and(|address| address.is_ipv4())) {
            give(state.take_spare(all_nodes, 1))?;
        }
        asked.iter().try_for_each(|text| give(state.reserve_spare(text, all_nodes)))
    }
}
