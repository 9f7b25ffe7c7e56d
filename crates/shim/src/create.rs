//! The runtime's `create`, before the shim serves anybody: waits for it, takes the terminal, finds the first process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;

use nix::sys::signalfd::SignalFd;

use crate::clock;
use crate::launch::Launch;
use crate::limits::READ_BYTES;
use crate::runtime_command::{Invocation, Runtime, args};
use crate::stdio::{Output, ProcessIo, Wiring};
use crate::sys::{self, ChildExit};

/// Name of the first process's pid file, in the shim's directory.
const PID_FILE: &str = "init.pid";

/// A created container.
pub(crate) struct Created {
    /// Its first process.
    pub(crate) pid: i32,
    /// Its streams.
    pub(crate) io: ProcessIo,
    /// Children that have ended meanwhile; the first process may be among them.
    pub(crate) ended: Vec<(i32, ChildExit)>,
}

/// Runs `create`. The working directory is the shim's. On failure nothing is left of the container, and the error is the
/// runtime's text.
pub(crate) fn create(launch: &Launch, runtime: &Runtime, signals: &SignalFd) -> Result<Created, String> {
    let wiring = match (launch.terminal, launch.open_stdin) {
        (true, _) => Wiring::Terminal,
        (false, true) => Wiring::InputAndOutput,
        (false, false) => Wiring::Output,
    };
    let text = |e: io::Error| e.to_string();
    let (mut io, child_io) = ProcessIo::new(wiring).map_err(text)?;
    let console = io.is_terminal().then(|| Console::listen("console.sock")).transpose().map_err(text)?;
    let mut command = args(["create"]);
    command.extend(["--bundle".into(), launch.bundle.clone().into(), "--pid-file".into(), own_path(PID_FILE).into()]);
    if let Some(console) = &console {
        command.extend(args(["--console-socket", &console.path()]));
    }
    command.push(runtime.container().into());
    let invocation = runtime.start_with(command, Vec::new(), child_io).map_err(text)?;
    let mut ended = Vec::new();
    let mut received = Ok(());
    let code = wait(signals, &invocation, console.as_ref(), &mut ended, |listener| {
        received = io.receive_terminal(listener, launch.size);
    })
    .map_err(text)?;
    // Before `start` only the runtime itself can have written something there.
    let noise = drain(&mut io);
    let pid = read_pid(PID_FILE);
    if code == 0
        && received.is_ok()
        && let Some(pid) = pid
    {
        return Ok(Created { pid, io, ended });
    }
    let message = match received {
        Err(e) if code == 0 => format!("the container's terminal: {e}"),
        _ if code == 0 => "the runtime wrote no pid file".to_owned(),
        _ => invocation.error_text(code, &noise),
    };
    if let Ok(delete) = runtime.start(args(["delete", "--force", runtime.container()])) {
        let _ = wait(signals, &delete, None, &mut ended, |_| {});
    }
    Err(message)
}

/// The process id in the pid file `name`, which is removed.
pub(crate) fn read_pid(name: &str) -> Option<i32> {
    let text = fs::read_to_string(name).ok()?;
    let _ = fs::remove_file(name);
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

/// A name in the shim's directory as others reach it: short, whatever the directory is called.
pub(crate) fn own_path(name: &str) -> String {
    format!("/proc/{}/cwd/{name}", std::process::id())
}

/// A socket on which the runtime hands over a terminal; gone when dropped.
pub(crate) struct Console {
    /// The socket.
    pub(crate) listener: UnixListener,
    name: String,
}

impl Console {
    /// Listens at `name` in the shim's directory.
    pub(crate) fn listen(name: &str) -> io::Result<Console> {
        let _ = fs::remove_file(name);
        let listener = UnixListener::bind(name)?;
        listener.set_nonblocking(true)?;
        Ok(Console { listener, name: name.to_owned() })
    }

    /// For the runtime.
    pub(crate) fn path(&self) -> String {
        own_path(&self.name)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.name);
    }
}

/// What is there to read now, at most one buffer of it.
pub(crate) fn drain(io: &mut ProcessIo) -> Vec<u8> {
    let mut noise = Vec::new();
    if !io.is_terminal() {
        let mut buffer = vec![0; READ_BYTES];
        for output in Output::ALL {
            if let Some(length) = io.read(output, &mut buffer) {
                noise.extend_from_slice(&buffer[..length]);
            }
        }
    }
    noise
}

/// Waits for the end of `invocation`; its exit code. Others that end meanwhile are added to `ended`.
fn wait(
    signals: &SignalFd,
    invocation: &Invocation,
    console: Option<&Console>,
    ended: &mut Vec<(i32, ChildExit)>,
    mut connected: impl FnMut(&UnixListener),
) -> io::Result<i32> {
    let entry = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut console = console;
    loop {
        let left = invocation.deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            sys::kill(invocation.pid, libc::SIGKILL)?;
        }
        let console_fd = console.map_or(-1, |c| c.listener.as_raw_fd());
        let mut fds = [entry(signals.as_fd().as_raw_fd()), entry(console_fd)];
        sys::poll(&mut fds, if left.is_zero() { -1 } else { left.as_millis() as i32 + 1 })?;
        if fds[1].revents != 0
            && let Some(console) = console.take()
        {
            connected(&console.listener);
        }
        while let Ok(Some(_)) = signals.read_signal() {}
        let mut code = None;
        // All of them: the signal of one that is left would not come again.
        while let Some((pid, exit)) = sys::reap() {
            match pid == invocation.pid {
                true => code = Some(exit.code),
                false => ended.push((pid, exit)),
            }
        }
        if let Some(code) = code {
            if let Some(console) = console {
                // It may have connected and ended between two looks.
                connected(&console.listener);
            }
            return Ok(code);
        }
    }
}
