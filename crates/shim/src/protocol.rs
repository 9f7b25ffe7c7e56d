//! What is said on a shim's socket. Owns the frames, the requests, the replies and the events; both ends use these types.
//!
//! A frame is a head of [`FRAME_HEAD`] bytes (one byte [`FrameKind`], four bytes length of the payload, big endian) and
//! at most [`FRAME_MAX`] bytes of payload. Control frames hold one JSON document: a [`Call`] towards the shim, a
//! [`Message`] towards the client. Data frames hold raw bytes of one stream.
//!
//! A connection starts as a control connection: every [`Call`] gets one reply with the same `seq`, not necessarily in order.
//! After the reply to `Subscribe` events come in between. After the reply to `Attach`, or to `ExecStart` with
//! [`ExecMode::Attached`], it is a stream: data frames both ways, no calls any more, and a last [`Message::End`] before
//! the shim closes it. A data frame of length 0 towards the shim is the end of stdin.
//!
//! Versions: fields are only ever added, each with a default, and unknown ones are ignored, so that a newer engine can use
//! the shim of an older one: an unknown request is answered with [`ErrorKind::UnknownRequest`]. [`VERSION`] tells what a
//! shim knows.

use serde::{Deserialize, Serialize};

use crate::launch::ExitRecord;

/// Version of this protocol; grows when a request or a field is added.
pub const VERSION: u32 = 1;
/// Bytes before the payload of each frame: kind, then the payload's length as big-endian `u32`.
pub const FRAME_HEAD: usize = 5;
/// Most bytes of payload in one frame, of both directions.
pub const FRAME_MAX: usize = 1 << 20;
/// Name of the socket in the shim's directory.
pub const SOCKET_NAME: &str = "shim.sock";

/// What the payload of a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// One JSON document.
    Control = 0,
    /// Bytes for the process; none of them means end of input.
    Stdin = 1,
    /// Bytes the process wrote to stdout, or to its terminal.
    Stdout = 2,
    /// Bytes the process wrote to stderr.
    Stderr = 3,
}

/// Why a frame cannot be read. The connection has lost its place then and must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The first byte is no [`FrameKind`].
    Kind(u8),
    /// The payload would be longer than [`FRAME_MAX`].
    Length(usize),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::Kind(kind) => write!(f, "unknown kind of frame {kind}"),
            FrameError::Length(length) => write!(f, "frame of {length} bytes, at most {FRAME_MAX} are allowed"),
        }
    }
}

impl std::error::Error for FrameError {}

/// The head of a frame with `length` bytes of payload; `length` is at most [`FRAME_MAX`].
pub fn encode_head(kind: FrameKind, length: usize) -> [u8; FRAME_HEAD] {
    debug_assert!(length <= FRAME_MAX);
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [kind as u8, a, b, c, d]
}

/// Kind and payload length of the frame that starts with `head`.
pub fn decode_head(head: [u8; FRAME_HEAD]) -> Result<(FrameKind, usize), FrameError> {
    let [kind, a, b, c, d] = head;
    let kind = match kind {
        0 => FrameKind::Control,
        1 => FrameKind::Stdin,
        2 => FrameKind::Stdout,
        3 => FrameKind::Stderr,
        other => return Err(FrameError::Kind(other)),
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > FRAME_MAX { Err(FrameError::Length(length)) } else { Ok((kind, length)) }
}

/// A control frame towards the shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client, repeated in the reply.
    pub seq: u64,
    /// What is asked.
    pub request: Request,
}

