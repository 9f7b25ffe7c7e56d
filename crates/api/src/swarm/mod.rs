//! Handlers of the swarm's endpoints.

pub(crate) mod cluster;
pub(crate) mod events;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod secrets;
pub(crate) mod services;
pub(crate) mod tasks;

use docker_types::filters::Filters;

use crate::swarm_backend::ObjectFilter;

/// The filters that all kinds of objects share; names are beginnings of names.
fn object_filter(filters: &Filters) -> ObjectFilter {
    ObjectFilter {
        names: Vec::new(),
        name_prefixes: filters.values("name"),
        id_prefixes: filters.values("id"),
        labels: filters.labels("label"),
    }
}
