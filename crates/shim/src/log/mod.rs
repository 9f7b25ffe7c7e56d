//! The container's output on disk: dockerd's `json-file` format, its rotation and its compression.
//!
//! Writing never waits for anybody and never fails towards the caller: what cannot be written is counted in [`LogHealth`].

mod file;
mod line;

use std::time::SystemTime;

use file::LogFile;
use line::Splitter;

use crate::launch::{LogDriver, LogSpec};
use crate::protocol::LogHealth;
use crate::stdio::Output;

/// The log of one container; the loop gives it everything the container writes.
pub(crate) struct Log {
    file: Option<LogFile>,
    attrs: Vec<u8>,
    splitters: [Splitter; 2],
    /// Encoded lines on their way into the file; empty between calls.
    batch: Vec<u8>,
}

impl Log {
    /// Opens the log; if that fails it is tried again at each write.
    pub(crate) fn open(spec: &LogSpec) -> Log {
        let file = match spec.driver {
            LogDriver::JsonFile => Some(LogFile::open(spec)),
            LogDriver::None => None,
        };
        Log {
            file,
            attrs: line::attrs_json(&spec.attrs),
            splitters: [Splitter::new("stdout"), Splitter::new("stderr")],
            batch: Vec::new(),
        }
    }

    /// Takes what the container wrote to `output`.
    pub(crate) fn write(&mut self, output: Output, data: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let at = SystemTime::now();
        self.splitters[output.index()].feed(data, at, &self.attrs, &mut self.batch);
        file.append(&self.batch, at);
        self.batch.clear();
    }

    /// The output has ended.
    pub(crate) fn finish(&mut self, output: Output) {
        let Some(file) = &mut self.file else { return };
        let at = SystemTime::now();
        self.splitters[output.index()].finish(at, &self.attrs, &mut self.batch);
        file.append(&self.batch, at);
        self.batch.clear();
    }

    /// What it has lost so far.
    pub(crate) fn health(&self) -> LogHealth {
        self.file.as_ref().map(LogFile::health).unwrap_or_default()
    }

    /// Whether `pid` was its compressing child, which has ended with `code`.
    pub(crate) fn child_ended(&mut self, pid: i32, code: i32) -> bool {
        self.file.as_mut().is_some_and(|file| file.child_ended(pid, code))
    }

    /// Gives memory back that is not needed while nothing happens.
    pub(crate) fn shrink(&mut self) {
        self.batch = Vec::new();
        self.splitters.iter_mut().for_each(Splitter::shrink);
    }
}
