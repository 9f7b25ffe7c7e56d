//! Further processes in the container: from the runtime's `exec` to the last frame of their stream.
//!
//! An exec is known by its serial number from the request on, by its process id once the runtime has written its pid file.
//! If it ends before that, its end waits in `Server::orphans`.

use std::ffi::OsString;
use std::time::Instant;

use crate::connection::{ConnectionId, Role};
use crate::container::Ended;
use crate::create::{Console, drain, own_path, read_pid};
use crate::ending::ended_now;
use crate::limits;
use crate::protocol::{Answer, End, EndReason, ErrorKind, Event, ExecMode, ExecStart, ExecState, Status, WindowSize};
use crate::runtime_command::{Invocation, args};
use crate::server::{Caller, Job, Purpose, Server};
use crate::stdio::{Output, ProcessIo, Wiring};
use crate::sys;

/// One more process in the container.
pub(crate) struct Exec {
    /// Its number, never used twice.
    pub(crate) serial: u64,
    /// The engine's name for it.
    pub(crate) id: String,
    /// 0 while the runtime is at work.
    pub(crate) pid: i32,
    /// Its streams.
    pub(crate) io: ProcessIo,
    /// Where the runtime hands its terminal over, until it has.
    pub(crate) console: Option<Console>,
    /// First size of the terminal.
    pub(crate) size: Option<WindowSize>,
    /// The connection its output goes to.
    pub(crate) stream: Option<ConnectionId>,
    /// It has ended.
    pub(crate) exit: Option<Ended>,
}

impl Exec {
    fn state(&self) -> ExecState {
        ExecState { id: self.id.clone(), pid: self.pid, exit_code: None, exited_at: None }
    }
}

impl Server {
    /// Begins an exec; the reply comes when the runtime is done.
    pub(crate) fn exec_start(&mut self, caller: Caller, request: ExecStart) -> Result<(), (ErrorKind, String)> {
        if !matches!(self.container.status, Status::Running | Status::Paused) || !self.container.alive() {
            return Err((ErrorKind::NotRunning, "the container does not run".to_owned()));
        }
        if self.execs.iter().any(|exec| exec.id == request.id) {
            return Err((ErrorKind::Exists, format!("exec {} exists", request.id)));
        }
        if self.execs.len() >= limits::EXECS {
            return Err((ErrorKind::Limit, format!("{} execs run already", limits::EXECS)));
        }
        self.next_exec += 1;
        let serial = self.next_exec;
        self.run_exec(serial, caller, request).map_err(|e| (ErrorKind::Internal, e.to_string()))
    }

    fn run_exec(&mut self, serial: u64, caller: Caller, mut request: ExecStart) -> std::io::Result<()> {
        let wiring = match (request.terminal, request.mode, request.stdin) {
            (true, ..) => Wiring::Terminal,
            (false, ExecMode::Detached, _) => Wiring::Nothing,
            (false, ExecMode::Attached, true) => Wiring::InputAndOutput,
            (false, ExecMode::Attached, false) => Wiring::Output,
        };
        let Some(document) = request.process.as_object_mut() else {
            return Err(std::io::Error::other("the process document is no object"));
        };
        document.insert("terminal".to_owned(), request.terminal.into());
        let process = sys::memory_file(&serde_json::to_vec(&request.process)?)?;
        let (io, child_io) = ProcessIo::new(wiring)?;
        let console = io.is_terminal().then(|| Console::listen(&format!("exec-{serial}.sock"))).transpose()?;
        let mut command = args(["exec", "--detach", "--process", &sys::proc_path(&process)]);
        command.extend(args(["--pid-file", &own_path(&pid_file(serial))]));
        if let Some(console) = &console {
            command.extend(args(["--console-socket", &console.path()]));
        }
        command.push(OsString::from(self.runtime.container()));
        let invocation = self.runtime.start_with(command, vec![process], child_io)?;
        let stream = (request.mode == ExecMode::Attached).then_some(caller.connection);
        self.jobs.push(Job { invocation, purpose: Purpose::Exec(serial), caller });
        self.execs.push(Exec { serial, id: request.id, pid: 0, io, console, size: request.size, stream, exit: None });
        Ok(())
    }

