//! The objects that the first manager of a swarm writes: cluster, itself, the ingress network and the predefined ones.

use model::{
    CaConfig, Certificate, Cluster, ClusterId, ClusterSpec, DispatcherConfig, Driver, Duration, EncryptionAlgorithm,
    EncryptionKey, IpamOptions, IssuanceState, IssuanceStatus, JoinTokens, Network, NetworkId, NetworkSpec, Node,
    NodeAvailability, NodeId, NodeMembership, NodeRole, NodeSpec, OrchestrationConfig, RaftConfig, RootCa,
};
use store::{StoreError, Transaction};

use crate::key_manager;

/// What the founder decides.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The cluster: O of every certificate.
    pub cluster_id: ClusterId,
    /// This node.
    pub node_id: NodeId,
    /// Availability of this node.
    pub availability: NodeAvailability,
    /// The cluster's spec, with the user's wishes merged over [`default_cluster_spec`].
    pub spec: ClusterSpec,
    /// The root CA, PEM.
    pub ca_cert: Vec<u8>,
    /// Its key, PEM.
    pub ca_key: Vec<u8>,
    /// The worker's and the manager's token.
    pub join_tokens: (String, String),
    /// Pools that overlay subnets are cut from.
    pub default_address_pool: Vec<String>,
    /// Prefix length of those subnets.
    pub subnet_size: u32,
    /// UDP port of the data path.
    pub data_path_port: u32,
    /// The unlock key, if managers are to be locked.
    pub unlock_key: Option<[u8; 32]>,
}

/// SwarmKit's defaults for a new cluster.
pub fn default_cluster_spec() -> ClusterSpec {
    let mut spec = ClusterSpec {
        orchestration: OrchestrationConfig { task_history_retention_limit: 5 },
        dispatcher: DispatcherConfig { heartbeat_period: Some(Duration::from_secs(5)) },
        raft: RaftConfig {
            snapshot_interval: 10_000,
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: 500,
            heartbeat_tick: 1,
            election_tick: 10,
        },
        ca_config: CaConfig { node_cert_expiry: Some(Duration::from_secs(2160 * 3600)), ..Default::default() },
        ..Default::default()
    };
    spec.annotations.name = "default".to_owned();
    spec
}

impl Founding {
    /// Writes the objects.
    pub(crate) fn write(&self, transaction: &mut Transaction) -> Result<(), StoreError> {
        transaction.create(self.cluster())?;
        transaction.create(self.node())?;
        transaction.create(ingress_network())?;
        for name in ["bridge", "host"] {
            transaction.create(predefined_network(name))?;
        }
        Ok(())
    }

    fn cluster(&self) -> Cluster {
        let (worker, manager) = self.join_tokens.clone();
        let lamport = u64::from(u16::from_le_bytes(identity::random_bytes()));
        let unlock = self.unlock_key.map(|key| EncryptionKey {
            subsystem: "swarm-manager".to_owned(),
            algorithm: EncryptionAlgorithm::Aes128Gcm,
            key: key.to_vec(),
            lamport_time: 0,
        });
        let mut cluster = Cluster {
            id: self.cluster_id.clone(),
            spec: self.spec.clone(),
            root_ca: RootCa {
                ca_key: self.ca_key.clone(),
                ca_cert: self.ca_cert.clone(),
                ca_cert_hash: identity::ca_cert_hash(&self.ca_cert),
                join_tokens: JoinTokens { worker, manager },
                root_rotation: None,
                last_forced_rotation: self.spec.ca_config.force_rotate,
            },
            encryption_key_lamport_clock: lamport,
            unlock_keys: unlock.into_iter().collect(),
            default_address_pool: self.default_address_pool.clone(),
            subnet_size: self.subnet_size,
            vxlan_udp_port: self.data_path_port,
            ..Default::default()
        };
        key_manager::fill_up(&mut cluster, identity::random_bytes);
        cluster
    }

    fn node(&self) -> Node {
        Node {
            id: self.node_id.clone(),
            spec: NodeSpec {
                desired_role: NodeRole::Manager,
                membership: NodeMembership::Accepted,
                availability: self.availability,
                ..Default::default()
            },
            // SwarmKit's founder starts as a worker and its role manager sets this right after.
            role: NodeRole::Manager,
            certificate: Certificate {
                role: NodeRole::Manager,
                status: IssuanceStatus { state: IssuanceState::Issued, err: String::new() },
                cn: self.node_id.to_string(),
                ..Default::default()
            },
            vxlan_udp_port: self.data_path_port,
            ..Default::default()
        }
    }
}

fn ingress_network() -> Network {
    let mut spec = NetworkSpec {
        ingress: true,
        driver_config: Some(Driver::default()),
        ipam: Some(IpamOptions { driver: Some(Driver::default()), configs: Vec::new() }),
        ..Default::default()
    };
    spec.annotations.name = "ingress".to_owned();
    Network { id: NetworkId::from(identity::random_id()), spec, ..Default::default() }
}

fn predefined_network(name: &str) -> Network {
    let driver = Driver { name: name.to_owned(), ..Default::default() };
    let mut spec = NetworkSpec { driver_config: Some(driver), ..Default::default() };
    spec.annotations.name = name.to_owned();
    spec.annotations.labels.insert("com.docker.swarm.predefined".to_owned(), "true".to_owned());
    Network { id: NetworkId::from(identity::random_id()), spec, ..Default::default() }
}
