//! The `manifest.json` of an archive made by `docker save`.

use serde::{Deserialize, Serialize};

use crate::null_default;

/// One image of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ArchiveEntry {
    /// Path of the image configuration in the archive.
    pub config: String,
    /// Names given to the image, `repository:tag`.
    #[serde(deserialize_with = "null_default")]
    pub repo_tags: Vec<String>,
    /// Paths of the layers in the archive, the base first.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<String>,
}
