//! Tables: inputs and what of the spec they decide.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxNamespaceType, LinuxSeccomp, LinuxSeccompAction, Mount, Spec};

use super::*;

fn input() -> SpecInput {
    let host = Host { architecture: "amd64".to_owned(), kernel: (6, 1) };
    SpecInput::new("abc", "/rootfs", vec!["/bin/sh".to_owned()], host)
}

fn with(change: impl FnOnce(&mut SpecInput)) -> Spec {
    let mut input = input();
    change(&mut input);
    build(&input).unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn linux_of(spec: &Spec) -> &Linux {
    spec.linux().as_ref().unwrap()
}

fn process_of(spec: &Spec) -> &Process {
    spec.process().as_ref().unwrap()
}

fn mount_at<'a>(spec: &'a Spec, path: &str) -> Option<&'a Mount> {
    spec.mounts().iter().flatten().find(|mount| mount.destination() == Path::new(path))
}

fn options(spec: &Spec, path: &str) -> String {
    mount_at(spec, path).map_or("absent".to_owned(), |mount| mount.options().clone().unwrap_or_default().join(","))
}

/// The set as the kernel's number.
fn bits(set: &Capabilities) -> u64 {
    let bit = |capability: &Capability| capabilities::ALL.iter().position(|one| one == capability).unwrap();
    set.iter().map(|capability| 1 << bit(capability)).sum()
}

#[test]
fn capabilities_of_dockerd() {
    const DEFAULT: u64 = 0xa804_25fb;
    const ALL: u64 = 0x1ff_ffff_ffff;
    let none: [&str; 0] = [];
    for (privilege, add, drop, wanted) in [
        (Privilege::Ordinary, &none[..], &none[..], DEFAULT),
        (Privilege::Ordinary, &["NET_ADMIN"], &none, DEFAULT | 1 << 12),
        (Privilege::Ordinary, &["cap_net_admin"], &["CHOWN"], DEFAULT & !1 | 1 << 12),
        (Privilege::Ordinary, &none, &["ALL"], 0),
        (Privilege::Ordinary, &["SYS_TIME"], &["all"], 1 << 25),
        (Privilege::Ordinary, &["ALL"], &none, ALL),
        (Privilege::Ordinary, &["ALL"], &["SYS_ADMIN"], ALL & !(1 << 21)),
        (Privilege::Privileged, &none, &["ALL"], ALL),
    ] {
        let spec = with(|input| {
            input.privilege = privilege;
            input.cap_add = strings(add);
            input.cap_drop = strings(drop);
        });
        let sets = process_of(&spec).capabilities().clone().unwrap();
        for set in [sets.bounding(), sets.permitted(), sets.effective()] {
            assert_eq!(bits(set.as_ref().unwrap()), wanted, "{add:?} {drop:?}");
        }
        assert_eq!((sets.inheritable(), sets.ambient()), (&None, &None));
    }
    let mut wrong = input();
    wrong.cap_add = strings(&["NOPE"]);
    assert_eq!(build(&wrong).unwrap_err().to_string(), "unknown capability: \"CAP_NOPE\"");
}

#[test]
fn namespaces_of_the_modes() {
    let show = |spec: &Spec| {
        let namespaces = linux_of(spec).namespaces().clone().unwrap();
        let show = |namespace: &LinuxNamespace| match namespace.path() {
            Some(path) => format!("{}={}", namespace.typ(), path.display()),
            None => namespace.typ().to_string(),
        };
        namespaces.iter().map(show).collect::<Vec<_>>().join(" ").to_lowercase()
    };
    assert_eq!(show(&with(|_| {})), "mnt net uts pid ipc cgroup");
    let shared = with(|input| {
        input.network = Network::Sandbox("/run/ns".into());
        input.ipc = Ipc::Container { namespace: "/proc/7/ns/ipc".into(), shm: "/shm7".into() };
        input.pid = Namespace::At("/proc/7/ns/pid".into());
        input.uts = Namespace::Host;
        input.cgroup = Namespace::Host;
        input.hostname = "h".to_owned();
    });
    assert_eq!(show(&shared), "mnt net=/run/ns pid=/proc/7/ns/pid ipc=/proc/7/ns/ipc");
    assert_eq!(shared.hostname(), &None);
    assert_eq!(mount_at(&shared, "/dev/shm").unwrap().source(), &Some(PathBuf::from("/shm7")));
    let host = with(|input| {
        input.network = Network::Host;
        input.ipc = Ipc::Host;
        input.pid = Namespace::Host;
    });
    assert_eq!(show(&host), "mnt uts cgroup");
    assert_eq!(linux_of(&host).sysctl(), &None);
    assert!(linux_of(&host).namespaces().iter().flatten().all(|one| one.typ() != LinuxNamespaceType::Network));
}

