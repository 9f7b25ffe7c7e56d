//! Bugs that others had, to be put into the shells of the simulation: each must be caught by a checker. The product's own
//! code has no switch for them.

/// A bug of a kind that etcd, SwarmKit or others had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// The disk says that a write is there before it is.
    AckBeforeSync,
    /// After a restart a manager does not know whom it voted for.
    VoteForgotten,
    /// Snapshots do not hold the members of the group.
    SnapshotWithoutMembership,
    /// The log is compacted before the snapshot is on the disk.
    CompactBeforeSnapshot,
    /// The old key is thrown away while entries on the disk still need it.
    KeyForgotten,
    /// A manager answers reads as the leader although it leads no more.
    StaleRead,
    /// A write is answered when it is proposed, not when it is committed.
    AckBeforeCommit,
    /// A new leader goes on with the speculative view of its former leadership.
    SpeculationKept,
    /// A committed entry is applied a second time.
    AppliedTwice,
    /// A node that comes back gets changes only, not the whole set.
    LostAssignment,
    /// Reported statuses are written although they are old.
    StatusBack,
    /// A demoted manager's node becomes a worker while the group still counts it.
    DemotedStillCounted,
    /// An agent says that a container has stopped before it has.
    StoppedTooEarly,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::AckBeforeSync,
        Self::VoteForgotten,
        Self::SnapshotWithoutMembership,
        Self::CompactBeforeSnapshot,
        Self::KeyForgotten,
        Self::StaleRead,
        Self::AckBeforeCommit,
        Self::SpeculationKept,
        Self::AppliedTwice,
        Self::LostAssignment,
        Self::StatusBack,
        Self::DemotedStillCounted,
        Self::StoppedTooEarly,
    ];
}
