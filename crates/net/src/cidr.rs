//! An IPv4 address with its prefix length.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 address with its prefix length, as `172.17.0.1/16`. Host bits may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length, 0 to 32.
    pub prefix: u8,
}

/// Text that is no IPv4 address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct CidrError(pub String);

impl Ipv4Cidr {
    /// An address with its prefix length.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// The network mask in host order.
    pub fn mask(self) -> u32 {
        if self.prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(self.prefix.min(32))) }
    }

    /// The network this address is in: host bits cleared.
    pub fn network(self) -> Self {
        Self { address: Ipv4Addr::from(u32::from(self.address) & self.mask()), prefix: self.prefix }
    }

    /// The last address of the network.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !self.mask())
    }

    /// Whether `address` is in this network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ u32::from(self.address)) & self.mask() == 0
    }

    /// Whether the two networks share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        (u32::from(self.address) ^ u32::from(other.address)) & mask == 0
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for text in ["172.17.0.1/16", "0.0.0.0/0", "10.0.0.2/32"] {
            assert_eq!(text.parse::<Ipv4Cidr>().unwrap().to_string(), text);
        }
        for text in ["172.17.0.1", "1.2.3/4", "1.2.3.4/33", "1.2.3.4/-1", "::/0"] {
            assert!(text.parse::<Ipv4Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        let check = |a: &str, b: &str, expected: bool| {
            let (a, b): (Ipv4Cidr, Ipv4Cidr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((a.overlaps(b), b.overlaps(a)), (expected, expected), "{a} {b}");
        };
        check("10.0.0.0/8", "10.1.0.0/16", true);
        check("10.0.0.0/24", "10.0.1.0/24", false);
        check("0.0.0.0/0", "10.0.1.0/24", true);
    }
}
