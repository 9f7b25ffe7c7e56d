//! The disk's thread: it seals records, writes them and waits until they are there, so that a slow disk does not keep
//! heartbeats from being sent. All that waits is written together and shares one `fdatasync`.
//!
//! It ends at the first error and writes nothing after it: what the kernel dropped once it does not try again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use swarm_proto::raftpb;

use crate::cipher::Keys;
use crate::core::Record;
use crate::driver::StartError;
use crate::inbox::{Command, Inbox};
use crate::log::Log;
use crate::snapshot;

/// Writes that may wait; then raft waits for the disk.
const QUEUE: usize = 1_024;
/// Records that are written together.
const MAX_RECORDS: usize = 16_384;

/// Work for the disk.
pub(crate) enum Job {
    /// Records of an output, and the snapshot that comes before them.
    Write { number: u64, install: Option<Arc<raftpb::Snapshot>>, records: Vec<Record> },
    /// From here on records are sealed with another key.
    Keys(Keys),
    /// The log up to this index is needed no more.
    Compact(u64),
}

/// The log, and the folder of the snapshots.
pub(crate) struct Disk {
    pub(crate) log: Log,
    pub(crate) snapshots: PathBuf,
    pub(crate) keys: Keys,
}

/// Where raft's state lies.
pub(crate) fn log_folder(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Where its snapshots lie.
pub(crate) fn snapshot_folder(folder: &Path) -> PathBuf {
    folder.join("snap")
}

impl Disk {
    /// Starts the thread. It ends when the sender is dropped and all is written.
    pub(crate) fn start(self, inbox: Inbox) -> std::io::Result<(SyncSender<Job>, JoinHandle<()>)> {
        let (jobs, queue) = sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name("raft-disk".to_owned()).spawn(move || self.run(&queue, &inbox))?;
        Ok((jobs, thread))
    }

    fn run(mut self, queue: &Receiver<Job>, inbox: &Inbox) {
        while let Ok(first) = queue.recv() {
            let rest = std::iter::from_fn(|| queue.try_recv().ok());
            if let Err(error) = self.work(std::iter::once(first).chain(rest), inbox) {
                inbox.tell(Command::DiskFailed(Box::new(error)));
                return;
            }
        }
    }

    fn work(&mut self, jobs: impl Iterator<Item = Job>, inbox: &Inbox) -> Result<(), StartError> {
        let mut batch = Batch::default();
        for job in jobs {
            match job {
                Job::Write { number, install, records } => {
                    if let Some(snapshot) = install {
                        self.flush(&mut batch, inbox)?;
                        self.install(&snapshot)?;
                    }
                    batch.number = Some(number);
                    self.seal(records, &mut batch.records)?;
                    if batch.records.len() >= MAX_RECORDS {
                        self.flush(&mut batch, inbox)?;
                    }
                }
                Job::Keys(keys) => self.keys = keys,
                Job::Compact(index) => self.log.compact(index)?,
            }
        }
        self.flush(&mut batch, inbox)
    }

    fn flush(&mut self, batch: &mut Batch, inbox: &Inbox) -> Result<(), StartError> {
        self.log.append(&batch.records)?;
        batch.records.clear();
        if let Some(number) = batch.number.take() {
            inbox.tell(Command::Persisted(number));
        }
        Ok(())
    }

    fn install(&self, snapshot: &raftpb::Snapshot) -> Result<(), StartError> {
        let stored = snapshot::store(&self.snapshots, self.keys.current(), snapshot.clone());
        stored.map(drop).map_err(|source| StartError::Snapshot { folder: self.snapshots.clone(), source })
    }

    fn seal(&self, records: Vec<Record>, out: &mut Vec<Record>) -> Result<(), StartError> {
        for mut record in records {
            if let Record::Entry(entry) = &mut record
                && !entry.data.is_empty()
            {
                let sealed = self.keys.current().seal(&entry.data);
                entry.data = sealed.map_err(|source| StartError::Cipher { index: entry.index, source })?;
            }
            out.push(record);
        }
        Ok(())
    }

    /// Writes records outside the thread: those that a beginning puts into the log.
    pub(crate) fn write_now(&mut self, records: Vec<Record>) -> Result<(), StartError> {
        let mut sealed = Vec::new();
        self.seal(records, &mut sealed)?;
        Ok(self.log.append(&sealed)?)
    }
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    /// The last output that is in it.
    number: Option<u64>,
}
