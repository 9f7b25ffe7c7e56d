//! Our gossip among real dockerds: a member on a machine of its own, with the keys of a swarm that dockerds made.

use std::net::SocketAddr;

use prost::Message;

use crate::gossiper::{Member, gossip_keys};
use crate::hosts::{Host, Wire};
use crate::support::until;

const ENDPOINTS: &str = "endpoint_table";
const PEERS: &str = "overlay_peer_table";

/// What dockerd tells of a container in a network.
#[derive(Clone, PartialEq, Message)]
struct EndpointRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    service_name: String,
    #[prost(string, tag = "3")]
    service_id: String,
    #[prost(string, tag = "4")]
    virtual_ip: String,
    #[prost(string, tag = "5")]
    endpoint_ip: String,
}

/// The names of the tasks that are told, sorted.
fn tasks(member: &Member, network: &str) -> Vec<String> {
    let record = |entry: gossip::Entry| EndpointRecord::decode(&*entry.value).expect("a record");
    let entries = member.entries(network, ENDPOINTS).into_iter().map(|(_, entry)| record(entry));
    let mut names: Vec<_> = entries.map(|it| it.name.rsplit_once('.').expect("a task").0.to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_member_among_dockerds_sees_their_endpoints_come_and_go_and_they_see_its() {
    let mut wire = Wire::bare(3);
    wire.hosts[0].run_dockerd();
    wire.hosts[1].run_dockerd();
    wire.hosts[0].load_tiny();
    wire.hosts[1].load_tiny();
    wire.init();
    wire.join(1, "worker");
    let [a, b, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    let network = a.docker("network create -d overlay --attachable mesh").trim().to_owned();
    let service = "service create --detach --name plain --endpoint-mode dnsrr --network mesh --replicas 2 \
                   --stop-grace-period 1s tiny-service";
    a.docker(service);
    a.until("service ls --filter name=plain --format {{.Replicas}}", |out| out == "2/2");
    let (keys, primary) = gossip_keys(a);
    let member = Member::start(c, keys, primary);
    member.runtime.block_on(member.handle.join_network(&network)).expect("joined");
    member.join(a);
    // The one that was joined tells of the other.
    let gossip = |host: &Host| -> SocketAddr { format!("{}:7946", host.address).parse().expect("an address") };
    until("both members", || (member.peers() == [gossip(a), gossip(b)]).then_some(()));
    until("both tasks", || (tasks(&member, &network) == ["plain.1", "plain.2"]).then_some(()));
    until("where they are", || (member.entries(&network, PEERS).len() >= 2).then_some(()));
    // Tasks come and go.
    a.docker("service scale --detach plain=4");
    until("four tasks", || (tasks(&member, &network) == ["plain.1", "plain.2", "plain.3", "plain.4"]).then_some(()));
    a.docker("service scale --detach plain=1");
    until("one task", || (tasks(&member, &network).len() == 1).then_some(()));
    // Ours come and go for them.
    let record = EndpointRecord {
        name: "ours.1.task".into(),
        service_name: "ours".into(),
        service_id: "0123456789abcdefghijklmno".into(),
        virtual_ip: String::new(),
        endpoint_ip: "10.0.77.7".into(),
    };
    let key = "f".repeat(64);
    let create = member.handle.create_entry(&network, ENDPOINTS, &key, record.encode_to_vec());
    member.runtime.block_on(create).expect("created");
    // A table that dockerd does not know is none of its business.
    let unknown = member.handle.create_entry(&network, "skep_unknown", "key", vec![1]);
    member.runtime.block_on(unknown).expect("created");
    let seen = |wanted: bool| {
        move |out: &str| (out.contains("10.0.77.7") && out.contains("ours.1.task")) == wanted && out.contains("mesh")
    };
    let inspect = "network inspect --verbose mesh";
    // Only a node with a container in the network is in it; the remaining task is on one of the two.
    let on = a.docker("service ps plain --filter desired-state=running --format {{.Node}}").trim().to_owned();
    let host = if on == "a" { a } else { b };
    host.until(inspect, seen(true));
    let peers = host.docker("network inspect mesh");
    assert!(peers.contains(&c.address), "{peers}");
    member.runtime.block_on(member.handle.delete_entry(&network, ENDPOINTS, &key)).expect("deleted");
    host.until(inspect, seen(false));
    let report = member.runtime.block_on(member.handle.report()).expect("a report");
    assert!(report.counters.refused.is_empty() && report.counters.refutations == 0, "{report:?}");
    assert_eq!(report.counters.digests_out, 0, "they are for our own members");
    // Leaving is told: it takes no suspicion.
    member.leave();
    until("the leave", || a.log().contains("NodeActive --> NodeLeft").then_some(()));
}

#[test]
fn a_dockerd_that_dies_takes_its_endpoints_with_it() {
    let mut wire = Wire::bare(3);
    wire.hosts[0].run_dockerd();
    wire.hosts[1].run_dockerd();
    wire.hosts[0].load_tiny();
    wire.hosts[1].load_tiny();
    wire.init();
    wire.join(1, "worker");
    let (a, b, c) = (&wire.hosts[0], &wire.hosts[1], &wire.hosts[2]);
    let network = a.docker("network create -d overlay --attachable mesh").trim().to_owned();
    let service =
        "service create --detach --name plain --endpoint-mode dnsrr --network mesh --mode global tiny-service";
    a.docker(service);
    a.until("service ls --filter name=plain --format {{.Replicas}}", |out| out == "2/2");
    let (keys, primary) = gossip_keys(a);
    // By the worker: the manager is learnt from it.
    let member = Member::start(c, keys, primary);
    member.join(b);
    until("both members", || (member.peers().len() == 2).then_some(()));
    member.runtime.block_on(member.handle.join_network(&network)).expect("joined");
    until("both tasks", || (tasks(&member, &network).len() == 2).then_some(()));
    wire.hosts[1].power_off();
    until("its member is gone", || (member.peers().len() == 1).then_some(()));
    assert_eq!(tasks(&member, &network).len(), 1);
}
