//! Following a log: the kernel tells when the file grows or another one takes its place.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::past::{LINE_BYTES_MAX, ROTATED_MAX, Reader};
use super::{LogFrame, Next, Selection};
use crate::clock::Clock;
use crate::container::View;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Watched(Inotify);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Wakes when something happens in the directory of a log.
#[derive(Debug)]
pub(super) struct Watcher(AsyncFd<Watched>);

impl Watcher {
    /// `None` if the kernel has no watch left; then nothing is followed.
    pub(super) fn new(log: &Path) -> Option<Self> {
        let make = || -> std::io::Result<Self> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let flags = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_DELETE_SELF;
            inotify.add_watch(log.parent().unwrap_or(log), flags)?;
            #[expect(
                deprecated,
                reason = "its successor needs `unsafe`; `Watched` owns its descriptor until it is dropped"
            )]
            Ok(Self(AsyncFd::new(Watched(inotify))?))
        };
        make().inspect_err(|error| tracing::warn!(log = %log.display(), %error, "cannot follow")).ok()
    }

    /// Waits for a change, and takes all there are. Cancel-safe: a change that was not taken stays.
    async fn changed(&mut self) -> std::io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let taken = ready.try_io(|watched| watched.get_ref().0.read_events().map_err(Into::into));
            match taken {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

impl Reader {
    /// Sends what has been written since; goes over to newer files when there are some.
    async fn catch_up(&mut self, selection: &Selection, sender: &mpsc::Sender<LogFrame>) -> std::io::Result<Next> {
        loop {
            // looked up before the last read: whatever this file got before another took its place is read then
            let newer = self.newer()?;
            if self.read_to_end(selection, sender).await? == Next::Stop {
                return Ok(Next::Stop);
            }
            let Some(next) = newer else { return Ok(Next::GoOn) };
            self.file = Some(next);
            self.offset = 0;
            self.partial.clear();
        }
    }

    /// The file that follows on the one being read; `None` if that is the newest. Of a file that has been packed meanwhile
    /// the successor is not known, and the newest is taken.
    fn newer(&self) -> std::io::Result<Option<File>> {
        let Some(own) = self.file.as_ref().map(File::metadata).transpose()? else {
            return Ok(File::open(&self.path).ok());
        };
        let Ok(newest) = File::open(&self.path) else { return Ok(None) };
        let mut newer: Option<(File, Metadata)> = None;
        let rotated = (1..ROTATED_MAX).map_while(|number| File::open(format!("{}.{number}", self.path.display())).ok());
        let mut first = None;
        for file in std::iter::once(newest).chain(rotated) {
            let meta = file.metadata()?;
            if same_file(&own, &meta) {
                return Ok(newer.map(|(file, _)| file));
            }
            // a rotation in between shows a file twice
            if newer.as_ref().is_none_or(|(_, known)| !same_file(known, &meta)) {
                if first.is_none() {
                    first = Some(file.try_clone()?);
                }
                newer = Some((file, meta));
            }
        }
        Ok(first)
    }

    async fn read_to_end(&mut self, selection: &Selection, sender: &mpsc::Sender<LogFrame>) -> std::io::Result<Next> {
        let Some(file) = &mut self.file else { return Ok(Next::GoOn) };
        if file.metadata()?.len() < self.offset {
            // emptied: the only file of a log of one file
            self.offset = 0;
            self.partial.clear();
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            file.seek(SeekFrom::Start(self.offset))?;
            let length = file.read(&mut chunk)?;
            if length == 0 {
                return Ok(Next::GoOn);
            }
            self.offset += length as u64;
            self.partial.extend_from_slice(&chunk[..length]);
            while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                match selection.frame(&line) {
                    Ok(Some(frame)) => {
                        if sender.send(frame).await.is_err() {
                            return Ok(Next::Stop);
                        }
                    }
                    Ok(None) => {}
                    Err(next) => return Ok(next),
                }
            }
            if self.partial.len() > LINE_BYTES_MAX {
                self.partial.clear();
            }
        }
    }
}

/// Sends what comes until the container ends, `until` is reached or the reader goes.
pub(super) async fn follow(
    mut reader: Reader,
    mut watcher: Watcher,
    selection: &Selection,
    sender: &mpsc::Sender<LogFrame>,
    mut view: watch::Receiver<Arc<View>>,
    exits: u64,
) {
    let until = selection.options.until.map(|until| {
        let left = u64::try_from(until.saturating_sub(Clock::now_ns())).unwrap_or(0);
        tokio::time::Instant::now() + std::time::Duration::from_nanos(left)
    });
    loop {
        let ended = {
            let view = view.borrow_and_update();
            view.exits > exits || view.removed || !view.record.life.phase.has_process()
        };
        match reader.catch_up(selection, sender).await {
            Ok(Next::GoOn) if !ended => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(log = %reader.path.display(), %error, "cannot follow");
                return;
            }
        }
        let deadline = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        // each arm waits for a state that stays until it is looked at
        tokio::select! {
            changed = watcher.changed() => if changed.is_err() { return },
            changed = view.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
            () = deadline => {
                let _ = reader.catch_up(selection, sender).await;
                return;
            }
        }
    }
}
