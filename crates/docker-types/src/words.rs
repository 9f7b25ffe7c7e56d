//! The words that Docker uses for SwarmKit's enumerations: lower case of SwarmKit's names, `_` as `-` in some.

use model::{
    AppArmorMode, FailureAction, Isolation, MountConsistency, MountPropagation, MountType, NodeAvailability,
    NodeMembership, NodeRole, NodeState, PortProtocol, PublishMode, Reachability, ResolutionMode, RestartCondition,
    SeccompMode, TaskState, UpdateOrder, UpdateState,
};

/// An enumeration with Docker's words.
pub trait Word: Sized + Copy {
    /// Docker's word.
    fn word(self) -> &'static str;
    /// The value of a word, without regard to case.
    fn from_word(word: &str) -> Option<Self>;
}

macro_rules! words {
    ($($kind:ty { $($variant:ident = $word:literal),* $(,)? })*) => {$(
        impl Word for $kind {
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            fn from_word(word: &str) -> Option<Self> {
                $(if word.eq_ignore_ascii_case($word) { return Some(Self::$variant); })*
                None
            }
        }
    )*};
}

words! {
    NodeRole { Worker = "worker", Manager = "manager" }
    NodeAvailability { Active = "active", Pause = "pause", Drain = "drain" }
    NodeMembership { Pending = "pending", Accepted = "accepted" }
    NodeState { Unknown = "unknown", Down = "down", Ready = "ready", Disconnected = "disconnected" }
    Reachability { Unknown = "unknown", Unreachable = "unreachable", Reachable = "reachable" }
    PortProtocol { Tcp = "tcp", Udp = "udp", Sctp = "sctp" }
    PublishMode { Ingress = "ingress", Host = "host" }
    ResolutionMode { Vip = "vip", Dnsrr = "dnsrr" }
    RestartCondition { None = "none", OnFailure = "on-failure", Any = "any" }
    FailureAction { Pause = "pause", Continue = "continue", Rollback = "rollback" }
    UpdateOrder { StopFirst = "stop-first", StartFirst = "start-first" }
    UpdateState {
        Unknown = "", Updating = "updating", Paused = "paused", Completed = "completed",
        RollbackStarted = "rollback_started", RollbackPaused = "rollback_paused",
        RollbackCompleted = "rollback_completed",
    }
    TaskState {
        New = "new", Pending = "pending", Assigned = "assigned", Accepted = "accepted", Preparing = "preparing",
        Ready = "ready", Starting = "starting", Running = "running", Complete = "complete", Shutdown = "shutdown",
        Failed = "failed", Rejected = "rejected", Remove = "remove", Orphaned = "orphaned",
    }
    MountType { Bind = "bind", Volume = "volume", Tmpfs = "tmpfs", Npipe = "npipe", Cluster = "cluster" }
    MountConsistency {
        Default = "default", Consistent = "consistent", Cached = "cached", Delegated = "delegated",
    }
    MountPropagation {
        Rprivate = "rprivate", Private = "private", Rshared = "rshared", Shared = "shared", Rslave = "rslave",
        Slave = "slave",
    }
    SeccompMode { Default = "default", Unconfined = "unconfined", Custom = "custom" }
    AppArmorMode { Default = "default", Disabled = "disabled" }
    Isolation { Default = "default", Process = "process", Hyperv = "hyperv" }
}
