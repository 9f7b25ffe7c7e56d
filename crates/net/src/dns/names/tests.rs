//! The table against a model without indexes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn record(endpoint: &str, name: &str, last: u8) -> NameRecord {
    NameRecord {
        network_id: "n".into(),
        endpoint_id: endpoint.into(),
        owner: "a".into(),
        name: name.into(),
        task_aliases: Vec::new(),
        service: None,
        address: Ipv4Addr::new(10, 0, 0, last),
        address_v6: None,
        is_disabled: false,
    }
}

fn task(endpoint: &str, name: &str, last: u8, vip: Option<u8>) -> NameRecord {
    let virtual_ip = vip.map(|last| Ipv4Addr::new(10, 0, 0, last));
    let service = Some(ServiceNames { name: "Web".into(), aliases: vec!["shop".into()], virtual_ip });
    NameRecord { service, ..record(endpoint, name, last) }
}

fn lasts(table: &Table, name: &str) -> Option<Vec<u8>> {
    let addresses = table.addresses("n", name, Family::V4)?;
    Some(
        addresses
            .into_iter()
            .map(|address| if let IpAddr::V4(address) = address { address.octets()[3] } else { 0 })
            .collect(),
    )
}

#[test]
fn names_lead_to_tasks_or_to_the_virtual_address() {
    let mut table = Table::default();
    table.upsert(NameRecord { task_aliases: vec!["Short".into()], ..task("e1", "Web.1.x", 5, Some(2)) });
    table.upsert(task("e2", "web.2.y", 6, Some(2)));
    let check = |table: &Table, name: &str, expected: Option<&[u8]>| {
        assert_eq!(lasts(table, name).as_deref(), expected, "{name}");
    };
    for name in ["web", "shop"] {
        check(&table, name, Some(&[2]));
        check(&table, &format!("tasks.{name}"), Some(&[5, 6]));
    }
    check(&table, "web.1.x", Some(&[5]));
    check(&table, "short", Some(&[5]));
    check(&table, "web.3", None);
    assert_eq!(table.addresses("n", "web", Family::V6), Some(vec![]));
    assert_eq!(table.addresses("other", "web", Family::V4), None);
    let mut table = Table::default();
    table.upsert(task("e1", "web.1.x", 5, None));
    table.upsert(task("e2", "web.2.y", 6, None));
    check(&table, "web", Some(&[5, 6]));
    check(&table, "tasks.shop", Some(&[5, 6]));
}

#[test]
fn a_drained_task_has_no_names_but_its_service_keeps_its_address() {
    let check = |vip: Option<u8>, name: &str, expected: Option<&[u8]>| {
        let mut table = Table::default();
        table.upsert(task("e1", "web.1.x", 5, vip));
        table.upsert(NameRecord { is_disabled: true, ..task("e1", "web.1.x", 5, vip) });
        assert_eq!(lasts(&table, name).as_deref(), expected, "{vip:?} {name}");
    };
    check(Some(2), "web", Some(&[2]));
    check(Some(2), "tasks.web", None);
    check(Some(2), "web.1.x", None);
    check(None, "web", None);
    check(None, "tasks.shop", None);
}

#[test]
fn addresses_lead_back() {
    let mut table = Table::default();
    table.upsert(task("e1", "Web.1.x", 5, Some(2)));
    let address = |last| IpAddr::from([10, 0, 0, last]);
    assert_eq!(table.name_of("n", address(5)), Some("Web.1.x"));
    assert_eq!(table.name_of("n", address(2)), Some("Web"));
    assert_eq!(table.name_of("n", address(6)), None);
    // two claim the address; the one that is left has it
    table.upsert(record("e0", "other", 5));
    assert_eq!(table.name_of("n", address(5)), Some("other"));
    table.remove("n", "e0", "a");
    assert_eq!(table.name_of("n", address(5)), Some("Web.1.x"));
    table.remove("n", "e1", "a");
    assert_eq!(table.name_of("n", address(5)), None);
    assert!(table.0.is_empty());
}

#[test]
fn only_the_owner_removes_a_record() {
    let mut table = Table::default();
    table.upsert(record("e1", "web", 5));
    table.upsert(NameRecord { owner: "b".into(), ..record("e1", "web", 6) });
    // the old node's farewell comes late
    table.remove("n", "e1", "a");
    table.remove_owner("n", "a");
    assert_eq!(lasts(&table, "web"), Some(vec![6]));
    table.remove_owner("n", "b");
    assert_eq!(lasts(&table, "web"), None);
}

#[test]
fn a_containers_other_names_are_in_dockerds_order() {
    let id = "35de8003b19e27f636fc6ecbf4d7072558b872a8544f287fd69ad8182ad59023";
    let aliases = NameRecord::aliases_of("foobar", &["myctr".into(), "foobar".into(), "myctr".into()], id, "baz");
    assert_eq!(aliases, ["myctr", "35de8003b19e", "baz"]);
    assert_eq!(NameRecord::aliases_of("foobar", &[], id, "35de8003b19e"), ["35de8003b19e"]);
}

/// The same, without any index.
#[derive(Clone, Debug, Default)]
struct Model(Vec<NameRecord>);

impl Model {
    fn upsert(&mut self, record: NameRecord) {
        self.0.retain(|known| (&known.network_id, &known.endpoint_id) != (&record.network_id, &record.endpoint_id));
        self.0.push(record);
    }

