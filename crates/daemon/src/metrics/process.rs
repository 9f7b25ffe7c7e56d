//! What the kernel says of this process, as Go's clients tell it of theirs.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::families as f;
use super::samples::{Samples, Value};

/// Adds what can be read.
pub(super) fn gather(samples: &mut Samples) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if let Some(stat) = Stat::parse(&read("/proc/self/stat")) {
        let ticks = ticks_per_second();
        samples.set(&f::PROCESS_CPU, Value::Seconds(stat.cpu_ticks as f64 / ticks));
        samples.set(&f::PROCESS_VIRTUAL, stat.virtual_bytes);
        samples.set(&f::PROCESS_RESIDENT, stat.resident_pages * page_bytes());
        if let Some(boot) = boot_seconds(&read("/proc/stat")) {
            samples.set(&f::PROCESS_START, Value::Seconds(boot as f64 + stat.start_ticks as f64 / ticks));
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that reads them is one, too.
        samples.set(&f::PROCESS_FDS, open.count().saturating_sub(1));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        samples.set(&f::PROCESS_FDS_MAX, soft);
    }
}

fn number_of(what: SysconfVar) -> Option<u64> {
    sysconf(what).ok().flatten().and_then(|number| u64::try_from(number).ok())
}

fn ticks_per_second() -> f64 {
    number_of(SysconfVar::CLK_TCK).unwrap_or(100) as f64
}

fn page_bytes() -> u64 {
    number_of(SysconfVar::PAGE_SIZE).unwrap_or(4096)
}

/// Fields of `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name is in parentheses, and may hold any other.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // The first after the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine was started, of `/proc/stat`.
fn boot_seconds(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let line =
            "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 9 0 5000 123456 77 18446744073709551615 1";
        let stat = Stat { cpu_ticks: 42, start_ticks: 5000, virtual_bytes: 123_456, resident_pages: 77 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("12 (a"), None);
        assert_eq!(Stat::parse("12 (a) S 1"), None);
        assert_eq!(boot_seconds("cpu 1\nbtime 1700000000\n"), Some(1_700_000_000));
        assert_eq!(boot_seconds("cpu 1\n"), None);
    }

    #[test]
    fn this_process_is_told() {
        let mut samples = Samples::default();
        gather(&mut samples);
        let text = samples.text();
        for name in ["cpu_seconds_total", "max_fds", "open_fds", "resident_memory_bytes", "start_time_seconds"] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name} in {text}");
        }
    }
}
