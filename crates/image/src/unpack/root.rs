//! A directory tree that no path leads out of.
//!
//! Every path is resolved by the kernel with `RESOLVE_IN_ROOT` against the tree's own descriptor, as if after a
//! chroot: absolute names, `..` and symbolic links of the tree itself stay inside. Changes are made by name in the
//! directory so found and never follow a link in the last place.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Components of one path.
const DEPTH_MAX: usize = 512;

/// A path within a tree: no empty, `.` or `..` components. Empty is the root of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InnerPath(Vec<OsString>);

impl InnerPath {
    /// Cleans a path of an archive lexically; `None` if it leads above the root or is too deep.
    pub(crate) fn clean(raw: &[u8]) -> Option<Self> {
        let mut components: Vec<OsString> = Vec::new();
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    components.pop()?;
                }
                name => components.push(OsString::from_vec(name.to_vec())),
            }
        }
        (components.len() <= DEPTH_MAX).then_some(Self(components))
    }

    pub(crate) fn split_last(&self) -> Option<(InnerPath, &OsStr)> {
        let (last, parents) = self.0.split_last()?;
        Some((Self(parents.to_vec()), last))
    }

    pub(crate) fn components(&self) -> &[OsString] {
        &self.0
    }

    /// As a path for the kernel, relative; `.` for the root.
    pub(crate) fn to_path(&self) -> PathBuf {
        if self.0.is_empty() { PathBuf::from(".") } else { self.0.iter().collect() }
    }

    pub(crate) fn prefix(&self, count: usize) -> Self {
        Self(self.0[..count].to_vec())
    }
}

/// An open tree.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens the directory that is the root of a tree.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { fd: nix::fcntl::open(path, flags, Mode::empty())? })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens what `path` leads to inside the tree.
    pub(crate) fn open_in(&self, path: &InnerPath, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.fd, &path.to_path(), how)
    }

    /// The directory at `path`.
    pub(crate) fn directory(&self, path: &InnerPath) -> Result<OwnedFd, Errno> {
        self.open_in(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// What is at `path`, not following a link in the last place.
    pub(crate) fn stat(&self, path: &InnerPath) -> Result<FileStat, Errno> {
        let fd = self.open_in(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        nix::sys::stat::fstat(&fd)
    }
}

/// `lstat` by name in an open directory; `None` if nothing is there.
pub(crate) fn lstat_at(directory: &OwnedFd, name: &OsStr) -> Result<Option<FileStat>, Errno> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

pub(crate) fn is_directory(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFDIR
}

/// Whether this is overlayfs' mark of a removed name.
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

pub(crate) fn make_whiteout(directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    mknodat(directory, name, SFlag::S_IFCHR, Mode::empty(), 0)
}

/// A path that reaches `name` in an open directory, for calls that take no descriptor.
pub(crate) fn proc_path(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(name);
    path
}

/// Removes `name` and all below it, never following a link.
pub(crate) fn remove_tree(directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::openat(directory, name, flags, Mode::empty())?;
    let mut list = nix::dir::Dir::from_fd(fd.try_clone().map_err(|_| Errno::EMFILE)?)?;
    let names: Vec<OsString> = list
        .iter()
        .map(|entry| entry.map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_os_string()))
        .filter(|name| !matches!(name, Ok(name) if name == "." || name == ".."))
        .collect::<Result<_, _>>()?;
    drop(list);
    for child in names {
        remove_tree(&fd, &child)?;
    }
    unlinkat(directory, name, UnlinkatFlags::RemoveDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_never_lead_out() {
        for (raw, expected) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("a/../b", Some("b")),
            ("", Some(".")),
            ("./", Some(".")),
            ("..", None),
            ("a/../../b", None),
            ("/..", None),
        ] {
            let got = InnerPath::clean(raw.as_bytes()).map(|path| path.to_path());
            assert_eq!(got.as_deref(), expected.map(Path::new), "{raw}");
        }
        assert_eq!(InnerPath::clean("a/".repeat(DEPTH_MAX + 1).as_bytes()), None);
    }
}
