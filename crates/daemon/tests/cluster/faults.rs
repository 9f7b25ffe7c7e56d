//! Bad input and broken machines: what is refused is refused clearly, the swarm goes on, nothing acknowledged is lost.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use crate::hosts::{Host, Wire};
use crate::support::{Done, until};

const MANAGERS: &str = "node ls --filter role=manager --format {{.Hostname}}/{{.ManagerStatus}}";
/// More than one segment of the raft log, in configs of the largest size.
const CONFIGS: usize = 9;

/// Three managers a, b, c, of which a leads; the data root of one is a small file system of its own.
fn managers_with_a_small_disk(index: usize) -> Wire {
    let mut wire = Wire::bare(3);
    let small = &wire.hosts[index];
    let data = small.file("data");
    fs::create_dir_all(&data).expect("a folder");
    let mount = ["-t", "tmpfs", "-o", "size=48m", "tmpfs"];
    let mounted = Done::of(small.inside("mount").args(mount).arg(&data).output().expect("mount"));
    assert_eq!(mounted.code, 0, "{mounted:?}");
    for host in &mut wire.hosts {
        host.run();
    }
    wire.init();
    wire.join(1, "manager");
    wire.join(2, "manager");
    until_managers(&wire.hosts[0], 3);
    wire
}

fn until_managers(host: &Host, count: usize) {
    let up = |line: &&str| line.ends_with("/Reachable") || line.ends_with("/Leader");
    host.until(MANAGERS, |out| out.lines().filter(up).count() == count && out.lines().count() == count);
}

fn leader(host: &Host) -> String {
    let named = |out: &str| out.lines().find_map(|line| line.strip_suffix("/Leader")).map(str::to_owned);
    until("a leader", || named(&host.try_docker(MANAGERS).out))
}

/// Takes every free byte of a machine's data root.
fn fill(host: &Host) {
    let file = format!("of={}", host.file("data/fill").display());
    host.inside("dd").args(["if=/dev/zero", &file, "bs=64k"]).output().expect("dd");
}

/// Creates large configs through `host`; gives the acknowledged ones.
fn write_configs(host: &Host, prefix: &str) -> Vec<String> {
    let file = host.file("large");
    fs::write(&file, vec![b'x'; 1_000_000]).expect("a file");
    let names = (0..CONFIGS).map(|number| format!("{prefix}{number}"));
    names.filter(|name| host.try_docker(&format!("config create {name} {}", file.display())).code == 0).collect()
}

fn until_configs(host: &Host, wanted: &[String]) {
    host.until("config ls --format {{.Name}}", |out| wanted.iter().all(|name| out.lines().any(|line| line == name)));
}

