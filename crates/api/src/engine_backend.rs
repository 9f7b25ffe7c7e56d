//! What the Engine API asks of the engine: a trait with the shape of `engine::Engine`, so that the server can be tried
//! without containers. `id` is what the user typed: an identifier, a beginning of one, or a name.

use async_trait::async_trait;
use bytes::Bytes;
use docker_types::container::{
    CreateRequest, CreateResponse, Inspect, Summary, TopResponse, UpdateRequest, UpdateResponse, WaitResponse,
};
use docker_types::event::EventMessage;
use docker_types::exec::{ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecStartRequest};
use docker_types::filters::Filters;
use docker_types::volume::{Volume, VolumeCreateRequest, VolumeList, VolumesPruneResponse};
use engine::{
    AttachOptions, CreateOptions, EngineError, ListOptions, LogsOptions, RemoveOptions, SizeMode, StopOptions,
    WaitCondition,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

/// How many pieces may wait between a container and one client.
pub const PIECES_QUEUE_LIMIT: usize = 64;

/// What every call gives back.
pub type EngineResult<T> = Result<T, EngineError>;

/// The engine as the Engine API sees it.
#[async_trait]
pub trait EngineBackend: Send + Sync + 'static {
    /// Creates a container; without a name it gets one.
    async fn create(
        &self,
        name: Option<&str>,
        request: CreateRequest,
        options: CreateOptions,
    ) -> EngineResult<CreateResponse>;
    /// Starts a container.
    async fn start(&self, id: &str) -> EngineResult<()>;
    /// Stops a container: signal, grace period, SIGKILL.
    async fn stop(&self, id: &str, options: StopOptions) -> EngineResult<()>;
    /// Stops a container if it runs, and starts it.
    async fn restart(&self, id: &str, options: StopOptions) -> EngineResult<()>;
    /// Sends a signal, by name or number; SIGKILL if there is none.
    async fn kill(&self, id: &str, signal: Option<&str>) -> EngineResult<()>;
    /// Freezes a container.
    async fn pause(&self, id: &str) -> EngineResult<()>;
    /// Thaws a container.
    async fn unpause(&self, id: &str) -> EngineResult<()>;
    /// Gives a container another name.
    async fn rename(&self, id: &str, name: &str) -> EngineResult<()>;
    /// Finds the container, then gives the exit to wait for; dropping that ends the wait.
    async fn wait(&self, id: &str, condition: WaitCondition) -> EngineResult<BoxFuture<'static, WaitResponse>>;
    /// Removes a container.
    async fn remove(&self, id: &str, options: RemoveOptions) -> EngineResult<()>;
    /// All of one container.
    async fn inspect(&self, id: &str, size: SizeMode) -> EngineResult<Inspect>;
    /// Containers, the newest first.
    async fn list(&self, options: ListOptions) -> EngineResult<Vec<Summary>>;
    /// What a container has written.
    async fn logs(&self, id: &str, options: LogsOptions) -> EngineResult<LogStream>;
    /// The streams of a container, running or created.
    async fn attach(&self, id: &str, options: AttachOptions) -> EngineResult<Attached>;
    /// Sets the size of a container's terminal.
    async fn resize(&self, id: &str, size: TerminalSize) -> EngineResult<()>;
    /// Changes limits and restart policy.
    async fn update(&self, id: &str, request: UpdateRequest) -> EngineResult<UpdateResponse>;
    /// Processes of a container, as `ps` with these arguments shows them.
    async fn top(&self, id: &str, ps_args: &str) -> EngineResult<TopResponse>;

    /// Prepares a program to be run in a container.
    async fn exec_create(&self, id: &str, request: ExecCreateRequest) -> EngineResult<ExecCreateResponse>;
    /// Runs it; `None` if it was asked to run detached.
    async fn exec_start(&self, exec_id: &str, request: ExecStartRequest) -> EngineResult<Option<Attached>>;
    /// What became of it.
    async fn exec_inspect(&self, exec_id: &str) -> EngineResult<ExecInspect>;
    /// Sets the size of its terminal.
    async fn exec_resize(&self, exec_id: &str, size: TerminalSize) -> EngineResult<()>;

    /// Creates a volume, or gives the one of that name.
    async fn volume_create(&self, request: VolumeCreateRequest) -> EngineResult<Volume>;
    /// Volumes that match.
    async fn volumes(&self, filters: Filters) -> EngineResult<VolumeList>;
    /// One volume.
    async fn volume(&self, name: &str) -> EngineResult<Volume>;
    /// Removes a volume; with `Force` one that is not there is no error.
    async fn volume_remove(&self, name: &str, mode: VolumeRemoveMode) -> EngineResult<()>;
    /// Removes volumes that no container uses.
    async fn volumes_prune(&self, filters: Filters) -> EngineResult<VolumesPruneResponse>;

    /// How many containers there are.
    fn counts(&self) -> ContainerCounts;
    /// Which containers are made of which images.
    fn image_users(&self) -> Vec<ImageUser>;
    /// Tells of an event that is not the engine's own.
    fn publish(&self, event: EventMessage);
    /// Events of the daemon: the past ones from `since_ns` on (`None`: none), then new ones, up to `until_ns`; both in
    /// nanoseconds since 1970.
    fn subscribe(&self, since_ns: Option<i64>, until_ns: Option<i64>) -> BoxStream<'static, EventMessage>;
}

/// Which of a container's standard streams a piece is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputSource {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPiece {
    /// Where it is from.
    pub source: OutputSource,
    /// What was written.
    pub bytes: Bytes,
}

/// A container's logs. Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the container has a terminal.
    pub tty: bool,
    /// Lines; an `Err` is the last one.
    pub pieces: mpsc::Receiver<EngineResult<OutputPiece>>,
}

/// The streams of a container or exec. Dropping it detaches.
#[derive(Debug)]
pub struct Attached {
    /// Whether there is a terminal.
    pub tty: bool,
    /// Output; its end is the end of the streams.
    pub output: mpsc::Receiver<OutputPiece>,
    /// Input, if it is attached; dropping it is the end of the input.
    pub input: Option<mpsc::Sender<Bytes>>,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// Whether a volume must be there to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeRemoveMode {
    /// Yes.
    Safe,
    /// No.
    Force,
}

/// How many containers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerCounts {
    /// Running, paused ones left out.
    pub running: i64,
    /// Paused.
    pub paused: i64,
    /// Neither.
    pub stopped: i64,
}

/// A container that is made of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUser {
    /// Image, `sha256:…`.
    pub image_id: String,
    /// Container.
    pub container_id: String,
    /// Whether it runs.
    pub running: bool,
}
