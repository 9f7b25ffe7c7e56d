//! A manager's disk: what was written and what is there after a crash. Writes take a while, many share one sync, and a
//! crash loses what was not synced, or tears it: any first part of the write under way may be there.
//!
//! Entries and snapshots are sealed with a key, as on a real disk; the key file holds the present one and, while a
//! rotation is not finished, the one before.

use std::collections::{BTreeMap, VecDeque};

use consensus::core::{Record, Stored};
use stdx::Rng;
use swarm_proto::raftpb;

use crate::bug::Bug;
use crate::ctx::{Ctx, Host, MILLI, SECOND, Timer};

/// Work for the disk, in order.
pub(crate) enum Job {
    /// Records of an output, and the snapshot that comes before them.
    Write { number: u64, install: Option<raftpb::Snapshot>, records: Vec<Record> },
    /// The log up to this index is needed no more.
    Compact(u64),
}

/// What is on the disk, and what is on its way.
#[derive(Default)]
pub(crate) struct Disk {
    log: Vec<Record>,
    snapshots: BTreeMap<u64, raftpb::Snapshot>,
    key: u8,
    old_key: Option<u8>,
    waiting: VecDeque<Job>,
    /// How many of `waiting` are being written.
    under_way: usize,
    /// The snapshot that is being written, and the generation of the key when it was begun.
    snapshot: Option<(raftpb::Snapshot, u64)>,
    /// How many times longer everything takes.
    pub(crate) slowness: u64,
}

impl Disk {
    /// Gives the disk something to do. Says which output is to be called persisted at once: with a bug only.
    pub(crate) fn submit(&mut self, ctx: &mut Ctx, host: Host, mut job: Job) -> Option<u64> {
        let mut early = None;
        if let Job::Write { number, install, records } = &mut job {
            for record in records.iter_mut() {
                if let Record::Entry(entry) = record {
                    seal(&mut entry.data, self.key);
                }
            }
            if let Some(snapshot) = install {
                seal(&mut snapshot.data, self.key);
            }
            early = ctx.has(Bug::AckBeforeSync).then_some(*number);
        }
        self.waiting.push_back(job);
        self.start(ctx, host);
        early
    }

    fn start(&mut self, ctx: &mut Ctx, host: Host) {
        if self.under_way > 0 || self.waiting.is_empty() {
            return;
        }
        self.under_way = self.waiting.len();
        let longest = if ctx.calm { 2 * MILLI } else { 20 * MILLI };
        let delay = ctx.between(MILLI / 2, longest) * self.slowness.max(1);
        ctx.after(host, delay, Timer::DiskDone);
    }

    /// What was under way is there. Returns the last output that is.
    pub(crate) fn finish(&mut self, ctx: &mut Ctx, host: Host) -> Option<u64> {
        let mut persisted = None;
        let jobs: Vec<_> = self.waiting.drain(..std::mem::take(&mut self.under_way)).collect();
        for job in jobs {
            if let Job::Write { number, .. } = &job {
                persisted = Some(*number);
            }
            self.keep(job);
        }
        self.start(ctx, host);
        persisted
    }

    fn keep(&mut self, job: Job) {
        match job {
            Job::Write { install, records, .. } => {
                if let Some(snapshot) = install {
                    self.keep_snapshot(snapshot);
                }
                self.log.extend(records);
            }
            Job::Compact(until) => self.compact(until),
        }
    }

