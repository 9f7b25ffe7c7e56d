//! SIGKILL to the daemon at random moments: tasks live on, what was acknowledged comes true, the port answers throughout.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Daemon, get, host_address, until};

/// A small generator: each run is another one, and the failure shows its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn tasks_survive_ten_kills_of_the_daemon() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    println!("seed {seed}");
    let mut dice = Dice(u64::from(seed));
    let mut daemon = Daemon::start(&[]);
    daemon.load_tiny();
    let (address, port) = (host_address(), daemon.port);
    daemon.docker(&daemon.init_words(address));
    daemon.docker(&format!("service create -d --name web --replicas 3 --publish {port}:9005 tiny-service"));
    daemon.until_replicas("web", "3/3");
    let at = SocketAddr::new(IpAddr::V4(address), port);
    let stop = Arc::new(AtomicBool::new(false));
    let client = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = get(at) {
                    failures.push(error.to_string());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            failures
        }
    });
    let mut replicas = 3;
    for turn in 0..10 {
        let before = daemon.containers();
        // A change that is acknowledged, or not: the kill comes somewhere around it.
        let wanted = 2 + dice.below(4);
        let acknowledged = std::thread::scope(|scope| {
            let delay = Duration::from_millis(dice.below(120));
            let pid = nix::unistd::Pid::from_raw(daemon.pid() as i32);
            let killer = scope.spawn(move || {
                std::thread::sleep(delay);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            });
            let done = daemon.try_docker(&format!("service scale -d web={wanted}"));
            killer.join().unwrap();
            done.code == 0
        });
        daemon.kill();
        daemon.run();
        let restarted = Instant::now();
        let shown = until("the service after the restart", || {
            let done = daemon.try_docker("service inspect web --format {{.Spec.Mode.Replicated.Replicas}}");
            (done.code == 0).then(|| done.out.trim().parse::<u64>().unwrap())
        });
        if acknowledged {
            assert_eq!(shown, wanted, "turn {turn}, seed {seed}: an acknowledged change is lost");
        } else {
            assert!(shown == wanted || shown == replicas, "turn {turn}, seed {seed}: {shown} was never asked for");
        }
        daemon.until_replicas("web", &format!("{shown}/{shown}"));
        let running = until("as many containers as replicas", || {
            Some(daemon.containers()).filter(|containers| containers.len() as u64 == shown)
        });
        assert!(restarted.elapsed() < Duration::from_secs(30), "turn {turn}, seed {seed}");
        let kept = before.iter().filter(|(id, seen)| running.get(*id) == Some(seen)).count() as u64;
        let least = shown.min(replicas).min(before.len() as u64);
        assert!(kept >= least, "turn {turn}, seed {seed}: {kept} of {least} tasks were kept: {before:?} {running:?}");
        replicas = shown;
    }
    stop.store(true, Ordering::Relaxed);
    let failures = client.join().unwrap();
    assert!(failures.is_empty(), "seed {seed}: the port did not answer: {failures:?}\n{}", daemon.log());
    daemon.docker("service rm web");
    daemon.docker("swarm leave --force");
}

#[test]
fn a_reboot_starts_the_swarm_anew() {
    let mut daemon = Daemon::start(&[]);
    daemon.load_tiny();
    let (address, port) = (host_address(), daemon.port);
    daemon.docker(&daemon.init_words(address));
    daemon.docker(&format!(
        "service create -d --name web --replicas 2 --restart-delay 10ms --publish {port}:9005 tiny-service"
    ));
    daemon.until_replicas("web", "2/2");
    let before = daemon.containers();
    // What a reboot does: every process gone, nothing in the exec root.
    daemon.kill();
    daemon.reboot();
    daemon.run();
    daemon.until_replicas("web", "2/2");
    let at = SocketAddr::new(IpAddr::V4(address), port);
    until("an answer", || get(at).ok());
    let after = until("new containers", || {
        Some(daemon.containers()).filter(|now| now.len() == 2 && now.keys().all(|id| !before.contains_key(id)))
    });
    assert_eq!(after.len(), 2);
    daemon.docker("swarm leave --force");
}
