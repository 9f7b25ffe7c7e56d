//! Addresses and subnets of local networks. Pure: what is in use is a parameter.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::{AddressPool, Ipv4Cidr};

/// Addresses that may be given, the first and the last included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    first: u32,
    last: u32,
}

impl Bounds {
    /// Those of a subnet, or of the part of it that is meant for that.
    pub(crate) fn of(subnet: Ipv4Cidr, range: Option<Ipv4Cidr>) -> Self {
        let first = u32::from(subnet.network().address).saturating_add(1);
        let last = u32::from(subnet.broadcast()).saturating_sub(1);
        let part = range.map_or((first, last), |range| (range.network().address.into(), range.broadcast().into()));
        Self { first: first.max(part.0), last: last.min(part.1) }
    }
}

/// The next free address after `last`, going round, so that a freed address is taken again last.
pub(crate) fn next_address(bounds: Bounds, used: &BTreeSet<Ipv4Addr>, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let all = bounds.first..=bounds.last;
    let start = last.map_or(bounds.first, |last| u32::from(last).saturating_add(1));
    let start = if all.contains(&start) { start } else { bounds.first };
    (start..=bounds.last).chain(bounds.first..start).map(Ipv4Addr::from).find(|address| !used.contains(address))
}

/// The first subnet of the pools that overlaps nothing of `taken`.
pub(crate) fn free_subnet(pools: &[AddressPool], taken: &[Ipv4Cidr]) -> Option<Ipv4Cidr> {
    pools.iter().filter(|pool| pool.size >= pool.base.prefix && pool.size <= 30).find_map(|pool| {
        let base = u64::from(u32::from(pool.base.network().address));
        let step = 1u64 << (32 - pool.size);
        let count = 1u64 << (pool.size - pool.base.prefix);
        (0..count)
            .map(|index| Ipv4Cidr::new(Ipv4Addr::from((base + index * step) as u32), pool.size))
            .find(|subnet| !taken.iter().any(|other| other.prefix > 0 && other.overlaps(*subnet)))
    })
}

/// The hardware address that goes with an address: `02:42` and its four bytes.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// A hardware address as text.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The hardware address of a text.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().filter(|part| part.len() == 2)?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Ipv4Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_freed_address_is_taken_last() {
        let check = |used: &[&str], last: Option<&str>, expected: Option<&str>| {
            let used = used.iter().map(|address| address.parse().unwrap()).collect();
            let bounds = Bounds::of(cidr("10.0.0.0/29"), None);
            let next = next_address(bounds, &used, last.map(|last| last.parse().unwrap()));
            assert_eq!(next.map(|address| address.to_string()).as_deref(), expected);
        };
        check(&["10.0.0.1"], None, Some("10.0.0.2"));
        check(&["10.0.0.1"], Some("10.0.0.3"), Some("10.0.0.4"));
        check(&["10.0.0.1"], Some("10.0.0.6"), Some("10.0.0.2"));
        check(&["10.0.0.1"], Some("10.9.0.6"), Some("10.0.0.2"));
        check(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"], Some("10.0.0.2"), None);
    }

    #[test]
    fn a_range_bounds_what_is_given() {
        let all = |range: &str| {
            let bounds = Bounds::of(cidr("10.0.0.0/24"), Some(cidr(range)));
            let mut used = BTreeSet::new();
            while let Some(address) = next_address(bounds, &used, used.last().copied()) {
                used.insert(address);
            }
            used.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(all("10.0.0.8/30"), ["10.0.0.8", "10.0.0.9", "10.0.0.10", "10.0.0.11"]);
        assert_eq!(all("10.0.0.0/30"), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(all("10.0.0.254/31"), ["10.0.0.254"]);
    }

    #[test]
    fn subnets_that_overlap_routes_are_skipped() {
        let pools = AddressPool::docker_defaults();
        assert_eq!(free_subnet(&pools, &[]), Some(cidr("172.17.0.0/16")));
        assert_eq!(free_subnet(&pools, &[cidr("172.17.3.0/24"), cidr("0.0.0.0/0")]), Some(cidr("172.18.0.0/16")));
        assert_eq!(free_subnet(&pools, &[cidr("172.16.0.0/12")]), Some(cidr("192.168.0.0/20")));
        assert_eq!(free_subnet(&pools, &[cidr("172.16.0.0/12"), cidr("192.168.0.0/16")]), None);
    }

    #[test]
    fn hardware_addresses_are_read_and_written() {
        assert_eq!(mac_text(mac_of(Ipv4Addr::new(10, 0, 1, 5))), "02:42:0a:00:01:05");
        assert_eq!(parse_mac("02:42:0a:00:01:05"), Some([2, 0x42, 10, 0, 1, 5]));
        for bad in ["", "02:42:0a:00:01", "02:42:0a:00:01:05:06", "02:42:0a:00:01:+5", "gg:42:0a:00:01:05"] {
            assert_eq!(parse_mac(bad).filter(|_| !bad.contains('+')), None, "{bad}");
        }
    }
}
