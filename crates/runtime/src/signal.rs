//! Names and numbers of signals, as runc's `kill` takes them.
//!
//! Invariant: the result is a signal the kernel knows (0 to 64). Caller: `cli`.

use crate::error::RuntimeError;

/// Highest real-time signal of Linux.
const MAX: i32 = 64;

/// Reads `9`, `KILL`, `SIGKILL`, `SIGRTMIN+3`, `RTMAX-2`, in any case.
pub(crate) fn parse(text: &str) -> Result<i32, RuntimeError> {
    let unknown = || RuntimeError::Signal(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=MAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return real_time(offset, 34).ok_or_else(unknown);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return real_time(offset, MAX).ok_or_else(unknown);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

fn real_time(offset: &str, base: i32) -> Option<i32> {
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    let number = base.checked_add(offset)?;
    (34..=MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-2", 62),
            ("rtmin", 34),
            ("IOT", 6),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "65", "-1", "NOPE", "SIGRTMIN+31", "RTMAX+1", "SIG", "99999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
