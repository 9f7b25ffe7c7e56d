//! Times of the runtime's commands, against another runtime if `BENCH_RUNTIME` names one (runc, crun).
//!
//! Prints the median and the 90th percentile of create + start + delete, of exec, and of 16 execs at once.
//! `cargo bench -p runtime`; `BENCH_RUNS` sets the repetitions (100).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Bench {
    runtime: PathBuf,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(runtime: &Path) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "etc"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
        fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"];
        let filter = ["acct", "bpf", "kexec_load", "mount", "umount2", "swapon", "reboot", "keyctl", "unshare"];
        let process = |args: &[&str]| {
            serde_json::json!({
                "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": capabilities, "permitted": capabilities, "effective": capabilities },
            })
        };
        let namespaces = ["mount", "network", "uts", "pid", "ipc"].map(|kind| serde_json::json!({ "type": kind }));
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": process(&["/bin/busybox", "sleep", "1000"]),
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
            ],
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": format!("/skep-bench-{}/x", std::process::id()),
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/scsi"], "readonlyPaths": ["/proc/sys"],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{ "names": filter, "action": "SCMP_ACT_ERRNO" }],
                },
            },
        });
        fs::write(dir.path().join("config.json"), spec.to_string()).unwrap();
        fs::write(dir.path().join("process.json"), process(&["/bin/busybox", "true"]).to_string()).unwrap();
        Bench { runtime: runtime.to_owned(), dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.dir.path().join("state")).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) {
        assert!(self.command(args).status().unwrap().success(), "{args:?}");
    }

    fn start(&self) {
        self.run(&["create", "x"]);
        self.run(&["start", "x"]);
    }

    fn delete(&self) {
        self.run(&["delete", "--force", "x"]);
    }
}

fn report(name: &str, what: &str, runs: usize, mut once: impl FnMut()) {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            once();
            begin.elapsed()
        })
        .collect();
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1_000.0;
    println!("{name:>12}  {what:<26} median {:6.2} ms   p90 {:6.2} ms", at(50), at(90));
}

fn main() {
    let runs = std::env::var("BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(100);
    let other = std::env::var_os("BENCH_RUNTIME").map(PathBuf::from);
    let ours = Path::new(env!("CARGO_BIN_EXE_skep-runtime"));
    for runtime in [Some(ours), other.as_deref()].into_iter().flatten() {
        let name = runtime.file_name().unwrap().to_string_lossy().into_owned();
        let bench = Bench::new(runtime);
        report(&name, "create + start + delete", runs, || {
            bench.start();
            bench.delete();
        });
        bench.start();
        report(&name, "exec", runs, || bench.run(&["exec", "--process", "process.json", "x"]));
        report(&name, "16 execs at once", runs.div_ceil(10), || {
            let spawn = |_| bench.command(&["exec", "--process", "process.json", "x"]).spawn().unwrap();
            let children: Vec<_> = (0..16).map(spawn).collect();
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
        });
        bench.delete();
    }
}
