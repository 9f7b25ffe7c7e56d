//! A swarm of one as users meet it: the real `docker` command line, Skep's own, real containers and real requests.

#![allow(unreachable_pub, reason = "a test has no public items")]

mod clients;
mod crash;
mod metrics;
mod own_cli;
mod process;
mod registry;
mod services;
mod support;
mod walk_through;
