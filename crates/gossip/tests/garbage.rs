//! Whatever comes in, from anybody: nothing panics, nothing grows, and the cluster goes on.

use std::net::SocketAddr;
use std::time::Duration;

use gossip::{Config, Framer, Gossip, Output, Secrecy, Via, limits};
use proptest::collection::vec;
use proptest::prelude::*;
use stdx::Rng;

const KEY: [u8; 16] = [7; 16];

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], limits::PORT).into()
}

fn member(keys: &[Vec<u8>], last: u8) -> Gossip {
    let mut config = Config::new(format!("member-{last}").as_str(), address(last));
    config.compression = last == 2;
    let mut gossip =
        Gossip::new(config, keys, 0, Box::new(Rng::new(last.into())), Duration::ZERO).expect("a configuration");
    gossip.join_network(Duration::ZERO, "net").expect("joined");
    gossip.create(Duration::ZERO, "net", ("table", &format!("key-{last}")), &[last; 100]).expect("created");
    gossip
}

/// Every packet and every stream's bytes that two members exchange in some seconds.
fn traffic(keys: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut members = [member(keys, 1), member(keys, 2)];
    members[1].join(Duration::ZERO, &[address(1)]);
    let mut seen = Vec::new();
    for step in 0..400 {
        let now = Duration::from_millis(step * 100);
        for one in 0..2 {
            members[one].tick(now);
            if step == 100 {
                let other = format!("member-{}", 2 - one);
                members[one].ask(now, &other, b"how are you");
                members[one].note(now, &other, b"word", 500);
                members[one].probe(now, address(2 - one as u8), &other, Via::Packet { bytes: 500 });
            }
            while let Some(output) = members[one].poll() {
                let other = &mut members[1 - one];
                match output {
                    Output::Packet { bytes, .. } => {
                        other.packet(now, address(1 + one as u8), &bytes);
                        seen.push(bytes);
                    }
                    Output::Dial(dial) => {
                        let answer = other.stream(now, &dial.bytes).into_bytes();
                        seen.push(dial.bytes);
                        let end = match answer {
                            Some(answer) => {
                                seen.push(answer.clone());
                                gossip::DialEnd::Answered(answer)
                            }
                            None => gossip::DialEnd::Sent,
                        };
                        members[one].dial_ended(now, dial.id, end);
                    }
                    Output::Event(_) => {}
                }
            }
        }
    }
    assert!(members.iter().all(|member| member.peers().len() == 1), "they have found each other");
    seen
}

/// Takes bytes in every way that they can come, and time after it.
fn take(gossip: &mut Gossip, bytes: &[u8]) {
    let now = Duration::from_secs(1);
    gossip.packet(now, address(9), bytes);
    let mut framer = Framer::new(gossip.secrecy());
    if framer.push(bytes) == Ok(true) {
        gossip.stream(now, &framer.into_message());
    }
    gossip.stream(now, bytes);
    while gossip.poll().is_some() {}
    gossip.tick(Duration::from_secs(20));
    while gossip.poll().is_some() {}
}

/// What a packet's message could be: any kind, then anything.
fn message() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..=14, vec(any::<u8>(), 0..300)).prop_map(|(kind, mut rest)| {
        rest.insert(0, kind);
        rest
    })
}

/// Bytes that look like msgpack with the fields of memberlist's records.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "SeqNo",
        "Node",
        "Name",
        "Addr",
        "Port",
        "Meta",
        "Vsn",
        "Incarnation",
        "State",
        "From",
        "Nodes",
        "Join",
        "UserStateLen",
        "UserMsgLen",
        "Algo",
        "Buf",
        "Target",
        "SourceAddr",
        "SourcePort",
        "SourceNode",
        "Nack",
    ]);
    let value = prop_oneof![
        (0_u8..=0x7f).prop_map(|it| vec![it]),
        any::<u32>().prop_map(|it| [&[0xce][..], &it.to_be_bytes()].concat()),
        vec(any::<u8>(), 0..31).prop_map(|it| [&[0xa0 | it.len() as u8][..], &it].concat()),
        Just(b"\xa8member-1".to_vec()),
        Just(vec![0xa4, 10, 0, 0, 9]),
        Just(vec![0xa6, 1, 5, 2, 0, 0, 0]),
        Just(vec![0xc0]),
        vec(any::<u8>(), 1..4),
    ];
    let field =
        (name, value).prop_map(|(name, value)| [&[0xa0 | name.len() as u8][..], name.as_bytes(), &value].concat());
    (0_u8..=13, vec(field, 0..9)).prop_map(|(kind, fields)| {
        let mut bytes = vec![kind, 0x80 | fields.len() as u8];
        bytes.extend(fields.concat());
        bytes
    })
}

