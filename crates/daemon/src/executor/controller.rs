//! One task's container. Each step finds what an earlier try, or an earlier daemon, has left.
//!
//! ```text
//!  prepare: image, ingress, container created
//!  start:   container started, healthy ─► in the mesh
//!  wait:    in the mesh (again, after a restart of the daemon) ─► exit or unhealthy ─► out of the mesh
//!  shutdown: out of the mesh (acknowledged by the kernel) ─► open connections end, a moment ─► stop signal, grace, kill
//! ```

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use agent::{Controller, ControllerError, Dependencies, LogLine, LogRequest};
use async_trait::async_trait;
use docker_types::container::Inspect;
use engine::{Engine, EngineError, ErrorKind, EventStream, RemoveOptions, StopOptions, WaitCondition};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use model::{ContainerStatus, PortConfig, PortProtocol, PortStatus, PublishMode, Task};
use tokio::time::Instant;

use super::request::FilesError;
use super::template::TemplateContext;
use super::{Shared, request, task_name};
use crate::errors::chain;
use crate::overlay::Withdrawal;

/// How long open connections of a task hold up its stop signal; after it they have the grace period.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Time between two looks at the open connections of a task that leaves; it doubles.
const SHORTEST_LOOK: Duration = Duration::from_millis(2);
/// Longest time between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(50);

pub(super) struct TaskController {
    shared: Arc<Shared>,
    task: RwLock<Arc<Task>>,
    dependencies: Dependencies,
}

/// How a container that was healthy once became not so.
const UNHEALTHY: &str = "unhealthy container";

impl TaskController {
    pub(super) fn new(shared: Arc<Shared>, task: Arc<Task>, dependencies: Dependencies) -> Self {
        Self { shared, task: RwLock::new(task), dependencies }
    }

    fn task(&self) -> Arc<Task> {
        self.task.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    async fn inspect(&self) -> Result<Inspect, EngineError> {
        self.engine().inspect(&task_name(&self.task()), engine::SizeMode::Without).await
    }

    /// Lets the others send connections to the task, and ask for it by name; returns when this machine's tables have it.
    async fn enable(&self, found: &Inspect) -> Result<(), ControllerError> {
        let task = self.task();
        let record = |network: &str| super::record::endpoint_record(&task, &found.id, &found.config.hostname, network);
        let failed = |error| ControllerError::Temporary(format!("networks of the task: {}", chain(&error)));
        self.shared.exchange.enable(&found.id, record).await.map_err(failed)
    }

    /// No new connection comes from this node, and the others are told; the container. `None`: none could come before.
    async fn disable(&self) -> Option<(String, Withdrawal)> {
        let found = self.inspect().await.ok()?;
        match self.shared.exchange.disable(&found.id).await {
            Ok(withdrawal) => Some((found.id, withdrawal?)),
            Err(error) => {
                // The container stops all the same: a task that cannot be stopped is worse than one refused connection.
                let (task, error) = (self.task(), chain(&error));
                tracing::warn!(task = %task.id, error, "the task could not be taken out of the tables");
                None
            }
        }
    }

    /// No new connection comes, from any node that could be told; those that are open had a moment to end.
    async fn withdraw(&self) {
        if let Some((container, withdrawal)) = self.disable().await {
            withdrawal.known().await;
            self.drain(&container).await;
        }
    }

    /// Gives connections that were open when the task left the tables a moment to end.
    async fn drain(&self, container: &str) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        let mut pause = SHORTEST_LOOK;
        loop {
            match self.shared.net.open_connections(container).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::warn!(%error, "open connections cannot be counted"),
            }
            if Instant::now() + pause > deadline {
                return;
            }
            // The kernel tells of ends by events only if nf_conntrack_events is on, and of all flows at once.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Waits until the container is healthy or, without a health check, listens. `Ok(false)`: it ended before.
    async fn until_healthy(&self, id: &str) -> Result<bool, ControllerError> {
        let mut events = self.engine().subscribe(None, None);
        let now = self.inspect().await.map_err(temporary)?;
        match now.state.health.as_ref().map(|health| health.status.as_str()) {
            _ if !now.state.running => return Ok(false),
            Some("healthy") => return Ok(true),
            None | Some("none") => {
                let task = self.task();
                let ports: Vec<PortConfig> = request::ports(&task, PublishMode::Ingress).cloned().collect();
                super::listening::until_listening(now.state.pid, &ports).await;
                return Ok(true);
            }
            Some(_) => {}
        }
        match next_change(&mut events, id).await {
            Change::Healthy => Ok(true),
            Change::Ended => Ok(false),
            Change::Unhealthy => {
                self.stop().await?;
                Err(self.exit_error(Some(UNHEALTHY)).await)
            }
        }
    }

    async fn stop(&self) -> Result<(), ControllerError> {
        let task = self.task();
        let grace = request::container_spec(&task).ok().and_then(|spec| spec.stop_grace_period);
        let timeout_s = grace.map(|grace| grace.total_nanos().div_euclid(1_000_000_000));
        let stopped = self.engine().stop(&task_name(&task), StopOptions { timeout_s, signal: None }).await;
        match stopped {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotModified) => Ok(()),
            Err(error) => Err(temporary(error)),
        }
    }

