//! The loop of a shim that serves: polls, moves bytes, and calls what belongs to each thing that is ready.
//!
//! One thread owns everything here. Nothing in it waits except `poll`, and the fsync of the exit record. The calls of
//! clients are in `requests`, ends of processes in `ending`, execs in `exec`.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;

use crate::clock;
use crate::connection::{Connection, ConnectionId, Received, Role};
use crate::container::Container;
use crate::exec::Exec;
use crate::launch::Launch;
use crate::limits;
use crate::log::Log;
use crate::oom::OomWatch;
use crate::protocol::{Answer, End, EndReason, Event, ExecState, Message};
use crate::runtime_command::{Invocation, Runtime};
use crate::stdio::Output;
use crate::sys::{self, ChildExit, Scratch};

/// Reads of one stream in a row before the others get their turn.
const READS_IN_A_ROW: usize = 8;

/// Whom a reply goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// The connection, if it is still there.
    pub(crate) connection: ConnectionId,
    /// The call's number.
    pub(crate) seq: u64,
}

/// What a runtime command at work is for.
pub(crate) enum Purpose {
    /// `start`, begun at this time.
    Start(String),
    /// `pause`.
    Pause,
    /// `resume`.
    Resume,
    /// Nothing depends on it but the reply.
    Plain,
    /// `delete`: the shim ends after it.
    Delete,
    /// `exec`, with the exec's number.
    Exec(u64),
}

/// A runtime command at work.
pub(crate) struct Job {
    /// The command.
    pub(crate) invocation: Invocation,
    /// What follows from its end.
    pub(crate) purpose: Purpose,
    /// Who waits for it.
    pub(crate) caller: Caller,
}

/// What a polled descriptor belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Oom,
    Connection(ConnectionId),
    Input,
    Output(Output),
    ExecInput(u64),
    ExecOutput(u64, Output),
    ExecConsole(u64),
}

/// A serving shim.
pub(crate) struct Server {
    pub(crate) launch: Launch,
    pub(crate) runtime: Runtime,
    pub(crate) signals: SignalFd,
    pub(crate) listener: UnixListener,
    pub(crate) container: Container,
    pub(crate) log: Log,
    pub(crate) oom: Option<OomWatch>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) next_connection: u64,
    pub(crate) jobs: Vec<Job>,
    pub(crate) execs: Vec<Exec>,
    pub(crate) next_exec: u64,
    pub(crate) ended_execs: VecDeque<ExecState>,
    /// Ends of children nobody knows yet: of an exec whose pid file is not read.
    pub(crate) orphans: Vec<(i32, ChildExit)>,
    pub(crate) scratch: Scratch,
    /// The runtime has deleted the container; who waits for the shim's end, and how long the exit is awaited at most.
    pub(crate) deleted: Option<(Caller, Instant)>,
}

