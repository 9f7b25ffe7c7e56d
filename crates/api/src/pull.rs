//! `POST /images/create` (pull) and `POST /images/load`: progress as a stream of JSON values. A failure is the stream's last
//! value, as in dockerd; only of a pull what fails before the first value is an ordinary error.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use docker_types::system::{ErrorDetail, JsonMessage, ProgressDetail};
use futures::StreamExt;
use http::{HeaderMap, Request};
use image::{AuthConfig, ImageError, Progress, ProgressSender};
use oci_types::{Platform, Reference};
use tokio::sync::mpsc;

use crate::answer;
use crate::error::{ApiError, ApiResult};
use crate::image_events;
use crate::images::with_sources;
use crate::request::{Params, REGISTRY_AUTH, header_text};
use crate::state::Shared;

/// How many pieces of an archive may wait for the disk.
const ARCHIVE_QUEUE_LIMIT: usize = 16;

type Work = Pin<Box<dyn Future<Output = Result<(), ImageError>> + Send>>;

/// `POST /images/create`.
pub(crate) async fn create(State(state): State<Shared>, params: Params, headers: HeaderMap) -> ApiResult {
    if params.contains("fromSrc") && !params.get("fromSrc").is_empty() {
        return Err(crate::not_built::import());
    }
    let reference = reference(params.get("fromImage"), params.get("tag"))?;
    let platform = platform(params.get("platform"))?;
    // A header that cannot be read counts as none here, as in dockerd.
    let auth = AuthConfig::decode(header_text(&headers, REGISTRY_AUTH)).ok().flatten();
    let (sender, receiver) = ProgressSender::channel();
    let (images, engine) = (state.images.clone(), state.engine.clone());
    let work: Work = Box::pin(async move {
        let labels = if reference.tag().is_none() && reference.digest().is_none() {
            // without either it is every tag (`docker pull --all-tags`)
            images.pull_all_tags(&reference, platform.as_ref(), auth.as_ref(), sender).await?;
            images.resolve(&reference.familiar()).map(|image| image.config.labels).unwrap_or_default()
        } else {
            images.pull(&reference, platform.as_ref(), auth.as_ref(), sender).await?.image.config.labels
        };
        image_events::pulled(&*engine, &reference, &labels);
        Ok(())
    });
    answer_with(work, receiver, ShowLayers::Yes).await
}

fn reference(image: &str, tag: &str) -> Result<Reference, ApiError> {
    // `pull --all-tags` of older clients ends with a colon
    let named = Reference::parse(image.strip_suffix(':').unwrap_or(image)).map_err(ImageError::from)?;
    let reference = match (tag, tag.parse()) {
        ("", _) => named,
        (_, Ok(digest)) => named.with_digest(digest),
        (tag, Err(_)) => with_tag(&named, tag)?,
    };
    if reference.familiar_name() == "scratch" {
        return Err(ApiError::forbidden("'scratch' is a reserved name"));
    }
    Ok(reference)
}

/// A tag that stands apart from its repository is told of apart.
pub(crate) fn with_tag(named: &Reference, tag: &str) -> Result<Reference, ApiError> {
    named.with_tag(tag).map_err(|_| ApiError::bad_request("invalid tag format"))
}

pub(crate) fn platform(text: &str) -> Result<Option<Platform>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    Platform::parse(text).map(Some).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// `POST /images/load`.
pub(crate) async fn load(State(state): State<Shared>, params: Params, request: Request<Body>) -> ApiResult {
    let (sender, receiver) = ProgressSender::channel();
    let (pieces, archive) = mpsc::channel(ARCHIVE_QUEUE_LIMIT);
    let (images, engine) = (state.images.clone(), state.engine.clone());
    let body = request.into_body();
    let work: Work = Box::pin(async move {
        let load = images.load(Archive { pieces: archive, current: Bytes::new() }, sender);
        let ((), loaded) = futures::join!(feed(body, pieces), load);
        for image in loaded? {
            image_events::tell(&*engine, "load", image.id.as_str(), image.id.as_str(), &BTreeMap::new());
        }
        Ok(())
    });
    let layers = if params.flag("quiet") { ShowLayers::No } else { ShowLayers::Yes };
    let running = Running { work: Some(work), progress: receiver, layers };
    Ok(stream_of(Bytes::new(), running))
}

/// Hands the body over piece by piece; ends early when nobody reads any more.
async fn feed(body: Body, pieces: mpsc::Sender<io::Result<Bytes>>) {
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        if pieces.send(piece.map_err(io::Error::other)).await.is_err() {
            return;
        }
    }
}