#[test]
fn mounts_and_paths() {
    let plain = with(|_| {});
    let order: Vec<String> =
        plain.mounts().iter().flatten().map(|mount| mount.destination().display().to_string()).collect();
    assert_eq!(order, ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]);
    assert_eq!(options(&plain, "/dev/shm"), "rw,nosuid,noexec,nodev,mode=1777,size=67108864");
    assert_eq!(linux_of(&plain).masked_paths().as_ref().unwrap().len(), MASKED_PATHS.len());
    assert_eq!(linux_of(&plain).readonly_paths().as_deref().unwrap(), READONLY_PATHS);
    assert_eq!(linux_of(&plain).rootfs_propagation(), &None);

    let privileged = with(|input| input.privilege = Privilege::Privileged);
    assert_eq!(options(&privileged, "/sys"), "rw,nosuid,noexec,nodev");
    let writable = with(|input| input.writable_cgroups = true);
    assert_eq!(options(&writable, "/sys"), "ro,nosuid,noexec,nodev");
    assert_eq!(options(&writable, "/sys/fs/cgroup"), "rw,nosuid,noexec,nodev");
    assert_eq!((linux_of(&privileged).masked_paths(), linux_of(&privileged).readonly_paths()), (&None, &None));
    assert_eq!(linux_of(&privileged).seccomp(), &None);

    let unmasked = with(|input| {
        input.masked_paths = Some(Vec::new());
        input.readonly_paths = Some(strings(&["/x"]));
    });
    assert_eq!(linux_of(&unmasked).masked_paths(), &None);
    assert_eq!(linux_of(&unmasked).readonly_paths(), &Some(strings(&["/x"])));

    let none = with(|input| input.ipc = Ipc::None);
    assert_eq!(options(&none, "/dev/shm"), "absent");
}

#[test]
fn own_mounts() {
    let bind = |target: &str, access, depth, propagation| {
        MountInput::Bind(Bind { source: "/src".into(), target: target.into(), access, depth, propagation })
    };
    let spec = with(|input| {
        input.readonly_rootfs = true;
        input.mounts = vec![
            bind("/a/b", BindAccess::ReadOnly, BindDepth::Single, Propagation::RecursiveSlave),
            bind("/a", BindAccess::ReadWrite, BindDepth::Recursive, Propagation::RecursivePrivate),
            bind("/c", BindAccess::ReadOnlyRecursive, BindDepth::Recursive, Propagation::Private),
            MountInput::Tmpfs {
                target: "/t".into(),
                options: strings(&["exec", "size=1m", "rw", "size=2m", "mode=700"]),
            },
            bind("/dev/shm", BindAccess::ReadWrite, BindDepth::Recursive, Propagation::RecursivePrivate),
        ];
        input.init = Some("/usr/bin/skep".into());
    });
    assert_eq!(options(&spec, "/a"), "rbind,rprivate");
    assert_eq!(options(&spec, "/a/b"), "bind,ro,rslave");
    assert_eq!(options(&spec, "/c"), "rbind,ro,rro,private");
    assert_eq!(options(&spec, "/t"), "nosuid,nodev,rprivate,exec,rw,size=2m,mode=700");
    assert_eq!(options(&spec, "/dev/shm"), "rbind,rprivate");
    assert_eq!(options(&spec, "/dev"), "rw,nosuid,strictatime,mode=755,size=65536k");
    assert_eq!(options(&spec, mounts::INIT_PATH), "bind,ro");
    assert_eq!(process_of(&spec).args().as_deref().unwrap(), ["/sbin/docker-init", "--", "/bin/sh"]);
    assert_eq!(linux_of(&spec).rootfs_propagation().as_deref(), Some("rslave"));
    assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
    let at = |path: &str| spec.mounts().iter().flatten().position(|mount| mount.destination() == Path::new(path));
    assert!(at("/a") < at("/a/b"));

    let dev = with(|input| {
        input.mounts = vec![bind("/dev", BindAccess::ReadWrite, BindDepth::Recursive, Propagation::Private)];
    });
    assert_eq!(options(&dev, "/dev/pts"), "absent");
    assert_eq!(options(&dev, "/dev"), "rbind,private");

    let shared_pid = with(|input| {
        input.init = Some("/usr/bin/skep".into());
        input.pid = Namespace::Host;
    });
    assert_eq!(process_of(&shared_pid).args().as_deref().unwrap(), ["/bin/sh"]);

    for (mount, text) in [
        (MountInput::Tmpfs { target: "/t".into(), options: strings(&["bogus"]) }, "invalid tmpfs option [\"bogus\"]"),
        (MountInput::Tmpfs { target: "t".into(), options: vec![] }, "invalid mount target \"t\": it must be absolute"),
    ] {
        let mut wrong = input();
        wrong.mounts = vec![mount];
        assert_eq!(build(&wrong).unwrap_err().to_string(), text);
    }
}

