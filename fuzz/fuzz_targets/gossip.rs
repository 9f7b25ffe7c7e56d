//! Packets and streams of anybody, with and without a layer of encryption around: nothing panics, whatever follows.

#![no_main]

use std::time::Duration;

use gossip::{Config, Framer, Gossip, Secrecy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let address = ([10, 0, 0, 1], 7946).into();
    let entropy = Box::new(stdx::Rng::new(1));
    let mut gossip =
        Gossip::new(Config::new("member-1", address), &[], 0, entropy, Duration::ZERO).expect("a configuration");
    gossip.join_network(Duration::ZERO, "net").expect("joined");
    // Several inputs in a row: what one leaves behind is met by the next.
    for part in bytes.split(|byte| *byte == 0xfe) {
        gossip.packet(Duration::from_secs(1), address, part);
        let mut framer = Framer::new(Secrecy::Clear);
        if framer.push(part) == Ok(true) {
            gossip.stream(Duration::from_secs(1), &framer.into_message());
        }
        while gossip.poll().is_some() {}
    }
    gossip.tick(Duration::from_secs(40));
    while gossip.poll().is_some() {}
});
