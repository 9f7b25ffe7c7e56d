//! From a layer's tar to a directory tree.

mod apply;
pub(crate) mod root;
mod tar;

pub(crate) use apply::copy_directory_attributes;
pub use apply::{UnpackError, unpack_layer};
pub use tar::{Entry, EntryKind, TarError, TarReader};
