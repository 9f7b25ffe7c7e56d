//! How fast messages follow each other on one stream: at once when it was quiet, in batches under load.

use super::Moment;
use std::time::Duration;

/// Messages that may go out without a pause after a quiet time.
const BURST: u32 = 8;
/// After a burst one message goes out in this time; SwarmKit's batching time.
const INTERVAL: Duration = Duration::from_millis(100);

/// A bucket of messages that may be sent.
#[derive(Clone, Debug)]
pub struct Pace {
    left: u32,
    filled_at: Moment,
}

impl Pace {
    /// A full bucket.
    pub fn new(now: Moment) -> Self {
        Self { left: BURST, filled_at: now }
    }

    /// How long the next message has to wait.
    pub fn wait(&mut self, now: Moment) -> Duration {
        self.fill(now);
        if self.left > 0 { Duration::ZERO } else { (self.filled_at + INTERVAL).saturating_sub(now) }
    }

    /// A message goes out.
    pub fn sent(&mut self, now: Moment) {
        self.fill(now);
        self.left = self.left.saturating_sub(1);
    }

    fn fill(&mut self, now: Moment) {
        let passed = now.saturating_sub(self.filled_at).as_nanos() / INTERVAL.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed >= BURST - self.left {
            // A full bucket does not save time up.
            self.left = BURST;
            self.filled_at = now;
        } else {
            self.left += passed;
            self.filled_at += INTERVAL * passed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_load_is_slowed_down() {
        let at = Duration::from_millis;
        let mut pace = Pace::new(at(0));
        for _ in 0..BURST {
            assert_eq!(pace.wait(at(1)), at(0));
            pace.sent(at(1));
        }
        assert_eq!(pace.wait(at(1)), at(100));
        assert_eq!(pace.wait(at(51)), at(50));
        assert_eq!(pace.wait(at(101)), at(0));
        pace.sent(at(101));
        assert_eq!(pace.wait(at(101)), at(100), "one message for each interval");
        assert_eq!(pace.wait(at(10_000)), at(0));
        for _ in 0..BURST {
            pace.sent(at(10_000));
        }
        assert_eq!(pace.wait(at(10_000)), at(100), "the bucket holds no more than a burst");
    }
}
