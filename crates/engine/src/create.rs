//! Creation: the request and the image become a record, a root filesystem and volumes; all of it or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use docker_types::container::{ContainerConfig, CreateRequest, CreateResponse, HostConfig, NetworkingConfig};
use docker_types::container_spec::Ulimit;
use image::ImageRecord;

use crate::clock::{Clock, fresh_id};
use crate::engine::{Inner, blocking};
use crate::host_limits::HostLimits;
use crate::launch::{parse_port, port_requests};
use crate::merge::{command_of, merge};
use crate::mount_points::{check_inherited_mode, plan_mounts};
use crate::options::{CreateOptions, ReadOnlyDepth};
use crate::record::{ContainerPaths, Flush, MountKind, MountRecord, RECORD_VERSION, Record, TaskRecord};
use crate::spec::DEFAULT_SHM_SIZE;
use crate::volumes::LOCAL_DRIVER;
use crate::{Engine, EngineError, FileKind, endpoint_settings, joined, owner, platform, task_files, validate};

impl Engine {
    /// Makes a container; `name` without or with `/`, `None` for a random one.
    pub async fn create(
        &self,
        name: Option<&str>,
        request: CreateRequest,
        options: CreateOptions,
    ) -> Result<CreateResponse, EngineError> {
        let engine = &self.0;
        let given = Given::new(engine, request)?;
        let (image, foreign) = self.image_of(&given, &options)?;
        let mut warnings = given.warnings.clone();
        warnings.extend(foreign);
        let mut draft = draft(engine, given, &image)?;
        let files = options.task.as_ref().map(|task| task.files.clone()).unwrap_or_default();
        task_files::check(&files)?;
        draft.task = options.task.as_ref().map(|task| TaskRecord {
            ingress: task.ingress.clone(),
            overlays: task.overlays.clone(),
            secrets: !task.files.is_empty(),
            configs: task
                .files
                .iter()
                .filter(|file| file.kind == FileKind::Config)
                .map(|file| file.path.clone())
                .collect(),
        });
        draft.id = fresh_id()?;
        draft.name = engine.index.reserve(name, &draft.id)?;
        let mut undo = Undo { engine: engine.clone(), record: Some(draft.clone()) };
        set_host_defaults(engine, &mut draft);
        let made = make(engine, draft, &image, options.read_only, &mut undo).await?;
        undo.record = None;
        let response = CreateResponse { id: made.id.clone(), warnings };
        let attributes = made.event_attributes();
        owner::spawn(engine, made, files, None);
        engine.events.log("container", "create", &response.id, attributes);
        Ok(response)
    }

    /// The image, and a warning if it is for another machine.
    fn image_of(&self, given: &Given, options: &CreateOptions) -> Result<(ImageRecord, Option<String>), EngineError> {
        let name = &given.config.image;
        if name.is_empty() {
            let other = given.config != ContainerConfig::default();
            let text =
                if other { "No image specified" } else { "config cannot be empty in order to create a container" };
            return Err(EngineError::invalid(text));
        }
        let image = self.0.images.resolve(name)?;
        let warning = platform::check(&image, name, options.platform.as_deref())?;
        Ok((image, warning))
    }
}

/// What the user asks for, checked as far as it can be without the image.
struct Given {
    config: ContainerConfig,
    host: HostConfig,
    networking: NetworkingConfig,
    warnings: Vec<String>,
}

impl Given {
    fn new(engine: &Inner, request: CreateRequest) -> Result<Self, EngineError> {
        let mut config = request.config();
        let mut host = request.host_config.unwrap_or_default();
        check_network(&mut host, &config)?;
        let warnings = validate::check_request(&mut config, &mut host, &engine.config, HostLimits::current())?;
        Ok(Self { config, host, networking: request.networking_config.unwrap_or_default(), warnings })
    }
}

