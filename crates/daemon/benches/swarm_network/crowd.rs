//! One network on which a member of the gossip tells of 10 000 endpoints; on a Skep and on a dockerd runs one container each
//! that is on it. dockerd's services have no virtual addresses here, as this needs IPVS; for Skep it is measured both ways.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use discovery::{ENDPOINT_TABLE, EndpointRecord, PEER_TABLE, PeerRecord};

use crate::gossiper::{Member, gossip_keys};
use crate::hosts::{Host, Wire};

const SERVICES: u32 = 1_000;
const TASKS: u32 = 10;
const CHANGES: u32 = 10;
const IDLE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The kernel's clock ticks for processes.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) fn run() {
    let mut wire = Wire::bare(3);
    wire.hosts[0].run_dockerd();
    wire.hosts[1].run();
    wire.hosts[..2].iter().for_each(Host::load_tiny);
    wire.init();
    wire.join(1, "worker");
    let [dockerd, skep, third] = wire.hosts.as_slice() else { unreachable!("three machines") };
    for (network, has_addresses) in [("plain", false), ("virtual", true)] {
        let subnet = if has_addresses { "10.121.0.0/16" } else { "10.120.0.0/16" };
        let create = format!("network create -d overlay --attachable --subnet {subnet} {network}");
        let id = dockerd.docker(&create).trim().to_owned();
        let (keys, primary) = gossip_keys(dockerd);
        let member = Member::start(third, keys, primary);
        member.join(dockerd);
        member.runtime.block_on(member.handle.join_network(&id)).expect("joined");
        let base = u32::from(subnet.split_once('/').expect("a subnet").0.parse::<Ipv4Addr>().expect("an address"));
        let crowd = Crowd { member, id, base, has_addresses, tunnel: third.address.parse().expect("an address") };
        (0..SERVICES * TASKS).for_each(|number| crowd.tell(number));
        println!(
            "{SERVICES} services of {TASKS} tasks, {}:",
            if has_addresses { "virtual addresses" } else { "dnsrr" }
        );
        let sides: &[(&str, &Host)] =
            if has_addresses { &[("Skep", skep)] } else { &[("Skep", skep), ("dockerd", dockerd)] };
        for (name, host) in sides {
            measure(&crowd, name, host, network);
        }
        for (_, host) in sides {
            host.docker(&format!("rm -f on-{network}"));
        }
        crowd.member.leave();
    }
}

/// The endpoints that are told.
struct Crowd {
    member: Member,
    id: String,
    base: u32,
    has_addresses: bool,
    tunnel: std::net::IpAddr,
}

impl Crowd {
    fn tell(&self, number: u32) {
        let service = number / TASKS;
        // Above what the managers give, which begin at the bottom.
        let address = Ipv4Addr::from(self.base + 0x4000 + number);
        let virtual_ip = self.has_addresses.then(|| Ipv4Addr::from(self.base + 0x2000 + service).into());
        let record = EndpointRecord {
            name: format!("crowd{service}.{}.x{number:024}", number % TASKS + 1),
            service_name: format!("crowd{service}"),
            service_id: format!("s{service:024}"),
            virtual_ip,
            address: Some(address.into()),
            ..EndpointRecord::default()
        };
        let [_, _, b, c] = number.to_be_bytes();
        let mac = [2, 0x42, 0x77, 0, b, c];
        let peer = PeerRecord { address: address.into(), prefix: 16, mac, tunnel_endpoint: self.tunnel };
        let key = format!("{number:064x}");
        for (table, value) in [(PEER_TABLE, peer.encode()), (ENDPOINT_TABLE, record.encode())] {
            let create = self.member.handle.create_entry(&self.id, table, &key, value);
            self.member.runtime.block_on(create).expect("told");
        }
    }
}

fn measure(crowd: &Crowd, name: &str, host: &Host, network: &str) {
    let process = host.pid();
    let before = (pss(process), cpu(process), Instant::now());
    host.docker(&format!("run -d --name on-{network} --network {network} tiny-service"));
    let last = SERVICES - 1;
    // Whatever is told last, all services have come when each of these has its ten tasks.
    for service in [0, last / 3, last / 2, last] {
        until_known(host, network, service, TASKS as usize);
    }
    let taken = before.2.elapsed().as_secs_f64();
    let after = (pss(process), until_idle(process));
    let (begin, cpu_begin) = (Instant::now(), cpu(process));
    // A rest is what is measured here.
    std::thread::sleep(IDLE);
    let idle = (cpu(process) - cpu_begin) / begin.elapsed().as_secs_f64() * 100.0;
    let mut changes: Vec<f64> = (0..CHANGES).map(|change| one_more(crowd, host, network, change)).collect();
    changes.sort_by(f64::total_cmp);
    println!(
        "  {name:<8} known after {taken:.1} s, {:.2} s of CPU; memory {:.1} → {:.1} MiB; at rest {idle:.2} % of a core; one \
         change known after {:.0} ms",
        after.1 - before.1,
        before.0,
        after.0,
        changes[changes.len() / 2] * 1e3
    );
}

/// One task more, until it is known.
fn one_more(crowd: &Crowd, host: &Host, network: &str, change: u32) -> f64 {
    // A service of its own: `change` is none of those that are there; each side has its own.
    let side = if host.name == "a" { 0 } else { CHANGES };
    let number = SERVICES * TASKS + (side + change) * TASKS;
    let begin = Instant::now();
    crowd.tell(number);
    until_known(host, network, number / TASKS, 1);
    begin.elapsed().as_secs_f64()
}

fn until_known(host: &Host, network: &str, service: u32, tasks: usize) {
    let begin = Instant::now();
    while host.try_docker(&format!("exec on-{network} /tiny-service resolve tasks.crowd{service}")).out.lines().count()
        != tasks
    {
        assert!(begin.elapsed() < PATIENCE, "{}: crowd{service} never came", host.name);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until a process has little to do; its processor time then, s.
fn until_idle(process: nix::unistd::Pid) -> f64 {
    const LOOK: Duration = Duration::from_secs(2);
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "process {process} never comes to rest");
        let before = cpu(process);
        // What it does in this time is what is looked at.
        std::thread::sleep(LOOK);
        let now = cpu(process);
        if now - before < LOOK.as_secs_f64() / 20.0 {
            return now;
        }
    }
}

/// Proportional set size of a process, MiB.
fn pss(process: nix::unistd::Pid) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("its memory");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("Pss");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kilobytes") / 1024.0
}

/// Processor time of a process, s.
fn cpu(process: nix::unistd::Pid) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).expect("its times");
    let fields: Vec<&str> = text.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
