//! Every metric that there is: its name, kind, labels and help; the table of `docs/metrics.md` (a test compares them). Names,
//! labels and help of `engine_daemon_`, `swarm_` and `process_` are those of dockerd.

use prometheus_client::metrics::MetricType;

/// A metric with all its label values.
#[derive(Debug)]
pub(super) struct Family {
    /// As Prometheus shows it.
    pub(super) name: &'static str,
    /// Whether it only grows.
    pub(super) kind: Kind,
    /// Names of its labels, sorted.
    pub(super) labels: &'static [&'static str],
    /// What it says.
    pub(super) help: &'static str,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Up and down.
    Gauge,
    /// Up, and to 0 with the daemon's start; its name ends in `_total`.
    Counter,
}

impl Kind {
    /// Prometheus' word.
    #[cfg(test)]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

impl Family {
    /// The name that the encoder wants: it adds `_total` to a counter's.
    pub(super) fn stem(&self) -> &'static str {
        match self.kind {
            Kind::Gauge => self.name,
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
        }
    }

    pub(super) fn metric_type(&self) -> MetricType {
        match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        }
    }
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $id: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All of them, in the order in which they are told.
        pub(super) static FAMILIES: &[&Family] = &[$(&$id),*];
    };
}

families! {
    // dockerd's
    CONTAINERS: Gauge "engine_daemon_container_states_containers" ["state"]
        "The count of containers in various states";
    ENGINE_CPUS: Gauge "engine_daemon_engine_cpus_cpus" []
        "The number of cpus that the host system of the engine has";
    ENGINE_INFO: Gauge "engine_daemon_engine_info"
        ["architecture", "commit", "daemon_id", "graphdriver", "kernel", "os", "os_type", "os_version", "version"]
        "The information related to the engine and the OS it is running on";
    ENGINE_MEMORY: Gauge "engine_daemon_engine_memory_bytes" []
        "The number of bytes of memory that the host system of the engine has";
    EVENT_SUBSCRIBERS: Gauge "engine_daemon_events_subscribers_total" []
        "The number of current subscribers to events";
    EVENTS: Counter "engine_daemon_events_total" []
        "The number of events logged";
    HEALTH_CHECKS_FAILED: Counter "engine_daemon_health_checks_failed_total" []
        "The total number of failed health checks";
    HEALTH_CHECKS: Counter "engine_daemon_health_checks_total" []
        "The total number of health checks";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "Total user and system CPU time spent in seconds.";
    PROCESS_FDS_MAX: Gauge "process_max_fds" []
        "Maximum number of open file descriptors.";
    PROCESS_FDS: Gauge "process_open_fds" []
        "Number of open file descriptors.";
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" []
        "Resident memory size in bytes.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "Start time of the process since unix epoch in seconds.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Virtual memory size in bytes.";
    SWARM_CONFIGS: Gauge "swarm_manager_configs_total" []
        "The number of configs in the cluster object store";
    SWARM_LEADER: Gauge "swarm_manager_leader" []
        "Indicates if this manager node is a leader";
    SWARM_NETWORKS: Gauge "swarm_manager_networks_total" []
        "The number of networks in the cluster object store";
    SWARM_NODES: Gauge "swarm_manager_nodes" ["state"]
        "The number of nodes";
    SWARM_SECRETS: Gauge "swarm_manager_secrets_total" []
        "The number of secrets in the cluster object store";
    SWARM_SERVICES: Gauge "swarm_manager_services_total" []
        "The number of services in the cluster object store";
    SWARM_TASKS: Gauge "swarm_manager_tasks_total" ["state"]
        "The number of tasks in the cluster object store";
    SWARM_INFO: Gauge "swarm_node_info" ["node_id", "swarm_id"]
        "Information related to the swarm";
    SWARM_MANAGER: Gauge "swarm_node_manager" []
        "Whether this node is a manager or not";

    // Skep's own
    CONNTRACK: Gauge "skep_conntrack_entries" ["place"]
        "Connections in the table of connections of this machine (host) and of the routing mesh (mesh)";
    CONNTRACK_MAX: Gauge "skep_conntrack_max_entries" ["place"]
        "Connections that the table holds at most";
    CONNTRACK_DROPPED: Counter "skep_conntrack_dropped_total" ["place"]
        "Packets and connections dropped by the kernel's count: the table was full, or two packets of one flow met";
    NODE_SESSION: Gauge "skep_node_session" []
        "Whether this node has a session with a manager";
    NODE_STATE: Gauge "skep_node_state" ["state"]
        "Where this node stands in its swarm: 1 for one state, as docker info shows it, 0 for the others";
    RAFT_APPLIED: Gauge "skep_raft_applied_index" []
        "The last entry of the raft log that this manager has applied";
    RAFT_MEMBERS: Gauge "skep_raft_members" []
        "Members of the raft group";
    RAFT_TERM: Gauge "skep_raft_term" []
        "The term of raft: it grows with each election";
    GOSSIP_PEERS: Gauge "skep_gossip_peers" []
        "Other nodes that gossip";
    GOSSIP_BACKLOG: Gauge "skep_gossip_backlog" []
        "Changes of tables that wait to be spread";
    GOSSIP_TROUBLES: Gauge "skep_gossip_troubles" []
        "How badly this node itself does at gossip, 0 to 7";
    GOSSIP_DIGESTS: Counter "skep_gossip_digests_sent_total" []
        "Digests of tables sent to other nodes";
    GOSSIP_DIFFERING: Counter "skep_gossip_digests_differing_total" []
        "Digests that were not like this node's: most are changes on their way";
    GOSSIP_DIVERGENCES: Counter "skep_gossip_divergences_total" []
        "Differences between tables that lasted, and were repaired";
    GOSSIP_BULK_SYNCS: Counter "skep_gossip_bulk_syncs_unanswered_total" []
        "Bulk syncs that had no answer in time";
    GOSSIP_ACCUSATIONS: Counter "skep_gossip_accusations_total" []
        "Times that this node was suspected, or declared gone, wrongly";
    GOSSIP_REFUTATIONS: Counter "skep_gossip_refutations_total" []
        "Statements about this node that it contradicted";
    GOSSIP_REFUSED: Counter "skep_gossip_refused_total" ["reason"]
        "Packets and messages of streams thrown away";
    GOSSIP_OVER_LIMIT: Counter "skep_gossip_over_limit_total" []
        "Members, attachments and entries not taken since a limit was reached";
    GOSSIP_PACKETS: Counter "skep_gossip_packets_total" ["direction"]
        "Packets";
    GOSSIP_PACKET_BYTES: Counter "skep_gossip_packet_bytes_total" ["direction"]
        "Bytes of packets without headers of UDP and IP";
    GOSSIP_UNSENT: Counter "skep_gossip_packets_unsent_total" []
        "Packets that the socket did not take";
    GOSSIP_STREAM_BYTES: Counter "skep_gossip_stream_bytes_total" ["direction"]
        "Bytes of streams";
    GOSSIP_DIALS: Counter "skep_gossip_streams_opened_total" []
        "Streams that this node opened";
    GOSSIP_DIALS_DENIED: Counter "skep_gossip_streams_not_opened_total" []
        "Streams not opened as too many were open, or as their message was too large";
    GOSSIP_STREAMS_DENIED: Counter "skep_gossip_streams_denied_total" []
        "Streams of others closed at once, as too many were open";
    GOSSIP_STREAMS_BROKEN: Counter "skep_gossip_streams_broken_total" []
        "Streams of others that ended without a message";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_prometheus_and_unique() {
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
        for family in FAMILIES {
            let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_plain(family.name) && family.labels.iter().all(|label| is_plain(label)), "{}", family.name);
            assert!(family.kind != Kind::Counter || family.name.ends_with("_total"), "{}", family.name);
            assert!(family.labels.is_sorted(), "{}", family.name);
        }
    }

    /// Rows of the tables in `docs/metrics.md` that begin with a name.
    #[test]
    fn the_page_lists_them_all() {
        let page = include_str!("../../../../docs/metrics.md");
        let told: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let row = |family: &&Family| {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let help = family.help.trim_end_matches('.');
            format!("| `{}` | {} | {} | {help} |", family.name, family.kind.word(), labels.join(", "))
        };
        let mut expected: Vec<_> = FAMILIES.iter().map(row).collect();
        for row in &mut expected {
            *row = row.replace("|  |", "| |");
        }
        assert_eq!(told, expected, "rows should be:\n{}", expected.join("\n"));
    }
}
