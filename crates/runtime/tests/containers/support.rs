//! A bundle, a state directory and the runtime's commands, all gone when dropped.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

const RUNTIME: &str = env!("CARGO_BIN_EXE_skep-runtime");

/// dockerd's default capabilities.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

pub(crate) struct Sandbox {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) spec: Value,
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    /// A container that would run `script` with busybox's shell.
    pub(crate) fn new(script: &str) -> Sandbox {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Orphans of the runtime become our children, so their exit codes can be waited for.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let id = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let rootfs = dir.path().join("bundle/rootfs");
        for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "data"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
        fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        for name in "sh cat echo id sleep hostname ls mount mkdir rmdir chmod chroot nc kill true touch mknod unshare tty ps dd head stty ulimit".split(' ') {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
            .unwrap();
        fs::write(rootfs.join("etc/notexec"), "x").unwrap();
        let spec = spec(&["/bin/sh", "-c", script], &id);
        Sandbox { dir, id, spec }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The runtime with the options that come before its command.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(RUNTIME);
        command
            .arg("--root")
            .arg(self.root())
            .arg("--log")
            .arg(self.dir.path().join("log"))
            .args(["--log-format", "json"]);
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; returns what it said.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The last error in the log, as the shim reads it.
    pub(crate) fn last_error(&self) -> String {
        let log = self.log();
        let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.rfind(|line| line["level"] == "error").unwrap()["msg"].as_str().unwrap().to_owned()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.done(&["state", &self.id])).unwrap()
    }

    /// Creates the container with its output in files; returns the first process.
    pub(crate) fn create(&self) -> i32 {
        let output = self.try_create();
        assert!(output.status.success(), "{output:?}\n{}", self.log());
        fs::read_to_string(self.dir.path().join("pid")).unwrap().parse().unwrap()
    }

    pub(crate) fn try_create(&self) -> Output {
        fs::write(self.bundle().join("config.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
        let file = |name: &str| File::create(self.dir.path().join(name)).unwrap();
        let (bundle, pid) = (self.bundle(), self.dir.path().join("pid"));
        let mut command = self.command(&["create", "--bundle"]);
        command.arg(bundle).arg("--pid-file").arg(pid).arg(&self.id);
        let mut child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        let status = child.wait().unwrap();
        Output { status, stdout: Vec::new(), stderr: self.text("stderr").into_bytes() }
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let mut bytes = Vec::new();
        File::open(self.dir.path().join(name)).unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until a file of the container's output holds a text.
    pub(crate) fn until_text(&self, name: &str, text: &str) {
        let start = std::time::Instant::now();
        while !self.text(name).contains(text) {
            assert!(start.elapsed() < std::time::Duration::from_secs(30), "{name}: {}", self.text(name));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub(crate) fn start(&self) {
        self.done(&["start", &self.id]);
    }

    /// Creates, starts, waits for the end and deletes.
    pub(crate) fn run(&self) -> Outcome {
        let pid = self.create();
        self.start();
        let code = wait(pid);
        self.done(&["delete", &self.id]);
        self.assert_nothing_left();
        Outcome { code, stdout: self.text("stdout"), stderr: self.text("stderr") }
    }

    /// A process for `exec` with the container's own settings.
    pub(crate) fn process(&self, script: &str) -> Value {
        let mut process = self.spec["process"].clone();
        process["args"] = json!(["/bin/sh", "-c", script]);
        process
    }

    /// Runs a process to its end.
    pub(crate) fn exec(&self, process: &Value) -> Outcome {
        let file = self.dir.path().join("process.json");
        fs::write(&file, serde_json::to_vec(process).unwrap()).unwrap();
        let output = self.command(&["exec", "--process", file.to_str().unwrap(), &self.id]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn assert_nothing_left(&self) {
        assert!(!self.root().join(&self.id).exists());
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
    }

    /// The container's cgroups, and their parent, which is the test's own.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mount = PathBuf::from("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(&mount).unwrap().flatten().map(|entry| entry.path()).chain([mount.clone()]);
        hierarchies.map(|path| path.join(format!("skep-test-{}", self.id))).filter(|path| path.exists()).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).output();
    }
}

/// The exit code of an orphan of the runtime.
pub(crate) fn wait(pid: i32) -> i32 {
    use nix::sys::wait::{WaitStatus, waitpid};
    match waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap() {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

fn spec(args: &[&str], id: &str) -> Value {
    let mount = |destination: &str, kind: &str, options: &str| json!({ "destination": destination, "type": kind, "source": kind, "options": options.split(',').collect::<Vec<_>>() });
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "hostname": "inside",
        "process": {
            "args": args,
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0, "additionalGids": [0, 10] },
            "capabilities": { "bounding": CAPABILITIES, "permitted": CAPABILITIES, "effective": CAPABILITIES },
        },
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/sys", "sysfs", "ro,nosuid,noexec,nodev"),
            mount("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=1m"),
        ],
        "linux": {
            "cgroupsPath": format!("/skep-test-{id}/{id}"),
            "namespaces": [
                { "type": "mount" }, { "type": "network" }, { "type": "uts" },
                { "type": "pid" }, { "type": "ipc" }, { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
            "resources": { "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
            ]},
        },
    })
}
