//! What a task demands of a node, and how it is said when no node has it.

use super::constraint::{Constraint, node_matches, parse};
use super::generic;
use super::nodes::NodeInfo;
use model::{
    MountType, Node, NodeAvailability, NodeState, Platform, PortProtocol, PublishMode, Task, TaskRuntime, TaskSpec,
};

/// The filters, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    Ready,
    Resource,
    Plugin,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
    Volumes,
}

const FILTERS: usize = 8;

/// How many nodes each filter turned down.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejections([usize; FILTERS]);

impl Rejections {
    pub(super) fn add(&mut self, filter: Filter) {
        self.0[filter as usize] += 1;
    }

    /// The filters that turned nodes down, the most first.
    pub(super) fn explain(&self) -> String {
        use Filter::{Constraint, HostPort, MaxReplicas, Platform, Plugin, Ready, Resource, Volumes};
        let filters = [Ready, Resource, Plugin, Constraint, Platform, HostPort, MaxReplicas, Volumes];
        let mut counted: Vec<_> = filters.map(|filter| (filter, self.0[filter as usize])).into();
        counted.retain(|(_, count)| *count > 0);
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let texts: Vec<_> = counted.into_iter().map(|(filter, count)| filter.text(count)).collect();
        texts.join("; ")
    }
}

impl Filter {
    fn text(self, count: usize) -> String {
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        match self {
            Self::Ready => format!("{nodes} not available for new tasks"),
            Self::Resource => format!("insufficient resources on {nodes}"),
            Self::Plugin => format!("missing plugin on {nodes}"),
            Self::Constraint => format!("scheduling constraints not satisfied on {nodes}"),
            Self::Platform => format!("unsupported platform on {nodes}"),
            Self::HostPort => format!("host-mode port already in use on {nodes}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
            Self::Volumes => format!("cannot fulfill requested CSI volume mounts on {nodes}"),
        }
    }
}

/// A plugin that the node's engine must list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WantedPlugin {
    kind: &'static str,
    name: String,
}

/// Demands that depend on the node object alone: nodes that meet the same ones form a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FixedDemands {
    constraints: Vec<String>,
    /// (architecture, os), normalised.
    platforms: Vec<(String, String)>,
    plugins: Vec<WantedPlugin>,
}

/// Fixed demands, ready to be asked of many nodes.
#[derive(Clone, Debug)]
pub(super) struct FixedFilter {
    constraints: Vec<Constraint>,
    platforms: Vec<(String, String)>,
    plugins: Vec<WantedPlugin>,
}

/// Demands that depend on what runs on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Demands {
    pub(super) fixed: FixedDemands,
    pub(super) nano_cpus: i64,
    pub(super) memory_bytes: i64,
    pub(super) generic: Vec<(String, i64)>,
    pub(super) host_ports: Vec<(PortProtocol, u32)>,
    pub(super) max_replicas: u64,
    /// (source, target, read-only) of cluster mounts.
    pub(super) volumes: Vec<(String, String, bool)>,
}

impl Demands {
    pub(super) fn of(task: &Task) -> Self {
        let reservations = reservations(&task.spec);
        let generic = reservations.map_or(Vec::new(), |it| generic::wanted(&it.generic));
        Self {
            fixed: FixedDemands::of(task),
            nano_cpus: reservations.map_or(0, |it| it.nano_cpus),
            memory_bytes: reservations.map_or(0, |it| it.memory_bytes),
            generic: generic.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
            host_ports: host_ports(task).collect(),
            max_replicas: task.spec.placement.as_ref().map_or(0, |it| it.max_replicas),
            volumes: cluster_mounts(&task.spec),
        }
    }

    pub(super) fn resources_fit(&self, info: &NodeInfo) -> bool {
        let (nano_cpus, memory_bytes) = info.available();
        let fits = |wanted: i64, available: i64| wanted <= 0 || wanted <= available;
        let generic_fits = |(kind, count): &(String, i64)| info.held.has_left(info.advertised(), kind, *count);
        fits(self.nano_cpus, nano_cpus)
            && fits(self.memory_bytes, memory_bytes)
            && self.generic.iter().all(generic_fits)
    }

    /// Whether the node has the resources and host ports.
    pub(super) fn room_fits(&self, info: &NodeInfo) -> bool {
        self.resources_fit(info) && self.host_ports_fit(info)
    }

    /// Whether the same nodes come into question, but for the maximum for a node and volumes.
    pub(super) fn same_nodes(&self, other: &Self) -> bool {
        self.nano_cpus == other.nano_cpus
            && self.memory_bytes == other.memory_bytes
            && self.fixed == other.fixed
            && self.generic == other.generic
            && self.host_ports == other.host_ports
    }

