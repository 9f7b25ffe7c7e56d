//! Signals by name or number, as dockerd reads them.

use nix::sys::signal::Signal;

use crate::EngineError;

/// The first and the last real-time signal that a program can use.
const REAL_TIME: (i32, i32) = (34, 64);

/// Reads `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
pub(crate) fn parse(text: &str) -> Result<i32, EngineError> {
    let unknown = || EngineError::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=REAL_TIME.1).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(name) {
        return if (REAL_TIME.0..=REAL_TIME.1).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest[1..].parse::<i32>().ok() };
    if let Some(rest) = name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+')) {
        return Some(REAL_TIME.0 + offset(rest)?);
    }
    let rest = name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-'))?;
    Some(REAL_TIME.1 - offset(rest)?)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [("TERM", 15), ("sigkill", 9), ("1", 1), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("CLD", 17)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "99", "NOPE", "RTMIN-1", "RTMIN+99"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