#[test]
fn limits_and_cgroups() {
    let spec = with(|input| {
        input.resources = Resources {
            memory: 64 << 20,
            memory_swap: -1,
            nano_cpus: 1_500_000_000,
            cpu_shares: 512,
            cpuset_cpus: "0-1".to_owned(),
            pids_limit: Some(20),
            blkio_weight: 300,
            ..Resources::default()
        };
        input.limits = vec![Limit { name: "nofile".to_owned(), soft: 1024, hard: -1 }];
        input.oom_score_adj = -500;
    });
    let resources = linux_of(&spec).resources().clone().unwrap();
    let memory = resources.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap(), memory.reservation()), (Some(64 << 20), Some(-1), None));
    let cpu = resources.cpu().clone().unwrap();
    assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(150_000), Some(100_000), Some(512)));
    assert_eq!(cpu.cpus().as_deref(), Some("0-1"));
    assert_eq!(resources.pids().unwrap().limit(), 20);
    assert_eq!(resources.block_io().clone().unwrap().weight(), Some(300));
    let limit = process_of(&spec).rlimits().clone().unwrap()[0];
    assert_eq!((limit.soft(), limit.hard()), (1024, u64::MAX));
    assert_eq!(process_of(&spec).oom_score_adj(), Some(-500));

    let plain = with(|_| {});
    let resources = linux_of(&plain).resources().clone().unwrap();
    assert_eq!((resources.memory(), resources.cpu(), resources.pids()), (&None, &None, &None));
    let rules: Vec<String> = resources.devices().iter().flatten().map(ToString::to_string).collect();
    assert_eq!(rules.len(), 8);
    assert!(!resources.devices().as_ref().unwrap()[0].allow());
    for (parent, path) in
        [(None, "/docker/abc"), (Some(""), "/docker/abc"), (Some("/x/y"), "/x/y/abc"), (Some("x"), "/x/abc")]
    {
        let spec = with(|input| input.cgroup_parent = parent.map(str::to_owned));
        assert_eq!(linux_of(&spec).cgroups_path().as_deref(), Some(Path::new(path)));
    }
    let mut wrong = input();
    wrong.cgroup_parent = Some("/../x".to_owned());
    assert!(build(&wrong).is_err());
    let mut wrong = input();
    wrong.limits = vec![Limit { name: "nope".to_owned(), soft: 0, hard: 0 }];
    assert_eq!(build(&wrong).unwrap_err().to_string(), "invalid ulimit type: nope");
}

#[test]
fn processes() {
    let spec = with(|input| {
        input.env = strings(&["B=2", "A=1"]);
        input.cwd = "/work".into();
        input.user = ResolvedUser { uid: 5, gid: 6, additional_gids: vec![6, 7] };
        input.tty = true;
        input.no_new_privileges = true;
        input.hostname = "h".to_owned();
        input.domainname = "d".to_owned();
        input.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned());
    });
    let process = process_of(&spec);
    assert_eq!(process.env().as_deref().unwrap(), ["B=2", "A=1"]);
    assert_eq!(process.cwd(), Path::new("/work"));
    assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
    assert_eq!(process.user().additional_gids().as_deref(), Some(&[6, 7][..]));
    assert_eq!((process.terminal(), process.no_new_privileges()), (Some(true), Some(true)));
    assert_eq!(spec.hostname().as_deref(), Some("h"));
    let sysctls = linux_of(&spec).sysctl().clone().unwrap();
    assert_eq!(sysctls["kernel.domainname"], "d");
    assert_eq!(sysctls["net.ipv4.ip_unprivileged_port_start"], "1024");
    assert_eq!(sysctls["net.ipv4.ping_group_range"], "0 2147483647");
    let plain = with(|_| {});
    assert_eq!((process_of(&plain).terminal(), process_of(&plain).no_new_privileges()), (None, None));
    assert_eq!(process_of(&plain).cwd(), Path::new("/"));
}

/// The actions for a system call, in order.
fn actions(filter: &LinuxSeccomp, name: &str) -> Vec<(LinuxSeccompAction, Option<u32>, bool)> {
    let rules = filter.syscalls().iter().flatten().filter(|rule| rule.names().iter().any(|one| one == name));
    rules.map(|rule| (rule.action(), rule.errno_ret(), rule.args().is_some())).collect()
}