/// Everything a client can ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Tells versions. Reply: [`Answer::Hello`].
    Hello {
        /// The client's [`VERSION`].
        version: u32,
    },
    /// Reply: [`Answer::State`].
    State,
    /// Starts the created container. Reply: done, or the runtime's error text.
    Start,
    /// Sends a signal. Reply: done, or [`ErrorKind::NotRunning`].
    Kill {
        /// Number of the signal.
        signal: i32,
        /// Whom it reaches.
        #[serde(default)]
        target: KillTarget,
    },
    /// Freezes the container. Reply: done.
    Pause,
    /// Thaws the container. Reply: done.
    Resume,
    /// Changes limits: an OCI `linux.resources` document for `update --resources`. Reply: done.
    Update {
        /// The OCI document.
        resources: serde_json::Value,
    },
    /// Sets the terminal's size. Reply: done; for a container without terminal too, as dockerd does.
    Resize(WindowSize),
    /// Turns this connection into a stream of the container. Possible before `Start`. Reply: [`Answer::Done`], then frames.
    Attach(Attach),
    /// Closes the container's stdin after what was sent so far. Reply: done.
    CloseStdin,
    /// Runs one more process in the container. Reply: [`Answer::Exec`], or the runtime's error text.
    ExecStart(ExecStart),
    /// Sets the size of an exec's terminal. Reply: done.
    ExecResize {
        /// As given in [`ExecStart`].
        id: String,
        /// The new size.
        size: WindowSize,
    },
    /// Sends a signal to an exec's process. Reply: done.
    ExecKill {
        /// As given in [`ExecStart`].
        id: String,
        /// Number of the signal.
        signal: i32,
    },
    /// Reply: [`Answer::ExecState`], [`ErrorKind::NotFound`] when it is long gone.
    ExecState {
        /// As given in [`ExecStart`].
        id: String,
    },
    /// Sends the events from now on on this connection, calls stay possible. Reply: [`Answer::State`] as of that moment, so
    /// nothing is missed in between.
    Subscribe,
    /// Deletes the container in the runtime, removes the shim's own files, replies done, ends. The exit record stays.
    Delete {
        /// What happens when the container runs.
        #[serde(default)]
        running: IfRunning,
    },
}

/// Whom a signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillTarget {
    /// The container's first process.
    #[default]
    Init,
    /// Every process of the container.
    All,
}

/// What `Delete` does with a container that still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfRunning {
    /// It is an error of kind [`ErrorKind::Running`].
    #[default]
    Refuse,
    /// It is killed.
    Kill,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Which streams of the container an attacher wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// Frames of kind `Stdin` are passed on.
    pub stdin: bool,
    /// Frames of kind `Stdout` are sent; with a terminal this is everything.
    pub stdout: bool,
    /// Frames of kind `Stderr` are sent.
    pub stderr: bool,
}

/// One more process in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecStart {
    /// Chosen by the engine; unique within the container.
    pub id: String,
    /// An OCI `process` document. Its `terminal` is overwritten with `terminal`.
    pub process: serde_json::Value,
    /// Whether it gets a pseudo-terminal.
    #[serde(default)]
    pub terminal: bool,
    /// First size of the terminal.
    #[serde(default)]
    pub size: Option<WindowSize>,
    /// Whether its stdin is a pipe (or the terminal) rather than `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Whether this connection becomes its stream.
    #[serde(default)]
    pub mode: ExecMode,
}

/// Where the output of an exec goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecMode {
    /// To the connection that asked, which becomes a stream. A reader that is slow slows the process down.
    #[default]
    Attached,
    /// Nowhere; the exit is told by [`Event::ExecExited`] and by the state.
    Detached,
}

/// A control frame towards the client.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The answer to one call.
    Reply {
        /// The call's number; 0 when the call could not be read at all.
        seq: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Something happened; only to subscribers.
    Event(Event),
    /// The last frame of a stream.
    End(End),
}

/// What came of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// Who answers.
    Hello {
        /// The shim's [`VERSION`].
        version: u32,
        /// The container's id.
        container: String,
        /// The shim's own process id.
        shim_pid: i32,
    },
    /// How the container is.
    State(Box<ContainerState>),
    /// The exec runs.
    Exec {
        /// Process id in the host's namespace.
        pid: i32,
    },
    /// How an exec is.
    ExecState(ExecState),
    /// It is not done.
    Error {
        /// What a program can act on.
        kind: ErrorKind,
        /// For people; for [`ErrorKind::Runtime`] the runtime's own text, e.g.
        /// `exec: "foo": executable file not found in $PATH`.
        message: String,
    },
}

