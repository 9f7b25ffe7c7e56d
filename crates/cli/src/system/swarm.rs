//! What `skep info` says of the swarm: docker's lines.

use serde_json::Value;

use crate::json::{at, list, number, text};
use crate::text::duration_words;

/// The lines below `Swarm:`; none outside a swarm, and none while the manager is locked.
pub(super) fn describe(swarm: &Value) -> String {
    let state = text(swarm, "LocalNodeState");
    if state.is_empty() || state == "inactive" || state == "locked" {
        return String::new();
    }
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&format!("  {text}\n"));
    let (error, is_manager) = (text(swarm, "Error"), at(swarm, "ControlAvailable") == true);
    line(format!("NodeID: {}", text(swarm, "NodeID")));
    if !error.is_empty() {
        line(format!("Error: {error}"));
    }
    line(format!("Is Manager: {is_manager}"));
    if is_manager && error.is_empty() && state != "error" && !at(swarm, "Cluster").is_null() {
        cluster(swarm, &mut line);
    }
    line(format!("Node Address: {}", text(swarm, "NodeAddr")));
    let mut managers: Vec<&str> = list(swarm, "RemoteManagers").iter().map(|manager| text(manager, "Addr")).collect();
    managers.sort_unstable();
    if !managers.is_empty() {
        line("Manager Addresses:".to_owned());
    }
    managers.into_iter().for_each(|addr| line(format!(" {addr}")));
    out
}

fn cluster(swarm: &Value, line: &mut impl FnMut(String)) {
    let cluster = at(swarm, "Cluster");
    let spec = at(cluster, "Spec");
    let is = |path: &str| at(spec, path) == true;
    line(format!("ClusterID: {}", text(cluster, "ID")));
    line(format!("Managers: {}", number(swarm, "Managers")));
    line(format!("Nodes: {}", number(swarm, "Nodes")));
    if at(cluster, "DefaultAddrPool").is_array() {
        let pools = list(cluster, "DefaultAddrPool").iter().filter_map(Value::as_str);
        line(format!("Default Address Pool: {}", pools.map(|pool| format!("{pool}  ")).collect::<String>()));
        line(format!("SubnetSize: {}", number(cluster, "SubnetSize")));
    }
    if number(cluster, "DataPathPort") > 0 {
        line(format!("Data Path Port: {}", number(cluster, "DataPathPort")));
    }
    line("Orchestration:".to_owned());
    line(format!(" Task History Retention Limit: {}", number(spec, "Orchestration.TaskHistoryRetentionLimit")));
    line("Raft:".to_owned());
    line(format!(" Snapshot Interval: {}", number(spec, "Raft.SnapshotInterval")));
    if !at(spec, "Raft.KeepOldSnapshots").is_null() {
        line(format!(" Number of Old Snapshots to Retain: {}", number(spec, "Raft.KeepOldSnapshots")));
    }
    line(format!(" Heartbeat Tick: {}", number(spec, "Raft.HeartbeatTick")));
    line(format!(" Election Tick: {}", number(spec, "Raft.ElectionTick")));
    line("Dispatcher:".to_owned());
    line(format!(" Heartbeat Period: {}", duration_words(number(spec, "Dispatcher.HeartbeatPeriod"))));
    line("CA Configuration:".to_owned());
    line(format!(" Expiry Duration: {}", duration_words(number(spec, "CAConfig.NodeCertExpiry"))));
    line(format!(" Force Rotate: {}", number(spec, "CAConfig.ForceRotate")));
    let cert = text(spec, "CAConfig.SigningCACert").trim();
    if !cert.is_empty() {
        line(format!(" Signing CA Certificate: \n{cert}\n"));
    }
    let external = list(spec, "CAConfig.ExternalCAs");
    if !external.is_empty() {
        line(" External CAs:".to_owned());
    }
    external.iter().for_each(|ca| line(format!("   {}: {}", text(ca, "Protocol"), text(ca, "URL"))));
    line(format!("Autolock Managers: {}", is("EncryptionConfig.AutoLockManagers")));
    line(format!("Root Rotation In Progress: {}", at(cluster, "RootRotationInProgress") == true));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::describe;

    #[test]
    fn a_node_is_described_as_docker_describes_it() {
        let peers = json!([{"NodeID": "nnn", "Addr": "10.0.0.5:2377"}, {"NodeID": "mmm", "Addr": "10.0.0.4:2377"}]);
        let end = "  Node Address: 10.0.0.4\n  Manager Addresses:\n   10.0.0.4:2377\n   10.0.0.5:2377\n";
        let node = |state: &str, manager: bool, error: &str| {
            json!({"NodeID": "mmm", "NodeAddr": "10.0.0.4", "LocalNodeState": state, "ControlAvailable": manager,
                "Error": error, "RemoteManagers": peers, "Managers": 2, "Nodes": 3, "Cluster": {
                    "ID": "ccc", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "DataPathPort": 4789, "Spec": {
                        "Orchestration": {"TaskHistoryRetentionLimit": 5}, "EncryptionConfig": {},
                        "Raft": {"SnapshotInterval": 10000, "KeepOldSnapshots": 0, "ElectionTick": 10, "HeartbeatTick": 1},
                        "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_u64},
                        "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_u64,
                            "ExternalCAs": [{"Protocol": "cfssl", "URL": "https://x"}]}}}})
        };
        let check =
            |state, manager, error, expected: &str| assert_eq!(describe(&node(state, manager, error)), expected);
        let cluster = "  ClusterID: ccc\n  Managers: 2\n  Nodes: 3\n  Default Address Pool: 10.0.0.0/8  \n  \
            SubnetSize: 24\n  Data Path Port: 4789\n  Orchestration:\n   Task History Retention Limit: 5\n  Raft:\n   \
            Snapshot Interval: 10000\n   Number of Old Snapshots to Retain: 0\n   Heartbeat Tick: 1\n   \
            Election Tick: 10\n  Dispatcher:\n   Heartbeat Period: 5 seconds\n  CA Configuration:\n   \
            Expiry Duration: 3 months\n   Force Rotate: 0\n   External CAs:\n     cfssl: https://x\n  \
            Autolock Managers: false\n  Root Rotation In Progress: false\n";
        check("active", true, "", &format!("  NodeID: mmm\n  Is Manager: true\n{cluster}{end}"));
        check("active", false, "", &format!("  NodeID: mmm\n  Is Manager: false\n{end}"));
        check("active", true, "no leader", &format!("  NodeID: mmm\n  Error: no leader\n  Is Manager: true\n{end}"));
        check("inactive", false, "", "");
        check("locked", false, "locked", "");
    }
}
