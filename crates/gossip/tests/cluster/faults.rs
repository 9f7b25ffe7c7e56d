//! What breaks clusters in practice, and how long it may take until all is well.

use std::time::Duration;

use gossip::{Event, Refuted};

use super::seconds;
use super::world::{TABLE, World};

const MINUTE: Duration = seconds(60);

fn settled(seed: u64, count: usize) -> World {
    let mut world = World::cluster(seed, count, &["net"]);
    world.until(seconds(30), "all know all", World::all_know_all);
    world
}

#[test]
fn a_member_that_vanishes_is_found_out_and_its_entries_are_hidden() {
    let mut world = settled(10, 5);
    world.create(0, "net", "a", "");
    world.create(4, "net", "z", "");
    world.until(seconds(3), "entries", |world| world.all_see("net", &["a", "z"]));
    world.machines[4].down = true;
    let took = world.until(seconds(30), "hidden", |world| world.all_see("net", &["a"]));
    println!("a vanished member of 5 is found out after {took:?}");
    world.check_views();
    // It comes back within the time: its entries are there again, and what it changed is seen.
    world.run(5 * MINUTE);
    world.machines[4].down = false;
    world.act(4, |gossip, now| gossip.tick(now));
    let took = world.until(seconds(30), "back", |world| world.all_see("net", &["a", "z"]) && world.all_know_all());
    println!("and seen again after {took:?}");
    world.check_views();
}

#[test]
fn a_member_started_anew_at_its_address_replaces_the_old_one_at_once() {
    let mut world = settled(11, 4);
    world.create(3, "net", "old", "");
    world.until(seconds(3), "the entry", |world| world.all_see("net", &["old"]));
    world.machines[3].down = true;
    let address = world.machines[3].address;
    let number = world.start_at(address, &["net"]);
    world.join(number, 0);
    world.create(number, "net", "new", "");
    let took = world.until(seconds(5), "replaced", |world| world.all_see("net", &["new"]) && world.all_know_all());
    println!("a restarted member has replaced the old one after {took:?}");
    // Nobody's late gossip brings the old name back, or takes the new one away.
    for _ in 0..30 {
        world.run(seconds(10));
        assert!(world.all_see("net", &["new"]) && world.all_know_all());
    }
    world.check_views();
}

#[test]
fn a_split_heals_and_deletions_made_meanwhile_hold() {
    for (seed, minutes) in [(12, 1), (13, 10), (14, 26), (15, 29), (16, 31), (17, 45)] {
        let mut world = settled(seed, 6);
        for (node, key) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
            world.create(node, "net", key, "");
        }
        world.until(seconds(5), "entries", |world| world.all_see("net", &["a", "b", "c", "d", "e", "f"]));
        world.sides = vec![0, 0, 0, 1, 1, 1];
        // Before any side has noticed, and long after.
        world.delete(0, "net", "a");
        world.run(MINUTE);
        assert!(world.sees(1, "net", &["b", "c"]) && world.sees(4, "net", &["d", "e", "f"]), "{minutes} min");
        world.delete(5, "net", "f");
        world.create(5, "net", "g", "");
        world.run(MINUTE * (minutes - 1));
        world.sides = vec![0; 6];
        let healed = |world: &World| world.all_know_all() && world.all_see("net", &["b", "c", "d", "e", "g"]);
        let took = world.until(MINUTE, "healed", healed);
        println!("a split of {minutes} min has healed after {took:?}");
        for _ in 0..60 {
            world.run(MINUTE);
            assert!(healed(&world), "{minutes} min, then {:?}", world.now);
        }
        world.check_views();
    }
}

