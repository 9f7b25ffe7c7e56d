//! Subnets and the addresses in them.

use super::next_fit::NextFit;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where subnets are cut from if the cluster says nothing.
pub const DEFAULT_POOL: &str = "10.0.0.0/8";
/// How long the mask of a cut subnet is if the cluster says nothing.
pub const DEFAULT_SUBNET_SIZE: u8 = 24;

/// A network address with its mask length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cidr {
    /// The lowest address as a number.
    base: u128,
    /// Mask length.
    length: u8,
    v6: bool,
}

impl Cidr {
    /// Reads `10.0.1.7/24` as the subnet 10.0.1.0/24.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
        let v6 = address.is_ipv6();
        let bits = if v6 { 128 } else { 32 };
        if length > bits {
            return None;
        }
        let size_less_one = low_bits(bits - length);
        Some(Self { base: number(address) & !size_less_one, length, v6 })
    }

    fn last(self) -> u128 {
        self.base | low_bits((if self.v6 { 128 } else { 32 }) - self.length)
    }

    pub(super) fn is_v6(self) -> bool {
        self.v6
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.v6 && (self.base..=self.last()).contains(&number(address))
    }

    fn overlaps(self, other: Self) -> bool {
        self.v6 == other.v6 && self.base <= other.last() && other.base <= self.last()
    }

    fn address(self, offset: u32) -> IpAddr {
        let number = self.base + u128::from(offset);
        if self.v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
    }

    fn offset(self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - self.base)
    }

    /// An address of this subnet as `10.0.1.7/24`.
    pub(super) fn with_mask(self, address: IpAddr) -> String {
        format!("{address}/{}", self.length)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(0), self.length)
    }
}

