//! Unpacks the tar of one layer into the layer's own directory, in overlayfs' terms: `.wh.name` becomes a character
//! device 0/0, `.wh..wh..opq` the attribute `trusted.overlay.opaque`.
//!
//! The directory is new, nobody else writes there, and it is thrown away if anything fails.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::root::{InnerPath, Root, is_directory, is_whiteout, lstat_at, make_whiteout, proc_path, remove_tree};
use super::tar::{Entry, EntryKind, TarError, TarReader};
use crate::UnpackLimits;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
const OVERLAY_XATTR_PREFIX: &[u8] = b"trusted.overlay.";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
const COPY_BUFFER_BYTES: usize = 128 << 10;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is damaged or exceeds a limit.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry wants what no honest archive wants.
    #[error("{path}: {reason}")]
    Hostile {
        /// The entry.
        path: String,
        /// What it wants.
        reason: &'static str,
    },
    /// The disk or kernel refused.
    #[error("{path}: {operation}")]
    Io {
        /// The entry.
        path: String,
        /// What was being done.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Unpacks `archive` into `target`, an empty directory. `lower` are the directories of the layers below, topmost
/// first: a directory that the archive implies without naming it gets its owner and mode from there. Returns the
/// bytes of all files and symbolic links.
pub fn unpack_layer(
    archive: impl Read,
    target: &Path,
    lower: &[PathBuf],
    limits: UnpackLimits,
) -> Result<u64, UnpackError> {
    let open = |path: &Path| {
        Root::open(path).map_err(|errno| UnpackError::Io {
            path: path.display().to_string(),
            operation: "open directory",
            source: errno.into(),
        })
    };
    let root = open(target)?;
    let lower = lower.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    let mut unpacker = Unpacker {
        root,
        lower,
        limits,
        parent: None,
        directory_times: Vec::new(),
        bytes: 0,
        buffer: vec![0; COPY_BUFFER_BYTES],
    };
    let mut tar = TarReader::new(archive, limits);
    while let Some(entry) = tar.next_entry()? {
        unpacker.entry(&entry, &mut tar)?;
    }
    unpacker.set_directory_times()?;
    // what follows the end still counts for the digest
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(TarError::Io)?;
    Ok(unpacker.bytes)
}

struct Unpacker {
    root: Root,
    lower: Vec<Root>,
    limits: UnpackLimits,
    /// The parent directory of the entry before; most entries share it.
    parent: Option<(InnerPath, OwnedFd)>,
    directory_times: Vec<(InnerPath, (i64, u32))>,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, data: &mut TarReader<impl Read>) -> Result<(), UnpackError> {
        let path =
            InnerPath::clean(&entry.path).ok_or_else(|| hostile(entry, "leads out of the layer or is too deep"))?;
        let Some((parent_path, name)) = path.split_last() else { return self.root_entry(entry) };
        if name.len() > 255 {
            return Err(hostile(entry, "name is too long"));
        }
        let parent = self.ensure_parent(&parent_path).map_err(|errno| failed(entry, "make parent directory", errno))?;
        let result = self.entry_at(entry, data, &path, &parent, name);
        if self.parent.is_none() && entry.kind != EntryKind::Symlink {
            self.parent = Some((parent_path, parent));
        }
        result
    }

    /// The entry of the layer's own root: only its attributes count.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != EntryKind::Directory {
            return Err(hostile(entry, "replaces the root"));
        }
        let root = self.root.fd().try_clone_to_owned().map_err(|source| UnpackError::Io {
            path: lossy(&entry.path),
            operation: "duplicate descriptor",
            source,
        })?;
        self.set_attributes(entry, &root, OsStr::new("."))?;
        self.directory_times.push((InnerPath::default(), entry.mtime));
        Ok(())
    }

    fn entry_at(
        &mut self,
        entry: &Entry,
        data: &mut TarReader<impl Read>,
        path: &InnerPath,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), UnpackError> {
        if let Some(removed) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            return self.whiteout(entry, parent, name, OsStr::from_bytes(removed));
        }
        let opaque = self.make_room(entry, parent, name)?;
        match entry.kind {
            EntryKind::Directory => self.make_directory(entry, path, parent, name)?,
            EntryKind::File => self.make_file(entry, data, parent, name)?,
            EntryKind::HardLink => return self.make_hard_link(entry, parent, name),
            EntryKind::Symlink => {
                self.parent = None;
                symlinkat(OsStr::from_bytes(&entry.link), parent, name)
                    .map_err(|errno| failed(entry, "make symbolic link", errno))?;
                // its size on disk, which dockerd counts
                self.count(entry.link.len() as u64)?;
            }
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => self.make_node(entry, parent, name)?,
        }
        if opaque && entry.kind == EntryKind::Directory {
            set_opaque(parent, name).map_err(|source| io_failed(entry, "mark as opaque", source))?;
        }
        if entry.kind != EntryKind::File {
            self.set_attributes(entry, parent, name)?;
        }
        Ok(())
    }

    /// Removes what an earlier entry put in the place. True if that was a whiteout.
    fn make_room(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<bool, UnpackError> {
        let stat = lstat_at(parent, name).map_err(|errno| failed(entry, "look", errno))?;
        let Some(stat) = stat else { return Ok(false) };
        if entry.kind == EntryKind::Directory && is_directory(&stat) {
            return Ok(false);
        }
        self.parent = None;
        remove_tree(parent, name).map_err(|errno| failed(entry, "remove", errno))?;
        Ok(is_whiteout(&stat))
    }

    fn whiteout(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr, removed: &OsStr) -> Result<(), UnpackError> {
        if name.as_bytes() == OPAQUE_NAME {
            return set_opaque(parent, OsStr::new(".")).map_err(|source| io_failed(entry, "mark as opaque", source));
        }
        if name.as_bytes().starts_with(WHITEOUT_META_PREFIX) {
            return Ok(());
        }
        if matches!(removed.as_bytes(), b"" | b"." | b"..") {
            return Err(hostile(entry, "removes what has no name"));
        }
        // A whiteout speaks of the layers below: what this layer itself has stays, and hides what is below it.
        match lstat_at(parent, removed).map_err(|errno| failed(entry, "look", errno))? {
            None => make_whiteout(parent, removed).map_err(|errno| failed(entry, "make whiteout", errno)),
            Some(stat) if is_directory(&stat) => {
                set_opaque(parent, removed).map_err(|source| io_failed(entry, "mark as opaque", source))
            }
            Some(_) => Ok(()),
        }
    }

    fn make_directory(
        &mut self,
        entry: &Entry,
        path: &InnerPath,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), UnpackError> {
        match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(entry, "make directory", errno)),
        }
        self.directory_times.push((path.clone(), entry.mtime));
        Ok(())
    }

    /// Adds to the layer's size, which has a limit.
    fn count(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes_max {
            return Err(TarError::Limit { what: "bytes", limit: self.limits.bytes_max }.into());
        }
        Ok(())
    }

    fn make_file(
        &mut self,
        entry: &Entry,
        data: &mut TarReader<impl Read>,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), UnpackError> {
        self.count(entry.size)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(parent, name, flags, Mode::from_bits_truncate(0o600))
            .map_err(|errno| failed(entry, "create file", errno))?;
        let mut file = File::from(fd);
        match &entry.sparse {
            None => self.copy(entry, data, &mut file, entry.size)?,
            Some(segments) => {
                for (offset, length) in segments {
                    file.seek(SeekFrom::Start(*offset)).map_err(|source| io_failed(entry, "seek", source))?;
                    self.copy(entry, data, &mut file, *length)?;
                }
                file.set_len(entry.size).map_err(|source| io_failed(entry, "set length", source))?;
            }
        }
        self.set_attributes(entry, parent, name)
    }

    fn copy(
        &mut self,
        entry: &Entry,
        data: &mut TarReader<impl Read>,
        file: &mut File,
        length: u64,
    ) -> Result<(), UnpackError> {
        let mut left = length;
        while left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match data.read(&mut self.buffer[..wanted]) {
                Ok(0) => return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into()).into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TarError::Io(error).into()),
            };
            file.write_all(&self.buffer[..count]).map_err(|source| io_failed(entry, "write", source))?;
            left -= count as u64;
        }
        Ok(())
    }

    fn make_hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<(), UnpackError> {
        let target = InnerPath::clean(&entry.link).ok_or_else(|| hostile(entry, "links out of the layer"))?;
        let Some((directory, target_name)) = target.split_last() else {
            return Err(hostile(entry, "links to the root"));
        };
        let directory = self.root.directory(&directory).map_err(|errno| failed(entry, "find link target", errno))?;
        linkat(&directory, target_name, parent, name, AtFlags::empty())
            .map_err(|errno| failed(entry, "make hard link", errno))
    }

    fn make_node(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<(), UnpackError> {
        let kind = match entry.kind {
            EntryKind::CharDevice => SFlag::S_IFCHR,
            EntryKind::BlockDevice => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        let (major, minor) = entry.device;
        if major > 0xfff || minor > 0xf_ffff {
            return Err(hostile(entry, "has an impossible device number"));
        }
        mknodat(parent, name, kind, Mode::from_bits_truncate(0o600), makedev(major, minor))
            .map_err(|errno| failed(entry, "make device or pipe", errno))
    }

    /// Owner first, for it clears set-user-id bits and capabilities; the time last.
    fn set_attributes(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<(), UnpackError> {
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(entry.uid), id(entry.gid)) else {
            return Err(hostile(entry, "has an impossible owner"));
        };
        fchownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| failed(entry, "set owner", errno))?;
        if entry.kind != EntryKind::Symlink {
            fchmodat(parent, name, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)
                .map_err(|errno| failed(entry, "set mode", errno))?;
        }
        for (key, value) in &entry.xattrs {
            if key.starts_with(OVERLAY_XATTR_PREFIX) {
                return Err(hostile(entry, "sets overlayfs' own attributes"));
            }
            match xattr::set(proc_path(parent, name), OsStr::from_bytes(key), value) {
                Ok(()) => {}
                // As dockerd: a file system without such attributes, or one that reserves them, is no obstacle.
                Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => {}
                Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) && key.starts_with(b"user.") => {}
                Err(source) => return Err(io_failed(entry, "set extended attribute", source)),
            }
        }
        if entry.kind == EntryKind::Directory {
            return Ok(());
        }
        set_time(parent, name, entry.mtime).map_err(|errno| failed(entry, "set time", errno))
    }

    /// The directory at `path`, made where it is missing.
    fn ensure_parent(&mut self, path: &InnerPath) -> Result<OwnedFd, Errno> {
        match self.parent.take() {
            Some((known, fd)) if known == *path => return Ok(fd),
            _ => {}
        }
        match self.root.directory(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            other => return other,
        }
        let mut directory = self.root.directory(&InnerPath::default())?;
        for (index, name) in path.components().iter().enumerate() {
            let prefix = path.prefix(index + 1);
            directory = match self.root.directory(&prefix) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    self.make_implied(&directory, name, &prefix)?;
                    self.root.directory(&prefix)?
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    /// A directory that the archive takes for granted: as in the layers below, or root's with mode 755.
    fn make_implied(&self, directory: &OwnedFd, name: &OsString, path: &InnerPath) -> Result<(), Errno> {
        let replaces_whiteout = match lstat_at(directory, name)? {
            Some(stat) if is_whiteout(&stat) => {
                unlinkat(directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
                true
            }
            _ => false,
        };
        mkdirat(directory, name.as_os_str(), Mode::from_bits_truncate(0o755))?;
        if replaces_whiteout {
            return set_opaque(directory, name).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        }
        let below = self.lower.iter().find_map(|lower| lower.stat(path).ok());
        copy_directory_attributes(directory, name, below.filter(is_directory))
    }

    fn set_directory_times(&mut self) -> Result<(), UnpackError> {
        for (path, mtime) in self.directory_times.drain(..).rev() {
            let failed = |errno: Errno| UnpackError::Io {
                path: path.to_path().display().to_string(),
                operation: "set time",
                source: errno.into(),
            };
            match self.root.directory(&path) {
                Ok(fd) => set_time(&fd, OsStr::new("."), mtime).map_err(failed)?,
                // replaced by a later entry
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }
}

/// Gives a new directory the owner and mode of `below`; root's with mode 755 without it.
pub(crate) fn copy_directory_attributes(
    directory: &OwnedFd,
    name: &OsStr,
    below: Option<nix::sys::stat::FileStat>,
) -> Result<(), Errno> {
    let (uid, gid, mode) = below.map_or((0, 0, 0o755), |stat| (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777));
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchownat(directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    fchmodat(directory, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
}

fn set_opaque(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    xattr::set(proc_path(directory, name), OPAQUE_XATTR, b"y")
}

fn set_time(directory: &OwnedFd, name: &OsStr, (seconds, nanos): (i64, u32)) -> Result<(), Errno> {
    let time = TimeSpec::new(seconds, i64::from(nanos));
    utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

fn lossy(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 256;
    OsString::from_vec(bytes[..bytes.len().min(SHOWN_MAX)].to_vec()).display().to_string()
}

fn hostile(entry: &Entry, reason: &'static str) -> UnpackError {
    UnpackError::Hostile { path: lossy(&entry.path), reason }
}

fn failed(entry: &Entry, operation: &'static str, errno: Errno) -> UnpackError {
    io_failed(entry, operation, errno.into())
}

fn io_failed(entry: &Entry, operation: &'static str, source: io::Error) -> UnpackError {
    UnpackError::Io { path: lossy(&entry.path), operation, source }
}
