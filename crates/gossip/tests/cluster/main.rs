//! Clusters in virtual time: they converge, nothing stale outlives its bound, and traffic per member does not grow.

mod aside;
mod faults;
mod push;
mod scale;
mod world;

use std::time::Duration;

use gossip::{Event, NetworkError};
use world::{TABLE, World};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn three_members_find_one_another_and_share_entries() {
    let mut world = World::cluster(1, 3, &["net"]);
    let took = world.until(seconds(3), "all know all", World::all_know_all);
    println!("3 members know one another after {took:?}");
    world.create(0, "net", "a", "one");
    world.create(1, "net", "b", "two");
    world.create(2, "net", "c", "three");
    let took = world.until(seconds(2), "entries", |world| world.all_see("net", &["a", "b", "c"]));
    println!("3 members see an entry after {took:?}");
    world.act(1, |gossip, now| gossip.update(now, "net", (TABLE, "b"), b"new")).expect("updated");
    let new = |world: &World, node: usize| {
        world.machines[node].gossip.entries("net", TABLE).any(|(_, entry)| *entry.value == *b"new")
    };
    world.until(seconds(2), "the update", |world| (0..3).all(|node| new(world, node)));
    world.delete(0, "net", "a");
    world.until(seconds(2), "the deletion", |world| world.all_see("net", &["b", "c"]));
    world.check_views();
}

#[test]
fn a_member_that_comes_late_learns_what_there_is_and_one_that_leaves_takes_its_entries() {
    let mut world = World::cluster(2, 3, &["net"]);
    world.until(seconds(3), "all know all", World::all_know_all);
    world.create(0, "net", "a", "one");
    world.create(1, "net", "b", "two");
    world.run(seconds(60));
    world.grow(1, &["net"]);
    let took = world.until(seconds(3), "the late one sees", |world| world.sees(3, "net", &["a", "b"]));
    println!("a late member sees all after {took:?}");
    world.act(1, |gossip, now| gossip.leave_network(now, "net")).expect("left");
    assert_eq!(world.act(1, |gossip, now| gossip.leave_network(now, "net")), Err(NetworkError::NotJoined));
    let others = |world: &World| [0, 2, 3].iter().all(|node| world.sees(*node, "net", &["a"]));
    world.until(seconds(3), "its entries go with it", others);
    // And back, with another entry: the old one does not come back with it.
    world.act(1, |gossip, now| gossip.join_network(now, "net")).expect("joined");
    world.create(1, "net", "c", "three");
    world.until(seconds(3), "it is back", |world| world.all_see("net", &["a", "c"]));
    // Leaving the cluster in order is told, not found out.
    world.act(0, |gossip, now| gossip.leave(now));
    world.until(seconds(8), "it has left", |world| world.machines[0].events.contains(&Event::Left));
    world.machines[0].down = true;
    world.until(seconds(2), "it is gone", |world| world.all_know_all() && world.all_see("net", &["c"]));
    world.check_views();
}

#[test]
fn an_entry_larger_than_a_packet_arrives() {
    let mut world = World::cluster(3, 3, &["net"]);
    world.until(seconds(3), "all know all", World::all_know_all);
    let large: String = (0..2000).map(|number| format!("{number} ")).collect();
    world.create(0, "net", "large", &large);
    world.until(seconds(60), "the large entry", |world| world.all_see("net", &["large"]));
    world.check_views();
}

#[test]
fn members_of_different_networks_share_only_what_is_common() {
    let mut world = World::new(4);
    for networks in [&["x", "y"][..], &["x"], &["y"], &[]] {
        let number = world.start(networks);
        if number > 0 {
            world.join(number, 0);
        }
    }
    world.until(seconds(3), "all know all", World::all_know_all);
    world.create(0, "x", "a", "");
    world.create(2, "y", "b", "");
    world.run(seconds(30));
    assert!(world.sees(1, "x", &["a"]) && world.sees(0, "y", &["b"]) && world.sees(2, "y", &["b"]));
    for (node, x, y) in [(0, 1, 1), (1, 1, 0), (2, 0, 1), (3, 0, 0)] {
        let peers = |network| world.machines[node].gossip.network_peers(network).len();
        assert_eq!((peers("x"), peers("y")), (x, y), "of {node}");
    }
}

