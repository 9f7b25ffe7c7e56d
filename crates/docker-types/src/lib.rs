//! The Engine API's JSON, per API version, and what it means in `model`. Go's habits are kept: see [`json`].
//!
//! Types of requests are read with [`json::from_slice`]; each has `#[serde(default)]` and no `flatten`, which would hide
//! its field names from the reader.

#![forbid(unsafe_code)]

#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod container;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod container_spec;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod event;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod exec;
pub mod filters;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod image;
pub mod json;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod network;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod node;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod secret;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod service;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod swarm;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod system;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod task;
pub mod time;
pub mod version;
#[allow(missing_docs, reason = "the Engine API's own names; its reference says what they mean")]
pub mod volume;
pub mod words;
