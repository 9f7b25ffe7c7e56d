//! Checks of a service spec that need nothing but the spec.

use std::collections::BTreeSet;

use model::{
    ContainerSpec, Duration, EndpointSpec, HealthConfig, PublishMode, ResolutionMode, ResourceRequirements, Resources,
    RestartPolicy, ServiceMode, ServiceSpec, TaskRuntime, TaskSpec, UpdateConfig,
};
use tonic::Code;

use super::annotations::check_dns_name;
use crate::error::ControlError;

/// Smallest share of a processor: 0.001.
const MIN_NANO_CPUS: i64 = 1_000_000;
/// Most replicas of one service, and tasks of one job: what a swarm is built for. Tasks are made as fast as the manager can,
/// so a number that was mistyped would take its memory before anybody could take it back.
const MAX_REPLICAS: u64 = 1_000_000;
/// Smallest memory.
const MIN_MEMORY_BYTES: i64 = 4 << 20;
/// Shortest health check time.
const MIN_HEALTH_NANOS: i64 = 1_000_000;

/// The whole spec.
pub(crate) fn check_service_spec(spec: &ServiceSpec) -> Result<(), ControlError> {
    check_dns_name(&spec.annotations.name)?;
    check_task_spec(&spec.task)?;
    check_mode(spec)?;
    for config in [&spec.update, &spec.rollback].into_iter().flatten() {
        check_update(config)?;
    }
    spec.endpoint.as_ref().map_or(Ok(()), check_endpoint)
}

fn check_mode(spec: &ServiceSpec) -> Result<(), ControlError> {
    let job = matches!(spec.mode, Some(ServiceMode::ReplicatedJob(_) | ServiceMode::GlobalJob(_)));
    if job && spec.update.is_some() {
        return Err(ControlError::invalid("Jobs may not have an update config"));
    }
    let (what, numbers) = match &spec.mode {
        Some(ServiceMode::Replicated(mode)) => ("replicas", vec![mode.replicas]),
        Some(ServiceMode::ReplicatedJob(mode)) => ("tasks of a job", vec![mode.max_concurrent, mode.total_completions]),
        _ => return Ok(()),
    };
    // A negative number of the client's comes as a very large one.
    if numbers.iter().any(|number| i64::try_from(*number).is_err()) {
        return Err(ControlError::invalid(format!("Number of {what} must be non-negative")));
    }
    if numbers.iter().any(|number| *number > MAX_REPLICAS) {
        return Err(ControlError::invalid(format!("Number of {what} must be at most {MAX_REPLICAS}")));
    }
    Ok(())
}

fn check_task_spec(task: &TaskSpec) -> Result<(), ControlError> {
    task.resources.as_ref().map_or(Ok(()), check_requirements)?;
    task.restart.as_ref().map_or(Ok(()), check_restart)?;
    if let Some(placement) = &task.placement {
        orchestration::scheduler::constraint::parse(&placement.constraints)
            .map_err(|error| ControlError::new(Code::Unknown, error.to_string()))?;
    }
    match &task.runtime {
        Some(TaskRuntime::Container(container)) => check_container(container),
        Some(_) => Err(ControlError::new(Code::Unimplemented, "RuntimeUnimplemented: only containers can be run")),
        None => Err(ControlError::invalid("TaskSpec: missing runtime")),
    }
}

fn check_requirements(requirements: &ResourceRequirements) -> Result<(), ControlError> {
    for resources in [&requirements.limits, &requirements.reservations].into_iter().flatten() {
        check_resources(resources)?;
    }
    Ok(())
}

fn check_resources(resources: &Resources) -> Result<(), ControlError> {
    if resources.nano_cpus != 0 && resources.nano_cpus < MIN_NANO_CPUS {
        let cpus = resources.nano_cpus as f64 / 1e9;
        return Err(ControlError::invalid(format!("invalid cpu value {cpus}: Must be at least 0.001")));
    }
    if resources.memory_bytes != 0 && resources.memory_bytes < MIN_MEMORY_BYTES {
        let text = format!("invalid memory value {}: Must be at least 4MiB", resources.memory_bytes);
        return Err(ControlError::invalid(text));
    }
    Ok(())
}

fn negative(span: Option<Duration>) -> bool {
    span.is_some_and(|span| span.total_nanos() < 0)
}

fn check_restart(policy: &RestartPolicy) -> Result<(), ControlError> {
    if negative(policy.delay) {
        return Err(ControlError::invalid("TaskSpec: restart-delay cannot be negative"));
    }
    if negative(policy.window) {
        return Err(ControlError::invalid("TaskSpec: restart-window cannot be negative"));
    }
    Ok(())
}

