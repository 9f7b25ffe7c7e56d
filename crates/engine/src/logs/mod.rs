//! Reading logs of the driver json-file: what is past, then what comes, through a bounded channel.
//!
//! The shim writes and rotates; here is only read. Following waits for the kernel's word (inotify), never in a loop.

mod entry;
mod follow;
mod past;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

pub(crate) use self::entry::Entry;
use crate::container::Container;
use crate::engine::blocking;
use crate::options::{AttachOptions, LogsOptions};
use crate::streams::{OutputFrame, OutputSource};
use crate::{Engine, EngineError, ErrorKind};

/// Lines that wait for a reader.
const CHANNEL_LINES: usize = 256;
/// Lines that are shown to an attacher who asks for what was before.
const ATTACH_LINES_MAX: usize = 100_000;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFrame {
    /// Where from.
    pub source: OutputSource,
    /// When it was written; nanoseconds since 1970.
    pub time_ns: i64,
    /// `attrs` of the line.
    pub attributes: BTreeMap<String, String>,
    /// What is shown: the line with its end, after time and details if they were asked for.
    pub bytes: Bytes,
}

/// Lines of a log, in their order; the channel closes after the last.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the container has a terminal: then nothing shall be framed.
    pub tty: bool,
    /// The lines.
    pub frames: mpsc::Receiver<LogFrame>,
}

/// What a line does to the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GoOn,
    /// `until` is reached, or the reader is gone.
    Stop,
}

/// Which lines are shown, and how.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    options: LogsOptions,
}

impl Selection {
    /// The frame of a line; `None` if it is not wanted.
    fn frame(&self, line: &[u8]) -> Result<Option<LogFrame>, Next> {
        let Some(entry) = Entry::parse(line) else { return Ok(None) };
        let options = &self.options;
        if options.until.is_some_and(|until| entry.time_ns > until) {
            return Err(Next::Stop);
        }
        let wanted = match entry.source {
            OutputSource::Stdout => options.stdout,
            OutputSource::Stderr => options.stderr,
        };
        if !wanted || options.since.is_some_and(|since| entry.time_ns < since) {
            return Ok(None);
        }
        Ok(Some(entry.into_frame(options)))
    }
}

fn check_options(container: &Container, options: &LogsOptions) -> Result<(), EngineError> {
    if !options.stdout && !options.stderr {
        return Err(EngineError::invalid("You must choose at least one stream"));
    }
    if container.record().host_config.log_config.kind == "none" {
        let text = "configured logging driver does not support reading";
        return Err(EngineError::new(ErrorKind::NotImplemented, text));
    }
    Ok(())
}

impl Engine {
    /// The log of a container.
    pub async fn logs(&self, container: &str, options: LogsOptions) -> Result<LogStream, EngineError> {
        let container = self.0.index.find(container)?;
        check_options(&container, &options)?;
        let tty = container.record().config.tty;
        let (sender, frames) = mpsc::channel(CHANNEL_LINES);
        tokio::spawn(run(container, options, sender));
        Ok(LogStream { tty, frames })
    }
}

/// Sends everything; ends with the log, its follower or the container.
async fn run(container: Arc<Container>, options: LogsOptions, sender: mpsc::Sender<LogFrame>) {
    let mut watch = container.view.clone();
    let view = watch.borrow_and_update().clone();
    let follows = options.follow && view.record.life.phase.has_process();
    let selection = Selection { options };
    let path = container.paths.log();
    // watched before the past is read, so that nothing falls in between
    let watcher = if follows { follow::Watcher::new(&path) } else { None };
    let reader = {
        let (path, selection, sender) = (path.clone(), selection.clone(), sender.clone());
        blocking(move || Ok(past::read(&path, &selection, &sender))).await
    };
    let Ok(Some(reader)) = reader else { return };
    if let Some(watcher) = watcher {
        follow::follow(reader, watcher, &selection, &sender, watch, view.exits).await;
    }
}

/// What a container wrote before, for `attach?logs=1`.
pub(crate) async fn past_frames(
    container: &Arc<Container>,
    options: AttachOptions,
) -> Result<Vec<OutputFrame>, EngineError> {
    let wanted = LogsOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        tail: Some(ATTACH_LINES_MAX),
        ..LogsOptions::default()
    };
    check_options(container, &wanted)?;
    let (sender, mut frames) = mpsc::channel(CHANNEL_LINES);
    let path = container.paths.log();
    let selection = Selection { options: wanted };
    let read = tokio::task::spawn_blocking(move || past::read(&path, &selection, &sender).is_some());
    let mut past = Vec::new();
    while let Some(frame) = frames.recv().await {
        past.push(OutputFrame { source: frame.source, bytes: frame.bytes });
    }
    read.await.map_err(|_| EngineError::internal("reading the log was cancelled"))?;
    Ok(past)
}