/// The body as a blocking reader sees it.
struct Archive {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Whether layers are told of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ShowLayers {
    Yes,
    No,
}

/// Work and its progress. Dropping it cancels the work.
struct Running {
    work: Option<Work>,
    progress: mpsc::Receiver<Progress>,
    layers: ShowLayers,
}

enum Step {
    Line(Bytes),
    Failed(ImageError),
    Done,
}

impl Running {
    async fn next(&mut self) -> Step {
        loop {
            let Some(work) = &mut self.work else {
                return match self.progress.recv().await {
                    Some(progress) => match self.line(&progress) {
                        Some(line) => Step::Line(line),
                        None => continue,
                    },
                    None => Step::Done,
                };
            };
            // Cancel-safe: the work is polled by reference, a queue's `recv` loses nothing.
            tokio::select! {
                biased;
                progress = self.progress.recv() => {
                    let Some(progress) = progress else {
                        // Nothing will be told any more; what remains is the outcome.
                        let outcome = work.as_mut().await;
                        self.work = None;
                        return outcome.map_or_else(Step::Failed, |()| Step::Done);
                    };
                    if let Some(line) = self.line(&progress) {
                        return Step::Line(line);
                    }
                }
                outcome = work.as_mut() => {
                    self.work = None;
                    if let Err(error) = outcome {
                        return Step::Failed(error);
                    }
                }
            }
        }
    }

    fn line(&self, progress: &Progress) -> Option<Bytes> {
        if self.layers == ShowLayers::No && matches!(progress, Progress::Layer { .. }) {
            return None;
        }
        let message = progress.message();
        Some(answer::json_line(&JsonMessage {
            stream: message.stream.unwrap_or_default(),
            status: message.status.unwrap_or_default(),
            progress_detail: message.detail.map(|figures| {
                let (current, total) = figures.unwrap_or_default();
                let bytes = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
                ProgressDetail { current: bytes(current), total: bytes(total), ..ProgressDetail::default() }
            }),
            id: message.id.unwrap_or_default(),
            ..JsonMessage::default()
        }))
    }
}

/// The last value of a stream that fails.
pub(crate) fn error_line(text: String) -> Bytes {
    answer::json_line(&JsonMessage {
        error_detail: Some(ErrorDetail { code: 0, message: text.clone() }),
        error: text,
        ..JsonMessage::default()
    })
}

async fn answer_with(work: Work, progress: mpsc::Receiver<Progress>, layers: ShowLayers) -> Result<Response, ApiError> {
    let mut running = Running { work: Some(work), progress, layers };
    let first = match running.next().await {
        Step::Line(line) => line,
        Step::Failed(error) => return Err(error.into()),
        Step::Done => Bytes::new(),
    };
    Ok(stream_of(first, running))
}

/// `first`, then what the work tells.
fn stream_of(first: Bytes, running: Running) -> Response {
    let rest = futures::stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.next().await {
            Step::Line(line) => Some((line, Some(running))),
            Step::Failed(error) => Some((error_line(with_sources(&error)), None)),
            Step::Done => None,
        }
    });
    let lines = futures::stream::iter([first]).chain(rest).map(Ok::<_, Infallible>);
    answer::stream("application/json", lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_put_together() {
        for (image, tag, familiar) in [
            ("agrrh/dummy-service-py", "latest", "agrrh/dummy-service-py:latest"),
            ("alpine", "", "alpine"),
            ("docker.io/library/alpine:3", "", "alpine:3"),
            ("alpine:3", "4", "alpine:4"),
            ("alpine:", "", "alpine"),
        ] {
            assert_eq!(reference(image, tag).unwrap().familiar(), familiar);
        }
        for (image, tag, status, text) in [
            ("UPPER", "x", 400, "invalid reference format: repository name (library/UPPER) must be lowercase"),
            ("alpine", "a b", 400, "invalid tag format"),
            ("alpine", "sha256:12", 400, "invalid tag format"),
            ("scratch", "latest", 403, "'scratch' is a reserved name"),
        ] {
            let error = reference(image, tag).unwrap_err();
            assert_eq!((error.status.as_u16(), error.message.as_str()), (status, text));
        }
        assert!(platform("linux/amd64").unwrap().is_some());
        assert_eq!(platform("").unwrap(), None);
    }

    #[tokio::test]
    async fn an_archive_is_read_in_any_pieces() {
        let (sender, receiver) = mpsc::channel(4);
        for piece in ["ab", "", "cde"] {
            sender.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
        }
        drop(sender);
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            Archive { pieces: receiver, current: Bytes::new() }.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(read.await.unwrap().unwrap(), "abcde");
    }
}
