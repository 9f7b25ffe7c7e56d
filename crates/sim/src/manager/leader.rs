//! The leader's loop: it follows raft's word a little late, begins with a barrier and its first writes, and then plans
//! whenever something changed.

use consensus::{MemberChange, Status};
use manager::core::dispatcher::write_down;
use manager::core::{Planning, RoleStep, Stamp, heard_of, plan_roles, set_role, write_unknown};
use model::{Cluster, ClusterId, Network, NetworkId, Node, NodeId, NodeRole};
use orchestration::leader::Leader;
use store::{StoreError, Transaction};

use super::*;
use crate::calls::Answer;

/// Time between two tries of a change of roles.
const ROLES_RETRY: Time = 5 * SECOND;

/// Where the leader's loop stands.
pub(super) enum Leading {
    /// It does not lead.
    No,
    /// It waits for all that was proposed before.
    Barrier { term: u64 },
    /// It waits for its first writes.
    First { term: u64, left: usize },
    /// It leads.
    Yes(Box<Duties>),
}

/// What a leader does.
pub(super) struct Duties {
    term: u64,
    planner: Leader,
    /// Something changed the speculative view, or a deadline came.
    wakes: bool,
    roles: bool,
    /// A change of the group is under way.
    removing: Option<(Ticket, Time)>,
}

impl Leading {
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Yes(_))
    }

    pub(super) fn wake(&mut self) {
        if let Self::Yes(duties) = self {
            duties.wakes = true;
        }
    }

    pub(super) fn roles_changed(&mut self) {
        if let Self::Yes(duties) = self {
            duties.roles = true;
        }
    }

    fn term(&self) -> Option<u64> {
        match self {
            Self::No => None,
            Self::Barrier { term } | Self::First { term, .. } => Some(*term),
            Self::Yes(duties) => Some(duties.term),
        }
    }
}

impl Manager {
    pub(super) fn stamp(&self, ctx: &Ctx) -> Stamp {
        Stamp { last_index: self.core.last_index(), now: ctx.wall(self.host) }
    }

    /// Looks at what raft says, and begins or ends a leadership.
    pub(super) fn leader_loop(&mut self, ctx: &mut Ctx) {
        if self.leading.term() == self.seen {
            return;
        }
        if self.leading.term().is_some() {
            self.end_leading(ctx);
        }
        let Some(term) = self.seen else { return };
        self.leading = Leading::Barrier { term };
        let barrier = manager::core::Proposal { epoch: 0, term, request: p::InternalRaftRequest::default() };
        self.propose(ctx, barrier, Waiting::Barrier);
    }

    /// Ends the leadership; raft is asked again soon, since a failed write need not mean that it is lost.
    fn end_leading(&mut self, ctx: &mut Ctx) {
        ctx.note(format_args!("host {} ends its leadership", self.host));
        self.leading = Leading::No;
        if !ctx.has(Bug::SpeculationKept) {
            self.speculation.end();
        }
        self.dispatch.end(ctx, self.host);
        ctx.after(self.host, 100 * MILLI, Timer::LeaderLoop);
    }

    /// What became of a proposal: committed at an index, or not known to be.
    pub(super) fn settled(&mut self, ctx: &mut Ctx, who: Waiting, epoch: u64, committed: Option<u64>) {
        if committed.is_none() && !ctx.has(Bug::SpeculationKept) {
            self.speculation.failed(epoch);
            // The loop finds out at its next turn.
            self.leading.wake();
        }
        match (who, committed) {
            (Waiting::Barrier, Some(_)) => self.begin_leading(ctx),
            (Waiting::First, Some(_)) => self.first_done(ctx),
            (Waiting::Barrier | Waiting::First | Waiting::Planner, None) => {
                if self.leading.term().is_some() {
                    self.end_leading(ctx);
                }
            }
            (Waiting::Planner | Waiting::Duty, _) => {}
            (Waiting::Registration { from, call, node, session }, Some(_)) => {
                self.registered(ctx, from, call, &node, session);
            }
            (Waiting::Registration { from, call, node, session }, None) => {
                self.dispatch.sessions.close(&node, &session);
                ctx.call(self.host, from, raft::answer(call, Answer::Lost));
            }
            (Waiting::User { from, call }, Some(index)) => {
                ctx.call(self.host, from, raft::answer(call, Answer::Done { index }));
            }
            (Waiting::User { from, call }, None) => {
                ctx.call(self.host, from, raft::answer(call, Answer::Lost));
            }
        }
    }

