//! Why a write is refused. The texts are SwarmKit's, they reach the API's users.

use crate::object::ObjectId;
use thiserror::Error;

/// Why an action or a transaction's write was refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The object to create is there already.
    #[error("object already exists")]
    Exists(ObjectId),
    /// The object to update or remove is not there.
    #[error("object does not exist")]
    NotFound(ObjectId),
    /// Another object of the kind has this name (compared lower-cased).
    #[error("name conflicts with an existing object")]
    NameConflict {
        /// The object that wants the name.
        id: ObjectId,
        /// The name.
        name: String,
    },
    /// The object was changed since the caller read it.
    #[error("update out of sequence")]
    OutOfSequence {
        /// The object.
        id: ObjectId,
        /// The version that the caller read.
        given: model::ObjectVersion,
        /// The version in the store.
        stored: model::ObjectVersion,
    },
}
