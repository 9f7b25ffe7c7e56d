//! The networks as `GET /networks` shows them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::bridges::BridgeRecord;
use crate::state::{BRIDGE, GWBRIDGE, State};
use crate::store::NetworkRecord;
use crate::{Endpoint, Ipv4Cidr, NetConfig, NetworkContainer, NetworkInfo, OverlaySubnet, SandboxMode, SubnetInfo};

/// All networks of this machine.
pub(crate) fn networks(state: &State, config: &NetConfig) -> Vec<NetworkInfo> {
    let records = &state.networks;
    let mut networks = vec![
        local(state, BRIDGE, "bridge", &records.bridge, bridge_options(config)),
        local(state, "host", "host", &records.host, BTreeMap::new()),
        local(state, "none", "null", &records.none, BTreeMap::new()),
    ];
    if let Some(record) = &records.gwbridge {
        networks.push(local(state, GWBRIDGE, "bridge", record, gwbridge_options(config)));
    }
    networks.extend(state.bridges.values().map(|bridge| of_user(state, &bridge.record)));
    for overlay in state.overlays.values() {
        let spec = &overlay.record.spec;
        networks.push(NetworkInfo {
            id: spec.network_id.clone(),
            name: spec.name.clone(),
            created_unix_ns: overlay.record.created_unix_ns.into(),
            driver: "overlay".to_owned(),
            scope: "swarm".to_owned(),
            subnets: spec.subnets.iter().map(of_overlay).collect(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            internal: spec.internal,
            attachable: false,
            ingress: spec.ingress,
            containers: containers(state, &spec.network_id, &spec.name),
        });
    }
    networks
}

fn local(
    state: &State,
    name: &str,
    driver: &str,
    record: &NetworkRecord,
    options: BTreeMap<String, String>,
) -> NetworkInfo {
    NetworkInfo {
        id: record.id.clone(),
        name: name.to_owned(),
        created_unix_ns: record.created_unix_ns.into(),
        driver: driver.to_owned(),
        scope: "local".to_owned(),
        subnets: record.address.map(|address| whole(address.network(), address.address)).into_iter().collect(),
        options,
        labels: BTreeMap::new(),
        internal: false,
        attachable: false,
        ingress: false,
        containers: containers(state, &record.id, name),
    }
}

fn of_user(state: &State, record: &BridgeRecord) -> NetworkInfo {
    let spec = &record.spec;
    let subnet = SubnetInfo {
        range: spec.range,
        reserved: spec.reserved.clone(),
        is_chosen: spec.subnet.is_some(),
        ..whole(record.address.network(), record.address.address)
    };
    NetworkInfo {
        id: record.id.clone(),
        name: spec.name.clone(),
        created_unix_ns: record.created_unix_ns.into(),
        driver: "bridge".to_owned(),
        scope: "local".to_owned(),
        subnets: vec![subnet],
        options: spec.options.clone(),
        labels: spec.labels.clone(),
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: false,
        containers: containers(state, &record.id, &spec.name),
    }
}

fn of_overlay(subnet: &OverlaySubnet) -> SubnetInfo {
    SubnetInfo { is_chosen: true, ..whole(subnet.subnet, subnet.gateway) }
}

fn whole(subnet: Ipv4Cidr, gateway: Ipv4Addr) -> SubnetInfo {
    SubnetInfo { subnet, gateway, range: None, reserved: BTreeMap::new(), is_chosen: false }
}

fn containers(state: &State, network_id: &str, network_name: &str) -> Vec<NetworkContainer> {
    let of = |container_id: &str, name: &str, endpoint: &Endpoint| NetworkContainer {
        container_id: container_id.to_owned(),
        name: name.to_owned(),
        endpoint_id: endpoint.endpoint_id.clone(),
        mac: endpoint.mac.clone(),
        address: endpoint.address,
    };
    let mut listed = Vec::new();
    for record in state.sandboxes.values().filter(|record| record.is_ready) {
        let (id, name) = (&record.spec.container_id, &record.spec.name);
        let endpoints = record.sandbox.endpoints.iter().filter(|endpoint| endpoint.network_id == network_id);
        // dockerd names a way out after the sandbox, not after the container
        let gateway = format!("gateway_{}", record.sandbox.sandbox_id.chars().take(12).collect::<String>());
        let shown = if network_name == GWBRIDGE { &gateway } else { name };
        listed.extend(endpoints.map(|endpoint| of(id, shown, endpoint)));
        // host and none have no endpoints of ours, but dockerd lists their containers
        let is_member =
            matches!((&record.spec.mode, network_name), (SandboxMode::Host, "host") | (SandboxMode::None, "none"));
        if is_member {
            listed.push(NetworkContainer {
                container_id: id.clone(),
                name: name.clone(),
                endpoint_id: record.sandbox.sandbox_id.clone(),
                mac: String::new(),
                address: Ipv4Cidr::new(Ipv4Addr::UNSPECIFIED, 0),
            });
        }
    }
    if let Some(ingress) = &state.ingress {
        let own = [
            ("ingress-sbox", format!("{}-endpoint", ingress.record.mesh.network_name), &ingress.record.mesh),
            ("ingress-sbox", "gateway_ingress-sbox".to_owned(), &ingress.record.gateway),
        ];
        let own = own.iter().filter(|(_, _, endpoint)| endpoint.network_id == network_id);
        listed.extend(own.map(|(id, name, endpoint)| of(id, name, endpoint)));
    }
    if let Some(balancer) = state.overlays.get(network_id).and_then(|overlay| overlay.record.balancer.as_ref()) {
        listed.push(of(&format!("lb-{network_name}"), &format!("{network_name}-endpoint"), &balancer.endpoint));
    }
    listed
}

fn bridge_options(config: &NetConfig) -> BTreeMap<String, String> {
    options(&[
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", if config.icc { "true" } else { "false" }),
        ("com.docker.network.bridge.enable_ip_masquerade", if config.ip_masq { "true" } else { "false" }),
        ("com.docker.network.bridge.host_binding_ipv4", &config.default_bind_address.to_string()),
        ("com.docker.network.bridge.name", &config.bridge_name),
        ("com.docker.network.driver.mtu", &config.mtu.to_string()),
    ])
}

fn gwbridge_options(config: &NetConfig) -> BTreeMap<String, String> {
    options(&[
        ("com.docker.network.bridge.enable_icc", "false"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.name", &config.gwbridge_name),
    ])
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
