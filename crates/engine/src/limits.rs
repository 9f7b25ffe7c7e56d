//! What dockerd makes of the limits that a user asks for: what the machine cannot set is dropped with a warning, what makes no
//! sense is refused, in dockerd's order and words.

use std::collections::BTreeSet;

use docker_types::container::HostConfig;

use crate::EngineError;
use crate::host_limits::{HostLimits, Limit};

/// The least memory a container may have, bytes.
const MEMORY_MIN: i64 = 6 * 1024 * 1024;
const NANO_PER_CPU: i64 = 1_000_000_000;
/// Highest number in a list of CPUs or memory nodes: what Linux can have.
const LIST_NUMBER_MAX: i64 = 8192;

/// What the limits are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Create,
    /// A part of them, to be put over those of a container.
    Update,
}

fn refuse<T>(text: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::invalid(text))
}

/// Drops what the machine cannot do; gives dockerd's warnings about it.
pub(crate) fn check(host: &mut HostConfig, machine: &HostLimits, purpose: Purpose) -> Result<Vec<String>, EngineError> {
    let mut warnings = Vec::new();
    check_memory(host, machine, purpose, &mut warnings)?;
    check_oom_and_pids(host, machine, &mut warnings);
    check_cpu(host, machine, &mut warnings)?;
    check_cpuset(host, machine, &mut warnings)?;
    check_block_io(host, machine, &mut warnings)?;
    Ok(warnings)
}

/// Sets `value` back where it was asked for without the machine being able to do it.
fn drop_unless<T>(can: bool, value: &mut T, nothing: T, asked: impl Fn(&T) -> bool, warning: &str) -> Option<String> {
    if can || !asked(value) {
        return None;
    }
    *value = nothing;
    Some(warning.to_owned())
}

