//! What was seen at one moment, and its text. Pure.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::registry::Registry;

use super::families::{FAMILIES, Family, Kind};

/// A value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// Of something that is counted.
    Whole(u64),
    /// A time.
    Seconds(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

/// Values by metric and labels. A metric without a value is not told.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<&'static str, Vec<Sample>>);

#[derive(Debug)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

impl Samples {
    /// The value of a metric without labels.
    pub(super) fn set(&mut self, family: &Family, value: impl Into<Value>) {
        self.add(family, &[], value);
    }

    /// The value of a metric with these values of its labels, in their order.
    pub(super) fn add(&mut self, family: &Family, labels: &[&str], value: impl Into<Value>) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let labels = family.labels.iter().zip(labels).map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.0.entry(family.name).or_default().push(Sample { labels, value: value.into() });
    }

    /// Prometheus' text, format 0.0.4.
    pub(super) fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in FAMILIES {
            let Some(samples) = self.0.get(family.name) else { continue };
            let mut metric = encoder.encode_descriptor(family.stem(), family.help, None, family.metric_type())?;
            for sample in samples {
                encode_value(metric.encode_family(&sample.labels)?, family.kind, sample.value)?;
            }
        }
        Ok(())
    }
}

fn encode_value(mut metric: MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        (Kind::Counter, Value::Seconds(value)) => metric.encode_counter::<NoLabelSet, f64, u64>(&value, None),
        (Kind::Gauge, Value::Whole(value)) => metric.encode_gauge(&value),
        (Kind::Gauge, Value::Seconds(value)) => metric.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::families as f;
    use super::*;

    #[test]
    fn the_text_is_prometheus() {
        let mut samples = Samples::default();
        samples.set(&f::SWARM_SERVICES, 1_u64);
        samples.set(&f::EVENTS, u64::MAX);
        samples.set(&f::PROCESS_CPU, Value::Seconds(1.25));
        for (state, count) in [("running", 3_usize), ("paused", 0)] {
            samples.add(&f::CONTAINERS, &[state], count);
        }
        samples.add(&f::SWARM_INFO, &["a\"b\\c\nd", ""], true);
        let expected = "\
# HELP engine_daemon_container_states_containers The count of containers in various states
# TYPE engine_daemon_container_states_containers gauge
engine_daemon_container_states_containers{state=\"running\"} 3
engine_daemon_container_states_containers{state=\"paused\"} 0
# HELP engine_daemon_events_total The number of events logged
# TYPE engine_daemon_events_total counter
engine_daemon_events_total 18446744073709551615
# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.25
# HELP swarm_manager_services_total The number of services in the cluster object store
# TYPE swarm_manager_services_total gauge
swarm_manager_services_total 1
# HELP swarm_node_info Information related to the swarm
# TYPE swarm_node_info gauge
swarm_node_info{node_id=\"a\\\"b\\\\c\\nd\",swarm_id=\"\"} 1
";
        assert_eq!(samples.text(), expected);
    }
}
