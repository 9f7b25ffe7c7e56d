//! The gRPC service `RaftMembership` of the leader: takes managers into the raft group and lets them go.
//!
//! ```text
//!  Join ─► address ─► dial back: Health "Raft" ─► known? ─► same address ─────────────► its number
//!                                                   │   └► another ─► UpdateNode ────► its number
//!                                                   └ no ─► a new number ─► AddNode ─► that
//! ```
//!
//! Invariants: who joins is told by its certificate; nobody joins whom the leader cannot reach; a number is never given
//! twice; a node on its way down does not come in again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use consensus::ChangeError;
use identity::{Credentials, ServerRole};
use model::{NodeId, NodeRole};
use swarm_proto::swarmkit as p;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use crate::caller::Caller;
use crate::leadership::check_raft;
use crate::writer::Writer;

/// How long a candidate may take to answer when it is dialled back.
const DIAL_BACK: Duration = Duration::from_secs(5);

/// The service.
#[derive(Clone)]
pub(crate) struct MembershipService {
    writer: Arc<Writer>,
    raft: Arc<consensus::Handle>,
    credentials: Credentials,
    /// Two joins of one node must see each other.
    one_at_a_time: Arc<Mutex<()>>,
}

/// What a Join comes to.
#[derive(Clone, Debug, PartialEq)]
enum JoinPlan {
    /// It is a member.
    Known(u64),
    /// It is one with another address.
    Moved(p::RaftMember),
    /// It becomes one.
    New(p::RaftMember),
}

impl MembershipService {
    pub(crate) fn new(writer: Arc<Writer>, raft: Arc<consensus::Handle>, credentials: Credentials) -> Self {
        Self { writer, raft, credentials, one_at_a_time: Arc::default() }
    }

    fn check_leading(&self) -> Result<(), Status> {
        let status = self.raft.status();
        let status = status.borrow();
        if status.removed_from_group || status.failed.is_some() {
            return Err(Status::failed_precondition("raft: node is not yet part of a raft cluster"));
        }
        if !status.leading {
            let text = "raft: failed to process the request: node lost leader status";
            return Err(Status::failed_precondition(text));
        }
        Ok(())
    }

    /// A manager that is to be a worker must not come back between its removal and its new certificate.
    fn check_wanted(&self, node: &NodeId) -> Result<(), Status> {
        let view = self.writer.shared().view();
        match view.node(node) {
            Some(node) if node.spec.desired_role == NodeRole::Manager => Ok(()),
            Some(_) => Err(Status::failed_precondition(format!("node {node} is to be a worker and cannot join"))),
            None => Err(Status::permission_denied(format!("Permission denied: node {node} was removed from swarm"))),
        }
    }

    async fn dial_back(&self, addr: &str) -> Result<(), Status> {
        let opening = "could not connect to prospective new cluster member using its advertised address";
        let unreachable = |reason: &dyn std::fmt::Display| Status::unknown(format!("{opening}: {reason}"));
        let asked = async {
            let connected = identity::connect(addr, ServerRole::Manager, &self.credentials).await;
            let channel = connected.map_err(|error| unreachable(&with_sources(&error)))?;
            check_raft(channel).await.map_err(|status| unreachable(&status.message()))
        };
        let serving = timeout(DIAL_BACK, asked).await;
        match serving.unwrap_or_else(|_| Err(unreachable(&"context deadline exceeded")))? {
            p::ServingStatus::Serving => Ok(()),
            other => Err(Status::unknown(format!("health check returned status {}", go_name(other)))),
        }
    }

    async fn admit(&self, node: &NodeId, addr: String) -> Result<u64, Status> {
        let _turn = self.one_at_a_time.lock().await;
        self.check_leading()?;
        let planned = {
            let status = self.raft.status();
            let status = status.borrow();
            plan_join(&status.members, &status.removed, node, addr, identity::random_raft_id)
        };
        match planned {
            JoinPlan::Known(raft_id) => Ok(raft_id),
            JoinPlan::Moved(member) => {
                let raft_id = member.raft_id;
                self.raft.update_member(member).await.map_err(refused)?;
                Ok(raft_id)
            }
            JoinPlan::New(member) => {
                let raft_id = member.raft_id;
                self.raft.add_member(member).await.map_err(refused)?;
                tracing::info!(%node, raft_id = format_args!("{raft_id:x}"), "a manager joined the raft group");
                Ok(raft_id)
            }
        }
    }
}

#[tonic::async_trait]
impl p::raft_membership_server::RaftMembership for MembershipService {
    async fn join(&self, request: Request<p::JoinRequest>) -> Result<Response<p::JoinResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.check_leading()?;
        self.check_wanted(&caller.node_id)?;
        let addr = member_address(&request.get_ref().addr, caller.address.as_deref())?;
        self.dial_back(&addr).await?;
        let raft_id = self.admit(&caller.node_id, addr).await?;
        let members = self.raft.status().borrow().members.values().cloned().collect();
        Ok(Response::new(p::JoinResponse { raft_id, members, removed_members: Vec::new() }))
    }

    async fn leave(&self, request: Request<p::LeaveRequest>) -> Result<Response<p::LeaveResponse>, Status> {
        Caller::of(&request)?;
        let node = request.into_inner().node;
        let node = node.ok_or_else(|| Status::invalid_argument("no node information provided"))?;
        self.check_leading()?;
        if !self.raft.status().borrow().can_remove(node.raft_id) {
            let text = "raft: member cannot be removed, because removing it may result in loss of quorum";
            return Err(Status::unknown(text));
        }
        self.raft.remove_member(node.raft_id).await.map_err(refused)?;
        Ok(Response::new(p::LeaveResponse {}))
    }
}

