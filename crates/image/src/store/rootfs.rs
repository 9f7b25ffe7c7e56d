//! Root filesystems of containers: `overlay2/containers/<id>/{diff,work,merged,rootfs.json}`, above a layer with the
//! mount points that every container needs, `overlay2/init/<chain>/diff`, made once for each image.
//!
//! `rootfs.json` is what keeps the layers below from being removed; it is written before the directory gets its name.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use oci_types::Digest;
use serde::{Deserialize, Serialize};

use super::blobs::context;
use super::layers::Layers;
use crate::unpack::copy_directory_attributes;
use crate::unpack::root::{InnerPath, Root, is_directory};
use crate::{ImageError, Rootfs};

/// Bytes that mount(2) takes as options, with the final zero.
const MOUNT_OPTIONS_MAX: usize = 4095;
/// Layers of one image; dockerd's limit is 125.
pub(crate) const LAYERS_MAX: usize = 127;
const CONTAINER_ID_MAX: usize = 128;
/// Mount points that every container needs.
const INIT_DIRECTORIES: [&str; 5] = ["proc", "sys", "dev/pts", "dev/shm", "etc"];
/// Files that are bound over or that programs look for.
const INIT_FILES: [&str; 5] = [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// `rootfs.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RootfsFile {
    pub(crate) image_id: Digest,
    /// Chain ids, the base first.
    pub(crate) chains: Vec<Digest>,
    /// Short names, topmost first.
    pub(crate) links: Vec<String>,
}

