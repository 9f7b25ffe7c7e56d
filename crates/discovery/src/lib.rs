//! What a node makes of the endpoints that it and its peers announce: libnetwork's records, and the tables that follow
//! from them. Pure: no clock, no IO. Gossip brings records in; `net` is told the changes.
//!
//! ```text
//!   own tasks ───┐                       ┌─► links: address -> hardware address, node   (VXLAN)
//!                ├─► records ─► Tables ──┼─► names of each endpoint                     (DNS)
//!   gossip ──────┘                       └─► services: virtual address, ports, backends (balancing)
//! ```

#![forbid(unsafe_code)]

mod record;
mod tables;

pub use record::{ENDPOINT_TABLE, EndpointRecord, Ingress, PEER_TABLE, PeerRecord, Port, Protocol, RecordError, seed};
pub use tables::{Backend, Change, EndpointId, NetworkId, Origin, PortGroup, Service, Tables};
