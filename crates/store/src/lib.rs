//! The swarm's objects in memory: versioned, indexed, on persistent maps, so that a [`View`] is cheap to clone and never
//! changes under its reader. Pure: the manager decides when to commit and tells watchers.
//!
//! * [`View`]: one consistent state of all objects with its indexes; [`View::apply`] is atomic.
//! * [`Transaction`]: validated writes on a clone of a view; [`Transaction::finish`] gives the [`Action`]s to propose.
//! * [`stamp`]: fills version and times of actions just before they are proposed.
//! * [`Store`]: the committed view and a bounded log of the last changes.
//! * [`StoreSnapshot`]: all objects as plain lists, for raft snapshots.

#![forbid(unsafe_code)]

mod error;
mod index;
mod object;
mod snapshot;
mod store;
mod table;
mod transaction;
mod view;

pub use error::StoreError;
pub use index::{RefTarget, RefUser};
pub use object::{Action, ActionKind, Event, Kind, Object, ObjectId, StoreObject, stamp};
pub use snapshot::StoreSnapshot;
pub use store::{CHANGE_LOG_LIMIT, Change, Store};
pub use transaction::Transaction;
pub use view::View;
