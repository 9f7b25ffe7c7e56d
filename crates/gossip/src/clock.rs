//! Lamport's clock, as NetworkDB keeps two of: one for nodes and networks, one for tables.

use crate::limits::MAX_CLOCK_JUMP;

/// No event has a later time, so that even many jumps cannot run a clock off its end.
const MAX_TIME: u64 = u64::MAX / 4;

/// A counter that is always ahead of every time it has seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Clock(u64);

impl Clock {
    /// The time now.
    pub(crate) fn now(self) -> u64 {
        self.0
    }

    /// The time of an event of our own.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    /// Takes note of a peer's time; false if it is so far ahead that no peer can have reached it honestly. Such an event
    /// is to be ignored, or one garbled number would end the clock of the whole swarm.
    #[must_use]
    pub(crate) fn witness(&mut self, time: u64) -> bool {
        if time > MAX_TIME || time > self.0 + MAX_CLOCK_JUMP {
            return false;
        }
        if time >= self.0 {
            self.0 = time + 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stays_ahead_and_cannot_be_run_off() {
        let mut clock = Clock::default();
        assert_eq!(clock.next(), 1);
        assert!(clock.witness(5));
        assert_eq!((clock.now(), clock.next()), (6, 7));
        assert!(clock.witness(3));
        assert_eq!(clock.now(), 7);
        assert!(!clock.witness(u64::MAX));
        assert!(!clock.witness(8 + MAX_CLOCK_JUMP));
        assert_eq!(clock.now(), 7);
        assert!(clock.witness(7 + MAX_CLOCK_JUMP));
        let mut clock = Clock(MAX_TIME - 1);
        assert!(clock.witness(MAX_TIME) && !clock.witness(MAX_TIME + 1));
        assert_eq!(clock.next(), MAX_TIME + 2);
    }
}
