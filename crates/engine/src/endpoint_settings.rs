//! What a user wants of a container's place on a network: checked in dockerd's words, and handed on to the network. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use docker_types::container::EndpointSettings;

use crate::network::{AttachmentRequest, NetworkName};
use crate::record::Record;
use crate::{EngineError, ErrorKind};

/// Networks that are there from the start; addresses and aliases are given on others only.
pub(crate) const PREDEFINED_NETWORKS: [&str; 3] = ["bridge", "host", "none"];
/// Digits of an id as users see it.
const SHORT_ID: usize = 12;
/// Options of an endpoint that would have to change something.
const UNBUILT_OPTIONS: [&str; 2] = ["com.docker.network.endpoint.sysctls", "com.docker.network.endpoint.ifname"];

/// Whether a network is a user's, or may be.
pub(crate) fn is_user_defined(network: &str) -> bool {
    !PREDEFINED_NETWORKS.contains(&network) && network != "default" && !network.starts_with("container:")
}

/// The networks that a container is to be on, by name or id.
pub(crate) fn networks(record: &Record) -> BTreeMap<String, EndpointSettings> {
    let mode = record.host_config.network_mode.as_str();
    if record.config.network_disabled || mode.starts_with("container:") {
        return BTreeMap::new();
    }
    let given = record.networking.endpoints_config.iter().flatten();
    let networks: BTreeMap<_, _> =
        given.map(|(name, settings)| (name.clone(), settings.clone().unwrap_or_default())).collect();
    if networks.is_empty() && !record.left_all_networks {
        return [(mode.to_owned(), EndpointSettings::default())].into();
    }
    networks
}

/// What the network is asked for. The id counts that the network had when the container was there before, as with dockerd:
/// another network of the same name is another network.
pub(crate) fn request(network: &str, settings: &EndpointSettings) -> AttachmentRequest {
    let has_id = is_user_defined(network) && !settings.network_id.is_empty();
    let wanted = settings.ipam_config.clone().unwrap_or_default();
    AttachmentRequest {
        network: if has_id { settings.network_id.clone() } else { network.to_owned() },
        address: wanted.ipv4_address.parse().ok(),
        address_v6: wanted.ipv6_address.parse().ok(),
        mac_address: parse_mac(&settings.mac_address),
        aliases: settings.aliases.clone().unwrap_or_default(),
        links: settings.links.iter().flatten().filter_map(|link| parse_link(link)).collect(),
        gateway_priority: settings.gw_priority,
    }
}

