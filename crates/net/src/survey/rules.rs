//! Reads the firewall's rules from the kernel into `doctor`'s words. Tables of our own are left out, and what other rules do
//! not look at: on the way of a swarm's packets are filter chains and the sets that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use doctor::firewall::{Base, Chain, Compare, Element, Family, Hook, Load, Rule, Ruleset, Set, Step, Verdict};

use super::matches;
use crate::netlink::{DUMP, REQUEST, Reply, Writer, attribute, attributes};
use crate::nft::{HEAD_BYTES, Head, Socket, begin};

const GET_CHAINS: u16 = (10 << 8) | 4;
const GET_RULES: u16 = (10 << 8) | 7;
const GET_SETS: u16 = (10 << 8) | 10;
const GET_ELEMENTS: u16 = (10 << 8) | 13;
/// Rules and sets that are looked at; elements of one set.
const MAX_RULES: usize = 100_000;
const MAX_SETS: usize = 1024;
const MAX_ELEMENTS: usize = 65_536;
/// Flags of sets and elements.
const INTERVAL: u32 = 4;
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;

/// Reads all rules but those of our own tables.
pub(super) fn read(own: &[String]) -> io::Result<Ruleset> {
    let mut socket = Socket::open()?;
    let mut chains = Vec::new();
    for reply in dump(&mut socket, GET_CHAINS, |_| {})? {
        chains.extend(chain(&reply).filter(|chain| !own.contains(&chain.table)));
    }
    let places = chains.iter().enumerate().map(|(at, it)| ((it.family, it.table.clone(), it.name.clone()), at));
    let places: BTreeMap<_, _> = places.collect();
    if !places.is_empty() {
        let replies = dump(&mut socket, GET_RULES, |_| {})?;
        if replies.len() > MAX_RULES {
            return Err(io::Error::other(format!("there are more than {MAX_RULES} rules")));
        }
        for (key, rule) in replies.iter().filter_map(rule) {
            if let Some(at) = places.get(&key) {
                chains[*at].rules.push(rule);
            }
        }
    }
    let sets = sets(&mut socket, &chains)?;
    Ok(Ruleset { chains, sets })
}

fn dump(socket: &mut Socket, kind: u16, fill: impl FnOnce(&mut Writer)) -> io::Result<Vec<Reply>> {
    request(socket, kind, 0, fill)
}

fn request(socket: &mut Socket, kind: u16, family: u8, fill: impl FnOnce(&mut Writer)) -> io::Result<Vec<Reply>> {
    let mut writer = Writer::default();
    let start = begin(&mut writer, (kind, REQUEST | DUMP), 1, Head { family, resource: 0 });
    fill(&mut writer);
    writer.end(start);
    socket.request(&writer.bytes)
}

fn family(number: u8) -> Option<Family> {
    match number {
        1 => Some(Family::Inet),
        2 => Some(Family::Ip),
        10 => Some(Family::Ip6),
        _ => None,
    }
}

