//! A packet's way through the chains.

use std::net::IpAddr;

use super::{Chain, Compare, Family, Fate, Hook, Load, Packet, Place, Rule, Ruleset, Set, Step, Verdict};

/// How deep chains may jump, as in the kernel.
const MAX_DEPTH: usize = 16;
/// Rules looked at for one packet: more than any ruleset that a machine could work with.
const MAX_RULES: usize = 200_000;
/// All registers.
const REGISTER_WORDS: usize = 20;
/// `ct state new`.
const NEW: u32 = 8;
/// `RTN_LOCAL`.
const TYPE_LOCAL: u32 = 2;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Whether something holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Truth {
    Yes,
    No,
    Unknown,
}

impl Truth {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }

    fn inverted_if(self, inverted: bool) -> Self {
        match (self, inverted) {
            (Self::Yes, true) => Self::No,
            (Self::No, true) => Self::Yes,
            (same, _) => same,
        }
    }
}

/// How a chain ended.
#[derive(Clone, Debug, Eq, PartialEq)]
enum End {
    Accept,
    Drop(Place),
    /// Nothing was decided.
    Open,
}

/// Values whose bytes are known, or not.
type Bytes = Vec<Option<u8>>;

struct Walk<'a> {
    rules: &'a Ruleset,
    packet: &'a Packet,
    /// Rules that may still be looked at.
    budget: usize,
    /// A drop that is possible; the first.
    possible: Option<Place>,
}

pub(super) fn fate(rules: &Ruleset, packet: &Packet, own: &[String]) -> Fate {
    let way: &[Hook] = match packet.hook {
        Hook::Prerouting | Hook::Input => &[Hook::Prerouting, Hook::Input],
        Hook::Forward => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
        Hook::Output | Hook::Postrouting => &[Hook::Output, Hook::Postrouting],
    };
    let mut possible = None;
    for hook in way {
        let mut here = packet.clone();
        match hook {
            Hook::Prerouting => here.output = None,
            Hook::Postrouting => here.input = None,
            _ => {}
        }
        match pass(rules, &here, *hook, own) {
            Fate::Passes => {}
            Fate::MayDrop(place) => possible = possible.or(Some(place)),
            drops @ Fate::Drops(_) => return drops,
        }
    }
    possible.map_or(Fate::Passes, Fate::MayDrop)
}

/// The chains of one hook.
fn pass(rules: &Ruleset, packet: &Packet, hook: Hook, own: &[String]) -> Fate {
    let family = if packet.is_v6 { Family::Ip6 } else { Family::Ip };
    let mut bases: Vec<(i32, &Chain)> = Vec::new();
    for chain in &rules.chains {
        let sees = chain.family == Family::Inet || chain.family == family;
        if let Some(base) = chain.base.filter(|base| base.hook == hook)
            && sees
            && !own.contains(&chain.table)
        {
            bases.push((base.priority, chain));
        }
    }
    bases.sort_by_key(|(priority, _)| *priority);
    let mut walk = Walk { rules, packet, budget: MAX_RULES, possible: None };
    for (_, chain) in bases {
        let mut is_certain = true;
        let end = walk.chain(chain, MAX_DEPTH, &mut is_certain);
        let drops = chain.base.is_some_and(|base| base.drops);
        let dropped = match end {
            End::Drop(place) => Some(place),
            End::Open if drops => Some(walk.place(chain, None)),
            End::Open | End::Accept => None,
        };
        match dropped {
            Some(place) if is_certain => return Fate::Drops(place),
            Some(place) => walk.possible = walk.possible.or(Some(place)),
            None => {}
        }
    }
    walk.possible.map_or(Fate::Passes, Fate::MayDrop)
}

