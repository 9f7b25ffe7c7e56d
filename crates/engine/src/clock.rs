//! The time of day, and fresh identifiers.

use std::time::{SystemTime, UNIX_EPOCH};

use docker_types::time::Time;
use model::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

use crate::EngineError;

/// Nanoseconds in a second.
pub(crate) const SECOND_NS: i64 = 1_000_000_000;

/// The machine's clock.
pub(crate) struct Clock;

impl Clock {
    /// Nanoseconds since 1970.
    pub(crate) fn now_ns() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// A time as the API has it; 0 is Go's zero time.
pub(crate) fn time_of(unix_ns: i64) -> Time {
    Time((unix_ns != 0).then(|| Timestamp::from_unix_nanos(unix_ns)))
}

pub(crate) fn seconds_of(unix_ns: i64) -> i64 {
    unix_ns.div_euclid(SECOND_NS)
}

/// 64 hex digits that nobody else has. The first twelve are no number, as they become a host name.
pub(crate) fn fresh_id() -> Result<String, EngineError> {
    loop {
        let mut bytes = [0u8; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| EngineError::internal("the kernel gives no random bytes"))?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if !id[..12].bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(id);
        }
    }
}
