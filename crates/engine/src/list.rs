//! What `ps` lists, and its filters.

use docker_types::container::{MountPoint, Port, Summary, SummaryHostConfig, SummaryNetworkSettings};
use docker_types::filters::Filters;

use crate::EngineError;
use crate::clock::{Clock, SECOND_NS, seconds_of};
use crate::container::Container;
use crate::engine::Inner;
use crate::inspect::{endpoints, mount_point};
use crate::launch::parse_port;
use crate::network::ContainerNetwork;
use crate::options::{ListOptions, SizeMode};
use crate::record::{LifeRecord, Phase, Record};

const FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "id",
    "isolation",
    "label",
    "name",
    "status",
    "health",
    "since",
    "volume",
    "network",
    "is-task",
    "publish",
    "expose",
    "label!",
];
const STATES: [&str; 7] = ["paused", "restarting", "removing", "running", "dead", "created", "exited"];

/// Seconds in other words, as go-units' `HumanDuration`.
pub(crate) fn human_duration(seconds: i64) -> String {
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// The column STATUS.
pub(crate) fn status_text(life: &LifeRecord, now_ns: i64) -> String {
    let since = |from: i64| human_duration(now_ns.saturating_sub(from).max(0) / SECOND_NS);
    match life.phase {
        Phase::Running | Phase::Paused => {
            let health = match life.health.as_ref().map(|health| health.status.as_str()) {
                Some("starting") => " (health: starting)".to_owned(),
                Some(status) if !status.is_empty() => format!(" ({status})"),
                _ => String::new(),
            };
            let paused = if life.phase == Phase::Paused { " (Paused)" } else { &health };
            format!("Up {}{paused}", since(life.started_ns))
        }
        Phase::Restarting => format!("Restarting ({}) {} ago", life.exit_code, since(life.finished_ns)),
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead => "Dead".to_owned(),
        Phase::Created => "Created".to_owned(),
        Phase::Exited if life.finished_ns == 0 => String::new(),
        Phase::Exited => format!("Exited ({}) {} ago", life.exit_code, since(life.finished_ns)),
    }
}

fn check(filters: &Filters) -> Result<(), EngineError> {
    let refuse = |error: docker_types::filters::FilterError| EngineError::invalid(error.to_string());
    filters.validate(&FILTERS).map_err(refuse)?;
    let known = |key: &str, value: &str| match key {
        "status" => STATES.contains(&value),
        "health" => ["starting", "healthy", "unhealthy", "none"].contains(&value),
        _ => value.parse::<i64>().is_ok(),
    };
    for key in ["status", "health", "exited"] {
        if let Some(value) = filters.get(key).find(|value| !known(key, value)) {
            return Err(EngineError::invalid(format!("invalid filter '{key}={value}'")));
        }
    }
    filters.flag("is-task").map_err(refuse)?;
    Ok(())
}

/// The filters with what they name looked up.
struct Looked<'a> {
    engine: &'a Inner,
    filters: &'a Filters,
    before_ns: Option<i64>,
    since_ns: Option<i64>,
    ancestors: Vec<String>,
}

fn look_up<'a>(engine: &'a Inner, filters: &'a Filters) -> Result<Looked<'a>, EngineError> {
    let created = |key: &str| filters.get(key).next().map(|name| engine.index.find(name)).transpose();
    let created = |key: &str| created(key).map(|found| found.map(|container| container.record().created_ns));
    let ancestors = filters.get("ancestor").filter_map(|name| engine.images.resolve(name).ok());
    Ok(Looked {
        engine,
        filters,
        before_ns: created("before")?,
        since_ns: created("since")?,
        ancestors: ancestors.map(|image| image.id.to_string()).collect(),
    })
}

impl Looked<'_> {
    fn matches(&self, record: &Record) -> bool {
        let (filters, life) = (self.filters, &record.life);
        let health = life.health.as_ref().map_or("none", |health| health.status.as_str());
        let own_names = [format!("/{}", record.name), record.name.clone()];
        let name = !filters.contains("name") || own_names.iter().any(|name| matches_name(filters, name));
        filters.matches_prefix("id", &record.id)
            && name
            && filters.matches_exact("status", life.phase.as_str())
            && filters.matches_exact("health", health)
            && filters.matches_labels("label", record.labels())
            && (!filters.contains("label!") || !filters.matches_labels("label!", record.labels()))
            && self.before_ns.is_none_or(|before| record.created_ns < before)
            && self.since_ns.is_none_or(|since| record.created_ns > since)
            && (!filters.contains("ancestor") || self.ancestors.contains(&record.image_id))
            && self.matches_exit(life)
            && self.matches_volume(record)
            && self.matches_network(record)
            && self.matches_ports(record)
            && filters.flag("is-task").ok().flatten().is_none_or(|task| task == record.task.is_some())
    }

    fn matches_exit(&self, life: &LifeRecord) -> bool {
        let mut codes = self.filters.get("exited").filter_map(|code| code.parse::<i64>().ok()).peekable();
        codes.peek().is_none()
            || (!life.phase.is_running() && life.phase != Phase::Created && codes.any(|code| code == life.exit_code))
    }

    fn matches_volume(&self, record: &Record) -> bool {
        let known =
            |wanted: &str| record.mounts.iter().any(|mount| mount.name == wanted || mount.destination == wanted);
        !self.filters.contains("volume") || self.filters.get("volume").any(known)
    }

    /// By name or id; a network that the container has not been on yet has only the one that the user wrote.
    fn matches_network(&self, record: &Record) -> bool {
        if !self.filters.contains("network") {
            return true;
        }
        let networks = endpoints(&*self.engine.network, record, None);
        let has_id = |id: &str, wanted: &str| !id.is_empty() && id.starts_with(wanted);
        let is_on = |wanted: &str| {
            networks.iter().any(|(name, settings)| name == wanted || has_id(&settings.network_id, wanted))
        };
        self.filters.get("network").any(is_on)
    }

    fn matches_ports(&self, record: &Record) -> bool {
        let exposes = |wanted: &str, port: &str| match (parse_port(wanted), parse_port(port)) {
            (Ok(wanted), Ok(port)) => wanted == port,
            _ => false,
        };
        let host = &record.host_config;
        let published: Vec<&String> = host.port_bindings.iter().flatten().map(|(port, _)| port).collect();
        let exposed: Vec<&String> = record.config.exposed_ports.keys().chain(published.iter().copied()).collect();
        let any = |key: &str, ports: &[&String]| {
            !self.filters.contains(key)
                || self.filters.get(key).any(|wanted| ports.iter().any(|port| exposes(wanted, port)))
        };
        any("publish", &published) && any("expose", &exposed)
    }
}

