//! Settings of the machine's network; filled by `daemon` from its flags and `daemon.json`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::{DnsConfig, Ipv4Cidr};

/// Settings of [`crate::Net`]. `Default` has dockerd's values with Skep's roots.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Run-time files that may vanish at a reboot; namespaces are pinned in `netns` below it.
    pub exec_root: PathBuf,
    /// Lasting files; this crate writes in `network` below it.
    pub data_root: PathBuf,
    /// The default bridge (`docker0`). At most 15 bytes; several daemons need different names.
    pub bridge_name: String,
    /// The bridge that gives tasks their default route (`docker_gwbridge`). At most 15 bytes.
    pub gwbridge_name: String,
    /// Our nftables tables are `<prefix>-ports`, `<prefix>-filter`, `<prefix>-ingress`.
    pub table_prefix: String,
    /// Pools that subnets of local networks are taken from (`--default-address-pool`).
    pub default_address_pools: Vec<AddressPool>,
    /// Address of the default bridge (`--bip`); else the first free subnet of the pools.
    pub bridge_address: Option<Ipv4Cidr>,
    /// Make firewall rules (`--iptables`). Without, nothing is published and the mesh does not work.
    pub iptables: bool,
    /// Switch on `net.ipv4.ip_forward` (`--ip-forward`).
    pub ip_forward: bool,
    /// Masquerade what leaves the default bridge (`--ip-masq`).
    pub ip_masq: bool,
    /// Containers of the default bridge may reach each other (`--icc`).
    pub icc: bool,
    /// Host address that ports are published on unless said otherwise (`--ip`).
    pub default_bind_address: Ipv4Addr,
    /// MTU of bridges and container links (`--mtu`).
    pub mtu: u32,
    /// Name servers for containers that name none (`--dns`).
    pub dns: DnsConfig,
    /// The host's `resolv.conf`.
    pub host_resolv_conf: PathBuf,
}

/// A range of addresses that subnets of one size are cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole range.
    pub base: Ipv4Cidr,
    /// Prefix length of the subnets.
    pub size: u8,
}

impl AddressPool {
    /// dockerd's local pools: 172.17.0.0/16 to 172.31.0.0/16 and 192.168.0.0/16 in /20.
    pub fn docker_defaults() -> Vec<Self> {
        let pool = |a, b, prefix, size| Self { base: Ipv4Cidr::new(Ipv4Addr::new(a, b, 0, 0), prefix), size };
        vec![
            pool(172, 17, 16, 16),
            pool(172, 18, 16, 16),
            pool(172, 19, 16, 16),
            pool(172, 20, 14, 16),
            pool(172, 24, 14, 16),
            pool(172, 28, 14, 16),
            pool(192, 168, 16, 20),
        ]
    }
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            exec_root: PathBuf::from("/run/skep"),
            data_root: PathBuf::from("/var/lib/skep"),
            bridge_name: "docker0".to_owned(),
            gwbridge_name: "docker_gwbridge".to_owned(),
            table_prefix: "skep".to_owned(),
            default_address_pools: AddressPool::docker_defaults(),
            bridge_address: None,
            iptables: true,
            ip_forward: true,
            ip_masq: true,
            icc: true,
            default_bind_address: Ipv4Addr::UNSPECIFIED,
            mtu: 1500,
            dns: DnsConfig::default(),
            host_resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}
