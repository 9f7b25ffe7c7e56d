//! Mounts: dockerd's default ones and the container's own.
//!
//! Pure. Invariant: parents come before what is mounted below them. Caller: `spec::build`.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::{Ipc, SpecError, SpecInput};
use crate::spec::capabilities::Privilege;

/// Path of the program of `--init` in the container.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// A mount of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountInput {
    /// A file or directory of the host: binds, volumes, `/etc/hosts` and the like.
    Bind(Bind),
    /// A file system in memory.
    Tmpfs {
        /// Where, absolute.
        target: PathBuf,
        /// Options as given (`size=1m,mode=700`), after dockerd's `noexec,nosuid,nodev`, which they may take back.
        options: Vec<String>,
    },
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host, absolute; it must exist.
    pub source: PathBuf,
    /// In the container, absolute.
    pub target: PathBuf,
    /// Who may write.
    pub access: BindAccess,
    /// Whether mounts below the source come along.
    pub depth: BindDepth,
    /// Whether later mounts pass between host and container.
    pub propagation: Propagation,
}

/// Whether a bind mount may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindAccess {
    /// Read and write.
    #[default]
    ReadWrite,
    /// The mount itself is read-only; mounts below it stay as they are.
    ReadOnly,
    /// All below it are read-only too (kernel 5.12 and later).
    ReadOnlyRecursive,
}

/// How deep a bind mount reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindDepth {
    /// With the mounts below it.
    #[default]
    Recursive,
    /// Without them.
    Single,
}

/// Propagation of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// `private`.
    Private,
    /// `rprivate`, dockerd's default.
    #[default]
    RecursivePrivate,
    /// `shared`.
    Shared,
    /// `rshared`.
    RecursiveShared,
    /// `slave`.
    Slave,
    /// `rslave`.
    RecursiveSlave,
}

impl Propagation {
    /// The option's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Private => "private",
            Propagation::RecursivePrivate => "rprivate",
            Propagation::Shared => "shared",
            Propagation::RecursiveShared => "rshared",
            Propagation::Slave => "slave",
            Propagation::RecursiveSlave => "rslave",
        }
    }
}

impl MountInput {
    fn target(&self) -> &Path {
        match self {
            MountInput::Bind(bind) => &bind.target,
            MountInput::Tmpfs { target, .. } => target,
        }
    }
}

