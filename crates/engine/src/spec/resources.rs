//! Limits of a container's cgroup.
//!
//! Pure: the fields are those of dockerd's `Resources`, zero or `None` meaning "not set". Caller: `spec::build`, `update`.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxMemory, LinuxPidsBuilder, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use super::SpecError;

/// Period of the CPU quota that `--cpus` stands for, in microseconds.
const CPUS_PERIOD_US: u64 = 100_000;

/// Limits, in dockerd's units.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Bytes; 0: no limit.
    pub memory: i64,
    /// Bytes of memory and swap together; -1: no limit; 0: not set. (dockerd sets twice `memory` at create.)
    pub memory_swap: i64,
    /// Bytes; 0: not set.
    pub memory_reservation: i64,
    /// 0 to 100; `None` or -1: not set.
    pub memory_swappiness: Option<i64>,
    /// Whether the out-of-memory killer spares the container (cgroup v1).
    pub oom_kill_disable: Option<bool>,
    /// Relative weight; 0: not set.
    pub cpu_shares: i64,
    /// Microseconds per period; 0: not set.
    pub cpu_quota: i64,
    /// Microseconds; 0: not set.
    pub cpu_period: i64,
    /// Thousand-millionths of a CPU; 0: not set. Excludes quota and period.
    pub nano_cpus: i64,
    /// List of CPUs.
    pub cpuset_cpus: String,
    /// List of memory nodes.
    pub cpuset_mems: String,
    /// Microseconds per real-time period; 0: not set.
    pub cpu_realtime_runtime: i64,
    /// Microseconds; 0: not set.
    pub cpu_realtime_period: i64,
    /// Most processes; zero or less: no limit.
    pub pids_limit: Option<i64>,
    /// 10 to 1000; 0: not set.
    pub blkio_weight: u16,
    /// Weights by device.
    pub blkio_weight_device: Vec<DeviceRate>,
    /// Bytes per second read, by device.
    pub blkio_read_bps: Vec<DeviceRate>,
    /// Bytes per second written, by device.
    pub blkio_write_bps: Vec<DeviceRate>,
    /// Reads per second, by device.
    pub blkio_read_iops: Vec<DeviceRate>,
    /// Writes per second, by device.
    pub blkio_write_iops: Vec<DeviceRate>,
}

/// A number for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRate {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// The weight or rate.
    pub rate: u64,
}

/// The limits as the runtime takes them; device rules are not set.
pub fn resources(input: &Resources) -> Result<LinuxResources, SpecError> {
    let mut resources = LinuxResources::default();
    // The library's default has a rule for devices.
    resources.set_devices(None).set_memory(memory(input)).set_cpu(cpu(input)).set_block_io(block_io(input)?).set_pids(
        match input.pids_limit {
            // an update takes a limit back by -1
            Some(limit) => Some(LinuxPidsBuilder::default().limit(if limit > 0 { limit } else { -1 }).build()?),
            None => None,
        },
    );
    Ok(resources)
}

fn positive(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

fn unsigned(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn memory(input: &Resources) -> Option<LinuxMemory> {
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(positive(input.memory))
        .set_reservation(positive(input.memory_reservation))
        .set_swap((input.memory_swap > 0 || input.memory_swap == -1).then_some(input.memory_swap))
        .set_swappiness(input.memory_swappiness.and_then(|value| u64::try_from(value).ok()))
        .set_disable_oom_killer(input.oom_kill_disable.filter(|disable| *disable));
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(input: &Resources) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    let (quota, period) = match unsigned(input.nano_cpus) {
        // 1e9 thousand-millionths are one CPU, which is a quota as long as the period.
        Some(nano) => (i64::try_from(nano / 10_000).ok(), Some(CPUS_PERIOD_US)),
        None => ((input.cpu_quota != 0).then_some(input.cpu_quota), unsigned(input.cpu_period)),
    };
    cpu.set_shares(unsigned(input.cpu_shares))
        .set_quota(quota)
        .set_period(period)
        .set_realtime_runtime(positive(input.cpu_realtime_runtime))
        .set_realtime_period(unsigned(input.cpu_realtime_period))
        .set_cpus(text(&input.cpuset_cpus))
        .set_mems(text(&input.cpuset_mems));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn block_io(input: &Resources) -> Result<Option<LinuxBlockIo>, SpecError> {
    let mut io = LinuxBlockIoBuilder::default().build()?;
    let empty = io.clone();
    io.set_weight((input.blkio_weight > 0).then_some(input.blkio_weight))
        .set_weight_device(weights(&input.blkio_weight_device)?)
        .set_throttle_read_bps_device(rates(&input.blkio_read_bps)?)
        .set_throttle_write_bps_device(rates(&input.blkio_write_bps)?)
        .set_throttle_read_iops_device(rates(&input.blkio_read_iops)?)
        .set_throttle_write_iops_device(rates(&input.blkio_write_iops)?);
    Ok((io != empty).then_some(io))
}

fn weights(devices: &[DeviceRate]) -> Result<Option<Vec<LinuxWeightDevice>>, SpecError> {
    let build = |device: &DeviceRate| {
        let weight = u16::try_from(device.rate).unwrap_or(u16::MAX);
        LinuxWeightDeviceBuilder::default().major(device.major).minor(device.minor).weight(weight).build()
    };
    let devices = devices.iter().map(build).collect::<Result<Vec<_>, _>>()?;
    Ok((!devices.is_empty()).then_some(devices))
}

fn rates(devices: &[DeviceRate]) -> Result<Option<Vec<LinuxThrottleDevice>>, SpecError> {
    let build = |device: &DeviceRate| {
        LinuxThrottleDeviceBuilder::default().major(device.major).minor(device.minor).rate(device.rate).build()
    };
    let devices = devices.iter().map(build).collect::<Result<Vec<_>, _>>()?;
    Ok((!devices.is_empty()).then_some(devices))
}
