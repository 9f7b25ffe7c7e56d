//! A task as the engine's request for a container: what dockerd's executor makes of it, field by field.

use std::cell::Cell;
use std::collections::BTreeMap;

use docker_types::container::{CreateRequest, HostConfig, LogConfig, PortBinding};
use docker_types::container_spec::ContainerSpec as JsonSpec;
use docker_types::json::Empty;
use engine::{CreateOptions, FileKind, IngressAttachment, IngressPort, OverlayAttachment, SecretFile, TaskOptions};
use model::{
    ConfigReferenceTarget, ContainerSpec, Driver, FileTarget, NetworkAttachment, PortConfig, PortProtocol, Privileges,
    PublishMode, SeccompMode, SecretReferenceTarget, Task, TaskRuntime,
};

use super::task_name;
use super::template::TemplateContext;
use crate::overlay::is_overlay;

/// Where secrets without an absolute path are mounted.
const SECRETS_FOLDER: &str = "/run/secrets";

/// The container of a task.
pub(crate) struct ContainerRequest {
    pub(crate) name: String,
    pub(crate) request: CreateRequest,
    pub(crate) options: CreateOptions,
}

/// The container spec of a task; an error for what is no container.
pub(crate) fn container_spec(task: &Task) -> Result<&ContainerSpec, String> {
    match &task.spec.runtime {
        Some(TaskRuntime::Container(spec)) => Ok(spec),
        Some(TaskRuntime::Attachment(_)) => Err("an attachment to a network is no container".to_owned()),
        Some(TaskRuntime::Generic(_)) => Err("this runtime is not built in this version of Skep".to_owned()),
        None => Err("the task has no runtime".to_owned()),
    }
}

/// The task's attachment to the ingress network, if it has one.
pub(crate) fn ingress_attachment(task: &Task) -> Option<&NetworkAttachment> {
    task.networks.iter().find(|attachment| attachment.network.as_ref().is_some_and(|network| network.spec.ingress))
}

/// The task's attachments to networks that span nodes.
pub(crate) fn overlays(task: &Task) -> impl Iterator<Item = &NetworkAttachment> {
    task.networks.iter().filter(|it| it.network.as_ref().is_some_and(|network| is_overlay(network)))
}

fn overlay(attachment: &NetworkAttachment) -> Option<OverlayAttachment> {
    let network = attachment.network.as_ref()?;
    let (v6, v4): (Vec<_>, Vec<_>) = attachment.addresses.iter().partition(|address| address.contains(':'));
    Some(OverlayAttachment {
        network_id: network.id.to_string(),
        network_name: network.spec.annotations.name.clone(),
        address: v4.first().map(|address| (*address).clone())?,
        address_v6: v6.first().map(|address| (*address).clone()),
        aliases: attachment.aliases.clone(),
    })
}

/// Ports of a task in one mode.
pub(crate) fn ports(task: &Task, mode: PublishMode) -> impl Iterator<Item = &PortConfig> {
    task.endpoint.iter().flat_map(|endpoint| &endpoint.ports).filter(move |port| port.publish_mode == mode)
}