/// dockerd's default mounts: destination, type, source, options.
const DEFAULT: [(&str, &str, &str, &str); 7] = [
    ("/proc", "proc", "proc", "rw,nosuid,noexec,nodev"),
    ("/dev", "tmpfs", "tmpfs", "rw,nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "devpts", "rw,nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/sys", "sysfs", "sysfs", "ro,nosuid,noexec,nodev"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
    ("/dev/mqueue", "mqueue", "mqueue", "rw,nosuid,noexec,nodev"),
    ("/dev/shm", "tmpfs", "shm", "rw,nosuid,noexec,nodev,mode=1777"),
];

/// Mount points of the runtime that a read-only root leaves writable.
const WRITABLE: [&str; 5] = ["/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"];

/// All mounts, in order.
pub(super) fn mounts(input: &SpecInput) -> Result<Vec<Mount>, SpecError> {
    let mut own = input.mounts.clone();
    if let Some(shm) = input.ipc.shared_memory() {
        own.push(MountInput::Bind(Bind {
            source: shm.to_owned(),
            target: PathBuf::from("/dev/shm"),
            access: BindAccess::ReadWrite,
            depth: BindDepth::Recursive,
            propagation: Propagation::RecursivePrivate,
        }));
    }
    for device in input.devices.iter().filter(|device| !device.is_made()) {
        own.push(MountInput::Bind(Bind {
            source: device.source.clone(),
            target: device.path.clone(),
            access: BindAccess::ReadWrite,
            depth: BindDepth::Single,
            propagation: Propagation::default(),
        }));
    }
    for mount in &own {
        if !mount.target().is_absolute() {
            return Err(SpecError::MountTarget(mount.target().to_owned()));
        }
    }
    own.sort_by_key(|mount| mount.target().components().count());
    let taken = |path: &str| own.iter().any(|mount| mount.target() == Path::new(path));
    let mut all = Vec::new();
    for (destination, kind, source, options) in DEFAULT {
        let hidden = destination.starts_with("/dev/") && taken("/dev");
        let no_shm = destination == "/dev/shm" && input.ipc == Ipc::None;
        if taken(destination) || hidden || no_shm {
            continue;
        }
        let options = default_options(input, destination, options);
        all.push(mount(Path::new(destination), kind, Path::new(source), options)?);
    }
    for entry in &own {
        all.push(own_mount(entry)?);
    }
    if let Some(init) = &input.init {
        all.push(mount(Path::new(INIT_PATH), "bind", init, vec!["bind".to_owned(), "ro".to_owned()])?);
    }
    Ok(all)
}

fn default_options(input: &SpecInput, destination: &str, options: &str) -> Vec<String> {
    let mut options: Vec<String> = options.split(',').map(str::to_owned).collect();
    let privileged = input.privilege == Privilege::Privileged;
    if destination == "/dev/shm" {
        options.push(format!("size={}", input.shm_size));
    }
    let writable = match destination {
        "/sys" => privileged,
        "/sys/fs/cgroup" => input.writable_cgroups,
        _ => false,
    };
    if writable {
        options[0] = "rw".to_owned();
    } else if input.readonly_rootfs && !WRITABLE.contains(&destination) && !options.iter().any(|option| option == "ro")
    {
        options.push("ro".to_owned());
    }
    options
}

fn own_mount(entry: &MountInput) -> Result<Mount, SpecError> {
    match entry {
        MountInput::Tmpfs { target, options } => {
            let usual = ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned);
            let options = merge_tmpfs(usual.into_iter().chain(options.iter().cloned()))?;
            mount(target, "tmpfs", Path::new("tmpfs"), options)
        }
        MountInput::Bind(bind) => {
            let mut options = vec![match bind.depth {
                BindDepth::Recursive => "rbind".to_owned(),
                BindDepth::Single => "bind".to_owned(),
            }];
            match bind.access {
                BindAccess::ReadWrite => {}
                BindAccess::ReadOnly => options.push("ro".to_owned()),
                BindAccess::ReadOnlyRecursive => options.extend(["ro".to_owned(), "rro".to_owned()]),
            }
            options.push(bind.propagation.as_str().to_owned());
            mount(&bind.target, "bind", &bind.source, options)
        }
    }
}

fn mount(destination: &Path, kind: &str, source: &Path, options: Vec<String>) -> Result<Mount, SpecError> {
    Ok(MountBuilder::default().destination(destination).typ(kind).source(source).options(options).build()?)
}

/// Later options win over earlier ones of the same kind; unknown ones are refused (moby's `MergeTmpfsOptions`).
fn merge_tmpfs(options: impl Iterator<Item = String>) -> Result<Vec<String>, SpecError> {
    /// A flag and its opposite.
    const PAIRS: [(&str, &str); 11] = [
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("sync", "async"),
        ("dirsync", ""),
        ("mand", "nomand"),
        ("noatime", "atime"),
        ("nodiratime", "diratime"),
        ("relatime", "norelatime"),
        ("strictatime", "nostrictatime"),
    ];
    const PROPAGATION: [&str; 8] =
        ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];
    const VALUED: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
    let kind = |option: &str| {
        if let Some((key, _)) = option.split_once('=') {
            return VALUED.contains(&key).then(|| key.to_owned());
        }
        if PROPAGATION.contains(&option) {
            return Some("propagation".to_owned());
        }
        PAIRS.iter().find(|(on, off)| *on == option || *off == option).map(|(on, _)| (*on).to_owned())
    };
    let mut merged: Vec<(String, String)> = Vec::new();
    for option in options.filter(|option| !option.is_empty() && option != "defaults") {
        let kind = kind(&option).ok_or_else(|| SpecError::TmpfsOption(option.clone()))?;
        merged.retain(|(other, _)| *other != kind);
        merged.push((kind, option));
    }
    Ok(merged.into_iter().map(|(_, option)| option).collect())
}

/// The propagation of the root that the bind mounts need (`None`: the runtime's default).
pub(super) fn rootfs_propagation(input: &SpecInput) -> Option<&'static str> {
    let asks = |wanted: [Propagation; 2]| {
        input.mounts.iter().any(|mount| matches!(mount, MountInput::Bind(bind) if wanted.contains(&bind.propagation)))
    };
    if asks([Propagation::Shared, Propagation::RecursiveShared]) {
        Some("shared")
    } else if asks([Propagation::Slave, Propagation::RecursiveSlave]) {
        Some("rslave")
    } else {
        None
    }
}
