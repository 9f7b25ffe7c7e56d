//! Points in time as Go writes them: RFC 3339 with nanoseconds, UTC, trailing zeros cut; the zero time is year 1.

use std::fmt;

use model::Timestamp;

/// Go's zero time.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

const DAY_SECONDS: i64 = 86_400;

/// A point in time in JSON; `None` is Go's zero time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Option<Timestamp>);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(Some(at))
    }
}

impl From<Option<Timestamp>> for Time {
    fn from(at: Option<Timestamp>) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => f.write_str(&format(at)),
            None => f.write_str(ZERO),
        }
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() || text == ZERO {
            return Ok(Self(None));
        }
        parse(&text)
            .map(|at| Self(Some(at)))
            .ok_or_else(|| serde::de::Error::custom(format!("no RFC 3339 time: {text}")))
    }
}

/// Go's `time.RFC3339Nano`, in UTC.
pub fn format(at: Timestamp) -> String {
    let mut text = seconds_text(at.seconds);
    if at.nanos != 0 {
        let digits = format!("{:09}", at.nanos);
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// RFC 3339 with all nine digits, in UTC: what log lines begin with.
pub fn format_fixed(at: Timestamp) -> String {
    format!("{}.{:09}Z", seconds_text(at.seconds), at.nanos)
}

fn seconds_text(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(DAY_SECONDS));
    let rest = seconds.rem_euclid(DAY_SECONDS);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Reads RFC 3339, with `Z` or an offset; `None` if it is none.
pub fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (hour, minute, second) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !in_range {
        return None;
    }
    let seconds = days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset(zone)?;
    Some(Timestamp { seconds, nanos: nanos(fraction)? })
}

/// Reads `seconds[.fraction]` since 1970, the form the CLI sends in `since` and `until`; RFC 3339 is understood too.
pub fn parse_unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    match seconds.parse::<i64>() {
        Ok(seconds) => Some(Timestamp { seconds, nanos: nanos(fraction)? }),
        Err(_) => parse(text),
    }
}

fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn nanos(fraction: &str) -> Option<i32> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    digits.parse().ok()
}

fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = (if zone.starts_with('-') { -1 } else { 1 }, zone.get(1..)?);
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (number(hours)? * 3600 + number(minutes)? * 60))
}

/// Year, month, day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_part = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_part + 2) / 5 + 1;
    let month = if month_part < 10 { month_part + 3 } else { month_part - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_part = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_part + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, seconds: i64, nanos: i32) {
        let at = Timestamp { seconds, nanos };
        assert_eq!(format(at), text);
        assert_eq!(parse(text), Some(at));
    }

    #[test]
    fn times_are_gos() {
        check("1970-01-01T00:00:00Z", 0, 0);
        check("2026-11-23T08:37:41.000000001Z", 1_795_423_061, 1);
        check("2000-02-29T23:59:59.5Z", 951_868_799, 500_000_000);
        check("1969-12-31T23:59:59.9Z", -1, 900_000_000);
        check("9999-12-31T23:59:59Z", 253_402_300_799, 0);
        assert_eq!(Time(None).to_string(), ZERO);
        assert_eq!(format_fixed(Timestamp { seconds: 0, nanos: 5_000 }), "1970-01-01T00:00:00.000005000Z");
    }

    #[test]
    fn offsets_count() {
        assert_eq!(parse("1970-01-01T02:00:00+02:00"), Some(Timestamp { seconds: 0, nanos: 0 }));
        assert_eq!(parse("1969-12-31T23:30:00.25-00:30"), Some(Timestamp { seconds: 0, nanos: 250_000_000 }));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "x", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T0:0:0.xZ"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse_unix("12.5"), Some(Timestamp { seconds: 12, nanos: 500_000_000 }));
        assert_eq!(parse_unix("12.x"), None);
    }
}
