//! Why the swarm refused: typed by the backend, turned into Docker's status and text here.

use http::StatusCode;
use thiserror::Error;

/// A gRPC status code, as far as the control API uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "gRPC's own names")]
pub enum GrpcCode {
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl GrpcCode {
    /// The code of a number on the wire; unknown numbers are `Unknown`.
    pub fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Canceled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }

    /// The HTTP status that dockerd gives it.
    pub fn http_status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why this node cannot answer for the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotManager {
    /// It is in no swarm.
    NoSwarm,
    /// Its manager starts, or has no contact with the others.
    NotReady,
    /// It is a worker.
    Worker,
    /// Its manager waits for the unlock key.
    Locked,
    /// Its certificates have expired.
    CertificatesExpired,
}

/// Why leaving without force was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveRefusal {
    /// The manager is locked.
    Locked,
    /// It is the last manager.
    LastManager,
    /// The managers that remain could not agree any more.
    QuorumLost {
        /// Reachable managers that would remain.
        remaining: u64,
        /// Managers that there would be.
        total: u64,
    },
    /// It is a manager, the others would go on.
    Manager,
    /// It is a manager that is not active.
    InactiveManager,
}

/// What is wrong with an address given to init or join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressProblem {
    /// No address of this machine fits.
    NoneFound,
    /// Several addresses; what they are, as dockerd words it: "(A on eth0 and B on eth1)" or "on interface eth0 (A and B)".
    Several(String),
    /// The address to advertise cannot be chosen as no listen address was given, for one of the reasons above.
    ListenUnspecified(Box<AddressProblem>),
    /// The listen address has no known form.
    Listen,
    /// The advertise address has no known form.
    Advertise,
    /// The data path address has no known form.
    DataPath,
    /// The data path port is out of 1024..49151.
    DataPathPort(u32),
    /// Another text.
    Other(String),
}

/// Why the swarm refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SwarmError {
    /// The control API's answer, Go's text form.
    #[error("rpc error: code = {code:?} desc = {desc}")]
    Grpc {
        /// Code.
        code: GrpcCode,
        /// Description.
        desc: String,
    },
    /// This node is no active manager.
    #[error("{}", not_manager_text(*.0))]
    NotManager(NotManager),
    /// Init or join on a node that is in a swarm.
    #[error(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
    )]
    AlreadyInSwarm,
    /// Leave on a node that is not in a swarm.
    #[error("This node is not part of a swarm")]
    NotInSwarm,
    /// The join goes on in the background.
    #[error(
        "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node."
    )]
    JoinTimeout,
    /// The swarm has no leader.
    #[error(
        "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
    )]
    NoLeader,
    /// Leaving needs force.
    #[error("{}", leave_text(*.0))]
    LeaveRefused(LeaveRefusal),
    /// The unlock key is another one.
    #[error("swarm could not be unlocked: invalid key provided")]
    InvalidUnlockKey,
    /// The unlock key has no known form.
    #[error("invalid key string")]
    MalformedUnlockKey,
    /// There is nothing to unlock.
    #[error("swarm is not locked")]
    NotLocked,
    /// An address of init or join.
    #[error("{}", address_text(.0))]
    Address(AddressProblem),
    /// Anything else that is the caller's fault (400).
    #[error("{0}")]
    InvalidParameter(String),
    /// Anything else that is ours (500).
    #[error("{0}")]
    Internal(String),
}

impl SwarmError {
    /// A refusal of the control API.
    pub fn grpc(code: GrpcCode, desc: impl Into<String>) -> Self {
        Self::Grpc { code, desc: desc.into() }
    }

