//! Service discovery: a name server at 127.0.0.11 in every sandbox that is on a network with names.
//!
//! ```text
//! container                                   daemon
//! program ──► 127.0.0.11:53                   names    endpoint records ──► name → addresses      (pure)
//!                 │ nat (rules)               resolve  query, names, networks ──► answer | forward (pure)
//!                 ▼                           message  bytes ◄──► query, answer                    (pure)
//!          127.0.0.11:<random> ◄─────────────►server   one task a sandbox: both sockets, everything in flight
//!                                             share    how many queries may be on their way to other servers
//!          with --dns ◄───────────────────────upstream asks the servers of the host, or those of --dns
//! ```
//! The sockets are opened in the container's namespace and stay there; the daemon's threads do not. A program of the
//! container may have port 53 for itself: only 127.0.0.11 is translated.

mod message;
mod names;
mod resolv_conf;
mod resolve;
mod resolvers;
mod rules;
mod server;
mod share;
mod upstream;

use std::net::Ipv4Addr;

pub use names::{NameRecord, Names, ServiceNames};
pub(crate) use resolv_conf::internal as internal_resolv_conf;
pub(crate) use resolvers::{Age, Plan, Resolvers, View};
pub(crate) use rules::Ports;

/// Where containers find the name server.
pub(crate) const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