fn number_of(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

pub(super) fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// The family of a reply, and its attributes.
fn parts(reply: &Reply) -> Option<(Family, &[u8])> {
    Some((family(*reply.body.first()?)?, reply.body.get(HEAD_BYTES..)?))
}

fn chain(reply: &Reply) -> Option<Chain> {
    let (family, attributes) = parts(reply)?;
    let base = attribute(attributes, 4).and_then(|hook| {
        let number = attribute(hook, 1).and_then(be32)?;
        let priority = attribute(hook, 2).and_then(be32)? as i32;
        let hook = match number {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            _ => return None,
        };
        let drops = attribute(attributes, 5).and_then(be32) == Some(0);
        Some(Base { hook, priority, drops })
    });
    let (table, name) = (text(attribute(attributes, 1)?), text(attribute(attributes, 3)?));
    Some(Chain { family, table, name, base, rules: Vec::new() })
}

type ChainKey = (Family, String, String);

fn rule(reply: &Reply) -> Option<(ChainKey, Rule)> {
    let (family, of_rule) = parts(reply)?;
    let key = (family, text(attribute(of_rule, 1)?), text(attribute(of_rule, 2)?));
    let handle = attribute(of_rule, 3)?.try_into().ok().map(u64::from_be_bytes)?;
    let expressions = attribute(of_rule, 4).map(attributes).unwrap_or_default();
    let steps = expressions.iter().flat_map(|(_, expression)| {
        let name = attribute(expression, 1).map(text).unwrap_or_default();
        step(&name, attribute(expression, 2).unwrap_or_default())
    });
    Some((key, Rule { handle, steps: steps.collect() }))
}

/// A register as a number of words: registers of 16 bytes are counted from 1, those of four from 8.
fn register(bytes: Option<&[u8]>) -> Option<usize> {
    match bytes.and_then(be32)? {
        long @ 0..=4 => Some(long as usize * 4),
        short @ 8..=23 => Some(short as usize - 4),
        _ => None,
    }
}

fn value(data: Option<&[u8]>) -> Option<Vec<u8>> {
    attribute(data?, 1).map(<[u8]>::to_vec)
}

fn verdict(data: &[u8]) -> Option<Verdict> {
    let code = attribute(data, 1).and_then(be32)? as i32;
    let chain = attribute(data, 2).map(text).unwrap_or_default();
    Some(match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -3 => Verdict::Jump(chain),
        -4 => Verdict::Goto(chain),
        -5 => Verdict::Return,
        _ => Verdict::Continue,
    })
}

/// What an expression does. One that is not known here may or may not go on, and leaves nothing known behind.
fn step(name: &str, data: &[u8]) -> Vec<Step> {
    let known = match name {
        "meta" => load(data, (1, 3), Load::Meta, 2),
        "ct" => load(data, (1, 4), |key| if key == 0 { Load::State } else { Load::Other }, 2),
        "payload" => payload(data),
        "cmp" => compare(data),
        "bitwise" => mask(data),
        "range" => range(data),
        "lookup" => lookup(data),
        "immediate" => immediate(data),
        "match" => matches::matched(data),
        "target" => matches::target(data),
        "reject" => Some(Step::Reject),
        "counter" | "log" | "notrack" | "dynset" | "last" | "masq" | "nat" | "redir" => Some(Step::Nothing),
        "fib" => fib(data),
        "rt" | "socket" | "osf" | "numgen" | "hash" | "exthdr" | "tunnel" | "xfrm" => {
            register(attribute(data, 1)).map(|register| Step::Load { what: Load::Other, register })
        }
        _ => None,
    };
    vec![known.unwrap_or(Step::Maybe)]
}

/// A load, or a write to a mark and the like, which changes nothing here.
fn load(data: &[u8], (into, from): (u16, u16), what: impl Fn(u32) -> Load, key: u16) -> Option<Step> {
    if attribute(data, from).is_some() {
        return Some(Step::Nothing);
    }
    let key = attribute(data, key).and_then(be32)?;
    Some(Step::Load { what: what(key), register: register(attribute(data, into))? })
}

fn payload(data: &[u8]) -> Option<Step> {
    if attribute(data, 5).is_some() {
        return Some(Step::Nothing);
    }
    let number = |kind| attribute(data, kind).and_then(be32);
    let (offset, len) = (number(3)? as usize, number(4)? as usize);
    let what = match number(2)? {
        1 => Load::Network { offset, len },
        2 => Load::Transport { offset, len },
        _ => Load::Other,
    };
    Some(Step::Load { what, register: register(attribute(data, 1))? })
}

/// The route of an address: known is the type of the destination's.
fn fib(data: &[u8]) -> Option<Step> {
    let number = |kind| attribute(data, kind).and_then(be32);
    let what = if (number(2), number(3)) == (Some(3), Some(2)) { Load::DestinationType } else { Load::Other };
    Some(Step::Load { what, register: register(attribute(data, 1))? })
}

fn compare(data: &[u8]) -> Option<Step> {
    let compare = match attribute(data, 2).and_then(be32)? {
        0 => Compare::Equal,
        1 => Compare::Unequal,
        2 => Compare::Less,
        3 => Compare::LessOrEqual,
        4 => Compare::Greater,
        5 => Compare::GreaterOrEqual,
        _ => return None,
    };
    Some(Step::Compare { register: register(attribute(data, 1))?, compare, value: value(attribute(data, 3))? })
}

