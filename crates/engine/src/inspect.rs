//! What `inspect` shows of a container, in dockerd's form.

use std::collections::BTreeMap;

use docker_types::container::{
    EndpointIpamConfig, EndpointSettings, Health, Inspect, MountPoint, NetworkSettings, PortBinding, PortMap, State,
};
use docker_types::image::GraphDriver;

use crate::clock::time_of;
use crate::container::Container;
use crate::engine::Inner;
use crate::network::{ContainerNetwork, NetworkBackend, NetworkDriver, NetworkEndpoint};
use crate::options::SizeMode;
use crate::record::{LifeRecord, MountKind, MountRecord, Phase, Record};
use crate::{EngineError, endpoint_settings};

/// The storage driver, as dockerd names it.
const DRIVER: &str = "overlay2";
/// The bridge by which tasks reach the world.
pub(crate) const GATEWAY_NETWORK: &str = "docker_gwbridge";

pub(crate) async fn inspect(engine: &Inner, container: &Container, size: SizeMode) -> Result<Inspect, EngineError> {
    let record = container.record();
    let paths = &container.paths;
    let network = engine.network.get(&record.id);
    let rootfs = engine.images.rootfs(&record.id).ok();
    let size_rw = match size {
        SizeMode::With => engine.images.rootfs_size(&record.id).await.ok().map(|bytes| bytes as i64),
        SizeMode::Without => None,
    };
    let image_size = || engine.images.resolve(&record.image_id).map(|image| image.size as i64).unwrap_or_default();
    let text = |path: std::path::PathBuf| path.display().to_string();
    let life = &record.life;
    let ever = |path| if life.ever_networked || life.ever_started { text(path) } else { String::new() };
    let logs = life.ever_started && record.host_config.log_config.kind != "none";
    let log_path = if logs { text(paths.log()) } else { String::new() };
    Ok(Inspect {
        id: record.id.clone(),
        created: time_of(record.created_ns),
        path: record.path.clone(),
        args: record.args.clone(),
        state: state(&record),
        image: record.image_id.clone(),
        resolv_conf_path: ever(paths.etc("resolv.conf")),
        hostname_path: ever(paths.etc("hostname")),
        hosts_path: ever(paths.etc("hosts")),
        log_path,
        name: format!("/{}", record.name),
        restart_count: record.life.restart_count,
        driver: DRIVER.to_owned(),
        platform: "linux".to_owned(),
        exec_ids: Some(engine.execs.of_container(&record.id)).filter(|ids| !ids.is_empty()),
        host_config: record.host_config.clone(),
        graph_driver: GraphDriver { data: rootfs.as_ref().map(graph_data), name: DRIVER.to_owned() },
        size_rw,
        size_root_fs: size_rw.map(|own| own + image_size()),
        mounts: record.mounts.iter().filter_map(mount_point).collect(),
        config: record.config.clone(),
        network_settings: network_settings(&*engine.network, &record, network.as_ref()),
        ..Inspect::default()
    })
}

fn graph_data(rootfs: &image::Rootfs) -> BTreeMap<String, String> {
    let lower: Vec<String> = rootfs.lower.iter().map(|path| path.display().to_string()).collect();
    let data = [
        ("ID", rootfs.container_id.clone()),
        ("LowerDir", lower.join(":")),
        ("MergedDir", rootfs.merged.display().to_string()),
        ("UpperDir", rootfs.upper.display().to_string()),
        ("WorkDir", rootfs.work.display().to_string()),
    ];
    data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn state(record: &Record) -> State {
    let life = &record.life;
    State {
        status: status_word(life).to_owned(),
        running: life.phase.is_running(),
        paused: life.phase == Phase::Paused,
        restarting: life.phase == Phase::Restarting,
        oom_killed: life.oom_killed,
        dead: life.phase == Phase::Dead,
        pid: i64::from(life.pid),
        exit_code: life.exit_code,
        error: life.error.clone(),
        started_at: time_of(life.started_ns),
        finished_at: time_of(life.finished_ns),
        health: life.health.as_ref().map(|health| Health {
            status: health.status.clone(),
            failing_streak: health.failing_streak,
            log: Some(health.log.clone()),
        }),
    }
}

pub(crate) fn status_word(life: &LifeRecord) -> &'static str {
    life.phase.as_str()
}

/// How a mount is shown; `--tmpfs` is shown in the host's part only.
pub(crate) fn mount_point(mount: &MountRecord) -> Option<MountPoint> {
    if mount.kind == MountKind::Tmpfs && !mount.from_mounts {
        return None;
    }
    Some(MountPoint {
        kind: mount.kind.as_str().to_owned(),
        name: mount.name.clone(),
        source: mount.source.display().to_string(),
        destination: mount.destination.clone(),
        driver: mount.driver.clone(),
        mode: mount.mode.clone(),
        rw: !mount.read_only,
        propagation: mount.propagation.clone(),
    })
}

