//! A simulated cluster of any size with a split down the middle: how long it takes to agree, and what members send.
//!
//!     cargo run --release -p gossip --example cluster -- [members] [seed]

#[path = "../tests/cluster/world.rs"]
#[allow(dead_code)]
mod world;

use std::time::{Duration, Instant};

use world::World;

const SECOND: Duration = Duration::from_secs(1);

#[allow(clippy::disallowed_methods, reason = "it says how long the real computer takes, too")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let count: usize = arguments.next().unwrap_or(2000) as usize;
    let seed: u64 = arguments.next().unwrap_or(1);
    let begun = Instant::now();
    let say = |world: &World, what: &str| {
        println!("{:>7.1} s (virtual {:>6.1}): {what}", begun.elapsed().as_secs_f64(), world.now.as_secs_f64());
    };
    let mut world = if count > 500 {
        World::settled(seed, count, &["net"])
    } else {
        let mut world = World::new(seed);
        // It costs most of the time and changes no decision.
        world.compression = false;
        world.grow(count, &["net"]);
        world
    };
    world.loss = 20;
    let took = world.until(SECOND * 300, "all know all", World::all_know_all);
    say(&world, &format!("{count} members with 2 % loss know one another after {took:?}"));
    let took = world.until(SECOND * 300, "all are in", |world| world.all_in("net"));
    say(&world, &format!("and that all are in the network after another {took:?}"));
    world.run(SECOND * 60);
    let (packets, streams) = world.measure(SECOND * 60);
    say(&world, &format!("idle, a member sends {packets} B/s in packets and {streams} B/s by streams"));
    world.create(1, "net", "a", &"v".repeat(150));
    let took = world.until(SECOND * 60, "a change", |world| world.all_see("net", &["a"]));
    say(&world, &format!("a change is everywhere after {took:?}"));
    world.machines[count - 1].down = true;
    let took = world.until(SECOND * 240, "a death", World::all_know_all);
    say(&world, &format!("a member that vanished is gone everywhere after {took:?}"));
    for node in 0..count {
        world.sides[node] = (node % 2) as u8;
    }
    world.run(SECOND * 120);
    world.delete(1, "net", "a");
    world.create(0, "net", "b", "");
    world.run(SECOND * 60);
    world.sides.fill(0);
    let took = world.until(SECOND * 600, "healed", |world| world.all_see("net", &["b"]) && world.all_know_all());
    say(&world, &format!("a split of 3 minutes down the middle has healed after {took:?}"));
    let (packets, streams) = world.measure(SECOND * 60);
    say(
        &world,
        &format!("in the minute after it a member sends {packets} B/s in packets and {streams} B/s by streams"),
    );
}