/// What a program can tell apart about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The shim is older than the request, or the request is malformed.
    UnknownRequest,
    /// The runtime said no; the message is its text.
    Runtime,
    /// The container (or the exec) has no process any more, or none yet.
    NotRunning,
    /// The container runs, or was started already.
    Running,
    /// No exec of that id.
    NotFound,
    /// An exec of that id exists.
    Exists,
    /// One of the limits of `shim::limits`.
    Limit,
    /// Anything else, e.g. a failed system call.
    Internal,
    /// Of a newer shim.
    #[serde(other)]
    Other,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Where it is in its life.
    pub status: Status,
    /// Process id of its first process in the host's namespace; stays after the exit.
    pub pid: i32,
    /// When the runtime had started it; RFC 3339, UTC.
    #[serde(default)]
    pub started_at: Option<String>,
    /// How it ended.
    #[serde(default)]
    pub exit: Option<ExitRecord>,
    /// Whether the kernel killed a process of it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Execs that run, and the last that ended.
    #[serde(default)]
    pub execs: Vec<ExecState>,
    /// Number of streams attached to it.
    #[serde(default)]
    pub attached: u32,
    /// What the log has lost.
    #[serde(default)]
    pub log: LogHealth,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The runtime has created it; `Start` is awaited.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its first process has ended and the exit record is written.
    Exited,
}

/// How an exec is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    /// As given in [`ExecStart`].
    pub id: String,
    /// Process id in the host's namespace; 0 while the runtime is at work.
    pub pid: i32,
    /// Its exit code once it has ended: 128 + signal when a signal ended it.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// When it ended; RFC 3339, UTC.
    #[serde(default)]
    pub exited_at: Option<String>,
}

/// What the log has lost. Writing never holds up the container: what cannot be written is counted and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogHealth {
    /// Failed writes, rotations and reopenings.
    pub errors: u64,
    /// Lines that are missing.
    pub lost_lines: u64,
    /// The last error's text, e.g. of a full disk.
    pub last_error: Option<String>,
}

/// What subscribers are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The runtime has started the container.
    Started {
        /// Its first process.
        pid: i32,
        /// When; RFC 3339, UTC.
        at: String,
    },
    /// The container has ended; its output is in the log and the record is on disk.
    Exited(ExitRecord),
    /// The kernel ran out of the container's memory.
    Oom,
    /// An exec has ended.
    ExecExited(ExecState),
}

/// The last word on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Why it ends.
    pub reason: EndReason,
    /// The exit code of the container or the exec, when that is the reason.
    #[serde(default)]
    pub exit_code: Option<i32>,
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The process has ended, and everything it wrote has been sent.
    Exited,
    /// The reader took nothing for too long and was cut off; the container goes on.
    TooSlow,
    /// Of a newer shim.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_written() {
        for (kind, length) in [(FrameKind::Control, 0), (FrameKind::Stdin, 1), (FrameKind::Stderr, FRAME_MAX)] {
            assert_eq!(decode_head(encode_head(kind, length)), Ok((kind, length)));
        }
        assert_eq!(decode_head([9, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
        assert_eq!(decode_head([0, 0, 0x10, 0, 1]), Err(FrameError::Length(FRAME_MAX + 1)));
    }

    #[test]
    fn documents_of_other_versions_are_read() {
        let old = r#"{"reply":{"seq":4,"answer":{"state":{"status":"running","pid":7,"from_the_future":[1]}}}}"#;
        let Ok(Message::Reply { seq: 4, answer: Answer::State(state) }) = serde_json::from_str(old) else {
            panic!("not read")
        };
        assert_eq!((state.status, state.pid, state.exit), (Status::Running, 7, None));
        let newer = r#"{"reply":{"seq":4,"answer":{"error":{"kind":"never_heard_of","message":"x"}}}}"#;
        assert!(matches!(
            serde_json::from_str(newer),
            Ok(Message::Reply { answer: Answer::Error { kind: ErrorKind::Other, .. }, .. })
        ));
    }
}
