//! What a new daemon makes of what the last one left: running containers are taken over, ended ones learn how they ended,
//! policies apply, and what belongs to no record is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use shim::launch::ExitRecord;
use shim::protocol::{ErrorKind, IfRunning, Status};

use crate::cgroup_lock::CgroupLock;
use crate::clock::Clock;
use crate::engine::{Inner, blocking};
use crate::events::EventBus;
use crate::exec::Execs;
use crate::index::Index;
use crate::launch::ShimEnd;
use crate::network::NetworkBackend;
use crate::owner::{self, Attached, EXIT_UNSEEN, unix_ns};
use crate::record::{ContainerPaths, Flush, MountKind, Phase, Record};
use crate::shim_client::ShimClient;
use crate::volumes::Volumes;
use crate::{Engine, EngineConfig, EngineError, RemoveOptions};

/// Containers looked after at once.
const AT_ONCE: usize = 16;
/// Time between two looks at a shim that is deleting its container.
const DELETE_LOOK: Duration = Duration::from_millis(20);
/// Looks until it is given up.
const DELETE_LOOKS: u32 = 500;

impl Engine {
    /// Opens the engine: adopts what runs, applies restart policies, removes leftovers.
    pub async fn open(
        config: EngineConfig,
        images: image::ImageStore,
        network: Arc<dyn NetworkBackend>,
    ) -> Result<Self, EngineError> {
        let (data_root, exec_root) = (config.data_root.clone(), config.exec_root.clone());
        let (volumes, records) = blocking(move || {
            for directory in [data_root.join("containers"), exec_root.join("shim"), exec_root.join("runtime")] {
                make_directory(&directory)?;
            }
            Ok((Volumes::open(&data_root)?, load_records(&data_root)?))
        })
        .await?;
        let inner = Arc::new(Inner {
            config,
            images,
            network,
            volumes,
            events: EventBus::default(),
            index: Index::default(),
            execs: Execs::default(),
            cgroup_lock: CgroupLock::default(),
            shuts_down: AtomicBool::new(false),
            health_checks: AtomicU64::new(0),
            health_checks_failed: AtomicU64::new(0),
        });
        let known: BTreeSet<String> = records.iter().map(|record| record.id.clone()).collect();
        for record in &records {
            reserve(&inner, record);
        }
        remove_strangers(&inner, &known).await;
        // Networks are cleared before anything starts: a start would find what is being removed, or have its own removed.
        let found = find_all(&inner, records).await;
        let running = found.iter().filter(|(_, shim)| shim.is_some()).map(|(record, _)| record.id.clone()).collect();
        if let Err(error) = inner.network.reconcile(&running).await {
            tracing::warn!(%error, "cannot clean up networks");
        }
        adopt_all(&inner, found).await;
        Ok(Self(inner))
    }
}

fn make_directory(path: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o710).create(path);
    made.map_err(|error| EngineError::io("create", path, &error))
}

/// All records; a directory without one was half made and goes.
fn load_records(data_root: &Path) -> Result<Vec<Record>, EngineError> {
    let root = data_root.join("containers");
    let list = fs::read_dir(&root).map_err(|error| EngineError::io("list", &root, &error))?;
    let mut records = Vec::new();
    for entry in list.flatten() {
        let directory = entry.path();
        let half_made = fs::metadata(directory.join(crate::record::RECORD_NAME)).map_or(true, |meta| meta.len() == 0);
        if half_made {
            tracing::info!(directory = %directory.display(), "removing a container that was not made to the end");
            if let Err(error) = fs::remove_dir_all(&directory) {
                tracing::warn!(directory = %directory.display(), %error, "cannot remove");
            }
            continue;
        }
        match Record::load(&directory) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a container's record is passed over"),
        }
    }
    Ok(records)
}

fn reserve(engine: &Inner, record: &Record) {
    if let Err(error) = engine.index.reserve(Some(&record.name), &record.id) {
        tracing::warn!(container = %record.id, %error, "two containers have one name");
    }
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        if let Err(error) = engine.volumes.add_user(&mount.name, &record.id) {
            tracing::warn!(container = %record.id, %error, "a volume is missing");
        }
    }
}

