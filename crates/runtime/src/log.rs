//! Where the runtime reports: the `--log` file (runc's JSON lines or text), else standard error.
//!
//! Owns: the one log sink of this process. Invariant: a line is written with a single `write(2)` in append mode, so
//! the forked processes of a container (which inherit the descriptor, close-on-exec) never mix their lines.
//! Caller: `crate::main`, once, before anything else; `libcontainer` through `tracing`.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, span};

/// Form of a line in the log file, as runc's `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// `time="…" level=error msg="…"`.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

/// Whether debug events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Verbosity {
    /// Warnings and errors only.
    #[default]
    Quiet,
    /// Everything down to debug.
    Debug,
}

struct Sink {
    file: Option<File>,
    format: Format,
    verbosity: Verbosity,
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// Opens the log and installs it for `tracing`. A log file that cannot be opened is an error, as with runc.
pub(crate) fn init(path: Option<&Path>, format: Format, verbosity: Verbosity) -> std::io::Result<()> {
    let file = match path {
        Some(path) => Some(OpenOptions::new().append(true).create(true).open(path)?),
        None => None,
    };
    Cause::share();
    let _ = SINK.set(Sink { file, format, verbosity });
    let _ = tracing::subscriber::set_global_default(Events);
    Ok(())
}

/// Writes the final error of this run to the log file and to standard error.
pub(crate) fn fatal(message: &str) {
    if let Some(sink) = SINK.get()
        && let Some(mut file) = sink.file.as_ref()
    {
        let _ = file.write_all(line(sink.format, "error", message).as_bytes());
    }
    let _ = std::io::stderr().write_all(line(Format::Text, "error", message).as_bytes());
}

/// Writes a warning to the log file; without a log file warnings are dropped, so they never reach a container's output.
pub(crate) fn warn(message: &str) {
    emit("warning", message);
}

fn emit(level: &str, message: &str) {
    if let Some(sink) = SINK.get()
        && let Some(mut file) = sink.file.as_ref()
    {
        let _ = file.write_all(line(sink.format, level, message).as_bytes());
    }
}

fn line(format: Format, level: &str, message: &str) -> String {
    let time = rfc3339(SystemTime::now());
    match format {
        Format::Json => {
            format!("{}\n", serde_json::json!({ "level": level, "msg": message, "time": time }))
        }
        Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

/// `2026-01-31T12:00:00.123456789Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a civil date (proleptic Gregorian), with years that start in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_nanos()
    )
}

/// A page shared with the forked processes: the first error that `libcontainer` reports there is the cause of all that
/// follow, but its own errors do not carry it across.
struct Cause {
    taken: AtomicBool,
    length: AtomicU32,
    text: [AtomicU8; Cause::MAX],
}

static CAUSE: AtomicPtr<Cause> = AtomicPtr::new(std::ptr::null_mut());

impl Cause {
    /// Longest text that is kept, in bytes.
    const MAX: usize = 2048;

    /// Makes the page; without one, causes are only in the log.
    fn share() {
        let (read_write, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Cause>(), read_write, flags, -1, 0) };
        if page != libc::MAP_FAILED {
            CAUSE.store(page.cast(), Ordering::Relaxed);
        }
    }

    fn get() -> Option<&'static Cause> {
        // SAFETY: null, or a mapping that is never undone, zeroed at first (a valid value), big enough and aligned to a
        // page; all its parts are atomic, as other processes change them.
        unsafe { CAUSE.load(Ordering::Relaxed).as_ref() }
    }

    fn set_first(&self, text: &str) {
        if self.taken.swap(true, Ordering::Relaxed) {
            return;
        }
        let length = text.len().min(Self::MAX);
        for (to, from) in self.text.iter().zip(&text.as_bytes()[..length]) {
            to.store(*from, Ordering::Relaxed);
        }
        self.length.store(length as u32, Ordering::Release);
    }
}

/// The first error reported by this process or one it forked.
pub(crate) fn first_cause() -> Option<String> {
    let cause = Cause::get()?;
    let length = cause.length.load(Ordering::Acquire) as usize;
    let bytes: Vec<u8> = cause.text.iter().take(length).map(|byte| byte.load(Ordering::Relaxed)).collect();
    (length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// The `tracing` side: events of `libcontainer` become lines; spans are not recorded.
struct Events;

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = match SINK.get().map(|sink| sink.verbosity) {
            Some(Verbosity::Debug) => Level::DEBUG,
            _ => Level::WARN,
        };
        metadata.is_event() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        match SINK.get().map(|sink| sink.verbosity) {
            Some(Verbosity::Debug) => Some(tracing::level_filters::LevelFilter::DEBUG),
            _ => Some(tracing::level_filters::LevelFilter::WARN),
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        // Errors of libcontainer are details of an error that `fatal` reports whole: they must not be the last word.
        let level = match *event.metadata().level() {
            Level::ERROR | Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        if *event.metadata().level() == Level::ERROR
            && let Some(cause) = Cause::get()
        {
            cause.set_first(&text.0);
        }
        emit(level, &text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        } else {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc3339() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn json_lines_are_runcs() {
        let text = line(Format::Json, "error", "a \"quoted\"\nthing");
        let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], "a \"quoted\"\nthing");
        assert!(value["time"].is_string());
    }
}
