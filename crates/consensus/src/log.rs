//! The raft log on disk: segments of checked records, preallocated so that an append changes no metadata.
//!
//! A record is `magic u32 | crc32 u32 | length u32 | kind u32 | payload | zeros to a multiple of 8`, little-endian; the
//! checksum covers length, kind and payload. The low four bits of `kind` say what the record is, the others where in the
//! file its append began, in units of 8 bytes.
//!
//! The end of the log is the first place without a valid record. What follows it tells why: records of the same append
//! mean that a write was torn, for a disk may keep its sectors in any order, and the tail is cut off; a record of a later
//! append means that what is broken had been on the disk, and the log is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use prost::Message;
use swarm_proto::raftpb;

use crate::core::Record;

/// Size of a new segment.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Opens every record.
const MAGIC: u32 = 0x504b_5331;
/// Length of a record's header.
const HEADER_BYTES: usize = 16;
/// Bits of `kind` that say what a record is.
const KIND_BITS: u32 = 4;
/// Longest payload: SwarmKit's entry limit with room for what encryption adds, times four.
const MAX_PAYLOAD_BYTES: usize = 8 << 20;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file could not be read or written.
    #[error("raft log {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record is broken and valid ones follow.
    #[error(
        "raft log {path} is damaged at byte {offset}, and there are records after it{}",
        crate::core::load::MENDING
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
    /// A record is larger than any that is written.
    #[error("a raft record of {0} bytes is too large")]
    TooLarge(usize),
}

/// The open log.
pub(crate) struct Log {
    folder: PathBuf,
    file: File,
    path: PathBuf,
    /// Where the next record goes.
    end: u64,
    size: u64,
    /// First entry index of each segment, oldest first; the last is the open one.
    segments: Vec<Segment>,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Segment {
    sequence: u64,
    path: PathBuf,
    /// Highest entry index in it; 0 for none.
    last_index: u64,
}

impl Log {
    /// Opens the log in `folder`, made if it is absent, and returns every record in order.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Record>), LogError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LogError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        let mut segments = list(folder).map_err(io(folder))?;
        let mut records = Vec::new();
        let mut end = 0;
        let count = segments.len();
        for (at, segment) in segments.iter_mut().enumerate() {
            let bytes = fs::read(&segment.path).map_err(io(&segment.path))?;
            let (found, used) = scan(&segment.path, &bytes)?;
            if at + 1 < count && used < bytes.len() && bytes[used..].iter().any(|byte| *byte != 0) {
                return Err(LogError::Damaged { path: segment.path.clone(), offset: used });
            }
            segment.last_index = last_index(&found);
            records.extend(found);
            end = used as u64;
        }
        if segments.is_empty() {
            segments.push(create(folder, 0).map_err(io(folder))?);
            end = 0;
        }
        let path = segments[segments.len() - 1].path.clone();
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io(&path))?;
        let size = file.metadata().map_err(io(&path))?.len();
        wipe(&file, end, size).map_err(io(&path))?;
        let log = Self { folder: folder.to_owned(), file, path, end, size, segments, buffer: Vec::new() };
        Ok((log, records))
    }

    /// Appends records and waits until they are on the disk. On an error nothing after the old end counts.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), LogError> {
        if records.is_empty() {
            return Ok(());
        }
        self.encode(records)?;
        if self.end + self.buffer.len() as u64 > self.size {
            self.next_segment()?;
            self.encode(records)?;
        }
        let io = |source| LogError::Io { path: self.path.clone(), source };
        self.file.write_all_at(&self.buffer, self.end).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        self.end += self.buffer.len() as u64;
        if let Some(segment) = self.segments.last_mut() {
            segment.last_index = segment.last_index.max(last_index(records));
        }
        Ok(())
    }

    fn encode(&mut self, records: &[Record]) -> Result<(), LogError> {
        self.buffer.clear();
        records.iter().try_for_each(|record| encode(record, self.end, &mut self.buffer))
    }

    /// Removes segments that hold nothing beyond `index`; the open one stays.
    pub(crate) fn compact(&mut self, index: u64) -> Result<(), LogError> {
        while self.segments.len() > 1 && self.segments[0].last_index <= index {
            let segment = self.segments.remove(0);
            fs::remove_file(&segment.path).map_err(|source| LogError::Io { path: segment.path, source })?;
        }
        Ok(())
    }

    fn next_segment(&mut self) -> Result<(), LogError> {
        let sequence = self.segments.last().map_or(0, |segment| segment.sequence + 1);
        let io = |source| LogError::Io { path: self.folder.clone(), source };
        let segment = create(&self.folder, sequence).map_err(io)?;
        self.file = OpenOptions::new().read(true).write(true).open(&segment.path).map_err(io)?;
        self.path = segment.path.clone();
        self.size = SEGMENT_BYTES.max(self.buffer.len() as u64);
        self.end = 0;
        self.segments.push(segment);
        Ok(())
    }
}

