//! The dispatcher's shell: sessions and feeds decide, this sends what they say on the nodes' connections.

use consensus::core::Membership;
use manager::core::dispatcher::{
    AssignmentFeed, Dirt, MESSAGE_CHANGES, ManagerIdentity, Moment, SessionFeed, Sessions, Silent, peers_of, route,
    write_down, write_ready, write_statuses,
};
use model::{NodeDescription, Task, TaskId, TaskStatus};
use store::{Event, Transaction};

use super::leader::ManagerError;
use super::raft::answer;
use super::*;
use crate::calls::Answer;

/// What the status of a node says that left in order.
const LEFT_MESSAGE: &str = "node left the swarm";

/// The connection of one node.
struct Streams {
    host: Host,
    conn: u64,
    feed: SessionFeed,
    is_session_dirty: bool,
    assignments: Option<AssignmentFeed>,
    dirt: Dirt,
}

/// The dispatcher.
pub(super) struct Dispatch {
    pub(super) sessions: Sessions,
    nodes: BTreeMap<NodeId, Streams>,
    statuses: BTreeMap<TaskId, (NodeId, TaskStatus)>,
    members: usize,
    expiry_at: Option<Time>,
    /// Feeds of connections that broke: of use to a bug only.
    old_feeds: BTreeMap<NodeId, AssignmentFeed>,
}

fn moment(ctx: &Ctx) -> Moment {
    Moment::from_micros(ctx.now)
}

impl Dispatch {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            sessions: Sessions::new(seed),
            nodes: BTreeMap::new(),
            statuses: BTreeMap::new(),
            members: 0,
            expiry_at: None,
            old_feeds: BTreeMap::new(),
        }
    }

    pub(super) fn begin(&mut self, ctx: &mut Ctx, host: Host, view: &View) {
        self.sessions.begin(moment(ctx), view);
        self.watch(ctx, host);
    }

    /// Every session is over.
    pub(super) fn end(&mut self, ctx: &mut Ctx, host: Host) {
        self.sessions.end();
        self.statuses.clear();
        self.old_feeds.clear();
        for streams in std::mem::take(&mut self.nodes).into_values() {
            ctx.stream(host, streams.host, streams.conn, Packet::Close { conn: streams.conn });
        }
    }

    /// A timer for when a node's time may be over.
    fn watch(&mut self, ctx: &mut Ctx, host: Host) {
        let Some(deadline) = self.sessions.deadline() else { return };
        let at = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX).max(ctx.now);
        let is_set = self.expiry_at.is_some_and(|set| set <= at && set > ctx.now);
        if !is_set {
            self.expiry_at = Some(at);
            ctx.after(host, at - ctx.now + 1, Timer::Expiry);
        }
    }

    pub(super) fn take_silent(&mut self, ctx: &mut Ctx, host: Host) -> Vec<Silent> {
        let silent = self.sessions.take_silent(moment(ctx));
        for Silent { node, .. } in &silent {
            self.close(ctx, host, node);
        }
        self.expiry_at = None;
        self.watch(ctx, host);
        silent
    }

    fn close(&mut self, ctx: &mut Ctx, host: Host, node: &NodeId) {
        if let Some(streams) = self.nodes.remove(node) {
            ctx.stream(host, streams.host, streams.conn, Packet::Close { conn: streams.conn });
            if let Some(feed) = streams.assignments {
                self.old_feeds.insert(node.clone(), feed);
            }
        }
    }

    /// Brings a commit to the connections that it concerns.
    pub(super) fn observe(&mut self, view: &View, events: &[Event]) {
        if self.nodes.is_empty() {
            return;
        }
        for node in self.sessions.observe(events) {
            // Its connection ends with the next packet that it sends.
            self.nodes.remove(&node);
        }
        let routed = route(view, events);
        for (node, dirt) in routed.nodes {
            if let Some(streams) = self.nodes.get_mut(&node) {
                streams.is_session_dirty |= dirt.session;
                streams.dirt.merge(dirt);
            }
        }
        if routed.every_session {
            self.nodes.values_mut().for_each(|streams| streams.is_session_dirty = true);
        }
    }

    /// A snapshot took the place of everything.
    pub(super) fn everything_changed(&mut self) {
        for streams in self.nodes.values_mut() {
            streams.is_session_dirty = true;
            streams.dirt.merge(Dirt { session: true, everything: true, ..Dirt::default() });
        }
    }

    /// Sends what there is.
    pub(super) fn send(&mut self, ctx: &mut Ctx, host: Host, view: &View, membership: &Membership) {
        if self.nodes.is_empty() {
            return;
        }
        let own = ManagerIdentity { node_id: node_id(host), advertise_addr: address(host), root_ca: Vec::new() };
        let peers = peers_of(&membership.members, &own);
        let members_changed = std::mem::replace(&mut self.members, peers.len()) != peers.len();
        let mut broken = Vec::new();
        for (node, streams) in &mut self.nodes {
            let (to, conn) = (streams.host, streams.conn);
            let mut holds = true;
            if (std::mem::take(&mut streams.is_session_dirty) || members_changed)
                && let Some(message) = streams.feed.next(view, &peers)
            {
                holds = ctx.stream(host, to, conn, Packet::Session { conn, message: Box::new(message) });
            }
            while let Some(feed) = streams.assignments.as_mut().filter(|_| !streams.dirt.is_empty() && holds) {
                let dirt = streams.dirt.take(MESSAGE_CHANGES);
                if let Some(message) = feed.next(view, &dirt) {
                    holds = ctx.stream(host, to, conn, Packet::Assignments { conn, message: Box::new(message) });
                }
            }
            if !holds {
                broken.push(node.clone());
            }
        }
        for node in broken {
            if let Some(feed) = self.nodes.remove(&node).and_then(|streams| streams.assignments) {
                self.old_feeds.insert(node, feed);
            }
        }
    }
}