impl Walk<'_> {
    fn place(&self, chain: &Chain, handle: Option<u64>) -> Place {
        Place { family: chain.family, table: chain.table.clone(), chain: chain.name.clone(), handle }
    }

    /// Walks a chain. `is_certain` is taken away once something may have happened to the packet before.
    fn chain(&mut self, chain: &Chain, depth: usize, is_certain: &mut bool) -> End {
        let Some(depth) = depth.checked_sub(1) else { return End::Open };
        for rule in &chain.rules {
            let Some(budget) = self.budget.checked_sub(1) else {
                *is_certain = false;
                return End::Open;
            };
            self.budget = budget;
            let (truth, verdict) = self.rule(chain, rule);
            let end = match (truth, verdict) {
                (Truth::No, _) | (_, Verdict::Continue) => continue,
                (Truth::Yes, Verdict::Accept) => return End::Accept,
                (Truth::Yes, Verdict::Return) => return End::Open,
                (Truth::Yes, Verdict::Drop) => return End::Drop(self.place(chain, Some(rule.handle))),
                (Truth::Yes, Verdict::Goto(to)) => return self.jump(chain, &to, depth, is_certain),
                (Truth::Yes, Verdict::Jump(to)) => self.jump(chain, &to, depth, is_certain),
                (Truth::Unknown, Verdict::Drop) => {
                    self.possible = self.possible.take().or_else(|| Some(self.place(chain, Some(rule.handle))));
                    continue;
                }
                // It may have been let through, or have gone back.
                (Truth::Unknown, Verdict::Accept | Verdict::Return) => {
                    *is_certain = false;
                    continue;
                }
                (Truth::Unknown, Verdict::Goto(to) | Verdict::Jump(to)) => {
                    let mut uncertain = false;
                    match self.jump(chain, &to, depth, &mut uncertain) {
                        End::Drop(place) => self.possible = self.possible.take().or(Some(place)),
                        End::Accept => *is_certain = false,
                        End::Open => {}
                    }
                    continue;
                }
            };
            if end != End::Open {
                return end;
            }
        }
        End::Open
    }

    fn jump(&mut self, from: &Chain, to: &str, depth: usize, is_certain: &mut bool) -> End {
        let found = self
            .rules
            .chains
            .iter()
            .find(|chain| (chain.family, &chain.table) == (from.family, &from.table) && chain.name == to);
        match found {
            Some(chain) => self.chain(chain, depth, is_certain),
            None => End::Open,
        }
    }

    /// Whether a rule's conditions hold, and what it says then.
    fn rule(&self, chain: &Chain, rule: &Rule) -> (Truth, Verdict) {
        let mut registers: Bytes = vec![None; REGISTER_WORDS * 4];
        let mut truth = Truth::Yes;
        for step in &rule.steps {
            let holds = match step {
                Step::Load { what, register } => {
                    let value = self.load(what);
                    put(&mut registers, *register, &value);
                    continue;
                }
                Step::Mask { source, register, mask, xor } => {
                    let value = get(&registers, *source, mask.len());
                    let turn = |at: usize| xor.get(at).copied().unwrap_or(0);
                    let masked = value.iter().zip(mask).enumerate();
                    let masked: Bytes = masked
                        .map(|(at, (byte, mask))| {
                            if *mask == 0 { Some(0) } else { *byte }.map(|it| it & mask ^ turn(at))
                        })
                        .collect();
                    put(&mut registers, *register, &masked);
                    continue;
                }
                Step::Nothing => continue,
                Step::Compare { register, compare, value } => {
                    holds(*compare, &get(&registers, *register, value.len()), value)
                }
                Step::Range { register, from, to, inverted } => {
                    let value = get(&registers, *register, from.len());
                    let inside = match known(&value) {
                        Some(value) => Truth::of(*from <= value && value <= *to),
                        None => Truth::Unknown,
                    };
                    inside.inverted_if(*inverted)
                }
                Step::Lookup { set, register, inverted } => {
                    let set = self.rules.sets.get(&(chain.family, chain.table.clone(), set.clone()));
                    let (found, verdict) = set.map_or((Truth::Unknown, None), |set| lookup(set, &registers, *register));
                    if let (Truth::Yes, Some(verdict)) = (found, verdict) {
                        return (truth, verdict);
                    }
                    found.inverted_if(*inverted)
                }
                Step::ToLocal { inverted } => self.to_local().inverted_if(*inverted),
                Step::States(states) => Truth::of(states & NEW != 0),
                Step::Ports { protocol: Some(protocol), .. } if *protocol != self.packet.protocol => Truth::No,
                Step::Ports { source, destinations, inverted, .. } => {
                    let (source, destination) = self.ports(*source, destinations);
                    source.and(destination.inverted_if(*inverted))
                }
                Step::Maybe => Truth::Unknown,
                Step::Verdict(verdict) => return (truth, verdict.clone()),
                Step::Reject => return (truth, Verdict::Drop),
            };
            match holds {
                Truth::No => return (Truth::No, Verdict::Continue),
                Truth::Unknown => truth = Truth::Unknown,
                Truth::Yes => {}
            }
        }
        (truth, Verdict::Continue)
    }

    fn to_local(&self) -> Truth {
        if self.packet.hook == Hook::Input { Truth::Yes } else { Truth::Unknown }
    }

    fn ports(&self, source: (u16, u16), destinations: &[(u16, u16)]) -> (Truth, Truth) {
        let within = |port: Option<u16>, (first, last): (u16, u16)| match port {
            _ if (first, last) == (0, u16::MAX) => Truth::Yes,
            Some(port) => Truth::of((first..=last).contains(&port)),
            None => Truth::Unknown,
        };
        let found: Vec<Truth> = destinations.iter().map(|range| within(self.packet.port, *range)).collect();
        let destination = match found {
            found if found.contains(&Truth::Yes) => Truth::Yes,
            found if found.contains(&Truth::Unknown) => Truth::Unknown,
            _ => Truth::No,
        };
        (within(self.packet.source_port, source), destination)
    }

    fn load(&self, what: &Load) -> Bytes {
        let packet = self.packet;
        let all = |bytes: &[u8]| bytes.iter().map(|byte| Some(*byte)).collect::<Bytes>();
        match what {
            Load::Value(value) => all(value),
            Load::DestinationType if self.packet.hook == Hook::Input => all(&TYPE_LOCAL.to_ne_bytes()),
            Load::DestinationType => vec![None; 4],
            Load::State => all(&NEW.to_ne_bytes()),
            Load::Network { offset, len } => part(&self.network_header(), *offset, *len),
            Load::Transport { offset, len } => {
                let port = |port: Option<u16>| port.map(u16::to_be_bytes);
                let (source, to) = (port(packet.source_port), port(packet.port));
                let header: Bytes = [source, to].iter().flat_map(|it| (0..2).map(|at| it.map(|it| it[at]))).collect();
                part(&header, *offset, *len)
            }
            Load::Meta(key) => {
                let link = |link: &Option<(String, u32)>| {
                    let mut name = link.as_ref().map(|(name, _)| name.as_bytes().to_vec()).unwrap_or_default();
                    name.resize(16, 0);
                    all(&name)
                };
                let index =
                    |link: &Option<(String, u32)>| all(&link.as_ref().map_or(0, |(_, index)| *index).to_ne_bytes());
                match key {
                    1 => all(&if packet.is_v6 { 0x86dd_u16 } else { 0x0800 }.to_be_bytes()),
                    4 => index(&packet.input),
                    5 => index(&packet.output),
                    6 => link(&packet.input),
                    7 => link(&packet.output),
                    15 => all(&[if packet.is_v6 { IPV6 } else { IPV4 }]),
                    16 => all(&[packet.protocol]),
                    _ => Bytes::new(),
                }
            }
            Load::Other => Bytes::new(),
        }
    }

    /// The network header, as far as it is known.
    fn network_header(&self) -> Bytes {
        let packet = self.packet;
        let octets = |address: Option<IpAddr>| match address {
            Some(IpAddr::V4(it)) => it.octets().to_vec(),
            Some(IpAddr::V6(it)) => it.octets().to_vec(),
            None => Vec::new(),
        };
        let (mut header, addresses_at, length) = if packet.is_v6 {
            let mut header = vec![None; 40];
            header[6] = Some(packet.protocol);
            (header, 8, 16)
        } else {
            let mut header = vec![None; 20];
            (header[0], header[9]) = (Some(0x45), Some(packet.protocol));
            // It is whole: no fragment.
            (header[6], header[7]) = (Some(0x40), Some(0));
            (header, 12, 4)
        };
        for (number, address) in [packet.source, packet.destination].into_iter().enumerate() {
            let octets = octets(address);
            for at in 0..length {
                header[addresses_at + number * length + at] = octets.get(at).copied();
            }
        }
        header
    }
}

