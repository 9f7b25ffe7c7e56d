//! Points and spans of time as protobuf has them: seconds and nanoseconds, kept apart so that nothing is lost.

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// A point in time: seconds since 1970 UTC and nanoseconds 0..1e9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: i32,
}

/// A span of time; both parts have the same sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: i32,
}

impl Timestamp {
    /// From nanoseconds since 1970.
    pub fn from_unix_nanos(nanos: i64) -> Self {
        Self { seconds: nanos.div_euclid(NANOS), nanos: nanos.rem_euclid(NANOS) as i32 }
    }

    /// Nanoseconds since 1970, saturating at the ends of `i64` (years 1677 and 2262).
    pub fn unix_nanos(self) -> i64 {
        self.seconds.saturating_mul(NANOS).saturating_add(i64::from(self.nanos))
    }

    /// This point moved by `span`.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self::from_unix_nanos(self.unix_nanos().saturating_add(span.total_nanos()))
    }

    /// The span from `earlier` to this point, negative if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.unix_nanos().saturating_sub(earlier.unix_nanos()))
    }
}

impl Duration {
    /// From nanoseconds.
    pub fn from_nanos(nanos: i64) -> Self {
        Self { seconds: nanos / NANOS, nanos: (nanos % NANOS) as i32 }
    }

    /// From whole seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// From milliseconds.
    pub fn from_millis(millis: i64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// All of it in nanoseconds, saturating.
    pub fn total_nanos(self) -> i64 {
        self.seconds.saturating_mul(NANOS).saturating_add(i64::from(self.nanos))
    }
}

impl From<std::time::Duration> for Duration {
    fn from(span: std::time::Duration) -> Self {
        Self::from_nanos(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl From<Duration> for std::time::Duration {
    /// A negative span becomes zero.
    fn from(span: Duration) -> Self {
        Self::from_nanos(u64::try_from(span.total_nanos()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Timestamp};

    #[test]
    fn points_and_spans_agree() {
        let a = Timestamp { seconds: 10, nanos: 900_000_000 };
        let b = a.plus(Duration::from_millis(200));
        assert_eq!(b, Timestamp { seconds: 11, nanos: 100_000_000 });
        assert_eq!(b.since(a), Duration::from_millis(200));
        assert_eq!(a.since(b), Duration::from_millis(-200));
        assert_eq!(Timestamp::from_unix_nanos(-1), Timestamp { seconds: -1, nanos: 999_999_999 });
    }
}
