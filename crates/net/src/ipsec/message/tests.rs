//! Bytes, against those that `ip xfrm` sends for the same (iproute2 6.1, x86-64), and read back.

use super::super::keys::EncryptionKey;
use super::super::plan::{MARK_BIT, Wanted, steps};
use super::*;
use crate::ipsec::{KeyRing, Path};

const HEADER_BYTES: usize = 16;
const KEY: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const ID: StateId =
    StateId { source: Ipv4Addr::new(192, 0, 2, 1), destination: Ipv4Addr::new(192, 0, 2, 2), spi: 0x36ce_3b0f };
const LOCK: Selector =
    Selector { is_out: true, addresses: None, source_port: 1023, destination_port: 0, link: 0, mark: (0, 0) };

fn key() -> EncryptionKey {
    EncryptionKey { lamport_time: 5, key: KEY }
}

fn added(way: Way) -> Step {
    Step::AddState(ID, State { way, key: key().with_salt(ID.spi), packets: 0 })
}

fn sealing() -> Selector {
    Selector { addresses: Some((ID.source, ID.destination)), destination_port: 4789, link: 1, ..LOCK }
}

/// Hex digits; `(12)` stands for that many zero bytes.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in text.split_whitespace() {
        match part.strip_prefix('(') {
            Some(zeros) => bytes.resize(bytes.len() + zeros.trim_end_matches(')').parse::<usize>().unwrap(), 0),
            None => {
                let digit = |at: usize| u8::from_str_radix(&part[at..at + 2], 16).unwrap();
                bytes.extend((0..part.len()).step_by(2).map(digit));
            }
        }
    }
    bytes
}

fn check(step: &Step, kind: u16, body: &str) {
    let message = encode(step);
    let (len, found) = (u32::from_ne_bytes(message[..4].try_into().unwrap()), half(&message, 4));
    assert_eq!((len as usize, found), (message.len(), Some(kind)), "{step:?}");
    assert_eq!(message[HEADER_BYTES..], bytes(body), "{step:?}");
}

const AEAD_BYTES: &str = "60001200 726663343130362867636d286165732929 (47) a0000000 40000000 \
                          0102030405060708090a0b0c0d0e0f10 36ce3b0f";

#[test]
fn states_are_as_ip_xfrm_makes_them() {
    let head = "(56) c0000202 (12) 36ce3b0f 32000000 c0000201 (12) ffffffffffffffff ffffffffffffffff";
    let tail = "ffffffffffffffff (80) e3c4d000 0200 (10)";
    check(&added(Way::Out), 0x10, &format!("{head} 0000008000000000 {tail} {AEAD_BYTES}"));
    let marks = "08001d00 e3c4d000 08001e00 ffffffff";
    check(&added(Way::In), 0x10, &format!("{head} ffffffffffffffff {tail} {AEAD_BYTES} {marks}"));
    check(&Step::RemoveState(ID), 0x11, "c0000202 (12) 36ce3b0f 0200 3200");
}

#[test]
fn policies_are_as_ip_xfrm_makes_them() {
    let limits = "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff (64)";
    let seal = format!(
        "c0000202 (12) c0000201 (12) 12b5ffff 03ffffff 0200 2020 11000000 01000000 (4) {limits} \
         01000000 (4) 01000000 (4) \
         44000500 c0000202 (12) 36ce3b0f 32000000 02000000 c0000201 (12) e3c4d000 (4) ffffffffffffffffffffffff"
    );
    check(&Step::SetPolicy(sealing(), Action::Seal(ID.spi)), 0x19, &seal);
    let lock = format!("(32) 00000000 03ffffff 0200 0000 11000000 (8) {limits} c4d00000 (4) 01010000 (4)");
    check(&Step::SetPolicy(LOCK, Action::Block), 0x19, &lock);
    let marked = Selector { is_out: false, source_port: 0, destination_port: 1023, mark: (0, MARK_BIT), ..LOCK };
    let text = "(32) 03ffffff 00000000 0200 0000 11000000 (8)";
    let mark = "0c001500 00000000 00008000";
    let lock = format!("{text} {limits} c4d00000 (4) 00010000 (4) {mark}");
    check(&Step::SetPolicy(marked, Action::Block), 0x19, &lock);
    check(&Step::RemovePolicy(marked), 0x14, &format!("{text} (8) {mark}"));
}

/// Sends nothing: what would be sent is what the kernel answers with.
#[test]
fn what_is_written_is_read_back() {
    let path = Path { local: ID.source, remote: ID.destination, data_port: 4789 };
    let wanted = Wanted { ports: Some((1023, [4789].into())), paths: [path].into(), void: 9 };
    let ring = KeyRing::new(vec![key(), EncryptionKey { lamport_time: 6, key: [7; 16] }]);
    let steps = steps(&Default::default(), &wanted, Some(&ring));
    assert_eq!(steps.len(), 6);
    for step in &steps {
        let message = encode(step);
        let body = &message[HEADER_BYTES..];
        match step {
            Step::AddState(id, state) => assert_eq!(read_state(NEW_STATE, body), Some((*id, state.clone()))),
            Step::SetPolicy(selector, action) => assert_eq!(read_policy(NEW_POLICY, body), Some((*selector, *action))),
            _ => panic!("{step:?}"),
        }
    }
}

#[test]
fn what_others_made_is_not_ours() {
    let state = |change: fn(&mut Vec<u8>)| {
        let mut body = encode(&added(Way::Out)).split_off(HEADER_BYTES);
        change(&mut body);
        read_state(NEW_STATE, &body)
    };
    assert!(state(|_| {}).is_some());
    // dockerd's
    assert_eq!(state(|body| body[at::LIMITS + at::SOFT_PACKETS..][..8].fill(0xff)), None);
    assert_eq!(state(|body| body[at::REQUEST_ID] ^= 1), None);
    let policy = |selector: Selector, action: Action, change: fn(&mut Vec<u8>)| {
        let mut body = encode(&Step::SetPolicy(selector, action)).split_off(HEADER_BYTES);
        change(&mut body);
        read_policy(NEW_POLICY, &body)
    };
    assert!(policy(sealing(), Action::Seal(1), |_| {}).is_some());
    let dockerds = Selector { link: 0, source_port: 0, mark: (MARK, u32::MAX), ..sealing() };
    assert_eq!(policy(dockerds, Action::Seal(1), |_| {}), None);
    assert!(policy(LOCK, Action::Block, |_| {}).is_some());
    assert_eq!(policy(LOCK, Action::Block, |body| body[at::PRIORITY] ^= 1), None);
    assert_eq!(policy(LOCK, Action::Block, |body| body[at::SELECTOR_PROTOCOL] = 6), None);
}

#[test]
fn cut_answers_are_not_read_past_their_end() {
    let state = encode(&added(Way::In)).split_off(HEADER_BYTES);
    let policy = encode(&Step::SetPolicy(sealing(), Action::Seal(1))).split_off(HEADER_BYTES);
    for len in 0..state.len() {
        assert_eq!(read_state(NEW_STATE, &state[..len]).is_some(), len >= STATE_BYTES + 96 + 8, "{len}");
    }
    for len in 0..policy.len() {
        assert_eq!(read_policy(NEW_POLICY, &policy[..len]), None, "{len}");
    }
}
