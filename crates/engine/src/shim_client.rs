//! The engine's side of a shim's socket: starts shims, finds them again, asks, attaches, hears their events.
//!
//! A [`ShimClient`] is only the name of a shim's directory. Each request has a connection of its own, so a client has no
//! state that a restart of either side could spoil, any number of tasks may use it, and a request that is given up (its
//! future dropped) disturbs nothing. Lasting connections are [`ShimEvents`] and the streams of [`ShimClient::attach`] and
//! [`ShimClient::exec_start`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use shim::launch::{LAUNCH_NAME, Launch, Readiness};
use shim::protocol::{
    Answer, Attach, Call, ContainerState, End, ErrorKind, Event, ExecMode, ExecStart, ExecState, FRAME_HEAD, FRAME_MAX,
    FrameError, FrameKind, IfRunning, KillTarget, Message, Request, SOCKET_NAME, VERSION, WindowSize, decode_head,
    encode_head,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// How long a shim may take for what it does itself.
const CONTROL_TIME: Duration = Duration::from_secs(10);
/// How long it may take for what needs the runtime; a little more than `shim::limits::RUNTIME_MS`.
const RUNTIME_TIME: Duration = Duration::from_secs(130);
/// Longest path a socket address holds, with its final zero.
const SOCKET_PATH_BYTES: usize = 108;
/// Most bytes of a readiness line.
const READINESS_BYTES: u64 = 64 * 1024;
/// Bytes of input put into one frame.
const INPUT_FRAME_BYTES: usize = 64 * 1024;

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// It said no. For [`ErrorKind::Runtime`] the text is the runtime's own.
    #[error("{message}")]
    Refused {
        /// What can be acted on.
        kind: ErrorKind,
        /// Its text.
        message: String,
    },
    /// Nobody listens there: it was deleted, killed, or never came up.
    #[error("the container's shim is gone")]
    Gone,
    /// No reply in time.
    #[error("the container's shim did not answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("talking to the container's shim: {0}")]
    Io(io::Error),
    /// What came is not of the protocol.
    #[error("talking to the container's shim: {0}")]
    Protocol(String),
}

impl ShimError {
    /// What the shim said can be acted on; None when it said nothing.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        match self {
            ShimError::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

impl From<io::Error> for ShimError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::BrokenPipe
            | Kind::UnexpectedEof => ShimError::Gone,
            _ => ShimError::Io(error),
        }
    }
}

impl From<FrameError> for ShimError {
    fn from(error: FrameError) -> Self {
        ShimError::Protocol(error.to_string())
    }
}

/// A shim, by its directory.
#[derive(Debug, Clone)]
pub(crate) struct ShimClient {
    directory: PathBuf,
}

impl ShimClient {
    /// Writes `launch` into `directory` (made if missing) and runs `<binary> shim`; returns when the container is created,
    /// with the process id of its first process. The error's text is the runtime's.
    pub(crate) async fn launch(
        binary: &Path,
        directory: &Path,
        launch: &Launch,
    ) -> Result<(ShimClient, i32), ShimError> {
        Self::launch_with(binary, directory, launch, None).await
    }

