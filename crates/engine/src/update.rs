//! `docker update`: which of a container's settings a request changes, and which changes dockerd refuses.

use docker_types::container::{HostConfig, UpdateRequest};

use crate::EngineError;

/// A request as the settings of a container that has nothing else.
pub(crate) fn asked(request: UpdateRequest) -> HostConfig {
    HostConfig {
        cpu_shares: request.cpu_shares,
        nano_cpus: request.nano_cpus,
        cpu_period: request.cpu_period,
        cpu_quota: request.cpu_quota,
        cpu_realtime_period: request.cpu_realtime_period,
        cpu_realtime_runtime: request.cpu_realtime_runtime,
        cpuset_cpus: request.cpuset_cpus,
        cpuset_mems: request.cpuset_mems,
        memory: request.memory,
        memory_swap: request.memory_swap,
        memory_swappiness: request.memory_swappiness,
        memory_reservation: request.memory_reservation,
        kernel_memory: request.kernel_memory,
        oom_kill_disable: request.oom_kill_disable,
        pids_limit: request.pids_limit,
        blkio_weight: request.blkio_weight,
        io_maximum_bandwidth: request.io_maximum_bandwidth,
        io_maximum_iops: request.io_maximum_iops,
        cpu_percent: request.cpu_percent,
        restart_policy: request.restart_policy,
        ..HostConfig::default()
    }
}

/// Takes over what is asked for; zero values leave the old ones. Refuses what contradicts what the container has.
pub(crate) fn apply(host: &mut HostConfig, asked: &HostConfig) -> Result<(), EngineError> {
    fn set<T: Default + PartialEq + Clone>(target: &mut T, value: &T) {
        if *value != T::default() {
            target.clone_from(value);
        }
    }
    if let Some(text) = conflict(host, asked) {
        return Err(EngineError::conflict(text));
    }
    set(&mut host.cpu_shares, &asked.cpu_shares);
    set(&mut host.nano_cpus, &asked.nano_cpus);
    set(&mut host.cpu_period, &asked.cpu_period);
    set(&mut host.cpu_quota, &asked.cpu_quota);
    set(&mut host.cpu_realtime_period, &asked.cpu_realtime_period);
    set(&mut host.cpu_realtime_runtime, &asked.cpu_realtime_runtime);
    set(&mut host.cpuset_cpus, &asked.cpuset_cpus);
    set(&mut host.cpuset_mems, &asked.cpuset_mems);
    set(&mut host.memory, &asked.memory);
    set(&mut host.memory_swap, &asked.memory_swap);
    set(&mut host.memory_reservation, &asked.memory_reservation);
    set(&mut host.kernel_memory, &asked.kernel_memory);
    set(&mut host.blkio_weight, &asked.blkio_weight);
    set(&mut host.pids_limit, &asked.pids_limit);
    if !asked.restart_policy.name.is_empty() {
        host.restart_policy.clone_from(&asked.restart_policy);
    }
    Ok(())
}

fn conflict(host: &HostConfig, asked: &HostConfig) -> Option<&'static str> {
    let policy = asked.restart_policy.name.as_str();
    let conflicts = [
        (
            asked.nano_cpus > 0 && host.cpu_period > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            asked.nano_cpus > 0 && host.cpu_quota > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            asked.cpu_period > 0 && host.nano_cpus > 0,
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            asked.cpu_quota > 0 && host.nano_cpus > 0,
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            asked.memory != 0 && asked.memory > host.memory_swap && asked.memory_swap == 0,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ),
        (
            !matches!(policy, "" | "no") && host.auto_remove,
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
    ];
    conflicts.into_iter().find(|(conflicts, _)| *conflicts).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_leave_what_there_is() {
        let mut host = HostConfig { memory: 5, memory_swap: 10, pids_limit: Some(3), ..HostConfig::default() };
        apply(&mut host, &HostConfig { cpu_shares: 7, pids_limit: Some(0), ..HostConfig::default() }).unwrap();
        assert_eq!((host.memory, host.cpu_shares, host.pids_limit), (5, 7, Some(0)));
    }

    #[test]
    fn contradictions_are_conflicts() {
        type Change = fn(&mut HostConfig);
        let cases: [(Change, Change, &str); 6] = [
            (|has| has.cpu_period = 1000, |asked| asked.nano_cpus = 1, "as CPU Period has already been set"),
            (|has| has.cpu_quota = 1000, |asked| asked.nano_cpus = 1, "as CPU Quota has already been set"),
            (|has| has.nano_cpus = 1, |asked| asked.cpu_period = 1000, "as NanoCPUs has already been set"),
            (|has| has.nano_cpus = 1, |asked| asked.cpu_quota = 1000, "as NanoCPUs has already been set"),
            (
                |has| (has.memory, has.memory_swap) = (5, 10),
                |asked| asked.memory = 11,
                "memoryswap limit, update the memoryswap at the same time",
            ),
            (
                |has| has.auto_remove = true,
                |asked| asked.restart_policy.name = "always".into(),
                "because AutoRemove is enabled for the container",
            ),
        ];
        for (has, asks, text) in cases {
            let (mut host, mut asked) = (HostConfig::default(), HostConfig::default());
            has(&mut host);
            asks(&mut asked);
            let before = host.clone();
            let error = apply(&mut host, &asked).unwrap_err();
            assert_eq!((error.kind(), &host), (crate::ErrorKind::Conflict, &before));
            assert!(error.to_string().ends_with(text), "{error}");
        }
    }
}
