//! The handle that the engine's adapter uses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::{Backend, EtcFiles, IngressPort, IngressSpec, NetConfig, NetError, NetworkInfo, Sandbox, SandboxSpec};

/// The network of this machine. Cheap to clone; every method may be called from many tasks at once.
#[derive(Clone)]
pub struct Net {}

/// What [`Net::reconcile`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReconcileReport {
    /// Containers whose sandboxes were left over.
    pub removed_sandboxes: Vec<String>,
    /// Pinned namespaces that belonged to nobody.
    pub removed_namespaces: Vec<String>,
    /// Known containers whose namespace is gone (after a reboot); their sandboxes must be made anew.
    pub lost_sandboxes: Vec<String>,
}

impl Net {
    /// Opens the network: makes the bridges, adopts what a former daemon left, writes the firewall anew in one go.
    /// Must run inside a tokio runtime, on a thread in the host's network namespace.
    pub async fn open(_config: NetConfig) -> Result<Self, NetError> {
        Ok(Self {})
    }

    /// Things the operator should know, each with its remedy (a `FORWARD` policy of drop, …).
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Removes what belongs to containers that are not `known` and forgets them.
    pub async fn reconcile(&self, _known: &BTreeSet<String>) -> Result<ReconcileReport, NetError> {
        Ok(ReconcileReport::default())
    }

    /// Makes a container's namespace with its endpoints and opens its ports. Nothing is left if it fails.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, NetError> {
        Err(NetError::NoSandbox(spec.container_id))
    }

    /// Removes a container's ports, endpoints and namespace. `Ok` if there is nothing.
    pub async fn remove_sandbox(&self, _container_id: &str) -> Result<(), NetError> {
        Ok(())
    }

    /// The sandbox of a container, if it has one.
    pub fn sandbox(&self, _container_id: &str) -> Option<Sandbox> {
        None
    }

    /// Closes a container's host ports but leaves its endpoints.
    pub async fn release_ports(&self, _container_id: &str) -> Result<(), NetError> {
        Ok(())
    }

    /// `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` for a container that has a sandbox.
    pub fn etc_files(&self, container_id: &str) -> Result<EtcFiles, NetError> {
        Err(NetError::NoSandbox(container_id.to_owned()))
    }

    /// The networks of this machine.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        Vec::new()
    }

    /// The address of `docker_gwbridge` on the host; the bridge is made if need be.
    pub async fn gwbridge_address(&self) -> Result<Ipv4Addr, NetError> {
        Err(NetError::NoNetwork("docker_gwbridge".to_owned()))
    }

    /// Makes the ingress network and this node's ingress sandbox, or changes them to `spec`. Idempotent.
    pub async fn ingress_ensure(&self, _spec: IngressSpec) -> Result<(), NetError> {
        Ok(())
    }

    /// Removes the ingress network, its sandbox and every service of it. `Ok` if there is none.
    pub async fn ingress_remove(&self) -> Result<(), NetError> {
        Ok(())
    }

    /// Replaces ports and backends of one service atomically; returns once the kernel has taken them. Established
    /// connections to a removed backend go on; UDP flows to it are moved.
    pub async fn set_service(
        &self,
        _service_id: &str,
        _ports: Vec<IngressPort>,
        _backends: Vec<Backend>,
    ) -> Result<(), NetError> {
        Ok(())
    }

    /// Takes a service out of the mesh. `Ok` if it is not there.
    pub async fn remove_service(&self, _service_id: &str) -> Result<(), NetError> {
        Ok(())
    }
}
