//! What clients ask: one function per request, all called by the loop.

use std::ffi::OsString;

use crate::clock;
use crate::connection::{ConnectionId, Role};
use crate::launch::SignalPath;
use crate::limits;
use crate::protocol::{
    self, Answer, Attach, Call, ContainerState, End, EndReason, ErrorKind, ExecState, IfRunning, KillTarget, Request,
    Status, WindowSize,
};
use crate::runtime_command::args;
use crate::server::{Caller, Job, Purpose, Server};
use crate::sys;

/// An answer at once, None when it comes later, or why not.
type Outcome = Result<Option<Answer>, (ErrorKind, String)>;

impl Server {
    /// Answers the call in `document`, now or when a runtime command is done.
    pub(crate) fn call(&mut self, connection: ConnectionId, document: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Head {
            seq: u64,
        }
        let (seq, outcome) = match serde_json::from_slice::<Call>(document) {
            Ok(Call { seq, request }) => (seq, self.answer(Caller { connection, seq }, request)),
            Err(error) => {
                let seq = serde_json::from_slice(document).map_or(0, |Head { seq }| seq);
                (seq, Err((ErrorKind::UnknownRequest, error.to_string())))
            }
        };
        let caller = Caller { connection, seq };
        match outcome {
            Ok(Some(answer)) => self.reply(caller, answer),
            Ok(None) => {}
            Err((kind, message)) => self.reply(caller, Answer::Error { kind, message }),
        }
    }

    fn answer(&mut self, caller: Caller, request: Request) -> Outcome {
        match request {
            Request::Hello { version: _ } => Ok(Some(Answer::Hello {
                version: protocol::VERSION,
                container: self.launch.container.clone(),
                shim_pid: std::process::id() as i32,
            })),
            Request::State => Ok(Some(Answer::State(Box::new(self.state())))),
            Request::Start => self.start(caller),
            Request::Kill { signal, target } => self.kill(caller, signal, target),
            Request::Pause => self.run_living(caller, Purpose::Pause, "pause"),
            Request::Resume => self.run_living(caller, Purpose::Resume, "resume"),
            Request::Update { resources } => self.update(caller, &resources),
            Request::Resize(size) => done(self.container.io.resize(size)),
            Request::Attach(attach) => self.attach(caller, attach),
            Request::CloseStdin => {
                self.container.io.end_input();
                Ok(Some(Answer::Done))
            }
            Request::ExecStart(request) => {
                self.jobs_left()?;
                self.exec_start(caller, request).map(|()| None)
            }
            Request::ExecResize { id, size } => self.exec_resize(&id, size),
            Request::ExecKill { id, signal } => done(sys::kill(self.running_exec(&id)?.pid, signal)),
            Request::ExecState { id } => self.exec_state(&id),
            Request::Subscribe => {
                let state = self.state();
                self.set_role(caller.connection, Role::Subscriber);
                Ok(Some(Answer::State(Box::new(state))))
            }
            Request::Delete { running } => self.delete(caller, running),
        }
    }

    fn state(&self) -> ContainerState {
        let attached = self.connections.iter().filter(|c| matches!(c.role, Role::Attach(_))).count();
        ContainerState {
            status: self.container.status,
            pid: self.container.pid,
            started_at: self.container.started_at.clone(),
            exit: self.container.record.clone(),
            oom_killed: self.container.oom_killed,
            execs: self.exec_states().collect(),
            attached: attached as u32,
            log: self.log.health(),
        }
    }

    fn start(&mut self, caller: Caller) -> Outcome {
        let starting = self.jobs.iter().any(|job| matches!(job.purpose, Purpose::Start(_)));
        if !self.container.alive() {
            return Err((ErrorKind::NotRunning, "the container has ended".to_owned()));
        }
        if starting || self.container.status != Status::Created {
            return Err((ErrorKind::Running, "the container is started already".to_owned()));
        }
        let command = args(["start", self.runtime.container()]);
        self.command(caller, Purpose::Start(clock::wall_text()), command)
    }

