//! Network namespaces: made in a thread of their own, pinned by a bind mount, entered by short-lived threads only, so no
//! thread of the daemon ever stands in a foreign namespace.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
const OWN: &str = "/proc/thread-self/ns/net";

/// A handle of a network namespace.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// The thread's own.
    pub(crate) fn current() -> io::Result<Self> {
        Ok(Self(File::open(OWN)?.into()))
    }

    /// The one pinned at `path`; `None` if nothing, or something else, is there.
    pub(crate) fn pinned(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_namespace = fstatfs(&file)?.filesystem_type() == NSFS_MAGIC;
        Ok(is_namespace.then(|| Self(file.into())))
    }

    /// Makes a new one, pins it at `path`, and runs `inside` in it.
    pub(crate) fn create<T: Send>(path: &Path, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(Self, T)> {
        remove(path)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        OpenOptions::new().write(true).create_new(true).open(path)?;
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok((Self::current()?, inside()?))
        });
        if made.is_err() {
            remove(path)?;
        }
        made
    }

    /// A new one that is gone with the last handle of it.
    pub(crate) fn nameless() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })
    }

    /// Runs `inside` on a thread in this namespace.
    pub(crate) fn enter<T: Send>(&self, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_thread(|| {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)?;
            inside()
        })
    }

    /// The descriptor, for netlink attributes.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).stack_size(256 * 1024);
        match thread.spawn_scoped(scope, work)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Removes a pin and its file. `Ok` if there is none.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // not a mount point, or not there
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Sets `net.*` of the thread's namespace; `name` is with dots. A name the kernel does not have is not an error here.
pub(crate) fn set_sysctl_if_present(name: &str, value: &str) -> io::Result<()> {
    match set_sysctl(name, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Sets `net.*` of the thread's namespace; `name` is with dots.
pub(crate) fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    // a link name may hold dots; then the caller writes slashes, as sysctl(8) has it
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid sysctl {name}")));
    }
    let path = Path::new("/proc/sys").join(path);
    // what is already so is not written: /proc/sys may be read-only in a container
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}
