//! A pull: manifest, configuration, layers side by side, unpacking in order, and only then the name. One reference, or one
//! after the other of all tags that a repository has.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use oci_types::{Descriptor, Digest, ImageDocument, Index, Manifest, Platform, Reference, media_type};
use tokio::task::JoinSet;

use super::blobs::{context, digest_of};
use super::catalog::StoredLayer;
use super::download::{Download, download};
use super::layers::{LayerSource, chain_ids};
use super::pins::Pin;
use super::rootfs::LAYERS_MAX;
use super::{CancelOnDrop, ImageStore, Settings};
use crate::registry::{self, Document, Session};
use crate::{AuthConfig, ImageError, LayerStatus, Progress, ProgressSender, Pulled};

/// Time between two figures about one layer.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Indexes within indexes.
const INDEX_DEPTH_MAX: usize = 4;

/// A pull on its way.
struct Pull<'a> {
    store: &'a ImageStore,
    settings: Settings,
    reference: Reference,
    platform: Platform,
    progress: ProgressSender,
    brought: Vec<Digest>,
}

/// What a manifest needs.
struct Plan {
    manifest: Manifest,
    /// The manifest and the indexes above it.
    documents: Vec<Document>,
    config_bytes: Vec<u8>,
    diff_ids: Vec<Digest>,
    chains: Vec<Digest>,
}

/// Pulls `wanted`; a reference with neither tag nor digest stands for all tags.
pub(super) async fn pull(
    store: &ImageStore,
    wanted: Reference,
    platform: Option<&Platform>,
    auth: Option<&AuthConfig>,
    progress: ProgressSender,
) -> Result<Vec<Pulled>, ImageError> {
    let settings = store.settings();
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let reference = wanted.clone();
    let mut pull = Pull { store, settings, reference, platform, progress, brought: Vec::new() };
    let mut last = registry::no_endpoint(&pull.reference);
    let registries = pull.settings.registries.clone();
    let mut answered: Option<String> = None;
    for endpoint in registries.endpoints(&wanted) {
        if answered.as_ref().is_some_and(|host| endpoint.is_plain_of(host)) {
            continue;
        }
        let attempt = async {
            let session = registries.session(&endpoint, &wanted, auth).await?;
            answered = Some(endpoint.host().to_string());
            pull.all_from(&session, &wanted).await
        };
        match attempt.await {
            Ok(pulled) => return Ok(pulled),
            Err(error) => last = error,
        }
        if is_local(&last) {
            break;
        }
    }
    pull.clean_up(&last).await;
    Err(last)
}

/// Whether asking another endpoint would not help.
fn is_local(error: &ImageError) -> bool {
    matches!(error, ImageError::DiskFull { .. } | ImageError::Io { .. } | ImageError::Cancelled)
}

