//! Which limits the machine's cgroups can set, by the files that the kernel has for them; looked up once.
//!
//! Caller: the checks of `create` and `update`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where cgroup v2 is all there is.
const UNIFIED: &str = "/sys/fs/cgroup";

/// A limit of dockerd's `Resources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limit {
    Memory,
    Swap,
    Swappiness,
    Reservation,
    KernelMemory,
    OomKillDisable,
    Pids,
    CpuShares,
    CpuQuota,
    CpuRealtime,
    Cpuset,
    BlkioWeight,
    BlkioWeightDevice,
    BlkioReadBps,
    BlkioWriteBps,
    BlkioReadIops,
    BlkioWriteIops,
}

/// Limits of cgroup v1: controller, and the file that shows that the kernel has it (none: the controller is enough).
pub(crate) const V1: [(Limit, &str, &str); 17] = [
    (Limit::Memory, "memory", ""),
    (Limit::Swap, "memory", "memory.memsw.limit_in_bytes"),
    (Limit::Swappiness, "memory", "memory.swappiness"),
    (Limit::Reservation, "memory", "memory.soft_limit_in_bytes"),
    (Limit::KernelMemory, "memory", "memory.kmem.limit_in_bytes"),
    (Limit::OomKillDisable, "memory", "memory.oom_control"),
    (Limit::Pids, "pids", ""),
    (Limit::CpuShares, "cpu", "cpu.shares"),
    (Limit::CpuQuota, "cpu", "cpu.cfs_quota_us"),
    (Limit::CpuRealtime, "cpu", "cpu.rt_period_us"),
    (Limit::Cpuset, "cpuset", ""),
    (Limit::BlkioWeight, "blkio", "blkio.weight"),
    (Limit::BlkioWeightDevice, "blkio", "blkio.weight_device"),
    (Limit::BlkioReadBps, "blkio", "blkio.throttle.read_bps_device"),
    (Limit::BlkioWriteBps, "blkio", "blkio.throttle.write_bps_device"),
    (Limit::BlkioReadIops, "blkio", "blkio.throttle.read_iops_device"),
    (Limit::BlkioWriteIops, "blkio", "blkio.throttle.write_iops_device"),
];

/// Limits of cgroup v2 that come with their controller.
const V2: [(Limit, &str); 12] = [
    (Limit::Memory, "memory"),
    (Limit::Reservation, "memory"),
    (Limit::Pids, "pids"),
    (Limit::CpuShares, "cpu"),
    (Limit::CpuQuota, "cpu"),
    (Limit::Cpuset, "cpuset"),
    (Limit::BlkioWeight, "io"),
    (Limit::BlkioWeightDevice, "io"),
    (Limit::BlkioReadBps, "io"),
    (Limit::BlkioWriteBps, "io"),
    (Limit::BlkioReadIops, "io"),
    (Limit::BlkioWriteIops, "io"),
];

/// What the machine can limit, and what of it there is to give.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostLimits {
    pub(crate) known: BTreeSet<Limit>,
    /// CPUs that run.
    pub(crate) cpu_count: i64,
    /// List of the CPUs that containers may have, in the kernel's words.
    pub(crate) cpus: String,
    /// List of the memory nodes.
    pub(crate) mems: String,
}

impl HostLimits {
    /// This machine's.
    pub(crate) fn current() -> &'static Self {
        static CURRENT: OnceLock<HostLimits> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let unified = Path::new(UNIFIED);
            let mut limits = match std::fs::read_to_string(unified.join("cgroup.controllers")) {
                Ok(controllers) => Self::of_v2(unified, &controllers, &text(Path::new("/proc/self/cgroup"))),
                Err(_) => Self::of_v1(&text(Path::new("/proc/self/mountinfo"))),
            };
            let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            limits.cpu_count = i64::try_from(count).unwrap_or(i64::MAX);
            limits
        })
    }

    pub(crate) fn can(&self, limit: Limit) -> bool {
        self.known.contains(&limit)
    }

    fn of_v1(mountinfo: &str) -> Self {
        let has = |controller: &str, file: &str| {
            v1_mount(mountinfo, controller).is_some_and(|directory| directory.join(file).exists())
        };
        let known = V1.iter().filter(|(_, controller, file)| has(controller, file)).map(|(limit, ..)| *limit).collect();
        let cpuset =
            |file| v1_mount(mountinfo, "cpuset").map(|directory| text(&directory.join(file))).unwrap_or_default();
        Self { known, cpus: cpuset("cpuset.cpus"), mems: cpuset("cpuset.mems"), ..Self::default() }
    }

    fn of_v2(root: &Path, controllers: &str, own_cgroup: &str) -> Self {
        let has = |controller: &str| controllers.split_whitespace().any(|word| word == controller);
        let mut known: BTreeSet<_> =
            V2.iter().filter(|(_, controller)| has(controller)).map(|(limit, _)| *limit).collect();
        // the root has no such file: one's own cgroup tells
        let own = own_cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
        if own.is_some_and(|own| root.join(own).join("memory.swap.max").exists()) {
            known.insert(Limit::Swap);
        }
        let cpuset = |file| text(&root.join(file));
        Self { known, cpus: cpuset("cpuset.cpus.effective"), mems: cpuset("cpuset.mems.effective"), ..Self::default() }
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Where a controller of cgroup v1 is mounted.
fn v1_mount(mountinfo: &str, controller: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_it = kind.next() == Some("cgroup") && kind.nth(1)?.split(',').any(|option| option == controller);
        is_it.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_v1_are_where_they_are_mounted() {
        let mountinfo = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(v1_mount(mountinfo, "cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(v1_mount(mountinfo, "memory"), None);
        assert!(HostLimits::of_v1("").known.is_empty());
    }

    #[test]
    fn limits_are_told_by_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (file, text) in [("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n"), ("memory.swappiness", "60")] {
            std::fs::write(root.join(file), text).unwrap();
        }
        let line = |controller: &str| format!("1 1 0:1 / {} rw - cgroup cgroup rw,{controller}\n", root.display());
        let limits = HostLimits::of_v1(&(line("cpuset") + &line("memory")));
        assert_eq!((limits.cpus.as_str(), limits.mems.as_str()), ("0-1", "0"));
        assert_eq!(limits.known, [Limit::Memory, Limit::Swappiness, Limit::Cpuset].into());

        std::fs::create_dir_all(root.join("own/part")).unwrap();
        std::fs::write(root.join("own/part/memory.swap.max"), "max").unwrap();
        std::fs::write(root.join("cpuset.cpus.effective"), "0-3\n").unwrap();
        let limits = HostLimits::of_v2(root, "cpuset memory pids\n", "0::/own/part\n");
        let expected = [Limit::Memory, Limit::Swap, Limit::Reservation, Limit::Pids, Limit::Cpuset];
        assert_eq!((limits.known, limits.cpus.as_str()), (expected.into(), "0-3"));
        assert!(!HostLimits::of_v2(root, "memory", "0::/\n").can(Limit::Swap));
    }

    #[test]
    fn this_machine_has_limits() {
        let limits = HostLimits::current();
        assert!(limits.can(Limit::Memory) && limits.cpu_count > 0 && !limits.cpus.is_empty(), "{limits:?}");
    }
}