    /// The same; `program` becomes the shim's stdin, for `launch.runtime.fd == Some(0)`.
    pub(crate) async fn launch_with(
        binary: &Path,
        directory: &Path,
        launch: &Launch,
        program: Option<OwnedFd>,
    ) -> Result<(ShimClient, i32), ShimError> {
        write_launch(directory, launch)?;
        let mut command = tokio::process::Command::new(binary);
        command.arg("shim").arg(directory.join(LAUNCH_NAME));
        command.stdin(program.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(ShimError::Io)?;
        let stdout = child.stdout.take().ok_or_else(|| ShimError::Protocol("no pipe from the shim".to_owned()))?;
        let work = async {
            let mut line = Vec::new();
            // The shim closes it after its one line.
            stdout.take(READINESS_BYTES).read_to_end(&mut line).await?;
            // It goes on in the background; what was started here ends at once.
            child.wait().await?;
            Ok::<_, io::Error>(line)
        };
        let line = within(RUNTIME_TIME, async { work.await.map_err(ShimError::Io) }).await?;
        match serde_json::from_slice(&line) {
            Ok(Readiness::Ready { pid, .. }) => Ok((ShimClient::at(directory), pid)),
            Ok(Readiness::Failed { message }) => Err(ShimError::Refused { kind: ErrorKind::Runtime, message }),
            Err(_) if line.is_empty() => Err(ShimError::Protocol("it ended without a word".to_owned())),
            Err(error) => Err(ShimError::Protocol(format!("its first word: {error}"))),
        }
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The shim of `directory`, whether it lives or not.
    pub(crate) fn at(directory: &Path) -> ShimClient {
        ShimClient { directory: directory.to_owned() }
    }

    /// Finds the shim of `directory` again: checks that it answers for `container`, and tells how that is.
    pub(crate) async fn connect(directory: &Path, container: &str) -> Result<(ShimClient, ContainerState), ShimError> {
        let client = ShimClient::at(directory);
        match client.ask(Request::Hello { version: VERSION }, CONTROL_TIME).await? {
            Answer::Hello { container: id, .. } if id == container => {}
            Answer::Hello { container: id, .. } => {
                return Err(ShimError::Protocol(format!("it answers for {id} instead of {container}")));
            }
            other => return Err(unexpected(&other)),
        }
        let state = client.state().await?;
        Ok((client, state))
    }

    /// How the container is.
    pub(crate) async fn state(&self) -> Result<ContainerState, ShimError> {
        match self.ask(Request::State, CONTROL_TIME).await? {
            Answer::State(state) => Ok(*state),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts the created container; the error's text is the runtime's.
    pub(crate) async fn start(&self) -> Result<(), ShimError> {
        self.done(Request::Start, RUNTIME_TIME).await
    }

    /// Sends a signal to the first process.
    pub(crate) async fn kill(&self, signal: i32) -> Result<(), ShimError> {
        self.done(Request::Kill { signal, target: KillTarget::Init }, RUNTIME_TIME).await
    }

    /// Sends a signal to every process of the container.
    pub(crate) async fn kill_all(&self, signal: i32) -> Result<(), ShimError> {
        self.done(Request::Kill { signal, target: KillTarget::All }, RUNTIME_TIME).await
    }

    /// Freezes the container.
    pub(crate) async fn pause(&self) -> Result<(), ShimError> {
        self.done(Request::Pause, RUNTIME_TIME).await
    }

    /// Thaws the container.
    pub(crate) async fn resume(&self) -> Result<(), ShimError> {
        self.done(Request::Resume, RUNTIME_TIME).await
    }

    /// Changes limits, given as an OCI `linux.resources` document.
    pub(crate) async fn update(&self, resources: serde_json::Value) -> Result<(), ShimError> {
        self.done(Request::Update { resources }, RUNTIME_TIME).await
    }

    /// Sets the terminal's size; nothing happens without a terminal.
    pub(crate) async fn resize(&self, size: WindowSize) -> Result<(), ShimError> {
        self.done(Request::Resize(size), CONTROL_TIME).await
    }

    /// Closes the container's stdin after what was sent so far.
    pub(crate) async fn close_stdin(&self) -> Result<(), ShimError> {
        self.done(Request::CloseStdin, CONTROL_TIME).await
    }

    /// Sets the size of an exec's terminal.
    pub(crate) async fn exec_resize(&self, id: &str, size: WindowSize) -> Result<(), ShimError> {
        self.done(Request::ExecResize { id: id.to_owned(), size }, CONTROL_TIME).await
    }

    /// Sends a signal to an exec's process.
    pub(crate) async fn exec_kill(&self, id: &str, signal: i32) -> Result<(), ShimError> {
        self.done(Request::ExecKill { id: id.to_owned(), signal }, CONTROL_TIME).await
    }

    /// How an exec is; the shim remembers the last that ended.
    pub(crate) async fn exec_state(&self, id: &str) -> Result<ExecState, ShimError> {
        match self.ask(Request::ExecState { id: id.to_owned() }, CONTROL_TIME).await? {
            Answer::ExecState(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes the container in the runtime; the shim removes its files and ends.
    pub(crate) async fn delete(&self, running: IfRunning) -> Result<(), ShimError> {
        self.done(Request::Delete { running }, RUNTIME_TIME).await
    }

    /// The events from now on, and how the container is now.
    pub(crate) async fn subscribe(&self) -> Result<(ContainerState, ShimEvents), ShimError> {
        let (answer, connection) = self.ask_on_new(Request::Subscribe, CONTROL_TIME).await?;
        match answer {
            Answer::State(state) => Ok((*state, ShimEvents { reader: connection.reader, _writer: connection.writer })),
            other => Err(unexpected(&other)),
        }
    }

    /// A stream of the container, also before it is started.
    pub(crate) async fn attach(&self, attach: Attach) -> Result<(ShimOutput, ShimInput), ShimError> {
        let (answer, connection) = self.ask_on_new(Request::Attach(attach), CONTROL_TIME).await?;
        match answer {
            Answer::Done => Ok(connection.into_stream()),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs one more process; its process id, and its stream if it is attached. The error's text is the runtime's.
    pub(crate) async fn exec_start(
        &self,
        exec: ExecStart,
    ) -> Result<(i32, Option<(ShimOutput, ShimInput)>), ShimError> {
        let mode = exec.mode;
        let (answer, connection) = self.ask_on_new(Request::ExecStart(exec), RUNTIME_TIME).await?;
        match answer {
            Answer::Exec { pid } => Ok((pid, (mode == ExecMode::Attached).then(|| connection.into_stream()))),
            other => Err(unexpected(&other)),
        }
    }

    async fn done(&self, request: Request, time: Duration) -> Result<(), ShimError> {
        match self.ask(request, time).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: Request, time: Duration) -> Result<Answer, ShimError> {
        self.ask_on_new(request, time).await.map(|(answer, _)| answer)
    }

    async fn ask_on_new(&self, request: Request, time: Duration) -> Result<(Answer, Connection), ShimError> {
        within(time, async {
            let mut connection = self.open().await?;
            let payload =
                serde_json::to_vec(&Call { seq: 1, request }).map_err(|e| ShimError::Protocol(e.to_string()))?;
            if payload.len() > FRAME_MAX {
                return Err(FrameError::Length(payload.len()).into());
            }
            let frame = [&encode_head(FrameKind::Control, payload.len())[..], &payload].concat();
            connection.writer.write_all(&frame).await?;
            match connection.reader.message().await? {
                Some(Message::Reply { answer: Answer::Error { kind, message }, .. }) => {
                    Err(ShimError::Refused { kind, message })
                }
                Some(Message::Reply { answer, .. }) => Ok((answer, connection)),
                Some(_) => Err(ShimError::Protocol("something else came instead of a reply".to_owned())),
                None => Err(ShimError::Gone),
            }
        })
        .await
    }

    async fn open(&self) -> Result<Connection, ShimError> {
        let path = self.directory.join(SOCKET_NAME);
        let stream = if path.as_os_str().len() < SOCKET_PATH_BYTES {
            UnixStream::connect(path).await?
        } else {
            // Too long for an address: by an open directory instead.
            let directory = std::fs::File::open(&self.directory)?;
            UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd())).await?
        };
        let (read, writer) = stream.into_split();
        Ok(Connection { reader: FrameReader { read, buffer: BytesMut::new() }, writer })
    }
}

/// What a container's shim tells.
#[derive(Debug)]
pub(crate) struct ShimEvents {
    reader: FrameReader,
    /// Its close would end the subscription.
    _writer: OwnedWriteHalf,
}

impl ShimEvents {
    /// The next event; None when the shim is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            match self.reader.frame().await {
                // Other events are of a newer shim.
                Ok(Some((FrameKind::Control, payload))) => {
                    if let Ok(Message::Event(event)) = serde_json::from_slice(&payload) {
                        return Some(event);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Something that came from a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OutputItem {
    /// What the process wrote to stdout, or to its terminal.
    Stdout(Bytes),
    /// What it wrote to stderr.
    Stderr(Bytes),
    /// The end, with its reason.
    End(End),
}

/// What comes from a stream.
#[derive(Debug)]
pub(crate) struct ShimOutput {
    reader: FrameReader,
}

impl ShimOutput {
    /// The next piece; after [`OutputItem::End`] there is no more. [`ShimError::Gone`] when the shim went without a word.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<OutputItem, ShimError> {
        loop {
            match self.reader.frame().await?.ok_or(ShimError::Gone)? {
                (FrameKind::Stdout, bytes) => return Ok(OutputItem::Stdout(bytes)),
                (FrameKind::Stderr, bytes) => return Ok(OutputItem::Stderr(bytes)),
                (FrameKind::Control, payload) => {
                    if let Ok(Message::End(end)) = serde_json::from_slice(&payload) {
                        return Ok(OutputItem::End(end));
                    }
                }
                (FrameKind::Stdin, _) => return Err(FrameError::Kind(FrameKind::Stdin as u8).into()),
            }
        }
    }
}

/// What goes into a stream. Dropped together with the [`ShimOutput`], the shim lets the attacher go.
#[derive(Debug)]
pub(crate) struct ShimInput {
    writer: OwnedWriteHalf,
}

impl ShimInput {
    /// Sends input; waits while the process takes none. Not cancel-safe: part of `bytes` may be sent.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), ShimError> {
        for piece in bytes.chunks(INPUT_FRAME_BYTES) {
            self.writer.write_all(&encode_head(FrameKind::Stdin, piece.len())).await?;
            self.writer.write_all(piece).await?;
        }
        Ok(())
    }

    /// The input ends: the process sees it, except with a terminal, or when the container's stdin outlives its attachers.
    pub(crate) async fn end(&mut self) -> Result<(), ShimError> {
        Ok(self.writer.write_all(&encode_head(FrameKind::Stdin, 0)).await?)
    }
}

struct Connection {
    reader: FrameReader,
    writer: OwnedWriteHalf,
}

impl Connection {
    fn into_stream(self) -> (ShimOutput, ShimInput) {
        (ShimOutput { reader: self.reader }, ShimInput { writer: self.writer })
    }
}

/// Cuts what comes into frames. What has come of an unfinished frame is kept, so that reading is cancel-safe.
#[derive(Debug)]
struct FrameReader {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

impl FrameReader {
    /// The next frame; None at the end of the connection.
    async fn frame(&mut self) -> Result<Option<(FrameKind, Bytes)>, ShimError> {
        loop {
            let mut missing = FRAME_HEAD;
            if let Some(head) = self.buffer.first_chunk::<FRAME_HEAD>() {
                let (kind, length) = decode_head(*head)?;
                if self.buffer.len() >= FRAME_HEAD + length {
                    self.buffer.advance(FRAME_HEAD);
                    return Ok(Some((kind, self.buffer.split_to(length).freeze())));
                }
                missing += length;
            }
            self.buffer.reserve(missing - self.buffer.len());
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ShimError::Gone) };
            }
        }
    }

    async fn message(&mut self) -> Result<Option<Message>, ShimError> {
        match self.frame().await? {
            Some((FrameKind::Control, payload)) => {
                serde_json::from_slice(&payload).map(Some).map_err(|e| ShimError::Protocol(e.to_string()))
            }
            Some((kind, _)) => Err(FrameError::Kind(kind as u8).into()),
            None => Ok(None),
        }
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, ShimError>>) -> Result<T, ShimError> {
    tokio::time::timeout(time, work).await.unwrap_or(Err(ShimError::Timeout(time)))
}

fn unexpected(answer: &Answer) -> ShimError {
    ShimError::Protocol(format!("unexpected reply {answer:?}"))
}

fn write_launch(directory: &Path, launch: &Launch) -> Result<(), ShimError> {
    use std::io::Write;
    std::fs::create_dir_all(directory).map_err(ShimError::Io)?;
    let text = serde_json::to_vec(launch).map_err(|e| ShimError::Protocol(e.to_string()))?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(directory.join(LAUNCH_NAME)).and_then(|mut file| file.write_all(&text)).map_err(ShimError::Io)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of a shim that answers the first call with `reply` and then sends `frames`.
    async fn answered(reply: &str, frames: &[(FrameKind, &[u8])]) -> (tempfile::TempDir, ShimClient) {
        let directory = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(directory.path().join(SOCKET_NAME)).unwrap();
        let mut wire = Vec::new();
        for (kind, payload) in [(FrameKind::Control, reply.as_bytes())].iter().chain(frames) {
            wire.extend_from_slice(&encode_head(*kind, payload.len()));
            wire.extend_from_slice(payload);
        }
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            // In small pieces: no frame ends where a piece does.
            for piece in wire.chunks(3) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let client = ShimClient::at(directory.path());
        (directory, client)
    }

    #[tokio::test]
    async fn refusals_carry_the_runtimes_text() {
        let reply = r#"{"reply":{"seq":1,"answer":{"error":{"kind":"runtime","message":"exec: no"}}}}"#;
        let (_directory, client) = answered(reply, &[]).await;
        let error = client.start().await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), ("exec: no", Some(ErrorKind::Runtime)));
    }

    #[tokio::test]
    async fn streams_are_read_to_their_end() {
        let end = br#"{"end":{"reason":"exited","exit_code":3}}"#;
        let frames = [(FrameKind::Stdout, &b"out"[..]), (FrameKind::Stderr, b"err"), (FrameKind::Control, end)];
        let (_directory, client) = answered(r#"{"reply":{"seq":1,"answer":"done"}}"#, &frames).await;
        let (mut output, _input) = client.attach(Attach::default()).await.unwrap();
        assert_eq!(output.next().await.unwrap(), OutputItem::Stdout(Bytes::from("out")));
        assert_eq!(output.next().await.unwrap(), OutputItem::Stderr(Bytes::from("err")));
        assert!(matches!(output.next().await.unwrap(), OutputItem::End(End { exit_code: Some(3), .. })));
        assert!(matches!(output.next().await, Err(ShimError::Gone)));
    }

    #[tokio::test]
    async fn events_of_the_future_are_passed_over_and_the_end_is_told() {
        let reply = r#"{"reply":{"seq":1,"answer":{"state":{"status":"running","pid":7}}}}"#;
        let frames =
            [(FrameKind::Control, &br#"{"event":{"new":{}}}"#[..]), (FrameKind::Control, br#"{"event":"oom"}"#)];
        let (_directory, client) = answered(reply, &frames).await;
        let (state, mut events) = client.subscribe().await.unwrap();
        assert_eq!(state.pid, 7);
        assert_eq!(events.next().await, Some(Event::Oom));
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn a_shim_that_is_gone_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(ShimClient::at(directory.path()).state().await, Err(ShimError::Gone)));
        let long = directory.path().join("x".repeat(120));
        std::fs::create_dir(&long).unwrap();
        assert!(matches!(ShimClient::at(&long).state().await, Err(ShimError::Gone)));
        let _listener = tokio::net::UnixListener::bind(directory.path().join("short")).unwrap();
        std::fs::rename(directory.path().join("short"), long.join(SOCKET_NAME)).unwrap();
        assert!(ShimClient::at(&long).open().await.is_ok());
    }
}
