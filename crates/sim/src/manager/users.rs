//! What users and joining machines ask of the leader: services, nodes, keys, the group.

use consensus::MemberChange;
use manager::core::dispatcher::write_down;
use model::{Cluster, EncryptionKey, Node, NodeMembership, NodeRole, Service, ServiceId, SpecVersion, Task, TaskState};
use stdx::Rng;
use store::Transaction;

use super::leader::ManagerError;
use super::raft::answer;
use super::*;
use crate::calls::{Answer, Wish};
use crate::history::OP_LABEL;

/// The subsystems that have network keys.
const SUBSYSTEMS: [&str; 2] = ["networking:gossip", "networking:ipsec"];

/// Three keys for each subsystem, with clocks from `lamport` on.
pub(super) fn network_keys(seed: u64, lamport: u64) -> Vec<EncryptionKey> {
    let mut rng = Rng::new(seed);
    let mut keys = Vec::new();
    for at in 0..3 {
        for (which, subsystem) in SUBSYSTEMS.into_iter().enumerate() {
            let mut key = vec![0; 16];
            rng.fill(&mut key);
            let lamport_time = lamport + at * 2 + which as u64;
            keys.push(EncryptionKey { subsystem: subsystem.to_owned(), key, lamport_time, ..Default::default() });
        }
    }
    keys
}

impl Manager {
    /// A user's wish: answered when it is committed, or refused.
    pub(super) fn serve_wish(&mut self, ctx: &mut Ctx, from: Host, call: u64, op: u64, wish: Wish) {
        if !self.is_leading() {
            let hint = self.leader_host().filter(|host| *host != self.host);
            ctx.call(self.host, from, answer(call, Answer::NotLeader(hint)));
            return;
        }
        if let Wish::Transfer = wish {
            self.transfer(ctx);
            ctx.call(self.host, from, answer(call, Answer::Refused("asked".to_owned())));
            return;
        }
        if let Wish::UpdateService { version, .. } = &wish {
            ctx.history.expect(op, *version);
        }
        let key = ctx.rng.next_u64();
        let built = self.write(ctx, Waiting::User { from, call }, |transaction| build(transaction, op, wish, key));
        match built {
            Ok(true) => {}
            Ok(false) => ctx.call(self.host, from, answer(call, Answer::Refused("nothing to do".to_owned()))),
            Err(ManagerError(text)) => ctx.call(self.host, from, answer(call, Answer::Refused(text))),
        }
    }

    /// A user looks at a service: the leader answers from what it has applied.
    pub(super) fn serve_read(&mut self, ctx: &mut Ctx, from: Host, call: u64, service: &ServiceId) {
        let answered = if self.is_leading() || ctx.has(Bug::StaleRead) {
            Answer::Read { service: self.view.service(service).cloned(), applied: self.applied }
        } else {
            Answer::NotLeader(self.leader_host().filter(|host| *host != self.host))
        };
        ctx.call(self.host, from, answer(call, answered));
    }

    /// A node wants to be a member of the group.
    pub(super) fn serve_join(&mut self, ctx: &mut Ctx, from: Host, call: u64, node: &NodeId, addr: String) {
        if !self.is_leading() {
            let hint = self.leader_host().filter(|host| *host != self.host);
            ctx.call(self.host, from, answer(call, Answer::NotLeader(hint)));
            return;
        }
        let wanted = self.view.node(node).is_some_and(|node| node.spec.desired_role == NodeRole::Manager);
        // Nobody joins whom the leader cannot reach.
        if !wanted || ctx.net.is_cut(self.host, from) {
            ctx.call(self.host, from, answer(call, Answer::Refused("not wanted, or not reached".to_owned())));
            return;
        }
        let membership = self.core.membership();
        if let Some(known) = membership.members.values().find(|member| member.node_id == node.as_str()) {
            let members = membership.members.values().cloned().collect();
            let joined = Answer::Joined { raft_id: known.raft_id, members };
            ctx.call(self.host, from, answer(call, joined));
            return;
        }
        let raft_id = loop {
            let raft_id = ctx.rng.next_u64() >> 1;
            if raft_id != 0 && !membership.members.contains_key(&raft_id) && !membership.removed.contains(&raft_id) {
                break raft_id;
            }
        };
        let member = p::RaftMember { raft_id, node_id: node.to_string(), addr, status: None };
        match self.core.change_membership(MemberChange::Add(member)) {
            Ok(ticket) => drop(self.changes.insert(ticket, (from, call))),
            Err(error) => ctx.call(self.host, from, answer(call, Answer::Refused(error.to_string()))),
        }
    }