impl Pull<'_> {
    async fn all_from(&mut self, session: &Session, wanted: &Reference) -> Result<Vec<Pulled>, ImageError> {
        let references = if wanted.tag().is_none() && wanted.digest().is_none() {
            let tags = session.tags(wanted).await?;
            tags.iter().map(|tag| wanted.with_tag(tag)).collect::<Result<_, _>>()?
        } else {
            vec![wanted.clone()]
        };
        let mut pulled = Vec::new();
        for reference in references {
            self.reference = reference;
            pulled.push(self.from(session).await?);
        }
        let name = wanted.familiar();
        let newer = pulled.iter().any(|pulled| pulled.newer);
        self.progress.send(if newer { Progress::Downloaded(name) } else { Progress::UpToDate(name) }).await;
        Ok(pulled)
    }

    async fn from(&mut self, session: &Session) -> Result<Pulled, ImageError> {
        let top = session.manifest(&self.reference).await?;
        let tag = self.reference.digest().map(Digest::to_string).or(self.reference.tag().map(str::to_string));
        let repository = self.reference.path().to_string();
        self.progress.send(Progress::PullingFrom { repository, tag: tag.unwrap_or_default() }).await;
        let digest = top.digest.clone();
        let mut documents = vec![top];
        self.descend(session, &mut documents).await?;
        let manifest: Manifest = registry::parse("manifest", &documents[documents.len() - 1].bytes)?;
        let id = manifest.config.digest.clone();
        let _pin = self.store.0.pins.pin(self.needs(&manifest, &documents, &[]));
        let known = self.store.resolve(id.as_str()).ok();
        let newer = match known {
            Some(_) => self.commit_known(&id, documents).await?,
            None => {
                let plan = self.plan(session, manifest, documents).await?;
                let _pin = self.store.0.pins.pin(self.needs(&plan.manifest, &plan.documents, &plan.chains));
                self.fetch(session, plan, _pin).await?
            }
        };
        self.progress.send(Progress::Digest(digest.to_string())).await;
        Ok(Pulled { image: self.store.resolve(id.as_str())?, digest, newer })
    }

    /// From an index to the manifest for the platform.
    async fn descend(&self, session: &Session, documents: &mut Vec<Document>) -> Result<(), ImageError> {
        loop {
            let last = &documents[documents.len() - 1];
            if media_type::is_manifest(&last.media_type) {
                return Ok(());
            }
            if !media_type::is_index(&last.media_type) {
                return Err(ImageError::bad(
                    self.reference.familiar(),
                    format!("mediaType {:?} is not supported", last.media_type),
                ));
            }
            if documents.len() > INDEX_DEPTH_MAX {
                return Err(ImageError::bad(self.reference.familiar(), "indexes are nested too deeply"));
            }
            let index: Index = registry::parse("manifest list", &last.bytes)?;
            let accepts = |entry: &&Descriptor| {
                entry.platform.as_ref().is_some_and(|offered| self.platform.accepts(offered))
                    && (media_type::is_manifest(&entry.media_type) || media_type::is_index(&entry.media_type))
            };
            let Some(entry) = index.manifests.iter().find(accepts) else {
                return Err(ImageError::NoMatchingPlatform(self.platform.to_string()));
            };
            let reference = self.reference.with_digest(entry.digest.clone());
            documents.push(session.manifest(&reference).await?);
        }
    }

    async fn plan(&self, session: &Session, manifest: Manifest, documents: Vec<Document>) -> Result<Plan, ImageError> {
        let bad = |reason: String| ImageError::bad(self.reference.familiar(), reason);
        let config_bytes = session.small_blob(&self.reference, &manifest.config).await?;
        let document: ImageDocument = registry::parse("image config", &config_bytes)?;
        let diff_ids = document.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(bad(format!("{} layers, but {} in the image config", manifest.layers.len(), diff_ids.len())));
        }
        if diff_ids.len() > LAYERS_MAX {
            return Err(bad("max depth exceeded".into()));
        }
        if !document.os.is_empty() && document.os != self.platform.os {
            return Err(bad(format!("image operating system \"{}\" cannot be used on this platform", document.os)));
        }
        if let Some(layer) = manifest.layers.iter().find(|layer| !layer.urls.is_empty()) {
            return Err(bad(format!("layer {} is foreign", layer.digest)));
        }
        let chains = chain_ids(&diff_ids);
        Ok(Plan { manifest, documents, config_bytes, diff_ids, chains })
    }

    fn needs(&self, manifest: &Manifest, documents: &[Document], chains: &[Digest]) -> Vec<Digest> {
        let layers = manifest.layers.iter().map(|layer| &layer.digest);
        let documents = documents.iter().map(|document| &document.digest);
        layers.chain(documents).chain(chains).chain([&manifest.config.digest]).cloned().collect()
    }

    fn names(&self, top: &Digest) -> Vec<Reference> {
        let pinned = self.reference.repository().with_digest(top.clone());
        let tagged = self.reference.digest().is_none().then(|| self.reference.clone());
        tagged.into_iter().chain([pinned]).collect()
    }

    /// The image is here: only names may be new.
    async fn commit_known(&self, id: &Digest, documents: Vec<Document>) -> Result<bool, ImageError> {
        let names = self.names(&documents[0].digest);
        let id = id.clone();
        self.store
            .blocking(move |inner| {
                let bytes = inner.blobs.read(&id)?;
                let manifests = documents.iter().map(|document| document.digest.clone()).collect();
                for document in &documents {
                    inner.blobs.write(&document.bytes, &document.digest)?;
                }
                Ok(inner.commit_image(&bytes, None, manifests, &names)?.1)
            })
            .await
    }

    async fn fetch(&mut self, session: &Session, plan: Plan, pin: Pin) -> Result<bool, ImageError> {
        let here: Vec<bool> = plan.chains.iter().map(|chain| self.store.0.layers.info(chain).is_some()).collect();
        let here = here.iter().rposition(|here| *here).map_or(0, |top| top + 1);
        let mut downloads = JoinSet::new();
        for (index, layer) in plan.manifest.layers.iter().enumerate() {
            let id = layer.digest.short().to_string();
            if index < here {
                self.progress.layer(&id, LayerStatus::AlreadyExists).await;
                continue;
            }
            self.brought.push(layer.digest.clone());
            self.progress.layer(&id, LayerStatus::PullingFsLayer).await;
            let job = Download {
                store: self.store.clone(),
                slots: self.settings.download_slots.clone(),
                attempts_max: self.settings.registries.attempts_max(),
                session: session.clone(),
                reference: self.reference.clone(),
                descriptor: layer.clone(),
                progress: self.progress.clone(),
            };
            downloads.spawn(async move { (index, download(job).await) });
        }
        let mut done = vec![false; plan.manifest.layers.len()];
        let mut sizes = Vec::new();
        for index in 0..plan.manifest.layers.len() {
            if index >= here {
                wait_for(index, &mut downloads, &mut done).await?;
            }
            sizes.push(self.extract(&plan, index, index < here).await?);
        }
        self.commit(plan, sizes, pin).await
    }

    async fn extract(&self, plan: &Plan, index: usize, here: bool) -> Result<u64, ImageError> {
        let layer = plan.manifest.layers[index].clone();
        let diff_id = plan.diff_ids[index].clone();
        let (chain, below) = (plan.chains[index].clone(), plan.chains[..index].to_vec());
        let progress = self.progress.clone();
        let cancel = CancelOnDrop::default();
        let cancelled = cancel.flag();
        let turn = self.store.0.extractions.lock(&chain).await;
        let size = self
            .store
            .blocking(move |inner| {
                // held until the work ends, even if nobody waits for it any more
                let _turn = turn;
                if let Some(info) = inner.layers.info(&chain) {
                    return Ok(info.size);
                }
                let path = inner.blobs.path(&layer.digest);
                let file = File::open(&path).map_err(|error| ImageError::io(context("open", &path), error))?;
                let id = layer.digest.short().to_string();
                let reader = Reporting::new(file, layer.size, move |current, total| {
                    let status = LayerStatus::Extracting { current, total };
                    progress.send_lossy(Progress::Layer { id: id.clone(), status });
                });
                Ok(inner.layers.create(&chain, &below, &diff_id, LayerSource { reader, cancelled })?.size)
            })
            .await?;
        if !here {
            self.progress.layer(plan.manifest.layers[index].digest.short(), LayerStatus::PullComplete).await;
        }
        drop(cancel);
        Ok(size)
    }

    async fn commit(&self, plan: Plan, sizes: Vec<u64>, pin: Pin) -> Result<bool, ImageError> {
        let names = self.names(&plan.documents[0].digest);
        self.store
            .blocking(move |inner| {
                let _pin = pin;
                let manifests: Vec<Digest> = plan.documents.iter().map(|document| document.digest.clone()).collect();
                for document in &plan.documents {
                    inner.blobs.write(&document.bytes, &document.digest)?;
                }
                let parts = plan.manifest.layers.iter().zip(&plan.diff_ids).zip(&plan.chains).zip(sizes);
                let layers = parts.map(|(((layer, diff_id), chain), size)| StoredLayer {
                    diff_id: diff_id.clone(),
                    chain: chain.clone(),
                    blob: Some(layer.digest.clone()),
                    size,
                });
                let layers = layers.collect();
                debug_assert_eq!(digest_of(&plan.config_bytes), plan.manifest.config.digest);
                inner.commit_image(&plan.config_bytes, Some(layers), manifests, &names)?;
                Ok(true)
            })
            .await
    }

    /// After a failure: layers without an image go; downloads stay for the next attempt, unless the disk is full or they
    /// are of no use: a layer may be what its digest says and still be no archive, and would stay so.
    async fn clean_up(&mut self, error: &ImageError) {
        let brought = match error {
            ImageError::DiskFull { .. } | ImageError::BadContent { .. } => std::mem::take(&mut self.brought),
            _ => Vec::new(),
        };
        for digest in &brought {
            // the writer of a download that was given up ends first
            drop(self.store.0.downloads.lock(digest).await);
        }
        let work = move |inner: &super::Inner| {
            for digest in &brought {
                let _ = std::fs::remove_file(inner.blobs.partial_path(digest));
            }
            inner.collect_garbage(&brought);
            Ok(())
        };
        if let Err(error) = self.store.blocking(work).await {
            tracing::warn!(%error, "cannot clean up after a pull");
        }
    }
}

async fn wait_for(
    index: usize,
    downloads: &mut JoinSet<(usize, Result<(), ImageError>)>,
    done: &mut [bool],
) -> Result<(), ImageError> {
    while !done[index] {
        match downloads.join_next().await {
            Some(Ok((finished, result))) => {
                result?;
                done[finished] = true;
            }
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => return Err(ImageError::Cancelled),
        }
    }
    Ok(())
}

/// A reader that tells now and then how far it is.
pub(super) struct Reporting<R, F> {
    source: R,
    current: u64,
    total: u64,
    report: F,
    reported: Option<Instant>,
}

impl<R: Read, F: FnMut(u64, u64)> Reporting<R, F> {
    pub(super) fn new(source: R, total: u64, report: F) -> Self {
        Self { source, current: 0, total, report, reported: None }
    }
}

impl<R: Read, F: FnMut(u64, u64)> Read for Reporting<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.current += count as u64;
        let due = self.reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL);
        if due || (count == 0 && !buffer.is_empty()) {
            (self.report)(self.current, self.total);
            self.reported = Some(Instant::now());
        }
        Ok(count)
    }
}
