//! Refusals and plans of root rotations, and their steps.

use super::*;
use identity::RootAuthority;
use model::{ExternalCa, NodeDescription};
use store::Action;

const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 0 };

fn root() -> RootAuthority {
    RootAuthority::generate(NOW).unwrap()
}

fn cluster(current: &RootAuthority) -> Cluster {
    let mut cluster = Cluster { id: "c".into(), ..Cluster::default() };
    cluster.root_ca.ca_cert = current.cert_pem.clone();
    cluster.root_ca.ca_key = current.key_pem.clone();
    cluster
}

fn signing(root: &RootAuthority) -> CaConfig {
    CaConfig { signing_ca_cert: root.cert_pem.clone(), signing_ca_key: root.key_pem.clone(), ..CaConfig::default() }
}

fn external(url: &str, root: &RootAuthority) -> ExternalCa {
    ExternalCa { url: url.to_owned(), ca_cert: root.cert_pem.clone(), ..ExternalCa::default() }
}

fn refusal(cluster: &Cluster, wanted: &CaConfig, reachable: &[&RootAuthority]) -> String {
    let reachable = reachable.iter().map(|root| root.cert_pem.clone()).collect();
    let refused = plan(cluster, wanted, &reachable, NOW).unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument);
    refused.desc
}

fn planned(cluster: &Cluster, wanted: &CaConfig, reachable: &[&RootAuthority]) -> RootPlan {
    let reachable = reachable.iter().map(|root| root.cert_pem.clone()).collect();
    plan(cluster, wanted, &reachable, NOW).unwrap()
}

#[test]
fn what_makes_no_sense_is_refused_with_swarmkits_texts() {
    let (current, new) = (root(), root());
    let cluster = cluster(&current);
    let check = |wanted: CaConfig, text: &str| assert_eq!(refusal(&cluster, &wanted, &[]), text);
    let key_only = CaConfig { signing_ca_key: new.key_pem.clone(), ..CaConfig::default() };
    check(key_only, "if a signing CA key is provided, the signing CA cert must also be provided");
    let no_pem = CaConfig { signing_ca_cert: b"no certificate".to_vec(), ..CaConfig::default() };
    check(no_pem, "could not parse the desired CA certificate");
    let two = [new.cert_pem.as_slice(), &current.cert_pem].concat();
    let two = CaConfig { signing_ca_cert: two, ..signing(&new) };
    check(two, "the desired CA certificate cannot contain multiple certificates");
    let foreign_key = CaConfig { signing_ca_key: current.key_pem.clone(), ..signing(&new) };
    check(foreign_key, "certificate key mismatch");
    let no_key = CaConfig { signing_ca_cert: new.cert_pem.clone(), ..CaConfig::default() };
    let text = "there must be at least one valid, reachable external CA corresponding to the";
    check(no_key, &format!("{text} desired CA certificate"));
}

#[test]
fn a_root_that_ends_within_a_year_is_refused() {
    let (current, new) = (root(), root());
    let end = identity::certificate_expiry(&new.cert_pem).unwrap().seconds;
    let at =
        |seconds: i64| plan(&cluster(&current), &signing(&new), &Reachable::new(), Timestamp { seconds, nanos: 0 });
    assert_eq!(at(end - MIN_ROOT_LIFE_SECS + 1).unwrap_err().desc, "CA certificate expires too soon");
    assert!(matches!(at(end - MIN_ROOT_LIFE_SECS).unwrap(), RootPlan::Rotate(_)));
}

#[test]
fn an_update_that_does_not_touch_the_root_keeps_it() {
    let current = root();
    assert_eq!(planned(&cluster(&current), &CaConfig::default(), &[]), RootPlan::Keep);
    let mut forced = cluster(&current);
    forced.root_ca.last_forced_rotation = 4;
    let same = CaConfig { force_rotate: 4, ..CaConfig::default() };
    assert_eq!(planned(&forced, &same, &[]), RootPlan::Keep);
}