impl Manager {
    /// A call of a node's agent.
    pub(super) fn serve_node(&mut self, ctx: &mut Ctx, from: Host, id: u64, call: Call) {
        if !self.is_leading() {
            let hint = self.leader_host().filter(|host| *host != self.host);
            ctx.call(self.host, from, answer(id, Answer::NotLeader(hint)));
            return;
        }
        let refused = match call {
            Call::Register { node, wanted } => self.register(ctx, from, id, node, &wanted),
            Call::Assignments { node, session, conn } => {
                self.open_assignments(ctx, (from, id), (&node, &session), conn)
            }
            Call::Beat { node, session, leaves } => self.beat(ctx, (from, id), (&node, &session), leaves),
            Call::Statuses { node, session, updates } => {
                self.take_statuses(ctx, (from, id), (&node, &session), updates)
            }
            Call::Join { .. } | Call::Control { .. } | Call::Read { .. } => Ok(()),
        };
        if let Err(ManagerError(text)) = refused {
            ctx.call(self.host, from, answer(id, Answer::Refused(text)));
        }
    }

    fn register(
        &mut self,
        ctx: &mut Ctx,
        from: Host,
        call: u64,
        node: NodeId,
        wanted: &str,
    ) -> Result<(), ManagerError> {
        let fresh = format!("session-{}", ctx.fresh());
        let session = self.dispatch.sessions.register(moment(ctx), &node, wanted, fresh).map_err(refusal)?;
        self.dispatch.close(ctx, self.host, &node);
        self.dispatch.watch(ctx, self.host);
        let who = Waiting::Registration { from, call, node: node.clone(), session: session.clone() };
        let description = NodeDescription { hostname: node.to_string(), ..Default::default() };
        let wrote = self.write(ctx, who, |transaction| {
            if write_ready(transaction, &node, Some(description), address(from), String::new())? {
                Ok(())
            } else {
                Err(ManagerError("node not found".to_owned()))
            }
        });
        match wrote {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.registered(ctx, from, call, &node, session);
                Ok(())
            }
            Err(error) => {
                self.dispatch.sessions.close(&node, &session);
                Err(error)
            }
        }
    }

    /// The node is written as ready: its session opens.
    pub(super) fn registered(&mut self, ctx: &mut Ctx, from: Host, call: u64, node: &NodeId, session: String) {
        if let Err(error) = self.dispatch.sessions.check(node, &session) {
            ctx.call(self.host, from, answer(call, Answer::Refused(error.to_string())));
            return;
        }
        let conn = ctx.fresh();
        ctx.note(format_args!("{node} has {session} with host {}", self.host));
        let opened = Answer::Opened { session: session.clone(), conn };
        if ctx.stream(self.host, from, conn, answer(call, opened)) {
            let feed = SessionFeed::new(node.clone(), session);
            let streams =
                Streams { host: from, conn, feed, is_session_dirty: true, assignments: None, dirt: Dirt::default() };
            self.dispatch.nodes.insert(node.clone(), streams);
        }
    }

    fn open_assignments(
        &mut self,
        ctx: &mut Ctx,
        (from, id): (Host, u64),
        (node, session): (&NodeId, &str),
        conn: u64,
    ) -> Result<(), ManagerError> {
        self.dispatch.sessions.check(node, session).map_err(refusal)?;
        let old = self.dispatch.old_feeds.remove(node).filter(|_| ctx.has(Bug::LostAssignment));
        let Some(streams) = self.dispatch.nodes.get_mut(node).filter(|streams| streams.conn == conn) else {
            return Err(ManagerError("the connection is gone".to_owned()));
        };
        let mut holds = ctx.stream(self.host, from, conn, answer(id, Answer::Heard { period: 0 }));
        let feed = match old {
            Some(feed) => feed,
            None => {
                let mut feed = AssignmentFeed::new(node.clone());
                let message = Box::new(feed.first(&self.view));
                holds &= ctx.stream(self.host, from, conn, Packet::Assignments { conn, message });
                feed
            }
        };
        streams.assignments = Some(feed);
        streams.dirt = Dirt::default();
        if !holds {
            self.dispatch.nodes.remove(node);
        }
        Ok(())
    }

    fn beat(
        &mut self,
        ctx: &mut Ctx,
        (from, id): (Host, u64),
        (node, session): (&NodeId, &str),
        leaves: bool,
    ) -> Result<(), ManagerError> {
        let period = self.dispatch.sessions.beat(moment(ctx), node, session).map_err(refusal)?;
        self.dispatch.watch(ctx, self.host);
        if leaves {
            ctx.note(format_args!("{node} leaves"));
            let down =
                |transaction: &mut Transaction| write_down(transaction, node, LEFT_MESSAGE).map_err(ManagerError::from);
            self.write(ctx, Waiting::Duty, down)?;
            self.dispatch.sessions.close(node, session);
            self.dispatch.close(ctx, self.host, node);
        }
        let period = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        ctx.call(self.host, from, answer(id, Answer::Heard { period }));
        Ok(())
    }

    fn take_statuses(
        &mut self,
        ctx: &mut Ctx,
        (from, id): (Host, u64),
        (node, session): (&NodeId, &str),
        updates: Vec<(TaskId, TaskStatus)>,
    ) -> Result<(), ManagerError> {
        self.dispatch.sessions.check(node, session).map_err(refusal)?;
        for (task, _) in &updates {
            let owner = self.view.task(task).map(|task| task.node_id.as_ref());
            if owner.is_some_and(|owner| owner != Some(node)) {
                return Err(ManagerError("cannot update a task not assigned this node".to_owned()));
            }
        }
        for (task, status) in updates {
            let statuses = &mut self.dispatch.statuses;
            if statuses.get(&task).is_none_or(|(_, held)| held.state <= status.state) {
                statuses.insert(task, (node.clone(), status));
            }
        }
        ctx.call(self.host, from, answer(id, Answer::Heard { period: 0 }));
        Ok(())
    }

    /// Proposes the statuses that wait; whether there were any.
    pub(super) fn write_statuses(&mut self, ctx: &mut Ctx) -> bool {
        if self.dispatch.statuses.is_empty() {
            return false;
        }
        let reported = std::mem::take(&mut self.dispatch.statuses);
        if !self.is_leading() {
            return false;
        }
        let (applied_by, now) = (self.node.clone(), ctx.wall(self.host));
        let goes_back = ctx.has(Bug::StatusBack);
        let reported: Vec<_> = reported.into_iter().map(|(task, (node, status))| (task, node, status)).collect();
        for chunk in reported.chunks(manager::core::MAX_ACTIONS) {
            let write = |transaction: &mut Transaction| {
                if goes_back {
                    return write_whatever(transaction, chunk);
                }
                write_statuses(transaction, chunk.iter().cloned(), &applied_by, now).map_err(ManagerError::from)
            };
            self.write(ctx, Waiting::Duty, write).ok();
        }
        true
    }
}

/// The bug: what is reported is written.
fn write_whatever(
    transaction: &mut Transaction,
    reported: &[(TaskId, NodeId, TaskStatus)],
) -> Result<(), ManagerError> {
    for (id, _, status) in reported {
        if let Some(task) = transaction.task(id).filter(|task| task.status != *status) {
            let task = Task { status: status.clone(), ..Task::clone(task) };
            transaction.update(task)?;
        }
    }
    Ok(())
}

fn refusal(refusal: manager::core::dispatcher::Refusal) -> ManagerError {
    ManagerError(refusal.to_string())
}