/// NetworkDB's messages with any numbers and names, some of them the member's own.
fn user_message() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec!["member-1", "member-9", "net", "table", "key-1", "skep_digest", "", "x"]);
    let field = (1_u8..=8, any::<bool>(), any::<u64>(), text, vec(any::<u8>(), 0..40)).prop_map(
        |(tag, text_not_number, number, text, bytes)| {
            let mut field = Vec::new();
            if text_not_number {
                let value = if number % 3 == 0 { &bytes[..] } else { text.as_bytes() };
                field.extend([tag << 3 | 2, value.len() as u8]);
                field.extend(value);
            } else {
                field.push(tag << 3);
                let mut rest = if number % 2 == 0 { number } else { number % 4 };
                while rest >= 0x80 {
                    field.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                field.push(rest as u8);
            }
            field
        },
    );
    (0_u8..=7, vec(field, 0..9)).prop_map(|(kind, fields)| {
        let data = fields.concat();
        let mut bytes = vec![8, 8, kind, 18];
        let mut length = data.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(data);
        bytes
    })
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), message(), record(), user_message()]
}

/// A compound message of anything.
fn compound(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![7, parts.len() as u8];
    parts.iter().for_each(|part| bytes.extend((part.len() as u16).to_be_bytes()));
    parts.iter().for_each(|part| bytes.extend(part));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn garbage_in_the_clear_does_nothing_bad(parts in vec(anything(), 1..20)) {
        let mut gossip = member(&[], 1);
        for part in &parts {
            take(&mut gossip, part);
        }
        take(&mut gossip, &compound(&parts));
        // It still has its own entry and takes commands.
        prop_assert!(gossip.entries("net", "table").any(|(key, _)| &**key == "key-1"));
        prop_assert_eq!(gossip.create(Duration::from_secs(30), "net", ("table", "after"), b""), Ok(()));
        prop_assert!(gossip.peers().len() <= 400);
    }

    #[test]
    fn bent_traffic_is_refused(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8) {
        for keys in [vec![KEY.to_vec()], vec![]] {
            let traffic = traffic_of(&keys);
            let mut bytes = traffic[which.index(traffic.len())].clone();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let mut gossip = member(&keys, 1);
            take(&mut gossip, &bytes);
            bytes.truncate(at);
            take(&mut gossip, &bytes);
            if !keys.is_empty() {
                prop_assert!(gossip.peers().is_empty());
                prop_assert!(gossip.counters().refused.values().sum::<u64>() >= 2);
            }
        }
    }

    #[test]
    fn a_framer_finds_the_same_end_however_the_bytes_are_cut(bytes in anything(), cuts in vec(1_usize..50, 1..10)) {
        for secrecy in [Secrecy::Clear, Secrecy::Sealed] {
            let mut whole = Framer::new(secrecy);
            let expected = whole.push(&bytes);
            let mut framer = Framer::new(secrecy);
            let (mut found, mut rest) = (Ok(false), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || found != Ok(false) {
                    break;
                }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                found = framer.push(part);
                rest = after;
            }
            prop_assert_eq!(&found, &expected);
            if found == Ok(true) {
                prop_assert_eq!(framer.into_message(), whole.into_message());
            }
        }
    }
}

fn traffic_of(keys: &[Vec<u8>]) -> &'static [Vec<u8>] {
    use std::sync::OnceLock;
    static SEALED: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    static CLEAR: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let cell = if keys.is_empty() { &CLEAR } else { &SEALED };
    cell.get_or_init(|| traffic(keys))
}

#[test]
fn traffic_sealed_with_another_key_is_thrown_away() {
    let mut gossip = member(&[vec![8; 16]], 1);
    let traffic = traffic_of(&[KEY.to_vec()]);
    for bytes in traffic {
        take(&mut gossip, bytes);
    }
    assert!(gossip.peers().is_empty());
    let refused: u64 = gossip.counters().refused.values().sum();
    assert!(refused >= traffic.len() as u64, "{refused}");
}

#[test]
fn a_flood_of_invented_members_and_entries_stops_at_the_limits() {
    let mut gossip = member(&[], 1);
    let now = Duration::from_secs(1);
    let alive = |number: usize| {
        let name = format!("{number:08}");
        let mut bytes = vec![4, 0x84, 0xa4];
        bytes.extend(b"Node\xa8");
        bytes.extend(name.as_bytes());
        bytes.extend(b"\xa4Addr\xa4");
        bytes.extend((number as u32).to_be_bytes());
        bytes.extend(b"\xabIncarnation\x01\xa3Vsn\xa6\x01\x05\x02\x00\x00\x00");
        bytes
    };
    for number in 0..limits::MAX_MEMBERS + 100 {
        gossip.packet(now, address(9), &alive(number));
        while gossip.poll().is_some() {}
    }
    assert_eq!(gossip.peers().len(), limits::MAX_MEMBERS - 1);
    assert_eq!(gossip.counters().over_limit, 101);
}
