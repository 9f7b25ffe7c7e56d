//! Containers: their records, their life, volumes, exec, logs, events. The one handle is [`Engine`].
//!
//! A container's process is held by a shim (`skep shim`), so it lives on when this process ends; [`Engine::open`] adopts it.
//!
//! Invariants:
//! - one task owns each container (`owner`): nobody else changes its record;
//! - a record is on disk before a creation is acknowledged; that a container runs is the shim's word;
//! - whatever is found without a record at [`Engine::open`] is removed.

#![forbid(unsafe_code)]

mod adopt;
mod bundle;
mod cgroup_lock;
mod clock;
mod config;
mod container;
mod copy_up;
mod create;
mod endpoint_settings;
mod engine;
mod error;
mod events;
mod exec;
mod host_limits;
mod index;
mod inspect;
mod joined;
mod launch;
mod limits;
mod list;
mod log_options;
mod logs;
mod merge;
mod mount_options;
mod mount_points;
mod names;
mod network;
mod options;
mod orphan;
mod owner;
mod platform;
mod propagation;
mod record;
mod restart;
#[allow(dead_code, reason = "it speaks the whole of the shim's protocol, whatever is asked of it now")]
mod shim_client;
mod signal;
pub mod spec;
mod streams;
mod task_files;
mod top;
mod update;
mod validate;
mod volumes;
mod working_dir;

pub use config::{BUILT_IN_RUNTIME, EngineConfig, RuntimeSpec};
pub use engine::{Counts, Engine, ImageUser, Tallies};
pub use error::{EngineError, ErrorKind};
pub use events::{EventStream, HISTORY_EVENTS};
pub use logs::{LogFrame, LogStream};
pub use network::{
    AttachmentRequest, ContainerNetwork, EtcFiles, IngressAttachment, IngressPort, NetworkBackend, NetworkDriver,
    NetworkEndpoint, NetworkError, NetworkMember, NetworkMode, NetworkName, NetworkRequest, OverlayAttachment,
    PortRequest, Protocol, PublishedPort,
};
pub use options::{
    AttachOptions, CreateOptions, DisconnectMode, FileKind, ListOptions, LogsOptions, ReadOnlyDepth, RemoveOptions,
    SecretFile, Shutdown, SizeMode, StopOptions, TaskOptions, WaitCondition,
};
pub use streams::{Attached, OutputFrame, OutputSource};