    /// How the container ended: an error in dockerd's words for another exit code than 0, with the cause if it is known.
    async fn exit_error(&self, cause: Option<&str>) -> ControllerError {
        let (code, own) = match self.inspect().await {
            Ok(found) => (found.state.exit_code, found.state.error),
            Err(error) => (-1, error.to_string()),
        };
        let cause = cause.map(str::to_owned).or((!own.is_empty()).then_some(own));
        let text = match cause {
            Some(cause) => format!("task: non-zero exit ({code}): {cause}"),
            None => format!("task: non-zero exit ({code})"),
        };
        ControllerError::Exited { code: i32::try_from(code).unwrap_or(-1), text }
    }

    async fn create(&self) -> Result<(), ControllerError> {
        let task = self.task();
        let description = super::describe::describe(&self.shared.about);
        let description = description.map_err(|error| ControllerError::Temporary(error.to_string()))?;
        let platform = description.platform.unwrap_or_default();
        let context = TemplateContext::new(&task, &description.hostname, &platform.os, &platform.architecture);
        let files = request::files(&task, &self.dependencies, &context).map_err(|error| match error {
            FilesError::Missing(text) => ControllerError::Temporary(text),
            FilesError::Bad(text) => ControllerError::Fatal(text),
        })?;
        let wanted = request::build(&task, &context, files).map_err(ControllerError::Fatal)?;
        match self.engine().create(Some(&wanted.name), wanted.request, wanted.options).await {
            Ok(_) => Ok(()),
            // An earlier try, or an earlier daemon, has made it.
            Err(error) if error.kind() == ErrorKind::Conflict && self.inspect().await.is_ok() => Ok(()),
            Err(error) => Err(ControllerError::Fatal(error.to_string())),
        }
    }
}

fn temporary(error: EngineError) -> ControllerError {
    ControllerError::Temporary(error.to_string())
}

fn log_line(frame: engine::LogFrame) -> LogLine {
    LogLine {
        timestamp: model::Timestamp::from_unix_nanos(frame.time_ns),
        stderr: frame.source == engine::OutputSource::Stderr,
        data: frame.bytes.to_vec(),
        attrs: frame.attributes.into_iter().collect(),
    }
}

/// What the engine says of a container.
enum Change {
    Healthy,
    Unhealthy,
    Ended,
}

async fn next_change(events: &mut EventStream, id: &str) -> Change {
    while let Some(event) = events.next().await {
        if event.kind != "container" || event.actor.id != id {
            continue;
        }
        match event.action.as_str() {
            "health_status: healthy" => return Change::Healthy,
            "health_status: unhealthy" => return Change::Unhealthy,
            "die" | "destroy" => return Change::Ended,
            _ => {}
        }
    }
    Change::Ended
}

#[async_trait]
impl Controller for TaskController {
    async fn update(&self, task: Arc<Task>) -> Result<(), ControllerError> {
        *self.task.write().unwrap_or_else(PoisonError::into_inner) = task;
        Ok(())
    }

    async fn prepare(&self) -> Result<(), ControllerError> {
        if self.inspect().await.is_ok() {
            return Ok(());
        }
        let task = self.task();
        let spec = request::container_spec(&task).map_err(ControllerError::Fatal)?;
        let auth = spec.pull_options.as_ref().map_or("", |options| options.registry_auth.as_str());
        let pulled = self.shared.puller.ensure(&spec.image, auth);
        let (_, made) = futures::join!(pulled, self.shared.make_networks(&task));
        made?;
        self.create().await
    }

