//! Errors and states of node and manager in the API's types.

use api::swarm_backend::{AddressProblem, GrpcCode, LeaveRefusal, NotManager, SwarmError, SwarmResult};
use identity::JoinError;
use manager::ControlError;
use model::{NodeRole, Task};
use node::address::AddressError;
use node::{GroupError, LeaveError, NodeError, NodeInfo, NodeState, StartError, UnlockError};

use store::View;

use crate::errors::chain;

/// A refusal of the control API.
pub(super) fn from_control(error: ControlError) -> SwarmError {
    SwarmError::Grpc { code: GrpcCode::from_number(error.code as i32), desc: error.desc }
}

/// `NotFound`, in the control API's words.
pub(super) fn not_found(kind: &str, id: &dyn std::fmt::Display) -> SwarmError {
    SwarmError::grpc(GrpcCode::NotFound, format!("{kind} {id} not found"))
}

/// Whether the control API answers here.
pub(super) fn manager_state(info: &NodeInfo) -> SwarmResult<()> {
    let reason = match (info.state, info.role) {
        (NodeState::Active, NodeRole::Manager) => return Ok(()),
        (NodeState::Inactive, _) => NotManager::NoSwarm,
        (NodeState::Locked, _) => NotManager::Locked,
        (NodeState::Expired, _) => NotManager::CertificatesExpired,
        (NodeState::Pending | NodeState::Failed, NodeRole::Manager) => NotManager::NotReady,
        (NodeState::Active | NodeState::Pending | NodeState::Failed, NodeRole::Worker) => NotManager::Worker,
    };
    Err(SwarmError::NotManager(reason))
}

/// Why a swarm could not be founded or joined.
pub(super) fn from_node(error: NodeError) -> SwarmError {
    match error {
        NodeError::InSwarm => SwarmError::AlreadyInSwarm,
        NodeError::Address(problem) => SwarmError::Address(address_problem(problem)),
        NodeError::DataPathPort(port) => SwarmError::Address(AddressProblem::DataPathPort(port)),
        NodeError::JoinTimeout => SwarmError::JoinTimeout,
        NodeError::Join(error) => from_join(error),
        NodeError::Start(error) => from_start(&error),
        NodeError::Manager(error) => from_start(&error),
        other => SwarmError::Internal(chain(&other)),
    }
}

/// Why there is no certificate: a manager's own words where it has spoken.
fn from_join(error: JoinError) -> SwarmError {
    match error {
        JoinError::Rpc(status) => from_status(&status),
        JoinError::Dial(_) | JoinError::Timeout { .. } => SwarmError::grpc(GrpcCode::Unavailable, chain(&error)),
        other => SwarmError::Internal(chain(&other)),
    }
}

/// Why a manager does not run; the words around a refusal are dockerd's.
fn from_start(error: &StartError) -> SwarmError {
    match error {
        StartError::Group(GroupError::Refused(status)) => {
            SwarmError::Internal(format!("manager stopped: can't initialize raft node: {}", from_status(status)))
        }
        StartError::Group(_) => {
            SwarmError::Internal(format!("manager stopped: can't initialize raft node: {}", chain(error)))
        }
        other => SwarmError::Internal(chain(other)),
    }
}

fn from_status(status: &tonic::Status) -> SwarmError {
    SwarmError::grpc(GrpcCode::from_number(status.code() as i32), status.message())
}

fn address_problem(error: AddressError) -> AddressProblem {
    match error {
        AddressError::NoneFound => AddressProblem::NoneFound,
        AddressError::Several(which) => AddressProblem::Several(which),
        AddressError::Listen => AddressProblem::Listen,
        AddressError::Advertise => AddressProblem::Advertise,
        AddressError::DataPath => AddressProblem::DataPath,
        AddressError::Other(text) => AddressProblem::Other(text),
    }
}

/// Why leaving was refused.
pub(super) fn from_leave(error: LeaveError) -> SwarmError {
    let refusal = match error {
        LeaveError::NotInSwarm => return SwarmError::NotInSwarm,
        LeaveError::State(error) => return SwarmError::Internal(chain(&error)),
        LeaveError::Refused(refusal) => refusal,
    };
    SwarmError::LeaveRefused(match refusal {
        node::LeaveRefusal::Locked => LeaveRefusal::Locked,
        node::LeaveRefusal::LastManager => LeaveRefusal::LastManager,
        node::LeaveRefusal::QuorumLost { remaining, total } => LeaveRefusal::QuorumLost { remaining, total },
        node::LeaveRefusal::Manager => LeaveRefusal::Manager,
        node::LeaveRefusal::InactiveManager => LeaveRefusal::InactiveManager,
    })
}

/// Why a manager was not unlocked.
pub(super) fn from_unlock(error: UnlockError) -> SwarmError {
    match error {
        UnlockError::NotInSwarm => SwarmError::NotManager(NotManager::NoSwarm),
        UnlockError::NotLocked => SwarmError::NotLocked,
        UnlockError::WrongKey => SwarmError::InvalidUnlockKey,
        UnlockError::Start(error) => from_node(error),
    }
}

/// Whether the service's spec would make this task just so again.
pub(super) fn is_up_to_date(view: &View, task: &Task) -> bool {
    let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)) else { return false };
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    !orchestration::dirty::is_task_dirty(service, task, node.map(|node| &**node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_node_stands_decides_what_the_control_api_says() {
        let check = |state, role, reason: Option<NotManager>| {
            let said = manager_state(&NodeInfo { state, role, ..NodeInfo::default() });
            assert_eq!(said, reason.map_or(Ok(()), |reason| Err(SwarmError::NotManager(reason))), "{state:?} {role:?}");
        };
        check(NodeState::Active, NodeRole::Manager, None);
        check(NodeState::Active, NodeRole::Worker, Some(NotManager::Worker));
        check(NodeState::Pending, NodeRole::Worker, Some(NotManager::Worker));
        check(NodeState::Pending, NodeRole::Manager, Some(NotManager::NotReady));
        check(NodeState::Failed, NodeRole::Manager, Some(NotManager::NotReady));
        check(NodeState::Inactive, NodeRole::Worker, Some(NotManager::NoSwarm));
        check(NodeState::Locked, NodeRole::Worker, Some(NotManager::Locked));
        check(NodeState::Expired, NodeRole::Manager, Some(NotManager::CertificatesExpired));
    }

    #[test]
    fn a_refused_join_keeps_the_managers_words() {
        let text = "A valid join token is necessary to join this cluster";
        let error = from_node(NodeError::Join(JoinError::Rpc(tonic::Status::invalid_argument(text))));
        assert_eq!(error.to_string(), format!("rpc error: code = InvalidArgument desc = {text}"));
        assert_eq!(error.http_status(), 400);
        let refused =
            StartError::Group(GroupError::Refused(tonic::Status::unknown("could not connect to prospective")));
        let error = from_node(NodeError::Manager(std::sync::Arc::new(refused)));
        let expected = "manager stopped: can't initialize raft node: rpc error: code = Unknown desc = could not connect to prospective";
        assert_eq!((error.to_string().as_str(), error.http_status().as_u16()), (expected, 500));
    }
}
