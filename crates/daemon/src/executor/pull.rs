//! Images for tasks. Tasks of one service ask for the same image at once: the registry is asked once. A registry that
//! could not be reached is not asked again for a while when the image is here, so that it does not slow every start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use image::{AuthConfig, ImageStore, ProgressSender};
use oci_types::Reference;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer of the registry, good or bad, holds for images that are here.
const FRESH: Duration = Duration::from_secs(10);
/// References that are remembered.
const MAX_REMEMBERED: usize = 256;

/// Pulls images.
pub(crate) struct Puller {
    images: ImageStore,
    asked: Mutex<BTreeMap<String, Arc<Mutex<Option<Instant>>>>>,
}

impl Puller {
    pub(crate) fn new(images: ImageStore) -> Self {
        Self { images, asked: Mutex::default() }
    }

    /// Brings an image up to date. A failure is no error as long as the image is here; creating the container tells if it
    /// is not. Returns the text of a failed pull.
    pub(crate) async fn ensure(&self, image: &str, registry_auth: &str) -> Option<String> {
        let Ok(reference) = image.parse::<Reference>() else { return None };
        if reference.digest().is_some() && self.images.resolve(image).is_ok() {
            return None;
        }
        let turn = self.turn(image).await;
        let mut asked = turn.lock().await;
        let is_fresh = asked.is_some_and(|at| at.elapsed() < FRESH);
        if is_fresh && self.images.resolve(image).is_ok() {
            return None;
        }
        let auth = AuthConfig::decode(registry_auth).unwrap_or_default();
        let pulled = self.images.pull(&reference, None, auth.as_ref(), ProgressSender::none()).await;
        *asked = Some(Instant::now());
        pulled.err().map(|error| {
            tracing::warn!(image, %error, "pulling image failed");
            error.to_string()
        })
    }

    async fn turn(&self, image: &str) -> Arc<Mutex<Option<Instant>>> {
        let mut asked = self.asked.lock().await;
        if asked.len() >= MAX_REMEMBERED {
            // Those that nobody waits for.
            asked.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        asked.entry(image.to_owned()).or_default().clone()
    }
}
