//! What dockerd refuses of a network that is to be created, in its order and with its texts, and what is left of the request
//! as a network of this machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use docker_types::network::{Ipam, IpamConfig, NetworkCreateRequest};
use http::StatusCode;
use net::BridgeNetworkSpec;

use crate::error::ApiError;
use crate::networks::OVERLAY;

/// Options that switch a protocol on or off, where the request does not say.
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// Checks what counts for every driver; brings flags that are given as options into the request.
pub(crate) fn check(body: &mut NetworkCreateRequest) -> Result<(), ApiError> {
    for (field, option) in [(&mut body.enable_ipv4, ENABLE_IPV4), (&mut body.enable_ipv6, ENABLE_IPV6)] {
        let given = body.options.remove(option);
        if let (None, Some(value)) = (&field, given) {
            let flag = parse_bool(&value);
            let bad = || ApiError::bad_request(format!("driver-opt {option:?} is not a valid bool"));
            *field = Some(flag.ok_or_else(bad)?);
        }
    }
    check_ipam(body.ipam.as_ref(), body.enable_ipv6.unwrap_or(false))?;
    if body.name.trim().is_empty() {
        return Err(ApiError::bad_request("invalid name: name is empty"));
    }
    if body.config_only {
        let text = "networks that are only a configuration (docker network create --config-only) are not supported by \
                    Skep yet";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text));
    }
    if body.driver == OVERLAY && body.scope == "local" {
        return Err(ApiError::forbidden("cannot downgrade network scope for overlay networks"));
    }
    if body.ingress && body.driver != OVERLAY {
        return Err(ApiError::forbidden("Ingress network can only be global scope network"));
    }
    match body.config_from.as_ref().filter(|from| !from.network.is_empty()) {
        Some(from) => Err(ApiError::not_found(format!("configuration network {:?} does not exist", from.network))),
        None => Ok(()),
    }
}

