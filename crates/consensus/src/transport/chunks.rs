//! Snapshots larger than a gRPC message: the same message again and again, each time with the next slice of the data.

use prost::Message;
use swarm_proto::raftpb;

/// SwarmKit's limit for a gRPC message.
const MAX_GRPC_BYTES: usize = 4 << 20;
/// Kept free in it for what wraps a message.
const MARGIN_BYTES: usize = 1 << 10;
/// Largest snapshot that is put together.
const MAX_SNAPSHOT_BYTES: usize = 1 << 30;

/// Splits a message so that each part can be sent. Only snapshots are ever too large.
pub(super) fn split(mut message: raftpb::Message) -> impl Iterator<Item = raftpb::Message> {
    let data = message.snapshot.as_mut().map(|snapshot| std::mem::take(&mut snapshot.data)).unwrap_or_default();
    let size = MAX_GRPC_BYTES.saturating_sub(message.encoded_len() + MARGIN_BYTES).max(MARGIN_BYTES);
    let count = data.len().div_ceil(size).max(1);
    (0..count).map(move |at| {
        let mut part = message.clone();
        if let Some(snapshot) = &mut part.snapshot {
            snapshot.data = data[at * size..data.len().min((at + 1) * size)].to_vec();
        }
        part
    })
}

/// Why the parts of a message do not make one. The texts are SwarmKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A part of another message.
    #[error(
        "Raft message chunk with index {found} is different from the previously received raft message index {expected}"
    )]
    OtherIndex {
        /// That of the first part.
        expected: u64,
        /// That of this one.
        found: u64,
    },
    /// Only snapshots come in parts.
    #[error("Raft message chunk is not of type {}", raftpb::MessageType::MsgSnap as i32)]
    NotASnapshot,
    /// The whole is too large.
    #[error("raft snapshot is larger than {MAX_SNAPSHOT_BYTES} bytes")]
    TooLarge,
}

/// Puts the parts of a message together.
#[derive(Debug, Default)]
pub struct SnapshotAssembler {
    message: Option<raftpb::Message>,
    limit: Option<usize>,
}

impl SnapshotAssembler {
    /// Takes the next part.
    pub fn push(&mut self, part: raftpb::Message) -> Result<(), ChunkError> {
        let Some(message) = &mut self.message else {
            self.message = Some(part);
            return Ok(());
        };
        if part.index != message.index {
            return Err(ChunkError::OtherIndex { expected: message.index, found: part.index });
        }
        let (Some(whole), Some(next)) = (&mut message.snapshot, part.snapshot) else {
            return Err(ChunkError::NotASnapshot);
        };
        let snap = raftpb::MessageType::MsgSnap as i32;
        if message.kind != snap || part.kind != snap || whole.metadata != next.metadata {
            return Err(ChunkError::NotASnapshot);
        }
        if whole.data.len() + next.data.len() > self.limit.unwrap_or(MAX_SNAPSHOT_BYTES) {
            return Err(ChunkError::TooLarge);
        }
        whole.data.extend(next.data);
        Ok(())
    }

    /// Whether more than one part has come.
    pub fn is_started(&self) -> bool {
        self.message.is_some()
    }

    /// The message; `None` if no part came.
    pub fn finish(self) -> Option<raftpb::Message> {
        self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(bytes: usize) -> raftpb::Message {
        let metadata = raftpb::SnapshotMetadata { index: 7, term: 2, ..Default::default() };
        let data = (0..bytes).map(|at| (at % 251) as u8).collect();
        raftpb::Message {
            kind: raftpb::MessageType::MsgSnap as i32,
            to: 1,
            from: 2,
            term: 3,
            snapshot: Some(raftpb::Snapshot { data, metadata: Some(metadata) }),
            ..Default::default()
        }
    }

    fn check(bytes: usize, parts: usize) {
        let message = snapshot(bytes);
        let split: Vec<_> = split(message.clone()).collect();
        assert_eq!(split.len(), parts, "{bytes} bytes");
        let mut assembler = SnapshotAssembler::default();
        for part in split {
            assert!(part.encoded_len() + 16 <= MAX_GRPC_BYTES);
            assembler.push(part).unwrap();
        }
        assert_eq!(assembler.finish(), Some(message));
    }

    #[test]
    fn snapshots_come_back_whole() {
        check(0, 1);
        check(1_000, 1);
        check((4 << 20) - 2_048, 1);
        check(4 << 20, 2);
        check(9 << 20, 3);
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let mut assembler = SnapshotAssembler { limit: Some(10), ..Default::default() };
        assert!(!assembler.is_started());
        assembler.push(snapshot(6)).unwrap();
        assembler.push(snapshot(4)).unwrap();
        assert_eq!(assembler.push(snapshot(1)), Err(ChunkError::TooLarge));
        let other = raftpb::Message { index: 9, ..snapshot(0) };
        assert_eq!(assembler.push(other), Err(ChunkError::OtherIndex { expected: 0, found: 9 }));
        let append = raftpb::Message { kind: raftpb::MessageType::MsgApp as i32, ..snapshot(0) };
        assert_eq!(assembler.push(append.clone()), Err(ChunkError::NotASnapshot));
        let mut assembler = SnapshotAssembler::default();
        assembler.push(append.clone()).unwrap();
        assert_eq!(assembler.push(append), Err(ChunkError::NotASnapshot));
        assert_eq!(SnapshotAssembler::default().finish(), None);
    }
}
