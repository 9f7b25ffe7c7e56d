//! Devices: the rules of the device cgroup, `--device`, and the host's devices for `--privileged`.
//!
//! [`from_path`] and [`of_host`] look at the host; the rest is pure. Callers: the start of a container, `spec::build`.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::SpecError;

/// Most devices that a directory given as `--device`, or the host's `/dev`, may hold.
pub const MAX_DEVICES: usize = 4096;

/// Deepest directory below `/dev` that is walked.
const MAX_DEPTH: usize = 8;

/// A device node of the container, as found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path in the container.
    pub path: PathBuf,
    /// Path on the host.
    pub source: PathBuf,
    /// Kind of the node.
    pub kind: DeviceKind,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Access allowed by the cgroup: letters of `rwm`.
    pub access: String,
}

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block device.
    Block,
    /// Character device.
    Character,
}

impl DeviceKind {
    fn oci(self) -> LinuxDeviceType {
        match self {
            DeviceKind::Block => LinuxDeviceType::B,
            DeviceKind::Character => LinuxDeviceType::C,
        }
    }
}

/// What `--device host:container:access` gives: one device, or all in a directory.
pub fn from_path(host: &Path, container: &Path, access: &str) -> Result<Vec<Device>, SpecError> {
    let gone = |_| SpecError::NoDevice(host.to_owned());
    let resolved = std::fs::canonicalize(host).map_err(gone)?;
    let metadata = std::fs::metadata(&resolved).map_err(gone)?;
    if let Some(device) = node(&metadata, &resolved, container, access) {
        return Ok(vec![device]);
    }
    let mut found = Vec::new();
    if metadata.is_dir() {
        walk(&resolved, container, access, 0, &mut found);
    }
    if found.is_empty() { Err(SpecError::NoDevice(host.to_owned())) } else { Ok(found) }
}

/// All devices of the host, for `--privileged`: as containerd finds them, without terminals and shared memory.
pub fn of_host() -> Vec<Device> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), "rwm", 0, &mut found);
    found
}

fn walk(host: &Path, container: &Path, access: &str, depth: usize, found: &mut Vec<Device>) {
    // Directories of file systems that the container has of its own.
    const SKIPPED: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
    let Ok(entries) = std::fs::read_dir(host) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if found.len() >= MAX_DEVICES || name == "console" {
            continue;
        }
        let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else { continue };
        if metadata.is_dir() {
            if depth < MAX_DEPTH && !SKIPPED.iter().any(|skipped| name == *skipped) {
                walk(&entry.path(), &container.join(&name), access, depth + 1, found);
            }
        } else if let Some(device) = node(&metadata, &entry.path(), &container.join(&name), access) {
            found.push(device);
        }
    }
}

fn node(metadata: &std::fs::Metadata, source: &Path, path: &Path, access: &str) -> Option<Device> {
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => DeviceKind::Block,
        kind if kind.is_char_device() => DeviceKind::Character,
        _ => return None,
    };
    let number = metadata.rdev();
    Some(Device {
        path: path.to_owned(),
        source: source.to_owned(),
        kind,
        major: nix::libc::major(number).into(),
        minor: nix::libc::minor(number).into(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}

impl Device {
    /// Whether the runtime makes the node: it does so below `/dev` only. Elsewhere the host's is bound.
    pub(super) fn is_made(&self) -> bool {
        self.path.starts_with("/dev")
    }
}

/// The nodes to make.
pub(super) fn nodes(devices: &[Device]) -> Result<Vec<LinuxDevice>, SpecError> {
    let build = |device: &Device| {
        LinuxDeviceBuilder::default()
            .path(device.path.clone())
            .typ(device.kind.oci())
            .major(device.major)
            .minor(device.minor)
            .file_mode(device.mode)
            .uid(device.uid)
            .gid(device.gid)
            .build()
    };
    Ok(devices.iter().filter(|device| device.is_made()).map(build).collect::<Result<_, _>>()?)
}

/// The rules for a confined container: nothing but the usual ones, its devices and `--device-cgroup-rule`s.
pub(super) fn rules(devices: &[Device], extra: &[String]) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    use LinuxDeviceType::C;
    // zero, null, urandom, random, tty, console; not fuse.
    const USUAL: [(bool, i64, i64); 7] =
        [(true, 1, 5), (true, 1, 3), (true, 1, 9), (true, 1, 8), (true, 5, 0), (true, 5, 1), (false, 10, 229)];
    let mut rules = vec![rule(false, None, None, None, "rwm")?];
    for (allow, major, minor) in USUAL {
        rules.push(rule(allow, Some(C), Some(major), Some(minor), "rwm")?);
    }
    for device in devices {
        rules.push(rule(true, Some(device.kind.oci()), Some(device.major), Some(device.minor), &device.access)?);
    }
    for text in extra {
        rules.push(parse_rule(text)?);
    }
    Ok(rules)
}

/// The rule for `--privileged`.
pub(super) fn all_allowed() -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    Ok(vec![rule(true, None, None, None, "rwm")?])
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup, SpecError> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).access(access).build()?;
    rule.set_typ(kind).set_major(major).set_minor(minor);
    Ok(rule)
}

/// `c 10:200 rwm`, `b *:* r`, `a *:* rwm`.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, SpecError> {
    let wrong = || SpecError::DeviceRule(text.to_owned());
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text if text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map(Some).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    };
    let letters = (1..=3).contains(&access.len()) && access.bytes().all(|byte| b"rwm".contains(&byte));
    if !letters {
        return Err(wrong());
    }
    rule(true, Some(kind), number(major)?, number(minor)?, access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_command_line() {
        for (text, shown) in [
            ("c 10:200 rwm", Some("c 10:200 rwm")),
            ("b *:3 r", Some("b *:3 r")),
            ("a *:* rwm", Some("a *:* rwm")),
            ("c 10:200", None),
            ("x 1:1 r", None),
            ("c 1 r", None),
            ("c 1:1 x", None),
            ("c 1:1 rwmr", None),
            ("c -1:1 r", None),
        ] {
            assert_eq!(parse_rule(text).ok().map(|rule| rule.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn devices_of_the_host() {
        let null = &from_path(Path::new("/dev/null"), Path::new("/dev/nothing"), "r").unwrap()[0];
        assert_eq!((null.kind, null.major, null.minor), (DeviceKind::Character, 1, 3));
        assert_eq!(null.path, Path::new("/dev/nothing"));
        assert!(from_path(Path::new("/dev/no-such"), Path::new("/x"), "r").is_err());
        assert!(from_path(Path::new("/etc/passwd"), Path::new("/x"), "r").is_err());
        assert!(of_host().iter().any(|device| device.path == Path::new("/dev/zero")));
    }
}
