//! What a container's process may and may not do.

use serde_json::json;

use crate::support::Sandbox;

#[test]
fn capabilities_of_dockerd() {
    let outcome = Sandbox::new("cat /proc/self/status").run();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(outcome.stdout.contains(&format!("{set}:\t00000000a80425fb\n")), "{outcome:?}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert!(outcome.stdout.contains(&format!("{set}:\t0000000000000000\n")), "{outcome:?}");
    }
    assert!(outcome.stdout.contains("NoNewPrivs:\t0\n"));
    let mut sandbox = Sandbox::new("cat /proc/self/status; id -u; id -g; id -G; echo $HOME");
    sandbox.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [1001, 77] });
    let outcome = sandbox.run();
    assert!(outcome.stdout.contains("CapEff:\t0000000000000000\n"), "{outcome:?}");
    assert!(outcome.stdout.ends_with("1000\n1001\n1001 77\n/home/app\n"), "{outcome:?}");
}

#[test]
fn capabilities_that_cannot_be_given_are_left_out() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    let own = u64::from_str_radix(own, 16).unwrap();
    let mut sandbox = Sandbox::new("cat /proc/self/status");
    let wanted = json!(["CAP_SYS_RESOURCE", "CAP_KILL"]);
    sandbox.spec["process"]["capabilities"] =
        json!({ "bounding": wanted.clone(), "permitted": wanted.clone(), "effective": wanted });
    let expected = own & (1 << 24 | 1 << 5);
    let outcome = sandbox.run();
    assert!(outcome.stdout.contains(&format!("CapEff:\t{expected:016x}\n")), "{outcome:?}");
}

#[test]
fn no_groups_are_inherited() {
    let mut sandbox = Sandbox::new("id -G");
    sandbox.spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    assert_eq!(sandbox.run().stdout, "0\n");
}

#[test]
fn namespaces_and_host_name() {
    let outcome = Sandbox::new("hostname; echo $$; ls /sys/class/net; cat /proc/self/cgroup").run();
    let mut lines = outcome.stdout.lines();
    assert_eq!((lines.next(), lines.next(), lines.next()), (Some("inside"), Some("1"), Some("lo")));
    assert!(!outcome.stdout.contains("skep-test"), "{outcome:?}");
}

#[test]
fn masked_and_read_only_paths() {
    let script = "head -c 4 /proc/kcore | cat; ls /sys/firmware; echo 1 > /proc/sys/kernel/panic; touch /sys/x; touch /data/x && echo ok";
    let outcome = Sandbox::new(script).run();
    assert_eq!(outcome.stdout, "ok\n", "{outcome:?}");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{outcome:?}");
    let mut sandbox = Sandbox::new("touch /data/x; touch /dev/shm/x && echo ok");
    sandbox.spec["root"]["readonly"] = json!(true);
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout, "ok\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"));
}

#[test]
fn its_own_cgroup_cannot_be_changed() {
    let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do echo $$ > $d/cgroup.procs && echo wrote $d; mkdir $d/x && echo made $d; done";
    let outcome = Sandbox::new(script).run();
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    // With one's own namespace and without `ro` (a privileged container) it can.
    let mut sandbox =
        Sandbox::new("for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do mkdir $d/x && rmdir $d/x && echo made; done");
    for mount in sandbox.spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["rw"]);
        }
    }
    assert!(sandbox.run().stdout.contains("made"));
}

#[test]
fn propagation_of_the_root() {
    for name in ["rslave", "slave", "shared", "rprivate"] {
        let mut sandbox = Sandbox::new("exit 3");
        sandbox.spec["linux"]["rootfsPropagation"] = json!(name);
        assert_eq!(sandbox.run().code, 3, "{name}");
    }
}

#[test]
fn devices_are_confined() {
    // The node can be made, but the cgroup forbids to make or open any other than the listed ones.
    let outcome = Sandbox::new("mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem; echo x > /dev/null && echo ok").run();
    assert!(outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
    assert_eq!(outcome.stdout, "ok\n");
}

#[test]
fn filters() {
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            { "names": ["chmod", "fchmodat"], "action": "SCMP_ACT_KILL_PROCESS" },
        ],
    });
    for nnp in [json!(null), json!(false), json!(true)] {
        let mut sandbox = Sandbox::new("mkdir /tmp/x; chmod 0 /tmp; exit 5");
        sandbox.spec["linux"]["seccomp"] = filter.clone();
        if !nnp.is_null() {
            sandbox.spec["process"]["noNewPrivileges"] = nnp.clone();
        }
        let outcome = sandbox.run();
        assert!(outcome.stderr.contains("Function not implemented"), "{outcome:?}");
        assert!(outcome.stderr.contains("Bad system call"), "{outcome:?}");
        assert_eq!(outcome.code, 5);
    }
}

