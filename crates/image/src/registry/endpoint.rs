//! Where to ask for a repository: mirrors, the registry itself, over TLS or not.

use std::net::IpAddr;

use crate::RegistryConfig;

/// docker.io's name for its own registry.
const HUB_HOST: &str = "registry-1.docker.io";

/// Whether the server's certificate must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    Yes,
    No,
}

/// Who stands behind an endpoint; a mirror never gets the credentials of what it mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Registry,
    Mirror,
}

/// A base URL to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `https` or `http`.
    pub(super) tls: bool,
    /// `host` or `host:port`.
    pub(super) host: String,
    /// Path before `/v2/`, without a final slash.
    pub(super) prefix: String,
    pub(super) verify: Verify,
    pub(super) role: Role,
}

impl Endpoint {
    /// `host[:port]`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether this is plain text where `host` has answered over TLS: not to be tried then.
    pub(crate) fn is_plain_of(&self, host: &str) -> bool {
        !self.tls && self.role == Role::Registry && self.host == host
    }

    /// The URL of `path`, which begins with `/v2/`.
    pub(super) fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.host, self.prefix)
    }
}

/// The endpoints for a registry in the order of asking.
pub(super) fn endpoints(config: &RegistryConfig, domain: &str) -> Vec<Endpoint> {
    let mut list = Vec::new();
    if domain == oci_types::DEFAULT_DOMAIN {
        list.extend(config.mirrors.iter().filter_map(|mirror| mirror_endpoint(config, mirror)));
    }
    list.extend(registry_endpoints(config, domain));
    list
}

/// The registry's own endpoints, no mirrors: for logins.
pub(super) fn registry_endpoints(config: &RegistryConfig, domain: &str) -> Vec<Endpoint> {
    let host = if domain == oci_types::DEFAULT_DOMAIN { HUB_HOST } else { domain };
    let endpoint =
        |tls, verify| Endpoint { tls, host: host.to_string(), prefix: String::new(), verify, role: Role::Registry };
    match verify_for(config, host) {
        Verify::Yes => vec![endpoint(true, Verify::Yes)],
        Verify::No => vec![endpoint(true, Verify::No), endpoint(false, Verify::No)],
    }
}

fn mirror_endpoint(config: &RegistryConfig, mirror: &str) -> Option<Endpoint> {
    let (tls, rest) = match mirror.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some((_, rest)) => (true, rest),
        None => (true, mirror),
    };
    let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let verify = verify_for(config, host);
    (!host.is_empty()).then(|| Endpoint { tls, host: host.to_string(), prefix, verify, role: Role::Mirror })
}

/// Whether `host` may be reached without a valid certificate, or without TLS.
pub(super) fn verify_for(config: &RegistryConfig, host: &str) -> Verify {
    let name = split_port(host).0;
    let insecure = name == "localhost"
        || is_in_cidr(name, "127.0.0.0/8")
        || is_in_cidr(name, "::1/128")
        || config.insecure_registries.iter().any(|entry| {
            let entry = entry.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
            entry == host || entry == name || is_in_cidr(name, entry)
        });
    if insecure { Verify::No } else { Verify::Yes }
}

/// Host and port; the brackets of an IPv6 address fall away.
pub(super) fn split_port(host: &str) -> (&str, Option<u16>) {
    if let Some(rest) = host.strip_prefix('[')
        && let Some((address, port)) = rest.split_once(']')
    {
        return (address, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

fn is_in_cidr(name: &str, cidr: &str) -> bool {
    let (Ok(address), Some((network, bits))) = (name.parse::<IpAddr>(), cidr.split_once('/')) else { return false };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RegistryConfig {
        RegistryConfig {
            mirrors: vec!["http://127.0.0.1:5001".into(), "https://mirror.example/base/".into()],
            insecure_registries: vec!["reg.example:5000".into(), "10.0.0.0/8".into()],
            ..RegistryConfig::default()
        }
    }

    #[test]
    fn the_order_of_asking() {
        let urls = |domain| endpoints(&config(), domain).iter().map(|e| e.url("/v2/")).collect::<Vec<_>>();
        assert_eq!(
            urls("docker.io"),
            ["http://127.0.0.1:5001/v2/", "https://mirror.example/base/v2/", "https://registry-1.docker.io/v2/"]
        );
        assert_eq!(urls("ghcr.io"), ["https://ghcr.io/v2/"]);
        assert_eq!(urls("localhost:5"), ["https://localhost:5/v2/", "http://localhost:5/v2/"]);
    }

    #[test]
    fn insecure_ones() {
        for (host, expected) in [
            ("127.0.0.1:5000", Verify::No),
            ("127.8.9.1", Verify::No),
            ("localhost", Verify::No),
            ("[::1]:5000", Verify::No),
            ("reg.example:5000", Verify::No),
            ("reg.example:5001", Verify::Yes),
            ("10.1.2.3:80", Verify::No),
            ("11.1.2.3:80", Verify::Yes),
            ("localhost.example", Verify::Yes),
        ] {
            assert_eq!(verify_for(&config(), host), expected, "{host}");
        }
    }
}
