//! Learns when the kernel kills in the container's cgroup for want of memory: by an eventfd on `memory.oom_control` with
//! cgroup v1, by `POLLPRI` on `memory.events` with v2. Both have a counter `oom_kill`, which decides.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Bytes of a counter file; the real ones have about a hundred.
const COUNTERS_BYTES: usize = 512;

/// Watches one cgroup.
pub(crate) struct OomWatch {
    /// v1: `memory.oom_control`, v2: `memory.events`.
    counters: File,
    /// v1: becomes readable at an event.
    bell: Option<EventFd>,
    kills: u64,
}

impl OomWatch {
    /// Watches `directory`, or the memory cgroup of `pid`.
    pub(crate) fn open(directory: Option<&Path>, pid: i32) -> io::Result<OomWatch> {
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => cgroup_of(
                &fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
                &fs::read_to_string("/proc/self/mountinfo")?,
            )
            .ok_or_else(|| io::Error::other("the process has no memory cgroup"))?,
        };
        match File::open(directory.join("memory.oom_control")) {
            Ok(counters) => {
                let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
                let order = format!("{} {}", bell.as_fd().as_raw_fd(), counters.as_raw_fd());
                // Without the bell (kernels may lack it) the counter tells at the end.
                let rings = fs::write(directory.join("cgroup.event_control"), order).is_ok();
                Ok(OomWatch { kills: kills_in(&counters), counters, bell: rings.then_some(bell) })
            }
            Err(_) => {
                let counters = File::open(directory.join("memory.events"))?;
                Ok(OomWatch { kills: kills_in(&counters), counters, bell: None })
            }
        }
    }

    /// What to poll, and for what.
    pub(crate) fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.bell {
            Some(bell) => (bell.as_fd(), PollFlags::POLLIN),
            None => (self.counters.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Whether there was a kill since the last question.
    pub(crate) fn killed_since(&mut self) -> bool {
        if let Some(bell) = &self.bell {
            // Only to silence it.
            let _ = bell.read();
        }
        let kills = kills_in(&self.counters);
        let more = kills > self.kills;
        self.kills = self.kills.max(kills);
        more
    }
}

fn kills_in(counters: &File) -> u64 {
    let mut text = [0; COUNTERS_BYTES];
    let length = counters.read_at(&mut text, 0).unwrap_or(0);
    parse_kills(&text[..length])
}

fn parse_kills(counters: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(counters);
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// The directory of the memory cgroup (v1), else of the cgroup (v2), that `/proc/<pid>/cgroup` names.
fn cgroup_of(cgroups: &str, mountinfo: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        if controllers.split(',').any(|name| name == "memory") {
            return below_mount(mountinfo, path, |kind, options| {
                kind == "cgroup" && options.split(',').any(|option| option == "memory")
            });
        }
        if controllers.is_empty() {
            unified = Some(path);
        }
    }
    below_mount(mountinfo, unified?, |kind, _| kind == "cgroup2")
}

/// Where the cgroup `path` is mounted, by the mount that `wanted` (type, super options) accepts.
fn below_mount(mountinfo: &str, path: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut rest = rest.split(' ');
        let (kind, options) = (rest.next()?, rest.nth(1)?);
        if !wanted(kind, options) {
            return None;
        }
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu
32 30 0:28 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_cgroup_is_found() {
        for (cgroups, expected) in [
            ("4:memory:/docker/x/c1\n3:cpu:/c1\n0::/c1\n", Some("/sys/fs/cgroup/memory/c1")),
            ("3:cpu:/c1\n0::/a/c1\n", Some("/sys/fs/cgroup/unified/a/c1")),
            ("4:memory:/elsewhere\n", None),
            ("", None),
        ] {
            assert_eq!(cgroup_of(cgroups, MOUNTS), expected.map(PathBuf::from), "{cgroups:?}");
        }
    }

    #[test]
    fn counters_are_read() {
        assert_eq!(parse_kills(b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(parse_kills(b"low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(parse_kills(b""), 0);
    }
}
