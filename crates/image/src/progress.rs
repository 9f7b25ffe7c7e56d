//! What a pull or load reports while it runs, and docker's words for it.

use tokio::sync::mpsc;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A pull began.
    PullingFrom {
        /// `library/alpine`.
        repository: String,
        /// Tag or digest.
        tag: String,
    },
    /// A layer moved on.
    Layer {
        /// Twelve digits of the layer's digest.
        id: String,
        /// What it does now.
        status: LayerStatus,
    },
    /// The digest of the manifest or index that was pulled.
    Digest(String),
    /// A newer image is in the store; the familiar reference.
    Downloaded(String),
    /// The image was in the store already; the familiar reference.
    UpToDate(String),
    /// A load named an image; the familiar reference.
    LoadedImage(String),
    /// A load brought an image without a name; its id.
    LoadedId(String),
    /// A remark of the operation.
    Note(String),
}

/// What a layer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerStatus {
    /// Known, not begun.
    PullingFsLayer,
    /// Waits for its turn.
    Waiting,
    /// Bytes so far.
    Downloading {
        /// Bytes here.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// An attempt failed; the next begins in so many seconds.
    Retrying {
        /// Seconds.
        seconds: u64,
    },
    /// Its digest is compared.
    VerifyingChecksum,
    /// Here and verified.
    DownloadComplete,
    /// Compressed bytes unpacked so far.
    Extracting {
        /// Bytes done.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Unpacked.
    PullComplete,
    /// Was here before.
    AlreadyExists,
    /// A load unpacks it.
    LoadingLayer {
        /// Bytes done.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// The fields of one object in docker's JSON stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressMessage {
    /// `status`.
    pub status: Option<String>,
    /// `id`.
    pub id: Option<String>,
    /// `stream`.
    pub stream: Option<String>,
    /// `progressDetail` (`current`, `total`); `Some(None)` is written as `{}`.
    pub detail: Option<Option<(u64, u64)>>,
}

impl Progress {
    /// Docker's words.
    pub fn message(&self) -> ProgressMessage {
        let status = |text: String| ProgressMessage { status: Some(text), ..ProgressMessage::default() };
        let stream = |text: String| ProgressMessage { stream: Some(text), ..ProgressMessage::default() };
        match self {
            Self::PullingFrom { repository, tag } => {
                ProgressMessage { id: Some(tag.clone()), ..status(format!("Pulling from {repository}")) }
            }
            Self::Layer { id, status: layer } => {
                let (text, detail) = layer.words();
                ProgressMessage { id: Some(id.clone()), detail: Some(detail), ..status(text) }
            }
            Self::Digest(digest) => status(format!("Digest: {digest}")),
            Self::Downloaded(name) => status(format!("Status: Downloaded newer image for {name}")),
            Self::UpToDate(name) => status(format!("Status: Image is up to date for {name}")),
            Self::LoadedImage(name) => stream(format!("Loaded image: {name}\n")),
            Self::LoadedId(id) => stream(format!("Loaded image ID: {id}\n")),
            Self::Note(text) => status(text.clone()),
        }
    }
}

impl LayerStatus {
    fn words(&self) -> (String, Option<(u64, u64)>) {
        match self {
            Self::PullingFsLayer => ("Pulling fs layer".into(), None),
            Self::Waiting => ("Waiting".into(), None),
            Self::Downloading { current, total } => ("Downloading".into(), Some((*current, *total))),
            Self::Retrying { seconds: 1 } => ("Retrying in 1 second".into(), None),
            Self::Retrying { seconds } => (format!("Retrying in {seconds} seconds"), None),
            Self::VerifyingChecksum => ("Verifying Checksum".into(), None),
            Self::DownloadComplete => ("Download complete".into(), None),
            Self::Extracting { current, total } => ("Extracting".into(), Some((*current, *total))),
            Self::PullComplete => ("Pull complete".into(), None),
            Self::AlreadyExists => ("Already exists".into(), None),
            Self::LoadingLayer { current, total } => ("Loading layer".into(), Some((*current, *total))),
        }
    }
}

/// Where progress goes; cheap to clone. A reader that went away is ignored: to cancel, drop the operation's future.
#[derive(Clone, Debug, Default)]
pub struct ProgressSender(Option<mpsc::Sender<Progress>>);

impl ProgressSender {
    /// Events that may wait for a slow reader.
    pub const QUEUE_MAX: usize = 64;

    /// A sender and its reader.
    pub fn channel() -> (Self, mpsc::Receiver<Progress>) {
        let (sender, receiver) = mpsc::channel(Self::QUEUE_MAX);
        (Self(Some(sender)), receiver)
    }

    /// Nobody listens.
    pub fn none() -> Self {
        Self(None)
    }

    /// Sends, waiting for a slow reader.
    pub(crate) async fn send(&self, progress: Progress) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(progress).await;
        }
    }

    /// Sends from a blocking thread.
    pub(crate) fn send_blocking(&self, progress: Progress) {
        if let Some(sender) = &self.0 {
            let _ = sender.blocking_send(progress);
        }
    }

    /// Sends if there is room: for figures that the next one replaces.
    pub(crate) fn send_lossy(&self, progress: Progress) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(progress);
        }
    }

    pub(crate) async fn layer(&self, id: &str, status: LayerStatus) {
        self.send(Progress::Layer { id: id.to_string(), status }).await;
    }
}
