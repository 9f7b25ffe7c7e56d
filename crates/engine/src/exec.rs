//! Programs run in running containers: the table of execs, their start, health probes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use docker_types::container::HealthLog;
use docker_types::exec::{ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest};
use docker_types::json::Base64;
use shim::protocol::{ExecMode, ExecStart, ExecState, WindowSize};

use crate::clock::{Clock, fresh_id, time_of};
use crate::container::ProbeOutcome;
use crate::engine::Inner;
use crate::events::EventBus;
use crate::owner::{self, go_duration};
use crate::record::{Phase, Record};
use crate::shim_client::{OutputItem, ShimClient};
use crate::streams::{self, Attached};
use crate::{Engine, EngineError};

/// Execs remembered; beyond it the oldest ended ones are forgotten.
const EXECS_MAX: usize = 4096;
/// Bytes of a health check's output that are kept.
const PROBE_OUTPUT_MAX: usize = 4096;
/// Exit code of an exec that failed before the runtime was asked.
const EXIT_UNSTARTED: i64 = 126;

#[derive(Debug, Clone)]
struct Entry {
    container_id: String,
    request: ExecCreateRequest,
    running: bool,
    started: bool,
    exit_code: Option<i64>,
    pid: i64,
    order: u64,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    next: u64,
}

/// The table of execs.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<State>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, container_id: &str, request: ExecCreateRequest) -> Result<String, EngineError> {
        let id = fresh_id()?;
        let mut state = self.lock();
        if state.entries.len() >= EXECS_MAX {
            let ended = state.entries.iter().filter(|(_, entry)| !entry.running);
            let oldest = ended.min_by_key(|(_, entry)| entry.order).map(|(id, _)| id.clone());
            let oldest = oldest.ok_or_else(|| EngineError::conflict(format!("more than {EXECS_MAX} execs run")))?;
            state.entries.remove(&oldest);
        }
        state.next += 1;
        let order = state.next;
        let container_id = container_id.to_owned();
        let entry = Entry { container_id, request, running: false, started: false, exit_code: None, pid: 0, order };
        state.entries.insert(id.clone(), entry);
        Ok(id)
    }

    fn get(&self, id: &str) -> Result<Entry, EngineError> {
        let missing = || EngineError::not_found(format!("No such exec instance: {id}"));
        self.lock().entries.get(id).cloned().ok_or_else(missing)
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().entries.get_mut(id) {
            change(entry);
        }
    }

    /// The shim tells that an exec has ended; heard once or twice, told once.
    pub(crate) fn exited(&self, ended: &ExecState, events: &EventBus, record: &Record) {
        let code = i64::from(ended.exit_code.unwrap_or_default());
        let mut told = true;
        self.change(&ended.id, |entry| {
            told = !entry.running;
            entry.running = false;
            entry.exit_code = Some(code);
        });
        if !told {
            let mut attributes = record.event_attributes();
            attributes.insert("execID".to_owned(), ended.id.clone());
            attributes.insert("exitCode".to_owned(), code.to_string());
            events.log("container", "exec_die", &record.id, attributes);
        }
    }

    /// Ids of a container's execs that run or wait for their start.
    pub(crate) fn of_container(&self, container_id: &str) -> Vec<String> {
        let state = self.lock();
        let own =
            state.entries.iter().filter(|(_, entry)| entry.container_id == container_id && entry.exit_code.is_none());
        own.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn forget_container(&self, container_id: &str) {
        self.lock().entries.retain(|_, entry| entry.container_id != container_id);
    }
}

fn check_running(record: &Record) -> Result<(), EngineError> {
    let id = &record.id;
    match record.life.phase {
        Phase::Running => Ok(()),
        Phase::Paused => {
            Err(EngineError::conflict(format!("Container {id} is paused, unpause the container before exec")))
        }
        Phase::Restarting => Err(EngineError::restarting(id)),
        _ => Err(EngineError::not_running(id)),
    }
}

fn window(size: Option<[u32; 2]>) -> Option<WindowSize> {
    let [rows, columns] = size?.map(|size| u16::try_from(size).unwrap_or(u16::MAX));
    (rows > 0 && columns > 0).then_some(WindowSize { rows, columns })
}