#[test]
fn keys_are_rotated_without_losing_anybody() {
    let key = |byte: u8| vec![byte; 16];
    let mut world = World::new(5);
    world.keys = vec![key(1), key(2)];
    world.grow(5, &["net"]);
    world.until(seconds(3), "all know all", World::all_know_all);
    let steps: [(&[Vec<u8>], usize); 3] =
        [(&[key(1), key(2), key(3)], 0), (&[key(1), key(2), key(3)], 1), (&[key(2), key(3)], 0)];
    for (keys, primary) in steps {
        for node in 0..5 {
            world.act(node, |gossip, _| gossip.set_keys(keys, primary)).expect("keys");
            world.run(seconds(3));
        }
        assert!(world.all_know_all());
    }
    world.create(0, "net", "a", "one");
    world.until(seconds(2), "an entry", |world| world.all_see("net", &["a"]));
    for machine in &world.machines {
        assert!(machine.gossip.counters().refused.is_empty());
        assert!(!machine.events.iter().any(|event| matches!(event, Event::PeerDown(_))));
    }
}

#[test]
fn two_swarms_on_one_wire_stay_apart() {
    let mut world = World::new(6);
    for byte in [1, 2] {
        world.keys = vec![vec![byte; 16]];
        world.start(&["net"]);
        let number = world.start(&["net"]);
        world.join(number, number - 1);
    }
    world.run(seconds(5));
    // Each tries to join the other.
    world.join(1, 2);
    world.join(3, 0);
    world.create(0, "net", "a", "");
    world.create(2, "net", "b", "");
    world.run(seconds(120));
    for node in 0..4 {
        assert_eq!(world.machines[node].gossip.peers().len(), 1);
        assert!(world.sees(node, "net", if node < 2 { &["a"] } else { &["b"] }));
    }
    assert!(world.machines[2].gossip.counters().refused.values().sum::<u64>() > 0);
}

#[test]
fn members_that_come_one_after_another_soon_know_all_entries() {
    let keys = ["a", "b", "c", "d", "e"];
    let mut worst = Duration::ZERO;
    for seed in 100..150 {
        let mut world = World::new(seed);
        for (node, key) in keys.iter().enumerate() {
            assert_eq!(world.start(&[]), node);
            if node > 0 {
                world.join(node, 0);
            }
            let wait = world.rng.below(200);
            world.run(Duration::from_millis(wait));
            world.act(node, |gossip, now| gossip.join_network(now, "net")).expect("joined");
            world.create(node, "net", key, "one");
            let wait = world.rng.below(300);
            world.run(Duration::from_millis(wait));
        }
        let took = world.until(seconds(60), "all entries", |world| world.all_see("net", &keys));
        worst = worst.max(took);
    }
    println!("five members know all entries after {worst:?} at the latest");
    assert!(worst < seconds(1), "{worst:?}");
}

#[test]
fn a_member_that_comes_late_has_heard_when_it_knows_all_entries() {
    let mut worst = Duration::ZERO;
    for seed in 1000..1050 {
        let mut world = World::cluster(seed, 3, &["net"]);
        world.until(seconds(3), "all know all", World::all_know_all);
        world.create(0, "net", "a", "one");
        world.create(1, "net", "b", "two");
        world.run(seconds(60));
        world.loss = 50;
        let late = world.start(&["net"]);
        assert!(world.machines[late].gossip.has_heard("net"), "there is nobody to ask");
        world.join(late, 0);
        assert!(!world.machines[late].gossip.has_heard("net"), "there is somebody now");
        let heard = |world: &World| world.machines[late].gossip.has_heard("net");
        let took = world.until(seconds(60), "it has heard", heard);
        assert!(world.sees(late, "net", &["a", "b"]));
        worst = worst.max(took);
    }
    println!("a late member has heard after {worst:?} at the latest");
    assert!(worst < seconds(2), "{worst:?}");
}