/// The names of a container on a network of users, its own first; each once.
pub(crate) fn dns_names(record: &Record, aliases: &[String]) -> Vec<String> {
    let short: String = record.id.chars().take(SHORT_ID).collect();
    let mut names: Vec<String> = Vec::new();
    for name in [&record.name].into_iter().chain(aliases).chain([&short, &record.config.hostname]) {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Refuses settings that cannot be; `found` is the network if this machine has it.
pub(crate) fn check(
    network: &str,
    found: Option<&NetworkName>,
    settings: &EndpointSettings,
) -> Result<(), EngineError> {
    refuse_unbuilt(settings)?;
    match reasons(network, found, settings) {
        Ok(reasons) if reasons.is_empty() => Ok(()),
        Ok(reasons) => Err(EngineError::invalid(format!("invalid endpoint settings:\n{}", joined(&reasons)))),
        Err(text) => Err(EngineError::invalid(text)),
    }
}

/// Refuses a creation with settings that cannot be, network by network.
pub(crate) fn check_all<'a>(
    endpoints: impl IntoIterator<Item = (&'a String, &'a Option<EndpointSettings>)>,
    find: impl Fn(&str) -> Option<NetworkName>,
) -> Result<(), EngineError> {
    let mut refusals = Vec::new();
    for (network, settings) in endpoints {
        let Some(settings) = settings else {
            refusals.push(format!("invalid config for network {network}: EndpointsConfig is nil"));
            continue;
        };
        match check(network, find(network).as_ref(), settings) {
            Err(error) if error.kind() == ErrorKind::NotImplemented => return Err(error),
            Err(error) => refusals.push(format!("invalid config for network {network}: {error}")),
            Ok(()) => {}
        }
    }
    if refusals.is_empty() { Ok(()) } else { Err(EngineError::invalid(joined(&refusals))) }
}

fn refuse_unbuilt(settings: &EndpointSettings) -> Result<(), EngineError> {
    let options = settings.driver_opts.iter().flatten().map(|(name, _)| name.as_str());
    let mut unbuilt = options.filter(|name| UNBUILT_OPTIONS.contains(name));
    let local = settings.ipam_config.as_ref().is_some_and(|wanted| !wanted.link_local_ips.is_empty());
    match unbuilt.next().or(local.then_some("link-local-ip")) {
        Some(what) => {
            let text = format!("the option {what} of a container's network is not supported by Skep yet");
            Err(EngineError::new(ErrorKind::NotImplemented, text))
        }
        None => Ok(()),
    }
}

fn reasons(network: &str, found: Option<&NetworkName>, settings: &EndpointSettings) -> Result<Vec<String>, String> {
    let mut reasons = Vec::new();
    let wanted = settings.ipam_config.clone().unwrap_or_default();
    let (v4, v6) = (&wanted.ipv4_address, &wanted.ipv6_address);
    if !is_user_defined(found.map_or(network, |found| &found.name)) {
        if !v4.is_empty() || !v6.is_empty() {
            reasons.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        if settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            reasons.push("network-scoped alias is supported only for containers in user defined networks".to_owned());
        }
    }
    if !v4.is_empty() && v4.parse::<Ipv4Addr>().map_or(true, |address| address.is_unspecified()) {
        reasons.push(format!("invalid IPv4 address: {v4}"));
    }
    if !v6.is_empty() && v6.parse::<Ipv6Addr>().map_or(true, |address| address.is_unspecified()) {
        reasons.push(format!("invalid IPv6 address: {v6}"));
    }
    if let Some(found) = found {
        reasons.extend([v4, v6].into_iter().filter_map(|address| out_of_range(address, &found.chosen_subnets)));
    }
    if !settings.mac_address.is_empty() && parse_mac(&settings.mac_address).is_none() {
        return Err(format!("invalid MAC address {}", settings.mac_address));
    }
    if let Some(link) = settings.links.iter().flatten().find(|link| parse_link(link).is_none()) {
        return Err(format!("bad format for links: {link}"));
    }
    Ok(reasons)
}

/// Why an address cannot be had on a network with these subnets.
fn out_of_range(address: &str, chosen: &[String]) -> Option<String> {
    if address.is_empty() {
        return None;
    }
    if chosen.is_empty() {
        let text =
            "user specified IP address is supported only when connecting to networks with user configured subnets";
        return Some(text.to_owned());
    }
    let wanted: IpAddr = address.parse().ok()?;
    let is_in = chosen.iter().any(|subnet| contains(subnet, wanted));
    (!is_in).then(|| format!("no configured subnet or ip-range contain the IP address {address}"))
}

fn contains(subnet: &str, address: IpAddr) -> bool {
    let Some((base, prefix)) = subnet.split_once('/') else { return false };
    let (Ok(base), Ok(prefix)) = (base.parse::<IpAddr>(), prefix.parse::<u32>()) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix)).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix)).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

