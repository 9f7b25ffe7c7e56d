//! Which gRPC services a manager offers, to whom.

use std::sync::Arc;

use model::NodeRole;
use swarm_proto::swarmkit::ca_server::CaServer;
use swarm_proto::swarmkit::control_server::ControlServer;
use swarm_proto::swarmkit::dispatcher_server::DispatcherServer;
use swarm_proto::swarmkit::health_server::HealthServer;
use swarm_proto::swarmkit::log_broker_server::LogBrokerServer;
use swarm_proto::swarmkit::logs_server::LogsServer;
use swarm_proto::swarmkit::node_ca_server::NodeCaServer;
use swarm_proto::swarmkit::raft_membership_server::RaftMembershipServer;
use swarm_proto::swarmkit::raft_server::RaftServer;
use swarm_proto::swarmkit::resource_allocator_server::ResourceAllocatorServer;
use tonic::service::Routes;
use tonic::{Extensions, Status};

use crate::ca::CaService;
use crate::caller::Caller;
use crate::control_service::{ControlService, LogsService};
use crate::dispatcher::{Dispatcher, DispatcherService};
use crate::gate::{Entrance, GateKeeper, guarded};
use crate::health::HealthService;
use crate::log_broker::{LogBroker, LogBrokerService};
use crate::membership::MembershipService;
use crate::raft_service::RaftService;
use crate::resource_allocator::ResourceAllocatorService;

/// Largest message from this node's own agent.
const MAX_LOCAL_BYTES: usize = i32::MAX as usize;

/// Raft's service behind the gate.
pub(crate) type OwnRaftService = RaftService<consensus::Handle, fn(&Extensions) -> Result<(), Status>>;

/// What raft's service asks with each call. The gate has looked at the certificate; this holds if somebody serves the
/// service without it.
pub(crate) fn let_managers_in(extensions: &Extensions) -> Result<(), Status> {
    match extensions.get::<Caller>().and_then(|caller| caller.role) {
        Some(NodeRole::Manager) => Ok(()),
        _ => Err(Status::permission_denied("Permission denied: not a manager")),
    }
}

/// The services of a manager.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) keeper: Arc<GateKeeper>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) log_broker: Arc<LogBroker>,
    pub(crate) control: ControlService,
    pub(crate) allocator: ResourceAllocatorService,
    pub(crate) ca: CaService,
    pub(crate) membership: MembershipService,
    pub(crate) health: HealthService,
    pub(crate) raft: Arc<OwnRaftService>,
}

impl Services {
    /// For other nodes. tonic's limit for a message is SwarmKit's, 4 MiB.
    pub(crate) fn remote(&self) -> Routes {
        let routes = Routes::new(CaServer::new(self.ca.clone()))
            .add_service(NodeCaServer::new(self.ca.clone()))
            .add_service(DispatcherServer::new(DispatcherService(self.dispatcher.clone())))
            .add_service(LogBrokerServer::new(LogBrokerService(self.log_broker.clone())))
            .add_service(ResourceAllocatorServer::new(self.allocator.clone()))
            .add_service(ControlServer::new(self.control.clone()))
            .add_service(LogsServer::new(LogsService(self.log_broker.clone())))
            .add_service(RaftServer::from_arc(self.raft.clone()))
            .add_service(RaftMembershipServer::new(self.membership.clone()))
            .add_service(HealthServer::new(self.health.clone()));
        guarded(self.keeper.clone(), Entrance::Remote, routes)
    }

    /// For this node's own agent.
    pub(crate) fn local(&self) -> Routes {
        let dispatcher = DispatcherServer::new(DispatcherService(self.dispatcher.clone()));
        let logs = LogBrokerServer::new(LogBrokerService(self.log_broker.clone()));
        let routes = Routes::new(CaServer::new(self.ca.clone()))
            .add_service(NodeCaServer::new(self.ca.clone()))
            .add_service(ResourceAllocatorServer::new(self.allocator.clone()))
            .add_service(dispatcher.max_decoding_message_size(MAX_LOCAL_BYTES))
            .add_service(logs.max_decoding_message_size(MAX_LOCAL_BYTES));
        guarded(self.keeper.clone(), Entrance::Local, routes)
    }
}