fn check_memory(
    host: &mut HostConfig,
    machine: &HostLimits,
    purpose: Purpose,
    warnings: &mut Vec<String>,
) -> Result<(), EngineError> {
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    if host.memory != 0 && host.memory < MEMORY_MIN {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && !machine.can(Limit::Memory) {
        warnings.push("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.".to_owned());
        (host.memory, host.memory_swap) = (0, -1);
    }
    if host.memory > 0 && host.memory_swap != -1 && !machine.can(Limit::Swap) {
        warnings.push("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.".to_owned());
        host.memory_swap = -1;
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 && purpose == Purpose::Create {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    warnings.extend(drop_unless(
        machine.can(Limit::Swappiness),
        &mut host.memory_swappiness,
        None,
        Option::is_some,
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    ));
    if let Some(swappiness) = host.memory_swappiness.filter(|value| !(0..=100).contains(value)) {
        return refuse(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    warnings.extend(drop_unless(
        machine.can(Limit::Reservation),
        &mut host.memory_reservation,
        0,
        |bytes| *bytes > 0,
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ));
    if host.memory_reservation > 0 && host.memory_reservation < MEMORY_MIN {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    warnings.extend(drop_unless(
        machine.can(Limit::KernelMemory),
        &mut host.kernel_memory,
        0,
        |bytes| *bytes > 0,
        "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ));
    if host.kernel_memory > 0 && host.kernel_memory < MEMORY_MIN {
        return refuse("Minimum kernel memory limit allowed is 6MB");
    }
    Ok(())
}

fn check_oom_and_pids(host: &mut HostConfig, machine: &HostLimits, warnings: &mut Vec<String>) {
    if !machine.can(Limit::OomKillDisable) && host.oom_kill_disable.take() == Some(true) {
        warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned());
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    if !machine.can(Limit::Pids) && host.pids_limit.take().is_some_and(|limit| limit > 0) {
        warnings.push(
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
                .to_owned(),
        );
    }
}

fn check_cpu(host: &mut HostConfig, machine: &HostLimits, warnings: &mut Vec<String>) -> Result<(), EngineError> {
    for (given, what) in [(host.cpu_period > 0, "CPU Period"), (host.cpu_quota > 0, "CPU Quota")] {
        if host.nano_cpus > 0 && given {
            return refuse(format!("Conflicting options: Nano CPUs and {what} cannot both be set"));
        }
    }
    if host.nano_cpus > 0 && !machine.can(Limit::CpuQuota) {
        return refuse(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        );
    }
    let cpus = machine.cpu_count;
    if host.nano_cpus < 0 || host.nano_cpus > cpus.saturating_mul(NANO_PER_CPU) {
        return refuse(format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"));
    }
    warnings.extend(drop_unless(
        machine.can(Limit::CpuShares),
        &mut host.cpu_shares,
        0,
        |shares| *shares > 0,
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    ));
    if (host.cpu_period != 0 || host.cpu_quota != 0) && !machine.can(Limit::CpuQuota) {
        warnings.push("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.".to_owned());
        (host.cpu_period, host.cpu_quota) = (0, 0);
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        host.cpu_percent = 0;
    }
    Ok(())
}

fn check_cpuset(host: &mut HostConfig, machine: &HostLimits, warnings: &mut Vec<String>) -> Result<(), EngineError> {
    let asked = !host.cpuset_cpus.is_empty() || !host.cpuset_mems.is_empty();
    if asked && !machine.can(Limit::Cpuset) {
        warnings.push("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.".to_owned());
        host.cpuset_cpus.clear();
        host.cpuset_mems.clear();
    }
    for (asked, available, name, what) in
        [(&host.cpuset_cpus, &machine.cpus, "cpus", "CPUs"), (&host.cpuset_mems, &machine.mems, "mems", "memory nodes")]
    {
        let invalid = |reason| EngineError::invalid(format!("Invalid value {asked} for cpuset {name}: {reason}"));
        let wanted = numbers(asked).map_err(invalid)?;
        if !wanted.is_subset(&numbers(available).unwrap_or_default()) {
            return refuse(format!("Requested {what} are not available - requested {asked}, available: {available}"));
        }
    }
    Ok(())
}

/// The numbers of `0,3-4`.
fn numbers(list: &str) -> Result<BTreeSet<i64>, String> {
    let mut numbers = BTreeSet::new();
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) else {
            return Err(format!("invalid format: {list}"));
        };
        if last < first {
            return Err(format!("invalid format: {list}"));
        }
        if last > LIST_NUMBER_MAX {
            return Err(format!("value of out range, maximum is {LIST_NUMBER_MAX}"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

fn check_block_io(host: &mut HostConfig, machine: &HostLimits, warnings: &mut Vec<String>) -> Result<(), EngineError> {
    warnings.extend(drop_unless(
        machine.can(Limit::BlkioWeight),
        &mut host.blkio_weight,
        0,
        |weight| *weight > 0,
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ));
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    if host.io_maximum_bandwidth != 0 || host.io_maximum_iops != 0 {
        return refuse("Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps");
    }
    let discarded = "or the cgroup is not mounted.";
    warnings.extend(drop_unless(
        machine.can(Limit::BlkioWeightDevice),
        &mut host.blkio_weight_device,
        Some(Vec::new()),
        |devices| devices.iter().flatten().next().is_some(),
        &format!("Your kernel does not support Block I/O weight_device {discarded} Weight-device discarded."),
    ));
    for (limit, devices, kernel, dropped) in [
        (Limit::BlkioReadBps, &mut host.blkio_device_read_bps, "BPS Block I/O read limit", "Block I/O BPS read limit"),
        (
            Limit::BlkioWriteBps,
            &mut host.blkio_device_write_bps,
            "BPS Block I/O write limit",
            "Block I/O BPS write limit",
        ),
        (Limit::BlkioReadIops, &mut host.blkio_device_read_iops, "IOPS Block read limit", "Block I/O IOPS read limit"),
        (
            Limit::BlkioWriteIops,
            &mut host.blkio_device_write_iops,
            "IOPS Block write limit",
            "Block I/O IOPS write limit",
        ),
    ] {
        warnings.extend(drop_unless(
            machine.can(limit),
            devices,
            Some(Vec::new()),
            |devices| devices.iter().flatten().next().is_some(),
            &format!("Your kernel does not support {kernel} {discarded} {dropped} discarded."),
        ));
    }
    Ok(())
}

/// What dockerd refuses before it looks at anything else.
pub(crate) fn check_early(host: &HostConfig, machine: &HostLimits) -> Result<(), EngineError> {
    for (value, what) in [(host.io_maximum_bandwidth, "bandwidth"), (host.io_maximum_iops, "IOPs")] {
        if value != 0 {
            return refuse(format!("invalid option: QoS maximum {what} configuration is not supported on linux"));
        }
    }
    let (period, runtime) = (host.cpu_realtime_period, host.cpu_realtime_runtime);
    if (period != 0 || runtime != 0) && !machine.can(Limit::CpuRealtime) {
        return refuse("kernel does not support CPU real-time scheduler");
    }
    if period != 0 && runtime > period {
        return refuse("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    if host.cpu_shares < 0 && machine.can(Limit::CpuShares) {
        return refuse(format!("invalid CPU shares ({}): value must be a positive integer", host.cpu_shares));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use docker_types::container::{ThrottleDevice, WeightDevice};

    use super::*;

    const MIB: i64 = 1024 * 1024;

    /// A machine of two CPUs and one memory node that can do all but these.
    fn machine(without: &[Limit]) -> HostLimits {
        let all = crate::host_limits::V1.into_iter().map(|(limit, ..)| limit);
        let known = all.filter(|limit| !without.contains(limit)).collect();
        HostLimits { known, cpu_count: 2, cpus: "0-1".into(), mems: "0".into() }
    }

    fn checked(without: &[Limit], change: impl FnOnce(&mut HostConfig)) -> Result<(HostConfig, Vec<String>), String> {
        let mut host = HostConfig::default();
        change(&mut host);
        let machine = machine(without);
        let early = check_early(&host, &machine);
        let warnings = early.and_then(|()| check(&mut host, &machine, Purpose::Create));
        warnings.map(|warnings| (host, warnings)).map_err(|error| error.to_string())
    }

    type Change = fn(&mut HostConfig);

    #[test]
    fn wrong_limits_have_dockerds_texts() {
        let cases: [(Change, &str); 27] = [
            (|host| host.memory = MIB, "Minimum memory limit allowed is 6MB"),
            (|host| host.memory = -1, "Minimum memory limit allowed is 6MB"),
            (
                |host| (host.memory, host.memory_swap) = (8 * MIB, 7 * MIB),
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                |host| host.memory_swap = 7 * MIB,
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (|host| host.memory_swappiness = Some(101), "Invalid value: 101, valid memory swappiness range is 0-100"),
            (|host| host.memory_reservation = MIB, "Minimum memory reservation allowed is 6MB"),
            (
                |host| (host.memory, host.memory_reservation) = (7 * MIB, 8 * MIB),
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ),
            (|host| host.kernel_memory = MIB, "Minimum kernel memory limit allowed is 6MB"),
            (
                |host| (host.nano_cpus, host.cpu_period) = (1, 5000),
                "Conflicting options: Nano CPUs and CPU Period cannot both be set",
            ),
            (
                |host| (host.nano_cpus, host.cpu_quota) = (1, 5000),
                "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
            ),
            (
                |host| host.nano_cpus = 100 * NANO_PER_CPU,
                "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            ),
            (|host| host.nano_cpus = -1, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
            (
                |host| host.cpu_period = 999,
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ),
            (|host| host.cpu_quota = 999, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
            (|host| host.cpu_shares = -2, "invalid CPU shares (-2): value must be a positive integer"),
            (|host| host.cpuset_cpus = "77".into(), "Requested CPUs are not available - requested 77, available: 0-1"),
            (
                |host| host.cpuset_cpus = "0-2".into(),
                "Requested CPUs are not available - requested 0-2, available: 0-1",
            ),
            (
                |host| host.cpuset_mems = "9".into(),
                "Requested memory nodes are not available - requested 9, available: 0",
            ),
            (|host| host.cpuset_cpus = "0-a".into(), "Invalid value 0-a for cpuset cpus: invalid format: 0-a"),
            (|host| host.cpuset_cpus = "1-0".into(), "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
            (|host| host.cpuset_cpus = "0,".into(), "Invalid value 0, for cpuset cpus: invalid format: 0,"),
            (
                |host| host.cpuset_mems = "0-9223372036854775807".into(),
                "Invalid value 0-9223372036854775807 for cpuset mems: value of out range, maximum is 8192",
            ),
            (|host| host.blkio_weight = 9, "Range of blkio weight is from 10 to 1000"),
            (
                |host| host.io_maximum_iops = 1,
                "invalid option: QoS maximum IOPs configuration is not supported on linux",
            ),
            (
                |host| host.io_maximum_bandwidth = 1,
                "invalid option: QoS maximum bandwidth configuration is not supported on linux",
            ),
            (
                |host| (host.cpu_realtime_period, host.cpu_realtime_runtime) = (1, 2),
                "cpu real-time runtime cannot be higher than cpu real-time period",
            ),
            (
                |host| host.nano_cpus = i64::MIN,
                "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            ),
        ];
        for (change, text) in cases {
            assert_eq!(checked(&[], change).unwrap_err(), text);
        }
        let realtime = checked(&[Limit::CpuRealtime], |host| host.cpu_realtime_period = 1);
        assert_eq!(realtime.unwrap_err(), "kernel does not support CPU real-time scheduler");
        let quota = checked(&[Limit::CpuQuota], |host| host.nano_cpus = 1).unwrap_err();
        assert!(quota.starts_with("NanoCPUs can not be set, as your kernel"), "{quota}");
    }

    #[test]
    fn good_limits_pass() {
        let cases: [Change; 7] = [
            |_| (),
            |host| host.memory = 6 * MIB,
            |host| (host.memory, host.memory_swap) = (6 * MIB, -1),
            |host| host.memory_swappiness = Some(-1),
            |host| (host.cpu_shares, host.nano_cpus) = (1, 2 * NANO_PER_CPU),
            |host| (host.cpuset_cpus, host.cpuset_mems) = ("0,1,00-1".into(), "0".into()),
            |host| (host.blkio_weight, host.pids_limit) = (10, Some(1)),
        ];
        for change in cases {
            assert!(checked(&[], change).unwrap().1.is_empty());
        }
        let (host, _) = checked(&[], |host| host.memory_swappiness = Some(-1)).unwrap();
        assert_eq!(host.memory_swappiness, None);
        let mut update = HostConfig { memory_swap: 7 * MIB, ..HostConfig::default() };
        assert!(check(&mut update, &machine(&[]), Purpose::Update).is_ok());
    }

    #[test]
    fn what_the_machine_cannot_do_is_dropped_with_a_warning() {
        use Limit::*;
        let device = || Some(vec![ThrottleDevice { path: "/dev/null".into(), rate: 1 }]);
        let ask = |host: &mut HostConfig| {
            (host.memory, host.memory_swap, host.memory_swappiness) = (8 * MIB, 16 * MIB, Some(5));
            (host.oom_kill_disable, host.pids_limit, host.cpu_shares) = (Some(true), Some(3), 4);
            (host.cpuset_cpus, host.blkio_weight) = ("77".into(), 5);
            host.blkio_weight_device = Some(vec![WeightDevice { path: "/dev/null".into(), weight: 10 }]);
            (host.blkio_device_read_bps, host.blkio_device_write_iops) = (device(), device());
        };
        let without = [
            Swap,
            Swappiness,
            OomKillDisable,
            Pids,
            CpuShares,
            Cpuset,
            BlkioWeight,
            BlkioWeightDevice,
            BlkioReadBps,
            BlkioWriteIops,
        ];
        let (host, warnings) = checked(&without, ask).unwrap();
        assert_eq!(
            warnings,
            [
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
                "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
                "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
                "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
                "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
                "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
                "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
                "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
            ]
        );
        assert_eq!((host.memory, host.memory_swap, host.memory_swappiness), (8 * MIB, -1, None));
        assert_eq!((host.oom_kill_disable, host.pids_limit, host.cpu_shares), (None, None, 0));
        assert_eq!((host.cpuset_cpus.as_str(), host.blkio_weight), ("", 0));
        assert_eq!((host.blkio_weight_device, host.blkio_device_read_bps), (Some(Vec::new()), Some(Vec::new())));
        let (host, warnings) = checked(&[Memory], |host| host.memory = 8 * MIB).unwrap();
        assert_eq!((host.memory, host.memory_swap, warnings.len()), (0, -1, 1));
        let (_, warnings) = checked(&[], |host| host.oom_kill_disable = Some(true)).unwrap();
        assert!(warnings[0].starts_with("OOM killer is disabled for the container, but no memory limit is set"));
    }
}