    pub(super) fn host_ports_fit(&self, info: &NodeInfo) -> bool {
        self.host_ports.iter().all(|port| !info.host_ports.contains_key(port))
    }

    pub(super) fn replicas_fit(&self, tasks_of_service: u32) -> bool {
        self.max_replicas == 0 || u64::from(tasks_of_service) < self.max_replicas
    }
}

/// What `spec` reserves.
pub(super) fn reservations(spec: &TaskSpec) -> Option<&model::Resources> {
    spec.resources.as_ref()?.reservations.as_ref()
}

/// The ports that the task binds on its node.
pub(super) fn host_ports(task: &Task) -> impl Iterator<Item = (PortProtocol, u32)> + '_ {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}

fn cluster_mounts(spec: &TaskSpec) -> Vec<(String, String, bool)> {
    let Some(TaskRuntime::Container(container)) = &spec.runtime else { return Vec::new() };
    let mounts = container.mounts.iter().filter(|mount| mount.kind == MountType::Cluster);
    mounts.map(|mount| (mount.source.clone(), mount.target.clone(), mount.readonly)).collect()
}

/// Whether the node may get new tasks at all.
pub(super) fn is_ready(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == NodeAvailability::Active
}

impl FixedDemands {
    fn of(task: &Task) -> Self {
        let placement = task.spec.placement.as_ref();
        let platforms = placement.map_or(&[][..], |it| &it.platforms);
        Self {
            constraints: placement.map_or(Vec::new(), |it| it.constraints.clone()),
            platforms: platforms.iter().map(normalised).collect(),
            plugins: plugins(task),
        }
    }

    pub(super) fn filter(&self) -> FixedFilter {
        FixedFilter {
            // The control API has refused what cannot be parsed; should it be there all the same, it is not a filter.
            constraints: parse(&self.constraints).unwrap_or_default(),
            platforms: self.platforms.clone(),
            plugins: self.plugins.clone(),
        }
    }
}

impl FixedFilter {
    pub(super) fn passes(&self, node: &Node) -> bool {
        is_ready(node) && self.plugins_fit(node) && self.constraints_fit(node) && self.platform_fits(node)
    }

    pub(super) fn constraints_fit(&self, node: &Node) -> bool {
        node_matches(&self.constraints, node)
    }

    pub(super) fn platform_fits(&self, node: &Node) -> bool {
        if self.platforms.is_empty() {
            return true;
        }
        let Some(platform) = node.description.as_ref().and_then(|it| it.platform.as_ref()) else { return false };
        let (architecture, os) = normalised(platform);
        let fits = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        self.platforms.iter().any(|wanted| fits(&wanted.0, &architecture) && fits(&wanted.1, &os))
    }

    pub(super) fn plugins_fit(&self, node: &Node) -> bool {
        let Some(engine) = node.description.as_ref().and_then(|it| it.engine.as_ref()) else { return true };
        self.plugins.iter().all(|wanted| {
            let mut same_kind = engine.plugins.iter().filter(|it| it.kind == wanted.kind).peekable();
            // An engine that lists no log drivers at all is an old one that does not report them.
            (wanted.kind == "Log" && same_kind.peek().is_none())
                || same_kind.any(|it| it.name == wanted.name || it.name.strip_suffix(":latest") == Some(&wanted.name))
        })
    }
}

fn normalised(platform: &Platform) -> (String, String) {
    let architecture = match platform.architecture.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    (architecture.to_owned(), platform.os.clone())
}

fn plugins(task: &Task) -> Vec<WantedPlugin> {
    let mut wanted = Vec::new();
    let mut want = |kind, name: &str| {
        if !name.is_empty() {
            wanted.push(WantedPlugin { kind, name: name.to_owned() });
        }
    };
    if let Some(TaskRuntime::Container(container)) = &task.spec.runtime {
        for mount in container.mounts.iter().filter(|mount| mount.kind == MountType::Volume) {
            let driver = mount.volume_options.as_ref().and_then(|it| it.driver_config.as_ref());
            if let Some(driver) = driver.filter(|it| it.name != "local") {
                want("Volume", &driver.name);
            }
        }
    }
    for network in task.networks.iter().filter_map(|it| it.network.as_ref()) {
        want("Network", network.driver_state.as_ref().map_or("", |it| &it.name));
    }
    if let Some(driver) = task.spec.log_driver.as_ref().filter(|it| it.name != "none") {
        want("Log", &driver.name);
    }
    wanted.sort();
    wanted.dedup();
    wanted
}