fn last_index(records: &[Record]) -> u64 {
    let index = |record: &Record| match record {
        Record::Entry(entry) => entry.index,
        Record::Installed { index, .. } => *index,
        Record::HardState(_) => 0,
    };
    records.iter().map(index).max().unwrap_or(0)
}

fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(sequence) = name.strip_suffix(".log").and_then(|text| u64::from_str_radix(text, 16).ok()) {
            segments.push(Segment { sequence, path, last_index: 0 });
        } else if name.ends_with(".tmp") {
            fs::remove_file(&path)?;
        }
    }
    segments.sort_by_key(|segment| segment.sequence);
    Ok(segments)
}

/// A new segment appears with its full size or not at all.
fn create(folder: &Path, sequence: u64) -> io::Result<Segment> {
    let path = folder.join(format!("{sequence:016x}.log"));
    let temporary = folder.join(format!("{sequence:016x}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, SEGMENT_BYTES as i64)
        .map_err(io::Error::from)?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(Segment { sequence, path, last_index: 0 })
}

/// Zeroes what a torn write left after the end, so that it can never be taken for records.
fn wipe(file: &File, end: u64, size: u64) -> io::Result<()> {
    const CHUNK: usize = 64 << 10;
    let zeros = vec![0; CHUNK];
    let mut bytes = vec![0; CHUNK];
    let mut at = end;
    let mut dirty = false;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        file.read_exact_at(&mut bytes[..length], at)?;
        if bytes[..length].iter().any(|byte| *byte != 0) {
            file.write_all_at(&zeros[..length], at)?;
            dirty = true;
        }
        at += length as u64;
    }
    if dirty { file.sync_data() } else { Ok(()) }
}

fn encode(record: &Record, append_start: u64, out: &mut Vec<u8>) -> Result<(), LogError> {
    let (kind, payload) = match record {
        Record::Entry(entry) => (1u32, entry.encode_to_vec()),
        Record::HardState(state) => (2u32, state.encode_to_vec()),
        Record::Installed { index, term } => {
            let metadata = raftpb::SnapshotMetadata { index: *index, term: *term, conf_state: None };
            (3u32, metadata.encode_to_vec())
        }
    };
    // A segment is 8 MiB, or one append: far from what 28 bits hold.
    let kind = kind | ((append_start / 8) as u32) << KIND_BITS;
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(LogError::TooLarge(payload.len()));
    }
    let length = payload.len() as u32;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(&kind.to_le_bytes());
    hasher.update(&payload);
    for word in [MAGIC, hasher.finalize(), length, kind] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&payload);
    out.resize(out.len().next_multiple_of(8), 0);
    Ok(())
}

/// All records from the start, and how many bytes they take.
fn scan(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, usize), LogError> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(found) = decode(&bytes[at..]) {
        records.push(found.record);
        at += found.size;
    }
    let mut later = at + 8;
    while later + HEADER_BYTES <= bytes.len() {
        if bytes[later..later + 4] == MAGIC.to_le_bytes()
            && decode(&bytes[later..]).is_some_and(|found| found.append_start > at)
        {
            return Err(LogError::Damaged { path: path.to_owned(), offset: at });
        }
        later += 8;
    }
    Ok((records, at))
}

struct Decoded {
    record: Record,
    /// With header and padding.
    size: usize,
    /// Where in the file the append began that wrote it.
    append_start: usize,
}