fn check_update(config: &UpdateConfig) -> Result<(), ControlError> {
    if negative(Some(config.delay)) {
        return Err(ControlError::invalid("TaskSpec: update-delay cannot be negative"));
    }
    if negative(config.monitor) {
        return Err(ControlError::invalid("TaskSpec: update-monitor cannot be negative"));
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(ControlError::invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"));
    }
    Ok(())
}

fn check_container(container: &ContainerSpec) -> Result<(), ControlError> {
    if container.image.is_empty() {
        return Err(ControlError::invalid("ContainerSpec: image reference must be provided"));
    }
    if oci_reference_is_bad(&container.image) {
        let text = format!("ContainerSpec: {:?} is not a valid repository/tag", container.image);
        return Err(ControlError::invalid(text));
    }
    let mut targets = BTreeSet::new();
    for mount in &container.mounts {
        if !targets.insert(mount.target.as_str()) {
            return Err(ControlError::invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target)));
        }
    }
    container.healthcheck.as_ref().map_or(Ok(()), check_health)
}

/// A coarse check: the engine parses the reference in full when it pulls.
fn oci_reference_is_bad(reference: &str) -> bool {
    let path = reference.split_once('@').map_or(reference, |(path, _)| path);
    let repository = match path.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => path,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@[]".contains(&byte);
    let name = repository.rsplit('/').next().unwrap_or_default();
    !reference.bytes().all(plain) || name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_health(health: &HealthConfig) -> Result<(), ControlError> {
    let spans = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    for (name, span) in spans {
        let nanos = span.map_or(0, Duration::total_nanos);
        if nanos != 0 && nanos < MIN_HEALTH_NANOS {
            let text = format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms");
            return Err(ControlError::invalid(text));
        }
    }
    if health.retries < 0 {
        return Err(ControlError::invalid("ContainerSpec: Retries in HealthConfig cannot be negative"));
    }
    Ok(())
}

fn check_endpoint(endpoint: &EndpointSpec) -> Result<(), ControlError> {
    let mut published = BTreeSet::new();
    for port in &endpoint.ports {
        if endpoint.mode == ResolutionMode::Dnsrr && port.publish_mode == PublishMode::Ingress {
            return Err(ControlError::invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.target_port == 0 || port.target_port > 65535 || port.published_port > 65535 {
            return Err(ControlError::invalid("EndpointSpec: a port must be between 1 and 65535"));
        }
        if port.published_port != 0 && !published.insert((port.published_port, port.protocol)) {
            return Err(ControlError::invalid("EndpointSpec: duplicate published ports provided"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{PortConfig, PortProtocol};
    use std::sync::Arc;

    fn spec(change: impl FnOnce(&mut ServiceSpec, &mut ContainerSpec)) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        spec.annotations.name = "web".into();
        let mut container = ContainerSpec { image: "busybox".into(), ..Default::default() };
        change(&mut spec, &mut container);
        let task = Arc::make_mut(&mut spec.task);
        task.runtime = Some(TaskRuntime::Container(container));
        spec
    }

    #[test]
    fn texts_are_swarmkits() {
        let check = |spec: ServiceSpec, text: &str| {
            let found = check_service_spec(&spec).err().map(|error| error.desc).unwrap_or_default();
            assert_eq!(found, text);
        };
        check(spec(|_, _| {}), "");
        check(spec(|_, c| c.image = String::new()), "ContainerSpec: image reference must be provided");
        check(spec(|_, c| c.image = "Foo".into()), "ContainerSpec: \"Foo\" is not a valid repository/tag");
        let port =
            PortConfig { target_port: 80, published_port: 80, protocol: PortProtocol::Tcp, ..Default::default() };
        let twice = EndpointSpec { ports: vec![port.clone(), port.clone()], ..Default::default() };
        check(spec(|s, _| s.endpoint = Some(twice)), "EndpointSpec: duplicate published ports provided");
        let dnsrr = EndpointSpec { mode: ResolutionMode::Dnsrr, ports: vec![port] };
        check(
            spec(|s, _| s.endpoint = Some(dnsrr)),
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        );
        let small = Resources { memory_bytes: 1, ..Default::default() };
        let limits = ResourceRequirements { limits: Some(small), ..Default::default() };
        check(
            spec(|s, _| Arc::make_mut(&mut s.task).resources = Some(limits)),
            "invalid memory value 1: Must be at least 4MiB",
        );
    }
}
