//! Clients that never stop asking, each at its own address, of all machines in turn, while tasks and machines come and go.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::hosts::{Host, Wire};
use crate::mesh::swarm;
use crate::support::until;

/// Addresses of the clients on the wire.
const CLIENTS: [u8; 4] = [201, 202, 203, 204];
/// Requests in all.
const REQUESTS: u64 = 20_000;
/// What a request may take before it counts as failed.
const PATIENCE: i64 = 5;
const PORT: u16 = 9005;
/// When the death of a machine is known everywhere.
const FOUND_OUT: Duration = Duration::from_secs(30);

/// What the clients do and see.
struct Load {
    /// So many of the machines are asked, the first ones.
    asked: AtomicUsize,
    stop: AtomicBool,
    sent: AtomicU64,
    /// Rounds that each client has begun.
    rounds: [AtomicU64; CLIENTS.len()],
    failures: Mutex<Vec<(Instant, String)>>,
    begun: Instant,
}

impl Load {
    fn new(machines: usize) -> Self {
        Self {
            asked: AtomicUsize::new(machines),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            rounds: Default::default(),
            failures: Mutex::default(),
            begun: Instant::now(),
        }
    }

    fn client(&self, wire: &Wire, index: usize) {
        setns(wire.network(), CloneFlags::CLONE_NEWNET).expect("the wire");
        let own = Ipv4Addr::new(10, 77, 0, CLIENTS[index]);
        let mut machine = index;
        while !self.stop.load(Ordering::Relaxed) {
            self.rounds[index].fetch_add(1, Ordering::SeqCst);
            machine = (machine + 1) % self.asked.load(Ordering::SeqCst);
            let address = Ipv4Addr::new(10, 77, 0, u8::try_from(machine + 1).expect("few machines"));
            let start = Instant::now();
            let failure = match ask(own, SocketAddrV4::new(address, PORT)) {
                Ok(seen) if seen == own.to_string() => None,
                Ok(seen) => Some(format!("{own} was seen as {seen} by way of {address}")),
                Err(error) => Some(format!("{own} asked {address}: {error}")),
            };
            if let Some(failure) = failure {
                let failure = format!("after {:.3} s: {failure}", (start - self.begun).as_secs_f64());
                self.failures.lock().unwrap().push((start, failure));
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on only the first `count` machines are asked; returns when no request to another is on its way.
    fn ask_only(&self, count: usize) {
        self.asked.store(count, Ordering::SeqCst);
        let begun: Vec<u64> = self.rounds.iter().map(|rounds| rounds.load(Ordering::SeqCst)).collect();
        until("the last requests to a machine", || {
            let further = self.rounds.iter().zip(&begun).all(|(now, then)| now.load(Ordering::SeqCst) > *then + 1);
            further.then_some(())
        });
    }

    /// Runs clients until `story` is over and so many requests were sent.
    fn run(&self, wire: &Wire, requests: u64, story: impl FnOnce()) {
        for client in CLIENTS {
            let done = wire.on_wire(&["ip", "address", "add", &format!("10.77.0.{client}/32"), "dev", "lan"]);
            assert_eq!(done.code, 0, "{done:?}");
        }
        std::thread::scope(|scope| {
            // Ends the clients if the story breaks, too.
            let _end = End(&self.stop);
            for index in 0..CLIENTS.len() {
                scope.spawn(move || self.client(wire, index));
            }
            until("the first requests", || (self.sent.load(Ordering::Relaxed) > 100).then_some(()));
            story();
            until("all requests", || (self.sent.load(Ordering::Relaxed) >= requests).then_some(()));
        });
    }

    /// Runs a docker command as a chapter of the story, which the test's output names with its time.
    fn chapter(&self, host: &Host, line: &str) {
        println!("{:.3} s: {}: docker {line}", self.begun.elapsed().as_secs_f64(), host.name);
        host.docker(line);
    }

    fn failures(&self) -> Vec<(Instant, String)> {
        self.failures.lock().unwrap().clone()
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks a machine from an address; the address that the task saw.
fn ask(own: Ipv4Addr, at: SocketAddrV4) -> std::io::Result<String> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(PATIENCE))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(own, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(at))?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /peer HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("a cut answer"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(head.to_owned()));
    }
    Ok(body.trim().to_owned())
}

const PLACED: &str = "service ps web --filter desired-state=running --format {{.Node}}/{{.CurrentState}}";

/// How many tasks run on a machine.
fn on(out: &str, node: &str) -> usize {
    out.lines().filter(|line| line.starts_with(&format!("{node}/Running"))).count()
}

fn running(out: &str) -> usize {
    out.lines().filter(|line| line.contains("/Running")).count()
}

#[test]
fn no_request_fails_while_tasks_and_machines_come_and_go() {
    let wire = swarm(5);
    let (a, e) = (&wire.hosts[0], &wire.hosts[4]);
    let create = "service create --name web --replicas 10 --label skep.rebalance=auto --publish 9005:9005 tiny-service";
    a.docker(create);
    for host in &wire.hosts {
        until("each machine answers", || wire.get(&host.address, PORT).ok());
    }
    let load = Load::new(5);
    load.run(&wire, REQUESTS, || {
        load.chapter(a, "service scale web=4");
        load.chapter(a, "service scale web=10");
        load.chapter(a, "service update --force --update-parallelism 3 web");
        load.chapter(a, "node update --availability drain e");
        a.until(PLACED, |out| on(out, "e") == 0 && running(out) == 10);
        load.chapter(a, "node update --availability active e");
        // Moved back by the service's wish.
        a.until(PLACED, |out| on(out, "e") == 2 && running(out) == 10);
        load.ask_only(4);
        load.chapter(e, "swarm leave");
        a.until(PLACED, |out| on(out, "e") == 0 && running(out) == 10);
        println!("{:.3} s: e has left", load.begun.elapsed().as_secs_f64());
    });
    let failures: Vec<String> = load.failures().into_iter().map(|(_, failure)| failure).collect();
    assert!(failures.is_empty(), "{} failed: {:#?}", failures.len(), &failures[..failures.len().min(10)]);
}

#[test]
fn when_a_machine_dies_whole_requests_to_the_others_soon_succeed() {
    let mut wire = swarm(5);
    wire.hosts[0].docker("service create --name web --replicas 10 --publish 9005:9005 tiny-service");
    for host in &wire.hosts {
        until("each machine answers", || wire.get(&host.address, PORT).ok());
    }
    let e = Mutex::new(wire.hosts.pop().expect("five machines"));
    let load = Load::new(4);
    let died = Mutex::new(Instant::now());
    load.run(&wire, 1000, || {
        e.lock().unwrap().power_off();
        *died.lock().unwrap() = Instant::now();
        // What is promised is promised for requests that begin from then on.
        std::thread::sleep(FOUND_OUT + Duration::from_secs(3));
        wire.hosts[0].until(PLACED, |out| on(out, "e") == 0 && running(out) == 10);
    });
    wire.hosts.push(e.into_inner().unwrap());
    let from = died.into_inner().unwrap() + FOUND_OUT;
    let failures = load.failures();
    let late: Vec<&String> = failures.iter().filter(|(start, _)| *start > from).map(|(_, failure)| failure).collect();
    assert!(late.is_empty(), "{late:#?} and {} before", failures.len() - late.len());
}
