//! Entries that are to be known everywhere at once.

use std::time::Duration;

use gossip::{Event, Name, PushId};

use crate::seconds;
use crate::world::{TABLE, World};

/// Changes entries of a member and pushes them.
fn push(world: &mut World, node: usize, keys: &[&str], value: &str) -> PushId {
    for key in keys {
        world.act(node, |gossip, now| gossip.update(now, "net", (TABLE, key), value.as_bytes())).expect("updated");
    }
    let name = |text: &str| Name::from(text);
    let entries: Vec<_> = keys.iter().map(|key| (name("net"), name(TABLE), name(key))).collect();
    world.act(node, |gossip, now| gossip.push(now, &entries))
}

/// How many members were silent, once the push is done with.
fn silent(world: &World, node: usize, push: PushId) -> Option<usize> {
    world.machines[node].events.iter().find_map(|event| match event {
        Event::Pushed { id, silent, foreign: 0 } if *id == push => Some(*silent),
        _ => None,
    })
}

fn sees(world: &World, node: usize, value: &str) -> bool {
    world.machines[node].gossip.entries("net", TABLE).any(|(_, entry)| *entry.value == *value.as_bytes())
}

#[test]
fn a_push_is_known_everywhere_when_its_end_is_told() {
    let mut world = World::cluster(31, 50, &["net"]);
    world.until(seconds(20), "all in the network", |world| world.all_know_all() && world.all_in("net"));
    world.create(7, "net", "a", "old");
    world.until(seconds(5), "the entry", |world| world.all_see("net", &["a"]));
    // No packet comes through: what is known is known by streams.
    world.loss = 1000;
    let id = push(&mut world, 7, &["a"], "new");
    let took = world.until(seconds(1), "the end of the push", |world| silent(world, 7, id).is_some());
    println!("50 members have confirmed after {took:?}");
    assert_eq!(silent(&world, 7, id), Some(0));
    assert!((0..50).all(|node| sees(&world, node, "new")));
    world.check_views();
}

#[test]
fn who_does_not_get_to_it_or_is_cut_off_is_not_waited_for() {
    let mut world = World::cluster(32, 5, &["net"]);
    world.until(seconds(3), "all know all", |world| world.all_know_all() && world.all_in("net"));
    world.create(0, "net", "a", "old");
    world.until(seconds(2), "the entry", |world| world.all_see("net", &["a"]));
    world.machines[1].stuck = true;
    world.sides[2] = 1;
    let id = push(&mut world, 0, &["a"], "new");
    world.run(seconds(1));
    assert!(sees(&world, 3, "new") && sees(&world, 4, "new"));
    assert_eq!(silent(&world, 0, id), None, "the two have two seconds");
    world.until(Duration::from_millis(1_200), "the end of the push", |world| silent(world, 0, id).is_some());
    assert_eq!(silent(&world, 0, id), Some(2));
    // One that is in no network, and one that has nobody beside it, wait for nobody.
    for (networks, entries) in [(&[][..], vec![("none".into(), TABLE.into(), "a".into())]), (&["other"], Vec::new())] {
        let lone = world.start(networks);
        let id = world.act(lone, |gossip, now| gossip.push(now, &entries));
        assert_eq!(silent(&world, lone, id), Some(0));
    }
}

#[test]
fn many_pushes_take_few_streams() {
    let mut world = World::cluster(33, 10, &["net"]);
    world.until(seconds(5), "all in the network", |world| world.all_know_all() && world.all_in("net"));
    let keys: Vec<String> = (0..300).map(|number| format!("{number:03}")).collect();
    for key in &keys {
        world.create(0, "net", key, "old");
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    world.until(seconds(60), "the entries", |world| world.all_see("net", &keys));
    let before = world.machines[0].gossip.counters().dials;
    let pushes: Vec<_> = keys.iter().map(|key| push(&mut world, 0, &[key], "new")).collect();
    world.until(seconds(1), "the last push", |world| pushes.iter().all(|id| silent(world, 0, *id) == Some(0)));
    let dials = world.machines[0].gossip.counters().dials - before;
    assert!(dials <= 2 * 9 + 2, "{dials} streams for 300 pushes to 9 members");
    world.check_views();
    // More than a push may hold is told as unconfirmed, and nothing breaks.
    let id = push(&mut world, 0, &keys, "newer");
    assert_eq!(silent(&world, 0, id), Some(9));
}