fn decode(bytes: &[u8]) -> Option<Decoded> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != MAGIC {
        return None;
    }
    let (crc, length, kind) = (word(4)?, word(8)?, word(12)?);
    let size = usize::try_from(length).ok().filter(|size| *size <= MAX_PAYLOAD_BYTES)?;
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + size)?;
    if crc32fast::hash(bytes.get(8..HEADER_BYTES + size)?) != crc {
        return None;
    }
    let record = match kind & ((1 << KIND_BITS) - 1) {
        1 => Record::Entry(raftpb::Entry::decode(payload).ok()?),
        2 => Record::HardState(raftpb::HardState::decode(payload).ok()?),
        3 => {
            let metadata = raftpb::SnapshotMetadata::decode(payload).ok()?;
            Record::Installed { index: metadata.index, term: metadata.term }
        }
        _ => return None,
    };
    let append_start = (kind >> KIND_BITS) as usize * 8;
    Some(Decoded { record, size: (HEADER_BYTES + size).next_multiple_of(8), append_start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Record {
        Record::Entry(raftpb::Entry { index, term: 1, data: vec![index as u8; 20], ..Default::default() })
    }

    #[test]
    fn a_log_cut_at_any_byte_of_its_tail_opens_with_what_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, records) = Log::open(folder.path()).unwrap();
        assert!(records.is_empty());
        log.append(&[entry(1), entry(2)]).unwrap();
        let whole = log.end;
        log.append(&[entry(3)]).unwrap();
        let full = log.end;
        let path = log.path.clone();
        drop(log);
        let bytes = fs::read(&path).unwrap();
        for cut in whole..full {
            let mut torn = bytes.clone();
            torn[cut as usize..].fill(0);
            fs::write(&path, &torn).unwrap();
            let (_, records) = Log::open(folder.path()).unwrap();
            let expected = if torn == bytes { 3 } else { 2 };
            assert_eq!(records.len(), expected, "cut at {cut}");
        }
        let mut torn = bytes.clone();
        torn[whole as usize + 20] ^= 0xff;
        fs::write(&path, &torn).unwrap();
        let (mut log, records) = Log::open(folder.path()).unwrap();
        assert_eq!(records.len(), 2);
        log.append(&[entry(3)]).unwrap();
        let (_, records) = Log::open(folder.path()).unwrap();
        assert_eq!(records.len(), 3);
    }

    #[test]
    fn damage_of_what_was_on_the_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        log.append(&[entry(1)]).unwrap();
        let second = log.end;
        log.append(&[entry(2)]).unwrap();
        let third = log.end;
        log.append(&[entry(3)]).unwrap();
        let path = log.path.clone();
        drop(log);
        let whole = fs::read(&path).unwrap();
        for broken in [0, second] {
            let mut bytes = whole.clone();
            bytes[broken as usize + 20] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = Log::open(folder.path()).map(drop).unwrap_err();
            assert!(matches!(error, LogError::Damaged { offset, .. } if offset as u64 == broken), "{error}");
        }
        // At the tail it cannot be told from a torn write.
        let mut bytes = whole;
        bytes[third as usize + 20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Log::open(folder.path()).unwrap().1.len(), 2);
    }

    /// A disk may keep the later sectors of a write and lose the earlier ones.
    #[test]
    fn an_append_that_lost_its_first_part_is_torn_not_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        log.append(&[entry(1)]).unwrap();
        let second = log.end as usize;
        log.append(&[entry(2), entry(3), entry(4)]).unwrap();
        let path = log.path.clone();
        drop(log);
        let mut bytes = fs::read(&path).unwrap();
        bytes[second..second + 16].fill(0);
        fs::write(&path, &bytes).unwrap();
        let (mut log, records) = Log::open(folder.path()).unwrap();
        assert_eq!(records, [entry(1)]);
        // What was left of it is gone, too.
        log.append(&[entry(2)]).unwrap();
        drop(log);
        assert_eq!(Log::open(folder.path()).unwrap().1, [entry(1), entry(2)]);
    }

    #[test]
    fn segments_follow_each_other_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        let big = |index| Record::Entry(raftpb::Entry { index, term: 1, data: vec![1; 3 << 20], ..Default::default() });
        for index in 1..=6 {
            log.append(&[big(index)]).unwrap();
        }
        assert_eq!(log.segments.len(), 3);
        log.compact(4).unwrap();
        assert_eq!(log.segments.len(), 1);
        let (_, records) = Log::open(folder.path()).unwrap();
        assert_eq!(last_index(&records), 6);
        assert_eq!(records.len(), 2);
    }

    #[test]
    fn every_kind_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = Record::HardState(raftpb::HardState { term: 3, vote: 2, commit: 1 });
        let records = [state, Record::Installed { index: 9, term: 3 }, entry(10)];
        Log::open(folder.path()).unwrap().0.append(&records).unwrap();
        assert_eq!(Log::open(folder.path()).unwrap().1, records);
    }
}
