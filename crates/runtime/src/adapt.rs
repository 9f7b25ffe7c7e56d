//! What is changed in a spec before `libcontainer` sees it: paths made absolute, and what this machine does not allow
//! taken back with a warning, as runc does when it is rootless.
//!
//! Invariant: nothing is loosened, except limits that cannot be raised without CAP_SYS_RESOURCE. Callers: `create`, and
//! `exec` for its process.

use std::fs;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use nix::sys::resource::Resource;

use crate::cgroup::Cgroup;
use crate::error::RuntimeError;
use crate::log;

/// CAP_SYS_RESOURCE's bit.
const SYS_RESOURCE: u64 = 1 << 24;

/// Adapts the spec of a new container; returns its cgroup, from the root of each hierarchy.
pub(crate) fn spec(spec: &mut Spec, bundle: &Path, id: &str) -> Result<PathBuf, RuntimeError> {
    let Some(root) = spec.root_mut() else {
        return Err(RuntimeError::Create("the spec has no root".to_owned()));
    };
    let rootfs = bundle.join(root.path());
    let rootfs = fs::canonicalize(&rootfs).map_err(RuntimeError::file("invalid rootfs: stat", &rootfs))?;
    root.set_path(rootfs.clone());
    for mount in spec.mounts_mut().iter_mut().flatten() {
        // runc resolves relative sources of binds from the bundle.
        let is_bind = mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
        if let (true, Some(source)) = (is_bind, mount.source().clone())
            && source.is_relative()
        {
            mount.set_source(Some(bundle.join(source)));
        }
    }
    if let Some(process) = spec.process_mut() {
        self::process(process);
        set_home(process, &rootfs);
    }
    let cgroups_read_only = spec.mounts().iter().flatten().any(|mount| {
        let is_cgroup = mount.typ().as_deref().is_some_and(|kind| kind == "cgroup" || kind == "cgroup2");
        is_cgroup && mount.options().iter().flatten().any(|option| option == "ro")
    });
    let Some(linux) = spec.linux_mut() else {
        return Err(RuntimeError::Create("the spec has no linux section".to_owned()));
    };
    let cgroup = cgroup_path(linux.cgroups_path().as_deref(), id)?;
    linux.set_cgroups_path(Some(cgroup.clone()));
    // libcontainer has one name for what is always recursive.
    let propagation = linux.rootfs_propagation().clone();
    linux.set_rootfs_propagation(propagation.map(|name| name.strip_prefix('r').unwrap_or(&name).to_owned()));
    if cgroups_read_only {
        // libcontainer mounts the hierarchies of v1 writable whatever the options say.
        let mut paths = linux.readonly_paths().clone().unwrap_or_default();
        paths.extend(Cgroup::at(&cgroup)?.mount_points());
        linux.set_readonly_paths(Some(paths));
    }
    Ok(cgroup)
}

/// The cgroup as an absolute path without `..`; `/skep/<id>` if the spec names none.
fn cgroup_path(given: Option<&Path>, id: &str) -> Result<PathBuf, RuntimeError> {
    use std::path::Component;
    let Some(given) = given.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(Path::new("/skep").join(id));
    };
    let mut path = PathBuf::from("/");
    for component in given.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(RuntimeError::Create(format!("invalid cgroups path {}", given.display())));
            }
        }
    }
    if path.parent().is_none() {
        return Err(RuntimeError::Create("the cgroups path must not be the root".to_owned()));
    }
    Ok(path)
}

/// Adapts a process: limits that cannot be raised are lowered to what is allowed, and the score of the out-of-memory
/// killer is set on this process, which the container's inherits.
pub(crate) fn process(process: &mut Process) {
    // To libcontainer `Some(false)` means that privileges are given up before the filter is loaded, which then fails.
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    let sets = process.capabilities().clone();
    process.set_capabilities(sets.map(available));
    let may_raise = own_capabilities("CapEff:") & SYS_RESOURCE != 0;
    if !may_raise {
        let limits = process.rlimits().as_ref().map(|limits| limits.iter().map(clamp).collect());
        process.set_rlimits(limits);
    }
    if let Some(score) = process.oom_score_adj() {
        process.set_oom_score_adj(None);
        if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
            log::warn(&format!("cannot set oom_score_adj to {score}: {error}"));
        }
    }
}

/// Sets HOME unless the environment has it. Left to `libcontainer`, it would ask the C library's name service inside
/// the container.
fn set_home(process: &mut Process, rootfs: &Path) {
    let mut env = process.env().clone().unwrap_or_default();
    if env.iter().any(|entry| entry.len() > 5 && entry.starts_with("HOME=")) {
        return;
    }
    env.retain(|entry| entry != "HOME=");
    env.push(format!("HOME={}", crate::passwd::home(rootfs, process.user().uid())));
    process.set_env(Some(env));
}

fn clamp(limit: &PosixRlimit) -> PosixRlimit {
    let most = resource(limit.typ()).and_then(|resource| nix::sys::resource::getrlimit(resource).ok());
    let Some((_, most)) = most.filter(|(_, most)| limit.hard() > *most) else { return *limit };
    log::warn(&format!("cannot raise {:?} to {} without CAP_SYS_RESOURCE: {most} is kept", limit.typ(), limit.hard()));
    PosixRlimitBuilder::default().typ(limit.typ()).hard(most).soft(limit.soft().min(most)).build().unwrap_or(*limit)
}

fn resource(limit: PosixRlimitType) -> Option<Resource> {
    Some(match limit {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    })
}

/// Names in the kernel's order, bit 0 first.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Takes out what this process does not have itself and so cannot give away, as runc does.
fn available(mut sets: LinuxCapabilities) -> LinuxCapabilities {
    let own = own_capabilities("CapPrm:") & own_capabilities("CapBnd:");
    let have = |capability: &Capability| {
        let name = capability.to_string();
        CAPABILITIES.iter().position(|one| *one == name).is_some_and(|bit| own & 1 << bit != 0)
    };
    let missing: Vec<String> =
        sets.bounding().iter().flatten().filter(|one| !have(one)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        log::warn(&format!("ignoring unknown or unavailable capabilities: {missing:?}"));
    }
    let keep = |set: &Option<Capabilities>| -> Option<Capabilities> {
        set.as_ref().map(|set| set.iter().copied().filter(|one| have(one)).collect())
    };
    let (bounding, effective, permitted) = (keep(sets.bounding()), keep(sets.effective()), keep(sets.permitted()));
    let (inheritable, ambient) = (keep(sets.inheritable()), keep(sets.ambient()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    sets.set_inheritable(inheritable).set_ambient(ambient);
    sets
}

/// One of this process's capability sets, as the kernel writes it.
fn own_capabilities(set: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(set));
    line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_paths() {
        let path = |given: Option<&str>| cgroup_path(given.map(Path::new), "id").ok();
        assert_eq!(path(None), Some("/skep/id".into()));
        assert_eq!(path(Some("")), Some("/skep/id".into()));
        assert_eq!(path(Some("/docker/x")), Some("/docker/x".into()));
        assert_eq!(path(Some("docker/./x")), Some("/docker/x".into()));
        for given in ["/", "..", "/a/../b", "."] {
            assert_eq!(path(Some(given)), None, "{given}");
        }
    }
}