#[test]
fn a_manager_without_room_for_its_log_stops_and_comes_back() {
    let wire = managers_with_a_small_disk(2);
    let [a, _, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    fill(c);
    let acknowledged = write_configs(a, "follower");
    assert_eq!(acknowledged.len(), CONFIGS, "two of three managers have room");
    c.until("info --format {{.Swarm.Error}}", |out| out.contains("No space left on device"));
    assert_ne!(c.try_docker("node ls").code, 0, "a manager that cannot write answers for nothing");
    fs::remove_file(in_mounts_of(c, "data/fill")).expect("the file that takes the room");
    until_managers(a, 3);
    until_configs(c, &acknowledged);
}

/// A file of a machine as its own mounts show it.
fn in_mounts_of(host: &Host, file: &str) -> PathBuf {
    let init = fs::read_to_string(host.file("init")).expect("an init");
    let below = host.file(file);
    PathBuf::from(format!("/proc/{}/root", init.trim())).join(below.strip_prefix("/").expect("an absolute path"))
}

#[test]
fn a_damaged_log_is_told_and_its_manager_can_be_replaced() {
    let mut wire = Wire::start(3);
    wire.init();
    wire.join(1, "manager");
    wire.join(2, "manager");
    until_managers(&wire.hosts[0], 3);
    wire.hosts[0].docker("service create --detach --name kept --replicas 0 tiny-service");
    wire.hosts[2].until("service ls --format {{.Name}}", |out| out == "kept");
    wire.hosts[2].terminate();
    flip_a_byte(&wire.hosts[2].file("data/swarm/raft/log"));
    wire.hosts[2].run();
    let [a, _, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    let told = c.until("info --format {{.Swarm.LocalNodeState}}:{{.Swarm.Error}}", |out| out.starts_with("error:"));
    assert!(told.contains("is damaged at byte"), "{told}");
    // Never on its own: only the user may throw a manager's state away.
    assert!(c.try_docker("swarm leave").err.contains("Use `--force` to suppress this message."));
    a.docker("service update --detach --label-add went=on kept");
    c.docker("swarm leave --force");
    a.docker("node demote c");
    a.docker("node rm --force c");
    wire.join(2, "manager");
    until_managers(a, 3);
    c.until("service inspect kept --format {{.Spec.Labels}}", |out| out == "map[went:on]");
}

/// In the middle of what is written of the first segment.
fn flip_a_byte(log: &std::path::Path) {
    let mut segments: Vec<_> =
        fs::read_dir(log).expect("a log").map(|entry| entry.expect("a segment").path()).collect();
    segments.sort();
    let mut bytes = fs::read(&segments[0]).expect("a segment");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    bytes[used / 2] ^= 1;
    fs::write(&segments[0], bytes).expect("a segment");
}

#[test]
fn wrong_tokens_and_addresses_join_nothing() {
    let wire = Wire::start(3);
    let [a, b, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    wire.init();
    c.docker(&format!("swarm init --advertise-addr {}", c.address));
    let token = |host: &Host, role: &str| host.docker(&format!("swarm join-token -q {role}")).trim().to_owned();
    let refused = |token: &str, more: &str, expected: &str| {
        let done = b.try_docker(&format!("swarm join --token {token} {more} {}", a.address));
        assert!(done.code == 1 && done.err.contains(expected), "{token}: {done:?}");
        let state = b.docker("info --format {{.Swarm.LocalNodeState}}");
        assert_eq!(state.trim(), "inactive", "a join that was refused leaves nothing behind");
    };
    let worker = token(a, "worker");
    refused("SWMTKN-1-a-b", "", "invalid join token");
    refused(&token(c, "worker"), "", "remote CA does not match fingerprint. Expected: ");
    a.docker("swarm join-token --rotate -q worker");
    refused(&worker, "", "A valid join token is necessary to join this cluster");
    let manager = token(a, "manager");
    let nowhere = "could not connect to prospective new cluster member using its advertised address";
    refused(&manager, "--advertise-addr 10.99.9.9", nowhere);
    // It got a certificate before: were its node left behind, a rotation would wait for it.
    a.until("node ls --format {{.Self}}", |out| out == "true");
    a.docker("swarm ca --rotate --detach");
    a.until("info --format {{.Swarm.Cluster.RootRotationInProgress}}", |out| out == "false");
    refused(&manager, "", "remote CA does not match fingerprint. Expected: ");
    // The port is 2377 where none is given, as above.
    b.docker(&format!("swarm join --token {} {}", token(a, "worker"), a.address));
}

#[test]
fn a_flood_of_silent_and_babbling_peers_keeps_no_node_out() {
    let wire = Wire::start(2);
    wire.init();
    let address = format!("{}:2377", wire.hosts[0].address);
    let silent = wire.connect(&address, 300);
    let mut babbling = wire.connect(&address, 50);
    for stream in &mut babbling {
        // Who is cut off while it talks is cut off as it should be.
        stream.write_all(&[0x5a; 16 << 10]).ok();
    }
    wire.join(1, "worker");
    wire.hosts[0].until("node ls --format {{.Hostname}}/{{.Status}}", |out| out.lines().any(|line| line == "b/Ready"));
    drop::<Vec<TcpStream>>(silent);
}

#[test]
fn a_leader_without_room_gives_way() {
    let wire = managers_with_a_small_disk(0);
    let [a, b, _] = wire.hosts.as_slice() else { unreachable!("three machines") };
    assert_eq!(leader(b), "a");
    fill(a);
    let acknowledged = write_configs(b, "leader");
    assert_ne!(leader(b), "a");
    until_configs(b, &acknowledged);
    fs::remove_file(in_mounts_of(a, "data/fill")).expect("the file that takes the room");
    until_managers(b, 3);
    until_configs(a, &acknowledged);
}
