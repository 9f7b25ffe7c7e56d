//! The two clocks of a shim: the wall's, as the text that goes into logs and records, and a monotonic one for deadlines.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest text of [`write_rfc3339`]: `2026-01-02T03:04:05.123456789Z`.
const RFC3339_BYTES: usize = 30;

/// A moment that deadlines are compared with.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// `ms` milliseconds after `from`.
pub(crate) fn after_ms(from: Instant, ms: u64) -> Instant {
    from + Duration::from_millis(ms)
}

/// The wall's time as text.
pub(crate) fn wall_text() -> String {
    let mut text = Vec::with_capacity(RFC3339_BYTES);
    write_rfc3339(SystemTime::now(), &mut text);
    String::from_utf8(text).expect("only ASCII is written")
}

/// Appends `at` as Go's `time.RFC3339Nano` in UTC: trailing zeros of the fraction are left out.
pub(crate) fn write_rfc3339(at: SystemTime, out: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date_of_day((seconds / 86_400) as i64);
    let second_of_day = seconds % 86_400;
    digits(out, year as u64, 4);
    for (mark, value) in [
        (b'-', month),
        (b'-', day),
        (b'T', second_of_day / 3600),
        (b':', second_of_day / 60 % 60),
        (b':', second_of_day % 60),
    ] {
        out.push(mark);
        digits(out, value, 2);
    }
    let mut fraction = u64::from(since.subsec_nanos());
    if fraction != 0 {
        let mut width = 9;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        out.push(b'.');
        digits(out, fraction, width);
    }
    out.push(b'Z');
}

/// Appends `value` with at least `width` digits.
fn digits(out: &mut Vec<u8>, value: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10u64.pow(place) % 10) as u8);
    }
}

/// Year, month and day of the `day`-th day after 1970-01-01; years are counted from March, so that leap days come last.
fn date_of_day(day: i64) -> (i64, u64, u64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    let shifted = day + 719_468;
    let era = shifted.div_euclid(DAYS_PER_400_YEARS);
    let of_era = shifted.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, day_of_month as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_go_writes_them() {
        for (seconds, nanos, expected) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_582_979_696, 120_000_000, "2020-02-29T12:34:56.12Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_735_689_599, 999_999_999, "2024-12-31T23:59:59.999999999Z"),
            (4_102_444_800, 10, "2100-01-01T00:00:00.00000001Z"),
        ] {
            let mut text = Vec::new();
            write_rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos), &mut text);
            assert_eq!(String::from_utf8_lossy(&text), expected);
        }
    }
}
