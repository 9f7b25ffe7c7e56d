//! Stop, kill, restart. A stop is a state with a deadline; it ends with the container's exit.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::Owner;
use crate::container::Reply;
use crate::options::StopOptions;
use crate::record::{Flush, Phase};
use crate::{EngineError, ErrorKind, signal};

/// Grace without another word, seconds.
const GRACE_S: i64 = 10;
/// How long a killed container may take to end.
const KILL_TIME: Duration = Duration::from_secs(10);

/// What follows when it has ended.
#[derive(Debug)]
pub(super) enum Then {
    /// The answer.
    Answer(Reply),
    /// The next start, then the answer.
    StartAgain(Reply),
    /// Its removal, then the answer.
    Remove(crate::RemoveOptions, Reply),
}

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    /// When patience ends; `None` for never.
    pub(super) deadline: Option<Instant>,
    killed: bool,
    pub(super) then: Vec<Then>,
}

impl Owner {
    pub(super) async fn stop(&mut self, options: StopOptions, then: Then) {
        if !self.record.life.phase.is_running() {
            if let Then::Answer(reply) = then {
                let text = format!("container {} is already stopped", self.record.id);
                let _ = reply.send(Err(EngineError::new(ErrorKind::NotModified, text)));
            }
            return;
        }
        let signal = match options.signal.as_deref().filter(|text| !text.is_empty()).map(signal::parse) {
            None => self.stop_signal(),
            Some(Ok(signal)) => signal,
            Some(Err(error)) => return then.fail(error),
        };
        let is_restart = matches!(then, Then::StartAgain(_));
        if !is_restart {
            self.note_user_stop().await;
        }
        if self.record.life.phase == Phase::Restarting {
            return self.stop_restarting(then).await;
        }
        if let Some(stopping) = &mut self.stopping {
            // one stop at a time: the earlier deadline counts
            stopping.then.push(then);
            let deadline = grace(&options, self.record.config.stop_timeout);
            stopping.deadline = [stopping.deadline, deadline].into_iter().flatten().min();
            return;
        }
        let deadline = grace(&options, self.record.config.stop_timeout);
        self.stopping = Some(Stopping { deadline, killed: false, then: vec![then] });
        if let Err(error) = self.send_signal(signal).await {
            tracing::warn!(container = %self.record.id, %error, "the stop signal did not arrive");
        }
        self.thaw().await;
    }

    /// A container between two runs is stopped by not starting it.
    async fn stop_restarting(&mut self, then: Then) {
        self.restart_at = None;
        self.record.life.phase = Phase::Exited;
        self.save_or_warn(Flush::Later).await;
        self.publish();
        self.follow(then).await;
    }

    async fn note_user_stop(&mut self) {
        self.stays_stopped = true;
        // a daemon that stops its containers is no user: the next one starts them again
        let shuts_down = self.engine.shuts_down.load(Ordering::Relaxed);
        if !self.record.life.stopped_by_user && !shuts_down {
            self.record.life.stopped_by_user = true;
            // only this policy asks after a reboot who stopped it
            let policy = self.record.host_config.restart_policy.name.as_str();
            let flush = if policy == "unless-stopped" { Flush::Wait } else { Flush::Later };
            self.save_or_warn(flush).await;
        }
    }

    /// Sends a signal, and says so.
    async fn send_signal(&mut self, signal: i32) -> Result<(), EngineError> {
        let id = self.record.id.clone();
        let sent = self.client()?.kill(signal).await;
        self.log_with("kill", &[("signal", signal.to_string())]);
        sent.map_err(|error| EngineError::conflict(format!("Cannot kill container {id}: {error}")))
    }

    /// A frozen container gets its signal when it goes on.
    async fn thaw(&mut self) {
        if self.record.life.phase != Phase::Paused {
            return;
        }
        let Ok(client) = self.client() else { return };
        match client.resume().await {
            Ok(()) => {
                self.record.life.phase = Phase::Running;
                self.publish();
            }
            Err(error) => tracing::warn!(container = %self.record.id, %error, "cannot unpause"),
        }
    }

    pub(super) async fn grace_is_over(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.killed {
            let then = self.stopping.take().map(|stopping| stopping.then).unwrap_or_default();
            for then in then {
                then.fail(EngineError::internal("tried to kill container, but did not receive an exit event"));
            }
            return;
        }
        stopping.killed = true;
        stopping.deadline = Some(Instant::now() + KILL_TIME);
        if let Err(error) = self.send_signal(Signal::SIGKILL as i32).await {
            tracing::warn!(container = %self.record.id, %error, "cannot kill");
        }
        self.thaw().await;
    }

    /// Kills it for `then`.
    pub(super) async fn kill_for(&mut self, then: Then) {
        self.note_user_stop().await;
        let earlier = self.stopping.take().map(|stopping| stopping.then).unwrap_or_default();
        let then = earlier.into_iter().chain([then]).collect();
        self.stopping = Some(Stopping { deadline: Some(Instant::now()), killed: false, then });
        self.grace_is_over().await;
    }

    pub(super) async fn restart(&mut self, options: StopOptions, reply: Reply) {
        match self.record.life.phase {
            Phase::Running | Phase::Paused | Phase::Restarting => self.stop(options, Then::StartAgain(reply)).await,
            _ => {
                let result = self.start_again().await;
                let _ = reply.send(result);
            }
        }
    }

    async fn start_again(&mut self) -> Result<(), EngineError> {
        self.start_by_user().await?;
        self.log("restart");
        Ok(())
    }

    /// `docker kill`.
    pub(super) async fn kill(&mut self, text: Option<&str>) -> Result<(), EngineError> {
        let signal = match text.filter(|text| !text.is_empty()) {
            Some(text) => signal::parse(text)?,
            None => Signal::SIGKILL as i32,
        };
        let id = self.record.id.clone();
        if !self.record.life.phase.has_process() {
            return Err(EngineError::not_running(&id));
        }
        let configured = &self.record.config.stop_signal;
        let ends = configured.is_empty() || signal == Signal::SIGKILL as i32 || signal == self.stop_signal();
        if ends {
            self.note_user_stop().await;
        }
        self.send_signal(signal).await?;
        if ends {
            self.thaw().await;
        }
        Ok(())
    }

    /// Does what a stop was for, once the container has ended.
    pub(super) async fn follow(&mut self, then: Then) {
        match then {
            Then::Answer(reply) => {
                self.log("stop");
                let _ = reply.send(Ok(()));
            }
            Then::StartAgain(reply) => {
                self.log("stop");
                let result = self.start_again().await;
                let _ = reply.send(result);
            }
            Then::Remove(options, reply) => {
                let _ = reply.send(self.remove_now(options).await);
            }
        }
    }
}

impl Then {
    pub(super) fn fail(self, error: EngineError) {
        let (Self::Answer(reply) | Self::StartAgain(reply) | Self::Remove(_, reply)) = self;
        let _ = reply.send(Err(error));
    }
}

fn grace(options: &StopOptions, own: Option<i64>) -> Option<Instant> {
    let seconds = options.timeout_s.or(own).unwrap_or(GRACE_S);
    let seconds = u64::try_from(seconds).ok()?;
    Some(Instant::now() + Duration::from_secs(seconds))
}
