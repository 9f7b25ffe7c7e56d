//! Containers: their records, their life, volumes, exec, logs, events. The one handle is [`Engine`].
//!
//! A container's process is held by a shim (`skep shim`), so it lives on when this process ends; `Engine::open` adopts it.
//!
//! Invariants:
//! - one task owns each container ([`owner`]): nobody else changes its record;
//! - a record is on disk before what it says can be seen by the user, except that a container runs: that is the shim's word;
//! - whatever is found without a record at `Engine::open` is removed.

#![forbid(unsafe_code)]

mod clock;
mod config;
mod error;
mod events;
mod mount_options;
mod network;
mod options;
mod record;
mod volumes;

pub use config::{BUILT_IN_RUNTIME, EngineConfig, RuntimeSpec};
pub use error::{EngineError, ErrorKind};
pub use events::{EventStream, HISTORY_EVENTS};
pub use network::{
    ContainerNetwork, EtcFiles, IngressAttachment, IngressPort, NetworkBackend, NetworkEndpoint, NetworkError,
    NetworkMode, NetworkRequest, PortRequest, Protocol, PublishedPort,
};
pub use options::{
    AttachOptions, CreateOptions, FileKind, ListOptions, LogsOptions, RemoveOptions, SecretFile, Shutdown, SizeMode,
    StopOptions, TaskOptions, WaitCondition,
};
