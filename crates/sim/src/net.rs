//! The net between hosts: loss, delay, duplicates, reordering, and cuts that may go one way only.

use std::collections::{BTreeMap, BTreeSet};

use stdx::Rng;

use crate::ctx::{CLIENTS, Host, MILLI, Time};

/// How long a lost packet of a connection takes to be sent again.
const RESEND: Time = 200 * MILLI;

/// How bad the net is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss_permille: u64,
    pub(crate) twice_permille: u64,
    pub(crate) shortest: Time,
    pub(crate) longest: Time,
    /// One packet in so many takes twenty times as long.
    pub(crate) straggler_in: u64,
}

/// A net on which nothing goes wrong.
pub(crate) const FAIR: Weather =
    Weather { loss_permille: 0, twice_permille: 0, shortest: MILLI / 5, longest: 2 * MILLI, straggler_in: 0 };

/// The net.
pub(crate) struct Net {
    rng: Rng,
    pub(crate) weather: Weather,
    /// Nothing gets from the first to the second.
    cuts: BTreeSet<(Host, Host)>,
    /// When the last packet of a connection arrives.
    connections: BTreeMap<u64, Time>,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), weather: FAIR, cuts: BTreeSet::new(), connections: BTreeMap::new() }
    }

    pub(crate) fn cut(&mut self, from: Host, to: Host) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn delay(&mut self) -> Time {
        let weather = self.weather;
        let delay = weather.shortest + self.rng.below(weather.longest - weather.shortest + 1);
        let straggles = weather.straggler_in > 0 && self.rng.below(weather.straggler_in) == 0;
        if straggles { delay * 20 } else { delay }
    }

    /// The delays of a packet's copies: none if it is lost.
    pub(crate) fn copies(&mut self, from: Host, to: Host) -> Vec<Time> {
        if from == to {
            return vec![MILLI / 10];
        }
        let is_lost = self.is_cut(from, to) || self.rng.below(1_000) < self.weather.loss_permille;
        if is_lost {
            return Vec::new();
        }
        let mut copies = vec![self.delay()];
        if from < CLIENTS && to < CLIENTS && self.rng.below(1_000) < self.weather.twice_permille {
            copies.push(self.delay() * 3);
        }
        copies
    }

    /// When the next packet of a connection arrives, after all before it; `None` if the connection breaks.
    pub(crate) fn on_connection(&mut self, now: Time, from: Host, to: Host, conn: u64) -> Option<Time> {
        if self.is_cut(from, to) {
            return None;
        }
        let mut at = now + if from == to { MILLI / 10 } else { self.delay() };
        while from != to && self.rng.below(1_000) < self.weather.loss_permille {
            at += RESEND;
        }
        let last = self.connections.entry(conn).or_default();
        *last = at.max(*last + 1);
        Some(*last)
    }
}
