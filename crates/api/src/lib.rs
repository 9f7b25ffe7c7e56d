//! Docker's Engine API over HTTP. Status codes and texts of errors are chosen here; what is done is decided by the engine
//! and, through [`SwarmBackend`], by the swarm.
//!
//! A request: listener → connection → version and headers ([`serve()`]) → route → handler → backend → answer.

#![forbid(unsafe_code)]

mod answer;
mod checkup;
mod containers;
mod create_rules;
mod detach;
mod disk_usage;
pub mod engine_backend;
mod error;
mod events;
mod exec;
mod frames;
mod front;
mod hijack;
mod host_facts;
mod image_events;
mod images;
pub mod listen;
mod local_networks;
mod lookup;
mod metrics;
mod names;
mod network_rules;
mod networks;
mod not_built;
mod pull;
mod registry;
mod request;
mod router;
mod serve;
mod state;
mod streams;
mod swarm;
pub mod swarm_backend;
mod swarm_error;
mod swarm_filter;
mod system;
mod volumes;

pub use checkup::Checkup;
pub use engine_backend::EngineBackend;
pub use error::ApiError;
pub use host_facts::fill as fill_host_facts;
pub use local_networks::LocalNetworks;
pub use metrics::{METRICS_CONNECTIONS_MAX, MetricsAddrError, MetricsListener, MetricsSource};
pub use not_built::{NOT_BUILT, NotBuilt};
pub use request::JSON_BODY_LIMIT;
pub use serve::serve;
pub use state::{About, ApiState, Settings, go_arch};
pub use swarm_backend::SwarmBackend;
