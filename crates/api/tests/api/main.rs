//! The server over a real socket, with a swarm that only remembers.

mod containers;
mod docker_cli;
mod fake_engine;
mod http_rules;
mod support;
mod swarm_endpoints;
mod system;
