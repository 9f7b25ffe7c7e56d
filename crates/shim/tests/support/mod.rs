//! A container of a test: its directory, its shim, and a client that waits for each answer.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shim::launch::{ExitRecord, Launch, LogDriver, LogSpec, Readiness, RuntimeCommand, SignalPath};
use shim::protocol::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A container of a test; deleted when dropped.
pub(crate) struct Container {
    root: tempfile::TempDir,
    pub(crate) launch: Launch,
    pub(crate) pid: i32,
    pub(crate) shim_pid: i32,
}

impl Container {
    /// A launch for a container that runs `args`; `change` may alter it.
    pub(crate) fn prepare(args: &[&str], change: impl FnOnce(&mut Launch)) -> Container {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("shim/c1");
        let bundle = directory.join("bundle");
        fs::create_dir_all(&bundle).unwrap();
        let mut launch = Launch {
            version: VERSION,
            container: "c1".to_owned(),
            bundle: bundle.clone(),
            runtime: RuntimeCommand {
                program: env!("CARGO_BIN_EXE_shim-test-roles").into(),
                fd: None,
                args: vec!["runtime".to_owned()],
                root: Some(root.path().join("runtime")),
                systemd_cgroup: false,
                signals: SignalPath::Direct,
            },
            terminal: false,
            size: None,
            open_stdin: false,
            stdin_once: false,
            log: LogSpec { driver: LogDriver::JsonFile, path: root.path().join("c1-json.log"), ..LogSpec::default() },
            exit_record: root.path().join("exit.json"),
            memory_cgroup: None,
            oom_score_adj: None,
            attach_stall_ms: 0,
        };
        change(&mut launch);
        let config = json!({"process": {"args": args, "terminal": launch.terminal}});
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        fs::write(directory.join("launch.json"), serde_json::to_vec(&launch).unwrap()).unwrap();
        Container { root, launch, pid: 0, shim_pid: 0 }
    }

    /// Starts the shim, which creates the container.
    pub(crate) fn spawn(&mut self) -> Readiness {
        self.spawn_with(Stdio::null())
    }

    /// The same with something as the shim's stdin.
    pub(crate) fn spawn_with(&mut self, stdin: Stdio) -> Readiness {
        let mut child = Command::new(env!("CARGO_BIN_EXE_shim-test-roles"))
            .arg("shim")
            .arg(self.directory().join("launch.json"))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(child.wait().unwrap().success());
        let readiness = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        if let Readiness::Ready { pid, shim_pid } = readiness {
            (self.pid, self.shim_pid) = (pid, shim_pid);
        }
        readiness
    }

    /// A created container.
    pub(crate) fn create(args: &[&str], change: impl FnOnce(&mut Launch)) -> Container {
        let mut container = Container::prepare(args, change);
        let readiness = container.spawn();
        assert!(matches!(readiness, Readiness::Ready { .. }), "{readiness:?}");
        container
    }

    /// A created container that runs a shell script.
    pub(crate) fn script(script: &str, change: impl FnOnce(&mut Launch)) -> Container {
        Container::create(&["/bin/sh", "-c", script], change)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.root.path().join("shim/c1")
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.directory())
    }

    /// Asks on a connection of its own.
    pub(crate) fn ask(&self, request: Request) -> Answer {
        self.client().ask(request)
    }

    pub(crate) fn done(&self, request: Request) {
        let answer = self.ask(request);
        assert!(matches!(answer, Answer::Done), "{answer:?}");
    }

    pub(crate) fn state(&self) -> ContainerState {
        match self.ask(Request::State) {
            Answer::State(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the container's end.
    pub(crate) fn wait(&self) -> ExitRecord {
        let mut client = self.client();
        let Answer::State(state) = client.ask(Request::Subscribe) else { panic!("no state") };
        if let Some(exit) = state.exit {
            return exit;
        }
        loop {
            if let Event::Exited(record) = client.event() {
                return record;
            }
        }
    }

    pub(crate) fn start_and_wait(&self) -> ExitRecord {
        self.done(Request::Start);
        self.wait()
    }

    /// The log's lines.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.launch.log.path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What was logged of one stream.
    pub(crate) fn logged(&self, stream: &str) -> String {
        self.log().iter().filter(|l| l["stream"] == stream).map(|l| l["log"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn exec(&self, id: &str, args: &[&str], change: impl FnOnce(&mut ExecStart)) -> (Answer, Client) {
        let mut exec = ExecStart {
            id: id.to_owned(),
            process: json!({"args": args, "cwd": "/"}),
            terminal: false,
            size: None,
            stdin: false,
            mode: ExecMode::Attached,
        };
        change(&mut exec);
        let mut client = self.client();
        (client.ask(Request::ExecStart(exec)), client)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Ok(stream) = UnixStream::connect(self.directory().join(SOCKET_NAME)) {
            let mut client = Client { stream };
            client.send(Request::Delete { running: IfRunning::Kill });
            let _ = client.stream.read_to_end(&mut Vec::new());
        }
        // In case it hangs, which has failed the test already; its number is not used anew that fast.
        if std::thread::panicking() && self.shim_pid > 0 && !has_ended(self.shim_pid) {
            let comm = fs::read_to_string(format!("/proc/{}/comm", self.shim_pid)).unwrap_or_default();
            if comm.trim() == "skep-shim" {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(self.shim_pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// One connection to a shim.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

impl Client {
    pub(crate) fn connect(directory: &Path) -> Client {
        let stream = UnixStream::connect(directory.join(SOCKET_NAME)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    pub(crate) fn send(&mut self, request: Request) {
        let payload = serde_json::to_vec(&Call { seq: 7, request }).unwrap();
        self.send_frame(FrameKind::Control, &payload);
    }

    pub(crate) fn send_frame(&mut self, kind: FrameKind, payload: &[u8]) {
        // A shim that is gone shows when the answer is read.
        let _ = self.stream.write_all(&[&encode_head(kind, payload.len())[..], payload].concat());
    }

    pub(crate) fn frame(&mut self) -> (FrameKind, Vec<u8>) {
        let mut head = [0; FRAME_HEAD];
        self.stream.read_exact(&mut head).unwrap();
        let (kind, length) = decode_head(head).unwrap();
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        (kind, payload)
    }

    pub(crate) fn message(&mut self) -> Message {
        let (kind, payload) = self.frame();
        assert_eq!(kind, FrameKind::Control);
        serde_json::from_slice(&payload).unwrap()
    }

    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        self.send(request);
        match self.message() {
            Message::Reply { seq: 7, answer } => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn event(&mut self) -> Event {
        match self.message() {
            Message::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    /// Reads until the process has written `text`; what it wrote so far.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            let (kind, payload) = self.frame();
            assert!(matches!(kind, FrameKind::Stdout | FrameKind::Stderr), "after {all:?}");
            all.push_str(&String::from_utf8_lossy(&payload));
        }
        all
    }

    /// Reads a stream to its end: stdout, stderr, the last word.
    pub(crate) fn read_stream(&mut self) -> (Vec<u8>, Vec<u8>, End) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.frame() {
                (FrameKind::Stdout, payload) => stdout.extend(payload),
                (FrameKind::Stderr, payload) => stderr.extend(payload),
                (FrameKind::Control, payload) => match serde_json::from_slice(&payload).unwrap() {
                    Message::End(end) => return (stdout, stderr, end),
                    other => panic!("{other:?}"),
                },
                (FrameKind::Stdin, _) => panic!("stdin from the shim"),
            }
        }
    }
}

/// Awaits a condition that only looking can tell.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process is over, if perhaps not yet reaped by whoever has to.
pub(crate) fn has_ended(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}