fn low_bits(count: u8) -> u128 {
    if count >= 128 { u128::MAX } else { (1 << count) - 1 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// Reads `10.0.0.5/24` or `10.0.0.5`.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
}

/// The address space of the swarm: which subnets are taken, and where new ones come from.
#[derive(Clone, Debug)]
pub(super) struct AddressSpace {
    pools: Vec<Cidr>,
    subnet_size: u8,
    /// Taken subnets by (family, base).
    taken: BTreeMap<(bool, u128), Cidr>,
}

impl AddressSpace {
    /// Unreadable pools are left out; none at all, or a length of 0, mean the default.
    pub(super) fn new(pools: &[String], subnet_size: u32) -> Self {
        let mut pools: Vec<Cidr> = pools.iter().filter_map(|pool| Cidr::parse(pool)).filter(|it| !it.v6).collect();
        if pools.is_empty() {
            pools.extend(Cidr::parse(DEFAULT_POOL));
        }
        let subnet_size = u8::try_from(subnet_size).ok().filter(|size| (1..=29).contains(size));
        Self { pools, subnet_size: subnet_size.unwrap_or(DEFAULT_SUBNET_SIZE), taken: BTreeMap::new() }
    }

    fn taken_in(&self, subnet: Cidr) -> Option<Cidr> {
        let below = self.taken.range(..=(subnet.v6, subnet.last())).next_back();
        below.map(|(_, taken)| *taken).filter(|taken| taken.overlaps(subnet))
    }

    /// Takes this very subnet; `Err`: the one in the way.
    pub(super) fn reserve(&mut self, subnet: Cidr) -> Result<(), Cidr> {
        match self.taken_in(subnet) {
            Some(other) => Err(other),
            None => {
                self.taken.insert((subnet.v6, subnet.base), subnet);
                Ok(())
            }
        }
    }

    /// Takes the lowest free subnet of the first pool that has one.
    pub(super) fn take(&mut self) -> Option<Cidr> {
        for pool in self.pools.clone() {
            let length = self.subnet_size.max(pool.length);
            let mut base = pool.base;
            while base <= pool.last() {
                let subnet = Cidr { base, length, v6: false };
                match self.reserve(subnet) {
                    Ok(()) => return Some(subnet),
                    Err(other) => base = subnet.last().max(other.last() | low_bits(32 - length)) + 1,
                }
            }
        }
        None
    }

    pub(super) fn release(&mut self, subnet: Cidr) {
        self.taken.remove(&(subnet.v6, subnet.base));
    }
}

/// One subnet of a network and the addresses in use.
#[derive(Clone, Debug)]
pub(super) struct Subnet {
    pub(super) cidr: Cidr,
    hosts: NextFit,
    /// Addresses in use that are too far from the first to be among `hosts`, as offsets; only IPv6 has them.
    far: BTreeSet<u128>,
}

impl Subnet {
    /// Addresses are handed out of `range` if given, else of all but the network's and the broadcast address.
    pub(super) fn new(cidr: Cidr, range: Option<Cidr>) -> Self {
        let size_less_one = u32::try_from(cidr.last() - cidr.base).unwrap_or(u32::MAX);
        let (low, high) = match size_less_one {
            0 | 1 => (0, size_less_one),
            _ if cidr.v6 => (1, size_less_one),
            _ => (1, size_less_one - 1),
        };
        let range = range.filter(|range| range.overlaps(cidr)).map_or((low, high), |range| {
            let offset = |number: u128| u32::try_from(number.saturating_sub(cidr.base)).unwrap_or(u32::MAX);
            (offset(range.base).max(low), offset(range.last()).min(high))
        });
        Self { cidr, hosts: NextFit::new((low, high), range), far: BTreeSet::new() }
    }

    pub(super) fn take(&mut self) -> Option<IpAddr> {
        self.hosts.take().map(|offset| self.cidr.address(offset))
    }

    /// How many addresses there are to be handed out.
    pub(super) fn free(&self) -> u64 {
        self.hosts.free()
    }

    pub(super) fn reserve(&mut self, address: IpAddr) -> bool {
        let Some(offset) = self.cidr.offset(address) else { return false };
        match u32::try_from(offset) {
            Ok(offset) => self.hosts.reserve(offset),
            Err(_) => self.far.insert(offset),
        }
    }

    pub(super) fn release(&mut self, address: IpAddr) -> bool {
        let Some(offset) = self.cidr.offset(address) else { return false };
        match u32::try_from(offset) {
            Ok(offset) => self.hosts.release(offset),
            Err(_) => self.far.remove(&offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressSpace, Cidr, Subnet};

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    #[test]
    fn subnets_are_handed_out_in_ascending_order_first_free() {
        let mut space = AddressSpace::new(&[], 0);
        let take = |space: &mut AddressSpace| space.take().unwrap().to_string();
        assert_eq!(take(&mut space), "10.0.0.0/24");
        space.reserve(cidr("10.0.1.128/25")).unwrap();
        assert_eq!(space.reserve(cidr("10.0.0.0/16")), Err(cidr("10.0.1.128/25")));
        assert_eq!(take(&mut space), "10.0.2.0/24");
        space.release(cidr("10.0.0.0/24"));
        assert_eq!(take(&mut space), "10.0.0.0/24");
        space.reserve(cidr("fd00::/64")).unwrap();
        assert_eq!(take(&mut space), "10.0.3.0/24");
    }

    #[test]
    fn pools_are_used_one_after_the_other() {
        let mut space = AddressSpace::new(&["10.20.0.0/29".into(), "10.30.0.0/30".into()], 29);
        let taken: Vec<_> = std::iter::from_fn(|| space.take()).map(|it| it.to_string()).collect();
        assert_eq!(taken, ["10.20.0.0/29", "10.30.0.0/30"]);
    }

    #[test]
    fn network_and_broadcast_addresses_are_not_given() {
        let mut subnet = Subnet::new(cidr("10.0.0.0/29"), None);
        assert!(!subnet.reserve("10.0.0.0".parse().unwrap()));
        assert!(!subnet.reserve("10.0.0.7".parse().unwrap()));
        assert!(!subnet.reserve("10.0.1.1".parse().unwrap()));
        let all: Vec<_> = std::iter::from_fn(|| subnet.take()).map(|it| it.to_string()).collect();
        assert_eq!(all, (1..7).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_range_limits_what_is_given_but_not_what_may_be_asked_for() {
        let mut subnet = Subnet::new(cidr("10.0.0.0/24"), Some(cidr("10.0.0.8/30")));
        assert!(subnet.reserve("10.0.0.100".parse().unwrap()));
        let all: Vec<_> = std::iter::from_fn(|| subnet.take()).map(|it| it.to_string()).collect();
        assert_eq!(all, ["10.0.0.8", "10.0.0.9", "10.0.0.10", "10.0.0.11"]);
    }

    #[test]
    fn ipv6_works_alike() {
        let mut subnet = Subnet::new(cidr("fd00::/64"), None);
        assert_eq!(subnet.take().unwrap().to_string(), "fd00::1");
        assert_eq!(subnet.cidr.with_mask("fd00::5".parse().unwrap()), "fd00::5/64");
        let far = "fd00::1:0:0:5".parse().unwrap();
        assert!(subnet.reserve(far) && !subnet.reserve(far) && subnet.release(far) && !subnet.release(far));
    }
}
