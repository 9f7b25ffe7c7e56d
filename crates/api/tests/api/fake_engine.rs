//! An engine whose containers are a few lines of Rust: `echo WORDS`, `cat`, `exit N`, `sleep`. It keeps the engine's
//! promises about order: what was written is there before the exit, waits resolve after the state changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::engine_backend::*;
use async_trait::async_trait;
use bytes::Bytes;
use docker_types::container::*;
use docker_types::event::{Actor, EventMessage};
use docker_types::exec::*;
use docker_types::filters::Filters;
use docker_types::volume::*;
use engine::*;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::{broadcast, mpsc, watch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Created,
    Running,
    Exited(i64),
    /// With the last exit code.
    Removed(i64),
}

struct Container {
    id: String,
    name: String,
    request: CreateRequest,
    run: watch::Sender<Run>,
    log: Vec<OutputFrame>,
    readers: Vec<mpsc::Sender<OutputFrame>>,
    stdin: Option<mpsc::Receiver<Bytes>>,
    size: Option<TerminalSize>,
}

#[derive(Default)]
struct State {
    containers: Vec<Container>,
    execs: BTreeMap<String, (String, ExecCreateRequest, Option<i64>)>,
    volumes: BTreeMap<String, Volume>,
    next: u64,
}

#[derive(Clone)]
pub(crate) struct FakeEngine {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<EventMessage>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self { state: Arc::default(), events: broadcast::channel(64).0 }
    }
}

fn refuse<T>(kind: ErrorKind, text: impl Into<String>) -> EngineResult<T> {
    Err(EngineError::new(kind, text))
}

fn words(request: &CreateRequest) -> Vec<String> {
    [request.entrypoint.clone(), request.cmd.clone()].into_iter().flatten().flatten().collect()
}

/// What a program writes and how it ends; `None`: it reads or sleeps.
fn program(words: &[String]) -> (String, Option<i64>) {
    match words.first().map(String::as_str) {
        Some("echo") => (format!("{}\n", words[1..].join(" ")), Some(0)),
        Some("exit") => (String::new(), Some(words[1].parse().unwrap())),
        _ => (String::new(), None),
    }
}

fn line(piece: &OutputFrame) -> LogFrame {
    LogFrame { source: piece.source, time_ns: 0, attributes: BTreeMap::new(), bytes: piece.bytes.clone() }
}

impl FakeEngine {
    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Container) -> T) -> EngineResult<T> {
        let mut state = self.state.lock().unwrap();
        let found = state.containers.iter_mut().find(|container| container.id.starts_with(id) || container.name == id);
        match found {
            Some(container) => Ok(act(container)),
            None => refuse(ErrorKind::NotFound, format!("No such container: {id}")),
        }
    }

    /// How many clients read a container's output.
    pub(crate) fn attachers(&self, id: &str) -> usize {
        self.with(id, |container| container.readers.iter().filter(|reader| !reader.is_closed()).count()).unwrap()
    }

    fn new_id(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        format!("{:064x}", u128::from(state.next) << 100)
    }

    fn tell(&self, kind: &str, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.publish(EventMessage {
            kind: kind.into(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            scope: "local".into(),
            time: 1,
            time_nano: 1_000_000_000,
            ..EventMessage::default()
        });
    }

    async fn write(&self, id: &str, source: OutputSource, bytes: Bytes) {
        let piece = OutputFrame { source, bytes };
        let readers = self.with(id, |container| {
            container.log.push(piece.clone());
            container.readers.clone()
        });
        for reader in readers.unwrap_or_default() {
            let _ = reader.send(piece.clone()).await;
        }
    }

    fn end(&self, id: &str, code: i64) {
        let name = self.with(id, |container| {
            container.readers.clear();
            container.run.send_replace(Run::Exited(code));
            (container.name.clone(), container.request.host_config.as_ref().is_some_and(|host| host.auto_remove))
        });
        if let Ok((name, auto_remove)) = name {
            self.tell("container", "die", id, &name);
            if auto_remove {
                self.forget(id);
            }
        }
    }

    fn forget(&self, id: &str) {
        let mut state = self.state.lock().unwrap();
        if let Some(at) = state.containers.iter().position(|container| container.id == id) {
            let run = state.containers.remove(at).run;
            let code = if let Run::Exited(code) = *run.borrow() { code } else { 0 };
            run.send_replace(Run::Removed(code));
        }
    }
}