fn part(header: &Bytes, offset: usize, len: usize) -> Bytes {
    (0..len).map(|at| header.get(offset.saturating_add(at)).copied().flatten()).collect()
}

/// A value in a register fills whole words.
fn put(registers: &mut Bytes, register: usize, value: &Bytes) {
    let start = register.saturating_mul(4);
    for at in 0..value.len().next_multiple_of(4) {
        let byte = if at < value.len() { value[at] } else { Some(0) };
        if let Some(place) = registers.get_mut(start + at) {
            *place = byte;
        }
    }
    // Nothing is known of what was loaded: it must not look like what was there before.
    if value.is_empty() {
        registers.iter_mut().skip(start).take(16).for_each(|byte| *byte = None);
    }
}

fn get(registers: &Bytes, register: usize, len: usize) -> Bytes {
    part(registers, register.saturating_mul(4), len)
}

fn known(value: &Bytes) -> Option<Vec<u8>> {
    value.iter().copied().collect()
}

fn holds(compare: Compare, value: &Bytes, wanted: &[u8]) -> Truth {
    let differs = value.iter().zip(wanted).any(|(byte, wanted)| byte.is_some_and(|byte| byte != *wanted));
    let Some(value) = known(value) else {
        return match (compare, differs) {
            (Compare::Equal, true) => Truth::No,
            (Compare::Unequal, true) => Truth::Yes,
            _ => Truth::Unknown,
        };
    };
    Truth::of(match compare {
        Compare::Equal => value == wanted,
        Compare::Unequal => value != wanted,
        Compare::Less => value.as_slice() < wanted,
        Compare::LessOrEqual => value.as_slice() <= wanted,
        Compare::Greater => value.as_slice() > wanted,
        Compare::GreaterOrEqual => value.as_slice() >= wanted,
    })
}

