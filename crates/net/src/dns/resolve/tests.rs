//! Which networks a name is looked up on, and what is asked elsewhere.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::*;
use crate::dns::message::rcode;
use crate::{NameRecord, ServiceNames};

fn network(name: &str, aliases: &[(&str, &str)]) -> DnsNetwork {
    let aliases = aliases.iter().map(|(alias, meant)| ((*alias).to_owned(), (*meant).to_owned()));
    DnsNetwork { id: format!("id-{name}"), name: name.to_owned(), aliases: aliases.collect() }
}

fn record(network: &str, name: &str, last: u8) -> NameRecord {
    NameRecord {
        network_id: format!("id-{network}"),
        endpoint_id: format!("{name}-{last}"),
        owner: "a".into(),
        name: name.into(),
        task_aliases: vec![],
        service: None,
        address: Ipv4Addr::new(10, 0, 0, last),
        address_v6: None,
        is_disabled: false,
    }
}

fn table() -> Table {
    let mut table = Table::default();
    let service = |virtual_ip| Some(ServiceNames { name: "web".into(), aliases: vec![], virtual_ip });
    table.upsert(NameRecord { service: service(Some(Ipv4Addr::new(10, 0, 0, 2))), ..record("front", "web.1.x", 5) });
    table.upsert(NameRecord { service: service(None), ..record("back.net", "web.1.x", 6) });
    table.upsert(NameRecord { service: service(None), ..record("back.net", "web.2.y", 7) });
    table.upsert(record("back.net", "db", 8));
    table.upsert(record("hidden", "secret", 9));
    table.upsert(record("front", "a.back", 10));
    table
}

/// A question, written by hand.
fn query(name: &str, kind: u16) -> Query {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(class::IN.to_be_bytes());
    Query::read(&bytes).unwrap()
}

/// Last bytes of the addresses of an answer, in order; `None` if others are asked.
fn ask(scope: &Scope, name: &str, kind: u16) -> Option<Vec<u8>> {
    let query = query(name, kind);
    match decide(&query, Transport::Udp, scope, &table(), &Shuffle::new(1)) {
        Decision::Forward => None,
        Decision::Answer(answer) => {
            assert_eq!(rcode(&answer), code::NO_ERROR);
            let records = answer[query.empty_answer(0).len()..].chunks(16);
            let mut lasts: Vec<u8> = records.map(|record| record[15]).collect();
            lasts.sort_unstable();
            Some(lasts)
        }
    }
}

fn scope(networks: &[DnsNetwork]) -> Scope {
    Scope { networks: networks.to_vec(), has_ndots: false }
}

#[test]
fn names_are_found_on_the_containers_networks_in_order() {
    let (front, back) = (network("front", &[]), network("back.net", &[]));
    let both = scope(&[front.clone(), back.clone()]);
    let check = |scope: &Scope, name: &str, expected: Option<&[u8]>| {
        assert_eq!(ask(scope, name, kind::A).as_deref(), expected, "{name}");
    };
    check(&both, "web", Some(&[2]));
    check(&scope(&[back, front]), "web", Some(&[6, 7]));
    check(&both, "WEB", Some(&[2]));
    check(&both, "web.back.net", Some(&[6, 7]));
    check(&both, "Web.Front", Some(&[2]));
    check(&both, "tasks.web", Some(&[5]));
    check(&both, "tasks.web.back.net", Some(&[6, 7]));
    check(&both, "db", Some(&[8]));
    check(&both, "db.front", None);
    check(&both, "web.1.x", Some(&[5]));
    check(&both, "web.2.y.back.net", Some(&[7]));
    // the longest name comes first
    check(&both, "a.back", Some(&[10]));
    check(&both, "secret", None);
    check(&both, "secret.hidden", None);
    check(&both, "example.com", None);
    check(&scope(&[]), "web", None);
}

#[test]
fn aliases_of_a_container_are_its_own() {
    let aliased = scope(&[network("front", &[]), network("back.net", &[("Store", "DB"), ("web", "db")])]);
    assert_eq!(ask(&aliased, "store", kind::A), Some(vec![8]));
    assert_eq!(ask(&aliased, "store.back.net", kind::A), Some(vec![8]));
    assert_eq!(ask(&aliased, "store.front", kind::A), None);
    // an alias comes before a name, whatever the order of the networks
    assert_eq!(ask(&aliased, "web", kind::A), Some(vec![8]));
    assert_eq!(ask(&aliased, "web.front", kind::A), Some(vec![2]));
    let gone = scope(&[network("back.net", &[("db", "nobody")])]);
    assert_eq!(ask(&gone, "db", kind::A), None);
}

#[test]
fn other_types_of_a_known_name_are_empty() {
    let both = scope(&[network("front", &[]), network("back.net", &[])]);
    const MX: u16 = 15;
    const HTTPS: u16 = 65;
    for kind in [kind::AAAA, MX, HTTPS] {
        assert_eq!(ask(&both, "web", kind), Some(vec![]), "{kind}");
        assert_eq!(ask(&both, "example.com", kind), None, "{kind}");
    }
}

#[test]
fn addresses_have_names() {
    let both = scope(&[network("front", &[]), network("back.net", &[])]);
    let check = |name: &str, expected: Option<&str>| {
        let query = query(name, kind::PTR);
        let expected = expected.map_or(Decision::Forward, |expected| {
            Decision::Answer(query.answer_with(&[Record::pointer(expected).unwrap()], Transport::Udp))
        });
        assert_eq!(decide(&query, Transport::Udp, &both, &table(), &Shuffle::new(1)), expected, "{name}");
    };
    check("5.0.0.10.in-addr.arpa", Some("web.1.x.front"));
    check("8.0.0.10.in-addr.arpa", Some("db.back.net"));
    check("2.0.0.10.in-addr.arpa", Some("web.front"));
    check("9.0.0.10.in-addr.arpa", None);
    check("8.8.8.8.in-addr.arpa", None);
    check("example.com", None);
}

#[test]
fn names_without_dots_stay_here_if_ndots_is_set() {
    let mut scope = scope(&[network("front", &[])]);
    assert_eq!(ask(&scope, "nobody", kind::A), None);
    scope.has_ndots = true;
    assert_eq!(ask(&scope, "nobody", kind::A), Some(vec![]));
    assert_eq!(ask(&scope, "nobody", kind::AAAA), Some(vec![]));
    assert_eq!(ask(&scope, "nobody", 15), None);
    assert_eq!(ask(&scope, "nobody.example", kind::A), None);
    assert_eq!(ask(&scope, "web", kind::A), Some(vec![2]));
}

#[test]
fn every_order_comes_as_often() {
    let order = Shuffle::new(42);
    let mut counts = BTreeMap::new();
    for _ in 0..60_000 {
        let mut items = [1, 2, 3];
        order.shuffle(&mut items);
        *counts.entry(items).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    let again = || {
        let (order, mut items) = (Shuffle::new(7), [1, 2, 3, 4, 5, 6, 7, 8]);
        order.shuffle(&mut items);
        items
    };
    assert_eq!(again(), again());
}