#[test]
fn default_filter() {
    use LinuxSeccompAction::{ScmpActAllow as Allow, ScmpActErrno as Errno};
    let plain = linux_of(&with(|_| {})).seccomp().clone().unwrap();
    assert_eq!((plain.default_action(), plain.default_errno_ret()), (Errno, Some(1)));
    assert_eq!(plain.architectures().as_ref().unwrap().len(), 3);
    for (name, wanted) in [
        ("openat", vec![(Allow, None, false)]),
        ("ptrace", vec![(Allow, None, false)]),
        ("socket", vec![(Allow, None, true)]),
        ("arch_prctl", vec![(Allow, None, false)]),
        ("riscv_flush_icache", vec![]),
        ("mount", vec![]),
        ("unshare", vec![]),
        ("keyctl", vec![]),
        ("io_uring_setup", vec![]),
        ("clone", vec![(Allow, None, true)]),
        ("clone3", vec![(Errno, Some(38), false)]),
        ("chroot", vec![(Allow, None, false)]),
    ] {
        assert_eq!(actions(&plain, name), wanted, "{name}");
    }
    assert_eq!(actions(&plain, "personality").len(), 5);
    let admin = with(|input| input.cap_add = strings(&["SYS_ADMIN"]));
    let admin = linux_of(&admin).seccomp().clone().unwrap();
    for name in ["mount", "unshare", "clone", "clone3"] {
        assert_eq!(actions(&admin, name), [(Allow, None, false)], "{name}");
    }
    let old = with(|input| {
        input.host = Host { architecture: "s390x".to_owned(), kernel: (4, 7) };
        input.cap_drop = strings(&["SYS_CHROOT"]);
    });
    let old = linux_of(&old).seccomp().clone().unwrap();
    assert_eq!(actions(&old, "ptrace"), []);
    assert_eq!(actions(&old, "chroot"), []);
    assert_eq!(actions(&old, "arch_prctl"), []);
    let clone = old.syscalls().iter().flatten().find(|rule| rule.names() == &["clone"]).unwrap();
    assert_eq!(clone.args().as_ref().unwrap()[0].index(), 1);
    assert_eq!(linux_of(&with(|input| input.seccomp = SeccompChoice::Unconfined)).seccomp(), &None);
}

#[test]
fn given_filters() {
    let filter = |text: &str| {
        let mut input = input();
        input.privilege = Privilege::Privileged;
        input.seccomp = SeccompChoice::Profile(text.to_owned());
        build(&input).map(|spec| linux_of(&spec).seccomp().clone().unwrap()).map_err(|error| error.to_string())
    };
    let given = filter(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":null}],
            "syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO","args":null},
                        {"names":["chmod"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"excludes":{"caps":["CAP_SYS_ADMIN"]},"includes":{}},
                        {"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"9.0"}}]}"#,
    )
    .unwrap();
    assert_eq!(given.default_action(), LinuxSeccompAction::ScmpActAllow);
    assert_eq!(actions(&given, "mkdir").len(), 1);
    assert_eq!(actions(&given, "chmod").len(), 0);
    assert_eq!(actions(&given, "a").len(), 0);
    for (text, wanted) in [
        ("{", "Decoding seccomp profile failed"),
        (r#"{"architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#, "both 'architectures'"),
        (r#"{"syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#, "both 'name'"),
        (
            r#"{"syscalls":[{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"x"}}]}"#,
            "invalid kernel version",
        ),
    ] {
        assert!(filter(text).unwrap_err().starts_with(wanted), "{text}");
    }
}

#[test]
fn specs_are_reproducible_and_json() {
    let spec = with(|input| {
        input.annotations.insert("a".to_owned(), "b".to_owned());
        input.devices = devices::from_path(Path::new("/dev/null"), Path::new("/dev/x"), "rw").unwrap();
    });
    let text = serde_json::to_string(&spec).unwrap();
    let again: Spec = serde_json::from_str(&text).unwrap();
    assert_eq!(spec, again);
    assert_eq!(linux_of(&spec).devices().as_ref().unwrap()[0].path(), Path::new("/dev/x"));
    assert_eq!(linux_of(&spec).resources().as_ref().unwrap().devices().as_ref().unwrap().len(), 9);
}

#[test]
fn devices_elsewhere_than_in_dev_are_bound() {
    let null = |path: &str| devices::from_path(Path::new("/dev/null"), Path::new(path), "r").unwrap();
    let spec = with(|input| input.devices = [null("/dev/x"), null("/srv/x")].concat());
    let made = linux_of(&spec).devices().iter().flatten().map(|device| device.path().display().to_string());
    assert_eq!(made.collect::<Vec<_>>(), ["/dev/x"]);
    assert_eq!(options(&spec, "/srv/x"), "bind,rprivate");
    assert_eq!(options(&spec, "/dev/x"), "absent");
}
