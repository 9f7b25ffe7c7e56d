//! Services: create, update, roll back, remove, and how many tasks they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    ConfigId, JobIteration, JobStatus, NodeState, ObjectVersion, PublishMode, SecretId, Service, ServiceId,
    ServiceMode, ServiceSpec, SpecVersion, Task, TaskRuntime, TaskState, UpdateState, UpdateStatus,
};
use store::{StoreError, View};
use tonic::Code;

use super::LocalControl;
use super::validate::check_service_spec;
use crate::error::ControlError;
use crate::writer::now;

/// How many tasks a service should have and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Tasks that should run.
    pub desired_tasks: u64,
    /// Tasks that run.
    pub running_tasks: u64,
    /// Tasks of the current job iteration that have completed.
    pub completed_tasks: u64,
}

/// How a service is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// Take the given spec.
    Replace,
    /// Swap with the previous spec.
    Rollback,
}

impl LocalControl {
    /// Creates a service and returns it as it is committed.
    pub(crate) async fn create_service(&self, spec: ServiceSpec) -> Result<Arc<Service>, ControlError> {
        check_service_spec(&spec)?;
        let id = ServiceId::from(identity::random_id());
        self.writer
            .write(|transaction| {
                check_references(transaction, &spec, None)?;
                let job = matches!(spec.mode, Some(ServiceMode::ReplicatedJob(_) | ServiceMode::GlobalJob(_)));
                let started = JobStatus { job_iteration: JobIteration(0), last_execution: Some(now()) };
                let service = Service {
                    id: id.clone(),
                    spec_version: Some(SpecVersion(0)),
                    job_status: job.then_some(started),
                    spec,
                    ..Default::default()
                };
                let name = service.spec.annotations.name.clone();
                transaction.create(service).map_err(|error| name_conflict(error, &name))
            })
            .await?;
        self.service(&id)
    }

    /// Replaces the spec of a service, if `version` is the current one, or swaps it with the previous spec.
    pub(crate) async fn update_service(
        &self,
        id: &ServiceId,
        version: ObjectVersion,
        spec: ServiceSpec,
        kind: UpdateKind,
    ) -> Result<Arc<Service>, ControlError> {
        if kind == UpdateKind::Replace {
            check_service_spec(&spec)?;
        }
        self.writer
            .write(|transaction| {
                let stored = transaction.service(id).ok_or_else(|| ControlError::not_found("service", id))?;
                let mut service = Service::clone(stored);
                if service.meta.version != version {
                    return Err(ControlError::new(Code::Unknown, "update out of sequence"));
                }
                match kind {
                    UpdateKind::Replace => replace(transaction, &mut service, spec, version)?,
                    UpdateKind::Rollback => roll_back(&mut service)?,
                }
                if let Some(job) = &mut service.job_status {
                    job.job_iteration = JobIteration(job.job_iteration.0 + 1);
                    job.last_execution = Some(now());
                }
                transaction.update(service).map_err(ControlError::from)
            })
            .await?;
        self.service(id)
    }

    /// Removes a service; its tasks follow.
    pub(crate) async fn remove_service(&self, id: &ServiceId) -> Result<(), ControlError> {
        self.writer
            .write(|transaction| transaction.remove::<Service>(id).map_err(|_| ControlError::not_found("service", id)))
            .await
    }

    fn service(&self, id: &ServiceId) -> Result<Arc<Service>, ControlError> {
        let view = self.writer.shared().view();
        view.service(id).cloned().ok_or_else(|| ControlError::not_found("service", id))
    }
}

fn replace(view: &View, service: &mut Service, spec: ServiceSpec, version: ObjectVersion) -> Result<(), ControlError> {
    if std::mem::discriminant(&mode(&spec)) != std::mem::discriminant(&mode(&service.spec)) {
        return Err(ControlError::new(Code::Unimplemented, "service mode change is not allowed"));
    }
    if spec.annotations.name != service.spec.annotations.name {
        return Err(ControlError::new(Code::Unimplemented, "renaming services is not supported"));
    }
    if spec.networks != service.spec.networks && spec.task.networks.is_empty() {
        let text = "networks must be migrated to TaskSpec before being changed";
        return Err(ControlError::new(Code::Unimplemented, text));
    }
    check_references(view, &spec, Some(service))?;
    service.previous_spec = Some(std::mem::replace(&mut service.spec, spec));
    service.previous_spec_version = service.spec_version;
    service.spec_version = Some(SpecVersion(version.0));
    service.update_status = None;
    Ok(())
}

fn roll_back(service: &mut Service) -> Result<(), ControlError> {
    let Some(previous) = service.previous_spec.take() else {
        return Err(ControlError::precondition(format!("service {} does not have a previous spec", service.id)));
    };
    service.previous_spec = Some(std::mem::replace(&mut service.spec, previous));
    std::mem::swap(&mut service.spec_version, &mut service.previous_spec_version);
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        message: "manually requested rollback".to_owned(),
        started_at: Some(now()),
        completed_at: None,
    });
    Ok(())
}

fn mode(spec: &ServiceSpec) -> ServiceMode {
    spec.mode.clone().unwrap_or_else(|| ServiceMode::Replicated(Default::default()))
}

