//! From what each part says of itself to values of metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use doctor::Conntrack;
use engine::{Counts, Tallies};
use gossip::Refused;
use gossip_io::{Handle, Report};
use manager::Manager;
use model::{NodeRole, TaskState};
use net::Conntracks;
use node::{NodeInfo, NodeState};
use store::View;

use super::Facts;
use super::families as f;
use super::samples::Samples;

/// How long the gossip may take to answer; then its metrics are left out.
const GOSSIP_WAIT: Duration = Duration::from_secs(2);

/// SwarmKit's states of a task, in lower case.
const TASK_STATES: [(TaskState, &str); 14] = [
    (TaskState::New, "new"),
    (TaskState::Pending, "pending"),
    (TaskState::Assigned, "assigned"),
    (TaskState::Accepted, "accepted"),
    (TaskState::Preparing, "preparing"),
    (TaskState::Ready, "ready"),
    (TaskState::Starting, "starting"),
    (TaskState::Running, "running"),
    (TaskState::Complete, "complete"),
    (TaskState::Shutdown, "shutdown"),
    (TaskState::Failed, "failed"),
    (TaskState::Rejected, "rejected"),
    (TaskState::Remove, "remove"),
    (TaskState::Orphaned, "orphaned"),
];

/// SwarmKit's states of a node, in lower case.
const NODE_STATES: [(model::NodeState, &str); 4] = [
    (model::NodeState::Unknown, "unknown"),
    (model::NodeState::Down, "down"),
    (model::NodeState::Ready, "ready"),
    (model::NodeState::Disconnected, "disconnected"),
];

/// Docker's words for where a node stands.
const LOCAL_STATES: [&str; 5] = ["inactive", "pending", "active", "error", "locked"];

const REFUSED: [(Refused, &str); 6] = [
    (Refused::TooLarge, "too_large"),
    (Refused::Unopened, "unopened"),
    (Refused::Checksum, "checksum"),
    (Refused::Label, "label"),
    (Refused::Malformed, "malformed"),
    (Refused::Limit, "limit"),
];

pub(super) fn engine(samples: &mut Samples, facts: &Facts, counts: Counts, tallies: Tallies) {
    for (state, count) in [("running", counts.running), ("paused", counts.paused), ("stopped", counts.stopped)] {
        samples.add(&f::CONTAINERS, &[state], count);
    }
    let Facts { version, commit, daemon_id, host } = facts;
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    samples.set(&f::ENGINE_CPUS, positive(host.ncpu));
    samples.set(&f::ENGINE_MEMORY, positive(host.mem_total));
    let info = [
        &host.architecture,
        commit,
        daemon_id,
        "overlay2",
        &host.kernel_version,
        &host.operating_system,
        &host.os_type,
        &host.os_version,
        version,
    ];
    samples.add(&f::ENGINE_INFO, &info, true);
    samples.set(&f::EVENT_SUBSCRIBERS, tallies.event_subscribers);
    samples.set(&f::EVENTS, tallies.events);
    samples.set(&f::HEALTH_CHECKS_FAILED, tallies.health_checks_failed);
    samples.set(&f::HEALTH_CHECKS, tallies.health_checks);
}

pub(super) fn node(samples: &mut Samples, info: &NodeInfo) {
    samples.set(&f::SWARM_MANAGER, info.role == NodeRole::Manager);
    let state = match info.state {
        NodeState::Inactive => "inactive",
        NodeState::Pending => "pending",
        NodeState::Active => "active",
        NodeState::Failed | NodeState::Expired => "error",
        NodeState::Locked => "locked",
    };
    for known in LOCAL_STATES {
        samples.add(&f::NODE_STATE, &[known], known == state);
    }
    samples.set(&f::NODE_SESSION, info.session.connected);
    if !info.node_id.is_empty() {
        samples.add(&f::SWARM_INFO, &[&info.node_id, &info.cluster_id], true);
    }
}

/// Where a manager stands.
pub(super) struct Standing {
    view: View,
    leading: bool,
    term: u64,
    applied: u64,
    members: usize,
}

