//! Networks of the whole swarm: created with a spec that can be carried out, removed when nobody uses them.

use std::net::IpAddr;

use model::{IpamConfig, IpamOptions, Network, NetworkId, NetworkSpec, PublishMode, Service, TaskState};
use store::{RefTarget, View};
use tonic::Code;

use super::LocalControl;
use super::annotations::check_dns_name;
use crate::error::ControlError;

/// Marks the swarm's own objects for networks that every node has.
const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// The driver of networks that reach over nodes, and what an unnamed one means.
const OVERLAY: &str = "overlay";
/// Drivers whose networks a swarm can hold.
const DRIVERS: [&str; 6] = ["", OVERLAY, "bridge", "host", "macvlan", "ipvlan"];

impl LocalControl {
    /// Creates a network of the whole swarm.
    pub(crate) async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId, ControlError> {
        check_network_spec(&spec)?;
        let id = NetworkId::from(identity::random_id());
        let network = Network { id: id.clone(), spec, ..Default::default() };
        let written = self.writer.write(|transaction| {
            let other = transaction.networks().find(|other| other.spec.ingress && network.spec.ingress);
            if let Some(other) = other {
                let text = format!("ingress network ({}) is already present", other.id);
                return Err(ControlError::new(Code::AlreadyExists, text));
            }
            transaction.create(network).map_err(ControlError::from)
        });
        written.await.map(|()| id)
    }

    /// Removes a network that nobody uses.
    pub(crate) async fn remove_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let network = transaction.network(id).ok_or_else(|| ControlError::not_found("network", id))?.clone();
            if network.spec.annotations.labels.contains_key(PREDEFINED_LABEL) {
                let name = &network.spec.annotations.name;
                let text = format!("network {id} ({name}) is a swarm predefined network and cannot be removed");
                return Err(ControlError::precondition(text));
            }
            if network.spec.ingress {
                ingress_is_free(transaction)?;
            } else {
                network_is_free(transaction, id)?;
            }
            transaction.remove::<Network>(id).map_err(ControlError::from)
        });
        written.await
    }
}

fn ingress_is_free(view: &View) -> Result<(), ControlError> {
    let publishes = |service: &&std::sync::Arc<Service>| {
        let ports = service.spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        ports.into_iter().any(|port| port.publish_mode == PublishMode::Ingress)
    };
    match view.services().find(publishes) {
        None => Ok(()),
        Some(service) => Err(ControlError::precondition(format!(
            "ingress network cannot be removed because service {} depends on it",
            service.id
        ))),
    }
}

fn network_is_free(view: &View, id: &NetworkId) -> Result<(), ControlError> {
    let target = RefTarget::Network(id.clone());
    if let Some(service) = view.services_using(&target).next() {
        return Err(ControlError::precondition(format!("network {id} is in use by service {}", service.id)));
    }
    let live = |task: &&std::sync::Arc<model::Task>| {
        task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running
    };
    match view.tasks_using(&target).find(live) {
        None => Ok(()),
        Some(task) => Err(ControlError::precondition(format!("network {id} is in use by task {}", task.id))),
    }
}

fn check_network_spec(spec: &NetworkSpec) -> Result<(), ControlError> {
    let driver = spec.driver_config.as_ref().map_or("", |driver| driver.name.as_str());
    if spec.ingress && !driver.is_empty() && driver != OVERLAY {
        let text = format!("only overlay driver can be used for an ingress network, not {driver}");
        return Err(ControlError::invalid(text));
    }
    if spec.attachable && spec.ingress {
        return Err(ControlError::invalid("ingress network cannot be attachable"));
    }
    check_dns_name(&spec.annotations.name)?;
    if spec.annotations.labels.contains_key(PREDEFINED_LABEL) {
        return Err(ControlError::new(
            Code::PermissionDenied,
            format!(
                "label {PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users"
            ),
        ));
    }
    if !DRIVERS.contains(&driver) {
        return Err(ControlError::invalid(format!("plugin {driver} not found")));
    }
    spec.ipam.as_ref().map_or(Ok(()), check_ipam)
}

fn check_ipam(ipam: &IpamOptions) -> Result<(), ControlError> {
    let driver = ipam.driver.as_ref().map_or("", |driver| driver.name.as_str());
    if !["", "default"].contains(&driver) {
        return Err(ControlError::invalid(format!("plugin {driver} not found")));
    }
    ipam.configs.iter().try_for_each(check_ipam_config)
}

fn check_ipam_config(config: &IpamConfig) -> Result<(), ControlError> {
    let refuse = |what: String| Err(ControlError::invalid(format!("ipam configuration: {what}")));
    let Some(subnet) = parse_cidr(&config.subnet) else { return refuse(format!("invalid subnet {}", config.subnet)) };
    if !config.range.is_empty() {
        let Some(range) = parse_cidr(&config.range) else { return refuse(format!("invalid range {}", config.range)) };
        if !contains(subnet, range.0) {
            return refuse(format!("subnet {} does not contain range {}", config.subnet, config.range));
        }
    }
    if !config.gateway.is_empty() {
        let Ok(gateway) = config.gateway.parse() else {
            return refuse(format!("invalid gateway {}", config.gateway));
        };
        if !contains(subnet, gateway) {
            return refuse(format!("subnet {} does not contain gateway {}", config.subnet, config.gateway));
        }
    }
    Ok(())
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u32 = length.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some((address, length))
}

fn contains((subnet, length): (IpAddr, u32), address: IpAddr) -> bool {
    match (subnet, address) {
        (IpAddr::V4(subnet), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            subnet.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(subnet), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            subnet.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Driver;

    fn spec(change: impl FnOnce(&mut NetworkSpec)) -> NetworkSpec {
        let mut spec = NetworkSpec::default();
        spec.annotations.name = "net".into();
        change(&mut spec);
        spec
    }

    fn with_config(subnet: &str, range: &str, gateway: &str) -> NetworkSpec {
        let config =
            IpamConfig { subnet: subnet.into(), range: range.into(), gateway: gateway.into(), ..Default::default() };
        spec(|spec| spec.ipam = Some(IpamOptions { driver: None, configs: vec![config] }))
    }

    #[test]
    fn specs() {
        let check = |spec: NetworkSpec, text: &str| {
            let found = check_network_spec(&spec).err().map(|error| error.desc).unwrap_or_default();
            assert_eq!(found, text);
        };
        check(spec(|_| {}), "");
        check(spec(|spec| spec.annotations.name = String::new()), "meta: name must be provided");
        check(spec(|spec| (spec.ingress, spec.attachable) = (true, true)), "ingress network cannot be attachable");
        let unknown = Driver { name: "weave".into(), ..Default::default() };
        check(spec(|spec| spec.driver_config = Some(unknown)), "plugin weave not found");
        check(with_config("10.1.0.0/16", "10.1.2.0/24", "10.1.0.1"), "");
        check(with_config("0.0.0.0/0", "", "10.1.0.1"), "");
        check(with_config("fd00::/64", "", "fd00::1"), "");
        check(with_config("10.1.0.0", "", ""), "ipam configuration: invalid subnet 10.1.0.0");
        check(with_config("10.1.0.0/33", "", ""), "ipam configuration: invalid subnet 10.1.0.0/33");
        check(
            with_config("10.1.0.0/16", "10.2.0.0/24", ""),
            "ipam configuration: subnet 10.1.0.0/16 does not contain range 10.2.0.0/24",
        );
        check(
            with_config("10.1.0.0/16", "", "fd00::1"),
            "ipam configuration: subnet 10.1.0.0/16 does not contain gateway fd00::1",
        );
    }
}
