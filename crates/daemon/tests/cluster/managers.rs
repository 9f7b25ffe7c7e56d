//! Managers come, die, are cut off, lose their quorum, are locked: nothing acknowledged is lost and the swarm goes on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use crate::hosts::{Host, Wire};
use crate::support::until;

/// Bound on the time from a leader's death to the next acknowledged write; the bench asks for far less.
const RECOVERY: Duration = Duration::from_secs(10);
const LEADERS: &str = "node ls --format {{.Hostname}}/{{.ManagerStatus}}";
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. \
                         Make sure more than half of the managers are online.";

/// Three managers a, b, c and as many workers as are left, with a service.
fn swarm(machines: usize, replicas: usize) -> Wire {
    let wire = Wire::start(machines);
    wire.init();
    for joiner in 1..machines {
        wire.join(joiner, if joiner < 3 { "manager" } else { "worker" });
    }
    for host in &wire.hosts {
        host.load_tiny();
    }
    let reachable =
        |out: &str| out.lines().filter(|line| line.ends_with("/Reachable") || line.ends_with("/Leader")).count();
    wire.hosts[0].until(LEADERS, |out| reachable(out) == 3);
    wire.hosts[0].docker(&format!("service create --name dummy --replicas {replicas} tiny-service"));
    wire.hosts[0].until_replicas("dummy", &format!("{replicas}/{replicas}"));
    wire
}

/// The leader's name as this machine knows it.
fn leader(host: &Host) -> Option<String> {
    let done = host.try_docker(LEADERS);
    let found = done.out.lines().find_map(|line| line.strip_suffix("/Leader"));
    found.filter(|_| done.code == 0).map(str::to_owned)
}

/// Writes without pause until told to stop: each update adds a label of its own. Returns the acknowledged ones.
fn write_labels(hosts: &RwLock<Vec<Host>>, stop: &AtomicBool, last: &Mutex<Instant>) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let hosts = hosts.read().expect("hosts");
        let Some(host) = hosts[..3].iter().filter(|host| host.is_running()).nth(number % 2) else { continue };
        let done = host.try_docker(&format!("service update --detach --label-add k{number}=v dummy"));
        if done.code == 0 {
            acknowledged.insert(format!("k{number}"));
            *last.lock().expect("the time") = Instant::now();
        }
    }
    acknowledged
}

#[test]
fn twenty_leaders_die_and_no_acknowledged_change_is_lost() {
    let mut wire = swarm(6, 6);
    let hosts = RwLock::new(std::mem::take(&mut wire.hosts));
    let (stop, last) = (AtomicBool::new(false), Mutex::new(Instant::now()));
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_labels(&hosts, &stop, &last));
        for round in 0..20 {
            let name =
                until("a leader", || leader(hosts.read().expect("hosts").iter().find(|host| host.is_running())?));
            let index = usize::from(name.as_bytes()[0] - b'a');
            hosts.write().expect("hosts")[index].kill();
            let died = Instant::now();
            until("a write after the leader's death", || (*last.lock().expect("the time") > died).then_some(()));
            assert!(died.elapsed() < RECOVERY, "round {round}: {:?}", died.elapsed());
            hosts.write().expect("hosts")[index].run();
            let hosts = hosts.read().expect("hosts");
            hosts[index].until(LEADERS, |out| out.lines().filter(|line| line.ends_with("able")).count() == 2);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    wire.hosts = hosts.into_inner().expect("hosts");
    assert!(acknowledged.len() >= 20, "{}", acknowledged.len());
    for host in &wire.hosts[..3] {
        // As Go prints a map: map[k0:v k2:v].
        host.until("service inspect dummy --format {{.Spec.Labels}}", |out| {
            let labels: BTreeSet<&str> =
                out.split([' ', '[', ']']).filter_map(|pair| pair.strip_suffix(":v")).collect();
            acknowledged.iter().all(|label| labels.contains(label.as_str()))
        });
    }
    wire.hosts[0].until_replicas("dummy", "6/6");
}

