//! Ages, sizes, durations and shortened identifiers in Docker's words.

use chrono::{DateTime, Utc};

/// The first 12 characters of an identifier, without `sha256:`.
pub(crate) fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// How long ago an RFC 3339 time was, as Docker says it; empty for none.
pub(crate) fn age(at: &str) -> String {
    match DateTime::parse_from_rfc3339(at) {
        Ok(at) => span((Utc::now() - at.with_timezone(&Utc)).num_seconds()),
        Err(_) => String::new(),
    }
}

/// A duration in nanoseconds, in Docker's words.
pub(crate) fn duration_words(nanoseconds: i64) -> String {
    span(nanoseconds / 1_000_000_000)
}

/// How long ago a unix time was.
pub(crate) fn age_unix(seconds: i64) -> String {
    span(Utc::now().timestamp() - seconds)
}

/// go-units' HumanDuration.
fn span(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0 + 0.5) as i64);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..2700 => format!("{minutes} minutes"),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Bytes with three digits and a decimal unit.
pub(crate) fn size(bytes: i64) -> String {
    size_with(bytes, 3)
}

/// Go's `%.3g` of the value, and the unit.
fn size_with(bytes: i64, digits: i32) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = if value >= 1.0 { value.log10().floor() as i32 + 1 } else { 1 };
    let number = format!("{value:.*}", usize::try_from(digits - whole).unwrap_or(0));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", units[unit])
}

/// A word with a capital letter.
pub(crate) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Names as people sort them: numbers in them by their value.
pub(crate) fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (x, y) = (digits(left), digits(right));
        if x > 0 && y > 0 {
            let value = |text: &str| text.trim_start_matches('0').to_owned();
            let (p, q) = (value(&left[..x]), value(&right[..y]));
            let order = p.len().cmp(&q.len()).then_with(|| p.cmp(&q));
            if order.is_ne() {
                return order;
            }
            (left, right) = (&left[x..], &right[y..]);
            continue;
        }
        let (mut p, mut q) = (left.chars(), right.chars());
        match (p.next(), q.next()) {
            (Some(p), Some(q)) if p != q => return p.cmp(&q),
            (Some(_), Some(_)) => (left, right) = (p.as_str(), q.as_str()),
            (None, None) => return a.cmp(b),
            (one, other) => return one.is_some().cmp(&other.is_some()),
        }
    }
}

/// Bytes with four digits and a binary unit, as `docker info` shows memory.
pub(crate) fn binary_size(bytes: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let number = format!("{value:.digits$}");
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", units[unit])
}

/// A text cut to `width` characters, with an ellipsis.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Bytes with four digits and a decimal unit, as docker shows totals.
pub(crate) fn size_in_four(bytes: i64) -> String {
    size_with(bytes, 4)
}

/// Text in quotation marks as Go quotes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            letter if letter.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out + "\""
}

/// A time as Go prints it, in UTC: `2026-01-02 03:04:05.6 +0000 UTC`.
pub(crate) fn go_time(at: DateTime<Utc>) -> String {
    let nanos = format!("{:09}", at.timestamp_subsec_nanos());
    let fraction = nanos.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction} +0000 UTC", at.format("%Y-%m-%d %H:%M:%S"))
}

/// Nanoseconds as Go prints a duration: `1m30s`, `1.5s`, `250ms`.
pub(crate) fn go_duration(nanoseconds: i64) -> String {
    let (mut out, rest) = (String::new(), nanoseconds.unsigned_abs());
    let fraction = |value: u64, unit: u64| {
        let text = format!("{:.9}", value as f64 / unit as f64);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let sign = if nanoseconds < 0 { "-" } else { "" };
    match rest {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{sign}{rest}ns"),
        1_000..1_000_000 => return format!("{sign}{}µs", fraction(rest, 1_000)),
        1_000_000..1_000_000_000 => return format!("{sign}{}ms", fraction(rest, 1_000_000)),
        _ => {}
    }
    let (hours, minutes) = (rest / 3_600_000_000_000, rest / 60_000_000_000 % 60);
    if hours > 0 {
        out.push_str(&format!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        out.push_str(&format!("{minutes}m"));
    }
    format!("{sign}{out}{}s", fraction(rest % 60_000_000_000, 1_000_000_000))
}

/// A moment as users give it, for the API: a duration is so long ago, a date is seconds since 1970, others go as they are.
pub(crate) fn timestamp(text: &str) -> String {
    let seconds = |at: DateTime<Utc>| format!("{}.{:09}", at.timestamp(), at.timestamp_subsec_nanos());
    if let Ok(nanos) = parse_duration(text) {
        return seconds(Utc::now() - chrono::Duration::nanoseconds(nanos));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return seconds(at.to_utc());
    }
    // Without a zone it is the local one's.
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H"];
    let date = |form: &&str| chrono::NaiveDateTime::parse_from_str(text, form).ok();
    let day = || Some(chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(chrono::NaiveTime::MIN));
    let local = forms.iter().find_map(date).or_else(day).and_then(|at| at.and_local_timezone(chrono::Local).earliest());
    local.map_or_else(|| text.to_owned(), |at| seconds(at.to_utc()))
}

/// Go's duration text (`1m30s`, `250ms`, `2h`) or a bare number of seconds in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return if seconds == 0 { Ok(0) } else { Err(format!("missing unit in duration {text:?}")) };
    }
    let mut nanos = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(format!("missing unit in duration {text:?}"))?;
        let value: f64 = rest[..digits].parse().map_err(|_| format!("invalid duration {text:?}"))?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let scale = match &rest[digits..unit_end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(format!("unknown unit in duration {text:?}")),
        };
        nanos += value * scale;
        rest = &rest[unit_end..];
    }
    Ok(nanos as i64)
}