    async fn start(&self) -> Result<(), ControllerError> {
        let found = self.inspect().await.map_err(|error| ControllerError::Fatal(error.to_string()))?;
        let never_started = found.state.started_at.0.is_none();
        if never_started {
            let started = self.engine().start(&found.id).await;
            started.map_err(|error| ControllerError::Fatal(format!("starting container failed: {error}")))?;
        }
        if self.until_healthy(&found.id).await? {
            self.enable(&found).await?;
        }
        Ok(())
    }

    async fn wait(&self) -> Result<(), ControllerError> {
        let found = self.inspect().await.map_err(|error| ControllerError::Fatal(error.to_string()))?;
        let ended = self.engine().wait(&found.id, WaitCondition::NotRunning).await.map_err(temporary)?;
        let mut events = self.engine().subscribe(None, None);
        let healthy = found.state.health.as_ref().is_none_or(|health| health.status != "unhealthy");
        if found.state.running && healthy {
            self.enable(&found).await?;
        }
        let mut ended = std::pin::pin!(ended.fuse());
        let status = loop {
            tokio::select! {
                // Kept across turns.
                status = &mut ended => break status,
                // `EventStream::next` is cancel-safe.
                change = next_change(&mut events, &found.id) => if let Change::Unhealthy = change {
                    self.withdraw().await;
                    self.stop().await?;
                    ended.await;
                    return Err(self.exit_error(Some(UNHEALTHY)).await);
                } else if let Change::Ended = change {
                    break ended.await;
                },
            }
        };
        self.disable().await;
        if status.status_code == 0 { Ok(()) } else { Err(self.exit_error(None).await) }
    }

    async fn shutdown(&self) -> Result<(), ControllerError> {
        self.withdraw().await;
        self.stop().await
    }

    async fn remove(&self) -> Result<(), ControllerError> {
        // It may still run: this node leaves the swarm.
        self.withdraw().await;
        self.stop().await?;
        let task = self.task();
        let removed = self.engine().remove(&task_name(&task), RemoveOptions { force: true, volumes: true }).await;
        if let Err(error) = removed
            && error.kind() != ErrorKind::NotFound
        {
            return Err(temporary(error));
        }
        self.shared.exchange.release(task.id.as_str()).await;
        Ok(())
    }

    async fn container_status(&self) -> Option<ContainerStatus> {
        let found = self.inspect().await.ok()?;
        Some(ContainerStatus {
            container_id: found.id,
            pid: i32::try_from(found.state.pid).unwrap_or(0),
            exit_code: i32::try_from(found.state.exit_code).unwrap_or(-1),
        })
    }

    async fn port_status(&self) -> Option<PortStatus> {
        let task = self.task();
        request::ports(&task, PublishMode::Host).next()?;
        let found = self.inspect().await.ok()?;
        let mut ports = Vec::new();
        for (key, bindings) in found.network_settings.ports.unwrap_or_default() {
            let (port, protocol) = key.split_once('/')?;
            for binding in bindings.unwrap_or_default() {
                ports.push(PortConfig {
                    protocol: match protocol {
                        "udp" => PortProtocol::Udp,
                        "sctp" => PortProtocol::Sctp,
                        _ => PortProtocol::Tcp,
                    },
                    target_port: port.parse().ok()?,
                    published_port: binding.host_port.parse().unwrap_or(0),
                    publish_mode: PublishMode::Host,
                    ..PortConfig::default()
                });
            }
        }
        Some(PortStatus { ports })
    }

    async fn logs(&self, wanted: LogRequest) -> Result<BoxStream<'static, LogLine>, ControllerError> {
        let options = engine::LogsOptions {
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            since: wanted.since.map(model::Timestamp::unix_nanos),
            tail: wanted.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            follow: wanted.follow,
            ..engine::LogsOptions::default()
        };
        let log = self.engine().logs(&task_name(&self.task()), options).await.map_err(temporary)?;
        let lines = stream::unfold(log, |mut log| async move {
            let frame = log.frames.recv().await?;
            Some((log_line(frame), log))
        });
        Ok(lines.boxed())
    }
}