fn name_conflict(error: StoreError, name: &str) -> ControlError {
    match error {
        StoreError::NameConflict { .. } => ControlError::new(
            Code::AlreadyExists,
            format!("name conflicts with an existing object: service {name} already exists"),
        ),
        other => other.into(),
    }
}

/// What the spec refers to: ports of others, networks, secrets, configs.
fn check_references(view: &View, spec: &ServiceSpec, own: Option<&Service>) -> Result<(), ControlError> {
    check_ports(view, spec, own)?;
    check_networks(view, spec)?;
    check_secrets(view, spec)
}

fn check_ports(view: &View, spec: &ServiceSpec, own: Option<&Service>) -> Result<(), ControlError> {
    let Some(endpoint) = &spec.endpoint else { return Ok(()) };
    let wanted: BTreeMap<_, _> = endpoint
        .ports
        .iter()
        .filter(|port| port.published_port != 0)
        .map(|port| ((port.published_port, port.protocol), port.publish_mode))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    for other in view.services().filter(|other| own.is_none_or(|own| own.id != other.id)) {
        let given = other.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        let asked = other.spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        for port in asked.chain(given) {
            let Some(mode) = wanted.get(&(port.published_port, port.protocol)) else { continue };
            let how = match (mode, port.publish_mode) {
                (PublishMode::Host, PublishMode::Host) => continue,
                (_, PublishMode::Ingress) => "an ingress port",
                (_, PublishMode::Host) => "a host-published port",
            };
            let (port, name) = (port.published_port, &other.spec.annotations.name);
            let text = format!("port '{port}' is already in use by service '{name}' ({}) as {how}", other.id);
            return Err(ControlError::invalid(text));
        }
    }
    Ok(())
}

fn check_networks(view: &View, spec: &ServiceSpec) -> Result<(), ControlError> {
    for wanted in spec.task.networks.iter().chain(&spec.networks) {
        let network = view.get_str::<model::Network>(&wanted.target);
        if let Some(network) = network.filter(|network| network.spec.ingress) {
            let name = &network.spec.annotations.name;
            let text = format!("Service cannot be explicitly attached to the ingress network {name:?}");
            return Err(ControlError::invalid(text));
        }
    }
    let ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let mut ingress = ports.filter(|port| port.publish_mode == PublishMode::Ingress);
    if ingress.next().is_some() && !view.networks().any(|network| network.spec.ingress) {
        return Err(ControlError::precondition("service needs ingress network, but no ingress network is present"));
    }
    Ok(())
}

fn check_secrets(view: &View, spec: &ServiceSpec) -> Result<(), ControlError> {
    let Some(TaskRuntime::Container(container)) = &spec.task.runtime else { return Ok(()) };
    let has_secret = |id: &SecretId, name: &str| {
        view.secret(id).is_some_and(|secret| secret.spec.annotations.name == name && !secret.internal)
    };
    let has_config = |id: &ConfigId, name: &str| view.config(id).is_some_and(|it| it.spec.annotations.name == name);
    let secrets = container.secrets.iter().filter(|it| !has_secret(&it.secret_id, &it.secret_name));
    missing("secret", secrets.map(|it| it.secret_name.as_str()).collect())?;
    let configs = container.configs.iter().filter(|it| !has_config(&it.config_id, &it.config_name));
    missing("config", configs.map(|it| it.config_name.as_str()).collect())
}

fn missing(kind: &str, names: Vec<&str>) -> Result<(), ControlError> {
    match names.len() {
        0 => Ok(()),
        1 => Err(ControlError::invalid(format!("{kind} not found: {}", names[0]))),
        _ => Err(ControlError::invalid(format!("{kind}s not found: {}", names.join(", ")))),
    }
}

/// Whether the task was replaced because nobody hears of its node any more: what it was seen to do last is no news.
/// SwarmKit counts it as running for ever.
fn is_written_off(view: &View, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    task.desired_state > TaskState::Running && node.is_none_or(|node| node.status.state == NodeState::Down)
}

/// SwarmKit's `ListServiceStatuses` for one service.
pub fn service_counts(view: &View, id: &ServiceId) -> Option<ServiceCounts> {
    let service = view.service(id)?;
    let global = matches!(service.spec.mode, Some(ServiceMode::Global(_) | ServiceMode::GlobalJob(_)));
    let desired_tasks = match &service.spec.mode {
        Some(ServiceMode::Replicated(mode)) => mode.replicas,
        Some(ServiceMode::ReplicatedJob(mode)) => mode.max_concurrent,
        _ => 0,
    };
    let mut counts = ServiceCounts { desired_tasks, ..ServiceCounts::default() };
    let iteration = service.job_status.as_ref().map(|job| job.job_iteration);
    for task in view.tasks_of_service(id) {
        if iteration.is_some() && task.job_iteration != iteration {
            continue;
        }
        if task.status.state == TaskState::Running && !is_written_off(view, task) {
            counts.running_tasks += 1;
        }
        if iteration.is_some() && task.status.state == TaskState::Complete {
            counts.completed_tasks += 1;
        }
        let wanted = task.desired_state == TaskState::Running
            || (task.desired_state == TaskState::Complete && task.status.state != TaskState::Complete);
        if global && wanted {
            counts.desired_tasks += 1;
        }
    }
    Some(counts)
}
