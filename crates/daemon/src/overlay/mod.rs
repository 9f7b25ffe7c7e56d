//! This node on the swarm's network: it gossips with the others.

mod gossiping;
mod notices;

pub(crate) use gossiping::Gossiping;
pub(crate) use notices::tell;