impl Standing {
    pub(super) fn of(manager: &Manager) -> Self {
        let raft = manager.status();
        let raft = raft.borrow();
        let (leading, term, applied, members) = (raft.leading, raft.term, raft.applied, raft.members.len());
        Self { view: manager.shared().view(), leading, term, applied, members }
    }
}

/// What is no manager tells zeros, as dockerd does.
pub(super) fn manager(samples: &mut Samples, standing: Option<&Standing>) {
    let empty = View::new();
    let view = standing.map_or(&empty, |standing| &standing.view);
    samples.set(&f::SWARM_LEADER, standing.is_some_and(|standing| standing.leading));
    samples.set(&f::SWARM_CONFIGS, view.count::<model::Config>());
    samples.set(&f::SWARM_NETWORKS, view.count::<model::Network>());
    samples.set(&f::SWARM_SECRETS, view.count::<model::Secret>());
    samples.set(&f::SWARM_SERVICES, view.count::<model::Service>());
    let nodes = counted(view.nodes().map(|node| node.status.state));
    for (state, word) in NODE_STATES {
        samples.add(&f::SWARM_NODES, &[word], nodes.get(&state).copied().unwrap_or(0));
    }
    let tasks = counted(view.tasks().map(|task| task.status.state));
    for (state, word) in TASK_STATES {
        samples.add(&f::SWARM_TASKS, &[word], tasks.get(&state).copied().unwrap_or(0));
    }
    if let Some(Standing { term, applied, members, .. }) = standing {
        samples.set(&f::RAFT_APPLIED, *applied);
        samples.set(&f::RAFT_MEMBERS, *members);
        samples.set(&f::RAFT_TERM, *term);
    }
}

/// How often each is there.
fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_insert(0) += 1);
    counts
}

/// Asks a gossip that runs.
pub(super) async fn gossip(samples: &mut Samples, handle: &Handle) {
    let asked =
        tokio::time::timeout(GOSSIP_WAIT, async { Some((handle.report().await.ok()?, handle.peers().await.ok()?)) });
    if let Ok(Some((report, peers))) = asked.await {
        samples.set(&f::GOSSIP_PEERS, peers.len());
        report_of(samples, &report);
    }
}

fn report_of(samples: &mut Samples, report: &Report) {
    let counters = &report.counters;
    samples.set(&f::GOSSIP_BACKLOG, report.backlog);
    samples.set(&f::GOSSIP_TROUBLES, u64::from(report.troubles));
    samples.set(&f::GOSSIP_DIGESTS, counters.digests_out);
    samples.set(&f::GOSSIP_DIFFERING, counters.digests_differing);
    samples.set(&f::GOSSIP_DIVERGENCES, counters.divergences);
    samples.set(&f::GOSSIP_BULK_SYNCS, counters.bulk_syncs_unanswered);
    samples.set(&f::GOSSIP_ACCUSATIONS, counters.accusations);
    samples.set(&f::GOSSIP_REFUTATIONS, counters.refutations);
    for (reason, word) in REFUSED {
        samples.add(&f::GOSSIP_REFUSED, &[word], counters.refused.get(&reason).copied().unwrap_or(0));
    }
    samples.set(&f::GOSSIP_OVER_LIMIT, counters.over_limit);
    for (family, sent, received) in [
        (&f::GOSSIP_PACKETS, counters.packets_out, counters.packets_in),
        (&f::GOSSIP_PACKET_BYTES, counters.packet_bytes_out, counters.packet_bytes_in),
        (&f::GOSSIP_STREAM_BYTES, counters.stream_bytes_out, counters.stream_bytes_in),
    ] {
        samples.add(family, &["sent"], sent);
        samples.add(family, &["received"], received);
    }
    samples.set(&f::GOSSIP_UNSENT, report.packets_unsent);
    samples.set(&f::GOSSIP_DIALS, counters.dials);
    samples.set(&f::GOSSIP_DIALS_DENIED, counters.dials_denied);
    samples.set(&f::GOSSIP_STREAMS_DENIED, report.streams_denied);
    samples.set(&f::GOSSIP_STREAMS_BROKEN, report.streams_broken);
}

