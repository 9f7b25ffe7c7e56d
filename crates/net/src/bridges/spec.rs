//! What callers ask for: networks that are bridges of this machine, and a container's place on one. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{Ipv4Cidr, NetError};

/// Longest link name of the kernel.
const LINK_NAME_BYTES: usize = 15;
/// Largest MTU of a link.
const MTU_MAX: u32 = 65_535;
/// Longest prefix of a subnet: with a gateway and one container.
const LONGEST_PREFIX: u8 = 30;

/// A network of the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeNetworkSpec {
    /// Name.
    pub name: String,
    /// Subnet; `None` for the first free one of the default pools.
    pub subnet: Option<Ipv4Cidr>,
    /// The bridge's own address; `None` for the first one that would be given.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet that addresses are given from; `None` for all of it.
    pub range: Option<Ipv4Cidr>,
    /// Addresses that are not given, with their names.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// Containers get no way out through this network.
    pub internal: bool,
    /// Shown, and nothing else.
    pub attachable: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options, `com.docker.network.…`.
    pub options: BTreeMap<String, String>,
}

/// A container's attachment to a bridge of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeEndpointSpec {
    /// Id of the network.
    pub network_id: String,
    /// Address; `None` for the next free one.
    pub address: Option<Ipv4Addr>,
    /// Hardware address; `02:42` and the address if `None`.
    pub mac: Option<[u8; 6]>,
    /// Names that the network's other containers find it by; the address leads back to the first. Of no use on networks
    /// without names, such as the default bridge.
    pub names: Vec<String>,
    /// Of several gateways that of the highest priority is used.
    pub gateway_priority: i64,
}

impl BridgeEndpointSpec {
    /// An attachment without wishes.
    pub fn new(network_id: &str) -> Self {
        Self { network_id: network_id.to_owned(), ..Self::default() }
    }
}

/// What the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The link's name; `None` for one made of the id.
    pub(crate) link: Option<String>,
    /// Its containers may reach each other.
    pub(crate) icc: bool,
    /// What leaves it is masqueraded.
    pub(crate) masquerade: bool,
    /// MTU; `None` for the daemon's.
    pub(crate) mtu: Option<u32>,
    /// Where ports are published unless said otherwise; `None` for the daemon's.
    pub(crate) binding: Option<Ipv4Addr>,
}

impl Settings {
    /// Reads the options; unknown ones are passed over, as dockerd does, and those that would need what is not built are
    /// refused.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Self, NetError> {
        let mut settings = Self { link: None, icc: true, masquerade: true, mtu: None, binding: None };
        for (label, value) in options {
            let bad = |why: String| NetError::Invalid(format!("failed to parse {label} value: {value} ({why})"));
            let syntax = |function: &str| bad(format!("strconv.{function}: parsing {value:?}: invalid syntax"));
            let flag = || parse_bool(value).ok_or_else(|| syntax("ParseBool"));
            match label.as_str() {
                "com.docker.network.bridge.name" => settings.link = Some(link_name(value)?),
                "com.docker.network.bridge.enable_icc" => settings.icc = flag()?,
                "com.docker.network.bridge.enable_ip_masquerade" => settings.masquerade = flag()?,
                "com.docker.network.bridge.host_binding_ipv4" => {
                    settings.binding = Some(value.parse().map_err(|_| bad("nil ip".to_owned()))?);
                }
                "com.docker.network.driver.mtu" => {
                    let mtu = value.parse().ok().filter(|mtu| *mtu <= MTU_MAX).ok_or_else(|| syntax("Atoi"))?;
                    settings.mtu = Some(mtu).filter(|mtu| *mtu != 0);
                }
                "com.docker.network.bridge.inhibit_ipv4" if flag()? => return Err(not_built(label, value)),
                "com.docker.network.bridge.gateway_mode_ipv4" if !matches!(value.as_str(), "" | "nat") => {
                    return Err(not_built(label, value));
                }
                _ => {}
            }
        }
        Ok(settings)
    }
}

fn not_built(label: &str, value: &str) -> NetError {
    NetError::NotBuilt(format!("the network option {label}={value}"))
}

