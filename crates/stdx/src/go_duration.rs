//! Go's text of a span of time, as `time.ParseDuration` reads it: `1m30s`, `250ms`, `-1.5h`, `0`.

/// The units with their nanoseconds.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest text that is read: Go has no limit, but no sensible span needs more.
const TEXT_LIMIT: usize = 64;

/// The nanoseconds that `text` means; `None` where Go refuses it, and for texts longer than any sensible one.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || text.len() > TEXT_LIMIT {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|it: char| it.is_ascii_digit() || it == '.').len();
        let (digits, after) = rest.split_at(number);
        let end = after.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(scaled(digits, scale)?)?;
        rest = next;
    }
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}

/// A decimal number times `scale`, cut to whole nanoseconds.
fn scaled(digits: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let number = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
    // More digits than nanoseconds in an hour have change nothing.
    let fraction = &fraction[..fraction.len().min(13)];
    let part = number(fraction)?.checked_mul(scale)? / 10_i128.pow(fraction.len() as u32);
    number(whole)?.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::{TEXT_LIMIT, parse_go_duration};

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let check = |text: &str, nanos: Option<i64>| assert_eq!(parse_go_duration(text), nanos, "{text:?}");
        check("0", Some(0));
        check("+0", Some(0));
        check("10s", Some(10_000_000_000));
        check("1m30s", Some(90_000_000_000));
        check("1.5h", Some(5_400_000_000_000));
        check(".5s", Some(500_000_000));
        check("5.s", Some(5_000_000_000));
        check("250ms", Some(250_000_000));
        check("3us4µs5μs6ns", Some(12_006));
        check("-2s", Some(-2_000_000_000));
        check("0.3333333333333333333h", Some(1_199_999_999_999));
        check("9223372036854775807ns", Some(i64::MAX));
        for text in ["", "-", "10", "s", ".s", "1.2.3s", "1 s", "1S", "ten", "1s2", "9223372036854775808ns", "1d"] {
            check(text, None);
        }
        check(&format!("{}1s", "0".repeat(TEXT_LIMIT - 2)), Some(1_000_000_000));
        check(&format!("{}1s", "0".repeat(TEXT_LIMIT - 1)), None);
    }
}
