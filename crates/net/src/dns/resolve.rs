//! What a sandbox's name server knows itself, and what it asks others. Pure.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::message::{Query, Record, Transport, class, code, kind, reversed_address};
use super::names::{Family, Table};
use crate::DnsNetwork;

/// The networks of one sandbox, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) networks: Vec<DnsNetwork>,
    /// The host's or the user's options have `ndots`: whoever asks for a name without dots will try it with each search
    /// domain, so it is not asked elsewhere as it stands.
    pub(super) has_ndots: bool,
}

/// What is to be done about a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Answer(Vec<u8>),
    Forward,
}

/// Decides what a query is answered with.
pub(super) fn decide(query: &Query, transport: Transport, scope: &Scope, table: &Table, order: &Shuffle) -> Decision {
    let Some(name) = query.name.as_deref().filter(|_| matches!(query.class, class::IN | class::ANY)) else {
        return Decision::Forward;
    };
    let family = if query.kind == kind::AAAA { Family::V6 } else { Family::V4 };
    if let Some(addresses) = scope.addresses(table, name, family) {
        // What nobody else can know, nobody else is asked: a "no such name" for another type would be believed of the
        // name itself (RFC 8020). MX is empty so that mail falls back to the address (RFC 5321, 5.1).
        let mut addresses = if matches!(query.kind, kind::A | kind::AAAA) { addresses } else { Vec::new() };
        order.shuffle(&mut addresses);
        let records: Vec<_> = addresses.into_iter().map(Record::Address).collect();
        return Decision::Answer(query.answer_with(&records, transport));
    }
    if query.kind == kind::PTR
        && let Some(address) = reversed_address(name)
        && let Some(record) = scope.name_of(table, address).as_deref().and_then(Record::pointer)
    {
        return Decision::Answer(query.answer_with(&[record], transport));
    }
    if matches!(query.kind, kind::A | kind::AAAA) && scope.has_ndots && !name.contains('.') {
        return Decision::Answer(query.empty_answer(code::NO_ERROR));
    }
    Decision::Forward
}

impl Scope {
    /// Looks a name up: `a.b.c` is `a.b.c` on any network, `a.b` on network `c`, or `a` on network `b.c`.
    fn addresses(&self, table: &Table, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        let splits = name.rmatch_indices('.').map(|(dot, _)| (&name[..dot], Some(&name[dot + 1..])));
        [(name, None)].into_iter().chain(splits).find_map(|(name, network)| {
            let networks = || self.networks.iter().filter(move |own| network.is_none_or(|wanted| own.is_named(wanted)));
            let aliased = networks().find_map(|network| {
                let meant = network.alias(name)?;
                table.addresses(&network.id, &meant.to_ascii_lowercase(), family)
            });
            // an alias hides the name from its own network
            let plain = || networks().filter(|network| network.alias(name).is_none());
            aliased.or_else(|| plain().find_map(|network| table.addresses(&network.id, name, family)))
        })
    }

    fn name_of(&self, table: &Table, address: IpAddr) -> Option<String> {
        self.networks.iter().find_map(|network| {
            let name = table.name_of(&network.id, address)?;
            Some(format!("{name}.{}", network.name))
        })
    }
}

impl DnsNetwork {
    fn is_named(&self, wanted: &str) -> bool {
        self.name.eq_ignore_ascii_case(wanted)
    }

    fn alias(&self, name: &str) -> Option<&str> {
        self.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, meant)| meant.as_str())
    }
}

/// An order of answers that nobody can rely on, the same for the same seed (SplitMix64).
#[derive(Debug)]
pub(super) struct Shuffle(AtomicU64);

impl Shuffle {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let choices = last as u64 + 1;
            // the bias of the remainder is below 2^-32 for any list that fits into a message
            items.swap(last, (self.next() % choices) as usize);
        }
    }
}

#[cfg(test)]
mod tests;