fn mask(data: &[u8]) -> Option<Step> {
    let target = register(attribute(data, 2))?;
    // Shifts and the like.
    if attribute(data, 6).and_then(be32).is_some_and(|operation| operation != 0) {
        return Some(Step::Load { what: Load::Other, register: target });
    }
    let (mask, xor) = (value(attribute(data, 4))?, value(attribute(data, 5))?);
    Some(Step::Mask { source: register(attribute(data, 1))?, register: target, mask, xor })
}

fn range(data: &[u8]) -> Option<Step> {
    let inverted = attribute(data, 2).and_then(be32)? != 0;
    let (from, to) = (value(attribute(data, 3))?, value(attribute(data, 4))?);
    Some(Step::Range { register: register(attribute(data, 1))?, from, to, inverted })
}

fn lookup(data: &[u8]) -> Option<Step> {
    let register_of = register(attribute(data, 2))?;
    let inverted = attribute(data, 5).and_then(be32).is_some_and(|flags| flags & 1 != 0);
    // A map that gives a value: it may or may not have one, and the value is not known.
    if register(attribute(data, 3)).is_some_and(|into| into != 0) {
        return None;
    }
    Some(Step::Lookup { set: text(attribute(data, 1)?), register: register_of, inverted })
}

fn immediate(data: &[u8]) -> Option<Step> {
    let content = attribute(data, 2)?;
    if let Some(data) = attribute(content, 2) {
        return verdict(data).map(Step::Verdict);
    }
    let what = Load::Value(attribute(content, 1)?.to_vec());
    Some(Step::Load { what, register: register(attribute(data, 1))? })
}

type Sets = BTreeMap<(Family, String, String), Set>;

/// The sets that chains look things up in.
fn sets(socket: &mut Socket, chains: &[Chain]) -> io::Result<Sets> {
    let mut wanted: BTreeSet<(Family, String, String)> = BTreeSet::new();
    for chain in chains {
        for step in chain.rules.iter().flat_map(|rule| &rule.steps) {
            if let Step::Lookup { set, .. } = step {
                wanted.insert((chain.family, chain.table.clone(), set.clone()));
            }
        }
    }
    let mut sets = Sets::new();
    if wanted.is_empty() {
        return Ok(sets);
    }
    for reply in dump(socket, GET_SETS, |_| {})? {
        let Some((family, attributes)) = parts(&reply) else { continue };
        let (Some(table), Some(name)) = (attribute(attributes, 1), attribute(attributes, 2)) else { continue };
        let key = (family, text(table), text(name));
        if wanted.contains(&key) && sets.len() < MAX_SETS {
            let flags = attribute(attributes, 3).and_then(be32).unwrap_or(0);
            sets.insert(key, Set { is_interval: flags & INTERVAL != 0, elements: None });
        }
    }
    for ((family, table, name), set) in &mut sets {
        let replies = request(socket, GET_ELEMENTS, number_of(*family), |writer| {
            writer.text(1, table);
            writer.text(2, name);
        });
        // One that is gone by now stays unknown.
        set.elements = replies.ok().and_then(|replies| elements(&replies));
    }
    Ok(sets)
}

/// Nothing if there are too many, or if one has an element that stands for all others.
fn elements(replies: &[Reply]) -> Option<Vec<Element>> {
    let mut found = Vec::new();
    for reply in replies {
        let list =
            reply.body.get(HEAD_BYTES..).and_then(|of_set| attribute(of_set, 3)).map(attributes).unwrap_or_default();
        for (_, element) in list {
            let flags = attribute(element, 3).and_then(be32).unwrap_or(0);
            if flags & CATCH_ALL != 0 || found.len() >= MAX_ELEMENTS {
                return None;
            }
            let verdict = attribute(element, 2).and_then(|data| attribute(data, 2)).and_then(verdict);
            found.push(Element {
                key: value(attribute(element, 1))?,
                last: value(attribute(element, 10)),
                ends: flags & INTERVAL_END != 0,
                verdict,
            });
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests;