    /// The runtime's `exec` has ended: the process runs, or not.
    pub(crate) fn exec_job_ended(&mut self, serial: u64, invocation: &Invocation, code: i32, caller: Caller) {
        self.receive_exec_terminal(serial);
        let Some(place) = self.execs.iter().position(|exec| exec.serial == serial) else { return };
        let pid = read_pid(&pid_file(serial));
        let (0, Some(pid)) = (code, pid) else {
            let mut exec = self.execs.remove(place);
            let message = invocation.error_text(code, &drain(&mut exec.io));
            self.reply(caller, Answer::Error { kind: ErrorKind::Runtime, message });
            return;
        };
        let orphan = self.orphans.iter().position(|(orphan, _)| *orphan == pid);
        let exit = orphan.map(|place| self.orphans.swap_remove(place).1);
        let exec = &mut self.execs[place];
        exec.pid = pid;
        exec.exit = exit.map(ended_now);
        let (id, stream) = (exec.id.clone(), exec.stream);
        self.reply(caller, Answer::Exec { pid });
        if stream.is_some() {
            match self.connections.iter_mut().find(|c| c.id == caller.connection) {
                Some(connection) => connection.role = Role::Exec(id),
                None => {
                    self.execs[place].stream = None;
                    self.execs[place].io.end_input();
                }
            }
        }
    }

    /// Takes the terminal of an exec if the runtime has connected.
    pub(crate) fn receive_exec_terminal(&mut self, serial: u64) {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.serial == serial) else { return };
        let Some(console) = exec.console.take() else { return };
        if let Err(error) = exec.io.receive_terminal(&console.listener, exec.size) {
            eprintln!("terminal of exec {}: {error}", exec.id);
        }
    }

    /// Moves an exec's output to its client; without one it is dropped.
    pub(crate) fn pump_exec(&mut self, serial: u64, output: Output) {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.serial == serial) else { return };
        let mut client = self.connections.iter_mut().find(|c| Some(c.id) == exec.stream);
        let buffer = self.scratch.bytes();
        if let Some(length) = exec.io.read(output, buffer)
            && let Some(client) = &mut client
        {
            client.send_frame(output.frame(), &buffer[..length]);
        }
    }

    /// Finishes execs that have ended and are drained.
    pub(crate) fn finish_execs(&mut self, now: Instant) {
        let over = |exec: &Exec| {
            exec.pid != 0 && exec.exit.as_ref().is_some_and(|end| exec.io.output_ended() || now >= end.drain_until)
        };
        while let Some(place) = self.execs.iter().position(over) {
            let exec = self.execs.remove(place);
            let Some(end) = &exec.exit else { continue };
            let code = end.exit.code;
            let state = ExecState { exit_code: Some(code), exited_at: Some(end.at.clone()), ..exec.state() };
            if let Some(client) = self.connections.iter_mut().find(|c| Some(c.id) == exec.stream) {
                client.end_stream(End { reason: EndReason::Exited, exit_code: Some(code) });
            }
            if self.ended_execs.len() >= limits::EXECS_ENDED {
                self.ended_execs.pop_front();
            }
            self.ended_execs.push_back(state.clone());
            self.publish(&Event::ExecExited(state));
        }
    }

    /// An exec that runs.
    pub(crate) fn running_exec(&self, id: &str) -> Result<&Exec, (ErrorKind, String)> {
        match self.execs.iter().find(|exec| exec.id == id) {
            Some(exec) if exec.pid != 0 && exec.exit.is_none() => Ok(exec),
            Some(_) => Err((ErrorKind::NotRunning, format!("exec {id} does not run"))),
            None if self.ended_execs.iter().any(|exec| exec.id == id) => {
                Err((ErrorKind::NotRunning, format!("exec {id} has ended")))
            }
            None => Err((ErrorKind::NotFound, format!("no exec {id}"))),
        }
    }

    /// Every exec that is known, the ended ones first.
    pub(crate) fn exec_states(&self) -> impl Iterator<Item = ExecState> {
        self.ended_execs.iter().cloned().chain(self.execs.iter().map(Exec::state))
    }
}

fn pid_file(serial: u64) -> String {
    format!("exec-{serial}.pid")
}
