//! The tables by example, and against a model that computes everything anew.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use discovery::{
    Backend, Change, EndpointRecord, Ingress, Origin, PeerRecord, Port, PortGroup, Protocol, Service, Tables,
};
use proptest::prelude::*;

const HERE: Origin = Origin { here: true, keeps_clients: true };
const SKEP: Origin = Origin { here: false, keeps_clients: true };
const DOCKERD: Origin = Origin { here: false, keeps_clients: false };

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn port(published: u16) -> Port {
    Port { protocol: Protocol::Tcp, published, target: published }
}

fn task(service: &str, last: u8, ports: &[u16]) -> EndpointRecord {
    EndpointRecord {
        name: format!("{service}.{last}"),
        service_name: service.into(),
        service_id: service.into(),
        virtual_ip: Some(ip(250)),
        address: Some(ip(last)),
        ports: ports.iter().copied().map(port).collect(),
        ..EndpointRecord::default()
    }
}

fn link(last: u8, node: u8) -> PeerRecord {
    PeerRecord {
        address: ip(last),
        prefix: 24,
        mac: [2, 0x42, 10, 0, 0, last],
        tunnel_endpoint: Ipv4Addr::new(192, 0, 2, node).into(),
    }
}

fn services(changes: Vec<Change>) -> Vec<(String, Option<Service>)> {
    let service = |change| match change {
        Change::Service { service, now, .. } => Some((service.to_string(), now)),
        _ => None,
    };
    changes.into_iter().filter_map(service).collect()
}

#[test]
fn a_service_is_the_sum_of_its_tasks() {
    let mut tables = Tables::default();
    tables.set_endpoint("n", "a", HERE, task("web", 1, &[80]));
    tables.set_endpoint("n", "b", DOCKERD, task("web", 2, &[80, 443]));
    let mut gone = task("web", 3, &[80]);
    gone.disabled = true;
    tables.set_endpoint("n", "c", SKEP, gone);
    for (endpoint, last) in [("b", 2), ("c", 3)] {
        tables.set_link("n", endpoint, link(last, 7));
    }
    let a = Backend { address: ip(1), here: true, keeps_clients: true };
    let b = Backend { address: ip(2), here: false, keeps_clients: false };
    let expected = Service {
        virtual_ip: Some(ip(250)),
        backends: vec![a, b],
        groups: vec![
            PortGroup { ports: vec![port(80)], backends: vec![a, b] },
            PortGroup { ports: vec![port(443)], backends: vec![b] },
        ],
        ingress: Ingress::default(),
    };
    assert_eq!(services(tables.take_changes()), [("web".to_owned(), Some(expected))]);
    assert!(tables.take_changes().is_empty());
    for endpoint in ["a", "b", "c"] {
        tables.remove_endpoint("n", endpoint);
        tables.remove_link("n", endpoint);
    }
    assert_eq!(services(tables.take_changes()), [("web".to_owned(), None)]);
    assert_eq!(tables.networks().count(), 0);
}

#[test]
fn a_task_elsewhere_takes_connections_while_its_link_is_known() {
    let mut tables = Tables::default();
    let backends = |tables: &mut Tables| -> Option<usize> {
        let last = services(tables.take_changes()).pop()?.1?;
        Some(last.backends.len() + last.groups.iter().map(|group| group.backends.len()).sum::<usize>())
    };
    tables.set_endpoint("n", "a", SKEP, task("web", 1, &[80]));
    assert_eq!(backends(&mut tables), Some(0));
    tables.set_link("n", "other", link(1, 7));
    assert_eq!(backends(&mut tables), None, "another's link");
    tables.set_link("n", "a", link(1, 7));
    assert_eq!(backends(&mut tables), Some(2));
    tables.remove_link("n", "a");
    assert_eq!(backends(&mut tables), Some(0));
}

#[test]
fn an_address_that_moves_is_where_it_was_told_last() {
    let mut tables = Tables::default();
    let take = |tables: &mut Tables| -> Vec<(Option<PeerRecord>, Option<PeerRecord>)> {
        let changes = tables.take_changes().into_iter();
        let change = |change| match change {
            Change::Link { before, after, .. } => Some((before, after)),
            _ => None,
        };
        changes.filter_map(change).collect()
    };
    tables.set_link("n", "old", link(1, 1));
    assert_eq!(take(&mut tables), [(None, Some(link(1, 1)))]);
    // The new endpoint is told of before the old one's end.
    tables.set_link("n", "new", link(1, 2));
    assert_eq!(take(&mut tables), [(Some(link(1, 1)), Some(link(1, 2)))]);
    tables.remove_link("n", "old");
    assert_eq!(take(&mut tables), []);
    tables.remove_link("n", "new");
    assert_eq!(take(&mut tables), [(Some(link(1, 2)), None)]);
}

#[test]
fn what_comes_and_goes_between_two_looks_is_not_told() {
    let mut tables = Tables::default();
    tables.set_endpoint("n", "a", SKEP, task("web", 1, &[]));
    tables.set_link("n", "a", link(1, 1));
    tables.remove_network("n");
    assert_eq!(tables.take_changes(), []);
}