    fn kill(&mut self, caller: Caller, signal: i32, target: KillTarget) -> Outcome {
        self.living()?;
        if target == KillTarget::Init && self.runtime.signals() == SignalPath::Direct {
            return done(sys::kill(self.container.pid, signal));
        }
        let mut command = args(["kill"]);
        if target == KillTarget::All {
            command.push("--all".into());
        }
        command.extend(args([self.runtime.container(), &signal.to_string()]));
        self.command(caller, Purpose::Plain, command)
    }

    fn run_living(&mut self, caller: Caller, purpose: Purpose, verb: &str) -> Outcome {
        self.living()?;
        let command = args([verb, self.runtime.container()]);
        self.command(caller, purpose, command)
    }

    fn update(&mut self, caller: Caller, resources: &serde_json::Value) -> Outcome {
        self.living()?;
        self.jobs_left()?;
        let internal = |e: std::io::Error| (ErrorKind::Internal, e.to_string());
        let document = sys::memory_file(resources.to_string().as_bytes()).map_err(internal)?;
        let command = args(["update", "--resources", &sys::proc_path(&document), self.runtime.container()]);
        let io = crate::stdio::ChildIo { stdin: std::process::Stdio::null(), stdout: None, stderr: None };
        let invocation = self.runtime.start_with(command, vec![document], io).map_err(internal)?;
        self.jobs.push(Job { invocation, purpose: Purpose::Plain, caller });
        Ok(None)
    }

    fn attach(&mut self, caller: Caller, attach: Attach) -> Outcome {
        self.reply(caller, Answer::Done);
        self.set_role(caller.connection, Role::Attach(attach));
        if let Some(record) = &self.container.record {
            let end = End { reason: EndReason::Exited, exit_code: Some(record.exit_code) };
            if let Some(connection) = self.connections.iter_mut().find(|c| c.id == caller.connection) {
                connection.end_stream(end);
            }
        }
        Ok(None)
    }

    fn exec_resize(&mut self, id: &str, size: WindowSize) -> Outcome {
        done(self.running_exec(id)?.io.resize(size))
    }

    fn exec_state(&mut self, id: &str) -> Outcome {
        let found: Option<ExecState> = self.exec_states().filter(|exec| exec.id == id).last();
        found.map(|state| Some(Answer::ExecState(state))).ok_or_else(|| (ErrorKind::NotFound, format!("no exec {id}")))
    }

    fn delete(&mut self, caller: Caller, running: IfRunning) -> Outcome {
        if running == IfRunning::Refuse && !self.container.ended() {
            return Err((ErrorKind::Running, "the container has not ended".to_owned()));
        }
        if self.jobs.iter().any(|job| matches!(job.purpose, Purpose::Delete)) {
            return Err((ErrorKind::Exists, "the container is being deleted".to_owned()));
        }
        // Forced also when it has ended: runc refuses to delete one that was never started.
        let command = args(["delete", "--force", self.runtime.container()]);
        self.command(caller, Purpose::Delete, command)
    }

    fn command(&mut self, caller: Caller, purpose: Purpose, command: Vec<OsString>) -> Outcome {
        self.jobs_left()?;
        let invocation = self.runtime.start(command).map_err(|e| (ErrorKind::Internal, e.to_string()))?;
        self.jobs.push(Job { invocation, purpose, caller });
        Ok(None)
    }

    fn living(&self) -> Result<(), (ErrorKind, String)> {
        if self.container.alive() {
            Ok(())
        } else {
            Err((ErrorKind::NotRunning, "the container does not run".to_owned()))
        }
    }

    fn jobs_left(&self) -> Result<(), (ErrorKind, String)> {
        if self.jobs.len() < limits::JOBS {
            Ok(())
        } else {
            Err((ErrorKind::Limit, format!("{} commands of the runtime are at work", limits::JOBS)))
        }
    }

    fn set_role(&mut self, connection: ConnectionId, role: Role) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == connection) {
            connection.role = role;
        }
    }
}

fn done(result: std::io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Ok(Some(Answer::Done)),
        Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {
            Err((ErrorKind::NotRunning, "the process has ended".to_owned()))
        }
        Err(e) => Err((ErrorKind::Internal, e.to_string())),
    }
}