    fn begin_leading(&mut self, ctx: &mut Ctx) {
        let Leading::Barrier { term } = self.leading else { return };
        let keeps = ctx.has(Bug::SpeculationKept) && self.speculation.is_leading();
        if !keeps {
            self.speculation.begin(term, self.view.clone(), self.core.last_index());
        }
        let stamp = self.stamp(ctx);
        let known = heard_of(&self.view);
        let is_new = self.view.the_cluster().is_none();
        let node = self.node.clone();
        let key = ctx.rng.next_u64();
        let written = self.speculation.start(stamp, |transaction| {
            if is_new {
                found(transaction, &node, key)?;
            }
            write_unknown(transaction, &known).map_err(ManagerError::from)
        });
        match written {
            Ok(((), Some(proposal))) => {
                self.leading = Leading::First { term, left: 1 };
                self.propose(ctx, proposal, Waiting::First);
            }
            Ok(((), None)) => {
                self.leading = Leading::First { term, left: 1 };
                self.first_done(ctx);
            }
            Err(_) => self.end_leading(ctx),
        }
    }

    fn first_done(&mut self, ctx: &mut Ctx) {
        let Leading::First { term, left } = &mut self.leading else { return };
        *left -= 1;
        let term = *term;
        ctx.note(format_args!("host {} is ready to lead in term {term}", self.host));
        let mut planner = Leader::new(ctx.rng.next_u64());
        planner.rebuild(&self.view);
        self.dispatch.begin(ctx, self.host, &self.view);
        self.leading = Leading::Yes(Box::new(Duties { term, planner, wakes: true, roles: true, removing: None }));
        self.planner_at = None;
    }

    /// What a leader has to do now; whether it proposed something.
    pub(super) fn lead(&mut self, ctx: &mut Ctx) -> bool {
        let mut did = self.write_statuses(ctx);
        let Leading::Yes(duties) = &mut self.leading else { return did };
        if std::mem::take(&mut duties.roles) {
            self.roles(ctx);
            did = true;
        }
        let Leading::Yes(duties) = &mut self.leading else { return did };
        if std::mem::take(&mut duties.wakes) {
            self.plan(ctx);
            did = true;
        }
        did
    }

    fn plan(&mut self, ctx: &mut Ctx) {
        let stamp = self.stamp(ctx);
        let Leading::Yes(duties) = &mut self.leading else { return };
        let planner = &mut duties.planner;
        let planned = self.speculation.begin_plan().and_then(|Planning { view, events, epoch }| {
            let plan = planner.step(&view, &events, stamp.now);
            drop(view);
            let batches = plan.batches.into_iter().filter(|batch| !batch.is_empty());
            let proposals = batches.map(|batch| self.speculation.planned(stamp, epoch, batch));
            Ok((proposals.collect::<Result<Vec<_>, _>>()?, plan.deadline, plan.rounds_exceeded))
        });
        let Ok((proposals, deadline, exceeded)) = planned else {
            self.end_leading(ctx);
            return;
        };
        if exceeded {
            ctx.history.fail(Checker::Sanity, "planning came to no end".to_owned());
        }
        for proposal in proposals {
            self.leading.wake();
            self.propose(ctx, proposal, Waiting::Planner);
        }
        let at = deadline.map(|deadline| ctx.time_of(self.host, deadline).min(ctx.now + 60 * SECOND));
        if let Some(at) = at.filter(|at| self.planner_at.is_none_or(|set| *at < set)) {
            self.planner_at = Some(at);
            ctx.after(self.host, at - ctx.now, Timer::Planner);
        }
    }

    /// Proposes a write of a duty's.
    pub(super) fn write(
        &mut self,
        ctx: &mut Ctx,
        who: Waiting,
        build: impl FnOnce(&mut Transaction) -> Result<(), ManagerError>,
    ) -> Result<bool, ManagerError> {
        let stamp = self.stamp(ctx);
        let ((), proposal) = self.speculation.start(stamp, build)?;
        let Some(proposal) = proposal else { return Ok(false) };
        self.leading.wake();
        self.propose(ctx, proposal, who);
        Ok(true)
    }

    /// Raft's state as the product's loops see it.
    pub(super) fn status(&self) -> Status {
        let membership = self.core.membership();
        Status {
            raft_id: self.core.raft_id(),
            leading: self.core.leads_caught_up(),
            leader: self.core.leader(),
            term: self.core.term(),
            applied: self.applied,
            members: membership.members.clone(),
            removed: membership.removed.clone(),
            active_since: self.active_since.clone(),
            ..Default::default()
        }
    }