#[test]
fn a_manager_that_was_cut_off_catches_up() {
    let wire = swarm(3, 2);
    let [a, b, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    c.cut();
    for host in [a, b] {
        // Only the leader hears of all; the other asks it.
        host.until(LEADERS, |out| out.lines().any(|line| line == "c/Unreachable"));
    }
    a.docker("service scale dummy=4");
    let refused = until("the lone manager's refusal", || {
        let done = c.try_docker("service ls");
        (done.code != 0).then_some(done)
    });
    assert!(refused.err.contains(NO_LEADER), "{refused:?}");
    c.heal();
    a.until(LEADERS, |out| out.lines().filter(|line| line.ends_with("able")).count() == 2 && !out.contains("Unre"));
    c.until_replicas("dummy", "4/4");
    b.until_replicas("dummy", "4/4");
}

#[test]
fn a_lost_quorum_is_told_and_mended_by_force() {
    let mut wire = swarm(3, 2);
    wire.hosts[1].kill();
    wire.hosts[2].kill();
    let a = &wire.hosts[0];
    let refused = until("the refusal", || {
        let done = a.try_docker("service scale --detach dummy=5");
        (done.code != 0).then_some(done)
    });
    // What was under way when leadership was lost is told so; whoever comes later is told why.
    assert!(refused.err.contains(NO_LEADER) || refused.err.contains("node lost leader status"), "{refused:?}");
    assert!(a.try_docker("node ls").err.contains(NO_LEADER));
    a.docker(&format!("swarm init --force-new-cluster --advertise-addr {}", a.address));
    a.until("service ls --format {{.Name}}", |out| out == "dummy");
    a.docker("service scale dummy=3");
    a.until(LEADERS, |out| out.lines().any(|line| line == "a/Leader"));
    assert_eq!(a.docker(LEADERS).lines().filter(|line| line.ends_with("able")).count(), 0);
}

#[test]
fn roles_change_while_the_swarm_runs() {
    let wire = swarm(4, 2);
    let [a, b, _, d] = wire.hosts.as_slice() else { unreachable!("four machines") };
    assert_eq!(a.docker("node promote d").trim(), "Node d promoted to a manager in the swarm.");
    a.until(LEADERS, |out| out.lines().any(|line| line == "d/Reachable"));
    d.until("node ls -q", |out| out.lines().count() == 4);
    assert_eq!(d.docker("node demote b").trim(), "Manager b demoted in the swarm.");
    a.until(LEADERS, |out| out.lines().any(|line| line == "b/"));
    let told = b.until("info --format {{.Swarm.ControlAvailable}}", |out| out == "false");
    assert_eq!(told.trim(), "false");
    d.docker("node demote a");
    let ended = |out: &str| out.lines().any(|line| line == "a/") && out.lines().any(|line| line.ends_with("/Leader"));
    d.until(LEADERS, ended);
    d.docker("service scale dummy=3");
    d.until_replicas("dummy", "3/3");
}

#[test]
fn a_locked_manager_needs_its_key_and_the_log_holds_no_secret() {
    let mut wire = swarm(3, 1);
    let word = "a-word-that-nobody-may-read-on-the-disk";
    let host = &wire.hosts[0];
    std::fs::write(host.file("word"), word).expect("a file");
    host.docker(&format!("secret create word {}", host.file("word").display()));
    host.docker("swarm update --autolock=true");
    let key = host.docker("swarm unlock-key -q");
    for index in 0..3 {
        let folder = wire.hosts[index].file("data/swarm");
        let found =
            std::process::Command::new("grep").args(["-r", "-l", "-a", word]).arg(&folder).output().expect("grep");
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "in clear on the disk");
    }
    // Every manager locks its file when it hears of it.
    wire.hosts[1].until_locked();
    wire.hosts[1].kill();
    wire.hosts[1].run();
    let b = &wire.hosts[1];
    b.until("info --format {{.Swarm.LocalNodeState}}", |out| out == "locked");
    let refused = b.try_docker("node ls");
    assert!(refused.err.contains("Swarm is encrypted and needs to be unlocked before it can be used."), "{refused:?}");
    let wrong = b.docker_with_input("swarm unlock", "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n");
    assert!(wrong.err.contains("swarm could not be unlocked: invalid key provided"), "{wrong:?}");
    let done = b.docker_with_input("swarm unlock", &key);
    assert_eq!(done.code, 0, "{done:?}");
    b.until("info --format {{.Swarm.LocalNodeState}}", |out| out == "active");
    b.until("node ls -q", |out| out.lines().count() == 3);
}
