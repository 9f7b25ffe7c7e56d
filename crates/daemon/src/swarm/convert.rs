//! Errors and states of node and manager in the API's types.

use api::swarm_backend::{AddressProblem, GrpcCode, LeaveRefusal, NotManager, SwarmError, SwarmResult};
use manager::ControlError;
use model::Task;
use node::address::AddressError;
use node::{LeaveError, NodeError, NodeState, UnlockError};

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

/// What Skep cannot do yet.
pub(super) fn unimplemented(what: &str) -> SwarmError {
    SwarmError::grpc(GrpcCode::Unimplemented, format!("{what}: not built in this version of Skep"))
}

/// Whether the control API answers here.
pub(super) fn manager_state(state: NodeState) -> SwarmResult<()> {
    match state {
        NodeState::Active => Ok(()),
        NodeState::Inactive => Err(SwarmError::NotManager(NotManager::NoSwarm)),
        NodeState::Locked => Err(SwarmError::NotManager(NotManager::Locked)),
        NodeState::Pending | NodeState::Failed => Err(SwarmError::NotManager(NotManager::NotReady)),
    }
}

/// Why a swarm could not be founded.
pub(super) fn from_node(error: NodeError) -> SwarmError {
    match error {
        NodeError::InSwarm => SwarmError::AlreadyInSwarm,
        NodeError::Address(problem) => SwarmError::Address(address_problem(problem)),
        NodeError::DataPathPort(port) => SwarmError::Address(AddressProblem::DataPathPort(port)),
        NodeError::OtherManagers => unimplemented("forcing a new cluster from several managers"),
        other => SwarmError::Internal(chain(&other)),
    }
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
    match error {
        LeaveError::NotInSwarm => SwarmError::NotInSwarm,
        LeaveError::LastManager => SwarmError::LeaveRefused(LeaveRefusal::LastManager),
        LeaveError::Locked => SwarmError::LeaveRefused(LeaveRefusal::Locked),
        LeaveError::InactiveManager => SwarmError::LeaveRefused(LeaveRefusal::InactiveManager),
        LeaveError::State(error) => SwarmError::Internal(chain(&error)),
    }
}

/// Why a manager was not unlocked.
pub(super) fn from_unlock(error: UnlockError) -> SwarmError {
    match error {
        UnlockError::NotInSwarm => SwarmError::NotManager(NotManager::NoSwarm),
        UnlockError::NotLocked => SwarmError::NotLocked,
        UnlockError::WrongKey => SwarmError::InvalidUnlockKey,
        UnlockError::Start(error) => SwarmError::Internal(chain(&error)),
    }
}

/// Whether the service's spec would make this task just so again.
pub(super) fn is_up_to_date(view: &View, task: &Task) -> bool {
    let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)) else { return false };
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    !orchestration::dirty::is_task_dirty(service, task, node.map(|node| &**node))
}