#[test]
fn heavy_loss_delays_but_does_not_keep_members_apart() {
    for seed in [20, 21] {
        let mut world = World::new(seed);
        world.loss = 250;
        world.grow(20, &["net"]);
        world.until(seconds(120), "all know all", World::all_know_all);
        let keys: Vec<String> = (10..30).map(|number| number.to_string()).collect();
        for (node, key) in keys.iter().enumerate() {
            world.create(node, "net", key, "value");
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let took = world.until(MINUTE, "entries", |world| world.all_see("net", &keys));
        println!("20 entries of 20 members at 25 % loss: {took:?}");
        world.delete(7, "net", "17");
        let keys: Vec<&str> = keys.into_iter().filter(|key| *key != "17").collect();
        let took = world.until(MINUTE, "the deletion", |world| world.all_see("net", &keys));
        println!("a deletion at 25 % loss: {took:?}");
        world.check_views();
    }
}

/// All packets of a time, sent again when the tombstones are gone: each is sealed with a right key, so only the owners
/// can say that they are old.
#[test]
fn replayed_packets_bring_nothing_back() {
    let mut world = World::new(30);
    world.keys = vec![vec![7; 16]];
    world.grow(4, &["net"]);
    world.until(seconds(10), "all know all", World::all_know_all);
    world.recording = true;
    world.create(1, "net", "gone", "value");
    world.create(2, "net", "stays", "value");
    world.act(3, |gossip, now| gossip.join_network(now, "other")).expect("joined");
    world.run(seconds(30));
    world.recording = false;
    world.delete(1, "net", "gone");
    world.act(3, |gossip, now| gossip.leave_network(now, "other")).expect("left");
    world.run(32 * MINUTE);
    assert!(world.all_see("net", &["stays"]));
    for (from, to, bytes) in std::mem::take(&mut world.recorded) {
        world.deliver(to, from, &bytes);
    }
    assert!(!world.all_see("net", &["stays"]), "the replay is taken for real at first");
    let took = world.until(seconds(15), "refuted", |world| world.all_see("net", &["stays"]));
    println!("a replayed entry was contradicted everywhere after {took:?}");
    assert!(world.machines[1].events.contains(&Event::Refuted(Refuted::Entry)));
    assert!(world.machines[3].events.contains(&Event::Refuted(Refuted::Network)));
    world.run(40 * MINUTE);
    assert!(world.all_see("net", &["stays"]) && world.all_know_all());
    world.check_views();
}

/// A member that hears no gossip about tables, only its own probes: the digest finds it before the regular bulk sync would.
#[test]
fn what_gossip_missed_is_found_by_digests_and_repaired() {
    let mut world = settled(40, 6);
    let keys: Vec<String> = (10..40).map(|number| number.to_string()).collect();
    let refs: Vec<&str> = keys.iter().map(String::as_str).collect();
    for key in &keys {
        world.create(0, "net", key, "value");
    }
    world.until(seconds(10), "entries", |world| world.all_see("net", &refs));
    let mut worst = Duration::ZERO;
    let mut found = 0;
    for round in 0..20 {
        let key = format!("{}", 50 + round);
        let count =
            |world: &World| -> u64 { world.machines.iter().map(|machine| machine.gossip.counters().divergences).sum() };
        let before = count(&world);
        // Cut off alone for so short a time that nobody notices, but longer than gossip repeats itself.
        world.sides[5] = 1;
        world.create(0, "net", &key, "value");
        world.run(seconds(4));
        world.sides[5] = 0;
        let sees = |world: &World| world.machines[5].gossip.entries("net", TABLE).any(|(it, _)| **it == *key);
        worst = worst.max(world.until(seconds(40), "repaired", sees));
        found += count(&world) - before;
        world.run(seconds(60));
    }
    println!("missed entries arrived after {worst:?} at the latest, {found} divergences were found");
    assert!(found > 0, "digests found none");
    assert!(worst < seconds(31));
    assert!(world.all_agree("net"));
    // Where nothing is missed, digests find nothing.
    let count =
        |world: &World| -> u64 { world.machines.iter().map(|machine| machine.gossip.counters().divergences).sum() };
    let before = count(&world);
    for number in 0..100 {
        world.create(1, "net", &format!("quiet-{number}"), "value");
        world.run(seconds(3));
    }
    assert_eq!(count(&world), before);
    world.check_views();
}

#[test]
fn wrong_words_about_a_member_are_contradicted() {
    let mut world = World::new(50);
    world.keys = vec![vec![7; 16]];
    world.grow(4, &["net"]);
    world.create(2, "net", "a", "");
    world.until(seconds(10), "entries", |world| world.all_see("net", &["a"]));
    // The words of a leave, recorded and played to the others while the member does not hear them itself.
    world.recording = true;
    let before = world.now;
    world.act(2, |gossip, now| gossip.leave_network(now, "net")).expect("left");
    world.run(seconds(3));
    world.recording = false;
    world.act(2, |gossip, now| gossip.join_network(now, "net")).expect("joined");
    world.create(2, "net", "b", "");
    world.until(seconds(5), "back", |world| world.all_see("net", &["b"]));
    for (from, to, bytes) in std::mem::take(&mut world.recorded) {
        world.deliver(to, from, &bytes);
    }
    world.until(seconds(30), "still there", |world| world.all_see("net", &["b"]));
    assert!(world.now > before);
    world.check_views();
}

#[test]
fn a_one_way_cut_leaves_nothing_stale() {
    let mut world = settled(60, 8);
    for node in 0..8 {
        world.create(node, "net", &format!("k{node}"), "");
    }
    world.run(seconds(5));
    // Machines come and go for ten minutes with 15 % loss.
    world.loss = 150;
    for round in 0..60 {
        let node = (round * 3) % 7 + 1;
        world.sides[node] = 1 - world.sides[node].min(1);
        let deletes = format!("k{node}");
        let _ = world.act(node, |gossip, now| gossip.delete(now, "net", (TABLE, &deletes)));
        let _ = world.act(node, |gossip, now| gossip.create(now, "net", (TABLE, &format!("n{round:02}")), b""));
        world.run(seconds(10));
    }
    world.loss = 0;
    world.sides = vec![0; 8];
    let took = world.until(2 * MINUTE, "converged", |world| world.all_know_all() && world.all_agree("net"));
    println!("after ten minutes of cuts all agree after {took:?}");
    // Exactly what the owners have.
    for node in 0..8 {
        let name = world.machines[node].gossip.name().clone();
        let own = |of: usize| -> Vec<_> {
            let entries = world.machines[of].gossip.entries("net", TABLE);
            entries.filter(|(_, entry)| entry.owner == name).map(|(key, _)| key.clone()).collect()
        };
        for other in 0..8 {
            assert_eq!(own(other), own(node), "of {node} at {other}");
        }
    }
    world.check_views();
}