    /// Whether an object was not found.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Grpc { code: GrpcCode::NotFound, .. })
    }

    /// The HTTP status that dockerd gives it.
    pub fn http_status(&self) -> StatusCode {
        match self {
            Self::Grpc { code, .. } => code.http_status(),
            Self::NotManager(_)
            | Self::AlreadyInSwarm
            | Self::NotInSwarm
            | Self::JoinTimeout
            | Self::LeaveRefused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidUnlockKey => StatusCode::UNAUTHORIZED,
            Self::NotLocked => StatusCode::CONFLICT,
            Self::MalformedUnlockKey | Self::Address(_) | Self::InvalidParameter(_) => StatusCode::BAD_REQUEST,
            Self::NoLeader | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn not_manager_text(reason: NotManager) -> &'static str {
    match reason {
        NotManager::NoSwarm => {
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
        }
        NotManager::NotReady => {
            "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
        }
        NotManager::Worker => {
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
        }
        NotManager::Locked => {
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it."
        }
        NotManager::CertificatesExpired => {
            "Swarm certificates have expired. To replace them, leave the swarm and join again."
        }
    }
}

fn leave_text(refusal: LeaveRefusal) -> String {
    const OPENING: &str = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    const RESTORE: &str = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
    match refusal {
        LeaveRefusal::Locked => {
            "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.".to_owned()
        }
        LeaveRefusal::LastManager => format!(
            "{OPENING}Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
        ),
        LeaveRefusal::QuorumLost { remaining, total } => format!(
            "{OPENING}Removing this node leaves {remaining} managers out of {total}. Without a Raft quorum your swarm will be inaccessible. {RESTORE}"
        ),
        LeaveRefusal::Manager => format!("{OPENING}{RESTORE}"),
        LeaveRefusal::InactiveManager => {
            format!("{OPENING}Doing so may lose the consensus of your cluster. {RESTORE}")
        }
    }
}

fn address_text(problem: &AddressProblem) -> String {
    match problem {
        AddressProblem::NoneFound => "could not find the system's IP address".to_owned(),
        AddressProblem::Several(which) => {
            format!("could not choose an IP address to advertise since this system has multiple addresses {which}")
        }
        AddressProblem::ListenUnspecified(reason) => format!(
            "must specify a listening address because the address to advertise is not recognized as a system address, and a system's IP address to use could not be uniquely identified: {}",
            address_text(reason)
        ),
        AddressProblem::Listen => {
            "listen address must be an IP address or network interface (with optional port number)".to_owned()
        }
        AddressProblem::Advertise => {
            "advertise address must be a non-zero IP address or network interface (with optional port number)"
                .to_owned()
        }
        AddressProblem::DataPath => {
            "data path address must be a non-zero IP address or network interface (without a port number)".to_owned()
        }
        AddressProblem::DataPathPort(port) => {
            format!("Datapath port number is not in valid range (1024-49151) : {port}")
        }
        AddressProblem::Other(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: SwarmError, status: u16, text: &str) {
        assert_eq!(error.http_status().as_u16(), status, "{error:?}");
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn statuses_and_texts_are_dockers() {
        check(
            SwarmError::grpc(
                GrpcCode::AlreadyExists,
                "name conflicts with an existing object: service web already exists",
            ),
            409,
            "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
        );
        check(
            SwarmError::grpc(GrpcCode::Unknown, "update out of sequence"),
            500,
            "rpc error: code = Unknown desc = update out of sequence",
        );
        check(
            SwarmError::NotManager(NotManager::NoSwarm),
            503,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        );
        check(
            SwarmError::LeaveRefused(LeaveRefusal::LastManager),
            503,
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
        );
        check(SwarmError::InvalidUnlockKey, 401, "swarm could not be unlocked: invalid key provided");
        check(SwarmError::MalformedUnlockKey, 400, "invalid key string");
        check(SwarmError::NotLocked, 409, "swarm is not locked");
        check(SwarmError::NotInSwarm, 503, "This node is not part of a swarm");
        check(SwarmError::Address(AddressProblem::NoneFound), 400, "could not find the system's IP address");
        assert_eq!(SwarmError::NoLeader.http_status().as_u16(), 500);
    }

    #[test]
    fn every_grpc_code_has_its_status() {
        let table = [
            (3, 400),
            (9, 400),
            (11, 400),
            (16, 401),
            (7, 403),
            (5, 404),
            (6, 409),
            (12, 501),
            (14, 503),
            (2, 500),
            (10, 500),
            (13, 500),
            (99, 500),
        ];
        for (number, status) in table {
            assert_eq!(GrpcCode::from_number(number).http_status().as_u16(), status, "code {number}");
        }
    }
}