#[test]
fn force_and_a_new_certificate_start_a_rotation() {
    let (current, new) = (root(), root());
    let forced = CaConfig { force_rotate: 1, ..CaConfig::default() };
    let expected = NewRoot { given: None, voucher: Voucher::Key, forced: 1 };
    assert_eq!(planned(&cluster(&current), &forced, &[]), RootPlan::Rotate(expected));
    let given = Some((new.cert_pem.clone(), new.key_pem.clone()));
    let expected = NewRoot { given, voucher: Voucher::Key, forced: 0 };
    assert_eq!(planned(&cluster(&current), &signing(&new), &[]), RootPlan::Rotate(expected));
    // To a root whose key an external CA holds.
    let wanted = CaConfig {
        signing_ca_cert: new.cert_pem.clone(),
        external_cas: vec![external("https://new", &new)],
        ..CaConfig::default()
    };
    assert_eq!(needed_probes(&cluster(&current), &wanted), [new.cert_pem.clone()]);
    let RootPlan::Rotate(rotation) = planned(&cluster(&current), &wanted, &[&new]) else { panic!("no rotation") };
    assert_eq!(rotation.given, Some((new.cert_pem, Vec::new())));
}

#[test]
fn the_present_root_named_again_calls_a_rotation_off() {
    let (current, new) = (root(), root());
    let stored = cluster(&current);
    let crossed = vouch(&stored.root_ca, &new.cert_pem).unwrap();
    let rotating = begin(&stored.root_ca, (new.cert_pem.clone(), new.key_pem.clone()), &crossed, 3);
    assert_eq!(rotating.last_forced_rotation, 3);
    assert_eq!(rotating.root_rotation.as_ref().unwrap().ca_cert, new.cert_pem);
    let stored = Cluster { root_ca: rotating, ..stored };
    let RootPlan::Set(root_ca) = planned(&stored, &signing(&current), &[]) else { panic!("nothing set") };
    assert_eq!((root_ca.root_rotation, root_ca.ca_key), (None, current.key_pem.clone()));
    // The coming root named again: only its key changes hands.
    let wanted = CaConfig {
        signing_ca_cert: new.cert_pem.clone(),
        external_cas: vec![external("https://new", &new)],
        ..CaConfig::default()
    };
    let RootPlan::Set(root_ca) = planned(&stored, &wanted, &[&new]) else { panic!("nothing set") };
    let rotation = root_ca.root_rotation.unwrap();
    assert!(rotation.ca_key.is_empty() && !rotation.cross_signed_ca_cert.is_empty());
    // A third root replaces the second; the first vouches for it, too.
    let third = root();
    let RootPlan::Rotate(rotation) = planned(&stored, &signing(&third), &[]) else { panic!("no rotation") };
    assert_eq!(rotation.voucher, Voucher::Key);
}

#[test]
fn a_root_without_its_key_needs_its_external_ca_at_every_update() {
    let (current, new) = (root(), root());
    let mut stored = cluster(&current);
    stored.root_ca.ca_key = Vec::new();
    let text = "there must be at least one valid, reachable external CA corresponding to the current CA certificate";
    assert_eq!(refusal(&stored, &CaConfig::default(), &[]), text);
    let wanted = CaConfig { external_cas: vec![external("https://old", &current)], ..CaConfig::default() };
    assert_eq!(needed_probes(&stored, &wanted), [current.cert_pem.clone()]);
    assert_eq!(planned(&stored, &wanted, &[&current]), RootPlan::Keep);
    let forced = CaConfig { force_rotate: 1, ..wanted.clone() };
    let RootPlan::Rotate(rotation) = planned(&stored, &forced, &[&current]) else { panic!("no rotation") };
    assert_eq!(rotation.voucher, Voucher::External(vec!["https://old".to_owned()]));
    let to_external = CaConfig {
        signing_ca_cert: new.cert_pem.clone(),
        external_cas: vec![external("https://old", &current), external("https://new", &new)],
        ..CaConfig::default()
    };
    let text = "rotating from one external CA to a different external CA is not supported";
    assert_eq!(refusal(&stored, &to_external, &[&current, &new]), text);
    // Its key given: nobody needs to be asked.
    assert!(needed_probes(&stored, &signing(&current)).is_empty());
    let RootPlan::Set(root_ca) = planned(&stored, &signing(&current), &[]) else { panic!("nothing set") };
    assert_eq!(root_ca.ca_key, current.key_pem);
}