/// dockerd reads names as regular expressions; its users write the anchors `^` and `$`.
fn matches_name(filters: &Filters, name: &str) -> bool {
    filters.get("name").any(|wanted| {
        let (start, rest) = wanted.strip_prefix('^').map_or((false, wanted), |rest| (true, rest));
        let (end, word) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
        match (start, end) {
            (true, true) => name == word,
            (true, false) => name.starts_with(word),
            (false, true) => name.ends_with(word),
            (false, false) => name.contains(word),
        }
    })
}

pub(crate) async fn list(engine: &Inner, options: ListOptions) -> Result<Vec<Summary>, EngineError> {
    let filters = &options.filters;
    check(filters)?;
    let looked = look_up(engine, filters)?;
    // these ask for containers that do not run
    let all = options.all
        || options.limit.is_some()
        || ["status", "exited", "before", "since"].iter().any(|key| filters.contains(key));
    let mut found: Vec<_> =
        engine.index.all().into_iter().filter(|container| wanted(container, &looked, all)).collect();
    found.sort_by_key(|container| std::cmp::Reverse(container.record().created_ns));
    found.truncate(options.limit.unwrap_or(usize::MAX));
    let mut summaries = Vec::with_capacity(found.len());
    for container in found {
        let mut summary = summary(engine, &container.record());
        if options.size == SizeMode::With {
            summary.size_rw = engine.images.rootfs_size(&container.id).await.unwrap_or_default() as i64;
            let image = engine.images.resolve(&summary.image_id).map(|image| image.size as i64);
            summary.size_root_fs = summary.size_rw + image.unwrap_or_default();
        }
        summaries.push(summary);
    }
    Ok(summaries)
}

fn wanted(container: &Container, looked: &Looked<'_>, all: bool) -> bool {
    let record = container.record();
    (all || record.life.phase.is_running()) && looked.matches(&record)
}

fn ports(record: &Record, network: Option<&ContainerNetwork>) -> Vec<Port> {
    let Some(network) = network.filter(|network| !network.endpoints.is_empty()) else { return Vec::new() };
    let mut ports: Vec<Port> = network
        .ports
        .iter()
        .map(|port| Port {
            ip: port.host_address.to_string(),
            private_port: port.container_port,
            public_port: port.host_port,
            kind: port.protocol.as_str().to_owned(),
        })
        .collect();
    for port in record.config.exposed_ports.keys() {
        let Ok((number, protocol)) = parse_port(port) else { continue };
        if !ports.iter().any(|port| port.private_port == number && port.kind == protocol.as_str()) {
            ports.push(Port { private_port: number, kind: protocol.as_str().to_owned(), ..Port::default() });
        }
    }
    ports
}

/// As dockerd shows it: words with spaces in quotes.
fn command_text(record: &Record) -> String {
    let word = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    let words: Vec<String> = std::iter::once(&record.path).chain(&record.args).map(word).collect();
    words.join(" ")
}

fn summary(engine: &Inner, record: &Record) -> Summary {
    let network = engine.network.get(&record.id);
    let same = engine.images.resolve(&record.config.image).is_ok_and(|image| image.id.to_string() == record.image_id);
    Summary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        // a name that means another image now is no name of this one
        image: if same { record.config.image.clone() } else { record.image_id.clone() },
        image_id: record.image_id.clone(),
        command: command_text(record),
        created: seconds_of(record.created_ns),
        ports: ports(record, network.as_ref()),
        labels: record.labels().clone(),
        state: record.life.phase.as_str().to_owned(),
        status: status_text(&record.life, Clock::now_ns()),
        host_config: SummaryHostConfig {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        },
        network_settings: Some(SummaryNetworkSettings {
            networks: Some(endpoints(&*engine.network, record, network.as_ref())),
        }),
        mounts: record.mounts.iter().filter_map(mount_point).map(|mount| MountPoint { ..mount }).collect(),
        ..Summary::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_gos() {
        let check = |seconds, text: &str| assert_eq!(human_duration(seconds), text);
        check(0, "Less than a second");
        check(59, "59 seconds");
        check(61, "About a minute");
        check(150, "2 minutes");
        check(3600, "About an hour");
        check(3 * 86_400, "3 days");
        check(20 * 86_400, "2 weeks");
    }

    #[test]
    fn names_take_anchors() {
        let matches = |filter: &str, name: &str| {
            let mut filters = Filters::default();
            filters.insert("name", filter);
            matches_name(&filters, name)
        };
        assert!(matches("^web$", "web") && !matches("^web$", "web2"));
        assert!(matches("we", "web") && matches("^/web", "/web2") && matches("2$", "web2"));
    }
}
