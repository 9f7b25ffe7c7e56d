//! XFRM's messages, for the part of it that is needed: structures of `linux/xfrm.h`, byte by byte.

use std::net::Ipv4Addr;

use super::plan::{Action, LOCK_PRIORITY, MARK, REQUEST_ID, Selector, State, StateId, Step, WORN_PACKETS, Way};
use crate::netlink::{ACK, CREATE, DUMP, REQUEST, Writer, attribute};

const NEW_STATE: u16 = 0x10;
const DELETE_STATE: u16 = 0x11;
const GET_STATE: u16 = 0x12;
const NEW_POLICY: u16 = 0x13;
const DELETE_POLICY: u16 = 0x14;
const GET_POLICY: u16 = 0x15;
const EXPIRE: u16 = 0x18;
const UPDATE_POLICY: u16 = 0x19;
const FLUSH_STATES: u16 = 0x1c;
const FLUSH_POLICIES: u16 = 0x1d;
/// Types of messages after which something of ours may be gone or worn.
pub(super) const ALARMING: &[u16] = &[DELETE_STATE, DELETE_POLICY, EXPIRE, FLUSH_STATES, FLUSH_POLICIES];
/// Groups that are told of them: expiries, states, policies.
pub(super) const GROUPS: &[u32] = &[2, 3, 4];

const TEMPLATES: u16 = 5;
const AEAD: u16 = 18;
const POLICY_MARK: u16 = 21;
const SET_MARK: u16 = 29;
const SET_MARK_MASK: u16 = 30;

const ESP: u8 = 50;
const UDP: u8 = 17;
const INET: u16 = libc::AF_INET as u16;
const TRANSPORT_MODE: u8 = 0;
const ALGORITHM: &[u8] = b"rfc4106(gcm(aes))";
/// Bits of the check value, dockerd's.
const CHECK_BITS: u32 = 64;
const NO_LIMIT: u64 = u64::MAX;
const DIRECTION_IN: u8 = 0;
const DIRECTION_OUT: u8 = 1;
const BLOCK: u8 = 1;

/// Sizes of the kernel's structures.
const STATE_BYTES: usize = 224;
const STATE_ID_BYTES: usize = 24;
const POLICY_BYTES: usize = 168;
const POLICY_ID_BYTES: usize = 64;
const TEMPLATE_BYTES: usize = 64;
/// Where their parts are.
mod at {
    /// `xfrm_usersa_info`: selector, id, source, limits, counters, …
    pub(super) const ID: usize = 56;
    pub(super) const SOURCE: usize = 80;
    pub(super) const LIMITS: usize = 96;
    pub(super) const PACKETS: usize = 168;
    pub(super) const REQUEST_ID: usize = 208;
    pub(super) const FAMILY: usize = 212;
    pub(super) const MODE: usize = 214;
    /// `xfrm_id`.
    pub(super) const SPI: usize = 16;
    pub(super) const PROTOCOL: usize = 20;
    /// `xfrm_lifetime_cfg`.
    pub(super) const SOFT_PACKETS: usize = 16;
    /// `xfrm_selector`: destination, source, ports with masks, family, prefixes, protocol, link.
    pub(super) const SELECTOR_SOURCE: usize = 16;
    pub(super) const SELECTOR_PORTS: usize = 32;
    pub(super) const SELECTOR_FAMILY: usize = 40;
    pub(super) const SELECTOR_PREFIXES: usize = 42;
    pub(super) const SELECTOR_PROTOCOL: usize = 44;
    pub(super) const SELECTOR_LINK: usize = 48;
    /// `xfrm_userpolicy_info`.
    pub(super) const POLICY_LIMITS: usize = 56;
    pub(super) const PRIORITY: usize = 152;
    pub(super) const DIRECTION: usize = 160;
    pub(super) const ACTION: usize = 161;
    /// `xfrm_userpolicy_id`.
    pub(super) const ID_DIRECTION: usize = 60;
    /// `xfrm_user_tmpl`.
    pub(super) const TEMPLATE_FAMILY: usize = 24;
    pub(super) const TEMPLATE_SOURCE: usize = 28;
    pub(super) const TEMPLATE_REQUEST_ID: usize = 44;
    pub(super) const TEMPLATE_ALGORITHMS: usize = 52;
}

/// A structure under construction.
struct Fields(Vec<u8>);