#[test]
fn the_next_roots_external_ca_is_asked_for_while_it_takes_over() {
    let (current, new) = (root(), root());
    let stored = cluster(&current);
    let crossed = vouch(&stored.root_ca, &new.cert_pem).unwrap();
    let root_ca = begin(&stored.root_ca, (new.cert_pem.clone(), Vec::new()), &crossed, 0);
    let stored = Cluster { root_ca, ..stored };
    let text = "there must be at least one valid, reachable external CA corresponding to the next CA certificate";
    assert_eq!(refusal(&stored, &CaConfig::default(), &[]), text);
    assert_eq!(needed_probes(&stored, &CaConfig::default()), [new.cert_pem.clone()]);
    assert_eq!(planned(&stored, &CaConfig::default(), &[&new]), RootPlan::Keep);
}

fn node(id: usize, issuer: &RootAuthority, state: IssuanceState) -> Node {
    let tls_info = Some(identity::tls_info(&[], &issuer.cert_pem).unwrap());
    let description = Some(NodeDescription { tls_info, ..NodeDescription::default() });
    let mut node = Node { id: format!("n{id:03}").into(), description, ..Node::default() };
    node.certificate.status.state = state;
    node
}

#[test]
fn nodes_renew_thirty_at_a_time_and_all_are_waited_for() {
    let (current, new) = (root(), root());
    let stored = cluster(&current);
    let mut view = View::new();
    let mut actions = vec![Action::Create(stored.clone().into())];
    actions.extend((0..40).map(|id| Action::Create(node(id, &current, IssuanceState::Issued).into())));
    view.apply(&actions).unwrap();
    assert_eq!(next_step(&view), Step::Idle);
    let crossed = vouch(&stored.root_ca, &new.cert_pem).unwrap();
    let root_ca = begin(&stored.root_ca, (new.cert_pem.clone(), new.key_pem.clone()), &crossed, 1);
    let rotating = Cluster { root_ca, ..stored };
    view.apply(&[Action::Update(rotating.clone().into())]).unwrap();
    let Step::Renew(first) = next_step(&view) else { panic!("no step") };
    assert_eq!((first.len(), first[0].as_str()), (30, "n000"));
    let marked = (0..30).map(|id| Action::Update(node(id, &current, IssuanceState::Rotate).into()));
    view.apply(&marked.collect::<Vec<_>>()).unwrap();
    let Step::Renew(rest) = next_step(&view) else { panic!("no step") };
    assert_eq!((rest.len(), rest[0].as_str()), (10, "n030"));
    let renewing = (30..40).map(|id| Action::Update(node(id, &current, IssuanceState::Renew).into()));
    view.apply(&renewing.collect::<Vec<_>>()).unwrap();
    assert_eq!(next_step(&view), Step::Renew(Vec::new()), "those that are at it are waited for");
    let renewed = (0..40).map(|id| Action::Update(node(id, &new, IssuanceState::Issued).into()));
    view.apply(&renewed.collect::<Vec<_>>()).unwrap();
    assert_eq!(next_step(&view), Step::Finish);
    // A joiner has told nothing of its certificate yet.
    view.apply(&[Action::Create(Node { id: "joiner".into(), ..Node::default() }.into())]).unwrap();
    assert_eq!(next_step(&view), Step::Renew(vec!["joiner".into()]));
}

#[test]
fn after_a_rotation_the_tokens_are_for_the_new_root() {
    let (current, new) = (root(), root());
    let stored = cluster(&current);
    assert!(finished(&stored).is_none());
    let crossed = vouch(&stored.root_ca, &new.cert_pem).unwrap();
    let root_ca = begin(&stored.root_ca, (new.cert_pem.clone(), new.key_pem.clone()), &crossed, 7);
    let done = finished(&Cluster { root_ca, ..stored }).unwrap();
    assert_eq!((&done.ca_cert, &done.ca_key, &done.root_rotation), (&new.cert_pem, &new.key_pem, &None));
    assert_eq!((done.last_forced_rotation, &done.ca_cert_hash), (7, &identity::ca_cert_hash(&new.cert_pem)));
    for token in [&done.join_tokens.worker, &done.join_tokens.manager] {
        assert!(identity::JoinToken::parse(token).unwrap().is_for(&new.cert_pem));
    }
    assert_ne!(done.join_tokens.worker, done.join_tokens.manager);
}
