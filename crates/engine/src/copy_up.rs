//! Filling a new volume with what the image has at its place.
//!
//! The image's tree is read through descriptors that cannot leave the root filesystem, and written through descriptors of
//! the volume, so that a link planted by anyone leads nowhere.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use crate::EngineError;

/// Directories within directories.
const DEPTH_MAX: usize = 256;

/// Copies the tree at `inside` of the root filesystem into the empty directory `data`. Blocking.
pub(crate) fn copy_up(rootfs: &Path, inside: &str, data: &Path) -> Result<(), EngineError> {
    let failed = |error: io::Error| EngineError::io("copy the image's contents into", data, &error);
    if std::fs::read_dir(data).map_err(failed)?.next().is_some() {
        return Ok(());
    }
    let Some(source) = open_inside(rootfs, inside).map_err(failed)? else { return Ok(()) };
    let target = File::open(data).map_err(failed)?;
    copy_directory(source, target.as_fd(), 0).map_err(failed)
}

/// The directory at `inside`, if there is one. Links are followed as the container would.
fn open_inside(rootfs: &Path, inside: &str) -> io::Result<Option<OwnedFd>> {
    let root = File::open(rootfs)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&root, inside, how) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_directory(source: OwnedFd, target: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("too many directories within directories"));
    }
    let meta = fstat(&source)?;
    let mut list = Dir::from_fd(source)?;
    let mut names = Vec::new();
    for entry in list.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    for name in &names {
        copy_entry(list.as_fd(), target, name, depth)?;
    }
    copy_attributes(list.as_fd(), target)?;
    fchown(target, Some(Uid::from_raw(meta.st_uid)), Some(Gid::from_raw(meta.st_gid)))?;
    fchmod(target, mode_of(&meta))?;
    Ok(())
}

fn mode_of(meta: &FileStat) -> Mode {
    Mode::from_bits_truncate(meta.st_mode & 0o7777)
}

fn copy_entry(source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &CString, depth: usize) -> io::Result<()> {
    let meta = fstatat(source, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(meta.st_mode & SFlag::S_IFMT.bits());
    let (uid, gid) = (Some(Uid::from_raw(meta.st_uid)), Some(Gid::from_raw(meta.st_gid)));
    let no_follow = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(target, name.as_c_str(), Mode::S_IRWXU)?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | no_follow;
            let made = openat(target, name.as_c_str(), flags, Mode::empty())?;
            copy_directory(openat(source, name.as_c_str(), flags, Mode::empty())?, made.as_fd(), depth + 1)?;
        }
        SFlag::S_IFREG => {
            let mut from = File::from(openat(source, name.as_c_str(), OFlag::O_RDONLY | no_follow, Mode::empty())?);
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | no_follow;
            let mut to = File::from(openat(target, name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
            io::copy(&mut from, &mut to)?;
            fchown(&to, uid, gid)?;
            copy_attributes(from.as_fd(), to.as_fd())?;
            fchmod(&to, mode_of(&meta))?;
        }
        SFlag::S_IFLNK => {
            let link = readlinkat(source, name.as_c_str())?;
            symlinkat(link.as_os_str(), target, name.as_c_str())?;
            fchownat(target, name.as_c_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        // sockets belong to a process that is not there
        SFlag::S_IFSOCK => return Ok(()),
        _ => {
            mknodat(target, name.as_c_str(), kind, mode_of(&meta), meta.st_rdev)?;
            fchownat(target, name.as_c_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
    }
    let (accessed, changed) =
        (TimeSpec::new(meta.st_atime, meta.st_atime_nsec), TimeSpec::new(meta.st_mtime, meta.st_mtime_nsec));
    utimensat(target, name.as_c_str(), &accessed, &changed, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// Extended attributes that the target takes; overlayfs' own stay behind.
fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (source, target) = (path(source), path(target));
    let Ok(names) = xattr::list_deref(&source) else { return Ok(()) };
    for name in names.filter(|name| !name.to_string_lossy().starts_with("trusted.overlay.")) {
        if let Some(value) = xattr::get_deref(&source, &name)? {
            match xattr::set_deref(&target, &name, &value) {
                Err(error) if error.raw_os_error() != Some(Errno::EOPNOTSUPP as i32) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn the_tree_is_copied_once_and_links_do_not_lead_out() {
        let root = tempfile::tempdir().unwrap();
        let (rootfs, data) = (root.path().join("rootfs"), root.path().join("data"));
        fs::create_dir_all(rootfs.join("real/sub")).unwrap();
        fs::create_dir(&data).unwrap();
        fs::write(rootfs.join("real/sub/file"), "text").unwrap();
        std::os::unix::fs::chown(rootfs.join("real/sub/file"), Some(7), Some(8)).unwrap();
        fs::set_permissions(rootfs.join("real/sub/file"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(rootfs.join("real"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", rootfs.join("real/link")).unwrap();
        symlink("/real", rootfs.join("alias")).unwrap();
        symlink("../../../../etc", rootfs.join("out")).unwrap();
        copy_up(&rootfs, "/out", &data).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "a link to outside is looked up inside");
        copy_up(&rootfs, "/alias", &data).unwrap();
        let meta = fs::metadata(data.join("sub/file")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o4755, 7, 8));
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("/etc/passwd"));
        fs::write(data.join("sub/file"), "changed").unwrap();
        copy_up(&rootfs, "/alias", &data).unwrap();
        assert_eq!(fs::read_to_string(data.join("sub/file")).unwrap(), "changed");
    }
}
