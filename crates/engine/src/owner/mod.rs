//! The owner of a container: one task that alone changes its record and talks to its shim.
//!
//! Commands come by a bounded mailbox and are done one after another; a stop does not hold up the mailbox: it is a deadline
//! in the owner's state, so that a kill gets through. Whatever changes is shown through a watch before it is answered.
//!
//! ```text
//!  command ─┐                       ┌─► record on disk
//!  shim  ───┼─► Owner (this task) ──┼─► view (inspect, list, wait)
//!  deadline ┘                       └─► events
//! ```

mod attach;
mod exit;
mod health;
mod networks;
mod remove;
mod start;
mod stop;

pub(crate) use self::exit::{EXIT_UNSEEN, unix_ns, wanted_at_open};
pub(crate) use self::health::go_duration;
pub(crate) use self::start::classify;

use std::sync::Arc;

use docker_types::container::HostConfig;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::attach::PendingAttach;
use self::health::HealthRun;
use self::stop::Stopping;
use crate::container::{Command, Container, MAILBOX_COMMANDS, View};
use crate::endpoint_settings;
use crate::engine::Inner;
use crate::inspect::GATEWAY_NETWORK;
use crate::network::{ContainerNetwork, NetworkEndpoint};
use crate::options::SecretFile;
use crate::record::{ContainerPaths, Flush, Phase, Record};
use crate::restart::Backoff;
use crate::shim_client::{ShimClient, ShimEvents};
use crate::{EngineError, signal};

/// Whether the owner goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    End,
}

/// A shim, and what it tells.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) client: ShimClient,
    pub(crate) events: ShimEvents,
}

#[derive(Debug)]
pub(crate) struct Owner {
    engine: Arc<Inner>,
    record: Record,
    paths: ContainerPaths,
    view: watch::Sender<Arc<View>>,
    mailbox: mpsc::Receiver<Command>,
    /// For health checks to report; weak, so that it does not keep the mailbox open.
    own_mailbox: mpsc::WeakSender<Command>,
    shim: Option<Attached>,
    exits: u64,
    stopping: Option<Stopping>,
    /// When the policy starts it again.
    restart_at: Option<Instant>,
    backoff: Backoff,
    waiting_attachers: Vec<PendingAttach>,
    health: Option<HealthRun>,
    /// Runs of health checks so far.
    health_runs: u64,
    /// Stopped on purpose: no policy starts it again while this daemon lives.
    stays_stopped: bool,
    /// Contents of secrets and configs; in memory only.
    files: Vec<SecretFile>,
}

/// Starts the owner of a container that is in the record as given, and shows it in the index.
pub(crate) fn spawn(
    engine: &Arc<Inner>,
    record: Record,
    files: Vec<SecretFile>,
    shim: Option<Attached>,
) -> Arc<Container> {
    let (sender, mailbox) = mpsc::channel(MAILBOX_COMMANDS);
    let paths = ContainerPaths::new(&engine.config.data_root, &engine.config.exec_root, &record.id);
    let first = View {
        record: Arc::new(record.clone()),
        exits: 0,
        shim: shim.as_ref().map(|shim| shim.client.clone()),
        removed: false,
    };
    let (view, watch) = watch::channel(Arc::new(first));
    let own_mailbox = sender.downgrade();
    let container = Arc::new(Container { id: record.id.clone(), paths: paths.clone(), mailbox: sender, view: watch });
    engine.index.insert(container.clone());
    let owner = Owner {
        engine: engine.clone(),
        record,
        paths,
        view,
        mailbox,
        own_mailbox,
        shim,
        exits: 0,
        stopping: None,
        restart_at: None,
        backoff: Backoff::default(),
        waiting_attachers: Vec::new(),
        health: None,
        health_runs: 0,
        stays_stopped: false,
        files,
    };
    tokio::spawn(owner.run());
    container
}