/// Several reasons as dockerd lists them.
fn joined(reasons: &[String]) -> String {
    match reasons {
        [reason] => reason.trim().to_owned(),
        reasons => {
            let lines: Vec<_> = reasons.iter().map(|reason| format!("* {}", reason.replace('\n', "\n\t"))).collect();
            lines.join("\n")
        }
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|it| it.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// `name:alias`, or a name that is its own alias: the alias, and what it stands for.
fn parse_link(text: &str) -> Option<(String, String)> {
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let is_valid = !name.is_empty() && !alias.is_empty() && !alias.contains(':');
    let bare = |text: &str| text.trim_start_matches('/').to_owned();
    is_valid.then(|| (bare(alias), bare(name)))
}

#[cfg(test)]
mod tests {
    use docker_types::container::EndpointIpamConfig;

    use super::*;

    fn settings(change: impl FnOnce(&mut EndpointSettings)) -> EndpointSettings {
        let mut settings = EndpointSettings::default();
        change(&mut settings);
        settings
    }

    fn with_address(address: &str) -> EndpointSettings {
        let wanted = EndpointIpamConfig { ipv4_address: address.to_owned(), ..EndpointIpamConfig::default() };
        settings(|settings| settings.ipam_config = Some(wanted))
    }

    fn network(name: &str, subnets: &[&str]) -> NetworkName {
        let chosen_subnets = subnets.iter().map(|subnet| (*subnet).to_owned()).collect();
        NetworkName { name: name.to_owned(), id: "i".repeat(64), chosen_subnets, ..NetworkName::default() }
    }

    #[test]
    fn settings_that_cannot_be_are_refused_in_dockerds_words() {
        let text = |found: &NetworkName, settings: &EndpointSettings| {
            check(&found.name, Some(found), settings).err().map(|error| error.to_string())
        };
        let own = network("mesh", &["10.1.0.0/16", "fd00::/64"]);
        assert_eq!(text(&own, &with_address("10.1.2.3")), None);
        assert_eq!(
            text(&own, &with_address("10.2.2.3")).as_deref(),
            Some("invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.2.2.3")
        );
        assert_eq!(
            text(&network("auto", &[]), &with_address("10.2.2.3")).as_deref(),
            Some(
                "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks \
                 with user configured subnets"
            )
        );
        assert_eq!(
            text(&own, &with_address("x")).as_deref(),
            Some("invalid endpoint settings:\ninvalid IPv4 address: x")
        );
        let both = settings(|it| (*it, it.aliases) = (with_address("172.17.0.9"), Some(vec!["a".to_owned()])));
        let unknown = check("bridge", None, &both).unwrap_err().to_string();
        let expected = "invalid endpoint settings:\n* user specified IP address is supported on user defined networks \
                        only\n* network-scoped alias is supported only for containers in user defined networks";
        assert_eq!(unknown, expected);
        let mac = settings(|it| it.mac_address = "02:42".to_owned());
        assert_eq!(text(&own, &mac).as_deref(), Some("invalid MAC address 02:42"));
        let option = [("com.docker.network.endpoint.ifname".to_owned(), "e0".to_owned())].into();
        let unbuilt = check("mesh", Some(&own), &settings(|it| it.driver_opts = Some(option))).unwrap_err();
        assert_eq!(unbuilt.kind(), ErrorKind::NotImplemented);
    }

    #[test]
    fn a_creation_names_the_network() {
        let given = [("bridge".to_owned(), Some(with_address("172.17.0.9"))), ("a".to_owned(), None)];
        let error = check_all(given.iter().map(|(name, settings)| (name, settings)), |_| None).unwrap_err();
        let expected = "* invalid config for network bridge: invalid endpoint settings:\n\tuser specified IP address is \
                        supported on user defined networks only\n* invalid config for network a: EndpointsConfig is nil";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_networks_of_a_container() {
        let mut record = Record::default();
        record.host_config.network_mode = "mesh".to_owned();
        assert_eq!(networks(&record).keys().collect::<Vec<_>>(), ["mesh"]);
        record.networking.endpoints_config = Some([("b".to_owned(), None), ("a".to_owned(), None)].into());
        assert_eq!(networks(&record).keys().collect::<Vec<_>>(), ["a", "b"]);
        record.networking.endpoints_config = Some(BTreeMap::new());
        record.left_all_networks = true;
        assert!(networks(&record).is_empty());
        record.host_config.network_mode = "container:x".to_owned();
        record.left_all_networks = false;
        assert!(networks(&record).is_empty());
    }

    #[test]
    fn requests_and_names() {
        let wanted = settings(|it| {
            *it = with_address("10.1.2.3");
            it.network_id = "n1".to_owned();
            it.mac_address = "02:42:0a:00:00:01".to_owned();
            it.links = Some(vec!["db:database".to_owned(), "/cache".to_owned()]);
        });
        let asked = request("mesh", &wanted);
        assert_eq!((asked.network.as_str(), asked.address), ("n1", "10.1.2.3".parse().ok()));
        assert_eq!(asked.mac_address, Some([2, 0x42, 10, 0, 0, 1]));
        let links = [("database", "db"), ("cache", "cache")].map(|(alias, name)| (alias.into(), name.into()));
        assert_eq!(asked.links, links.into());
        assert_eq!(request("bridge", &wanted).network, "bridge");
        let mut record = Record { id: "0123456789abcdef".into(), name: "web".into(), ..Record::default() };
        record.config.hostname = "0123456789ab".to_owned();
        let aliases = ["www".to_owned(), "web".to_owned()];
        assert_eq!(dns_names(&record, &aliases), ["web", "www", "0123456789ab"]);
    }
}