impl Layers {
    fn container_directory(&self, container_id: &str) -> Result<PathBuf, ImageError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if container_id.is_empty()
            || container_id.len() > CONTAINER_ID_MAX
            || container_id.starts_with('.')
            || !container_id.bytes().all(word)
        {
            return Err(ImageError::InvalidParameter(format!("invalid container id {container_id:?}")));
        }
        Ok(self.root().join("containers").join(container_id))
    }

    /// The containers with a root filesystem.
    pub(crate) fn containers(&self) -> Result<Vec<String>, ImageError> {
        let directory = self.root().join("containers");
        let list = fs::read_dir(&directory).map_err(|error| ImageError::io(context("list", &directory), error))?;
        Ok(list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    pub(crate) fn rootfs_file(&self, container_id: &str) -> Result<RootfsFile, ImageError> {
        let path = self.container_directory(container_id)?.join("rootfs.json");
        let bytes = fs::read(&path).map_err(|error| ImageError::io(context("read", &path), error))?;
        serde_json::from_slice(&bytes).map_err(|error| ImageError::bad(path.display().to_string(), error))
    }

    pub(crate) fn rootfs(&self, container_id: &str) -> Result<Rootfs, ImageError> {
        let file = self.rootfs_file(container_id)?;
        let directory = self.container_directory(container_id)?;
        let layers = file.chains.iter().rev().map(|chain| self.diff(chain));
        Ok(Rootfs {
            container_id: container_id.to_string(),
            image_id: file.image_id,
            merged: directory.join("merged"),
            upper: directory.join("diff"),
            work: directory.join("work"),
            lower: std::iter::once(self.init_directory(file.chains.last()).join("diff")).chain(layers).collect(),
        })
    }

    /// Makes it, unless it is there. The caller keeps the layers from being removed meanwhile. Blocking.
    pub(crate) fn prepare(
        &self,
        container_id: &str,
        image_id: &Digest,
        chains: &[Digest],
    ) -> Result<Rootfs, ImageError> {
        let directory = self.container_directory(container_id)?;
        if directory.join("rootfs.json").exists() {
            return self.rootfs(container_id);
        }
        let link = |chain: &Digest| {
            self.info(chain).map(|info| info.link).ok_or_else(|| ImageError::bad(chain.to_string(), "layer is missing"))
        };
        let links = chains.iter().rev().map(link).collect::<Result<Vec<_>, _>>()?;
        let file = RootfsFile { image_id: image_id.clone(), chains: chains.to_vec(), links };
        let tmp = self.temporary();
        let make = || -> io::Result<()> {
            for name in ["diff", "work", "merged"] {
                fs::create_dir_all(tmp.join(name))?;
            }
            copy_attributes(&tmp.join("diff"), chains.last().map(|chain| self.diff(chain)))?;
            fs::write(tmp.join("rootfs.json"), serde_json::to_vec(&file)?)?;
            fs::rename(&tmp, &directory)
        };
        make().map_err(|error| {
            let _ = fs::remove_dir_all(&tmp);
            ImageError::io(context("make", &directory), error)
        })?;
        self.rootfs(container_id)
    }

    /// Mounts it in this process's mount namespace, unless it is. Blocking.
    pub(crate) fn mount(&self, container_id: &str) -> Result<Rootfs, ImageError> {
        let rootfs = self.rootfs(container_id)?;
        if is_mounted(&rootfs.merged) {
            return Ok(rootfs);
        }
        let mut file = self.rootfs_file(container_id)?;
        let failed = |error: io::Error| ImageError::io(context("mount", &rootfs.merged), error);
        file.links.insert(0, self.ensure_init(&file).map_err(failed)?);
        // the descriptor gives a short path that stays valid during the call
        let base = File::open(self.root()).map_err(failed)?;
        let absolute = self.root().to_str().filter(|path| !path.contains([':', ',', '\\']));
        let by_descriptor = format!("/proc/self/fd/{}", base.as_raw_fd());
        let options = absolute
            .map(|root| mount_options(root, container_id, &file.links))
            .filter(|options| options.len() <= MOUNT_OPTIONS_MAX)
            .unwrap_or_else(|| mount_options(&by_descriptor, container_id, &file.links));
        if options.len() > MOUNT_OPTIONS_MAX {
            return Err(ImageError::bad(file.image_id.to_string(), "max depth exceeded"));
        }
        mount(Some("overlay"), &rootfs.merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|errno| failed(errno.into()))?;
        Ok(rootfs)
    }

    fn init_directory(&self, top: Option<&Digest>) -> PathBuf {
        self.root().join("init").join(top.map_or("scratch", Digest::hex))
    }

    /// The layer with the mount points for this chain; answers with its short name.
    fn ensure_init(&self, file: &RootfsFile) -> io::Result<String> {
        let top = file.chains.last();
        let directory = self.init_directory(top);
        let name = format!("i{}", file.links.first().map_or("", String::as_str));
        let link = self.root().join("l").join(&name);
        if directory.exists() && link.exists() {
            return Ok(name);
        }
        let tmp = self.temporary();
        let diff = tmp.join("diff");
        fs::create_dir_all(&diff)?;
        copy_attributes(&diff, top.map(|chain| self.diff(chain)))?;
        let lower: Vec<PathBuf> = file.chains.iter().rev().map(|chain| self.diff(chain)).collect();
        fill_init(&diff, &lower)?;
        // somebody else may have been quicker: theirs is the same
        if fs::rename(&tmp, &directory).is_err() {
            fs::remove_dir_all(&tmp)?;
        }
        let target = Path::new("../init").join(top.map_or("scratch", Digest::hex)).join("diff");
        match symlink(target, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(name),
        }
    }

    /// Removes the layer with the mount points when its chain goes.
    pub(super) fn detach_init(&self, chain: &Digest, link: &str) {
        let _ = fs::remove_file(self.root().join("l").join(format!("i{link}")));
        let _ = fs::remove_dir_all(self.init_directory(Some(chain)));
    }

    /// Throws away mount points of before the machine's last start, which may not have reached the disk.
    pub(super) fn renew_init(&self, boot_id: &str) -> io::Result<()> {
        let directory = self.root().join("init");
        let mark = directory.join("boot_id");
        if fs::read_to_string(&mark).is_ok_and(|known| known == boot_id) {
            return Ok(());
        }
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&directory)?;
        fs::write(mark, boot_id)
    }

    /// Unmounts it, if it is mounted. Blocking.
    pub(crate) fn unmount(&self, container_id: &str) -> Result<(), ImageError> {
        let merged = self.container_directory(container_id)?.join("merged");
        match umount2(&merged, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
            Err(errno) => Err(ImageError::io(context("unmount", &merged), errno.into())),
        }
    }

    /// Unmounts and removes it, if it is there. Blocking.
    pub(crate) fn remove_rootfs(&self, container_id: &str) -> Result<(), ImageError> {
        let directory = self.container_directory(container_id)?;
        self.unmount(container_id)?;
        let trash = self.temporary();
        match fs::rename(&directory, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ImageError::io(context("remove", &directory), error)),
        }
        fs::remove_dir_all(&trash).map_err(|error| ImageError::io(context("remove", &trash), error))
    }

    /// Bytes of the container's own changes. Blocking.
    pub(crate) fn rootfs_size(&self, container_id: &str) -> Result<u64, ImageError> {
        let upper = self.container_directory(container_id)?.join("diff");
        tree_size(&upper).map_err(|error| ImageError::io(context("measure", &upper), error))
    }
}