/// The address that others will dial: what the candidate says, with the address that it called from in place of an
/// unspecified one.
fn member_address(given: &str, remote: Option<&str>) -> Result<String, Status> {
    let invalid = || Status::invalid_argument(format!("invalid address {given} in raft join request"));
    let (host, port) = given.rsplit_once(':').ok_or_else(invalid)?;
    let bare = match (host.strip_prefix('['), host.contains(':')) {
        (Some(rest), _) => rest.strip_suffix(']').ok_or_else(invalid)?,
        // Go's parser takes a v6 address in brackets only.
        (None, true) => return Err(invalid()),
        (None, false) => host,
    };
    if port.is_empty() {
        return Err(invalid());
    }
    let is_unspecified = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    match remote {
        Some(remote) if is_unspecified && remote.contains(':') => Ok(format!("[{remote}]:{port}")),
        Some(remote) if is_unspecified => Ok(format!("{remote}:{port}")),
        None if is_unspecified => Err(invalid()),
        _ => Ok(given.to_owned()),
    }
}

fn plan_join(
    members: &BTreeMap<u64, p::RaftMember>,
    removed: &BTreeSet<u64>,
    node: &NodeId,
    addr: String,
    mut random: impl FnMut() -> u64,
) -> JoinPlan {
    if let Some(known) = members.values().find(|member| member.node_id == node.as_str()) {
        if known.addr == addr {
            return JoinPlan::Known(known.raft_id);
        }
        return JoinPlan::Moved(p::RaftMember { addr, status: None, ..known.clone() });
    }
    let is_free = |id: &u64| *id != 0 && !members.contains_key(id) && !removed.contains(id);
    let raft_id = std::iter::repeat_with(&mut random).find(is_free).unwrap_or_default();
    JoinPlan::New(p::RaftMember { raft_id, node_id: node.to_string(), addr, status: None })
}

fn refused(error: ChangeError) -> Status {
    let code = match error {
        ChangeError::LostLeadership => Code::FailedPrecondition,
        ChangeError::Busy => Code::Unavailable,
        ChangeError::NotMember => Code::NotFound,
        _ => Code::Unknown,
    };
    Status::new(code, error.to_string())
}

fn go_name(status: p::ServingStatus) -> &'static str {
    match status {
        p::ServingStatus::Unknown => "UNKNOWN",
        p::ServingStatus::Serving => "SERVING",
        p::ServingStatus::NotServing => "NOT_SERVING",
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_the_one_that_the_call_came_from() {
        let check = |given: &str, remote: Option<&str>, expected: Option<&str>| {
            let found = member_address(given, remote);
            assert_eq!(found.as_deref().ok(), expected, "{given} from {remote:?}");
            if let Err(status) = found {
                assert_eq!(status.code(), Code::InvalidArgument);
                assert_eq!(status.message(), format!("invalid address {given} in raft join request"));
            }
        };
        let remote = Some("10.0.0.7");
        check("10.0.0.1:2377", remote, Some("10.0.0.1:2377"));
        check("0.0.0.0:2377", remote, Some("10.0.0.7:2377"));
        check("[::]:2377", remote, Some("10.0.0.7:2377"));
        check("0.0.0.0:2377", Some("fe80::7"), Some("[fe80::7]:2377"));
        check("[fd00::1]:2377", remote, Some("[fd00::1]:2377"));
        check("manager.example:2377", remote, Some("manager.example:2377"));
        check(":2377", remote, Some(":2377"));
        check("0.0.0.0:2377", None, None);
        for bad in ["", "10.0.0.1", "10.0.0.1:", "fd00::1:2377", "[fd00::1:2377"] {
            check(bad, remote, None);
        }
    }

    #[test]
    fn a_member_keeps_its_number_and_a_new_one_gets_one_that_nobody_had() {
        let member = |raft_id, node: &str, addr: &str| p::RaftMember {
            raft_id,
            node_id: node.to_owned(),
            addr: addr.to_owned(),
            status: None,
        };
        let members = [(1, member(1, "a", "a:1")), (2, member(2, "b", "b:1"))].into();
        let removed = [3].into();
        let plan = |node: &str, addr: &str| {
            let mut numbers = [0, 1, 3, 4].into_iter();
            plan_join(&members, &removed, &node.into(), addr.to_owned(), || numbers.next().unwrap())
        };
        assert_eq!(plan("b", "b:1"), JoinPlan::Known(2));
        assert_eq!(plan("b", "b:2"), JoinPlan::Moved(member(2, "b", "b:2")));
        assert_eq!(plan("c", "c:1"), JoinPlan::New(member(4, "c", "c:1")));
    }
}
