//! Every gRPC method of port 2377: who may call it and where it is answered. The one table behind authorisation and
//! forwarding; a method that is not in it does not exist. Roles and places are SwarmKit's.

use model::NodeRole;

/// Opens the path of every SwarmKit method.
const PACKAGE: &str = "/docker.swarmkit.v1.";

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever reaches the port: joiners have no certificate yet.
    Anyone,
    /// Workers and managers of the cluster.
    Nodes,
    /// Managers of the cluster.
    Managers,
}

impl Access {
    /// The roles that are let in by their certificates, in the order of SwarmKit's texts.
    pub(crate) fn roles(self) -> &'static [NodeRole] {
        match self {
            Self::Anyone => &[],
            Self::Nodes => &[NodeRole::Worker, NodeRole::Manager],
            Self::Managers => &[NodeRole::Manager],
        }
    }

    /// Their OUs, as SwarmKit's texts name them.
    pub(crate) fn units(self) -> String {
        let units: Vec<_> = self.roles().iter().map(|role| identity::role_name(*role)).collect();
        format!("[{}]", units.join(" "))
    }
}

/// Where a method is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// By the leader: a follower passes the call on.
    Leader,
    /// By the manager that got it.
    Here,
}

/// Whether a call can be sent again: one message each way, or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One request, one response.
    Unary,
    /// A stream of requests or of responses.
    Stream,
}

/// What the table says of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) access: Access,
    pub(crate) place: Place,
    pub(crate) shape: Shape,
}

/// The method of a request's path.
pub(crate) fn find(path: &str) -> Option<Method> {
    let (service, name) = path.strip_prefix(PACKAGE)?.split_once('/')?;
    all().find(|method| method.service == service && method.name == name)
}

/// All methods.
pub(crate) fn all() -> impl Iterator<Item = Method> {
    let special = SPECIAL.iter().map(|(service, name, access, place, shape)| Method {
        service,
        name,
        access: *access,
        place: *place,
        shape: *shape,
    });
    // Another node's Control calls reach 2377 only because that node knows us as the leader.
    let control = CONTROL.iter().map(|name| Method {
        service: "Control",
        name,
        access: Access::Managers,
        place: Place::Here,
        shape: Shape::Unary,
    });
    special.chain(control)
}

use Access::{Anyone, Managers, Nodes};
use Place::{Here, Leader};
use Shape::{Stream, Unary};

const SPECIAL: &[(&str, &str, Access, Place, Shape)] = &[
    ("Raft", "StreamRaftMessage", Managers, Here, Stream),
    ("Raft", "ProcessRaftMessage", Managers, Here, Unary),
    ("Raft", "ResolveAddress", Managers, Here, Unary),
    ("Dispatcher", "Heartbeat", Nodes, Leader, Unary),
    ("Dispatcher", "UpdateTaskStatus", Nodes, Leader, Unary),
    ("Dispatcher", "UpdateVolumeStatus", Nodes, Leader, Unary),
    ("Dispatcher", "Session", Nodes, Leader, Stream),
    ("Dispatcher", "Assignments", Nodes, Leader, Stream),
    ("Dispatcher", "Tasks", Nodes, Leader, Stream),
    ("LogBroker", "ListenSubscriptions", Nodes, Leader, Stream),
    ("LogBroker", "PublishLogs", Nodes, Leader, Stream),
    ("ResourceAllocator", "AttachNetwork", Nodes, Leader, Unary),
    ("ResourceAllocator", "DetachNetwork", Nodes, Leader, Unary),
    ("CA", "GetRootCACertificate", Anyone, Leader, Unary),
    ("CA", "GetUnlockKey", Managers, Leader, Unary),
    ("NodeCA", "IssueNodeCertificate", Anyone, Leader, Unary),
    ("NodeCA", "NodeCertificateStatus", Anyone, Leader, Unary),
    ("RaftMembership", "Join", Managers, Leader, Unary),
    ("RaftMembership", "Leave", Managers, Leader, Unary),
    ("Health", "Check", Managers, Here, Unary),
    ("Logs", "SubscribeLogs", Managers, Here, Stream),
    ("Watch", "Watch", Managers, Here, Stream),
];

const CONTROL: &[&str] = &[
    "GetNode",
    "ListNodes",
    "UpdateNode",
    "RemoveNode",
    "GetTask",
    "ListTasks",
    "RemoveTask",
    "GetService",
    "ListServices",
    "CreateService",
    "UpdateService",
    "RemoveService",
    "ListServiceStatuses",
    "GetNetwork",
    "ListNetworks",
    "CreateNetwork",
    "RemoveNetwork",
    "GetCluster",
    "ListClusters",
    "UpdateCluster",
    "GetSecret",
    "UpdateSecret",
    "ListSecrets",
    "CreateSecret",
    "RemoveSecret",
    "GetConfig",
    "UpdateConfig",
    "ListConfigs",
    "CreateConfig",
    "RemoveConfig",
    "GetExtension",
    "CreateExtension",
    "RemoveExtension",
    "GetResource",
    "UpdateResource",
    "ListResources",
    "CreateResource",
    "RemoveResource",
    "CreateVolume",
    "GetVolume",
    "UpdateVolume",
    "ListVolumes",
    "RemoveVolume",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_found_by_its_path_and_nothing_else_is() {
        let method = find("/docker.swarmkit.v1.CA/GetUnlockKey").unwrap();
        assert_eq!((method.access, method.place, method.shape), (Managers, Leader, Unary));
        assert_eq!(find("/docker.swarmkit.v1.Control/GetNode").unwrap().access, Managers);
        for path in ["", "/", "/docker.swarmkit.v1.CA", "/docker.swarmkit.v1.CA/", "/docker.swarmkit.v1./GetUnlockKey"]
        {
            assert_eq!(find(path), None, "{path}");
        }
        assert_eq!(find("/docker.swarmkit.v1.CA/getunlockkey"), None);
        assert_eq!(find("/docker.swarmkit.v1.CA/GetUnlockKey/"), None);
        assert_eq!(find("/other.CA/GetUnlockKey"), None);
    }

    #[test]
    fn only_three_methods_are_open_to_strangers() {
        let open: Vec<_> = all().filter(|method| method.access == Anyone).map(|method| method.name).collect();
        assert_eq!(open, ["GetRootCACertificate", "IssueNodeCertificate", "NodeCertificateStatus"]);
        assert_eq!(all().count(), SPECIAL.len() + CONTROL.len());
    }
}