    /// What became of a Join.
    pub(super) fn joined(&mut self, ctx: &mut Ctx, from: Host, call: u64, done: bool) {
        let members = &self.core.membership().members;
        let own = members.values().find(|member| host_at(&member.addr) == Some(from));
        let answered = match own.filter(|_| done) {
            Some(own) => Answer::Joined { raft_id: own.raft_id, members: members.values().cloned().collect() },
            None => Answer::Lost,
        };
        ctx.call(self.host, from, answer(call, answered));
    }
}

fn build(transaction: &mut Transaction, op: u64, wish: Wish, key: u64) -> Result<(), ManagerError> {
    let missing = || ManagerError("not found".to_owned());
    let label = (OP_LABEL.to_owned(), op.to_string());
    match wish {
        Wish::CreateNode { node, role } => {
            let mut node = Node { id: node, role, ..Default::default() };
            node.spec.desired_role = role;
            node.spec.membership = NodeMembership::Accepted;
            node.spec.annotations.labels.extend([label]);
            transaction.create(node)?;
        }
        Wish::CreateService { service, mut spec } => {
            spec.annotations.labels.extend([label]);
            let spec_version = Some(SpecVersion(0));
            transaction.create(Service { id: service, spec: *spec, spec_version, ..Default::default() })?;
        }
        Wish::UpdateService { service, version, mut spec } => {
            spec.annotations.labels.extend([label]);
            let mut stored = Service::clone(transaction.service(&service).ok_or_else(missing)?);
            if stored.meta.version != version {
                return Err(ManagerError("update out of sequence".to_owned()));
            }
            stored.previous_spec = Some(std::mem::replace(&mut stored.spec, *spec));
            stored.previous_spec_version = stored.spec_version;
            stored.spec_version = Some(SpecVersion(version.0));
            stored.update_status = None;
            transaction.update(stored)?;
        }
        Wish::RemoveService { service } => transaction.remove::<Service>(&service)?,
        Wish::SetAvailability { node, availability } => {
            let mut node = Node::clone(transaction.node(&node).ok_or_else(missing)?);
            node.spec.availability = availability;
            node.spec.annotations.labels.extend([label]);
            transaction.update(node)?;
        }
        Wish::SetRole { node, role } => set_desired_role(transaction, &node, role, label)?,
        Wish::RemoveNode { node } => remove_node(transaction, &node)?,
        Wish::RotateKeys => {
            let mut cluster = Cluster::clone(transaction.the_cluster().ok_or_else(missing)?);
            let clock = cluster.encryption_key_lamport_clock;
            cluster.network_bootstrap_keys = network_keys(key, clock + 1);
            cluster.encryption_key_lamport_clock = clock + 6;
            cluster.spec.annotations.labels.extend([label]);
            transaction.update(cluster)?;
        }
        Wish::Transfer => {}
    }
    Ok(())
}

fn set_desired_role(
    transaction: &mut Transaction,
    id: &NodeId,
    role: NodeRole,
    label: (String, String),
) -> Result<(), ManagerError> {
    let is_manager = |node: &Node| node.spec.desired_role == NodeRole::Manager;
    let managers = transaction.nodes().filter(|node| is_manager(node)).count();
    let mut node = Node::clone(transaction.node(id).ok_or_else(|| ManagerError("not found".to_owned()))?);
    if is_manager(&node) && role == NodeRole::Worker && managers == 1 {
        return Err(ManagerError("attempting to demote the last manager of the swarm".to_owned()));
    }
    node.spec.desired_role = role;
    node.spec.annotations.labels.extend([label]);
    Ok(transaction.update(node)?)
}

fn remove_node(transaction: &mut Transaction, id: &NodeId) -> Result<(), ManagerError> {
    let node = transaction.node(id).cloned().ok_or_else(|| ManagerError("not found".to_owned()))?;
    if node.spec.desired_role == NodeRole::Manager || node.role == NodeRole::Manager {
        return Err(ManagerError("node is a manager".to_owned()));
    }
    write_down(transaction, id, "removed")?;
    let tasks: Vec<_> = transaction.tasks_of_node(id).cloned().collect();
    for task in tasks.iter().filter(|task| task.status.state < TaskState::Complete) {
        let mut task = Task::clone(task);
        task.status.state = TaskState::Orphaned;
        transaction.update(task)?;
    }
    Ok(transaction.remove::<Node>(id)?)
}
