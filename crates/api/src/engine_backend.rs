//! What the Engine API asks of the engine: a trait with the shape of `engine::Engine`, so that the server can be tried
//! without containers. `id` is what the user typed: an identifier, a beginning of one, or a name.

use async_trait::async_trait;
use docker_types::container::{
    CreateRequest, CreateResponse, EndpointSettings, Inspect, Summary, TopResponse, UpdateRequest, UpdateResponse,
    WaitResponse,
};
use docker_types::event::EventMessage;
use docker_types::exec::{ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecStartRequest};
use docker_types::filters::Filters;
use docker_types::volume::{Volume, VolumeCreateRequest, VolumeList, VolumesPruneResponse};
use engine::{
    AttachOptions, Attached, Counts, CreateOptions, DisconnectMode, Engine, EngineError, ImageUser, ListOptions,
    LogStream, LogsOptions, RemoveOptions, SizeMode, StopOptions, WaitCondition,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

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
    /// Connects a container to a network, by its name or id.
    async fn connect(&self, id: &str, network: &str, settings: EndpointSettings) -> EngineResult<()>;
    /// Disconnects a container from a network.
    async fn disconnect(&self, id: &str, network: &str, mode: DisconnectMode) -> EngineResult<()>;
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
    fn counts(&self) -> Counts;
    /// Which containers are made of which images.
    fn image_users(&self) -> Vec<ImageUser>;
    /// Tells of an event that is not the engine's own.
    fn publish(&self, event: EventMessage);
    /// Events of the daemon: the past ones from `since_ns` on (`None`: none), then new ones, up to `until_ns`; both in
    /// nanoseconds since 1970.
    fn subscribe(&self, since_ns: Option<i64>, until_ns: Option<i64>) -> BoxStream<'static, EventMessage>;
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Whether a volume must be there to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeRemoveMode {
    /// Yes.
    Safe,
    /// No.
    Force,
}

#[async_trait]
impl EngineBackend for Engine {
    async fn create(
        &self,
        name: Option<&str>,
        request: CreateRequest,
        options: CreateOptions,
    ) -> EngineResult<CreateResponse> {
        Self::create(self, name, request, options).await
    }

    async fn start(&self, id: &str) -> EngineResult<()> {
        Self::start(self, id).await
    }

    async fn stop(&self, id: &str, options: StopOptions) -> EngineResult<()> {
        Self::stop(self, id, options).await
    }

    async fn restart(&self, id: &str, options: StopOptions) -> EngineResult<()> {
        Self::restart(self, id, options).await
    }

    async fn kill(&self, id: &str, signal: Option<&str>) -> EngineResult<()> {
        Self::kill(self, id, signal).await
    }

    async fn pause(&self, id: &str) -> EngineResult<()> {
        Self::pause(self, id).await
    }

    async fn unpause(&self, id: &str) -> EngineResult<()> {
        Self::unpause(self, id).await
    }

    async fn rename(&self, id: &str, name: &str) -> EngineResult<()> {
        Self::rename(self, id, name).await
    }

    async fn connect(&self, id: &str, network: &str, settings: EndpointSettings) -> EngineResult<()> {
        Self::connect(self, id, network, settings).await
    }

    async fn disconnect(&self, id: &str, network: &str, mode: DisconnectMode) -> EngineResult<()> {
        Self::disconnect(self, id, network, mode).await
    }

    async fn wait(&self, id: &str, condition: WaitCondition) -> EngineResult<BoxFuture<'static, WaitResponse>> {
        Ok(Box::pin(Self::wait(self, id, condition).await?))
    }

    async fn remove(&self, id: &str, options: RemoveOptions) -> EngineResult<()> {
        Self::remove(self, id, options).await
    }

    async fn inspect(&self, id: &str, size: SizeMode) -> EngineResult<Inspect> {
        Self::inspect(self, id, size).await
    }

    async fn list(&self, options: ListOptions) -> EngineResult<Vec<Summary>> {
        Self::list(self, options).await
    }

    async fn logs(&self, id: &str, options: LogsOptions) -> EngineResult<LogStream> {
        Self::logs(self, id, options).await
    }

    async fn attach(&self, id: &str, options: AttachOptions) -> EngineResult<Attached> {
        Self::attach(self, id, options).await
    }

    async fn resize(&self, id: &str, size: TerminalSize) -> EngineResult<()> {
        Self::resize(self, id, size.height, size.width).await
    }

    async fn update(&self, id: &str, request: UpdateRequest) -> EngineResult<UpdateResponse> {
        Self::update(self, id, request).await
    }

    async fn top(&self, id: &str, ps_args: &str) -> EngineResult<TopResponse> {
        Self::top(self, id, ps_args).await
    }

    async fn exec_create(&self, id: &str, request: ExecCreateRequest) -> EngineResult<ExecCreateResponse> {
        Ok(ExecCreateResponse { id: Self::exec_create(self, id, request).await? })
    }

    async fn exec_start(&self, exec_id: &str, request: ExecStartRequest) -> EngineResult<Option<Attached>> {
        Self::exec_start(self, exec_id, request).await
    }

    async fn exec_inspect(&self, exec_id: &str) -> EngineResult<ExecInspect> {
        Self::exec_inspect(self, exec_id).await
    }

    async fn exec_resize(&self, exec_id: &str, size: TerminalSize) -> EngineResult<()> {
        Self::exec_resize(self, exec_id, size.height, size.width).await
    }

    async fn volume_create(&self, request: VolumeCreateRequest) -> EngineResult<Volume> {
        Self::volume_create(self, request).await
    }

    async fn volumes(&self, filters: Filters) -> EngineResult<VolumeList> {
        self.volume_list(&filters).await
    }

    async fn volume(&self, name: &str) -> EngineResult<Volume> {
        self.volume_inspect(name).await
    }

    async fn volume_remove(&self, name: &str, mode: VolumeRemoveMode) -> EngineResult<()> {
        Self::volume_remove(self, name, mode == VolumeRemoveMode::Force).await
    }

    async fn volumes_prune(&self, filters: Filters) -> EngineResult<VolumesPruneResponse> {
        self.volume_prune(filters).await
    }

    fn counts(&self) -> Counts {
        Self::counts(self)
    }

    fn image_users(&self) -> Vec<ImageUser> {
        Self::image_users(self)
    }

    fn publish(&self, event: EventMessage) {
        Self::publish(self, event);
    }

    fn subscribe(&self, since_ns: Option<i64>, until_ns: Option<i64>) -> BoxStream<'static, EventMessage> {
        let events = Self::subscribe(self, since_ns, until_ns);
        let next = |mut events: engine::EventStream| async move {
            let event = events.next().await?;
            Some(((*event).clone(), events))
        };
        futures::stream::unfold(events, next).boxed()
    }
}
