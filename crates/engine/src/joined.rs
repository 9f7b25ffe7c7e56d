//! Containers that share a namespace with another one (`--network`, `--ipc`, `--pid` with `container:…`): the other's name
//! becomes its id at creation, and at each start it must run. Statuses and texts are dockerd's, which differ by namespace.

use std::sync::Arc;

use docker_types::container::HostConfig;

use crate::bundle::shared_memory;
use crate::container::Container;
use crate::engine::Inner;
use crate::record::{Phase, Record};
use crate::{EngineError, ErrorKind};

/// The other container in `container:…`.
fn other(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

/// Puts ids in place of names, so that a renamed container is found again. One that is not there is a fault of the request for
/// IPC and PID; a network is looked for only at the start.
pub(crate) fn settle(engine: &Inner, host: &mut HostConfig) -> Result<(), EngineError> {
    for mode in [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode] {
        if let Some(container) = other(mode).and_then(|name| engine.index.find(name).ok()) {
            *mode = format!("container:{}", container.id);
        }
    }
    // dockerd looks while it makes up a label for SELinux
    let has_label = host.security_opt.iter().flatten().any(|option| option.split('=').next() == Some("label"));
    if has_label || host.privileged || host.ipc_mode == "host" || host.pid_mode == "host" {
        return Ok(());
    }
    for name in [&host.ipc_mode, &host.pid_mode].into_iter().filter_map(|mode| other(mode)) {
        // 404 would say that the image is missing
        engine.index.find(name).map_err(|error| EngineError::invalid(error.to_string()))?;
    }
    Ok(())
}

/// Refuses to join the namespace of a container that does not run. Gives the one whose network is joined.
pub(crate) fn check(engine: &Inner, record: &Record) -> Result<Option<Arc<Container>>, EngineError> {
    let host = &record.host_config;
    let network = other(&host.network_mode).map(|name| network_of(engine, record, name)).transpose()?;
    if let Some(name) = other(&host.ipc_mode) {
        let failed = |kind, text: String| EngineError::new(kind, format!("failed to join IPC namespace: {text}"));
        let donor = running(engine, name).map_err(|error| {
            let missing = error.kind() == ErrorKind::NotFound;
            failed(if missing { ErrorKind::InvalidParameter } else { error.kind() }, error.to_string())
        })?;
        if !shared_memory(&donor.paths).exists() {
            let hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)";
            return Err(failed(ErrorKind::InvalidParameter, format!("container {name}: {hint}")));
        }
    }
    if let Some(name) = other(&host.pid_mode) {
        running(engine, name)
            .map_err(|error| EngineError::internal(format!("failed to join PID namespace: {error}")))?;
    }
    Ok(network)
}

fn running(engine: &Inner, name: &str) -> Result<Arc<Container>, EngineError> {
    let container = engine.index.find(name)?;
    match container.record().life.phase {
        Phase::Running | Phase::Paused => Ok(container),
        Phase::Restarting => Err(EngineError::restarting(name)),
        _ => Err(EngineError::not_running(name)),
    }
}

fn network_of(engine: &Inner, record: &Record, name: &str) -> Result<Arc<Container>, EngineError> {
    let joining = "joining network namespace of container";
    let found = engine.index.find(name).map_err(|error| EngineError::internal(format!("{joining}: {error}")))?;
    if found.id == record.id {
        return Err(EngineError::internal("cannot join own network namespace"));
    }
    let donor = found.record();
    match donor.life.phase {
        Phase::Running | Phase::Paused => Ok(found),
        Phase::Restarting => {
            let error = EngineError::restarting(name);
            Err(EngineError::conflict(format!("cannot join network namespace of container: {error}")))
        }
        phase => Err(EngineError::conflict(format!(
            "cannot join network namespace of a non running container: container {} is {}",
            donor.name,
            phase.as_str()
        ))),
    }
}
