//! What `GET /info` says of the machine, read from `/proc` and `/sys`.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use docker_types::system::Info;
use docker_types::time;

const V2_CONTROLLERS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// A file's text, "" if it cannot be read.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of `name` in lines of `name<separator>value`.
fn value<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key == name).then(|| value.trim().trim_matches('"'))
    })
}

/// The kernel's release.
pub(crate) fn kernel_version() -> String {
    text("/proc/sys/kernel/osrelease").trim().to_owned()
}

/// Fills in what the machine is and can; adds a warning for each limit that it cannot set.
pub fn fill(info: &mut Info) {
    let os_release = text("/etc/os-release");
    info.name = text("/proc/sys/kernel/hostname").trim().to_owned();
    info.kernel_version = kernel_version();
    value(&os_release, "PRETTY_NAME", '=').unwrap_or("Linux").clone_into(&mut info.operating_system);
    if is_containerized(&text("/proc/1/cgroup")) {
        info.operating_system.push_str(" (containerized)");
    }
    value(&os_release, "VERSION_ID", '=').unwrap_or_default().clone_into(&mut info.os_version);
    "linux".clone_into(&mut info.os_type);
    std::env::consts::ARCH.clone_into(&mut info.architecture);
    info.ncpu = std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1));
    info.mem_total = memory_bytes(&text("/proc/meminfo"));
    info.ipv4_forwarding = text("/proc/sys/net/ipv4/ip_forward").trim() == "1";
    info.n_fd = count("/proc/self/fd");
    info.n_goroutines = count("/proc/self/task");
    info.system_time = time::format(now());
    fill_limits(info);
    if Path::new("/proc/sys/kernel/seccomp").exists() {
        info.security_options.push("name=seccomp,profile=builtin".to_owned());
    }
    if info.cgroup_version == "2" {
        info.security_options.push("name=cgroupns".to_owned());
    }
}

fn now() -> model::Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    model::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

fn count(directory: &str) -> i64 {
    fs::read_dir(directory).map_or(-1, |entries| i64::try_from(entries.count()).unwrap_or(-1))
}

/// `MemTotal` in bytes.
fn memory_bytes(meminfo: &str) -> i64 {
    let kilobytes = value(meminfo, "MemTotal", ':').and_then(|total| total.strip_suffix(" kB"));
    kilobytes.and_then(|number| number.parse::<i64>().ok()).unwrap_or_default() * 1024
}

fn fill_limits(info: &mut Info) {
    let v2 = Path::new(V2_CONTROLLERS).exists();
    let controllers = if v2 { text(V2_CONTROLLERS) } else { v1_controllers(&text("/proc/cgroups")) };
    let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
    let has_file = |path: &str| Path::new("/sys/fs/cgroup").join(path).exists();
    info.cgroup_version = if v2 { "2" } else { "1" }.to_owned();
    "cgroupfs".clone_into(&mut info.cgroup_driver);
    info.memory_limit = has("memory");
    info.swap_limit = info.memory_limit && (v2 || has_file("memory/memory.memsw.limit_in_bytes"));
    info.oom_kill_disable = !v2 && has_file("memory/memory.oom_control");
    info.cpu_shares = has("cpu");
    info.cpu_cfs_quota = has("cpu") && (v2 || has_file("cpu/cpu.cfs_quota_us"));
    info.cpu_cfs_period = info.cpu_cfs_quota;
    info.cpu_set = has("cpuset");
    info.pids_limit = has("pids");
    let warnings = [
        (info.memory_limit, "WARNING: No memory limit support"),
        (info.swap_limit, "WARNING: No swap limit support"),
        (info.oom_kill_disable || v2, "WARNING: No oom kill disable support"),
        (info.cpu_cfs_quota, "WARNING: No cpu cfs quota support"),
        (info.cpu_cfs_period, "WARNING: No cpu cfs period support"),
        (info.cpu_shares, "WARNING: No cpu shares support"),
        (info.cpu_set, "WARNING: No cpuset support"),
        (info.ipv4_forwarding, "WARNING: IPv4 forwarding is disabled"),
    ];
    let missing = warnings.iter().filter(|(there, _)| !there).map(|(_, warning)| (*warning).to_owned());
    info.warnings = Some(missing.collect());
}

/// Whether the first process is in a cgroup of somebody's making, as in a container.
fn is_containerized(cgroups: &str) -> bool {
    cgroups.lines().any(|line| !line.is_empty() && !line.ends_with(":/") && !line.ends_with(":/init.scope"))
}

/// What dockerd's overlay2 says of itself.
pub(crate) fn overlay_status(data_root: &Path) -> Vec<[String; 2]> {
    let is_on = |parameter| text(&format!("/sys/module/overlay/parameters/{parameter}")).trim() == "Y";
    let metacopy = is_on("metacopy");
    let rows = [
        ("Backing Filesystem", backing_filesystem(data_root).to_owned()),
        // the image store refuses a file system without it
        ("Supports d_type", true.to_string()),
        ("Using metacopy", metacopy.to_string()),
        // with either of them an upper directory alone does not tell what has changed
        ("Native Overlay Diff", (!metacopy && !is_on("redirect_dir")).to_string()),
        ("userxattr", false.to_string()),
    ];
    rows.map(|(key, value)| [key.to_owned(), value]).to_vec()
}

/// dockerd's name for a file system.
fn backing_filesystem(path: &Path) -> &'static str {
    use nix::sys::statfs;
    let kind = statfs::statfs(path).map(|found| found.filesystem_type());
    match kind {
        Ok(statfs::EXT4_SUPER_MAGIC) => "extfs",
        Ok(statfs::XFS_SUPER_MAGIC) => "xfs",
        Ok(statfs::BTRFS_SUPER_MAGIC) => "btrfs",
        Ok(statfs::OVERLAYFS_SUPER_MAGIC) => "overlayfs",
        Ok(statfs::TMPFS_MAGIC) => "tmpfs",
        Ok(statfs::NFS_SUPER_MAGIC) => "nfs",
        _ => "<unknown>",
    }
}

/// Names of the controllers that are on, from `/proc/cgroups`.
fn v1_controllers(table: &str) -> String {
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let on = rows.filter_map(|row| {
        let columns: Vec<_> = row.split_whitespace().collect();
        (columns.last() == Some(&"1")).then(|| columns[0])
    });
    on.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:        2048 kB\n"), 2_097_152);
        assert_eq!(memory_bytes("nothing"), 0);
        assert_eq!(value("A=1\nPRETTY_NAME=\"X 1\"\n", "PRETTY_NAME", '='), Some("X 1"));
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t0\t1\t0\n";
        assert_eq!(v1_controllers(table), "cpu");
    }

    #[test]
    fn containers_are_told_by_their_cgroup() {
        for (cgroups, contained) in [
            ("0::/\n", false),
            ("0::/init.scope\n", false),
            ("12:pids:/\n1:name=systemd:/init.scope\n", false),
            ("0::/docker/abc\n", true),
            ("12:pids:/\n1:name=systemd:/lxc/a\n", true),
        ] {
            assert_eq!(is_containerized(cgroups), contained, "{cgroups:?}");
        }
    }

    #[test]
    fn this_machine_is_described() {
        let mut info = Info::default();
        fill(&mut info);
        assert!(info.ncpu >= 1 && info.mem_total > 0 && !info.kernel_version.is_empty());
        assert!(matches!(info.cgroup_version.as_str(), "1" | "2"));
    }
}