/// The next word of the shim; never without one. Cancel safe, as [`ShimEvents::next`] is.
async fn next_event(shim: &mut Option<Attached>) -> Option<shim::protocol::Event> {
    match shim {
        Some(shim) => shim.events.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Owner {
    async fn run(mut self) {
        self.resume().await;
        loop {
            let deadline =
                [self.restart_at, self.stopping.as_ref().and_then(|stop| stop.deadline)].into_iter().flatten().min();
            // each arm waits in a channel or a timer and loses nothing when another one is taken
            let flow = tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => Flow::End,
                },
                event = next_event(&mut self.shim) => self.heard(event).await,
                () = sleep_until(deadline) => self.deadline().await,
            };
            if flow == Flow::End {
                return;
            }
        }
    }

    /// What an adopted container goes on with.
    async fn resume(&mut self) {
        if self.record.life.phase.has_process() {
            self.start_health();
        } else if self.record.life.phase == Phase::Restarting {
            self.restart_at = Some(Instant::now());
        }
    }

    async fn obey(&mut self, command: Command) -> Flow {
        match command {
            Command::Start { reply } => {
                let result = self.start_by_user().await;
                let _ = reply.send(result);
                return self.removed_flow();
            }
            Command::Stop { options, reply } => self.stop(options, stop::Then::Answer(reply)).await,
            Command::Restart { options, reply } => self.restart(options, reply).await,
            Command::Kill { signal, reply } => {
                let _ = reply.send(self.kill(signal.as_deref()).await);
            }
            Command::Pause { reply } => {
                let _ = reply.send(self.pause().await);
            }
            Command::Unpause { reply } => {
                let _ = reply.send(self.unpause().await);
            }
            Command::Rename { name, reply } => {
                let _ = reply.send(self.rename(&name).await);
            }
            Command::Update { asked, reply } => {
                let _ = reply.send(self.update(&asked).await);
            }
            Command::Connect { network, settings, reply } => {
                let _ = reply.send(self.connect_network(&network, *settings).await);
            }
            Command::Disconnect { network, mode, reply } => {
                let _ = reply.send(self.disconnect_network(&network, mode).await);
            }
            Command::Attach { options, streams, reply } => {
                let _ = reply.send(self.attach(options, streams).await);
            }
            Command::Remove { options, reply } => self.remove(options, reply).await,
            Command::Probed { run, probe, outcome } => self.probed(run, probe, outcome),
            Command::Leave { reply } => {
                let _ = reply.send(Ok(()));
                return Flow::End;
            }
        }
        self.removed_flow()
    }

    fn removed_flow(&self) -> Flow {
        if self.view.borrow().removed { Flow::End } else { Flow::Continue }
    }

    async fn deadline(&mut self) -> Flow {
        let now = Instant::now();
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.start_by_policy().await;
        }
        if self.stopping.as_ref().and_then(|stop| stop.deadline).is_some_and(|at| at <= now) {
            self.grace_is_over().await;
        }
        self.removed_flow()
    }

    async fn heard(&mut self, event: Option<shim::protocol::Event>) -> Flow {
        use shim::protocol::Event;
        match event {
            Some(Event::Exited(exit)) => self.exited(exit).await,
            Some(Event::Oom) => {
                self.record.life.oom_killed = true;
                self.publish();
                self.log("oom");
            }
            Some(Event::ExecExited(state)) => self.engine.execs.exited(&state, &self.engine.events, &self.record),
            Some(Event::Started { .. }) => {}
            None => self.shim_lost().await,
        }
        self.removed_flow()
    }

    /// Shows the record and the shim as they are.
    fn publish(&self) {
        self.view.send_replace(Arc::new(View {
            record: Arc::new(self.record.clone()),
            exits: self.exits,
            shim: self.shim.as_ref().map(|shim| shim.client.clone()),
            removed: false,
        }));
    }

    async fn save(&self, flush: Flush) -> Result<(), EngineError> {
        let (record, directory) = (self.record.clone(), self.paths.data.clone());
        match flush {
            // a few microseconds in the page cache
            Flush::Later => record.save(&directory, flush),
            Flush::Wait => {
                let work = tokio::task::spawn_blocking(move || record.save(&directory, flush));
                work.await.map_err(|_| EngineError::internal("writing a record was cancelled"))?
            }
        }
    }

    /// Saves where a failure must not stop what goes on.
    async fn save_or_warn(&self, flush: Flush) {
        if let Err(error) = self.save(flush).await {
            tracing::error!(container = %self.record.id, %error, "cannot keep the record");
        }
    }

    fn log(&self, action: &str) {
        self.log_with(action, &[]);
    }

    fn log_with(&self, action: &str, attributes: &[(&str, String)]) {
        let mut all = self.record.event_attributes();
        all.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.engine.events.log("container", action, &self.record.id, all);
    }

    /// dockerd's events about the networks that a container joins and leaves.
    fn log_networks(&self, action: &str, network: &ContainerNetwork) {
        // The bridge that leads out of the swarm's networks counts only for who was put on it.
        let is_on_it = endpoint_settings::networks(&self.record).contains_key(GATEWAY_NETWORK);
        for endpoint in network.endpoints.iter().filter(|it| is_on_it || it.network_name != GATEWAY_NETWORK) {
            self.log_network(action, endpoint);
        }
    }

    fn log_network(&self, action: &str, endpoint: &NetworkEndpoint) {
        let (id, kind) = (self.record.id.as_str(), endpoint.driver.as_str());
        let attributes = [("container", id), ("name", &endpoint.network_name), ("type", kind)];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        self.engine.events.log("network", action, &endpoint.network_id, attributes);
    }

    async fn pause(&mut self) -> Result<(), EngineError> {
        let id = &self.record.id;
        match self.record.life.phase {
            Phase::Paused => return Err(EngineError::conflict(format!("Container {id} is already paused"))),
            Phase::Restarting => return Err(EngineError::restarting(id)),
            Phase::Running => {}
            _ => return Err(EngineError::not_running(id)),
        }
        self.client()?
            .pause()
            .await
            .map_err(|error| EngineError::internal(format!("cannot pause container {id}: {error}")))?;
        self.record.life.phase = Phase::Paused;
        self.save_or_warn(Flush::Later).await;
        self.stop_health();
        self.publish();
        self.log("pause");
        Ok(())
    }

    async fn unpause(&mut self) -> Result<(), EngineError> {
        let id = &self.record.id;
        if self.record.life.phase != Phase::Paused {
            // dockerd leaves it unclassified
            return Err(EngineError::internal(format!("Container {id} is not paused")));
        }
        self.client()?
            .resume()
            .await
            .map_err(|error| EngineError::internal(format!("Cannot unpause container {id}: {error}")))?;
        self.record.life.phase = Phase::Running;
        self.save_or_warn(Flush::Later).await;
        self.start_health();
        self.publish();
        self.log("unpause");
        Ok(())
    }

    async fn rename(&mut self, name: &str) -> Result<(), EngineError> {
        let old = self.record.name.clone();
        let wanted = name.strip_prefix('/').unwrap_or(name);
        if wanted.is_empty() {
            return Err(EngineError::invalid("Neither old nor new names may be empty"));
        }
        if wanted == old {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        let wrapped =
            |error: EngineError| EngineError::new(error.kind(), format!("Error when allocating new name: {error}"));
        let new = self.engine.index.reserve(Some(wanted), &self.record.id).map_err(wrapped)?;
        self.record.name = new;
        if let Err(error) = self.save(Flush::Wait).await {
            self.engine.index.release(&self.record.name, &self.record.id);
            self.record.name = old;
            return Err(error);
        }
        self.engine.index.release(&old, &self.record.id);
        if self.record.life.phase.has_process()
            && let Err(error) = self.engine.network.rename(self.member()).await
        {
            tracing::warn!(container = %self.record.id, %error, "networks know it by its old name");
        }
        self.publish();
        self.log_with("rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    async fn update(&mut self, asked: &HostConfig) -> Result<(), EngineError> {
        let id = self.record.id.clone();
        let failed =
            move |error: EngineError| EngineError::new(error.kind(), format!("Cannot update container {id}: {error}"));
        let before = self.record.host_config.clone();
        crate::update::apply(&mut self.record.host_config, asked).map_err(&failed)?;
        if let Some(shim) = &self.shim {
            let told = match crate::bundle::oci_resources(&self.record.host_config) {
                Ok(resources) => shim.client.update(resources).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = told {
                self.record.host_config = before;
                return Err(failed(EngineError::internal(error)));
            }
        }
        self.save(Flush::Wait).await?;
        self.publish();
        self.log("update");
        Ok(())
    }

    fn client(&self) -> Result<&ShimClient, EngineError> {
        self.shim.as_ref().map(|shim| &shim.client).ok_or_else(|| EngineError::not_running(&self.record.id))
    }

    /// The signal that asks it to stop.
    fn stop_signal(&self) -> i32 {
        signal::parse(&self.record.config.stop_signal).unwrap_or(nix::sys::signal::Signal::SIGTERM as i32)
    }
}