pub(super) fn conntracks(samples: &mut Samples, tables: &Conntracks) {
    for (place, table) in [("host", &tables.host), ("mesh", &tables.mesh)] {
        let Some(Conntrack { used, most, dropped, .. }) = table else { continue };
        samples.add(&f::CONNTRACK, &[place], *used);
        samples.add(&f::CONNTRACK_MAX, &[place], *most);
        samples.add(&f::CONNTRACK_DROPPED, &[place], *dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::families::FAMILIES;

    fn values(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")).collect()
    }

    fn standing() -> Standing {
        let mut transaction = store::Transaction::new(&View::new());
        let (service, node) = (model::Service { id: "s".into(), ..Default::default() }, model::NodeState::Ready);
        transaction.create(service).expect("a service");
        let mut ready = model::Node { id: "n".into(), ..Default::default() };
        ready.status.state = node;
        transaction.create(ready).expect("a node");
        for (id, state) in [("a", TaskState::Running), ("b", TaskState::Running), ("c", TaskState::Failed)] {
            let mut task = model::Task { id: id.into(), ..Default::default() };
            task.status.state = state;
            transaction.create(task).expect("a task");
        }
        Standing { view: transaction.view().clone(), leading: true, term: 2, applied: 31, members: 1 }
    }

    #[test]
    fn a_managers_objects_are_counted_by_state() {
        let mut samples = Samples::default();
        manager(&mut samples, Some(&standing()));
        let text = samples.text();
        let expected = [
            "swarm_manager_leader 1",
            "swarm_manager_nodes{state=\"ready\"} 1",
            "swarm_manager_services_total 1",
            "swarm_manager_tasks_total{state=\"running\"} 2",
            "swarm_manager_tasks_total{state=\"failed\"} 1",
            "skep_raft_applied_index 31",
            "skep_raft_members 1",
            "skep_raft_term 2",
        ];
        assert_eq!(values(&text), expected);
        assert_eq!(text.lines().filter(|line| line.starts_with("swarm_manager_tasks_total{")).count(), 14);
    }

    #[test]
    fn what_is_no_manager_tells_zeros_and_a_node_in_no_swarm_no_name() {
        let mut samples = Samples::default();
        manager(&mut samples, None);
        node(&mut samples, &NodeInfo::default());
        let text = samples.text();
        assert_eq!(values(&text), ["skep_node_state{state=\"inactive\"} 1"]);
        assert!(text.contains("swarm_manager_tasks_total{state=\"new\"} 0\n"), "{text}");
        assert!(!text.contains("swarm_node_info") && !text.contains("skep_raft"), "{text}");
    }

    /// What a fully grown daemon tells: each metric of the table has its place in it.
    #[test]
    fn every_metric_is_told() {
        let mut samples = Samples::default();
        engine(&mut samples, &Facts::default(), Counts::default(), Tallies::default());
        let info = NodeInfo { node_id: "n".to_owned(), ..NodeInfo::default() };
        node(&mut samples, &info);
        manager(&mut samples, Some(&standing()));
        samples.set(&f::GOSSIP_PEERS, 0_u64);
        report_of(&mut samples, &Report::default());
        let table = Some(Conntrack { used: 3, most: 9, dropped: 1, ..Conntrack::default() });
        conntracks(&mut samples, &Conntracks { host: table.clone(), mesh: table });
        super::super::process::gather(&mut samples);
        let text = samples.text();
        for family in FAMILIES {
            let has = |line: &str| line.strip_prefix(family.name).is_some_and(|rest| rest.starts_with([' ', '{']));
            assert!(text.lines().any(has), "{} in {text}", family.name);
        }
        assert!(text.contains("skep_conntrack_dropped_total{place=\"mesh\"} 1\n"), "{text}");
    }
}