impl Server {
    /// Serves until the container is deleted.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let (mut fds, mut sources) = (Vec::new(), Vec::new());
        let mut idle_from = clock::now();
        loop {
            self.settle();
            if self.deleted.is_some() && self.container.ended() {
                crate::remove_own_files(&self.launch.bundle);
                self.say_goodbye();
                return Ok(());
            }
            fds.clear();
            sources.clear();
            self.interests(|fd, events, source| {
                fds.push(libc::pollfd { fd, events, revents: 0 });
                sources.push(source);
            });
            let now = clock::now();
            let give_back = self.scratch.used().then(|| clock::after_ms(idle_from, limits::IDLE_MS));
            sys::poll(&mut fds, timeout_ms(now, self.next_deadline(now).into_iter().chain(give_back).min()))?;
            let mut idle = true;
            for (fd, source) in fds.iter().zip(&sources) {
                if fd.revents != 0 {
                    idle = false;
                    self.handle(*source, fd.revents);
                }
            }
            if !idle {
                idle_from = clock::now();
            } else if give_back.is_some_and(|at| at <= clock::now()) {
                self.log.shrink();
                self.connections.shrink_to_fit();
                self.scratch.give_back();
            }
        }
    }

    /// Everything to poll.
    fn interests(&self, mut add: impl FnMut(RawFd, i16, Source)) {
        let (input, output) = (libc::POLLIN, libc::POLLOUT);
        add(self.signals.as_fd().as_raw_fd(), input, Source::Signals);
        add(self.listener.as_raw_fd(), input, Source::Listener);
        if let Some(oom) = &self.oom
            && !self.container.ended()
        {
            let (fd, events) = oom.poll();
            add(fd.as_raw_fd(), events.bits(), Source::Oom);
        }
        let io = &self.container.io;
        if let Some(fd) = io.input_waits() {
            add(fd.as_raw_fd(), output, Source::Input);
        }
        let attachers_wait = self.connections.iter().any(|c| matches!(c.role, Role::Attach(_)) && c.is_full());
        for stream in Output::ALL {
            if let Some(fd) = io.output(stream)
                && (!attachers_wait || self.container.exit.is_some())
            {
                add(fd.as_raw_fd(), input, Source::Output(stream));
            }
        }
        for exec in &self.execs {
            self.exec_interests(exec, &mut add);
        }
        for connection in &self.connections {
            let takes_input = self.takes_input(connection);
            if connection.input_open && !takes_input && !connection.has_queue() {
                // Not even its hang-up: what it has sent is read first.
                continue;
            }
            let mut events = 0;
            if connection.input_open && takes_input {
                events |= input;
            }
            if connection.has_queue() {
                events |= output;
            }
            add(connection.stream.as_raw_fd(), events, Source::Connection(connection.id));
        }
    }

    fn exec_interests(&self, exec: &Exec, add: &mut impl FnMut(RawFd, i16, Source)) {
        if let Some(console) = &exec.console {
            add(console.listener.as_raw_fd(), libc::POLLIN, Source::ExecConsole(exec.serial));
        }
        if let Some(fd) = exec.io.input_waits() {
            add(fd.as_raw_fd(), libc::POLLOUT, Source::ExecInput(exec.serial));
        }
        let client_waits = self.connections.iter().any(|c| Some(c.id) == exec.stream && c.is_full());
        for stream in Output::ALL {
            // Before the runtime is done its own errors may still come there.
            if let Some(fd) = exec.io.output(stream)
                && exec.pid != 0
                && (!client_waits || exec.exit.is_some())
            {
                add(fd.as_raw_fd(), libc::POLLIN, Source::ExecOutput(exec.serial, stream));
            }
        }
    }

    /// Whether what `connection` sends can be taken now.
    fn takes_input(&self, connection: &Connection) -> bool {
        match &connection.role {
            Role::Control | Role::Subscriber => !connection.is_full(),
            Role::Attach(_) => self.container.io.takes_input(),
            Role::Exec(id) => self.execs.iter().find(|e| e.id == *id).is_none_or(|e| e.io.takes_input()),
            Role::Closing => false,
        }
    }

    fn handle(&mut self, source: Source, revents: i16) {
        match source {
            Source::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Source::Listener => self.accept(),
            Source::Oom => self.look_for_oom(),
            Source::Connection(id) => self.serve_connection(id, revents),
            Source::Input => self.container.io.write_input(),
            Source::Output(output) => self.pump(output),
            Source::ExecInput(serial) => {
                if let Some(exec) = self.execs.iter_mut().find(|e| e.serial == serial) {
                    exec.io.write_input();
                }
            }
            Source::ExecOutput(serial, output) => self.pump_exec(serial, output),
            Source::ExecConsole(serial) => self.receive_exec_terminal(serial),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= limits::CONNECTIONS {
                // One that only has its last words to take makes room; else the new one is closed.
                let Some(oldest) = self.connections.iter().position(|c| c.role == Role::Closing) else { continue };
                self.connections.remove(oldest);
            }
            self.next_connection += 1;
            if let Ok(connection) = Connection::new(ConnectionId(self.next_connection), stream) {
                self.connections.push(connection);
            }
        }
    }

    fn serve_connection(&mut self, id: ConnectionId, revents: i16) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return };
        if revents & libc::POLLOUT != 0 {
            connection.flush();
        }
        if revents & libc::POLLIN == 0 {
            connection.broken |= revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
            return;
        }
        let buffer = self.scratch.bytes();
        let length = connection.read(buffer).unwrap_or(0);
        if length == 0 && !connection.input_open {
            self.input_ended(id);
            return;
        }
        // Calls are rare and short: they are taken out of the buffer before anything else happens.
        let mut decoder = std::mem::take(&mut connection.decoder);
        let mut rest = &buffer[..length];
        let mut calls = Vec::new();
        let mut failed = false;
        let mut stdin_end = false;
        while !rest.is_empty() && !failed {
            match decoder.next(&mut rest) {
                Ok(Some(Received::Control(document))) => calls.push(document),
                Ok(Some(Received::Stdin(bytes))) => match &connection.role {
                    Role::Attach(attach) if attach.stdin => self.container.io.push_input(bytes),
                    Role::Attach(_) | Role::Closing => {}
                    Role::Exec(id) => {
                        if let Some(exec) = self.execs.iter_mut().find(|e| e.id == *id) {
                            exec.io.push_input(bytes);
                        }
                    }
                    Role::Control | Role::Subscriber => failed = true,
                },
                Ok(Some(Received::StdinEnd)) => stdin_end = true,
                Ok(None) => {}
                Err(_) => failed = true,
            }
        }
        connection.decoder = decoder;
        connection.broken |= failed;
        for call in calls {
            self.call(id, &call);
        }
        if stdin_end {
            self.input_ended(id);
        }
    }

    /// A client sends nothing more.
    fn input_ended(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return };
        match &connection.role {
            Role::Attach(attach) if attach.stdin && self.launch.stdin_once => self.container.io.end_input(),
            Role::Attach(_) | Role::Closing => {}
            Role::Exec(id) => {
                if let Some(exec) = self.execs.iter_mut().find(|e| e.id == *id) {
                    exec.io.end_input();
                }
            }
            Role::Control | Role::Subscriber => connection.broken = true,
        }
    }

    /// Moves the container's output into the log and to the attachers.
    fn pump(&mut self, output: Output) {
        for _ in 0..READS_IN_A_ROW {
            let buffer = self.scratch.bytes();
            let Some(length) = self.container.io.read(output, buffer) else { break };
            let data = &buffer[..length];
            self.log.write(output, data);
            for connection in &mut self.connections {
                if let Role::Attach(attach) = &connection.role
                    && (if output == Output::Stdout { attach.stdout } else { attach.stderr })
                {
                    connection.send_frame(output.frame(), data);
                }
            }
            if self.container.exit.is_none() && self.connections.iter().any(Connection::is_full) {
                break;
            }
        }
        if self.container.io.output(output).is_none() {
            self.log.finish(output);
        }
    }

    /// What follows from time and from what happened: ends, cut-offs, closed connections.
    fn settle(&mut self) {
        let now = clock::now();
        self.finish_ended(now);
        let stall_ms =
            if self.launch.attach_stall_ms == 0 { limits::ATTACH_STALL_MS } else { self.launch.attach_stall_ms };
        for connection in &mut self.connections {
            if matches!(connection.role, Role::Attach(_))
                && connection.stalled_since(now).is_some_and(|since| now >= clock::after_ms(since, stall_ms))
            {
                connection.end_stream(End { reason: EndReason::TooSlow, exit_code: None });
            }
            connection.broken |= connection.role == Role::Closing && !connection.has_queue();
        }
        for job in &mut self.jobs {
            if now >= job.invocation.deadline {
                let _ = sys::kill(job.invocation.pid, libc::SIGKILL);
                job.invocation.deadline = clock::after_ms(now, limits::RUNTIME_MS);
            }
        }
        while let Some(place) = self.connections.iter().position(|c| c.broken) {
            let connection = self.connections.remove(place);
            self.dropped(&connection);
        }
    }

    /// A connection is gone.
    fn dropped(&mut self, connection: &Connection) {
        match &connection.role {
            Role::Attach(attach) if attach.stdin && self.launch.stdin_once => self.container.io.end_input(),
            Role::Exec(id) => {
                if let Some(exec) = self.execs.iter_mut().find(|e| e.id == *id) {
                    exec.stream = None;
                    exec.io.end_input();
                }
            }
            _ => {}
        }
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let stall_ms =
            if self.launch.attach_stall_ms == 0 { limits::ATTACH_STALL_MS } else { self.launch.attach_stall_ms };
        let stalls = self.connections.iter_mut().filter(|c| matches!(c.role, Role::Attach(_)));
        let stalls = stalls.filter_map(|c| c.stalled_since(now)).map(|since| clock::after_ms(since, stall_ms));
        let jobs = self.jobs.iter().map(|job| job.invocation.deadline);
        let execs = self.execs.iter().filter_map(|exec| exec.exit.as_ref()).map(|end| end.drain_until);
        let container = self.container.exit.as_ref().filter(|_| !self.container.ended()).map(|end| end.drain_until);
        let deleted = self.deleted.as_ref().map(|(_, until)| *until).filter(|_| self.container.alive());
        stalls.chain(jobs).chain(execs).chain(container).chain(deleted).min()
    }

    /// Replies to a call whose connection may be gone.
    pub(crate) fn reply(&mut self, caller: Caller, answer: Answer) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == caller.connection) {
            connection.send(&Message::Reply { seq: caller.seq, answer });
        }
    }

    /// Tells every subscriber.
    pub(crate) fn publish(&mut self, event: &Event) {
        for connection in self.connections.iter_mut().filter(|c| c.role == Role::Subscriber) {
            connection.send(&Message::Event(event.clone()));
        }
    }

    fn look_for_oom(&mut self) {
        if self.oom.as_mut().is_some_and(OomWatch::killed_since) {
            self.container.oom_killed = true;
            self.publish(&Event::Oom);
        }
    }

    /// The last reply; clients that take nothing are not waited for.
    fn say_goodbye(&mut self) {
        if let Some((caller, _)) = self.deleted.take() {
            self.reply(caller, Answer::Done);
        }
    }
}

/// For `poll`: until `deadline`, at least a millisecond so that it is over afterwards; -1 without one.
fn timeout_ms(now: Instant, deadline: Option<Instant>) -> i32 {
    deadline
        .map_or(-1, |at| at.saturating_duration_since(now).saturating_add(Duration::from_millis(1)).as_millis() as i32)
}
