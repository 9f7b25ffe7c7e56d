//! The container as the shim knows it, and the record of its end.
//!
//! ```text
//!             start ok            init reaped, output drained
//!   Created ───────────► Running ────────────────────────────► Exited
//!      │                 │    ▲                                  ▲
//!      │           pause ▼    │ resume                           │
//!      │                 Paused ─────────────────────────────────┤
//!      └── start failed, or killed before start ─────────────────┘
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use crate::launch::ExitRecord;
use crate::protocol::Status;
use crate::stdio::ProcessIo;
use crate::sys::ChildExit;

/// The end of a process whose output may still be on its way.
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) exit: ChildExit,
    /// When its end was seen.
    pub(crate) at: String,
    /// Its output is not awaited any longer than this.
    pub(crate) drain_until: Instant,
}

/// The container as the shim knows it.
pub(crate) struct Container {
    /// Its first process.
    pub(crate) pid: i32,
    /// Where it is in its life.
    pub(crate) status: Status,
    /// When `start` was begun, once it has succeeded.
    pub(crate) started_at: Option<String>,
    /// The streams of its first process.
    pub(crate) io: ProcessIo,
    /// Its first process has ended.
    pub(crate) exit: Option<Ended>,
    /// Set with [`Status::Exited`].
    pub(crate) record: Option<ExitRecord>,
    /// Whether the kernel killed in it for want of memory.
    pub(crate) oom_killed: bool,
    /// Why `start` failed.
    pub(crate) start_error: Option<String>,
}

impl Container {
    /// A container just created.
    pub(crate) fn new(pid: i32, io: ProcessIo) -> Container {
        Container {
            pid,
            status: Status::Created,
            started_at: None,
            io,
            exit: None,
            record: None,
            oom_killed: false,
            start_error: None,
        }
    }

    /// Whether its record is made.
    pub(crate) fn ended(&self) -> bool {
        self.status == Status::Exited
    }

    /// Whether its first process is alive, started or not.
    pub(crate) fn alive(&self) -> bool {
        self.exit.is_none()
    }
}

/// Writes `record` so that after a crash at any time there is either no record or the whole one.
pub(crate) fn write_record(record: &ExitRecord, path: &Path) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
