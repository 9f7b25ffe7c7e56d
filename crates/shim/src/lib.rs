//! `skep shim <launch.json>`: the small process beside each container. It executes the OCI runtime, holds the container's
//! streams, writes its log, records its exit, and answers the engine on a unix socket. It outlives the engine, which finds
//! it again by its directory `<exec root>/shim/<container id>/`.
//!
//! ```text
//!  engine                       shim                                     runtime            container
//!    │ launch.json, spawn         │                                         │
//!    ├───────────────────────────►│ fork, setsid, subreaper                 │
//!    │                            ├── create ──────────────────────────────►├── init waits ─────► │
//!    │     {"failed": text} ◄─────┤◄─ exit ≠ 0: delete --force, end         │                     │
//!    │     {"ready": pid}   ◄─────┤◄─ exit 0: listen on shim.sock           │                     │
//!    ├── start ──────────────────►├── start ───────────────────────────────►├── exec ─────────────►│
//!    │     reply or error   ◄─────┤◄─ exit ≠ 0: the text; init still waits, the engine deletes    │
//!    │                            │                                                               │
//!    │  output frames       ◄─────┤◄══════════════ pipes or terminal ═════════════════════════════│
//!    │                            ├─► json-file (disk full: counted, dropped)                     │
//!    │                            │                                                               │
//!    │                            │◄───────────────────────────── SIGCHLD ────────────────────────┘
//!    │                            ├─ drain the pipes, at most `limits::DRAIN_MS`
//!    │                            ├─ exit record: write, fsync, rename
//!    │  exited, ends        ◄─────┤
//!    │                            │  waits for `delete`, however long: a dead engine's successor connects and asks `state`
//!    ├── delete ─────────────────►├── delete --force ──────────────────────► │
//!    │     reply            ◄─────┤ after removing socket and directory; ends
//! ```
//!
//! When the shim itself is killed, the container's pipes break, its exit goes to the reaper above, and no record is
//! written: the engine sees the socket refuse, and reports the exit as unknown.
//!
//! One thread, one `poll` loop, no async runtime; an idle shim owns little memory (`limits::IDLE_MS` after the last work it
//! gives back what it used).

#![deny(unsafe_op_in_unsafe_fn)]

mod clock;
mod connection;
mod container;
mod create;
mod ending;
mod exec;
pub mod launch;
pub mod limits;
mod log;
mod oom;
pub mod protocol;
mod requests;
mod runtime_command;
mod server;
mod stdio;
mod sys;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use launch::{Launch, Readiness};
use protocol::SOCKET_NAME;
use runtime_command::Runtime;
use server::Server;

/// The shim's own words, in its directory; empty unless something is wrong.
const LOG_NAME: &str = "shim.log";
/// Mode of files that containers leave to their spec, as dockerd sets it.
const UMASK: u32 = 0o022;

/// Runs the shim whose launch file is the only argument, in the background: the caller's process ends with 0 at once, and
/// the shim writes one line of [`Readiness`] to the stdout it was given. Returns an exit code.
///
/// Must be called before the process has a second thread.
pub fn main(args: impl Iterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.collect();
    let [path] = &args[..] else {
        eprintln!("usage: skep shim <launch.json>");
        return 2;
    };
    let outcome = sys::detach().map_err(|e| e.to_string()).and_then(|()| prepare(Path::new(path)));
    let server = match outcome {
        Ok(server) => server,
        Err(message) => {
            tell(&Readiness::Failed { message });
            return 1;
        }
    };
    tell(&Readiness::Ready { pid: server.container.pid, shim_pid: std::process::id() as i32 });
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = sys::replace_stream(&null, 1);
    }
    match server.run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the shim's loop: {error}");
            1
        }
    }
}

/// Everything up to the point where clients can be served.
fn prepare(path: &Path) -> Result<Server, String> {
    let at = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| format!("{what}: {e}")
    };
    let text = fs::read(path).map_err(at("reading the launch file"))?;
    let launch: Launch = serde_json::from_slice(&text).map_err(|e| format!("the launch file: {e}"))?;
    // Before stdin is replaced: the program may come that way.
    let runtime = Runtime::new(&launch).map_err(at("the runtime's program"))?;
    enter_directory(path).map_err(at("entering the shim's directory"))?;
    sys::become_subreaper().map_err(at("becoming a subreaper"))?;
    if let Some(score) = launch.oom_score_adj {
        // Best effort: lowering needs a capability.
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    let signals = sys::take_signals().map_err(at("signals"))?;
    let created = create::create(&launch, &runtime, &signals)?;
    let listener = listen().map_err(at("listening"))?;
    let oom = oom::OomWatch::open(launch.memory_cgroup.as_deref(), created.pid);
    if let Err(error) = &oom {
        eprintln!("watching memory: {error}");
    }
    let mut server = Server {
        runtime,
        signals,
        listener,
        container: container::Container::new(created.pid, created.io),
        log: log::Log::open(&launch.log),
        oom: oom.ok(),
        launch,
        connections: Vec::new(),
        next_connection: 0,
        jobs: Vec::new(),
        execs: Vec::new(),
        next_exec: 0,
        ended_execs: VecDeque::new(),
        orphans: Vec::new(),
        scratch: sys::Scratch::new().map_err(at("memory"))?,
        deleted: None,
    };
    for (pid, exit) in created.ended {
        server.child_ended(pid, exit);
    }
    server.orphans = Vec::new();
    Ok(server)
}

/// The shim works in its own directory, so that names there are short; its words go to a file there.
fn enter_directory(launch_path: &Path) -> io::Result<()> {
    let directory = launch_path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::env::set_current_dir(directory)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(UMASK));
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(LOG_NAME)?;
    sys::replace_stream(&log, 2)?;
    sys::replace_stream(&File::open("/dev/null")?, 0)
}

fn listen() -> io::Result<UnixListener> {
    let _ = fs::remove_file(SOCKET_NAME);
    let listener = UnixListener::bind(SOCKET_NAME)?;
    fs::set_permissions(SOCKET_NAME, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The line for whoever started the shim, who may be gone.
fn tell(readiness: &Readiness) {
    let mut line = serde_json::to_vec(readiness).expect("it has only string keys");
    line.push(b'\n');
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
}

/// Removes what is known to be the shim's, by name: if a mount were left below the directory, deleting everything would
/// delete what is mounted. Directories go only when they are empty. Done before the last reply: after it the engine may start
/// the next shim in the same directory.
fn remove_own_files(bundle: &Path) {
    let own = [SOCKET_NAME, LOG_NAME, launch::LAUNCH_NAME].map(PathBuf::from);
    for file in own.into_iter().chain([bundle.join("config.json")]) {
        let _ = fs::remove_file(file);
    }
    let directory = std::env::current_dir();
    let _ = fs::remove_dir(bundle.join("rootfs"));
    let _ = fs::remove_dir(bundle);
    if let Ok(directory) = directory {
        let _ = fs::remove_dir(directory);
    }
}
