//! What grows with the cluster and what must not.

use std::time::Duration;

use super::seconds;
use super::world::World;

/// How long a change takes to be everywhere, and what members send per second: idle, and with one change a second.
struct Figures {
    converged: Duration,
    change: Duration,
    idle: (u64, u64),
    busy: (u64, u64),
}

fn figures(count: usize, span: Duration) -> Figures {
    let mut world = World::new(count as u64);
    world.compression = count <= 100;
    world.grow(count, &["net"]);
    let converged = world.until(seconds(180), "all know all", World::all_know_all);
    world.run(seconds(40));
    world.create(1, "net", "000", "value");
    let change = world.until(seconds(20), "a change", |world| world.all_see("net", &["000"]));
    world.run(seconds(20));
    let idle = world.measure(span);
    let before = world.bytes_sent();
    for number in 0..span.as_secs() {
        world.create((number as usize * 7) % count, "net", &format!("{:03}", number + 1), &"v".repeat(150));
        world.run(seconds(1));
    }
    let after = world.bytes_sent();
    let per = |bytes: u64| bytes / span.as_secs() / count as u64;
    let busy = (per(after.0 - before.0), per(after.1 - before.1));
    world.check_views();
    Figures { converged, change, idle, busy }
}

fn print(count: usize, figures: &Figures) {
    let Figures { converged, change, idle, busy } = figures;
    println!(
        "{count} members: all known {converged:?}, a change everywhere {change:?}, B/s each: idle {} + {} by streams, \
         one change/s {} + {}",
        idle.0, idle.1, busy.0, busy.1
    );
}

#[test]
fn traffic_per_member_does_not_grow_from_3_to_100() {
    let (three, hundred) = (figures(3, seconds(60)), figures(100, seconds(60)));
    print(3, &three);
    print(100, &hundred);
    assert!(hundred.converged < seconds(30) && hundred.change < seconds(5));
    assert!(hundred.idle.0 < 2 * three.idle.0 && hundred.idle.0 + hundred.idle.1 < 1500);
}

/// The cluster has known itself for long; that it comes to be is shown with fewer; the example
/// `cluster` splits and heals it, too.
#[test]
fn two_thousand_members_share_changes_and_lose_one_at_the_same_cost_each() {
    const COUNT: usize = 2000;
    let mut world = World::settled(7, COUNT, &["net"]);
    world.loss = 20;
    assert!(world.all_know_all() && world.all_in("net"));
    let (packets, streams) = world.measure(seconds(10));
    println!("{COUNT} members, idle: {packets} B/s each, and {streams} by streams");
    assert!(packets + streams < 1500, "{packets} + {streams}");
    world.create(1, "net", "a", "value");
    let took = world.until(seconds(5), "a change", |world| world.all_see("net", &["a"]));
    println!("a change is everywhere after {took:?}");
    world.machines[1].down = true;
    let took = world.until(seconds(60), "a death", |world| world.all_see("net", &[]));
    println!("the entry of a member that vanished is gone everywhere after {took:?}");
    world.check_views();
}
