//! Makes a container's working directory where the image has none, as dockerd does: in the container's own layer, with mode
//! 0755, following links as the container would and never leaving its root filesystem.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

use crate::EngineError;

/// Makes sure that `directory`, absolute in the container, is there. Blocking.
pub(crate) fn ensure(rootfs: &Path, directory: &str) -> Result<(), EngineError> {
    let failed =
        |error: io::Error| EngineError::internal(format!("failed to create working directory {directory:?}: {error}"));
    let root = File::open(rootfs).map_err(failed)?;
    let mut parent = open(&root, Path::new("/")).map_err(|error| failed(error.into()))?;
    let mut so_far = PathBuf::from("/");
    for component in Path::new(directory).components() {
        match component {
            Component::Normal(name) => so_far.push(name),
            Component::ParentDir => drop(so_far.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        }
        let found = match (open(&root, &so_far), component) {
            (Err(Errno::ENOENT), Component::Normal(name)) => {
                mkdirat(&parent, name, Mode::from_bits_truncate(0o755)).map_err(|error| failed(error.into()))?;
                open(&root, &so_far)
            }
            (found, _) => found,
        };
        parent = found.map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

fn open(root: &File, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn directories_are_made_inside_only() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        std::os::unix::fs::symlink("/real", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../../..", root.join("up")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        ensure(&root, "/a/b/../c").unwrap();
        assert!(root.join("a/c").is_dir());
        ensure(&root, "/link/x").unwrap();
        assert!(root.join("real/x").is_dir());
        ensure(&root, "/up/y").unwrap();
        assert!(root.join("y").is_dir(), "the way up ends at the root");
        assert!(!outer.path().join("y").exists());
        assert!(ensure(&root, "/file/z").is_err());
        ensure(&root, "/").unwrap();
    }
}
