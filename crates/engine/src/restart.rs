//! Whether and when a container that ended is started again: dockerd's restart manager as a pure function.

use std::time::Duration;

use docker_types::container::RestartPolicy;

/// First delay.
const DELAY_FIRST: Duration = Duration::from_millis(100);
/// Longest delay.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// After a run this long the delay starts over.
const RUN_RESETS: Duration = Duration::from_secs(10);

/// The delay that grew so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff(Duration);

/// Whose wish the end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// The program's own, or the kernel's.
    Itself,
    /// The user stopped or killed it.
    User,
}

/// Whether the policy wants a container back at all.
pub(crate) fn wants_restart(policy: &RestartPolicy, restarts: i64, exit_code: i64, ended_by: EndedBy) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => ended_by == EndedBy::Itself,
        "on-failure" => {
            let max = policy.maximum_retry_count;
            (max == 0 || restarts < max) && exit_code != 0 && ended_by == EndedBy::Itself
        }
        _ => false,
    }
}

impl Backoff {
    /// The time until the next start, after a run of this length.
    pub(crate) fn next(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= RUN_RESETS {
            self.0 = Duration::ZERO;
        }
        self.0 = if self.0.is_zero() { DELAY_FIRST } else { (self.0 * 2).min(DELAY_MAX) };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = |name: &str, count| RestartPolicy { name: name.into(), maximum_retry_count: count };
        let check = |policy: &RestartPolicy, restarts, code, by, expected| {
            assert_eq!(wants_restart(policy, restarts, code, by), expected, "{policy:?} {restarts} {code} {by:?}");
        };
        for name in ["", "no", "on-failure"] {
            check(&policy(name, 0), 0, 0, EndedBy::Itself, false);
        }
        check(&policy("always", 0), 9, 0, EndedBy::User, true);
        check(&policy("unless-stopped", 0), 9, 0, EndedBy::Itself, true);
        check(&policy("unless-stopped", 0), 9, 0, EndedBy::User, false);
        check(&policy("on-failure", 0), 99, 1, EndedBy::Itself, true);
        check(&policy("on-failure", 3), 2, 1, EndedBy::Itself, true);
        check(&policy("on-failure", 3), 3, 1, EndedBy::Itself, false);
    }

    #[test]
    fn delays_double_and_start_over() {
        let mut backoff = Backoff::default();
        let millis: Vec<u128> = (0..12).map(|_| backoff.next(Duration::ZERO).as_millis()).collect();
        assert_eq!(millis[..4], [100, 200, 400, 800]);
        assert_eq!(millis[11], 60_000);
        assert_eq!(backoff.next(Duration::from_secs(10)), DELAY_FIRST);
    }
}
