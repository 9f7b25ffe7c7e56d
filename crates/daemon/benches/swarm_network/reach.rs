//! Five nodes, a client beside them, services of one task each that come and go.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use nix::sched::{CloneFlags, setns};

use crate::hosts::Wire;
use crate::support::{LONG, get};

const NODES: usize = 5;
const ROUNDS: usize = 20;
const FIRST_PORT: u16 = 9100;
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the nodes' ports shall do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Answer,
    Refusal,
}

pub(crate) fn run() {
    let wire = Wire::start(NODES);
    wire.init();
    (1..NODES).for_each(|joiner| wire.join(joiner, "worker"));
    let manager = &wire.hosts[0];
    wire.hosts.iter().for_each(crate::hosts::Host::load_tiny);
    manager.until("node ls --format {{.Status}}", |out| out.lines().filter(|line| *line == "Ready").count() == NODES);
    let (mut near, mut far, mut asked, mut closed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let port = FIRST_PORT + u16::try_from(round).expect("few rounds");
        let host = &wire.hosts[round % NODES];
        let watch = |wanted| {
            let look = |host: &crate::hosts::Host| look(wire.network(), &host.address, port, wanted);
            wire.hosts.iter().map(look).collect::<Vec<_>>()
        };
        let answers = watch(Wanted::Answer);
        let begin = SystemTime::now();
        let place = format!("--constraint node.hostname=={}", host.name);
        manager.docker(&format!(
            "service create --detach --name r{round} --publish {port}:9005 --stop-grace-period 1s {place} tiny-service"
        ));
        let answers: Vec<_> = answers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let running = running_since(manager, round);
        let since = |at: &SystemTime| milliseconds(*at, running);
        near.push(answers.iter().map(since).fold(f64::INFINITY, f64::min));
        far.push(answers.iter().map(since).fold(0.0, f64::max));
        asked.push(answers.iter().map(|at| milliseconds(*at, begin)).fold(0.0, f64::max));
        let refusals = watch(Wanted::Refusal);
        let begin = SystemTime::now();
        manager.docker(&format!("service rm r{round}"));
        let refusals = refusals.into_iter().map(|thread| thread.join().expect("no panic"));
        closed.push(refusals.map(|at| milliseconds(at, begin)).fold(0.0, f64::max));
    }
    println!("{NODES} nodes, {ROUNDS} services of one task: median and worst, ms");
    for (what, mut values) in [
        ("from Running until the first node's port answers", near),
        ("from Running until the farthest node's port answers", far),
        ("from `service create` until every node's port answers", asked),
        ("from `service rm` until every node's port refuses", closed),
    ] {
        values.sort_by(f64::total_cmp);
        println!("{what:<56} {:>7.1} {:>7.1}", values[values.len() / 2], values[values.len() - 1]);
    }
}

/// Asks a node's port all the time until it does what is wanted; when that was.
fn look(network: std::fs::File, address: &str, port: u16, wanted: Wanted) -> std::thread::JoinHandle<SystemTime> {
    let address: SocketAddr = format!("{address}:{port}").parse().expect("an address");
    std::thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET).expect("the wire");
        let begin = SystemTime::now();
        loop {
            let found = match wanted {
                Wanted::Answer => get(address).is_ok(),
                Wanted::Refusal => TcpStream::connect_timeout(&address, LONG).is_err(),
            };
            let now = SystemTime::now();
            if found {
                return now;
            }
            assert!(now.duration_since(begin).is_ok_and(|span| span < LONG), "{address} never came round");
            std::thread::sleep(LOOK_EVERY);
        }
    })
}

/// When the service's task came to run, by its node's clock, which is everyone's here.
fn running_since(manager: &crate::hosts::Host, round: usize) -> SystemTime {
    let task = manager.docker(&format!("service ps -q r{round}"));
    let task = manager.get(&format!("/v1.41/tasks/{}", task.trim()));
    let time = task["Status"]["Timestamp"].as_str().expect("a time");
    let out = std::process::Command::new("date").args(["+%s.%N", "-d", time]).output().expect("date");
    let seconds: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().expect("seconds");
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

fn milliseconds(later: SystemTime, earlier: SystemTime) -> f64 {
    later.duration_since(earlier).map_or(0.0, |span| span.as_secs_f64() * 1e3)
}