/// `64m`, `1g`, `4096` in bytes; binary units.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let value: f64 = lower[..digits].parse().map_err(|_| format!("invalid size: '{text}'"))?;
    let shift = match lower[digits..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("invalid size: '{text}'")),
    };
    Ok((value * 2f64.powi(shift)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_dockers() {
        let check = |seconds, text: &str| assert_eq!(span(seconds), text);
        check(0, "Less than a second");
        check(1, "1 second");
        check(59, "59 seconds");
        check(60, "About a minute");
        check(600, "10 minutes");
        check(3600, "About an hour");
        check(3 * 3600, "3 hours");
        check(3 * 86400, "3 days");
    }

    #[test]
    fn words_of_go_are_gos() {
        assert_eq!(quoted("sh -c 'a \"b\\'\n\u{1}…"), r#""sh -c 'a \"b\\'\n\x01…""#);
        let durations = [0, 5, 1_500, 250_000_000, 1_500_000_000, 5_000_000_000, 90_000_000_000, 3_600_000_000_000];
        assert_eq!(durations.map(go_duration), ["0s", "5ns", "1.5µs", "250ms", "1.5s", "5s", "1m30s", "1h0m0s"]);
        let at = DateTime::from_timestamp(1_767_323_045, 600_000_000).unwrap();
        assert_eq!(go_time(at), "2026-01-02 03:04:05.6 +0000 UTC");
    }

    #[test]
    fn moments_are_read_as_docker_reads_them() {
        assert_eq!(timestamp("2026-01-02T03:04:05.5Z"), "1767323045.500000000");
        assert_eq!(timestamp("1767323045"), "1767323045");
        assert_eq!(timestamp("nonsense"), "nonsense");
        let ago: f64 = timestamp("90s").parse().unwrap();
        assert!((Utc::now().timestamp() as f64 - ago - 90.0).abs() < 5.0);
        let day: f64 = timestamp("2026-01-02").parse().unwrap();
        assert!((day - 1_767_312_000.0).abs() <= 86_400.0, "midnight, in some zone");
    }

    #[test]
    fn numbers_in_names_are_sorted_by_value() {
        let mut names = ["web.10", "web.9", "web", "db.1", "web10", "web2", "web.09"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["db.1", "web", "web.09", "web.9", "web.10", "web2", "web10"]);
    }

    #[test]
    fn memory_is_told_in_binary_units() {
        assert_eq!(binary_size(4_123_168_768), "3.84GiB");
        assert_eq!(binary_size(0), "0B");
        assert_eq!(binary_size(536_870_912), "512MiB");
    }

    #[test]
    fn sizes_and_durations_are_read_and_written() {
        assert_eq!(size(1_240_000), "1.24MB");
        assert_eq!(size(77_000_000), "77MB");
        assert_eq!([0, 999, 1000, 1_417_767, 123_456_789].map(size), ["0B", "999B", "1kB", "1.42MB", "123MB"]);
        assert_eq!([0, 1_417_767, 123_456_789].map(size_in_four), ["0B", "1.418MB", "123.5MB"]);
        assert_eq!(parse_duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse_duration("250ms"), Ok(250_000_000));
        assert!(parse_duration("5").is_err());
        assert_eq!(parse_bytes("64m"), Ok(64 << 20));
        assert_eq!(parse_bytes("1GB"), Ok(1 << 30));
        assert!(parse_bytes("x").is_err());
    }
}