impl Fields {
    fn new(len: usize) -> Self {
        Self(vec![0; len])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn limits(&mut self, at: usize, soft_packets: u64) {
        for (index, limit) in [NO_LIMIT, NO_LIMIT, soft_packets, NO_LIMIT].into_iter().enumerate() {
            self.put(at + 8 * index, &limit.to_ne_bytes());
        }
    }

    fn selector(&mut self, selector: &Selector) {
        let any = Ipv4Addr::UNSPECIFIED;
        let (source, destination) = selector.addresses.unwrap_or((any, any));
        self.put(0, &destination.octets());
        self.put(at::SELECTOR_SOURCE, &source.octets());
        for (index, port) in [selector.destination_port, selector.source_port].into_iter().enumerate() {
            let mask = if port == 0 { 0 } else { u16::MAX };
            self.put(at::SELECTOR_PORTS + 4 * index, &port.to_be_bytes());
            self.put(at::SELECTOR_PORTS + 4 * index + 2, &mask.to_be_bytes());
        }
        let prefix = if selector.addresses.is_some() { 32 } else { 0 };
        self.put(at::SELECTOR_FAMILY, &INET.to_ne_bytes());
        self.put(at::SELECTOR_PREFIXES, &[prefix, prefix]);
        self.put(at::SELECTOR_PROTOCOL, &[UDP]);
        self.put(at::SELECTOR_LINK, &selector.link.to_ne_bytes());
    }
}

fn message(kind: u16, flags: u16, fields: &Fields, attributes: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    let start = writer.begin(kind, REQUEST | flags, 1);
    writer.bytes.extend_from_slice(&fields.0);
    attributes(&mut writer);
    writer.end(start);
    writer.bytes
}

/// The request that takes a step.
pub(super) fn encode(step: &Step) -> Vec<u8> {
    match step {
        Step::AddState(id, state) => add_state(id, state),
        Step::RemoveState(id) => message(DELETE_STATE, ACK, &state_id(id), |_| {}),
        Step::SetPolicy(selector, action) => set_policy(selector, *action),
        Step::RemovePolicy(selector) => {
            let mut fields = Fields::new(POLICY_ID_BYTES);
            fields.selector(selector);
            fields.put(at::ID_DIRECTION, &[direction(selector)]);
            message(DELETE_POLICY, ACK, &fields, |w| write_mark(w, selector))
        }
    }
}

fn add_state(id: &StateId, state: &State) -> Vec<u8> {
    let mut fields = Fields::new(STATE_BYTES);
    fields.put(at::ID, &id.destination.octets());
    fields.put(at::ID + at::SPI, &id.spi.to_be_bytes());
    fields.put(at::ID + at::PROTOCOL, &[ESP]);
    fields.put(at::SOURCE, &id.source.octets());
    fields.limits(at::LIMITS, if state.way == Way::Out { WORN_PACKETS } else { NO_LIMIT });
    fields.put(at::REQUEST_ID, &REQUEST_ID.to_ne_bytes());
    fields.put(at::FAMILY, &INET.to_ne_bytes());
    fields.put(at::MODE, &[TRANSPORT_MODE]);
    message(NEW_STATE, ACK | CREATE, &fields, |w| {
        let mut aead = [0; 64].to_vec();
        aead[..ALGORITHM.len()].copy_from_slice(ALGORITHM);
        aead.extend_from_slice(&(8 * state.key.len() as u32).to_ne_bytes());
        aead.extend_from_slice(&CHECK_BITS.to_ne_bytes());
        aead.extend_from_slice(&state.key);
        w.bytes(AEAD, &aead);
        if state.way == Way::In {
            w.bytes(SET_MARK, &MARK.to_ne_bytes());
            w.bytes(SET_MARK_MASK, &u32::MAX.to_ne_bytes());
        }
    })
}

fn state_id(id: &StateId) -> Fields {
    let mut fields = Fields::new(STATE_ID_BYTES);
    fields.put(0, &id.destination.octets());
    fields.put(16, &id.spi.to_be_bytes());
    fields.put(20, &INET.to_ne_bytes());
    fields.put(22, &[ESP]);
    fields
}

fn set_policy(selector: &Selector, action: Action) -> Vec<u8> {
    let mut fields = Fields::new(POLICY_BYTES);
    fields.selector(selector);
    fields.limits(at::POLICY_LIMITS, NO_LIMIT);
    fields.put(at::PRIORITY, &action.priority().to_ne_bytes());
    fields.put(at::DIRECTION, &[direction(selector)]);
    if action == Action::Block {
        fields.put(at::ACTION, &[BLOCK]);
    }
    // one that is there is replaced
    message(UPDATE_POLICY, ACK, &fields, |w| {
        if let (Action::Seal(spi), Some((source, destination))) = (action, selector.addresses) {
            w.bytes(TEMPLATES, &template(spi, source, destination).0);
        }
        write_mark(w, selector);
    })
}

/// What a packet must be put into: a state of ours, or it is not sent.
fn template(spi: u32, source: Ipv4Addr, destination: Ipv4Addr) -> Fields {
    let mut fields = Fields::new(TEMPLATE_BYTES);
    fields.put(0, &destination.octets());
    fields.put(at::SPI, &spi.to_be_bytes());
    fields.put(at::PROTOCOL, &[ESP]);
    fields.put(at::TEMPLATE_FAMILY, &INET.to_ne_bytes());
    fields.put(at::TEMPLATE_SOURCE, &source.octets());
    fields.put(at::TEMPLATE_REQUEST_ID, &REQUEST_ID.to_ne_bytes());
    fields.put(at::TEMPLATE_ALGORITHMS, &[0xff; 12]);
    fields
}

fn write_mark(w: &mut Writer, selector: &Selector) {
    let (value, mask) = selector.mark;
    if mask != 0 {
        w.bytes(POLICY_MARK, &[value.to_ne_bytes(), mask.to_ne_bytes()].concat());
    }
}

fn direction(selector: &Selector) -> u8 {
    if selector.is_out { DIRECTION_OUT } else { DIRECTION_IN }
}

/// The request for all states.
pub(super) fn all_states() -> Vec<u8> {
    message(GET_STATE, DUMP, &Fields::new(0), |_| {})
}

/// The request for all policies.
pub(super) fn all_policies() -> Vec<u8> {
    message(GET_POLICY, DUMP, &Fields::new(0), |_| {})
}

/// The request for one state.
pub(super) fn state(id: &StateId) -> Vec<u8> {
    message(GET_STATE, ACK, &state_id(id), |_| {})
}

/// Whether an answer is a state that dockerd, or we, have made.
pub(super) fn has_request_id(kind: u16, body: &[u8]) -> bool {
    kind == NEW_STATE && word(body, at::REQUEST_ID) == Some(REQUEST_ID)
}

/// A state of ours. dockerd's have the same request id, but neither set marks nor end after some packets.
pub(super) fn read_state(kind: u16, body: &[u8]) -> Option<(StateId, State)> {
    if !has_request_id(kind, body) || half(body, at::FAMILY)? != INET {
        return None;
    }
    let attributes = body.get(STATE_BYTES..)?;
    let set_mark = attribute(attributes, SET_MARK).and_then(|mark| word(mark, 0));
    let way = match set_mark {
        Some(MARK) => Way::In,
        _ if long(body, at::LIMITS + at::SOFT_PACKETS)? == WORN_PACKETS => Way::Out,
        _ => return None,
    };
    let aead = attribute(attributes, AEAD)?;
    let key = aead.get(72..).and_then(|key| key.try_into().ok())?;
    let spi = u32::from_be_bytes(body.get(at::ID + at::SPI..)?.get(..4)?.try_into().ok()?);
    let id = StateId { source: address(body, at::SOURCE)?, destination: address(body, at::ID)?, spi };
    Some((id, State { way, key, packets: long(body, at::PACKETS)? }))
}

/// A policy of ours.
pub(super) fn read_policy(kind: u16, body: &[u8]) -> Option<(Selector, Action)> {
    let is_udp = body.get(at::SELECTOR_PROTOCOL) == Some(&UDP) && half(body, at::SELECTOR_FAMILY)? == INET;
    if kind != NEW_POLICY || !is_udp {
        return None;
    }
    let attributes = body.get(POLICY_BYTES..)?;
    let port = |index: usize| {
        let bytes = body.get(at::SELECTOR_PORTS + 4 * index..)?.get(..2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    let mark = attribute(attributes, POLICY_MARK);
    let mark = mark.and_then(|mark| Some((word(mark, 0)?, word(mark, 4)?))).unwrap_or_default();
    let addresses = (address(body, at::SELECTOR_SOURCE)?, address(body, 0)?);
    let selector = Selector {
        is_out: *body.get(at::DIRECTION)? == DIRECTION_OUT,
        addresses: (body.get(at::SELECTOR_PREFIXES)? == &32).then_some(addresses),
        destination_port: port(0)?,
        source_port: port(1)?,
        link: word(body, at::SELECTOR_LINK)?,
        mark,
    };
    let is_block = *body.get(at::ACTION)? == BLOCK;
    if is_block && selector.addresses.is_none() && word(body, at::PRIORITY)? == LOCK_PRIORITY {
        return Some((selector, Action::Block));
    }
    let template = attribute(attributes, TEMPLATES)?;
    // dockerd's pick by the mark, not by port and link
    let is_ours = word(template, at::TEMPLATE_REQUEST_ID)? == REQUEST_ID && selector.link != 0 && !is_block;
    let spi = u32::from_be_bytes(template.get(at::SPI..)?.get(..4)?.try_into().ok()?);
    is_ours.then_some((selector, Action::Seal(spi)))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?))
}

#[cfg(test)]
mod tests;
