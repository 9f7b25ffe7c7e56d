//! This node on the swarm's network: it gossips with the others, and makes links, names and services of what they tell.

mod attachments;
mod encryption;
mod exchange;
mod feed;
mod gossiping;
mod notices;
mod own_file;
mod settle;
mod shown;
mod specs;
mod withdrawal;
mod words;

pub(crate) use attachments::{Attachments, container_of, network_of};
pub(crate) use encryption::{forget_keys, set_keys};
pub(crate) use exchange::{Exchange, HoldError};
pub(crate) use gossiping::Gossiping;
pub(crate) use notices::tell;
pub(crate) use shown::ShownNetworks;
pub(crate) use specs::{address_of, is_overlay};
pub(crate) use withdrawal::Withdrawal;

pub(crate) use feed::run as feed;
pub(crate) use settle::run as settle;