/// Builds the request; `files` are the contents of its secrets and configs.
pub(crate) fn build(
    task: &Task,
    context: &TemplateContext,
    files: Vec<SecretFile>,
) -> Result<ContainerRequest, String> {
    let mut spec = container_spec(task)?.clone();
    context.expand_container(&mut spec)?;
    let json = JsonSpec::from_model(&spec);
    let mut request = CreateRequest {
        hostname: spec.hostname.clone(),
        user: spec.user.clone(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        env: Some(spec.env.clone()),
        image: spec.image.clone(),
        working_dir: spec.dir.clone(),
        labels: Some(labels(task, &spec)),
        stop_signal: spec.stop_signal.clone(),
        healthcheck: json.healthcheck.clone(),
        host_config: Some(host_config(task, &spec, &json)),
        ..CreateRequest::default()
    };
    // With a command, arguments belong to it; alone they replace the image's CMD.
    if !spec.command.is_empty() {
        request.entrypoint = Some(spec.command.clone());
        request.cmd = Some(spec.args.clone());
    } else if !spec.args.is_empty() {
        request.cmd = Some(spec.args.clone());
    }
    for port in ports(task, PublishMode::Host) {
        request.exposed_ports.insert(port_key(port), Empty);
    }
    let on_others = overlays(task).filter(|it| !it.network.as_ref().is_some_and(|network| network.spec.ingress));
    let overlays = on_others.filter_map(overlay).collect();
    let task_options = TaskOptions { ingress: ingress(task), overlays, files };
    let options = CreateOptions { task: Some(task_options), ..CreateOptions::default() };
    Ok(ContainerRequest { name: task_name(task), request, options })
}

fn labels(task: &Task, spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    let text = |id: Option<String>| id.unwrap_or_default();
    let own = [
        ("task", String::new()),
        ("task.id", task.id.to_string()),
        ("task.name", task_name(task)),
        ("node.id", text(task.node_id.as_ref().map(ToString::to_string))),
        ("service.id", text(task.service_id.as_ref().map(ToString::to_string))),
        ("service.name", task.service_annotations.name.clone()),
    ];
    labels.extend(own.into_iter().map(|(key, value)| (format!("com.docker.swarm.{key}"), value)));
    labels
}

fn host_config(task: &Task, spec: &ContainerSpec, json: &JsonSpec) -> HostConfig {
    let none_if_empty = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let mut host = HostConfig {
        network_mode: network_mode(task),
        cap_add: none_if_empty(&spec.capability_add),
        cap_drop: none_if_empty(&spec.capability_drop),
        group_add: none_if_empty(&spec.groups),
        readonly_rootfs: spec.read_only,
        init: spec.init,
        sysctls: spec.sysctls.clone(),
        oom_score_adj: spec.oom_score_adj,
        mounts: json.mounts.clone(),
        isolation: "default".to_owned(),
        ulimits: (!json.ulimits.is_empty()).then(|| json.ulimits.clone()),
        extra_hosts: none_if_empty(&extra_hosts(&spec.hosts)),
        ..HostConfig::default()
    };
    if let Some(dns) = &spec.dns_config {
        host.dns = none_if_empty(&dns.nameservers);
        host.dns_search = none_if_empty(&dns.search);
        host.dns_options = none_if_empty(&dns.options);
    }
    set_resources(&mut host, task, spec);
    let driver = task.log_driver.as_ref().or(task.spec.log_driver.as_ref());
    if let Some(driver) = driver {
        host.log_config = LogConfig { kind: driver.name.clone(), config: Some(driver.options.clone()) };
    }
    let bindings = ports(task, PublishMode::Host).map(|port| {
        let host_port = if port.published_port == 0 { String::new() } else { port.published_port.to_string() };
        (port_key(port), Some(vec![PortBinding { host_ip: String::new(), host_port }]))
    });
    let bindings: BTreeMap<_, _> = bindings.collect();
    host.port_bindings = Some(bindings);
    host.security_opt = none_if_empty(&spec.privileges.as_ref().map(security_options).unwrap_or_default());
    host
}

fn set_resources(host: &mut HostConfig, task: &Task, spec: &ContainerSpec) {
    if spec.pids_limit > 0 {
        host.pids_limit = Some(spec.pids_limit);
    }
    let Some(resources) = &task.spec.resources else { return };
    if let Some(limits) = &resources.limits {
        host.memory = limits.memory_bytes;
        host.nano_cpus = limits.nano_cpus;
    }
    if let Some(swap) = resources.swap_bytes {
        host.memory_swap = if swap < 0 { swap } else { host.memory.saturating_add(swap) };
    }
    host.memory_swappiness = resources.memory_swappiness;
}

fn security_options(privileges: &Privileges) -> Vec<String> {
    let mut options = Vec::new();
    if privileges.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match privileges.seccomp.as_ref().map(|seccomp| (seccomp.mode, &seccomp.profile)) {
        Some((SeccompMode::Unconfined, _)) => options.push("seccomp=unconfined".to_owned()),
        Some((SeccompMode::Custom, profile)) => options.push(format!("seccomp={}", String::from_utf8_lossy(profile))),
        Some((SeccompMode::Default, _)) | None => {}
    }
    options
}

/// `host` and `none` come as predefined networks; all else is the swarm's own.
fn network_mode(task: &Task) -> String {
    let first = task.networks.first().and_then(|attachment| attachment.network.as_ref());
    let predefined =
        first.filter(|network| network.spec.annotations.labels.contains_key("com.docker.swarm.predefined"));
    predefined.map(|network| network.spec.annotations.name.clone()).unwrap_or_default()
}

/// Lines of `/etc/hosts` as `name:address`.
fn extra_hosts(lines: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else { continue };
        hosts.extend(words.map(|name| format!("{name}:{address}")));
    }
    hosts
}

/// `80/tcp`.
fn port_key(port: &PortConfig) -> String {
    format!("{}/{}", port.target_port, protocol(port.protocol).as_str())
}

fn protocol(protocol: PortProtocol) -> engine::Protocol {
    match protocol {
        PortProtocol::Tcp => engine::Protocol::Tcp,
        PortProtocol::Udp => engine::Protocol::Udp,
        PortProtocol::Sctp => engine::Protocol::Sctp,
    }
}

fn ingress(task: &Task) -> Option<IngressAttachment> {
    let attachment = ingress_attachment(task)?;
    let ports = ports(task, PublishMode::Ingress).filter_map(|port| {
        Some(IngressPort {
            protocol: protocol(port.protocol),
            published: u16::try_from(port.published_port).ok()?,
            target: u16::try_from(port.target_port).ok()?,
        })
    });
    Some(IngressAttachment {
        network_id: attachment.network.as_ref()?.id.to_string(),
        address: attachment.addresses.first()?.clone(),
        ports: ports.collect(),
    })
}

/// Why the files of a task cannot be had.
#[derive(Debug)]
pub(crate) enum FilesError {
    /// Something has not come yet.
    Missing(String),
    /// They will never be right.
    Bad(String),
}

