//! Clients that never stop asking, while everything moves: no request fails.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{Daemon, get, host_address};

/// Time between the starts of two requests of one client: 60 a second.
const PACE: Duration = Duration::from_micros(16_600);

/// Two clients, each with its own connections.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
    failures: Arc<Mutex<Vec<String>>>,
    since: Instant,
}

impl Clients {
    fn start(at: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let since = Instant::now();
        let client = |_| {
            let (stop, failures) = (stop.clone(), failures.clone());
            std::thread::spawn(move || {
                let mut sent = 0;
                let start = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = get(at) {
                        failures.lock().unwrap().push(format!("after {:?}: {error}", start.elapsed()));
                    }
                    sent += 1;
                    std::thread::sleep((PACE * sent).saturating_sub(start.elapsed()));
                }
                u64::from(sent)
            })
        };
        let threads = (0..2).map(client).collect();
        Self { stop, threads, failures, since }
    }

    /// Ends them: each kept its pace, none saw a failure.
    fn finish(self, daemon: &Daemon) {
        self.stop.store(true, Ordering::Relaxed);
        let sent: Vec<u64> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} of {sent:?} failed: {:#?}\n{}",
            failures.len(),
            &failures[..failures.len().min(10)],
            daemon.log()
        );
        let seconds = self.since.elapsed().as_secs_f64();
        for sent in sent {
            assert!(
                sent as f64 / seconds >= 25.0,
                "{sent} requests in {seconds} s: the machine is too slow to prove anything"
            );
        }
    }
}

fn check(options: &str) {
    let daemon = Daemon::start(&[]);
    daemon.load_tiny();
    let (address, port) = (host_address(), daemon.port);
    daemon.docker(&daemon.init_words(address));
    daemon.docker(&format!("service create --name web --replicas 5 --publish {port}:9005 {options} tiny-service"));
    let clients = Clients::start(SocketAddr::new(IpAddr::V4(address), port));
    daemon.docker("service scale web=2");
    daemon.docker("service scale web=5");
    daemon.docker("service update --force web");
    daemon.until_replicas("web", "5/5");
    clients.finish(&daemon);
    daemon.docker("service rm web");
    daemon.docker("swarm leave --force");
}

#[test]
fn no_request_fails_with_tasks_that_end_when_told() {
    check("");
}

#[test]
fn no_request_fails_with_tasks_that_ignore_the_stop_signal() {
    check("--env IGNORE_SIGTERM=1 --stop-grace-period 1s");
}