/// A filter that forbids `chmod` to set of the bits 06000 only 04000 (a MASKED_EQ condition), in the forms that take different ways.
fn masked_filters() -> [serde_json::Value; 3] {
    let masked =
        |index: u32| json!([{ "index": index, "value": 0o6000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ" }]);
    let plain = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": ["chmod"], "args": masked(1), "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            { "names": ["fchmodat", "fchmodat2"], "args": masked(2), "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        ],
    });
    let mut flagged = plain.clone();
    flagged["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    [plain.clone(), plain, flagged]
}

#[test]
fn filters_look_at_arguments() {
    for (number, filter) in masked_filters().into_iter().enumerate() {
        let mut sandbox = Sandbox::new("cd /tmp; touch x; chmod 4755 x; chmod 6755 x && echo through; sleep 1000");
        sandbox.spec["linux"]["seccomp"] = filter;
        if number == 1 {
            // With hooks libcontainer does all of it.
            sandbox.spec["hooks"] = json!({ "poststop": [{ "path": "/bin/true" }] });
        }
        let pid = sandbox.create();
        sandbox.start();
        let outcome = sandbox.exec(&sandbox.process("cd /tmp; touch y; chmod 4755 y; chmod 6755 y && echo ok"));
        assert_eq!(outcome.stdout, "ok\n", "{number}: {outcome:?}");
        assert_eq!(outcome.stderr.matches("Function not implemented").count(), 1, "{number}: {outcome:?}");
        sandbox.until_text("stdout", "through");
        sandbox.done(&["kill", &sandbox.id, "KILL"]);
        assert_eq!(crate::support::wait(pid), 137);
        sandbox.done(&["delete", &sandbox.id]);
        assert_eq!(sandbox.text("stderr").matches("Function not implemented").count(), 1, "{number}");
    }
}

#[test]
fn a_kept_filter_holds() {
    let script = "mkdir /tmp/x; cat /proc/self/status";
    let mut sandbox = Sandbox::new(script);
    sandbox.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    sandbox.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
    });
    let filters = sandbox.root().join(".filters");
    for turn in 0..3 {
        let outcome = sandbox.run();
        assert!(outcome.stderr.contains("Function not implemented"), "{turn}: {outcome:?}");
        for line in
            ["Seccomp:\t2\n", "Seccomp_filters:\t1\n", "CapEff:\t0000000000000000\n", "CapBnd:\t00000000a80425fb\n"]
        {
            assert!(outcome.stdout.contains(line), "{turn}: {outcome:?}");
        }
        let kept: Vec<_> = std::fs::read_dir(&filters).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), 1);
        if turn == 1 {
            std::fs::write(&kept[0], "damaged").unwrap();
        }
    }
}

#[test]
fn no_new_privileges() {
    let mut sandbox = Sandbox::new("cat /proc/self/status");
    sandbox.spec["process"]["noNewPrivileges"] = json!(true);
    assert!(sandbox.run().stdout.contains("NoNewPrivs:\t1\n"));
}

#[test]
fn limits_of_the_process() {
    let mut sandbox = Sandbox::new("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj");
    sandbox.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    sandbox.spec["process"]["oomScoreAdj"] = json!(321);
    assert_eq!(sandbox.run().stdout, "100\n200\n321\n");
}

#[test]
fn what_cannot_be_raised_is_warned_of() {
    // Without CAP_SYS_RESOURCE this cannot be had; with it, it is simply done.
    let mut sandbox = Sandbox::new("ulimit -Hc; exit 3");
    sandbox.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_MEMLOCK", "soft": u64::MAX, "hard": u64::MAX }]);
    sandbox.spec["process"]["oomScoreAdj"] = json!(-999);
    let outcome = sandbox.run();
    assert_eq!(outcome.code, 3, "{outcome:?}");
}

#[test]
fn signals_and_environment_begin_fresh() {
    let outcome =
        Sandbox::new("cat /proc/self/status | while read a b; do case $a in Sig*) echo $a $b;; esac; done").run();
    for line in ["SigBlk: 0000000000000000", "SigIgn: 0000000000000000"] {
        assert!(outcome.stdout.contains(line), "{outcome:?}");
    }
    let mut sandbox = Sandbox::new("");
    sandbox.spec["process"]["args"] = json!(["/bin/cat", "/proc/self/environ"]);
    sandbox.spec["process"]["env"] = json!(["PATH=/bin", "B=2", "A=1", "B=3"]);
    assert_eq!(sandbox.run().stdout, "PATH=/bin\0B=2\0A=1\0B=3\0HOME=/root\0");
}

#[test]
fn no_descriptor_is_inherited() {
    let mut sandbox = Sandbox::new("");
    sandbox.spec["process"]["args"] = json!(["/bin/ls", "/proc/self/fd"]);
    // The last one is that of the directory which is listed.
    assert_eq!(sandbox.run().stdout, "0\n1\n2\n3\n");
}