fn log_exec(engine: &Inner, record: &Record, action: &str, exec_id: &str, words: &[String]) {
    let mut attributes = record.event_attributes();
    attributes.insert("execID".to_owned(), exec_id.to_owned());
    engine.events.log("container", &format!("{action}: {}", words.join(" ")), &record.id, attributes);
}

fn start_failed(text: &str) -> EngineError {
    // the runtime says the second part itself when it gets that far
    let text = text.strip_prefix("exec failed: ").unwrap_or(text);
    EngineError::internal(format!("OCI runtime exec failed: exec failed: {text}: unknown"))
}

impl Engine {
    /// Prepares an exec in a running container; its id.
    pub async fn exec_create(&self, container: &str, request: ExecCreateRequest) -> Result<String, EngineError> {
        let container = self.0.index.find(container)?;
        let record = container.record();
        check_running(&record)?;
        if request.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(EngineError::invalid("No exec command specified"));
        }
        let words = request.cmd.clone().unwrap_or_default();
        let id = self.0.execs.add(&container.id, request)?;
        log_exec(&self.0, &record, "exec_create", &id, &words);
        Ok(id)
    }

    /// Starts it. With `detach` there are no streams.
    pub async fn exec_start(&self, id: &str, request: ExecStartRequest) -> Result<Option<Attached>, EngineError> {
        let entry = self.0.execs.get(id)?;
        if entry.started {
            let text = if entry.running { "is already running" } else { "has already run" };
            return Err(EngineError::conflict(format!("exec {id} {text}")));
        }
        let container = self.0.index.find(&entry.container_id)?;
        let (view, record) = (container.view(), container.record());
        check_running(&record)?;
        let client = view.shim.clone().ok_or_else(|| EngineError::not_running(&record.id))?;
        self.0.execs.change(id, |entry| (entry.started, entry.running) = (true, true));
        let mode = if request.detach { ExecMode::Detached } else { ExecMode::Attached };
        let size = window(request.console_size).or_else(|| window(entry.request.console_size));
        let started = start(&self.0, &record, &client, id, &entry.request, Terms { mode, size }).await;
        let (pid, stream) = match started {
            Ok(started) => started,
            Err(error) => {
                let asked = error.to_string().starts_with("OCI runtime");
                let (code, error) = if asked { owner::classify(error) } else { (EXIT_UNSTARTED, error) };
                self.0.execs.change(id, |entry| (entry.running, entry.exit_code) = (false, Some(code)));
                return Err(error);
            }
        };
        self.0.execs.change(id, |entry| entry.pid = i64::from(pid));
        log_exec(&self.0, &record, "exec_start", id, entry.request.cmd.as_deref().unwrap_or_default());
        let Some(stream) = stream else { return Ok(None) };
        let (attached, streams) = streams::pair(entry.request.tty);
        let (engine, id) = (self.0.clone(), id.to_owned());
        let on_end = move |end: Option<shim::protocol::End>| {
            if let Some(code) = end.and_then(|end| end.exit_code) {
                let state = ExecState { id, pid, exit_code: Some(code), exited_at: None };
                engine.execs.exited(&state, &engine.events, &record);
            }
        };
        streams::join(stream, streams, Some(Box::new(on_end)));
        Ok(Some(attached))
    }

    /// How it is.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecInspect, EngineError> {
        let entry = self.0.execs.get(id)?;
        let request = entry.request;
        let mut words = request.cmd.unwrap_or_default().into_iter();
        Ok(ExecInspect {
            id: id.to_owned(),
            running: entry.running,
            exit_code: entry.exit_code,
            process_config: ExecProcessConfig {
                tty: request.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: Some(request.privileged),
                user: request.user,
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: !entry.running,
            container_id: entry.container_id,
            detach_keys: Some(Base64::default()),
            pid: entry.pid,
        })
    }

    /// Sets the size of its terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let entry = self.0.execs.get(id)?;
        let container = self.0.index.find(&entry.container_id)?;
        if !entry.running {
            return Err(EngineError::conflict(format!("exec {id} is not running")));
        }
        let client = container.view().shim.clone().ok_or_else(|| EngineError::not_running(&container.id))?;
        let resized = client.exec_resize(id, WindowSize { rows, columns }).await;
        resized.map_err(|error| EngineError::internal(error.to_string()))
    }
}

