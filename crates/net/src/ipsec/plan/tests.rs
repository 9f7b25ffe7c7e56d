//! What follows from keys and nodes, in tables.

use super::super::keys::EncryptionKey;
use super::*;

const OWN: u16 = 1023;
const DATA: u16 = 4789;
const VOID: u32 = 77;

fn ring(times: &[u64]) -> KeyRing {
    let key = |time: &u64| EncryptionKey { lamport_time: *time, key: [*time as u8; 16] };
    KeyRing::new(times.iter().map(key).collect())
}

fn node(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn path(remote: u8) -> Path {
    Path { local: node(1), remote: node(remote), data_port: DATA }
}

fn wanted(remotes: &[u8]) -> Wanted {
    Wanted { ports: Some((OWN, [DATA].into())), paths: remotes.iter().copied().map(path).collect(), void: VOID }
}

/// What the kernel holds after the steps. Panics where the kernel would refuse.
fn apply(mut held: Held, steps: &[Step]) -> Held {
    for step in steps {
        match step {
            Step::AddState(id, state) => assert!(held.states.insert(*id, state.clone()).is_none(), "{id:?} is there"),
            Step::RemoveState(id) => drop(held.states.remove(id).expect("it is there")),
            Step::SetPolicy(selector, action) => drop(held.policies.insert(*selector, *action)),
            Step::RemovePolicy(selector) => drop(held.policies.remove(selector).expect("it is there")),
        }
    }
    held
}

fn reach(wanted: &Wanted, keys: &KeyRing) -> Held {
    apply(Held::default(), &steps(&Held::default(), wanted, Some(keys)))
}

/// The key by which a node seals for another, as the states of both have it.
fn tag_of_seal(held: &Held, from: u8, to: u8, keys: &[u64]) -> Option<u64> {
    let outgoing = held.policies.iter().find(|(selector, _)| selector.addresses == Some((node(from), node(to))));
    let Some((_, Action::Seal(spi))) = outgoing else { return None };
    let id = StateId { source: node(from), destination: node(to), spi: *spi };
    held.states.get(&id).filter(|state| state.way == Way::Out)?;
    keys.iter().copied().find(|time| ring(&[*time]).all()[0].spi(node(from), node(to)) == *spi)
}

fn opens(held: &Held, from: u8, to: u8, time: u64) -> bool {
    let spi = ring(&[time]).all()[0].spi(node(from), node(to));
    let id = StateId { source: node(from), destination: node(to), spi };
    held.states.get(&id).is_some_and(|state| state.way == Way::In)
}

#[test]
fn a_node_is_sealed_for_with_one_key_and_opened_with_all() {
    let held = reach(&wanted(&[2]), &ring(&[1, 2, 3]));
    assert_eq!(held.states.len(), 4);
    assert!((1..=3).all(|time| opens(&held, 2, 1, time)));
    assert_eq!(tag_of_seal(&held, 1, 2, &[1, 2, 3]), Some(2));
    let (selector, _) = held.policies.iter().find(|(selector, _)| selector.addresses.is_some()).unwrap();
    assert_eq!(
        *selector,
        Selector {
            is_out: true,
            addresses: Some((node(1), node(2))),
            source_port: OWN,
            destination_port: DATA,
            link: VOID,
            mark: (0, 0),
        }
    );
}

#[test]
fn the_locks_come_first_and_go_last() {
    let (none, keys) = (Wanted::default(), ring(&[1, 2, 3]));
    let there = steps(&Held::default(), &wanted(&[2]), Some(&keys));
    let is_lock = |step: &Step| match step {
        Step::SetPolicy(selector, Action::Block) | Step::RemovePolicy(selector) => selector.addresses.is_none(),
        _ => false,
    };
    assert_eq!(there.iter().map(is_lock).collect::<Vec<_>>(), [true, true, false, false, false, false, false]);
    let held = apply(Held::default(), &there);
    let back = steps(&held, &none, Some(&keys));
    assert_eq!(back.iter().map(is_lock).collect::<Vec<_>>(), [false, false, false, false, false, true, true]);
    assert_eq!(apply(held, &back), Held::default());
}

#[test]
fn without_keys_all_is_locked_and_nothing_open() {
    for keys in [Some(ring(&[])), None] {
        let held = apply(Held::default(), &steps(&Held::default(), &wanted(&[2, 3]), keys.as_ref()));
        assert!(held.states.is_empty());
        assert!(held.policies.len() == 2 && held.policies.values().all(|action| *action == Action::Block));
    }
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    let (wanted, keys) = (wanted(&[2, 3]), ring(&[1, 2, 3]));
    let mut held = reach(&wanted, &keys);
    assert_eq!(steps(&held, &wanted, Some(&keys)), []);
    // a locked-down kernel does not show keys
    held.states.values_mut().for_each(|state| state.key = [0; 20]);
    assert_eq!(steps(&held, &wanted, Some(&keys)), []);
}

#[test]
fn a_new_daemon_that_waits_for_keys_keeps_what_works_and_removes_what_is_stale() {
    let keys = ring(&[1, 2, 3]);
    let before = reach(&wanted(&[2, 3]), &keys);
    let after = apply(before.clone(), &steps(&before, &wanted(&[2]), None));
    assert_eq!(after, reach(&wanted(&[2]), &keys));
    // no network is encrypted any more
    assert_eq!(apply(before.clone(), &steps(&before, &Wanted::default(), None)), Held::default());
    // policies of another port, or past the void, are none of today's
    let moved = Wanted { void: VOID + 1, ..wanted(&[2, 3]) };
    let after = apply(before.clone(), &steps(&before, &moved, None));
    assert!(after.policies.values().all(|action| *action == Action::Block));
    assert_eq!(after.states, before.states);
}

#[test]
fn a_wrong_or_worn_state_is_made_anew() {
    let (wanted, keys) = (wanted(&[2]), ring(&[1, 2, 3]));
    let good = reach(&wanted, &keys);
    let sealing = *good.states.iter().find(|(_, state)| state.way == Way::Out).unwrap().0;
    let opening = *good.states.iter().find(|(_, state)| state.way == Way::In).unwrap().0;
    let check = |id: StateId, change: fn(&mut State), expected: usize| {
        let mut held = good.clone();
        change(held.states.get_mut(&id).unwrap());
        let steps = steps(&held, &wanted, Some(&keys));
        assert_eq!(steps.len(), expected, "{steps:?}");
        if expected > 0 {
            assert_eq!(apply(held, &steps), good);
        }
    };
    check(sealing, |state| state.key[3] ^= 1, 2);
    check(opening, |state| state.key[19] ^= 1, 2);
    check(sealing, |state| state.way = Way::In, 2);
    check(sealing, |state| state.packets = WORN_PACKETS, 2);
    check(sealing, |state| state.packets = WORN_PACKETS - 1, 0);
    // counting is the sender's
    check(opening, |state| state.packets = WORN_PACKETS, 0);
}

/// Two nodes change their keys one step at a time, in any order: at every moment each opens what the other seals.
#[test]
fn no_packet_is_lost_while_keys_rotate() {
    let times = [1, 2, 3, 4];
    let (old, new) = (ring(&times[..3]), ring(&times[1..]));
    let sides = [(1u8, 2u8), (2, 1)].map(|(local, remote)| Wanted {
        paths: [Path { local: node(local), remote: node(remote), data_port: DATA }].into(),
        ..wanted(&[])
    });
    let before = sides.clone().map(|side| reach(&side, &old));
    let steps = [0, 1].map(|side| steps(&before[side], &sides[side], Some(&new)));
    for first in 0..=steps[0].len() {
        for second in 0..=steps[1].len() {
            let one = apply(before[0].clone(), &steps[0][..first]);
            let two = apply(before[1].clone(), &steps[1][..second]);
            for (held, other, from, to) in [(&one, &two, 1, 2), (&two, &one, 2, 1)] {
                let time = tag_of_seal(held, from, to, &times);
                let time = time.unwrap_or_else(|| panic!("{from} cannot send after {first}, {second} steps"));
                assert!(opens(other, from, to, time), "{to} does not open key {time} after {first}, {second} steps");
            }
        }
    }
    for (side, (before, steps)) in before.into_iter().zip(&steps).enumerate() {
        assert_eq!(apply(before, steps), reach(&sides[side], &new));
    }
}

#[test]
fn nodes_come_and_go_by_themselves() {
    let keys = ring(&[1, 2, 3]);
    let held = reach(&wanted(&[2, 3]), &keys);
    let gone = steps(&held, &wanted(&[3]), Some(&keys));
    assert_eq!(gone.len(), 5);
    // nothing is sealed by a state that is gone
    assert!(matches!(gone[0], Step::RemovePolicy(_)), "{gone:?}");
    let come = steps(&reach(&wanted(&[3]), &keys), &wanted(&[2, 3]), Some(&keys));
    assert!(matches!(come.last(), Some(Step::SetPolicy(_, Action::Seal(_)))), "{come:?}");
    assert_eq!(apply(held, &gone), reach(&wanted(&[3]), &keys));
}