/// The request as a network of this machine.
pub(crate) fn to_bridge(body: &NetworkCreateRequest) -> Result<BridgeNetworkSpec, ApiError> {
    let not_built =
        |what: &str| ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported by Skep yet"));
    if body.enable_ipv6 == Some(true) {
        return Err(not_built("IPv6 on networks of one machine (docker network create --ipv6)"));
    }
    if body.enable_ipv4 == Some(false) {
        return Err(not_built("a network without IPv4"));
    }
    let ipam = body.ipam.clone().unwrap_or_default();
    if !["", "default"].contains(&ipam.driver.as_str()) {
        return Err(ApiError::not_found(format!("plugin {:?} not found", ipam.driver)));
    }
    let configs = ipam.config.unwrap_or_default();
    let mut v4 = configs.into_iter().filter(|config| !config.subnet.contains(':'));
    let config = v4.next().unwrap_or_default();
    if v4.next().is_some() {
        return Err(ApiError::forbidden("bridge driver doesn't support multiple subnets"));
    }
    let reserved = config.auxiliary_addresses.iter().filter_map(|(name, it)| Some((name.clone(), it.parse().ok()?)));
    Ok(BridgeNetworkSpec {
        name: body.name.clone(),
        subnet: config.subnet.parse().ok(),
        gateway: config.gateway.parse().ok(),
        range: config.ip_range.parse().ok(),
        reserved: reserved.collect(),
        internal: body.internal,
        attachable: body.attachable,
        labels: body.labels.clone(),
        options: body.options.clone(),
    })
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn check_ipam(ipam: Option<&Ipam>, ipv6: bool) -> Result<(), ApiError> {
    let configs = ipam.iter().flat_map(|ipam| &ipam.config).flatten();
    let reasons: Vec<String> = configs.flat_map(|config| check_config(config, ipv6)).collect();
    match reasons.as_slice() {
        [] => Ok(()),
        [reason] => Err(ApiError::bad_request(format!("invalid network config:\n{reason}"))),
        reasons => {
            let lines: Vec<_> = reasons.iter().map(|reason| format!("* {reason}")).collect();
            Err(ApiError::bad_request(format!("invalid network config:\n{}", lines.join("\n"))))
        }
    }
}

fn check_config(config: &IpamConfig, ipv6: bool) -> Vec<String> {
    let Some(subnet) = Prefix::parse(&config.subnet) else {
        return vec![format!("invalid subnet {}: invalid CIDR block notation", config.subnet)];
    };
    let mut reasons = Vec::new();
    if !ipv6 && subnet.address.is_ipv6() {
        return reasons;
    }
    if subnet != subnet.masked() {
        reasons.push(format!("invalid subnet {subnet}: it should be {}", subnet.masked()));
    }
    reasons.extend(check_range(&config.ip_range, subnet));
    let named = |what: String, address: &str| Some(format!("{what}: {}", check_address(address, subnet)?));
    reasons.extend(named(format!("invalid gateway {}", config.gateway), &config.gateway));
    let reserved: &BTreeMap<String, String> = &config.auxiliary_addresses;
    reasons.extend(reserved.iter().filter_map(|(name, it)| named(format!("invalid auxiliary address {name}"), it)));
    reasons
}

fn check_range(range: &str, subnet: Prefix) -> Vec<String> {
    if range.is_empty() {
        return Vec::new();
    }
    let Some(prefix) = Prefix::parse(range) else {
        return vec![format!("invalid ip-range {range}: invalid CIDR block notation")];
    };
    if prefix.address.is_ipv6() != subnet.address.is_ipv6() {
        return vec![format!("invalid ip-range {range}: parent subnet is an {} block", subnet.family())];
    }
    let mut reasons = Vec::new();
    if prefix.bits < subnet.bits {
        reasons.push(format!("invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if prefix != prefix.masked() {
        reasons.push(format!("invalid ip-range {prefix}: it should be {}", prefix.masked()));
    }
    if !subnet.contains(prefix.address) && !prefix.contains(subnet.address) {
        reasons.push(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"));
    }
    reasons
}

fn check_address(address: &str, subnet: Prefix) -> Option<String> {
    if address.is_empty() {
        return None;
    }
    match address.parse::<IpAddr>() {
        Err(_) => Some("invalid address".to_owned()),
        Ok(it) if it.is_ipv6() != subnet.address.is_ipv6() => {
            Some(format!("parent subnet is an {} block", subnet.family()))
        }
        Ok(it) if !subnet.contains(it) => Some(format!("parent subnet {subnet} doesn't contain this address")),
        Ok(_) => None,
    }
}

/// An address with the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// As Go reads it: no sign, no leading zero.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let is_plain = bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
        let address: IpAddr = address.parse().ok()?;
        let bits = bits.parse().ok().filter(|_| is_plain)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (bits <= longest).then_some(Self { address, bits })
    }

    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(it) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((it.to_bits() & mask).into())
            }
            IpAddr::V6(it) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((it.to_bits() & mask).into())
            }
        };
        Self { address, ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.address.is_ipv6() && Self { address, ..self }.masked() == self.masked()
    }

    fn family(self) -> &'static str {
        if self.address.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> NetworkCreateRequest {
        docker_types::json::from_slice(body.as_bytes()).unwrap()
    }

    fn refusal(body: &str) -> Option<(u16, String)> {
        check(&mut request(body)).err().map(|error| (error.status.as_u16(), error.message))
    }

    #[test]
    fn address_plans_that_cannot_be_are_refused_in_dockerds_words() {
        let check = |config: &str, expected: &str| {
            let found = refusal(&format!(r#"{{"Name":"n","IPAM":{{"Config":[{config}]}}}}"#));
            let expected = format!("invalid network config:\n{expected}");
            assert_eq!(found, Some((400, expected)), "{config}");
        };
        check(r#"{"Subnet":"10.0.0.0"}"#, "invalid subnet 10.0.0.0: invalid CIDR block notation");
        check(r#"{"Subnet":"10.0.0.0/024"}"#, "invalid subnet 10.0.0.0/024: invalid CIDR block notation");
        check(r#"{"Subnet":"10.0.0.1/24"}"#, "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24");
        check(
            r#"{"Subnet":"10.0.0.0/24","IPRange":"10.0.1.0/25","Gateway":"fd00::1"}"#,
            "* invalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range\n\
             * invalid gateway fd00::1: parent subnet is an IPv4 block",
        );
        check(
            r#"{"Subnet":"10.0.0.0/24","IPRange":"10.0.0.0/16"}"#,
            "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24",
        );
        check(
            r#"{"Subnet":"10.0.0.0/24","AuxiliaryAddresses":{"a":"10.1.0.1","b":"x"}}"#,
            "* invalid auxiliary address a: parent subnet 10.0.0.0/24 doesn't contain this address\n\
             * invalid auxiliary address b: invalid address",
        );
        let good = r#"{"Subnet":"10.0.0.0/24","IPRange":"10.0.0.128/25","Gateway":"10.0.0.1","AuxiliaryAddresses":{"a":"10.0.0.9"}}"#;
        assert_eq!(refusal(&format!(r#"{{"Name":"n","IPAM":{{"Config":[{good}]}}}}"#)), None);
        // without IPv6 its subnets count for nothing
        assert_eq!(refusal(r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"fd00::1/64"}]}}"#), None);
    }

    #[test]
    fn other_contradictions() {
        let check = |body: &str, status: u16, text: &str| assert_eq!(refusal(body), Some((status, text.to_owned())));
        check(r#"{"Name":" "}"#, 400, "invalid name: name is empty");
        let downgrade = "cannot downgrade network scope for overlay networks";
        check(r#"{"Name":"n","Driver":"overlay","Scope":"local"}"#, 403, downgrade);
        let ingress = "Ingress network can only be global scope network";
        check(r#"{"Name":"n","Driver":"bridge","Ingress":true}"#, 403, ingress);
        let option = r#"{"Name":"n","Options":{"com.docker.network.enable_ipv6":"maybe"}}"#;
        check(option, 400, "driver-opt \"com.docker.network.enable_ipv6\" is not a valid bool");
        check(r#"{"Name":"n","ConfigFrom":{"Network":"c"}}"#, 404, "configuration network \"c\" does not exist");
    }

    #[test]
    fn networks_of_this_machine() {
        let to = |body: &str| to_bridge(&request(body));
        let spec = to(r#"{"Name":"n","Internal":true,"Labels":{"a":"b"},
            "IPAM":{"Config":[{"Subnet":"fd00::/64"},{"Subnet":"10.0.0.0/24","Gateway":"10.0.0.9"}]}}"#);
        let spec = spec.unwrap();
        assert_eq!((spec.subnet, spec.gateway), ("10.0.0.0/24".parse().ok(), "10.0.0.9".parse().ok()));
        assert!(spec.internal && spec.labels["a"] == "b");
        for (body, status) in [
            (r#"{"Name":"n","EnableIPv6":true}"#, 501),
            (r#"{"Name":"n","IPAM":{"Driver":"mine"}}"#, 404),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/24"},{"Subnet":"10.1.0.0/24"}]}}"#, 403),
        ] {
            assert_eq!(to(body).unwrap_err().status.as_u16(), status, "{body}");
        }
    }
}
