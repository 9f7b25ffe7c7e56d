//! The network of one machine: sandboxes, the default bridge, bridges of the user's own, `docker_gwbridge`, overlay networks,
//! published ports, the ingress mesh and service discovery.
//!
//! Everything is made through netlink: links, addresses and routes with `rtnetlink`, the firewall with a small nfnetlink
//! encoder of our own. No program is run. What must outlive the daemon stands in small files under
//! `<data root>/network`; what lives in the kernel outlives it anyway and is adopted by [`Net::open`] and
//! [`Net::reconcile`].
//!
//! Names of bridges, namespaces and nftables tables come from [`NetConfig`], so several daemons, and a dockerd, can live
//! beside each other.

#![deny(unsafe_op_in_unsafe_fn)]

mod balance;
mod bridges;
mod cidr;
mod config;
mod connect;
mod conntrack;
mod dns;
mod error;
mod etc_files;
mod fading;
mod firewall;
mod inbound;
mod ingress;
mod ipam;
mod ipsec;
mod legacy;
mod links;
mod listing;
mod mesh;
mod net;
mod netlink;
mod netns;
mod nft;
mod open;
mod overlay;
mod ports;
mod reconcile;
mod sandbox;
mod state;
mod store;
mod survey;
mod task_rules;
mod tunnel_probe;
mod types;
mod vips;
mod vxlan;
mod warnings;
mod watch;

pub use bridges::{BridgeEndpointSpec, BridgeNetworkSpec};
pub use cidr::{CidrError, Ipv4Cidr};
pub use config::{AddressPool, NetConfig};
pub use connect::Connection;
pub use dns::{NameRecord, Names, ServiceNames};
pub use error::NetError;
pub use ipsec::{ENCRYPTION_KEY_BYTES, ENCRYPTION_KEYS_MAX, EncryptionKey};
pub use net::Net;
pub use overlay::{DATA_PATH_PORT, OverlayEndpointSpec, OverlaySpec, OverlaySubnet, Peer};
pub use reconcile::ReconcileReport;
pub use survey::{Conntracks, own_names, survey, survey_firewall};
pub use tunnel_probe::{Heard, TunnelProbe};
pub use types::{
    Backend, BackendNode, ClientAddress, DnsConfig, DnsNetwork, Endpoint, EtcFiles, IngressEndpointSpec, IngressPort,
    NetworkContainer, NetworkInfo, PortBinding, PortGroup, Protocol, PublishedPort, Sandbox, SandboxMode, SandboxSpec,
    SubnetInfo,
};
