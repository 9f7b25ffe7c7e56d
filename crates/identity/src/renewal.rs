//! When a node renews its certificate. Pure: time and randomness are parameters.

use model::{Duration, Timestamp};
use stdx::Rng;

/// Earliest renewal, in percent of the certificate's life.
const EARLIEST_PERCENT: i64 = 50;
/// Latest.
const LATEST_PERCENT: i64 = 80;
/// Pause after the first failure, and the part that grows.
const BACK_OFF_SECONDS: i64 = 5;
/// Longest pause after a failure.
const MAX_BACK_OFF_SECONDS: i64 = 3600;
/// Failures from which on the pause would be longer than the longest.
const MAX_DOUBLINGS: u32 = 10;

/// Pause before a certificate that could not be read is looked at again.
pub const UNREADABLE_PAUSE: std::time::Duration = std::time::Duration::from_secs(300);
/// Pause before a renewal that the cluster asks for: it may ask twice.
pub const FORCED_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// How long to wait from `now` until the renewal: until a random minute between 50 % and 80 % of the certificate's life,
/// so that nodes which joined together do not renew together. Nothing if that is over.
pub fn next_renewal(not_before: Timestamp, not_after: Timestamp, now: Timestamp, rng: &mut Rng) -> Duration {
    let life_minutes = not_after.seconds.saturating_sub(not_before.seconds).max(0) / 60;
    // A certificate may say any time: dividing first cannot overflow, and the rest keeps short lives exact.
    let part = |percent: i64| life_minutes / 100 * percent + life_minutes % 100 * percent / 100;
    let (earliest, latest) = (part(EARLIEST_PERCENT), part(LATEST_PERCENT));
    let minutes = earliest + rng.below((latest - earliest).unsigned_abs()) as i64;
    let wait = not_before.seconds.saturating_add(minutes.saturating_mul(60)).saturating_sub(now.seconds);
    Duration { seconds: wait.max(0), nanos: 0 }
}

/// Pauses between failed renewals: 5 s and a random part that doubles from 5 s, together an hour at most.
#[derive(Clone, Debug, Default)]
pub struct RenewalBackOff {
    failures: u32,
}

impl RenewalBackOff {
    /// The pause after one more failure.
    pub fn failed(&mut self, rng: &mut Rng) -> Duration {
        let bound = BACK_OFF_SECONDS << self.failures;
        self.failures = (self.failures + 1).min(MAX_DOUBLINGS);
        let seconds = (BACK_OFF_SECONDS + rng.below(bound.unsigned_abs()) as i64).min(MAX_BACK_OFF_SECONDS);
        Duration { seconds, nanos: 0 }
    }

    /// After a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::seconds;

    #[test]
    fn renewals_fall_between_half_and_four_fifths_of_a_life() {
        let mut rng = Rng::new(1);
        let life = 90 * 86_400;
        let mut seen = Vec::new();
        for _ in 0..1000 {
            let wait = next_renewal(seconds(1000), seconds(1000 + life), seconds(1000), &mut rng).seconds;
            assert!(wait >= life / 2 && wait <= life * 4 / 5 && wait % 60 == 0, "{wait}");
            seen.push(wait);
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(*least < life * 51 / 100 && *most > life * 79 / 100, "{least} {most}");
        assert_eq!(next_renewal(seconds(0), seconds(life), seconds(life * 9 / 10), &mut rng).seconds, 0);
        assert_eq!(
            next_renewal(seconds(0), seconds(60), seconds(0), &mut rng).seconds,
            0,
            "half a minute is no minute"
        );
        assert_eq!(next_renewal(seconds(9), seconds(0), seconds(9), &mut rng).seconds, 0);
        let wait = next_renewal(seconds(0), seconds(i64::MAX), seconds(i64::MIN), &mut rng).seconds;
        assert!(wait > 0, "no overflow");
    }

    #[test]
    fn pauses_grow_to_an_hour() {
        let (mut rng, mut back_off) = (Rng::new(2), RenewalBackOff::default());
        for failure in 0..40 {
            let pause = back_off.failed(&mut rng).seconds;
            let bound = (5 + (5i64 << failure.min(20))).min(3600);
            assert!(pause >= 5 && pause <= bound, "{failure}: {pause}");
        }
        back_off.succeeded();
        assert!(back_off.failed(&mut rng).seconds < 10);
    }
}
