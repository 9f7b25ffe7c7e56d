//! A swarm of one as users meet it: the real `docker` command line, Skep's own, real containers and real requests.

mod clients;
mod crash;
mod registry;
mod support;
mod walk_through;