#[test]
fn everything_is_told_again_when_it_was_lost() {
    let mut tables = Tables::default();
    tables.set_endpoint("n", "a", SKEP, task("web", 1, &[80]));
    tables.set_link("n", "a", link(1, 1));
    let first = tables.take_changes();
    assert_eq!(first.len(), 3);
    tables.tell_all();
    assert_eq!(tables.take_changes(), first);
}

#[derive(Clone, Debug)]
enum Step {
    Endpoint { network: u8, endpoint: u8, service: u8, last: u8, disabled: bool, ports: Vec<u16> },
    NoEndpoint { network: u8, endpoint: u8 },
    Link { network: u8, endpoint: u8, last: u8, node: u8 },
    NoLink { network: u8, endpoint: u8 },
    NoNetwork { network: u8 },
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let (network, endpoint) = (0..2u8, 0..5u8);
    prop_oneof![
        5 => (network.clone(), endpoint.clone(), 0..3u8, 1..5u8, any::<bool>(), prop::collection::vec(1..4u16, 0..3))
            .prop_map(|(network, endpoint, service, last, disabled, mut ports)| {
                ports.sort_unstable();
                ports.dedup();
                Step::Endpoint { network, endpoint, service, last, disabled, ports }
            }),
        2 => (network.clone(), endpoint.clone())
            .prop_map(|(network, endpoint)| Step::NoEndpoint { network, endpoint }),
        3 => (network.clone(), endpoint.clone(), 1..5u8, 1..4u8)
            .prop_map(|(network, endpoint, last, node)| Step::Link { network, endpoint, last, node }),
        2 => (network.clone(), endpoint).prop_map(|(network, endpoint)| Step::NoLink { network, endpoint }),
        1 => network.prop_map(|network| Step::NoNetwork { network }),
        2 => Just(Step::Take),
    ]
}

/// What somebody holds who applied every change.
#[derive(Debug, Default, PartialEq)]
struct Applied {
    links: BTreeMap<(String, IpAddr), PeerRecord>,
    names: BTreeMap<(String, String), Arc<EndpointRecord>>,
    services: BTreeMap<(String, String), Service>,
}

impl Applied {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Link { network, before, after } => {
                    let address = before.or(after).unwrap().address;
                    assert_eq!(self.links.remove(&(network.to_string(), address)), before);
                    self.links.extend(after.map(|record| ((network.to_string(), address), record)));
                }
                Change::Names { network, endpoint, record } => {
                    self.names.remove(&(network.to_string(), endpoint.to_string()));
                    self.names.extend(record.map(|it| ((network.to_string(), endpoint.to_string()), it)));
                }
                Change::Service { network, service, now } => {
                    self.services.remove(&(network.to_string(), service.to_string()));
                    self.services.extend(now.map(|it| ((network.to_string(), service.to_string()), it)));
                }
            }
        }
    }
}

fn run(tables: &mut Tables, step: &Step) {
    let name = |number: u8| number.to_string();
    match step {
        Step::Endpoint { network, endpoint, service, last, disabled, ports } => {
            // 0: of no service.
            let service = if *service == 0 { String::new() } else { name(*service) };
            let record = EndpointRecord { disabled: *disabled, ..task(&service, *last, ports) };
            let origin = [HERE, SKEP, DOCKERD][usize::from(*endpoint % 3)];
            tables.set_endpoint(&name(*network), &name(*endpoint), origin, record);
        }
        Step::NoEndpoint { network, endpoint } => tables.remove_endpoint(&name(*network), &name(*endpoint)),
        Step::Link { network, endpoint, last, node } => {
            tables.set_link(&name(*network), &name(*endpoint), link(*last, *node));
        }
        Step::NoLink { network, endpoint } => tables.remove_link(&name(*network), &name(*endpoint)),
        Step::NoNetwork { network } => tables.remove_network(&name(*network)),
        Step::Take => {}
    }
}

proptest! {
    #[test]
    fn changes_lead_to_what_tables_made_anew_would_say(steps in prop::collection::vec(step(), 0..60)) {
        let (mut tables, mut applied) = (Tables::default(), Applied::default());
        for step in &steps {
            run(&mut tables, step);
            if matches!(step, Step::Take) {
                applied.apply(tables.take_changes());
            }
        }
        applied.apply(tables.take_changes());
        let (mut fresh, mut expected) = (Tables::default(), Applied::default());
        for step in &steps {
            run(&mut fresh, step);
        }
        expected.apply(fresh.take_changes());
        prop_assert_eq!(&applied, &expected);
        // And nothing is left of what was forgotten.
        for network in 0..2u8 {
            tables.remove_network(&network.to_string());
        }
        applied.apply(tables.take_changes());
        prop_assert_eq!(applied, Applied::default());
        prop_assert_eq!(tables.networks().count(), 0);
    }
}
