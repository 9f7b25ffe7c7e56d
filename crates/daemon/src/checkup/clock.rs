//! How far two clocks are apart, from the times of one question and its answer.

use std::time::{SystemTime, UNIX_EPOCH};

use doctor::Skew;

const NS_PER_MS: i128 = 1_000_000;

/// Nanoseconds since 1970.
pub(super) fn now_unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The times of a question: sent and answered by our clock, come and gone by the peer's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) sent: i64,
    pub(super) came: i64,
    pub(super) gone: i64,
    pub(super) answered: i64,
}

/// As NTP has it: the peer's clock is ahead by the mean of both ways, and wrong by half the time on the way at most.
/// Nothing if the peer's times make no sense.
pub(super) fn skew(times: Times) -> Option<Skew> {
    let [sent, came, gone, answered] = [times.sent, times.came, times.gone, times.answered].map(i128::from);
    let on_the_way = (answered - sent) - (gone - came);
    if came <= 0 || gone < came || on_the_way < 0 {
        return None;
    }
    let offset = ((came - sent) + (gone - answered)) / 2;
    let error_ms = u64::try_from(on_the_way / 2 / NS_PER_MS + 1).unwrap_or(u64::MAX);
    Some(Skew { offset_ms: i64::try_from(offset / NS_PER_MS).unwrap_or(i64::MAX), error_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_as_far_as_the_way_lets() {
        const MS: i64 = 1_000_000;
        let check = |times: [i64; 4], expected: Option<(i64, u64)>| {
            let [sent, came, gone, answered] = times.map(|time| time * MS);
            let found = skew(Times { sent, came, gone, answered }).map(|it| (it.offset_ms, it.error_ms));
            assert_eq!(found, expected, "{times:?}");
        };
        check([1000, 1010, 2510, 2520], Some((0, 11)));
        check([1000, 6010, 7510, 2520], Some((5000, 11)));
        check([10_000, 6010, 7510, 11_520], Some((-4000, 11)));
        // All of the way is one way: the mean is wrong by half of it.
        check([1000, 1100, 1200, 1200], Some((50, 51)));
        check([1000, 0, 0, 2000], None);
        check([1000, 3000, 2000, 2000], None);
        check([1000, 3000, 9000, 2000], None);
        assert_eq!(
            skew(Times { sent: i64::MIN, came: 1, gone: i64::MAX, answered: i64::MAX }).map(|it| it.offset_ms > 0),
            Some(true)
        );
    }
}