/// Removes shims and root filesystems that no record knows.
async fn remove_strangers(engine: &Arc<Inner>, known: &BTreeSet<String>) {
    let shims = engine.config.exec_root.join("shim");
    for entry in fs::read_dir(&shims).into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().into_string() else { continue };
        if known.contains(&id) {
            continue;
        }
        tracing::info!(container = %id, "removing the shim of an unknown container");
        let record = Record { id: id.clone(), ..Record::default() };
        let paths = ContainerPaths::new(&engine.config.data_root, &engine.config.exec_root, &id);
        let end = end_shim(engine, &record, &ShimClient::at(&entry.path())).await;
        clear_exec(engine, &record, &paths, end).await;
    }
    match engine.images.rootfs_containers() {
        Ok(containers) => {
            for id in containers.iter().filter(|id| !known.contains(*id)) {
                if let Err(error) = engine.images.remove_rootfs(id).await {
                    tracing::warn!(container = %id, %error, "cannot remove a root filesystem without a container");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot list root filesystems"),
    }
}

/// Ends a shim that may be gone, and what the runtime knows of its container. A former daemon may have asked for the same
/// just before it was killed: then the shim ends when it has done that, and its socket with it.
async fn end_shim(engine: &Arc<Inner>, record: &Record, client: &ShimClient) -> ShimEnd {
    for _ in 0..DELETE_LOOKS {
        match client.delete(IfRunning::Kill).await {
            Ok(()) => return ShimEnd::Soon,
            Err(error) if error.kind() == Some(ErrorKind::Exists) => tokio::time::sleep(DELETE_LOOK).await,
            Err(_) => break,
        }
    }
    crate::orphan::delete_in_runtime(engine, record).await;
    crate::orphan::end_shim(client.directory()).await;
    ShimEnd::Over
}

/// Takes down what a run left of mounts and files.
async fn clear_exec(engine: &Arc<Inner>, record: &Record, paths: &ContainerPaths, end: ShimEnd) {
    let (shared, quiet, paths) = (engine.clone(), record.clone(), paths.clone());
    let cleared = blocking(move || {
        crate::launch::undo_mounts(&shared, &quiet, &paths, end);
        Ok(())
    })
    .await;
    if let Err(error) = cleared {
        tracing::warn!(container = %record.id, %error, "cannot clear");
    }
    if let Err(error) = engine.images.unmount(&record.id).await {
        tracing::debug!(container = %record.id, %error, "cannot unmount");
    }
}

/// Each container with its shim, if it has a process.
async fn find_all(engine: &Arc<Inner>, records: Vec<Record>) -> Vec<(Record, Option<Attached>)> {
    side_by_side(records, |mut record| {
        let engine = engine.clone();
        async move {
            let paths = ContainerPaths::new(&engine.config.data_root, &engine.config.exec_root, &record.id);
            let shim = find_shim(&engine, &mut record, &paths).await;
            (record, shim)
        }
    })
    .await
}

async fn adopt_all(engine: &Arc<Inner>, found: Vec<(Record, Option<Attached>)>) {
    side_by_side(found, |(record, shim)| {
        let engine = engine.clone();
        async move { adopt(&engine, record, shim).await }
    })
    .await;
}

/// Works on all, a few at once. What panicked is left out.
async fn side_by_side<T, R, F>(items: Vec<T>, mut work: impl FnMut(T) -> F) -> Vec<R>
where
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let slots = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let tasks: Vec<_> = items
        .into_iter()
        .map(|item| {
            let (slots, work) = (slots.clone(), work(item));
            tokio::spawn(async move {
                let _slot = slots.acquire().await;
                work.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.extend(task.await.ok());
    }
    results
}

/// Goes on from where a container and its shim are.
async fn adopt(engine: &Arc<Inner>, mut record: Record, shim: Option<Attached>) {
    let paths = ContainerPaths::new(&engine.config.data_root, &engine.config.exec_root, &record.id);
    let id = record.id.clone();
    if matches!(record.life.phase, Phase::Removing | Phase::Dead) {
        return remove_rest(engine, record, &paths).await;
    }
    if let Some(shim) = shim {
        let _ = record.save(&paths.data, Flush::Later);
        owner::spawn(engine, record, Vec::new(), Some(shim));
        return;
    }
    let ended_meanwhile = record.life.phase.is_running();
    if ended_meanwhile {
        note_end(&mut record, &paths);
    }
    if paths.exec.exists() {
        let end = end_shim(engine, &record, &ShimClient::at(&paths.exec)).await;
        clear_exec(engine, &record, &paths, end).await;
    } else if let Err(error) = engine.images.unmount(&id).await {
        tracing::debug!(container = %id, %error, "cannot unmount");
    }
    if let Err(error) = engine.network.remove(&id).await {
        tracing::debug!(container = %id, %error, "cannot remove the network");
    }
    let again = owner::wanted_at_open(&record);
    if again {
        record.life.phase = Phase::Restarting;
    }
    if ended_meanwhile && let Err(error) = record.save(&paths.data, Flush::Later) {
        tracing::error!(container = %id, %error, "cannot keep the record");
    }
    let auto_remove = ended_meanwhile && record.host_config.auto_remove;
    let container = owner::spawn(engine, record, Vec::new(), None);
    if auto_remove {
        let options = RemoveOptions { force: true, volumes: true };
        let _ = container.ask(|reply| crate::container::Command::Remove { options, reply }).await;
    }
}

/// Connects to the shim of a container that has a process; a shim without one is deleted.
async fn find_shim(engine: &Arc<Inner>, record: &mut Record, paths: &ContainerPaths) -> Option<Attached> {
    if !paths.exec.exists() || matches!(record.life.phase, Phase::Removing | Phase::Dead) {
        return None;
    }
    let (client, _) = ShimClient::connect(&paths.exec, &record.id).await.ok()?;
    let (state, events) = client.subscribe().await.ok()?;
    let life = &mut record.life;
    // The record knows this start: what users have seen of it stays as it is.
    let is_known = life.phase != Phase::Restarting && life.pid == state.pid && life.started_ns != 0;
    match state.status {
        Status::Running => life.phase = Phase::Running,
        Status::Paused => life.phase = Phase::Paused,
        Status::Created => return None,
        // the caller takes the exit record, also if the record had not been told of the start, and ends the shim
        Status::Exited => {
            (life.phase, life.ever_started) = (Phase::Running, true);
            return None;
        }
    }
    life.pid = state.pid;
    life.oom_killed |= state.oom_killed;
    life.ever_started = true;
    if let Some(started) = state.started_at.as_deref().and_then(unix_ns).filter(|_| !is_known) {
        life.started_ns = started;
    }
    tracing::info!(container = %record.id, engine = ?engine.config.exec_root, "adopted");
    Some(Attached { client, events })
}

/// How a container ended while nobody watched.
fn note_end(record: &mut Record, paths: &ContainerPaths) {
    let life = &mut record.life;
    let restarting = life.phase == Phase::Restarting;
    crate::orphan::kill(life.pid, &record.id);
    life.phase = Phase::Exited;
    life.pid = 0;
    match ExitRecord::read(&paths.exit()) {
        _ if restarting => {}
        Ok(Some(exit)) => {
            life.exit_code = i64::from(exit.exit_code);
            life.oom_killed |= exit.oom_killed;
            life.finished_ns = unix_ns(&exit.exited_at).unwrap_or_else(Clock::now_ns);
        }
        Ok(None) | Err(_) => {
            life.exit_code = EXIT_UNSEEN;
            life.finished_ns = Clock::now_ns();
        }
    }
}

/// Goes on with a removal that was interrupted.
async fn remove_rest(engine: &Arc<Inner>, record: Record, paths: &ContainerPaths) {
    let end = end_shim(engine, &record, &ShimClient::at(&paths.exec)).await;
    clear_exec(engine, &record, paths, end).await;
    let id = record.id.clone();
    let container = owner::spawn(engine, record, Vec::new(), None);
    let options = RemoveOptions { force: true, volumes: false };
    if let Err(error) = container.ask(|reply| crate::container::Command::Remove { options, reply }).await {
        tracing::warn!(container = %id, %error, "cannot remove");
    }
}
