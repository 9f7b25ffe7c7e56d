//! Whether and how a service is rebalanced: labels of the service or, where it has none of a name, of the cluster.

use crate::tasks::Mode;
use model::{Cluster, Duration, Service};
use stdx::parse_go_duration;
use thiserror::Error;

/// `auto`: the service is rebalanced; `off` or no label: it is not.
pub const SWITCH_LABEL: &str = "skep.rebalance";
/// How many tasks of a service move at once.
pub const PARALLELISM_LABEL: &str = "skep.rebalance.parallelism";
/// How long after a move the next one of the service begins, as Go writes it.
pub const DELAY_LABEL: &str = "skep.rebalance.delay";
/// How many tasks of a service move at once if nothing is said.
pub const DEFAULT_PARALLELISM: usize = 1;
/// How many tasks of a service may move at once.
pub const PARALLELISM_LIMIT: usize = 100;
/// How long after a move the next one begins if nothing is said: long enough to see the new task fail.
pub const DEFAULT_DELAY: Duration = Duration::from_secs(5);

/// How a service is rebalanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Tasks that move at once, from 1 to [`PARALLELISM_LIMIT`].
    pub parallelism: usize,
    /// From one task's move to the next.
    pub delay: Duration,
}

/// A label that cannot be understood; nothing is moved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The switch.
    #[error("label {SWITCH_LABEL}={0:?} is neither auto nor off: nothing is moved")]
    Switch(String),
    /// The number.
    #[error("label {PARALLELISM_LABEL}={0:?} is not a number from 1 to {PARALLELISM_LIMIT}: nothing is moved")]
    Parallelism(String),
    /// The time.
    #[error("label {DELAY_LABEL}={0:?} is not a duration like 10s or 1m30s: nothing is moved")]
    Delay(String),
}

/// The policy for `service`; `None` if it is not to be rebalanced, or cannot be (global services, jobs).
pub fn policy(cluster: Option<&Cluster>, service: &Service) -> Result<Option<Policy>, PolicyError> {
    if Mode::of(service) != Mode::Replicated {
        return Ok(None);
    }
    let label = |name: &str| {
        let own = service.spec.annotations.labels.get(name);
        own.or_else(|| cluster?.spec.annotations.labels.get(name)).map(String::as_str)
    };
    match label(SWITCH_LABEL) {
        None | Some("off") => return Ok(None),
        Some("auto") => {}
        Some(other) => return Err(PolicyError::Switch(other.to_owned())),
    }
    let parallelism = match label(PARALLELISM_LABEL) {
        None => DEFAULT_PARALLELISM,
        Some(text) => {
            let number = text.parse().ok().filter(|number| (1..=PARALLELISM_LIMIT).contains(number));
            number.ok_or_else(|| PolicyError::Parallelism(text.to_owned()))?
        }
    };
    let delay = match label(DELAY_LABEL) {
        None => DEFAULT_DELAY,
        Some(text) => {
            let nanos = parse_go_duration(text).filter(|nanos| *nanos >= 0);
            Duration::from_nanos(nanos.ok_or_else(|| PolicyError::Delay(text.to_owned()))?)
        }
    };
    Ok(Some(Policy { parallelism, delay }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{GlobalService, ReplicatedJob, ServiceMode};

    fn labelled(labels: &[(&str, &str)]) -> model::Annotations {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        model::Annotations { labels, ..Default::default() }
    }

    fn of(cluster: &[(&str, &str)], service: &[(&str, &str)]) -> Result<Option<Policy>, PolicyError> {
        let mut of_cluster = Cluster::default();
        of_cluster.spec.annotations = labelled(cluster);
        let mut of_service = Service::default();
        of_service.spec.annotations = labelled(service);
        policy(Some(&of_cluster), &of_service)
    }

    #[test]
    fn the_services_label_wins_over_the_clusters_and_off_is_the_default() {
        let auto = |parallelism, seconds| Ok(Some(Policy { parallelism, delay: Duration::from_secs(seconds) }));
        assert_eq!(of(&[], &[]), Ok(None));
        assert_eq!(of(&[], &[(SWITCH_LABEL, "auto")]), auto(1, 5));
        assert_eq!(of(&[(SWITCH_LABEL, "auto")], &[]), auto(1, 5));
        assert_eq!(of(&[(SWITCH_LABEL, "auto")], &[(SWITCH_LABEL, "off")]), Ok(None));
        assert_eq!(of(&[(SWITCH_LABEL, "off")], &[(SWITCH_LABEL, "auto")]), auto(1, 5));
        let cluster = [(SWITCH_LABEL, "auto"), (PARALLELISM_LABEL, "2"), (DELAY_LABEL, "1m")];
        assert_eq!(of(&cluster, &[]), auto(2, 60));
        assert_eq!(of(&cluster, &[(PARALLELISM_LABEL, "3")]), auto(3, 60));
        assert_eq!(of(&cluster, &[(DELAY_LABEL, "0")]), auto(2, 0));
    }

    #[test]
    fn malformed_labels_are_named_and_mean_off() {
        let check = |name: &str, value: &str, expected: &str| {
            let labels = [(SWITCH_LABEL, "auto"), (name, value)];
            let error = of(&labels, &[]).unwrap_err().to_string();
            assert_eq!(error, expected);
            assert_eq!(of(&[], &labels).unwrap_err().to_string(), error);
        };
        check("skep.rebalance", "on", "label skep.rebalance=\"on\" is neither auto nor off: nothing is moved");
        check("skep.rebalance", "Auto", "label skep.rebalance=\"Auto\" is neither auto nor off: nothing is moved");
        for value in ["0", "101", "-1", "two", "", "99999999999999999999999"] {
            let text =
                format!("label skep.rebalance.parallelism={value:?} is not a number from 1 to 100: nothing is moved");
            check("skep.rebalance.parallelism", value, &text);
        }
        for value in ["10", "-1s", "soon", ""] {
            let text =
                format!("label skep.rebalance.delay={value:?} is not a duration like 10s or 1m30s: nothing is moved");
            check("skep.rebalance.delay", value, &text);
        }
        let off = [(SWITCH_LABEL, "off"), (DELAY_LABEL, "soon")];
        assert_eq!(of(&off, &[]), Ok(None), "what is off need not be right");
    }

    #[test]
    fn global_services_and_jobs_are_never_rebalanced() {
        for mode in [ServiceMode::Global(GlobalService), ServiceMode::ReplicatedJob(ReplicatedJob::default())] {
            let mut service = Service::default();
            service.spec.annotations = labelled(&[(SWITCH_LABEL, "auto")]);
            service.spec.mode = Some(mode);
            assert_eq!(policy(None, &service), Ok(None));
        }
    }
}
