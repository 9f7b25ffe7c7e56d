//! The download of one layer: waits for a slot, resumes what an earlier attempt left, verifies, commits.
//!
//! Bytes go through a bounded queue to one blocking writer, which owns the partial file and holds the layer's lock:
//! a download that is dropped leaves a partial file that is a true beginning of the layer, and the next one, which
//! has to wait for the writer's end, goes on from there.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use oci_types::{Descriptor, Digest, Reference};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc};

use super::blobs::{Hasher, context};
use super::pull::REPORT_INTERVAL;
use super::{ImageStore, Inner};
use crate::registry::{Answer, Session};
use crate::{ImageError, LayerStatus, Progress, ProgressSender};

/// Pieces between socket and disk.
const QUEUE_MAX: usize = 32;
/// Longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(20);
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// All that a download needs.
pub(super) struct Download {
    pub(super) store: ImageStore,
    pub(super) slots: Arc<Semaphore>,
    pub(super) attempts_max: usize,
    pub(super) session: Session,
    pub(super) reference: Reference,
    pub(super) descriptor: Descriptor,
    pub(super) progress: ProgressSender,
}

/// A partial file with the digest of what it holds.
struct Partial {
    size: u64,
    hasher: Hasher,
    turn: OwnedMutexGuard<()>,
}

/// How one attempt ended.
enum Attempt {
    Complete(Partial),
    /// Something came, or nothing; it may be tried again.
    Interrupted(ImageError, Partial),
}

/// Brings the layer into the blobs.
pub(super) async fn download(job: Download) -> Result<(), ImageError> {
    let id = job.descriptor.digest.short().to_string();
    let (slot, waited) = match job.slots.clone().try_acquire_owned() {
        Ok(slot) => (slot, false),
        Err(_) => {
            job.progress.layer(&id, LayerStatus::Waiting).await;
            (job.slots.clone().acquire_owned().await.map_err(|_| ImageError::Cancelled)?, true)
        }
    };
    let _slot = slot;
    if !waited && job.store.0.downloads.is_locked(&job.descriptor.digest) {
        job.progress.layer(&id, LayerStatus::Waiting).await;
    }
    let turn = job.store.0.downloads.lock(&job.descriptor.digest).await;
    if !job.store.0.blobs.has(&job.descriptor.digest) {
        fetch(&job, &id, turn).await?;
    }
    job.progress.layer(&id, LayerStatus::DownloadComplete).await;
    Ok(())
}

async fn fetch(job: &Download, id: &str, turn: OwnedMutexGuard<()>) -> Result<(), ImageError> {
    let digest = job.descriptor.digest.clone();
    let mut partial = job.store.blocking(move |inner| open_partial(inner, &digest, turn)).await?;
    let mut failures = 0;
    let mut restarted = false;
    loop {
        let before = partial.size;
        match attempt(job, id, partial).await? {
            Attempt::Complete(complete) => {
                job.progress.layer(id, LayerStatus::VerifyingChecksum).await;
                let resumed = before > 0;
                match commit(job, complete).await? {
                    None => return Ok(()),
                    // the beginning may have come from somewhere else: once more from the start
                    Some(empty) if resumed && !restarted => {
                        restarted = true;
                        partial = empty;
                    }
                    Some(_) => {
                        let reason =
                            format!("filesystem layer verification failed for digest {}", job.descriptor.digest);
                        return Err(ImageError::bad(job.reference.familiar(), reason));
                    }
                }
            }
            Attempt::Interrupted(error, rest) => {
                failures = if rest.size > before { 1 } else { failures + 1 };
                if failures >= job.attempts_max {
                    return Err(error);
                }
                tracing::debug!(layer = id, %error, failures, "download interrupted");
                let pause = backoff(failures);
                let seconds = pause.as_secs_f64().ceil() as u64;
                job.progress.layer(id, LayerStatus::Retrying { seconds }).await;
                tokio::time::sleep(pause).await;
                partial = rest;
            }
        }
    }
}

fn backoff(failures: usize) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10) as u32);
    doubled.min(BACKOFF_MAX)
}

/// Reads what an earlier attempt left.
fn open_partial(inner: &Inner, digest: &Digest, turn: OwnedMutexGuard<()>) -> Result<Partial, ImageError> {
    let path = inner.blobs.partial_path(digest);
    let failed = |error| ImageError::io(context("read", &path), error);
    let mut partial = Partial { size: 0, hasher: Hasher::new(), turn };
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(partial),
        Err(error) => return Err(failed(error)),
    };
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(partial);
        }
        partial.hasher.update(&buffer[..count]);
        partial.size += count as u64;
    }
}