/// The secrets and configs of a task as files, with the contents that this node was sent, filled in where they are
/// templates.
pub(crate) fn files(
    task: &Task,
    dependencies: &agent::Dependencies,
    context: &TemplateContext,
) -> Result<Vec<SecretFile>, FilesError> {
    let spec = container_spec(task).map_err(FilesError::Bad)?;
    let mut files = Vec::new();
    for reference in &spec.secrets {
        let Some(SecretReferenceTarget::File(target)) = &reference.target else { continue };
        let missing = || FilesError::Missing(format!("secret {} is not here yet", reference.secret_name));
        let secret = dependencies.secret(&reference.secret_id, &task.id).ok_or_else(missing)?;
        let payload = Payload { templating: secret.spec.templating.clone(), data: secret.spec.data.clone() };
        files.push((target, SECRETS_FOLDER, payload, FileKind::Secret));
    }
    for reference in &spec.configs {
        let Some(ConfigReferenceTarget::File(target)) = &reference.target else { continue };
        let missing = || FilesError::Missing(format!("config {} is not here yet", reference.config_name));
        let config = dependencies.config(&reference.config_id).ok_or_else(missing)?;
        let payload = Payload { templating: config.spec.templating.clone(), data: config.spec.data.clone() };
        files.push((target, "/", payload, FileKind::Config));
    }
    let made = files.iter().map(|(target, folder, payload, kind)| {
        let kind = Cell::new(*kind);
        let data = payload.expand(context, &spec.env, &|wanted, name| {
            if wanted == FileKind::Secret {
                // What holds a secret is one.
                kind.set(FileKind::Secret);
            }
            // As SwarmKit: what another one holds as it is, by the name that it has in the container.
            let named = files.iter().find(|(target, _, _, kind)| *kind == wanted && target.name == name);
            named.map(|(_, _, payload, _)| String::from_utf8_lossy(&payload.data).into_owned())
        });
        file(target, folder, data.map_err(|error| format!("{}: {error}", target.name))?, kind.get())
    });
    made.collect::<Result<_, _>>().map_err(FilesError::Bad)
}

/// What a secret or a config holds.
struct Payload {
    templating: Option<Driver>,
    data: Vec<u8>,
}

impl Payload {
    /// Its contents for one task; `other` gives those of the task's other secrets and configs.
    fn expand(
        &self,
        context: &TemplateContext,
        env: &[String],
        other: &dyn Fn(FileKind, &str) -> Option<String>,
    ) -> Result<Vec<u8>, String> {
        match self.templating.as_ref().map(|driver| driver.name.as_str()) {
            None => return Ok(self.data.clone()),
            Some("golang") => {}
            Some(name) => return Err(format!("unrecognized template type: {name}")),
        }
        let text = std::str::from_utf8(&self.data).map_err(|_| "the template is no text".to_owned())?;
        let call = |function: &str, name: &str| {
            let (kind, what) = match function {
                "env" => {
                    let value = env.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
                    return Some(value.map_or_else(|| Ok(String::new()), |value| context.expand(value)));
                }
                "secret" => (FileKind::Secret, "secret"),
                "config" => (FileKind::Config, "config"),
                _ => return None,
            };
            Some(other(kind, name).ok_or_else(|| format!("{what} target {name} not found")))
        };
        context.expand_with(text, &call).map(String::into_bytes)
    }
}

fn file(target: &FileTarget, folder: &str, data: Vec<u8>, kind: FileKind) -> Result<SecretFile, String> {
    let number = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u32>() };
    let bad = |_| format!("{}: owner and group must be numbers", target.name);
    let path = if target.name.starts_with('/') {
        target.name.clone()
    } else {
        format!("{}/{}", folder.trim_end_matches('/'), target.name)
    };
    let (uid, gid) = (number(&target.uid).map_err(bad)?, number(&target.gid).map_err(bad)?);
    Ok(SecretFile { path, uid, gid, mode: target.mode, data, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templated_payloads_are_filled_in() {
        let task = Task { id: "t1".into(), ..Task::default() };
        let context = TemplateContext::new(&task, "host1", "linux", "x86_64");
        let env = ["E=envval".to_owned(), "H={{.Node.Hostname}}".to_owned()];
        let other =
            |kind: FileKind, name: &str| (kind == FileKind::Secret && name == "s1").then(|| "hidden".to_owned());
        let expand = |driver: Option<&str>, text: &str| {
            let templating = driver.map(|name| Driver { name: name.to_owned(), ..Driver::default() });
            let made = Payload { templating, data: text.as_bytes().to_vec() }.expand(&context, &env, &other);
            made.map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let golang = |text| expand(Some("golang"), text);
        let text = r#"{{ env "E" }} {{env "H"}} {{env "none"}}{{ secret "s1" }}"#;
        assert_eq!(expand(None, text).as_deref(), Ok(text));
        assert_eq!(golang(text).as_deref(), Ok("envval host1 hidden"));
        assert_eq!(golang(r#"{{config "c"}}"#), Err("config target c not found".to_owned()));
        assert!(golang("{{bogus").is_err());
        assert_eq!(expand(Some("jinja"), "x"), Err("unrecognized template type: jinja".to_owned()));
    }
}
