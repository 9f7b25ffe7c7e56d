//! Pings, questions and notes of the user's.

use std::time::Duration;

use gossip::{AsideId, Event, Presence, Via, limits};

use crate::seconds;
use crate::world::World;

/// Two members with a key that know each other.
fn pair(seed: u64) -> World {
    let mut world = World::new(seed);
    world.keys = vec![vec![1; 16]];
    world.grow(2, &["net"]);
    world.until(seconds(3), "they know each other", World::all_know_all);
    world
}

/// How a ping ended, once it has.
fn probed(world: &World, node: usize, probe: AsideId) -> Option<bool> {
    world.machines[node].events.iter().find_map(|event| match event {
        Event::Probed { id, answered } if *id == probe => Some(*answered),
        _ => None,
    })
}

/// How a question ended, once it has.
fn answered(world: &World, node: usize, question: AsideId) -> Option<Option<String>> {
    world.machines[node].events.iter().find_map(|event| match event {
        Event::Answered { id, bytes } if *id == question => {
            Some(bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        }
        _ => None,
    })
}

fn notes(world: &World, node: usize) -> Vec<(Vec<u8>, usize)> {
    let notes = world.machines[node].events.iter().filter_map(|event| match event {
        Event::Noted { bytes, packet_bytes, .. } => Some((bytes.clone(), *packet_bytes)),
        _ => None,
    });
    notes.collect()
}

#[test]
fn pings_of_all_sizes_are_answered_and_lost_ones_are_told() {
    let mut world = pair(41);
    let (to, name) = (world.machines[1].address, world.machines[1].gossip.name().clone());
    let ways = [0, 100, 200, 500, 1400, 1472].map(|bytes| Via::Packet { bytes });
    for via in ways.into_iter().chain([Via::Stream]) {
        for (name, expected) in [(&*name, true), ("", true), ("another", false)] {
            world.recording = true;
            world.recorded.clear();
            let id = world.act(0, |gossip, now| gossip.probe(now, to, name, via));
            if let Via::Packet { bytes } = via {
                let sent = &world.recorded[0].2;
                assert!(sent.len() == bytes || (bytes <= 100 && sent.len() < 130), "{} for {bytes}", sent.len());
            }
            world.until(seconds(5), "its end", |world| probed(world, 0, id).is_some());
            assert_eq!(probed(&world, 0, id), Some(expected), "{via:?} {name}");
        }
    }
    world.loss = 1000;
    let id = world.act(0, |gossip, now| gossip.probe(now, to, &name, Via::Packet { bytes: 0 }));
    world.until(seconds(2), "its end", |world| probed(world, 0, id).is_some());
    assert_eq!(probed(&world, 0, id), Some(false));
    // Beyond their number they fail at once, and those before are not forgotten.
    let probe = |world: &mut World| world.act(0, |gossip, now| gossip.probe(now, to, &name, Via::Packet { bytes: 0 }));
    let ids: Vec<_> = (0..=limits::MAX_PROBES).map(|_| probe(&mut world)).collect();
    let ended = ids.iter().filter(|id| probed(&world, 0, **id).is_some()).count();
    assert_eq!(ended, 1);
    world.run(seconds(2));
    assert!(ids.iter().all(|id| probed(&world, 0, *id) == Some(false)));
}

#[test]
fn questions_are_answered_by_members_with_the_key_only() {
    let mut world = pair(42);
    let names: Vec<_> = world.machines.iter().map(|machine| machine.gossip.name().clone()).collect();
    let ask = |world: &mut World, to: &str, text: &[u8]| {
        let id = world.act(0, |gossip, now| gossip.ask(now, to, text));
        world.until(seconds(6), "its end", |world| answered(world, 0, id).is_some());
        answered(world, 0, id).expect("it was just seen")
    };
    assert_eq!(ask(&mut world, &names[1], b"how are you"), Some(format!("{} asked how are you", names[0])));
    assert_eq!(ask(&mut world, "nobody", b"?"), None);
    // Both ends of the bound; the answer is longer than the question.
    assert_eq!(ask(&mut world, &names[1], &vec![b'x'; limits::MAX_ASIDE_BYTES]), None);
    assert_eq!(ask(&mut world, &names[1], &vec![b'x'; limits::MAX_ASIDE_BYTES + 1]), None);
    assert!(ask(&mut world, &names[1], &vec![b'x'; limits::MAX_ASIDE_BYTES - 20]).is_some());
    // Packets are lost: a question goes by a stream, and from one that is taken for dead, too.
    world.loss = 1000;
    assert!(ask(&mut world, &names[1], b"still there?").is_some());
    // Another's key.
    world.act(0, |gossip, _| gossip.set_keys(&[vec![9; 16]], 0)).expect("keys");
    assert_eq!(ask(&mut world, &names[1], b"let me in"), None);
    // In the clear nothing is asked, and nothing noted.
    world.act(0, |gossip, _| gossip.set_keys(&[], 0)).expect("no keys");
    assert_eq!(ask(&mut world, &names[1], b"let me in"), None);
    world.recording = true;
    world.act(0, |gossip, now| gossip.note(now, &names[1], b"word", 100));
    assert!(world.recorded.is_empty());
}

#[test]
fn notes_arrive_with_their_size() {
    let mut world = pair(43);
    let name = world.machines[1].gossip.name().clone();
    for bytes in [0, 200, 1400, 1472] {
        world.act(0, |gossip, now| gossip.note(now, &name, b"word", bytes));
        world.run(Duration::from_millis(50));
        let (text, size) = notes(&world, 1).pop().expect("a note");
        assert_eq!(text, b"word");
        assert!(size == bytes || bytes == 0, "{size} for {bytes}");
    }
    world.act(0, |gossip, now| gossip.note(now, &name, &[0; limits::MAX_NOTE_BYTES + 1], 0));
    world.run(seconds(1));
    assert_eq!(notes(&world, 1).len(), 4);
    assert!(world.machines[1].gossip.counters().refused.is_empty());
}

#[test]
fn sums_and_members_are_told() {
    let mut world = pair(44);
    world.create(0, "net", "a", "one");
    world.run(seconds(20));
    let sum = world.machines[0].gossip.sum("net", None).expect("it is in the network");
    assert_eq!(sum.entries, 1);
    assert_eq!(world.machines[1].gossip.sum("net", Some(sum.until)), Some(sum));
    assert_eq!(world.machines[0].gossip.sum("other", None), None);
    let presence = |world: &World| world.machines[0].gossip.members().first().map(|it| it.presence);
    assert_eq!(presence(&world), Some(Presence::There));
    world.sides[1] = 1;
    world.until(seconds(60), "it has failed", |world| presence(world) == Some(Presence::Failed));
}