fn mount_options(root: &str, container_id: &str, links: &[String]) -> String {
    let lower = links.iter().map(|link| format!("{root}/l/{link}")).collect::<Vec<_>>().join(":");
    let own = format!("{root}/containers/{container_id}");
    format!("lowerdir={lower},upperdir={own}/diff,workdir={own}/work")
}

fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    path.parent().is_some_and(|parent| device(path).is_some() && device(path) != device(parent))
}

/// Gives a new root the owner and mode of the one below.
fn copy_attributes(directory: &Path, below: Option<PathBuf>) -> io::Result<()> {
    let stat = below.map(|below| nix::sys::stat::lstat(&below)).transpose()?;
    let fd = Root::open(directory)?.directory(&InnerPath::default())?;
    Ok(copy_directory_attributes(&fd, OsStr::new("."), stat)?)
}

/// Makes the mount points that containers need, in the shape the image gives to their parents.
fn fill_init(directory: &Path, lower: &[PathBuf]) -> io::Result<()> {
    let upper = Root::open(directory)?;
    let lower = lower.iter().map(|path| Root::open(path)).collect::<Result<Vec<_>, Errno>>()?;
    let below = |path: &InnerPath| lower.iter().find_map(|root| root.stat(path).ok());
    let clean = |path: &str| InnerPath::clean(path.as_bytes()).expect("the lists hold plain paths");
    let make_directories = |path: &InnerPath| -> Result<bool, Errno> {
        for count in 1..=path.components().len() {
            let prefix = path.prefix(count);
            if below(&prefix).is_some_and(|stat| !is_directory(&stat)) {
                return Ok(false);
            }
            let (parent, name) = prefix.split_last().expect("count is at least one");
            let parent = upper.directory(&parent)?;
            match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => copy_directory_attributes(&parent, name, below(&prefix))?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    };
    for path in INIT_DIRECTORIES {
        if below(&clean(path)).is_none() {
            make_directories(&clean(path))?;
        }
    }
    for path in INIT_FILES {
        let path = clean(path);
        let (parent, name) = path.split_last().expect("the list holds names");
        if below(&path).is_some() || !make_directories(&parent)? {
            continue;
        }
        let parent = upper.directory(&parent)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&parent, name, flags, Mode::from_bits_truncate(0o755))?;
        drop(fd);
    }
    let mtab = clean("etc/mtab");
    if below(&mtab).is_none() && make_directories(&clean("etc"))? {
        let etc = upper.directory(&clean("etc"))?;
        symlink("/proc/mounts", crate::unpack::root::proc_path(&etc, OsStr::from_bytes(b"mtab")))?;
    }
    Ok(())
}

/// Bytes of everything but directories; what has several names counts once.
fn tree_size(directory: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut linked = HashSet::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        let list = match fs::read_dir(&directory) {
            Ok(list) => list,
            // the container runs and may remove what we look at
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in list.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.nlink() == 1 || linked.insert(metadata.ino()) {
                total += metadata.len();
            }
        }
    }
    Ok(total)
}