    /// Makes roles what they are to be, one change of the group at a time.
    pub(super) fn roles(&mut self, ctx: &mut Ctx) {
        let status = self.status();
        let Leading::Yes(duties) = &mut self.leading else { return };
        duties.removing.take_if(|(_, since)| ctx.now >= *since + ROLES_RETRY);
        let is_busy = duties.removing.is_some();
        let mut plan = plan_roles(&self.view, &status);
        if ctx.has(Bug::DemotedStillCounted) {
            let demoted = self.view.nodes().filter(|node| node.role != node.spec.desired_role);
            let set = demoted.map(|node| RoleStep::SetRole { node: node.id.clone(), desired: node.spec.desired_role });
            plan.steps = set.collect();
        }
        if !plan.steps.is_empty() || !plan.waiting.is_empty() {
            ctx.after(self.host, ROLES_RETRY, Timer::Roles);
        }
        for step in plan.steps {
            match step {
                RoleStep::SetRole { node, desired } => {
                    ctx.note(format_args!("{node} becomes {desired:?}"));
                    let set = |transaction: &mut Transaction| {
                        set_role(transaction, &node, desired).map_err(ManagerError::from)
                    };
                    self.write(ctx, Waiting::Duty, set).ok();
                }
                RoleStep::Remove { raft_id, node } if !is_busy => {
                    ctx.note(format_args!("{node} is to leave the group"));
                    let asked = self.core.change_membership(MemberChange::Remove(raft_id));
                    if let (Ok(ticket), Leading::Yes(duties)) = (asked, &mut self.leading) {
                        duties.removing = Some((ticket, ctx.now));
                    }
                }
                RoleStep::HandOver if !is_busy => self.transfer(ctx),
                RoleStep::Remove { .. } | RoleStep::HandOver => {}
            }
        }
    }

    /// Hands leadership to the peer that has been reachable for the longest time.
    pub(super) fn transfer(&mut self, ctx: &mut Ctx) {
        if let Some(to) = self.status().longest_active() {
            ctx.note(format_args!("host {} hands over to {to:x}", self.host));
            self.core.transfer_leadership(to).ok();
        }
    }

    /// A change of the group was settled.
    pub(super) fn change_settled(&mut self, ticket: Ticket) {
        if let Leading::Yes(duties) = &mut self.leading
            && duties.removing.take_if(|(waiting, _)| *waiting == ticket).is_some()
        {
            duties.roles = true;
        }
    }

    /// Nodes whose time is over are down.
    pub(super) fn expire(&mut self, ctx: &mut Ctx) {
        for silent in self.dispatch.take_silent(ctx, self.host) {
            ctx.note(format_args!("{} is down: {}", silent.node, silent.message));
            let down = |transaction: &mut Transaction| {
                write_down(transaction, &silent.node, silent.message).map_err(ManagerError::from)
            };
            self.write(ctx, Waiting::Duty, down).ok();
        }
    }
}

/// Why a write came to nothing.
#[derive(Debug)]
pub(super) struct ManagerError(pub(super) String);

impl From<StoreError> for ManagerError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<manager::ControlError> for ManagerError {
    fn from(error: manager::ControlError) -> Self {
        Self(error.desc)
    }
}

/// The founder's objects.
fn found(transaction: &mut Transaction, node: &NodeId, key: u64) -> Result<(), ManagerError> {
    let mut spec = manager::default_cluster_spec();
    spec.orchestration.task_history_retention_limit = 2;
    spec.dispatcher.heartbeat_period = Some(model::Duration::from_secs(2));
    let cluster = Cluster {
        id: ClusterId::from("cluster"),
        spec,
        network_bootstrap_keys: users::network_keys(key, 1),
        encryption_key_lamport_clock: 6,
        default_address_pool: vec!["10.0.0.0/8".to_owned()],
        subnet_size: 24,
        ..Default::default()
    };
    transaction.create(cluster)?;
    let mut first = Node { id: node.clone(), role: NodeRole::Manager, ..Default::default() };
    first.spec.desired_role = NodeRole::Manager;
    transaction.create(first)?;
    let mut ingress = Network { id: NetworkId::from("ingress"), ..Default::default() };
    ingress.spec.ingress = true;
    ingress.spec.annotations.name = "ingress".to_owned();
    transaction.create(ingress)?;
    Ok(())
}
