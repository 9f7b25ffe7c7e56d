//! What hosts say to each other.

use std::sync::Arc;

use model::{NodeAvailability, NodeId, NodeRole, ObjectVersion, Service, ServiceId, ServiceSpec, TaskId, TaskStatus};
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;

use crate::ctx::Host;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// Between managers.
    Raft(Box<raftpb::Message>),
    /// The receiver took a message of this sender's.
    RaftTaken { by: u64 },
    /// The receiver says that the sender was removed.
    RaftRemoved { raft_id: u64 },
    /// Where is the member that this message is for?
    Resolve { message: Box<raftpb::Message> },
    /// There.
    Resolved { host: Host, message: Box<raftpb::Message> },
    /// A call of an agent, a machine or a client to a manager.
    Call { id: u64, call: Box<Call> },
    /// Its answer.
    Answer { id: u64, answer: Answer },
    /// On a session's connection.
    Session { conn: u64, message: Box<p::SessionMessage> },
    /// On the same connection.
    Assignments { conn: u64, message: Box<p::AssignmentsMessage> },
    /// The manager ends the connection.
    Close { conn: u64 },
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// A node opens a session.
    Register { node: NodeId, wanted: String },
    /// It wants its assignments.
    Assignments { node: NodeId, session: String, conn: u64 },
    /// It lives; or it leaves.
    Beat { node: NodeId, session: String, leaves: bool },
    /// Statuses of its tasks.
    Statuses { node: NodeId, session: String, updates: Vec<(TaskId, TaskStatus)> },
    /// A manager wants to be a member.
    Join { node: NodeId, addr: String },
    /// A wish of a user's; the number names it.
    Control { op: u64, wish: Wish },
    /// A user looks at a service.
    Read { service: ServiceId },
}

/// What users want.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    CreateNode { node: NodeId, role: NodeRole },
    CreateService { service: ServiceId, spec: Box<ServiceSpec> },
    UpdateService { service: ServiceId, version: ObjectVersion, spec: Box<ServiceSpec> },
    RemoveService { service: ServiceId },
    SetAvailability { node: NodeId, availability: NodeAvailability },
    SetRole { node: NodeId, role: NodeRole },
    RemoveNode { node: NodeId },
    RotateKeys,
    Transfer,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Ask there, if it is known who leads.
    NotLeader(Option<Host>),
    /// It was refused, and nothing came of it.
    Refused(String),
    /// It may or may not happen.
    Lost,
    /// It is committed at this index.
    Done { index: u64 },
    /// The session is open.
    Opened { session: String, conn: u64 },
    /// It was heard; the next beat is due after this many microseconds.
    Heard { period: u64 },
    /// The member's number, and all members.
    Joined { raft_id: u64, members: Vec<p::RaftMember> },
    /// What was read, as of this index.
    Read { service: Option<Arc<Service>>, applied: u64 },
}
