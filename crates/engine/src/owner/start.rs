//! The way from a record to a running process.
//!
//! ```text
//! cgroup lock ──┐
//! mount rootfs ─┤
//! network ──────┼─► files of /etc, OCI spec ─► shim (create) ─► attachers ─► start ─► Running
//! volumes ──────┘        any failure ─► everything taken down, exit code 126, 127 or 128
//! ```
//! Nothing here waits for the disk: what a crash of the machine loses is a process that is gone as well.

use std::time::Duration;

use tokio::time::Instant;

use super::{Attached, Owner};
use crate::cgroup_lock;
use crate::clock::Clock;
use crate::launch::{self, Prepared};
use crate::record::{Flush, Phase};
use crate::shim_client::ShimClient;
use crate::{EngineError, ErrorKind, joined};

/// Exit codes of containers that could not be started.
const EXIT_NOT_INVOKED: i64 = 126;
const EXIT_NOT_FOUND: i64 = 127;
const EXIT_UNKNOWN: i64 = 128;

impl Owner {
    pub(super) async fn start_by_user(&mut self) -> Result<(), EngineError> {
        let id = &self.record.id;
        match self.record.life.phase {
            Phase::Paused => return Err(EngineError::conflict("cannot start a paused container, try unpause instead")),
            Phase::Running => {
                return Err(EngineError::new(ErrorKind::NotModified, format!("container {id} is already running")));
            }
            Phase::Removing | Phase::Dead => {
                return Err(EngineError::conflict("container is marked for removal and cannot be started"));
            }
            Phase::Created | Phase::Exited | Phase::Restarting => {}
        }
        self.restart_at = None;
        self.record.life.stopped_by_user = false;
        self.stays_stopped = false;
        self.record.life.restart_count = 0;
        let result = self.start().await;
        let options = crate::RemoveOptions { force: true, volumes: true };
        if result.is_err()
            && self.record.host_config.auto_remove
            && let Err(error) = self.remove_now(options).await
        {
            tracing::warn!(container = %self.record.id, %error, "cannot remove");
        }
        result
    }

    /// The policy's start; when it fails, the policy decides again.
    pub(super) async fn start_by_policy(&mut self) {
        self.record.life.restart_count += 1;
        if let Err(error) = self.start().await {
            tracing::warn!(container = %self.record.id, %error, "restart failed");
            // what waits for the end of the run before sees this one; a user's failed start is no end, as in dockerd
            self.exits += 1;
            self.restart_or_rest(Duration::ZERO).await;
        }
    }

