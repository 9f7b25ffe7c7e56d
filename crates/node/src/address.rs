//! Which addresses a node listens on and advertises: dockerd's rules for `--listen-addr`, `--advertise-addr` and
//! `--data-path-addr`, each an IP address or a network interface, the first two with an optional port.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The port that swarm managers listen on.
pub const DEFAULT_PORT: u16 = 2377;

/// Why an address cannot be used. The API chooses the texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The machine has no address besides loopback.
    NoneFound,
    /// The machine has several; which, in dockerd's words.
    Several(String),
    /// The listen address is none.
    Listen,
    /// The address to advertise is none.
    Advertise,
    /// The data path address is none.
    DataPath,
    /// An interface has no address, or the machine's addresses cannot be read.
    Other(String),
}

/// An interface and one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

/// What a node listens on and tells others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where the manager listens.
    pub listen: String,
    /// What other nodes are told, `host:port`.
    pub advertise: String,
    /// The data path's address; empty: as advertised.
    pub data_path: String,
}

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// `--listen-addr`.
    pub listen: &'a str,
    /// `--advertise-addr`, may be empty.
    pub advertise: &'a str,
    /// The daemon's `--swarm-default-advertise-addr`, may be empty.
    pub default_advertise: &'a str,
    /// `--data-path-addr`, may be empty.
    pub data_path: &'a str,
}

/// The machine's addresses: interfaces that are up, without loopback and link-local ones.
pub fn local_addresses() -> Result<Vec<LocalAddress>, AddressError> {
    let all = getifaddrs().map_err(|error| AddressError::Other(error.to_string()))?;
    let mut found = Vec::new();
    for entry in all {
        if !entry.flags.contains(InterfaceFlags::IFF_UP) || entry.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(address) = entry.address else { continue };
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) if !v6.ip().is_unicast_link_local() => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        found.push(LocalAddress { interface: entry.interface_name, address });
    }
    Ok(found)
}

/// Decides from the wishes and the machine's addresses. Bridges of engines do not count when one has to be chosen.
pub fn resolve(wanted: &Wanted<'_>, local: &[LocalAddress]) -> Result<Addresses, AddressError> {
    let (listen_host, listen_port) = split(wanted.listen).ok_or(AddressError::Listen)?;
    let listen_ip = host_address(listen_host, local).ok_or(AddressError::Listen)?;
    let asked = if wanted.advertise.is_empty() { wanted.default_advertise } else { wanted.advertise };
    let (advertise_ip, advertise_port) = if !asked.is_empty() {
        let (host, port) = split(asked).ok_or(AddressError::Advertise)?;
        let ip = host_address(host, local).filter(|ip| !ip.is_unspecified()).ok_or(AddressError::Advertise)?;
        (ip, port)
    } else if listen_ip.is_unspecified() {
        (choose(local)?, None)
    } else {
        (listen_ip, None)
    };
    let port = listen_port.unwrap_or(DEFAULT_PORT);
    let data_path = match wanted.data_path {
        "" => String::new(),
        text => {
            let ip = host_address(text, local).filter(|ip| !ip.is_unspecified()).ok_or(AddressError::DataPath)?;
            ip.to_string()
        }
    };
    Ok(Addresses {
        listen: join(listen_ip, port),
        advertise: join(advertise_ip, advertise_port.unwrap_or(port)),
        data_path,
    })
}

/// As [`resolve`], for a node that joins and leaves it to the managers which address of it they see.
pub fn listen_only(wanted: &Wanted<'_>, local: &[LocalAddress]) -> Result<Addresses, AddressError> {
    // Whatever stands for the listen address serves to have the rest checked.
    let checked = resolve(&Wanted { advertise: "127.0.0.1", ..wanted.clone() }, local)?;
    Ok(Addresses { advertise: String::new(), ..checked })
}

/// `host:port`, with brackets around IPv6.
pub fn join(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

/// `host[:port]`; a bare IPv6 address is a host.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    if text.is_empty() {
        return None;
    }
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host.trim_matches(['[', ']']), Some(port.parse().ok()?))),
        None => Some((text, None)),
    }
}

/// An address, or the first address of an interface (IPv4 before IPv6).
fn host_address(host: &str, local: &[LocalAddress]) -> Option<IpAddr> {
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    let mut of_interface = local.iter().filter(|it| it.interface == host).map(|it| it.address).collect::<Vec<_>>();
    of_interface.sort_by_key(IpAddr::is_ipv6);
    of_interface.first().copied()
}

fn choose(local: &[LocalAddress]) -> Result<IpAddr, AddressError> {
    let engine = |name: &str| name.starts_with("docker") || name.starts_with("br-") || name.starts_with("veth");
    let usable = local.iter().filter(|it| !engine(&it.interface) && !it.interface.starts_with("skep"));
    let (v4, v6): (Vec<_>, Vec<_>) = usable.partition(|it| it.address.is_ipv4());
    let candidates = if v4.is_empty() { v6 } else { v4 };
    match candidates.as_slice() {
        [] => Err(AddressError::NoneFound),
        [one] => Ok(one.address),
        [first, second, ..] => Err(AddressError::Several(if first.interface == second.interface {
            format!("on interface {} ({} and {})", first.interface, first.address, second.address)
        } else {
            format!(
                "on different interfaces ({} on {} and {} on {})",
                first.address, first.interface, second.address, second.interface
            )
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(list: &[(&str, &str)]) -> Vec<LocalAddress> {
        let one = |(interface, address): &(&str, &str)| LocalAddress {
            interface: (*interface).to_owned(),
            address: address.parse().unwrap(),
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn addresses_are_chosen_as_dockerd_does() {
        let here = local(&[("eth0", "10.1.0.5"), ("docker0", "172.17.0.1"), ("eth0", "fd00::5")]);
        let ask = |listen, advertise| resolve(&Wanted { listen, advertise, ..Wanted::default() }, &here);
        assert_eq!(ask("0.0.0.0:2377", "").unwrap().advertise, "10.1.0.5:2377");
        assert_eq!(ask("0.0.0.0:2377", "eth0:7").unwrap().advertise, "10.1.0.5:7");
        assert_eq!(ask("127.0.0.1:4000", "").unwrap().advertise, "127.0.0.1:4000");
        assert_eq!(ask("[::]:2377", "fd00::9").unwrap().advertise, "[fd00::9]:2377");
        assert_eq!(ask("nowhere:2377", ""), Err(AddressError::Listen));
        assert_eq!(ask("0.0.0.0:2377", "0.0.0.0"), Err(AddressError::Advertise));
        let two = local(&[("eth0", "10.1.0.5"), ("eth1", "10.2.0.5")]);
        let error = resolve(&Wanted { listen: "0.0.0.0:2377", ..Wanted::default() }, &two).unwrap_err();
        let text = "on different interfaces (10.1.0.5 on eth0 and 10.2.0.5 on eth1)";
        assert_eq!(error, AddressError::Several(text.to_owned()));
        let none = resolve(&Wanted { listen: "0.0.0.0:2377", ..Wanted::default() }, &[]);
        assert_eq!(none, Err(AddressError::NoneFound));
    }
}
