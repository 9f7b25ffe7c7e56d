//! The server over a real socket, with a swarm that only remembers.

mod bad_input;
mod containers;
mod docker_cli;
mod documents;
mod fake_engine;
mod http_rules;
mod images;
mod real;
/// The registry of `image`'s own tests.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../image/tests/common/registry.rs"]
mod registry;
mod support;
mod swarm_endpoints;
mod system;
mod tls;