    fn addresses(&self, network: &str, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        let mut found = BTreeSet::new();
        for record in self.0.iter().filter(|record| record.network_id == network) {
            let own = [Some(IpAddr::V4(record.address)), record.address_v6.map(IpAddr::V6)];
            let is = |other: &str| other.to_ascii_lowercase() == name;
            let is_own = is(&record.name) || record.task_aliases.iter().any(|alias| is(alias));
            if is_own && !record.is_disabled {
                found.extend(own.into_iter().flatten());
            }
            let Some(service) = &record.service else { continue };
            let names: Vec<_> = service.aliases.iter().chain([&service.name]).collect();
            let is_tasks = names.iter().any(|service| is(&format!("tasks.{service}")));
            let is_service = names.iter().any(|service| is(service));
            if (is_tasks || (is_service && service.virtual_ip.is_none())) && !record.is_disabled {
                found.extend(own.into_iter().flatten());
            }
            found.extend(service.virtual_ip.filter(|_| is_service).map(IpAddr::V4));
        }
        let of_family = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
        (!found.is_empty()).then(|| found.into_iter().filter(of_family).collect())
    }

    fn names_of(&self, network: &str, address: IpAddr) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for record in self.0.iter().filter(|record| record.network_id == network) {
            let own = [Some(IpAddr::V4(record.address)), record.address_v6.map(IpAddr::V6)];
            if own.contains(&Some(address)) && !record.is_disabled {
                names.insert(record.name.clone());
            }
            let service = record.service.iter().filter(|service| service.virtual_ip.map(IpAddr::V4) == Some(address));
            names.extend(service.map(|service| service.name.clone()));
        }
        names
    }
}

#[derive(Clone, Debug)]
enum Step {
    Upsert(NameRecord),
    Remove { network: String, endpoint: String, owner: String },
    Replace { network: String, records: Vec<NameRecord> },
    RemoveOwner { network: String, owner: String },
    Drop { network: String },
}

const NETWORKS: [&str; 2] = ["n", "m"];
const WORDS: [&str; 5] = ["web", "Web", "db", "tasks.web", "x"];

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(words).prop_map(str::to_owned)
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    (1u8..6).prop_map(|last| Ipv4Addr::new(10, 0, 0, last))
}

fn any_record() -> impl Strategy<Value = NameRecord> {
    let service = (word(&WORDS), proptest::collection::vec(word(&WORDS), 0..2), proptest::option::of(address()))
        .prop_map(|(name, aliases, virtual_ip)| ServiceNames { name, aliases, virtual_ip });
    let ids = (word(&NETWORKS), word(&["e1", "e2", "e3", "e4"]), word(&["a", "b"]));
    let names = (word(&WORDS), proptest::collection::vec(word(&WORDS), 0..3), proptest::option::of(service));
    let v6 = proptest::option::of((1u16..4).prop_map(|last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)));
    (ids, names, address(), v6, any::<bool>()).prop_map(|(ids, names, address, address_v6, is_disabled)| NameRecord {
        network_id: ids.0,
        endpoint_id: ids.1,
        owner: ids.2,
        name: names.0,
        task_aliases: names.1,
        service: names.2,
        address,
        address_v6,
        is_disabled,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_record().prop_map(Step::Upsert),
        4 => (word(&NETWORKS), word(&["e1", "e2", "e3", "e4"]), word(&["a", "b"]))
            .prop_map(|(network, endpoint, owner)| Step::Remove { network, endpoint, owner }),
        1 => (word(&NETWORKS), proptest::collection::vec(any_record(), 0..4))
            .prop_map(|(network, records)| Step::Replace { network, records }),
        1 => (word(&NETWORKS), word(&["a", "b"])).prop_map(|(network, owner)| Step::RemoveOwner { network, owner }),
        1 => word(&NETWORKS).prop_map(|network| Step::Drop { network }),
    ]
}

fn apply(step: Step, table: &mut Table, model: &mut Model) {
    match step {
        Step::Upsert(record) => {
            table.upsert(record.clone());
            model.upsert(record);
        }
        Step::Remove { network, endpoint, owner } => {
            table.remove(&network, &endpoint, &owner);
            model
                .0
                .retain(|known| (&known.network_id, &known.endpoint_id, &known.owner) != (&network, &endpoint, &owner));
        }
        Step::Replace { network, records } => {
            model.0.retain(|known| known.network_id != network);
            for record in &records {
                model.upsert(NameRecord { network_id: network.clone(), ..record.clone() });
            }
            table.replace_network(&network, records);
        }
        Step::RemoveOwner { network, owner } => {
            table.remove_owner(&network, &owner);
            model.0.retain(|known| (&known.network_id, &known.owner) != (&network, &owner));
        }
        Step::Drop { network } => {
            table.drop_network(&network);
            model.0.retain(|known| known.network_id != network);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_its_records_say(steps in proptest::collection::vec(step(), 0..25)) {
        let (mut table, mut model) = (Table::default(), Model::default());
        for step in steps {
            apply(step, &mut table, &mut model);
            for network in NETWORKS {
                for name in ["web", "db", "x", "tasks.web", "tasks.db", "tasks.x", "tasks.tasks.web"] {
                    for family in [Family::V4, Family::V6] {
                        prop_assert_eq!(table.addresses(network, name, family), model.addresses(network, name, family));
                    }
                }
                for last in 0..6 {
                    for address in [IpAddr::from([10, 0, 0, last]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last.into()])] {
                        let names = model.names_of(network, address);
                        let found = table.name_of(network, address).map(str::to_owned);
                        prop_assert_eq!(found.is_some(), !names.is_empty());
                        prop_assert!(found.is_none_or(|name| names.contains(&name)));
                    }
                }
            }
        }
        for network in NETWORKS {
            table.drop_network(network);
        }
        prop_assert!(table.0.is_empty());
    }
}