    fn keep_snapshot(&mut self, snapshot: raftpb::Snapshot) {
        let index = snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index);
        // Not a later one: the leader's may have come while this one was being made.
        self.snapshots.retain(|other, _| *other > index);
        self.snapshots.insert(index, snapshot);
    }

    fn compact(&mut self, until: u64) {
        let keeps = |record: &Record| matches!(record, Record::Entry(entry) if entry.index > until);
        let first_kept = self.log.iter().position(keeps).unwrap_or(self.log.len());
        let dropped: Vec<_> = self.log.drain(..first_kept).collect();
        // A segment begins with the newest of what is no entry.
        let mut rest: Vec<Record> = Vec::new();
        for record in dropped.into_iter().rev() {
            let is_new = match &record {
                Record::Entry(_) => false,
                Record::HardState(_) => !rest.iter().any(|it| matches!(it, Record::HardState(_))),
                Record::Installed { .. } => !rest.iter().any(|it| matches!(it, Record::Installed { .. })),
            };
            if is_new {
                rest.insert(0, record);
            }
        }
        rest.append(&mut self.log);
        self.log = rest;
    }

    /// Begins to write a snapshot beside the log.
    pub(crate) fn write_snapshot(
        &mut self,
        ctx: &mut Ctx,
        host: Host,
        mut snapshot: raftpb::Snapshot,
        generation: u64,
    ) {
        seal(&mut snapshot.data, self.key);
        self.snapshot = Some((snapshot, generation));
        let delay = ctx.between(5 * MILLI, SECOND / 2) * self.slowness.max(1);
        ctx.after(host, delay, Timer::SnapshotDone);
    }

    /// The snapshot is there: its index, size and generation.
    pub(crate) fn finish_snapshot(&mut self) -> Option<(u64, u64, u64)> {
        let (snapshot, generation) = self.snapshot.take()?;
        let index = snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index);
        let bytes = snapshot.data.len() as u64;
        self.keep_snapshot(snapshot);
        Some((index, bytes, generation))
    }

    /// The stored snapshot with this index, to be sent.
    pub(crate) fn snapshot_at(&self, index: u64) -> Option<raftpb::Snapshot> {
        let mut snapshot = self.snapshots.get(&index)?.clone();
        self.open(&mut snapshot.data, index).ok()?;
        Some(snapshot)
    }

    /// The machine stops: what was not synced is lost, or torn.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let under_way = std::mem::take(&mut self.under_way);
        let jobs: Vec<_> = self.waiting.drain(..).take(under_way).collect();
        let mut is_whole = rng.below(2) == 0;
        for job in jobs {
            match job {
                Job::Write { install, records, .. } if is_whole => {
                    if let Some(snapshot) = install {
                        self.keep_snapshot(snapshot);
                        // The file may be there without the records that speak of it.
                        is_whole = rng.below(2) == 0;
                    }
                    let kept = if is_whole { rng.below(records.len() as u64 + 1) as usize } else { 0 };
                    is_whole &= kept == records.len();
                    self.log.extend(records.into_iter().take(kept));
                }
                Job::Write { .. } | Job::Compact(_) => {}
            }
        }
        if let Some((snapshot, _)) = self.snapshot.take()
            && rng.below(2) == 0
        {
            self.keep_snapshot(snapshot);
        }
    }

    /// Writes what a beginning puts into the log, at once.
    pub(crate) fn write_now(&mut self, records: Vec<Record>) {
        for mut record in records {
            if let Record::Entry(entry) = &mut record {
                seal(&mut entry.data, self.key);
            }
            self.log.push(record);
        }
    }

    /// What a start finds.
    pub(crate) fn load(&self, bug: Option<Bug>) -> Result<Stored, String> {
        let mut snapshot = self.snapshots.values().next_back().cloned();
        if let Some(snapshot) = &mut snapshot {
            let index = snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index);
            self.open(&mut snapshot.data, index)?;
        }
        let mut stored = Stored::from_records(snapshot, self.log.clone()).map_err(|error| error.to_string())?;
        for entry in &mut stored.entries {
            self.open(&mut entry.data, entry.index)?;
        }
        if bug == Some(Bug::VoteForgotten) {
            stored.hard_state.vote = 0;
        }
        Ok(stored)
    }

    /// Whether nothing was ever written.
    pub(crate) fn is_empty(&self) -> bool {
        self.log.is_empty() && self.snapshots.is_empty()
    }

    /// Everything is sealed with another key from now on.
    pub(crate) fn rotate_key(&mut self) {
        self.old_key = Some(self.key);
        self.key = self.key.wrapping_add(1);
    }

    /// Whether the old key is still kept.
    pub(crate) fn is_rotating(&self) -> bool {
        self.old_key.is_some()
    }

    /// The old key leaves the key file.
    pub(crate) fn forget_old_key(&mut self) {
        self.old_key = None;
    }

    fn open(&self, data: &mut Vec<u8>, index: u64) -> Result<(), String> {
        match data.pop() {
            None => Ok(()),
            Some(key) if key == self.key || Some(key) == self.old_key => Ok(()),
            Some(_) => Err(format!("what is at index {index} is sealed with a key that is gone")),
        }
    }
}

/// As a real seal does, it leaves nothing as it was, so that what is empty stays so.
fn seal(data: &mut Vec<u8>, key: u8) {
    if !data.is_empty() {
        data.push(key);
    }
}
