//! What follows when a container has ended.

use std::time::Duration;

use shim::launch::ExitRecord;
use shim::protocol::IfRunning;

use super::Owner;
use crate::clock::{Clock, SECOND_NS};
use crate::launch::{ShimEnd, undo_mounts};
use crate::record::Flush;
use crate::restart::{EndedBy, wants_restart};

/// Exit code of a container whose end nobody saw.
pub(crate) const EXIT_UNSEEN: i64 = 255;

/// Nanoseconds since 1970 of a time in an exit record.
pub(crate) fn unix_ns(text: &str) -> Option<i64> {
    docker_types::time::parse(text).map(model::Timestamp::unix_nanos)
}

impl Owner {
    /// The shim tells the end of the container.
    pub(super) async fn exited(&mut self, exit: ExitRecord) {
        let life = &mut self.record.life;
        life.exit_code = i64::from(exit.exit_code);
        life.oom_killed |= exit.oom_killed;
        life.finished_ns = unix_ns(&exit.exited_at).unwrap_or_else(Clock::now_ns);
        life.error = exit.error.unwrap_or_default();
        self.ended().await;
    }

    /// The shim is gone without a word: killed. What it wrote before counts.
    pub(super) async fn shim_lost(&mut self) {
        tracing::warn!(container = %self.record.id, "the shim is gone");
        let orphan = self.record.life.pid;
        if let Ok(Some(exit)) = ExitRecord::read(&self.paths.exit()) {
            return self.exited(exit).await;
        }
        crate::orphan::kill(orphan, &self.record.id);
        self.record.life.exit_code = 137;
        self.record.life.finished_ns = Clock::now_ns();
        self.ended().await;
    }

    async fn ended(&mut self) {
        self.stop_health();
        if let Some(health) = &mut self.record.life.health {
            // as in dockerd: nobody shall take what has ended for healthy
            health.status = "unhealthy".to_owned();
        }
        let life = &mut self.record.life;
        life.pid = 0;
        let ran_ns = life.finished_ns.saturating_sub(life.started_ns).max(0);
        self.take_down().await;
        self.exits += 1;
        let stopping = self.stopping.take();
        let then = stopping.map(|stopping| stopping.then).unwrap_or_default();
        let starts_again = then.iter().any(|then| matches!(then, super::stop::Then::StartAgain(_)));
        let again = if starts_again {
            self.record.life.phase = crate::record::Phase::Exited;
            self.save_or_warn(Flush::Later).await;
            self.publish();
            false
        } else {
            self.restart_or_rest(Duration::from_nanos(ran_ns.unsigned_abs())).await
        };
        let code = self.record.life.exit_code.to_string();
        self.log_with("die", &[("execDuration", (ran_ns / SECOND_NS).to_string()), ("exitCode", code)]);
        for then in then {
            self.follow(then).await;
        }
        if self.record.host_config.auto_remove && !again && !starts_again && !self.view.borrow().removed {
            let options = crate::RemoveOptions { force: true, volumes: true };
            if let Err(error) = self.remove_now(options).await {
                tracing::warn!(container = %self.record.id, %error, "cannot remove");
            }
        }
    }

    /// Takes down what a run needs: shim, network, mounts. Failures are told and do not stop the rest.
    pub(super) async fn take_down(&mut self) {
        let mut end = ShimEnd::Over;
        if let Some(shim) = self.shim.take() {
            match shim.client.delete(IfRunning::Kill).await {
                Ok(()) => end = ShimEnd::Soon,
                Err(error) => {
                    tracing::debug!(container = %self.record.id, %error, "the shim does not delete its container");
                    crate::orphan::delete_in_runtime(&self.engine, &self.record).await;
                    crate::orphan::end_shim(shim.client.directory()).await;
                }
            }
        }
        let id = self.record.id.clone();
        let engine = self.engine.clone();
        let (record, paths) = (self.record.clone(), self.paths.clone());
        let mounts = tokio::task::spawn_blocking({
            let engine = engine.clone();
            move || undo_mounts(&engine, &record, &paths, end)
        });
        if let Some(network) = engine.network.get(&id) {
            self.log_networks("disconnect", &network);
        }
        let network = engine.network.remove(&id);
        let rootfs = async {
            // mounts below it go first
            let _ = mounts.await;
            engine.images.unmount(&id).await
        };
        let (network, rootfs) = tokio::join!(network, rootfs);
        if let Err(error) = network {
            tracing::warn!(container = %id, %error, "cannot remove the network");
        }
        if let Err(error) = rootfs {
            tracing::warn!(container = %id, %error, "cannot unmount the root filesystem");
        }
    }
}

/// Whether a container that this daemon finds ended shall be started.
pub(crate) fn wanted_at_open(record: &crate::record::Record) -> bool {
    let life = &record.life;
    let ended_by = if life.stopped_by_user { EndedBy::User } else { EndedBy::Itself };
    let policy = &record.host_config.restart_policy;
    record.task.is_none() && life.ever_started && wants_restart(policy, life.restart_count, life.exit_code, ended_by)
}
