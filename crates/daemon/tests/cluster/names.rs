//! Names after all that can happen to those who know them: on every node they lead to the running tasks, no more, no less.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::hosts::{Host, Wire};
use crate::mesh::swarm;
use crate::support::until;

const NETWORKS: [&str; 3] = ["red", "green", "blue"];
const SERVICES: usize = 100;
/// When names are right again.
const LIMIT: Duration = Duration::from_secs(60);

fn network_of(service: usize) -> &'static str {
    NETWORKS[service % NETWORKS.len()]
}

/// The addresses of the running tasks of each service.
fn running(manager: &Host) -> BTreeMap<String, BTreeSet<String>> {
    let mut addresses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let tasks = manager.get("/tasks?filters=%7B%22desired-state%22%3A%5B%22running%22%5D%7D");
    let names: BTreeMap<String, String> = manager
        .get("/services")
        .as_array()
        .expect("services")
        .iter()
        .map(|it| {
            (it["ID"].as_str().expect("an id").to_owned(), it["Spec"]["Name"].as_str().expect("a name").to_owned())
        })
        .collect();
    for task in tasks.as_array().expect("tasks") {
        let service = &names[task["ServiceID"].as_str().expect("an id")];
        let addresses = addresses.entry(service.clone()).or_default();
        if task["Status"]["State"] == "running" {
            let given = task["NetworksAttachments"][0]["Addresses"][0].as_str().expect("an address");
            addresses.insert(given.split('/').next().expect("an address").to_owned());
        }
    }
    addresses
}

/// What a node's containers find under the names of all services.
fn found(host: &Host) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (index, network) in NETWORKS.iter().enumerate() {
        let asker = host.docker(&format!("ps -q --filter label=com.docker.swarm.service.name=ask-{network}"));
        let Some(asker) = asker.lines().next() else { return found };
        let services = (0..SERVICES).filter(|service| service % NETWORKS.len() == index);
        let names: Vec<String> = services.map(|service| format!("tasks.s{service}")).collect();
        let done = host.try_docker(&format!("exec {asker} /tiny-service resolve {}", names.join(" ")));
        for line in done.out.lines() {
            let named = line.split_once(' ').and_then(|(name, address)| Some((name.strip_prefix("tasks.")?, address)));
            // Who asks may itself be on its way out.
            let Some((service, address)) = named else { return found };
            found.entry(service.to_owned()).or_default().insert(address.to_owned());
        }
    }
    found
}

/// Waits until all services run and all nodes have their names right; within the limit from `since`.
fn until_right(wire: &Wire, what: &str, since: Instant) {
    let manager = &wire.hosts[0];
    loop {
        let mut expected = running(manager);
        expected.retain(|service, _| !service.starts_with("ask-"));
        let complete = expected.len() == SERVICES && expected.values().all(|tasks| tasks.len() == 2);
        let wrong: Vec<String> = if complete {
            let different = |host: &&Host| {
                let found = found(host);
                let wrong = expected.iter().filter(|(service, tasks)| found.get(*service) != Some(tasks));
                let wrong = wrong
                    .map(|(service, tasks)| format!("{}: {service} {tasks:?} {:?}", host.name, found.get(service)));
                wrong.collect::<Vec<_>>()
            };
            wire.hosts.iter().map(|host| different(&host)).collect::<Vec<_>>().concat()
        } else {
            vec!["not all tasks run".to_owned()]
        };
        if wrong.is_empty() {
            println!("{what}: names are right after {:?}", since.elapsed());
            return;
        }
        assert!(since.elapsed() < LIMIT, "{what}: {} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    }
}

#[test]
fn names_lead_to_the_running_tasks_after_a_split_and_after_restarts() {
    let mut wire = swarm(3);
    let a = &wire.hosts[0];
    for network in NETWORKS {
        a.docker(&format!("network create -d overlay {network}"));
        a.docker(&format!("service create -d --name ask-{network} --mode global --network {network} tiny-service"));
    }
    for service in 0..SERVICES {
        let mode = if service % 2 == 0 { "vip" } else { "dnsrr" };
        let network = network_of(service);
        let line = format!("--name s{service} --replicas 2 --endpoint-mode {mode} --network {network}");
        a.docker(&format!("service create -d --no-resolve-image {line} tiny-service"));
    }
    let start = Instant::now();
    until("all tasks", || (running(a).values().map(BTreeSet::len).sum::<usize>() == 2 * SERVICES + 9).then_some(()));
    println!("all tasks run after {:?}", start.elapsed());
    until_right(&wire, "at the start", Instant::now());
    let c = &wire.hosts[2];
    c.cut();
    a.until("node ls --format {{.Hostname}}/{{.Status}}", |out| out.lines().any(|line| line == "c/Down"));
    // What ran there runs elsewhere now; nobody there is told.
    until("all tasks elsewhere", || {
        let ask = |service: &String| service.starts_with("ask-");
        let running = running(a);
        let complete = running.iter().filter(|(service, _)| !ask(service)).all(|(_, tasks)| tasks.len() == 2);
        complete.then_some(())
    });
    c.heal();
    until_right(&wire, "after the split", Instant::now());
    for index in 0..wire.hosts.len() {
        wire.hosts[index].terminate();
        wire.hosts[index].run();
        wire.hosts[0].until("node ls -q", |out| out.lines().count() == 3);
        until_right(&wire, &format!("after the restart of {}", wire.hosts[index].name), Instant::now());
    }
}