fn mac_and_address(settings: &mut EndpointSettings, endpoint: &NetworkEndpoint, is_plain: bool) {
    settings.mac_address.clone_from(&endpoint.mac);
    settings.network_id.clone_from(&endpoint.network_id);
    settings.endpoint_id.clone_from(&endpoint.endpoint_id);
    if let Some((address, prefix)) = endpoint.address {
        settings.ip_address = address.to_string();
        settings.ip_prefix_len = i64::from(prefix);
    }
    if let Some((address, prefix)) = endpoint.address_v6 {
        settings.global_ipv6_address = address.to_string();
        settings.global_ipv6_prefix_len = i64::from(prefix);
    }
    settings.gateway = endpoint.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    // what the swarm has chosen counts as asked for
    if is_plain && endpoint.driver == NetworkDriver::Overlay {
        let text = |address: Option<String>| address.unwrap_or_default();
        settings.ipam_config = Some(EndpointIpamConfig {
            ipv4_address: text(endpoint.address.map(|(address, _)| address.to_string())),
            ipv6_address: text(endpoint.address_v6.map(|(address, _)| address.to_string())),
            link_local_ips: Vec::new(),
        });
    }
}

/// The networks of a container: what was asked for, and what there is of it.
pub(crate) fn endpoints(
    backend: &dyn NetworkBackend,
    record: &Record,
    network: Option<&ContainerNetwork>,
) -> BTreeMap<String, EndpointSettings> {
    let mut endpoints = BTreeMap::new();
    let task = record.task.as_ref().filter(|task| task.is_networked());
    match task {
        Some(task) => {
            let ingress = task.ingress.iter().map(|it| (&it.network_id, &it.address, &[][..]));
            let others = task.overlays.iter().map(|it| (&it.network_id, &it.address, it.aliases.as_slice()));
            let given = ingress.chain(others);
            endpoints
                .extend(given.filter_map(|(id, address, aliases)| on_overlay(backend, record, id, address, aliases)));
        }
        None => {
            let asked = endpoint_settings::networks(record).into_iter();
            endpoints.extend(asked.map(|(network, settings)| own_settings(backend, record, network, settings)));
        }
    }
    // the way out of the swarm's networks is none of the container's own to dockerd, unless it was asked for
    let is_own = |endpoint: &&NetworkEndpoint| {
        endpoint.network_name != GATEWAY_NETWORK || endpoints.contains_key(GATEWAY_NETWORK)
    };
    let shown: Vec<_> = network.iter().flat_map(|network| &network.endpoints).filter(is_own).collect();
    for endpoint in shown {
        mac_and_address(endpoints.entry(endpoint.network_name.clone()).or_default(), endpoint, task.is_none());
    }
    endpoints
}

/// What is known of a network without the container being there.
fn own_settings(
    backend: &dyn NetworkBackend,
    record: &Record,
    network: String,
    mut settings: EndpointSettings,
) -> (String, EndpointSettings) {
    if record.life.ever_networked {
        if settings.network_id.is_empty() {
            settings.network_id = backend.network(&network).map(|network| network.id).unwrap_or_default();
        }
        if endpoint_settings::is_user_defined(&network) {
            let aliases = settings.aliases.clone().unwrap_or_default();
            settings.dns_names = Some(endpoint_settings::dns_names(record, &aliases));
        }
    }
    (network, settings)
}

/// A task's attachment to a network of the swarm, as the swarm gave it.
fn on_overlay(
    backend: &dyn NetworkBackend,
    record: &Record,
    network_id: &str,
    address: &str,
    aliases: &[String],
) -> Option<(String, EndpointSettings)> {
    let network = backend.network(network_id)?;
    let address = address.split('/').next().unwrap_or_default().to_owned();
    let settings = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig { ipv4_address: address, ..EndpointIpamConfig::default() }),
        network_id: network.id,
        aliases: (!aliases.is_empty()).then(|| aliases.to_vec()),
        dns_names: Some(endpoint_settings::dns_names(record, &[])),
        ..EndpointSettings::default()
    };
    Some((network.name, settings))
}

/// Ports: exposed ones with what opens them.
fn ports(record: &Record, network: Option<&ContainerNetwork>) -> PortMap {
    let mut ports = PortMap::new();
    // who is on no network exposes nothing
    let Some(network) = network.filter(|network| !network.endpoints.is_empty()) else { return ports };
    for port in record.config.exposed_ports.keys() {
        let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        ports.insert(port, None);
    }
    for published in &network.ports {
        let port = format!("{}/{}", published.container_port, published.protocol.as_str());
        ports.entry(port).or_default().get_or_insert_default().push(PortBinding {
            host_ip: published.host_address.to_string(),
            host_port: published.host_port.to_string(),
        });
    }
    ports
}

fn network_settings(
    backend: &dyn NetworkBackend,
    record: &Record,
    network: Option<&ContainerNetwork>,
) -> NetworkSettings {
    let endpoints = endpoints(backend, record, network);
    let mut settings = NetworkSettings { ports: Some(ports(record, network)), ..NetworkSettings::default() };
    if let Some(network) = network {
        settings.sandbox_id.clone_from(&network.sandbox_id);
        settings.sandbox_key = network.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    }
    // the fields of before there were networks tell about the default bridge
    if let Some(bridge) = endpoints.get("bridge") {
        settings.endpoint_id.clone_from(&bridge.endpoint_id);
        settings.gateway.clone_from(&bridge.gateway);
        settings.ip_address.clone_from(&bridge.ip_address);
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.mac_address.clone_from(&bridge.mac_address);
    }
    settings.networks = Some(endpoints);
    settings
}
