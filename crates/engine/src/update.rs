//! `docker update`: which of the settings a request changes, and what the runtime is told.

use docker_types::container::{HostConfig, UpdateRequest};

/// Takes over what the request sets; zero values leave the old ones.
pub(crate) fn apply(host: &mut HostConfig, request: UpdateRequest) {
    fn set<T: Default + PartialEq>(target: &mut T, value: T) {
        if value != T::default() {
            *target = value;
        }
    }
    set(&mut host.cpu_shares, request.cpu_shares);
    if request.nano_cpus != 0 {
        (host.cpu_period, host.cpu_quota) = (0, 0);
        host.nano_cpus = request.nano_cpus;
    }
    set(&mut host.cpu_period, request.cpu_period);
    set(&mut host.cpu_quota, request.cpu_quota);
    set(&mut host.cpu_realtime_period, request.cpu_realtime_period);
    set(&mut host.cpu_realtime_runtime, request.cpu_realtime_runtime);
    set(&mut host.cpuset_cpus, request.cpuset_cpus);
    set(&mut host.cpuset_mems, request.cpuset_mems);
    set(&mut host.memory, request.memory);
    set(&mut host.memory_swap, request.memory_swap);
    set(&mut host.memory_reservation, request.memory_reservation);
    set(&mut host.blkio_weight, request.blkio_weight);
    set(&mut host.pids_limit, request.pids_limit);
    if !request.restart_policy.name.is_empty() {
        host.restart_policy = request.restart_policy;
    }
}