/// The record without what must be made: merged with the image.
fn draft(engine: &Inner, given: Given, image: &ImageRecord) -> Result<Record, EngineError> {
    let Given { mut config, mut host, networking, .. } = given;
    joined::settle(engine, &mut host)?;
    merge(&mut config, &image.config)?;
    if host.log_config.kind.is_empty() {
        host.log_config.kind.clone_from(&engine.config.log_driver);
        let options = host.log_config.config.get_or_insert_default();
        for (name, value) in &engine.config.log_opts {
            options.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    validate::check_log(&host)?;
    crate::bundle::check_security(&host)?;
    for port in config.exposed_ports.keys() {
        parse_port(port)?;
    }
    let (path, args) = command_of(&config);
    let record = Record {
        version: RECORD_VERSION,
        created_ns: Clock::now_ns(),
        image_id: image.id.to_string(),
        path,
        args,
        config,
        host_config: host,
        networking: normal_networking(networking),
        ..Record::default()
    };
    port_requests(&record)?;
    let endpoints = record.networking.endpoints_config.iter().flatten();
    endpoint_settings::check_all(endpoints, |network| engine.network.network(network))?;
    Ok(record)
}

/// Whether the network exists is asked at the start, as in dockerd: here "not found" would mean the image to clients.
fn check_network(host: &mut HostConfig, config: &ContainerConfig) -> Result<(), EngineError> {
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    let joined = host.network_mode.strip_prefix("container:");
    if let Some(text) = joined.and_then(|name| conflict_with_joining(name, host, config)) {
        return Err(EngineError::invalid(text));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(EngineError::invalid("conflicting options: hostname and the UTS mode"));
    }
    if host.network_mode == "host" && host.links.iter().flatten().next().is_some() {
        let text = "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
        return Err(EngineError::invalid(text));
    }
    Ok(())
}

/// What does not go with another container's network.
fn conflict_with_joining(name: &str, host: &HostConfig, config: &ContainerConfig) -> Option<&'static str> {
    let given = |list: &Option<Vec<String>>| list.iter().flatten().next().is_some();
    let ports = host.port_bindings.iter().flatten().next().is_some() || host.publish_all_ports;
    let conflicts = [
        (name.is_empty(), "invalid network mode: invalid container format container:<name|id>"),
        (!config.hostname.is_empty(), "conflicting options: hostname and the network mode"),
        (
            given(&host.links),
            "conflicting options: container type network can't be used with links. This would result in undefined behavior",
        ),
        (given(&host.dns), "conflicting options: dns and the network mode"),
        (given(&host.extra_hosts), "conflicting options: custom host-to-IP mapping and the network mode"),
        (ports, "conflicting options: port publishing and the container type network mode"),
        (!config.exposed_ports.is_empty(), "conflicting options: port exposing and the container type network mode"),
    ];
    conflicts.into_iter().find(|(conflicts, _)| *conflicts).map(|(_, text)| text)
}

fn normal_networking(networking: NetworkingConfig) -> NetworkingConfig {
    let endpoints = networking.endpoints_config.map(|endpoints| {
        let rename = |name: String| if name == "default" { "bridge".to_owned() } else { name };
        endpoints.into_iter().map(|(name, settings)| (rename(name), settings)).collect::<BTreeMap<_, _>>()
    });
    NetworkingConfig { endpoints_config: endpoints }
}

/// What dockerd fills in, so that inspect shows it.
fn set_host_defaults(engine: &Inner, record: &mut Record) {
    let host = &mut record.host_config;
    if host.ipc_mode.is_empty() {
        "private".clone_into(&mut host.ipc_mode);
    }
    if host.cgroupns_mode.is_empty() {
        let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let mode = if unified && !host.privileged { "private" } else { "host" };
        mode.clone_into(&mut host.cgroupns_mode);
    }
    if host.shm_size == 0 {
        host.shm_size = DEFAULT_SHM_SIZE;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    host.oom_kill_disable.get_or_insert(false);
    host.pids_limit = host.pids_limit.filter(|limit| *limit != 0);
    if host.runtime.is_empty() {
        host.runtime.clone_from(&engine.config.default_runtime);
    }
    if host.restart_policy.name.is_empty() {
        "no".clone_into(&mut host.restart_policy.name);
    }
    if !host.privileged {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        host.masked_paths.get_or_insert_with(|| owned(&crate::spec::MASKED_PATHS));
        host.readonly_paths.get_or_insert_with(|| owned(&crate::spec::READONLY_PATHS));
    }
    let limits = host.ulimits.get_or_insert_default();
    for (name, (soft, hard)) in &engine.config.default_ulimits {
        if !limits.iter().any(|limit| limit.name == *name) {
            limits.push(Ulimit { name: name.clone(), hard: *hard, soft: *soft });
        }
    }
    if record.config.hostname.is_empty() {
        record.config.hostname = match host.network_mode.as_str() {
            "host" => nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            mode => match mode.strip_prefix("container:").and_then(|id| engine.index.find(id).ok()) {
                Some(joined) => joined.record().config.hostname.clone(),
                None => record.id[..12].to_owned(),
            },
        };
    }
}

/// Makes the root filesystem, the volumes and the record on disk, side by side.
async fn make(
    engine: &Arc<Inner>,
    mut draft: Record,
    image: &ImageRecord,
    read_only: ReadOnlyDepth,
    undo: &mut Undo,
) -> Result<Record, EngineError> {
    let inherited = inherited_mounts(engine, &draft.host_config)?;
    let planned = plan_mounts(&draft.config, &draft.host_config, inherited, &engine.config.data_root)?;
    let rootfs = async { engine.images.prepare_rootfs(&draft.id, image).await.map_err(EngineError::from) };
    let record = {
        let (engine, mut record) = (engine.clone(), draft.clone());
        blocking(move || {
            let mut kept =
                Kept { engine: engine.clone(), record: Record { id: record.id.clone(), ..Record::default() } };
            for planned in planned {
                let mut mount = planned.mount;
                mount.writable_below |= read_only == ReadOnlyDepth::Single && mount.kind == MountKind::Bind;
                if let Some(request) = planned.volume {
                    make_volume(&engine, &mut mount, &request)?;
                }
                if mount.kind == MountKind::Volume {
                    engine.volumes.add_user(&mount.name, &record.id)?;
                    kept.record.mounts.push(mount.clone());
                }
                record.mounts.push(mount);
            }
            let paths = ContainerPaths::new(&engine.config.data_root, &engine.config.exec_root, &record.id);
            make_private_directory(&paths.data)?;
            // the manager gives a task to this node again; a container of the user's must not be lost
            record.save(&paths.data, if record.task.is_some() { Flush::Later } else { Flush::Wait })?;
            kept.record.mounts.clear();
            Ok(record)
        })
    };
    // both to their end, so that what one of them made is known when the other fails
    let (rootfs, record) = tokio::join!(rootfs, record);
    let record = record?;
    draft.mounts.clone_from(&record.mounts);
    undo.record = Some(draft);
    rootfs?;
    Ok(record)
}

fn make_private_directory(path: &std::path::Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o710).create(path);
    made.map_err(|error| EngineError::io("create", path, &error))
}

fn make_volume(
    engine: &Inner,
    mount: &mut MountRecord,
    request: &docker_types::volume::VolumeCreateRequest,
) -> Result<(), EngineError> {
    let created = engine.volumes.create(request)?;
    if !created.existed {
        let attributes = [("driver".to_owned(), LOCAL_DRIVER.to_owned())].into();
        engine.events.log("volume", "create", &created.volume.name, attributes);
    }
    mount.source = created.volume.mountpoint.into();
    mount.name = created.volume.name;
    LOCAL_DRIVER.clone_into(&mut mount.driver);
    Ok(())
}

/// Mounts of other containers (`--volumes-from`).
fn inherited_mounts(engine: &Inner, host: &HostConfig) -> Result<Vec<MountRecord>, EngineError> {
    let mut mounts = Vec::new();
    for entry in host.volumes_from.iter().flatten() {
        let (name, mode) = entry.split_once(':').unwrap_or((entry, ""));
        if entry.is_empty() {
            return Err(EngineError::invalid("volumes-from specification cannot be an empty string"));
        }
        check_inherited_mode(mode)?;
        // A container that is not there is the request's fault: 404 would say that the image is missing.
        let other = engine.index.find(name).map_err(|error| EngineError::invalid(error.to_string()))?.record();
        for mount in other.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs) {
            let read_only = mount.read_only || mode.split(',').any(|word| word == "ro");
            mounts.push(MountRecord { read_only, copy_up: false, ..mount.clone() });
        }
    }
    Ok(mounts)
}

/// Gives volumes back that a creation which failed in the middle had taken.
struct Kept {
    engine: Arc<Inner>,
    record: Record,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for mount in &self.record.mounts {
            self.engine.volumes.remove_user(&mount.name, &self.record.id);
            if mount.anonymous {
                // it was made a moment ago, and nobody else knows its name
                let _ = self.engine.volumes.remove(&mount.name);
            }
        }
    }
}

/// Removes what a creation that failed or was given up has made.
struct Undo {
    engine: Arc<Inner>,
    record: Option<Record>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let engine = self.engine.clone();
        engine.index.release(&record.name, &record.id);
        let kept = Kept { engine: engine.clone(), record: record.clone() };
        tokio::spawn(async move {
            let _kept = kept;
            let paths = ContainerPaths::new(&engine.config.data_root, &engine.config.exec_root, &record.id);
            if let Err(error) = engine.images.remove_rootfs(&record.id).await {
                tracing::warn!(container = %record.id, %error, "cannot remove a root filesystem");
            }
            // what is left is found at the next start
            let _ = std::fs::remove_dir_all(&paths.data);
        });
    }
}