fn link_name(value: &str) -> Result<String, NetError> {
    let is_valid = !value.is_empty()
        && value.len() <= LINK_NAME_BYTES
        && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if is_valid {
        return Ok(value.to_owned());
    }
    Err(NetError::Invalid(format!("invalid bridge name {value:?}")))
}

/// Go's `ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

impl BridgeNetworkSpec {
    /// Refuses what contradicts itself; whether the subnet is free is another question.
    pub(crate) fn check(&self) -> Result<(), NetError> {
        if self.name.trim().is_empty() {
            return Err(NetError::Invalid("invalid name: name is empty".to_owned()));
        }
        let invalid = |text: String| Err(NetError::Invalid(text));
        let Some(subnet) = self.subnet else {
            return match self.range.is_some() || self.gateway.is_some() || !self.reserved.is_empty() {
                true => invalid("an address range or a gateway needs a subnet".to_owned()),
                false => Ok(()),
            };
        };
        if subnet.prefix > LONGEST_PREFIX {
            return invalid(format!("subnet {subnet} is too small for a gateway and a container"));
        }
        let outside = |address: Ipv4Addr| !subnet.contains(address);
        if let Some(range) = self.range.filter(|range| range.prefix < subnet.prefix || outside(range.address)) {
            return invalid(format!("address range {range} is not in subnet {subnet}"));
        }
        match self.gateway.into_iter().chain(self.reserved.values().copied()).find(|address| outside(*address)) {
            Some(address) => invalid(format!("address {address} is not in subnet {subnet}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(label, value)| (format!("com.docker.network.{label}"), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_read() {
        let given = options(&[
            ("bridge.name", "br-mine"),
            ("bridge.enable_icc", "false"),
            ("bridge.enable_ip_masquerade", "0"),
            ("bridge.host_binding_ipv4", "127.0.0.1"),
            ("driver.mtu", "1400"),
            ("bridge.gateway_mode_ipv4", "nat"),
            ("container_iface_prefix", "x"),
        ]);
        let expected = Settings {
            link: Some("br-mine".to_owned()),
            icc: false,
            masquerade: false,
            mtu: Some(1400),
            binding: Some(Ipv4Addr::LOCALHOST),
        };
        assert_eq!(Settings::read(&given).unwrap(), expected);
        let check = |pair: (&str, &str), expected: &str| {
            assert_eq!(Settings::read(&options(&[pair])).unwrap_err().to_string(), expected);
        };
        check(
            ("bridge.enable_icc", "maybe"),
            "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing \"maybe\": \
             invalid syntax)",
        );
        check(
            ("bridge.host_binding_ipv4", "here"),
            "failed to parse com.docker.network.bridge.host_binding_ipv4 value: here (nil ip)",
        );
        check(("bridge.name", "a/b"), "invalid bridge name \"a/b\"");
        check(
            ("bridge.gateway_mode_ipv4", "routed"),
            "the network option com.docker.network.bridge.gateway_mode_ipv4=routed is not supported by Skep yet",
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let spec = |change: fn(&mut BridgeNetworkSpec)| {
            let subnet = Some("10.1.0.0/16".parse().unwrap());
            let mut spec = BridgeNetworkSpec { name: "n".to_owned(), subnet, ..BridgeNetworkSpec::default() };
            change(&mut spec);
            spec.check().err().map(|error| error.to_string())
        };
        assert_eq!(spec(|_| {}), None);
        assert_eq!(spec(|spec| spec.range = "10.1.5.0/24".parse().ok()), None);
        assert_eq!(spec(|spec| spec.subnet = None), None);
        assert_eq!(spec(|spec| spec.name = " ".to_owned()).as_deref(), Some("invalid name: name is empty"));
        for change in [
            (|spec| spec.range = "10.2.0.0/24".parse().ok()) as fn(&mut BridgeNetworkSpec),
            |spec| spec.range = "10.0.0.0/8".parse().ok(),
            |spec| spec.gateway = "10.2.0.1".parse().ok(),
            |spec| spec.reserved = [("r".to_owned(), Ipv4Addr::new(10, 2, 0, 1))].into(),
            |spec| spec.subnet = "10.1.0.0/31".parse().ok(),
            |spec| (spec.subnet, spec.gateway) = (None, "10.1.0.1".parse().ok()),
        ] {
            assert!(spec(change).is_some());
        }
    }
}
