//! A suspicion: how long a member has to contradict. The more members suspect it independently, the shorter.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::limits::MAX_CONFIRMATIONS;
use crate::message::Name;

const MULTIPLIER: u32 = 4;
const MAX_MULTIPLIER: u32 = 6;

/// One suspicion.
#[derive(Debug)]
pub(crate) struct Suspicion {
    start: Duration,
    /// Confirmations that bring the time down to the least.
    wanted: u32,
    least: Duration,
    most: Duration,
    from: BTreeSet<Name>,
    confirmed: u32,
}

impl Suspicion {
    /// A suspicion by `from` in a cluster of `members` that probe one another every `interval`.
    pub(crate) fn new(now: Duration, from: Name, members: usize, interval: Duration) -> Self {
        let wanted = if members < 2 + (MULTIPLIER as usize - 2) { 0 } else { MULTIPLIER - 2 };
        let scale = (members.max(1) as f64).log10().max(1.0);
        let least = Duration::from_millis((interval.as_millis() as f64 * f64::from(MULTIPLIER) * scale) as u64);
        Self { start: now, wanted, least, most: least * MAX_MULTIPLIER, from: [from].into(), confirmed: 0 }
    }

    /// When the member counts as dead.
    pub(crate) fn deadline(&self) -> Duration {
        if self.wanted == 0 {
            return self.start + self.least;
        }
        let share = f64::from(self.confirmed + 1).ln() / f64::from(self.wanted + 1).ln();
        let span = self.most.as_secs_f64() - share * (self.most - self.least).as_secs_f64();
        self.start + Duration::from_millis((span * 1000.0) as u64).max(self.least)
    }

    /// Another member suspects it; whether that is news.
    pub(crate) fn confirm(&mut self, from: &Name) -> bool {
        if self.confirmed >= self.wanted || self.from.len() >= MAX_CONFIRMATIONS || !self.from.insert(from.clone()) {
            return false;
        }
        self.confirmed += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_shorten_the_time() {
        let second = Duration::from_secs(1);
        let mut suspicion = Suspicion::new(second, "a".into(), 100, second);
        assert_eq!(suspicion.deadline(), second * 49);
        assert!(!suspicion.confirm(&"a".into()));
        assert!(suspicion.confirm(&"b".into()));
        assert!(!suspicion.confirm(&"b".into()));
        let between = suspicion.deadline();
        assert!(between < second * 25 && between > second * 9, "{between:?}");
        assert!(suspicion.confirm(&"c".into()));
        assert_eq!(suspicion.deadline(), second * 9);
        assert!(!suspicion.confirm(&"d".into()));
    }

    #[test]
    fn a_small_cluster_cannot_confirm() {
        let second = Duration::from_secs(1);
        for members in 0..4 {
            let mut suspicion = Suspicion::new(Duration::ZERO, "a".into(), members, second);
            assert_eq!(suspicion.deadline(), second * 4);
            assert!(!suspicion.confirm(&"b".into()));
        }
        assert_eq!(Suspicion::new(Duration::ZERO, "a".into(), 4, second).deadline(), second * 24);
    }
}
