//! The handle of the engine, and the operations that a container's owner does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use docker_types::container::{
    EndpointSettings, Inspect, Summary, TopResponse, UpdateRequest, UpdateResponse, WaitError, WaitResponse,
};
use docker_types::event::EventMessage;
use docker_types::filters::Filters;
use docker_types::volume::{Volume, VolumeCreateRequest, VolumeList, VolumesPruneResponse};
use image::ImageStore;
use oci_types::Digest;
use shim::protocol::WindowSize;

use crate::cgroup_lock::CgroupLock;
use crate::container::{Command, Container, View};
use crate::events::{EventBus, EventStream};
use crate::exec::Execs;
use crate::host_limits::HostLimits;
use crate::index::Index;
use crate::network::NetworkBackend;
use crate::options::{AttachOptions, DisconnectMode, RemoveOptions, Shutdown, SizeMode, StopOptions, WaitCondition};
use crate::record::Phase;
use crate::streams::{self, Attached};
use crate::volumes::{LOCAL_DRIVER, Volumes};
use crate::{EngineConfig, EngineError, ErrorKind};

/// What all operations share.
pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) images: ImageStore,
    pub(crate) network: Arc<dyn NetworkBackend>,
    pub(crate) volumes: Volumes,
    pub(crate) events: EventBus,
    pub(crate) index: Index,
    pub(crate) execs: Execs,
    pub(crate) cgroup_lock: CgroupLock,
    /// The daemon ends and stops its containers.
    pub(crate) shuts_down: AtomicBool,
    /// Health checks that were run.
    pub(crate) health_checks: AtomicU64,
    /// Of these, the ones that could not be run.
    pub(crate) health_checks_failed: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Containers by state, for `/info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub containers: usize,
    /// Running, and not paused.
    pub running: usize,
    /// Paused.
    pub paused: usize,
    /// The others.
    pub stopped: usize,
}

/// What was counted since the start, and who listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Events told.
    pub events: u64,
    /// Who gets events now.
    pub event_subscribers: usize,
    /// Health checks that were run.
    pub health_checks: u64,
    /// Of these, the ones that could not be run; one that ran and says no is none of them.
    pub health_checks_failed: u64,
}

/// A container that was made of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUser {
    /// The image's id.
    pub image_id: Digest,
    /// The container's id.
    pub container_id: String,
    /// Whether it runs.
    pub running: bool,
}

/// The engine. Cheap to clone; all clones are one engine.
#[derive(Clone, Debug)]
pub struct Engine(pub(crate) Arc<Inner>);

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(EngineError::new(ErrorKind::Unavailable, "the engine shuts down")),
    }
}

impl Engine {
    fn find(&self, container: &str) -> Result<Arc<Container>, EngineError> {
        self.0.index.find(container)
    }

    /// Starts a container. [`ErrorKind::NotModified`] if it runs.
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.find(container)?.ask(|reply| Command::Start { reply }).await
    }

    /// Stops it: its signal, its grace, then a kill. Returns when it has ended. [`ErrorKind::NotModified`] if it does not run.
    pub async fn stop(&self, container: &str, options: StopOptions) -> Result<(), EngineError> {
        self.find(container)?.ask(|reply| Command::Stop { options, reply }).await
    }

    /// Stops it if it runs, and starts it.
    pub async fn restart(&self, container: &str, options: StopOptions) -> Result<(), EngineError> {
        self.find(container)?.ask(|reply| Command::Restart { options, reply }).await
    }

    /// Sends a signal, by name or number; `None` is KILL. Does not wait for the end.
    pub async fn kill(&self, container: &str, signal: Option<&str>) -> Result<(), EngineError> {
        let signal = signal.map(str::to_owned);
        self.find(container)?.ask(|reply| Command::Kill { signal, reply }).await
    }

    /// Freezes its processes.
    pub async fn pause(&self, container: &str) -> Result<(), EngineError> {
        self.find(container)?.ask(|reply| Command::Pause { reply }).await
    }

    /// Lets them go on.
    pub async fn unpause(&self, container: &str) -> Result<(), EngineError> {
        self.find(container)?.ask(|reply| Command::Unpause { reply }).await
    }

    /// Gives it another name.
    pub async fn rename(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        self.find(container)?.ask(|reply| Command::Rename { name, reply }).await
    }

    /// Changes limits and restart policy.
    pub async fn update(&self, container: &str, request: UpdateRequest) -> Result<UpdateResponse, EngineError> {
        let mut asked = Box::new(crate::update::asked(request));
        let warnings = crate::validate::check_update(&mut asked, &self.0.config, HostLimits::current())?;
        self.find(container)?.ask(|reply| Command::Update { asked, reply }).await?;
        Ok(UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
    }

    /// Removes it; with `force` also if it runs.
    pub async fn remove(&self, container: &str, options: RemoveOptions) -> Result<(), EngineError> {
        let container = self.find(container)?;
        let removed = container.ask(|reply| Command::Remove { options, reply }).await;
        match removed {
            // it went by another removal meanwhile
            Err(error) if error.kind() == ErrorKind::NotFound && container.view().removed => Ok(()),
            other => other,
        }
    }

    /// Connects it to a network, at once if it runs.
    pub async fn connect(&self, container: &str, network: &str, settings: EndpointSettings) -> Result<(), EngineError> {
        let (network, settings) = (network.to_owned(), Box::new(settings));
        self.find(container)?.ask(|reply| Command::Connect { network, settings, reply }).await
    }

    /// Disconnects it from a network.
    pub async fn disconnect(&self, container: &str, network: &str, mode: DisconnectMode) -> Result<(), EngineError> {
        let found = match self.find(container) {
            Err(error) if mode == DisconnectMode::Force && error.kind() == ErrorKind::NotFound => {
                // dockerd looks for a leftover of that name then; here none outlives its container.
                let is_known = self.0.network.network(network).is_some();
                return Err(EngineError::not_found(match is_known {
                    true => format!("endpoint {container} not found"),
                    false => format!("network {network} not found"),
                }));
            }
            found => found?,
        };
        let network = network.to_owned();
        found.ask(|reply| Command::Disconnect { network, mode, reply }).await
    }

    /// Waits for its end. The container is looked up at once; the future resolves when the condition is met.
    pub async fn wait(
        &self,
        container: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = WaitResponse> + Send + use<>, EngineError> {
        let container = self.find(container)?;
        let mut watch = container.view.clone();
        let exits = watch.borrow_and_update().exits;
        let met = move |view: &Arc<View>| match condition {
            _ if view.removed => true,
            WaitCondition::NotRunning => !view.record.life.phase.is_running() || view.exits > exits,
            WaitCondition::NextExit => view.exits > exits,
            WaitCondition::Removed => view.record.life.phase == Phase::Dead,
        };
        Ok(async move {
            let (life, removed) = match watch.wait_for(met).await {
                Ok(view) => (view.record.life.clone(), view.removed),
                // its owner is gone with the engine: the last word counts
                Err(_) => (container.record().life.clone(), false),
            };
            // a removal that worked forgets why the start had failed
            let error = Some(life.error).filter(|error| !error.is_empty() && !removed);
            let error = error.map(|message| WaitError { message });
            WaitResponse { error, status_code: life.exit_code }
        })
    }

    /// Everything about it.
    pub async fn inspect(&self, container: &str, size: SizeMode) -> Result<Inspect, EngineError> {
        crate::inspect::inspect(&self.0, &*self.find(container)?, size).await
    }

    /// Containers, the newest first.
    pub async fn list(&self, options: crate::ListOptions) -> Result<Vec<Summary>, EngineError> {
        crate::list::list(&self.0, options).await
    }

    /// Streams of a container, also before its start.
    pub async fn attach(&self, container: &str, options: AttachOptions) -> Result<Attached, EngineError> {
        let container = self.find(container)?;
        let record = container.record();
        let (attached, owners) = streams::pair(record.config.tty);
        if !options.logs {
            container.ask(|reply| Command::Attach { options, streams: owners, reply }).await?;
            return Ok(attached);
        }
        let past = crate::logs::past_frames(&container, options).await?;
        let (live, streams) = streams::pair(record.config.tty);
        container.ask(|reply| Command::Attach { options, streams, reply }).await?;
        streams::chain(past, live.output, owners.output);
        Ok(Attached { tty: attached.tty, output: attached.output, input: live.input })
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, container: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let container = self.find(container)?;
        let view = container.view();
        let client = view.shim.as_ref().ok_or_else(|| EngineError::not_running(&container.id))?;
        let resized = client.resize(WindowSize { rows, columns }).await;
        resized.map_err(|error| EngineError::internal(error.to_string()))
    }

    /// Its processes, as `ps` shows them; `arguments` are those of `ps`, `-ef` if empty.
    pub async fn top(&self, container: &str, arguments: &str) -> Result<TopResponse, EngineError> {
        crate::top::top(&*self.find(container)?, arguments).await
    }

    /// Makes a volume, or finds the one of this name.
    pub async fn volume_create(&self, request: VolumeCreateRequest) -> Result<Volume, EngineError> {
        let engine = self.0.clone();
        blocking(move || {
            let created = engine.volumes.create(&request)?;
            if !created.existed {
                let attributes = [("driver".to_owned(), LOCAL_DRIVER.to_owned())].into();
                engine.events.log("volume", "create", &created.volume.name, attributes);
            }
            Ok(created.volume)
        })
        .await
    }

    /// Volumes; filters `dangling`, `name`, `driver`, `label`.
    pub async fn volume_list(&self, filters: &Filters) -> Result<VolumeList, EngineError> {
        self.0.volumes.list(filters)
    }

    /// A volume.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume, EngineError> {
        self.0.volumes.inspect(name)
    }

    /// Removes a volume that nobody uses; with `force` it need not exist.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let (engine, name) = (self.0.clone(), name.to_owned());
        blocking(move || match engine.volumes.remove(&name) {
            Err(error) if force && error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                engine.events.log("volume", "destroy", &name, [("driver".to_owned(), LOCAL_DRIVER.to_owned())].into());
                Ok(())
            }
        })
        .await
    }

    /// Removes volumes that nobody uses: anonymous ones, or all with the filter `all`.
    pub async fn volume_prune(&self, filters: Filters) -> Result<VolumesPruneResponse, EngineError> {
        let engine = self.0.clone();
        blocking(move || engine.volumes.prune(&filters, &engine.events)).await
    }

    /// Containers by state.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for container in self.0.index.all() {
            counts.containers += 1;
            match container.record().life.phase {
                Phase::Running | Phase::Restarting => counts.running += 1,
                Phase::Paused => counts.paused += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }

    /// What was counted.
    pub fn tallies(&self) -> Tallies {
        let (events, event_subscribers) = self.0.events.tally();
        Tallies {
            events,
            event_subscribers,
            health_checks: self.0.health_checks.load(Ordering::Relaxed),
            health_checks_failed: self.0.health_checks_failed.load(Ordering::Relaxed),
        }
    }

    /// Which containers were made of which images.
    pub fn image_users(&self) -> Vec<ImageUser> {
        let user = |container: Arc<Container>| {
            let record = container.record();
            let image_id = Digest::parse(&record.image_id).ok()?;
            Some(ImageUser { image_id, container_id: record.id.clone(), running: record.life.phase.is_running() })
        };
        self.0.index.all().into_iter().filter_map(user).collect()
    }

    /// Tells an event of the daemon. Without a time it happens now.
    pub fn publish(&self, event: EventMessage) {
        self.0.events.publish(event);
    }

    /// Tells an event of the daemon that happens now.
    pub fn log_event(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        self.0.events.log(kind, action, id, attributes);
    }

    /// All events: from `since_ns` on what the history has (`None`: nothing of it), then what happens until `until_ns`.
    pub fn subscribe(&self, since_ns: Option<i64>, until_ns: Option<i64>) -> EventStream {
        self.0.events.subscribe(since_ns, until_ns)
    }

    /// Ends the engine. Containers live on or are stopped; after it every operation fails.
    pub async fn shutdown(&self, what: Shutdown) {
        let containers = self.0.index.all();
        if what == Shutdown::StopAll {
            self.0.shuts_down.store(true, Ordering::Relaxed);
            let stops =
                containers.iter().filter(|container| container.record().life.phase.is_running()).map(|container| {
                    let container = container.clone();
                    tokio::spawn(async move {
                        let options = StopOptions::default();
                        let stopped = container.ask(|reply| Command::Stop { options, reply }).await;
                        if let Err(error) = stopped {
                            tracing::warn!(container = %container.id, %error, "cannot stop");
                        }
                    })
                });
            for stop in stops.collect::<Vec<_>>() {
                let _ = stop.await;
            }
        }
        for container in containers {
            // an owner that is gone has nothing to leave
            let _ = container.ask(|reply| Command::Leave { reply }).await;
        }
    }
}