#[async_trait]
impl EngineBackend for FakeEngine {
    async fn create(
        &self,
        name: Option<&str>,
        request: CreateRequest,
        _options: CreateOptions,
    ) -> EngineResult<CreateResponse> {
        if request.image == "missing" {
            return refuse(ErrorKind::NotFound, "No such image: missing:latest");
        }
        let id = self.new_id();
        let name = name.map_or_else(|| format!("fake_{}", &id[..8]), str::to_owned);
        let mut state = self.state.lock().unwrap();
        if let Some(taken) = state.containers.iter().find(|container| container.name == name) {
            let text = format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
                taken.id
            );
            return refuse(ErrorKind::Conflict, text);
        }
        let run = watch::channel(Run::Created).0;
        let container =
            Container { id: id.clone(), name, request, run, log: vec![], readers: vec![], stdin: None, size: None };
        state.containers.push(container);
        Ok(CreateResponse { id, warnings: Vec::new() })
    }

    async fn start(&self, id: &str) -> EngineResult<()> {
        let (id, name, words, stdin) = self.with(id, |container| {
            if *container.run.borrow() == Run::Running {
                return refuse(ErrorKind::NotModified, "");
            }
            container.run.send_replace(Run::Running);
            Ok((container.id.clone(), container.name.clone(), words(&container.request), container.stdin.take()))
        })??;
        self.tell("container", "start", &id, &name);
        let this = self.clone();
        tokio::spawn(async move {
            let (text, code) = program(&words);
            if !text.is_empty() {
                this.write(&id, OutputSource::Stdout, text.into()).await;
            }
            if let Some(code) = code {
                this.end(&id, code);
            } else if words.first().is_some_and(|word| word == "cat") {
                let mut stdin = stdin.unwrap();
                while let Some(bytes) = stdin.recv().await {
                    this.write(&id, OutputSource::Stdout, bytes).await;
                }
                this.end(&id, 0);
            }
        });
        Ok(())
    }

    async fn stop(&self, id: &str, options: StopOptions) -> EngineResult<()> {
        let (id, runs) = self.with(id, |container| (container.id.clone(), *container.run.borrow() == Run::Running))?;
        if !runs {
            return refuse(ErrorKind::NotModified, "");
        }
        self.end(&id, if options.signal.as_deref() == Some("SIGKILL") { 137 } else { 143 });
        Ok(())
    }

    async fn restart(&self, id: &str, options: StopOptions) -> EngineResult<()> {
        let _ = self.stop(id, options).await;
        self.start(id).await
    }

    async fn kill(&self, id: &str, _signal: Option<&str>) -> EngineResult<()> {
        let (whole, runs) =
            self.with(id, |container| (container.id.clone(), *container.run.borrow() == Run::Running))?;
        if !runs {
            return refuse(ErrorKind::Conflict, format!("container {whole} is not running"));
        }
        self.end(&whole, 137);
        Ok(())
    }

    async fn pause(&self, id: &str) -> EngineResult<()> {
        self.with(id, |_| ())
    }

    async fn unpause(&self, id: &str) -> EngineResult<()> {
        refuse(ErrorKind::Conflict, format!("Container {id} is not paused"))
    }

    async fn rename(&self, id: &str, name: &str) -> EngineResult<()> {
        self.with(id, |container| name.clone_into(&mut container.name))
    }

    async fn connect(&self, id: &str, network: &str, settings: EndpointSettings) -> EngineResult<()> {
        self.with(id, |container| {
            let networking = container.request.networking_config.get_or_insert_default();
            networking.endpoints_config.get_or_insert_default().insert(network.to_owned(), Some(settings));
        })
    }

    async fn disconnect(&self, id: &str, network: &str, mode: DisconnectMode) -> EngineResult<()> {
        let removed = self.with(id, |container| {
            let networking = container.request.networking_config.get_or_insert_default();
            networking.endpoints_config.get_or_insert_default().remove(network).is_some()
        })?;
        if removed || mode == DisconnectMode::Force {
            return Ok(());
        }
        refuse(ErrorKind::Internal, format!("container {id} is not connected to network {network}"))
    }

    async fn wait(&self, id: &str, condition: WaitCondition) -> EngineResult<BoxFuture<'static, WaitResponse>> {
        let mut run = self.with(id, |container| container.run.subscribe())?;
        Ok(Box::pin(async move {
            if condition != WaitCondition::NotRunning {
                run.borrow_and_update();
            }
            let mut status_code = 0;
            let mut started = condition == WaitCondition::NotRunning;
            loop {
                let now = *run.borrow_and_update();
                started |= now == Run::Running;
                match now {
                    Run::Exited(code) => {
                        status_code = code;
                        if started && condition != WaitCondition::Removed {
                            break;
                        }
                    }
                    Run::Removed(code) => {
                        status_code = code;
                        break;
                    }
                    Run::Created if condition == WaitCondition::NotRunning => break,
                    _ => {}
                }
                if run.changed().await.is_err() {
                    break;
                }
            }
            WaitResponse { status_code, error: None }
        }))
    }

    async fn remove(&self, id: &str, options: RemoveOptions) -> EngineResult<()> {
        let (whole, runs) =
            self.with(id, |container| (container.id.clone(), *container.run.borrow() == Run::Running))?;
        if runs && !options.force {
            let text = format!(
                "cannot remove container \"{id}\": container is running: stop the container before removing or force remove"
            );
            return refuse(ErrorKind::Conflict, text);
        }
        self.forget(&whole);
        Ok(())
    }

    async fn inspect(&self, id: &str, _size: SizeMode) -> EngineResult<Inspect> {
        self.with(id, |container| {
            let now = *container.run.borrow();
            let (status, exit_code) = match now {
                Run::Created => ("created", 0),
                Run::Running => ("running", 0),
                Run::Exited(code) => ("exited", code),
                Run::Removed(code) => ("dead", code),
            };
            let mut inspect = Inspect {
                id: container.id.clone(),
                name: format!("/{}", container.name),
                config: container.request.config(),
                host_config: container.request.host_config.clone().unwrap_or_default(),
                ..Inspect::default()
            };
            inspect.state.status = status.into();
            inspect.state.running = now == Run::Running;
            inspect.state.exit_code = exit_code;
            inspect
        })
    }

    async fn list(&self, options: ListOptions) -> EngineResult<Vec<Summary>> {
        let state = self.state.lock().unwrap();
        let shown = state.containers.iter().rev().filter_map(|container| {
            let (state, status) = match *container.run.borrow() {
                Run::Created => ("created", "Created".to_owned()),
                Run::Running => ("running", "Up 3 seconds".to_owned()),
                Run::Exited(code) => ("exited", format!("Exited ({code}) 5 minutes ago")),
                Run::Removed(_) => return None,
            };
            (options.all || state == "running").then(|| Summary {
                id: container.id.clone(),
                names: vec![format!("/{}", container.name)],
                image: container.request.image.clone(),
                command: words(&container.request).join(" "),
                created: 1,
                labels: container.request.labels.clone().unwrap_or_default(),
                state: state.into(),
                status,
                size_rw: 5,
                ..Summary::default()
            })
        });
        let shown: Vec<_> = shown.filter(|one| options.filters.matches_exact("status", &one.state)).collect();
        Ok(shown.into_iter().take(options.limit.unwrap_or(usize::MAX)).collect())
    }

    async fn logs(&self, id: &str, options: LogsOptions) -> EngineResult<LogStream> {
        let (sender, frames) = mpsc::channel(64);
        let (tty, log, mut run) =
            self.with(id, |container| (container.request.tty, container.log.clone(), container.run.subscribe()))?;
        let this = self.clone();
        let id = id.to_owned();
        tokio::spawn(async move {
            for piece in &log {
                let _ = sender.send(line(piece)).await;
            }
            if options.follow {
                let _ = run.wait_for(|run| matches!(run, Run::Exited(_) | Run::Removed(_))).await;
                let rest = this.with(&id, |container| container.log.split_off(log.len())).unwrap_or_default();
                for piece in rest {
                    let _ = sender.send(line(&piece)).await;
                }
            }
        });
        Ok(LogStream { tty, frames })
    }

    async fn attach(&self, id: &str, _options: AttachOptions) -> EngineResult<Attached> {
        let (sender, output) = mpsc::channel(64);
        let (input, stdin) = mpsc::channel(64);
        self.with(id, |container| {
            container.readers.push(sender);
            container.stdin = Some(stdin);
            Attached { tty: container.request.tty, output, input }
        })
    }

    async fn resize(&self, id: &str, size: TerminalSize) -> EngineResult<()> {
        self.with(id, |container| container.size = Some(size))
    }

    async fn update(&self, id: &str, _request: UpdateRequest) -> EngineResult<UpdateResponse> {
        self.with(id, |_| UpdateResponse::default())
    }

    async fn top(&self, id: &str, _ps_args: &str) -> EngineResult<TopResponse> {
        self.with(id, |container| TopResponse {
            titles: vec!["PID".into(), "CMD".into()],
            processes: vec![vec!["1".into(), words(&container.request).join(" ")]],
        })
    }

    async fn exec_create(&self, id: &str, request: ExecCreateRequest) -> EngineResult<ExecCreateResponse> {
        let (container, runs) =
            self.with(id, |container| (container.id.clone(), *container.run.borrow() == Run::Running))?;
        if !runs {
            return refuse(ErrorKind::Conflict, format!("container {container} is not running"));
        }
        let id = self.new_id();
        self.state.lock().unwrap().execs.insert(id.clone(), (container, request, None));
        Ok(ExecCreateResponse { id })
    }

    async fn exec_start(&self, exec_id: &str, request: ExecStartRequest) -> EngineResult<Option<Attached>> {
        let mut state = self.state.lock().unwrap();
        let (_, exec, exit) = state.execs.get_mut(exec_id).unwrap();
        let words = exec.cmd.clone().unwrap_or_default();
        let (text, code) = program(&words);
        *exit = Some(code.unwrap_or(127));
        if code.is_none() {
            return refuse(
                ErrorKind::InvalidParameter,
                format!(
                    "OCI runtime exec failed: exec failed: unable to start container process: exec: \"{}\": executable file not found in $PATH: unknown",
                    words[0]
                ),
            );
        }
        if request.detach {
            return Ok(None);
        }
        let (sender, output) = mpsc::channel(1);
        if !text.is_empty() {
            sender.try_send(OutputFrame { source: OutputSource::Stderr, bytes: text.into() }).unwrap();
        }
        Ok(Some(Attached { tty: request.tty, output, input: mpsc::channel(1).0 }))
    }

    async fn exec_inspect(&self, exec_id: &str) -> EngineResult<ExecInspect> {
        match self.state.lock().unwrap().execs.get(exec_id) {
            Some((container_id, _, exit_code)) => Ok(ExecInspect {
                id: exec_id.into(),
                container_id: container_id.clone(),
                exit_code: *exit_code,
                ..ExecInspect::default()
            }),
            None => refuse(ErrorKind::NotFound, format!("No such exec instance: {exec_id}")),
        }
    }

    async fn exec_resize(&self, exec_id: &str, _size: TerminalSize) -> EngineResult<()> {
        self.exec_inspect(exec_id).await.map(|_| ())
    }

    async fn volume_create(&self, request: VolumeCreateRequest) -> EngineResult<Volume> {
        let volume = Volume {
            name: request.name.clone(),
            driver: "local".into(),
            scope: "local".into(),
            mountpoint: format!("/volumes/{}/_data", request.name),
            ..Volume::default()
        };
        self.state.lock().unwrap().volumes.insert(request.name, volume.clone());
        Ok(volume)
    }

    async fn volumes(&self, filters: Filters) -> EngineResult<VolumeList> {
        let state = self.state.lock().unwrap();
        let shown = state.volumes.values().filter(|volume| filters.matches_part("name", &volume.name));
        Ok(VolumeList { volumes: shown.cloned().collect(), warnings: None })
    }

    async fn volume(&self, name: &str) -> EngineResult<Volume> {
        let volume = self.state.lock().unwrap().volumes.get(name).cloned();
        volume.ok_or_else(|| EngineError::new(ErrorKind::NotFound, format!("get {name}: no such volume")))
    }

    async fn volume_remove(&self, name: &str, mode: VolumeRemoveMode) -> EngineResult<()> {
        let gone = self.state.lock().unwrap().volumes.remove(name);
        match gone {
            None if mode == VolumeRemoveMode::Safe => {
                refuse(ErrorKind::NotFound, format!("get {name}: no such volume"))
            }
            _ => Ok(()),
        }
    }

    async fn volumes_prune(&self, filters: Filters) -> EngineResult<VolumesPruneResponse> {
        let all = filters.flag("all").unwrap_or_default() == Some(true);
        let gone = if all { std::mem::take(&mut self.state.lock().unwrap().volumes) } else { BTreeMap::new() };
        let volumes_deleted = (!gone.is_empty()).then(|| gone.into_keys().collect());
        Ok(VolumesPruneResponse { volumes_deleted, space_reclaimed: 0 })
    }

    fn counts(&self) -> Counts {
        let state = self.state.lock().unwrap();
        let runs = |container: &&Container| *container.run.borrow() == Run::Running;
        let running = state.containers.iter().filter(runs).count();
        Counts { containers: state.containers.len(), running, paused: 0, stopped: state.containers.len() - running }
    }

    fn image_users(&self) -> Vec<ImageUser> {
        Vec::new()
    }

    fn publish(&self, event: EventMessage) {
        let _ = self.events.send(event);
    }

    fn subscribe(&self, _since_ns: Option<i64>, until_ns: Option<i64>) -> BoxStream<'static, EventMessage> {
        if until_ns.is_some() {
            return futures::stream::empty().boxed();
        }
        let live = self.events.subscribe();
        let next = |mut live: broadcast::Receiver<EventMessage>| async move { Some((live.recv().await.ok()?, live)) };
        futures::stream::unfold(live, next).boxed()
    }
}