/// One request, from where the partial file ends.
async fn attempt(job: &Download, id: &str, mut partial: Partial) -> Result<Attempt, ImageError> {
    let total = job.descriptor.size;
    if partial.size > total {
        partial = Partial { size: 0, hasher: Hasher::new(), turn: partial.turn };
    }
    if partial.size == total && total > 0 {
        return Ok(Attempt::Complete(partial));
    }
    let answer = match job.session.blob(&job.reference, &job.descriptor.digest, partial.size).await {
        Ok(answer) => answer,
        Err(error) if is_passing(&error) => return Ok(Attempt::Interrupted(error, partial)),
        Err(error) => return Err(error),
    };
    let continues = answer.status() == StatusCode::PARTIAL_CONTENT && range_start(&answer) == Some(partial.size);
    if !continues {
        let whole = answer.status() == StatusCode::OK;
        partial = Partial { size: 0, hasher: Hasher::new(), turn: partial.turn };
        if !whole {
            let url = job.session_url();
            return Ok(Attempt::Interrupted(
                ImageError::Registry(format!("Get \"{url}\": range not satisfiable")),
                partial,
            ));
        }
    }
    receive(job, id, answer, partial).await
}

async fn receive(job: &Download, id: &str, mut answer: Answer, partial: Partial) -> Result<Attempt, ImageError> {
    let total = job.descriptor.size;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let (store, digest) = (job.store.clone(), job.descriptor.digest.clone());
    let mut current = partial.size;
    let writer =
        tokio::spawn(
            async move { store.blocking(move |inner| write_partial(inner, &digest, partial, receiver)).await },
        );
    let mut reported: Option<Instant> = None;
    let end = loop {
        match answer.chunk().await {
            Ok(None) => break None,
            Err(error) => break Some(crate::registry::interrupted(&job.session_url(), error)),
            Ok(Some(chunk)) => {
                current += chunk.len() as u64;
                if current > total {
                    let reason = format!("is larger than the {total} bytes that its manifest promises");
                    break Some(ImageError::bad(format!("layer {}", job.descriptor.digest), reason));
                }
                if sender.send(chunk).await.is_err() {
                    break None; // the writer tells why
                }
                if reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
                    let status = LayerStatus::Downloading { current, total };
                    job.progress.send_lossy(Progress::Layer { id: id.to_string(), status });
                    reported = Some(Instant::now());
                }
            }
        }
    };
    drop(sender);
    let partial = match writer.await {
        Ok(result) => result?,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return Err(ImageError::Cancelled),
    };
    Ok(match end {
        None if partial.size == total => Attempt::Complete(partial),
        None => {
            let error = ImageError::Unreachable { url: job.session_url(), reason: "unexpected EOF".into() };
            Attempt::Interrupted(error, partial)
        }
        Some(error @ ImageError::BadContent { .. }) => {
            let path = job.store.0.blobs.partial_path(&job.descriptor.digest);
            let remove = move || {
                let _ = std::fs::remove_file(&path);
                drop(partial);
            };
            let _ = tokio::task::spawn_blocking(remove).await;
            return Err(error);
        }
        Some(error) => Attempt::Interrupted(error, partial),
    })
}

/// Appends what comes, until the sender is gone. A fresh start truncates.
fn write_partial(
    inner: &Inner,
    digest: &Digest,
    mut partial: Partial,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<Partial, ImageError> {
    let path = inner.blobs.partial_path(digest);
    let failed = |error| ImageError::io(context("write", &path), error);
    let mut file = OpenOptions::new()
        .create(true)
        .append(partial.size > 0)
        .truncate(partial.size == 0)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    while let Some(chunk) = chunks.blocking_recv() {
        if let Err(error) = file.write_all(&chunk) {
            // a full disk is not helped by a part of a layer
            let _ = std::fs::remove_file(&path);
            return Err(failed(error));
        }
        partial.hasher.update(&chunk);
        partial.size += chunk.len() as u64;
    }
    Ok(partial)
}

/// Compares the digest and gives the file its name. Answers with an empty start if the digest is wrong.
async fn commit(job: &Download, partial: Partial) -> Result<Option<Partial>, ImageError> {
    let digest = job.descriptor.digest.clone();
    job.store
        .blocking(move |inner| {
            let path = inner.blobs.partial_path(&digest);
            if partial.hasher.finish() == digest {
                inner.blobs.commit(&path, &digest)?;
                return Ok(None);
            }
            let _ = std::fs::remove_file(&path);
            Ok(Some(Partial { size: 0, hasher: Hasher::new(), turn: partial.turn }))
        })
        .await
}

/// Whether the next attempt may do better.
fn is_passing(error: &ImageError) -> bool {
    matches!(error, ImageError::Unreachable { .. } | ImageError::Registry(_))
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn range_start(answer: &Answer) -> Option<u64> {
    let range = answer.header("content-range")?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

impl Download {
    fn session_url(&self) -> String {
        self.session.url(&crate::registry::blob_path(&self.reference, &self.descriptor.digest))
    }
}