/// Whether a set has the value in a register, and what it says of it.
fn lookup(set: &Set, registers: &Bytes, register: usize) -> (Truth, Option<Verdict>) {
    let Some(elements) = &set.elements else { return (Truth::Unknown, None) };
    if elements.is_empty() {
        return (Truth::No, None);
    }
    let length = elements.iter().map(|element| element.key.len()).max().unwrap_or(0);
    let Some(value) = known(&get(registers, register, length)) else { return (Truth::Unknown, None) };
    let found = if set.is_interval && elements.iter().all(|element| element.last.is_none()) {
        let below = elements.iter().filter(|element| element.key <= value);
        // Where one range ends another may begin: the beginning counts.
        below.max_by(|a, b| (&a.key, !a.ends).cmp(&(&b.key, !b.ends))).filter(|element| !element.ends)
    } else {
        elements.iter().find(|element| match &element.last {
            Some(last) => between(&element.key, &value, last),
            None => element.key == value,
        })
    };
    (Truth::of(found.is_some()), found.and_then(|element| element.verdict.clone()))
}

/// Whether each field of a concatenation, a word at least, is within its range.
fn between(first: &[u8], value: &[u8], last: &[u8]) -> bool {
    let words = |bytes: &[u8]| bytes.chunks(4).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let ranges = words(first).into_iter().zip(words(value)).zip(words(last));
    ranges.into_iter().all(|((first, value), last)| first <= value && value <= last)
}
