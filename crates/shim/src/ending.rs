//! Ends of processes: runtime commands, the container's first process, execs, and children nobody asked for.

use std::time::Instant;

use crate::clock;
use crate::connection::Role;
use crate::container::{Ended, write_record};
use crate::launch::ExitRecord;
use crate::limits;
use crate::protocol::{Answer, End, EndReason, ErrorKind, Event, Status};
use crate::server::{Caller, Job, Purpose, Server};
use crate::stdio::Output;
use crate::sys::{self, ChildExit};

impl Server {
    /// Takes every ended child.
    pub(crate) fn reap(&mut self) {
        while let Some((pid, exit)) = sys::reap() {
            self.child_ended(pid, exit);
        }
        if !self.jobs.iter().any(|job| matches!(job.purpose, Purpose::Exec(_))) {
            self.orphans = Vec::new();
        }
    }

    /// One child has ended.
    pub(crate) fn child_ended(&mut self, pid: i32, exit: ChildExit) {
        if pid == self.container.pid && self.container.exit.is_none() {
            self.container.exit = Some(ended_now(exit));
        } else if let Some(place) = self.jobs.iter().position(|job| job.invocation.pid == pid) {
            let job = self.jobs.remove(place);
            self.job_ended(job, exit);
        } else if let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid) {
            exec.exit = Some(ended_now(exit));
        } else if !self.log.child_ended(pid, exit.code) && self.orphans.len() < limits::ORPHANS {
            self.orphans.push((pid, exit));
        }
    }

    fn job_ended(&mut self, job: Job, exit: ChildExit) {
        let Job { invocation, purpose, caller } = job;
        if let Purpose::Exec(serial) = purpose {
            self.exec_job_ended(serial, &invocation, exit.code, caller);
            return;
        }
        if exit.code != 0 {
            let message = invocation.error_text(exit.code, b"");
            if matches!(purpose, Purpose::Start(_)) {
                self.container.start_error = Some(message.clone());
            }
            self.reply(caller, Answer::Error { kind: ErrorKind::Runtime, message });
            return;
        }
        match purpose {
            Purpose::Start(at) => self.started(at, caller),
            Purpose::Pause => self.set_status(Status::Paused, caller),
            Purpose::Resume => self.set_status(Status::Running, caller),
            // The reply is the last thing the shim says.
            Purpose::Delete => self.deleted = Some((caller, clock::after_ms(clock::now(), limits::DRAIN_MS))),
            Purpose::Plain | Purpose::Exec(_) => self.reply(caller, Answer::Done),
        }
    }

    fn started(&mut self, at: String, caller: Caller) {
        self.container.started_at = Some(at.clone());
        self.set_status(Status::Running, caller);
        let pid = self.container.pid;
        self.publish(&Event::Started { pid, at });
    }

    fn set_status(&mut self, status: Status, caller: Caller) {
        if !self.container.ended() {
            self.container.status = status;
        }
        self.reply(caller, Answer::Done);
    }

    /// Finishes what has ended and whose output is drained, or has been awaited long enough.
    pub(crate) fn finish_ended(&mut self, now: Instant) {
        if let Some((_, until)) = &self.deleted
            && now >= *until
            && self.container.alive()
        {
            // Deleted, and yet its end was not seen: the runtime's process was no child of ours. It was killed.
            let signal = nix::libc::SIGKILL;
            self.container.exit = Some(ended_now(ChildExit { code: 128 + signal, signal: Some(signal) }));
        }
        let starting = self.jobs.iter().any(|job| matches!(job.purpose, Purpose::Start(_)));
        if let Some(end) = &self.container.exit
            && !self.container.ended()
            && !starting
            && (self.container.io.output_ended() || now >= end.drain_until)
        {
            let (exit, at) = (end.exit, end.at.clone());
            self.finish_container(exit, at);
        }
        self.finish_execs(now);
    }

    fn finish_container(&mut self, exit: ChildExit, exited_at: String) {
        for output in Output::ALL {
            if self.container.io.output(output).is_some() {
                self.log.finish(output);
            }
        }
        self.container.io.close_output();
        self.container.io.close_input();
        self.container.oom_killed |= self.oom.as_mut().is_some_and(crate::oom::OomWatch::killed_since);
        let record = ExitRecord {
            pid: self.container.pid,
            started_at: self.container.started_at.clone(),
            exited_at,
            exit_code: exit.code,
            signal: exit.signal,
            oom_killed: self.container.oom_killed,
            error: self.container.start_error.clone(),
        };
        if let Err(error) = write_record(&record, &self.launch.exit_record) {
            // The state still tells; into shim.log for people.
            eprintln!("writing {}: {error}", self.launch.exit_record.display());
        }
        self.container.status = Status::Exited;
        self.container.record = Some(record.clone());
        self.publish(&Event::Exited(record));
        for connection in self.connections.iter_mut().filter(|c| matches!(c.role, Role::Attach(_))) {
            connection.end_stream(End { reason: EndReason::Exited, exit_code: Some(exit.code) });
        }
    }
}

/// The end of a process, seen now.
pub(crate) fn ended_now(exit: ChildExit) -> Ended {
    Ended { exit, at: clock::wall_text(), drain_until: clock::after_ms(clock::now(), limits::DRAIN_MS) }
}
