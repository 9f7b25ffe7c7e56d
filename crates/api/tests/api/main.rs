//! The server over a real socket, with a swarm that only remembers.

mod docker_cli;
mod http_rules;
mod support;
mod swarm_endpoints;