    async fn start(&mut self) -> Result<(), EngineError> {
        let was = self.record.life.phase;
        match self.try_start().await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.take_down().await;
                let (code, error) = classify(error);
                self.record.life.phase = if was == Phase::Restarting { Phase::Exited } else { was };
                self.record.life.exit_code = code;
                self.record.life.error = error.to_string();
                self.record.life.pid = 0;
                self.save_or_warn(Flush::Later).await;
                self.waiting_attachers.clear();
                self.publish();
                Err(error)
            }
        }
    }

    async fn try_start(&mut self) -> Result<(), EngineError> {
        // It runs beside the next steps; a start that fails meanwhile leaves it alone, it ends by itself.
        let moved = self.engine.cgroup_lock.is_due().then(|| tokio::task::spawn_blocking(cgroup_lock::take));
        let prepared = self.prepare().await?;
        let launch = launch::document(&self.engine, &self.record, &self.paths);
        launch::write(&self.paths, &prepared)?;
        let (client, pid) = ShimClient::launch(&self.engine.config.skep_binary, &self.paths.exec, &launch)
            .await
            .map_err(|error| create_failed(&error.to_string()))?;
        if let Some(moved) = moved {
            moved.await.ok();
        }
        let (_, events) = client.subscribe().await.map_err(|error| create_failed(&error.to_string()))?;
        self.shim = Some(Attached { client: client.clone(), events });
        self.connect_attachers(&client).await;
        // before the program can end
        self.record.life.started_ns = Clock::now_ns();
        client.start().await.map_err(|error| create_failed(&error.to_string()))?;
        self.record.life.pid = pid;
        self.note_started().await;
        Ok(())
    }

    /// Mounts, network and files, side by side where they do not need each other.
    async fn prepare(&mut self) -> Result<Prepared, EngineError> {
        let engine = self.engine.clone();
        self.record.life.ever_networked = true;
        if let Some(donor) = joined::check(&engine, &self.record)? {
            // it may not have been there when this container was made
            let donor = donor.record();
            self.record.config.hostname.clone_from(&donor.config.hostname);
            self.record.config.domainname.clone_from(&donor.config.domainname);
        }
        let request = launch::network_request(&engine, &self.record);
        let rootfs = async { engine.images.mount(&self.record.id).await.map_err(EngineError::from) };
        let network = async { engine.network.create(request).await.map_err(launch::network_failed) };
        // Both end before one's failure counts: what undoes them must not meet a mount that is still on its way.
        let (rootfs, network) = tokio::join!(rootfs, network);
        let (rootfs, network) = (rootfs?, network?);
        self.note_networks(&network);
        self.log_networks("connect", &network);
        let exit_record = self.paths.exit();
        if let Err(error) = std::fs::remove_file(&exit_record)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(EngineError::io("remove", &exit_record, &error));
        }
        let mut record = self.record.clone();
        let (paths, files) = (self.paths.clone(), self.files.clone());
        let work = move || -> Result<_, EngineError> {
            let prepared = launch::prepare(&engine, &mut record, &paths, rootfs, network, &files)?;
            Ok((record.mounts, prepared))
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (mounts, prepared) = done.map_err(|_| EngineError::internal("the start was cancelled"))??;
        self.record.mounts = mounts;
        Ok(prepared)
    }

    async fn note_started(&mut self) {
        let life = &mut self.record.life;
        life.phase = Phase::Running;
        life.ever_started = true;
        life.exit_code = 0;
        life.oom_killed = false;
        life.error.clear();
        self.save_or_warn(Flush::Later).await;
        self.reset_health();
        self.start_health();
        self.publish();
        self.log("start");
    }

    /// Starts again later, if the policy wants it; `ran_for` is how long it lived.
    pub(super) async fn restart_or_rest(&mut self, ran_for: Duration) -> bool {
        use crate::restart::{EndedBy, wants_restart};
        let life = &self.record.life;
        let ended_by = if self.stays_stopped || life.stopped_by_user { EndedBy::User } else { EndedBy::Itself };
        let policy = &self.record.host_config.restart_policy;
        let again = ended_by == EndedBy::Itself
            && self.record.task.is_none()
            && wants_restart(policy, life.restart_count, life.exit_code, ended_by);
        if again {
            self.record.life.phase = Phase::Restarting;
            self.restart_at = Some(Instant::now() + self.backoff.next(ran_for));
        } else {
            self.record.life.phase = Phase::Exited;
        }
        self.save_or_warn(Flush::Later).await;
        self.publish();
        again
    }
}

fn create_failed(text: &str) -> EngineError {
    EngineError::internal(format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: {text}: unknown"
    ))
}

/// The exit code of what could not be started, and the kind of error that goes with it: dockerd reads both from what the
/// runtime says.
pub(crate) fn classify(error: EngineError) -> (i64, EngineError) {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let says = |part: &str| lower.contains(part);
    let not_found = ["executable file not found", "no such file or directory", "failed to run runc create/exec call"];
    match () {
        () if !says("oci runtime") => (EXIT_UNKNOWN, error),
        () if says("permission denied") => (EXIT_NOT_INVOKED, EngineError::invalid(text)),
        // the command line looks for the other words
        () if says("is a directory") => (EXIT_NOT_INVOKED, EngineError::invalid(format!("{text}: permission denied"))),
        () if says("not a directory") => {
            let hint = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path \
                        exists and is the expected type";
            (EXIT_NOT_FOUND, EngineError::invalid(format!("{text}: {hint}")))
        }
        () if not_found.into_iter().any(says) => (EXIT_NOT_FOUND, EngineError::invalid(text)),
        () => (EXIT_UNKNOWN, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_dockerds_exit_codes() {
        let check = |text: &str, code, kind| {
            let (found, error) = classify(create_failed(text));
            assert_eq!((found, error.kind()), (code, kind), "{text}");
        };
        check("exec: \"x\": executable file not found in $PATH", 127, ErrorKind::InvalidParameter);
        check("exec: \"/x\": stat /x: no such file or directory", 127, ErrorKind::InvalidParameter);
        check("exec: \"/etc/passwd\": permission denied", 126, ErrorKind::InvalidParameter);
        check("exec: \"/etc\": is a directory", 126, ErrorKind::InvalidParameter);
        check("mount a onto b: not a directory", 127, ErrorKind::InvalidParameter);
        check("cgroup is full", 128, ErrorKind::Internal);
        assert_eq!(classify(EngineError::internal("no such file or directory")).0, 128);
    }
}