type Stream = (crate::shim_client::ShimOutput, crate::shim_client::ShimInput);

/// Whether an exec has streams, and the size of its terminal.
struct Terms {
    mode: ExecMode,
    size: Option<WindowSize>,
}

async fn start(
    engine: &Arc<Inner>,
    record: &Record,
    client: &ShimClient,
    id: &str,
    request: &ExecCreateRequest,
    terms: Terms,
) -> Result<(i32, Option<Stream>), EngineError> {
    let process = crate::bundle::exec_process(engine, record, request)?;
    let exec = ExecStart {
        id: id.to_owned(),
        process,
        terminal: request.tty,
        size: terms.size,
        stdin: request.attach_stdin && terms.mode == ExecMode::Attached,
        mode: terms.mode,
    };
    client.exec_start(exec).await.map_err(|error| start_failed(&error.to_string()))
}

/// A health check to run.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) engine: Arc<Inner>,
    pub(crate) record: Record,
    pub(crate) client: ShimClient,
    pub(crate) words: Vec<String>,
    pub(crate) timeout: Duration,
}

/// Runs it; a check that takes too long is killed and is bad.
pub(crate) async fn run_probe(probe: &Probe) -> (HealthLog, ProbeOutcome) {
    let start_ns = Clock::now_ns();
    let mut output = Vec::new();
    probe.engine.health_checks.fetch_add(1, Ordering::Relaxed);
    let exit_code = match tokio::time::timeout(probe.timeout, probe_exit(probe, &mut output)).await {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            probe.engine.health_checks_failed.fetch_add(1, Ordering::Relaxed);
            output = error.to_string().into_bytes();
            -1
        }
        Err(_) => {
            let text = format!("Health check exceeded timeout ({})", go_duration(probe.timeout));
            let partial = String::from_utf8_lossy(&output).into_owned();
            output = if partial.is_empty() { text } else { format!("{text}: {partial}") }.into_bytes();
            -1
        }
    };
    output.truncate(PROBE_OUTPUT_MAX);
    let log = HealthLog {
        start: time_of(start_ns),
        end: time_of(Clock::now_ns()),
        exit_code,
        output: String::from_utf8_lossy(&output).into_owned(),
    };
    (log, if exit_code == 0 { ProbeOutcome::Good } else { ProbeOutcome::Bad })
}

/// Kills an exec whose waiter gave up.
struct KillOnDrop {
    client: ShimClient,
    id: Option<String>,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let client = self.client.clone();
            tokio::spawn(async move {
                // it may have ended meanwhile
                let _ = client.exec_kill(&id, nix::sys::signal::Signal::SIGKILL as i32).await;
            });
        }
    }
}

async fn probe_exit(probe: &Probe, output: &mut Vec<u8>) -> Result<i64, EngineError> {
    let id = fresh_id()?;
    let request = ExecCreateRequest {
        cmd: Some(probe.words.clone()),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecCreateRequest::default()
    };
    log_exec(&probe.engine, &probe.record, "exec_create", &id, &probe.words);
    let terms = Terms { mode: ExecMode::Attached, size: None };
    let (_, stream) = start(&probe.engine, &probe.record, &probe.client, &id, &request, terms).await?;
    log_exec(&probe.engine, &probe.record, "exec_start", &id, &probe.words);
    let mut guard = KillOnDrop { client: probe.client.clone(), id: Some(id.clone()) };
    let Some((mut stdout, _input)) = stream else { return Err(EngineError::internal("an exec without its streams")) };
    loop {
        match stdout.next().await {
            Ok(OutputItem::Stdout(bytes) | OutputItem::Stderr(bytes)) => {
                let room = PROBE_OUTPUT_MAX.saturating_sub(output.len());
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Ok(OutputItem::End(end)) => {
                guard.id = None;
                let code = i64::from(end.exit_code.unwrap_or(-1));
                let mut attributes = probe.record.event_attributes();
                attributes.insert("execID".to_owned(), id);
                attributes.insert("exitCode".to_owned(), code.to_string());
                probe.engine.events.log("container", "exec_die", &probe.record.id, attributes);
                return Ok(code);
            }
            Err(error) => return Err(EngineError::internal(error.to_string())),
        }
    }
}
