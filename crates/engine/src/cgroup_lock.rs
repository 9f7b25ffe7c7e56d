//! The kernel's lock for moving processes between cgroups, asked for ahead.
//!
//! A runtime moves each container's first process into its cgroup. For that the kernel takes one lock of the whole machine
//! (`cgroup_threadgroup_rwsem`), and whoever takes it after a while of rest waits for an RCU grace period first: some ten
//! milliseconds at 250 Hz, the largest single part of a start. Moves that follow within about twenty milliseconds find it
//! over. So a start begins with such a move, and the wait passes beside mounts, network and the start of the shim.
//! The move changes nothing: the daemon goes into the cgroup that it is in. Nor does it matter if it fails.
//!
//! Caller: the container's owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// After a move another one is of no use for so long.
const FRESH: Duration = Duration::from_millis(10);

/// When the lock was last asked for.
#[derive(Debug, Default)]
pub(crate) struct CgroupLock {
    asked: Mutex<Option<Instant>>,
}

impl CgroupLock {
    /// Whether it is time to ask again; if so, whoever asks must [`take`] it.
    pub(crate) fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if asked.is_some_and(|at| now.duration_since(at) < FRESH) {
            return false;
        }
        *asked = Some(now);
        true
    }
}

/// Takes the lock and gives it back. Blocking.
pub(crate) fn take() {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(file) = own_list(&text, Path::new("/sys/fs/cgroup")) {
        // A cgroup that is read-only for us has no effect here, and the start fails or succeeds by itself.
        fs::write(file, "0").ok();
    }
}

/// The file that lists the processes of our own cgroup, in the first hierarchy that is mounted where it is expected.
fn own_list(cgroups: &str, mount: &Path) -> Option<PathBuf> {
    let paths = cgroups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        // v2 has no names, a hierarchy without a controller is mounted under its own name.
        let hierarchy = controllers.strip_prefix("name=").unwrap_or(controllers);
        Some(mount.join(hierarchy).join(path.trim_start_matches('/')).join("cgroup.procs"))
    });
    paths.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found() {
        let mount = tempfile::tempdir().unwrap();
        let make = |dir: &str| {
            fs::create_dir_all(mount.path().join(dir)).unwrap();
            fs::write(mount.path().join(dir).join("cgroup.procs"), "").unwrap();
        };
        let found =
            |text: &str| own_list(text, mount.path()).map(|path| path.strip_prefix(mount.path()).unwrap().to_owned());
        assert_eq!(found("0::/a/b\n"), None);
        make("a/b");
        assert_eq!(found("0::/a/b\n"), Some("a/b/cgroup.procs".into()));
        make("pids/c:d");
        assert_eq!(found("9:name=none:/x\n8:pids:/c:d\n0::/\n"), Some("pids/c:d/cgroup.procs".into()));
        assert_eq!(found("nonsense"), None);
    }

    #[test]
    fn it_is_not_asked_for_all_the_time() {
        let lock = CgroupLock::default();
        assert!(lock.is_due());
        assert!(!lock.is_due());
        *lock.asked.lock().unwrap() = Instant::now().checked_sub(FRESH);
        assert!(lock.is_due());
    }
}
