//! Streams of containers and execs: attach, logs, and the pump between a connection taken over and a container.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use docker_types::time;
use engine::{AttachOptions, Attached, LogsOptions, OutputFrame, OutputSource};
use futures::Stream;
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::answer;
use crate::detach::{self, Seen, Watch};
use crate::error::{ApiError, ApiResult};
use crate::frames::{Channel, Framing, RAW};
use crate::hijack::Takeover;
use crate::request::{ClientVersion, Params, go_number_error};
use crate::state::Shared;
use crate::swarm::logs::tail;

/// How much input is read at once.
const INPUT_PIECE_BYTES: usize = 16 * 1024;

impl From<OutputSource> for Channel {
    fn from(source: OutputSource) -> Self {
        match source {
            OutputSource::Stdout => Self::Stdout,
            OutputSource::Stderr => Self::Stderr,
        }
    }
}

/// `POST /containers/{id}/attach`.
pub(crate) async fn attach(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
    mut request: Request<Body>,
) -> ApiResult {
    let text = params.get("detachKeys");
    let bad_keys = |_| ApiError::bad_request(format!("Invalid detach keys ({text}) provided"));
    let keys = detach::parse(text).map_err(bad_keys)?;
    let options = AttachOptions {
        stdin: params.flag("stdin"),
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        logs: params.flag("logs"),
        stream: params.flag("stream"),
    };
    let takeover = Takeover::of(&mut request);
    let attached = state.engine.attach(&id, options).await?;
    let framing = Framing::of_tty(attached.tty);
    let Some(takeover) = takeover else {
        return Ok(answer::stream(RAW, output_only(attached, framing)));
    };
    let content_type = framing.content_type(version);
    let input = if options.stdin { Input::Forwarded } else { Input::Ignored };
    Ok(takeover.answer(&state.sessions, content_type, move |stream| pump(stream, attached, framing, input, keys)))
}

/// For clients that do not ask for the connection: they can only read.
pub(crate) fn output_only(attached: Attached, framing: Framing) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(attached.output, move |mut output| async move {
        let piece = output.recv().await?;
        Some((Ok(framing.wrap(piece.source.into(), piece.bytes)), output))
    })
}

/// What becomes of what the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// It goes to the container, its end too.
    Forwarded,
    /// Standard input is not attached.
    Ignored,
}

/// Moves bytes both ways until the container's output ends, the client is gone, or it detaches.
pub(crate) async fn pump(
    stream: impl AsyncRead + AsyncWrite + Send,
    attached: Attached,
    framing: Framing,
    input: Input,
    keys: Vec<u8>,
) {
    let (reader, mut writer) = tokio::io::split(stream);
    let watch = attached.tty.then(|| Watch::new(keys));
    {
        let mut input = std::pin::pin!(pump_input(reader, attached.input, input, watch));
        let mut output = std::pin::pin!(pump_output(attached.output, &mut writer, framing));
        // Both are polled by reference; when one is dropped the session is over.
        let ended = tokio::select! {
            () = output.as_mut() => InputEnd::Detached,
            ended = input.as_mut() => ended,
        };
        if ended == InputEnd::Closed {
            output.await;
        }
    }
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "a client left before its stream was closed");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputEnd {
    /// There is no more to come; output goes on.
    Closed,
    /// The client wants no more.
    Detached,
}

async fn pump_input(
    mut reader: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Bytes>,
    input: Input,
    mut watch: Option<Watch>,
) -> InputEnd {
    let mut buffer = vec![0; INPUT_PIECE_BYTES];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => count,
            Err(_) => return InputEnd::Detached,
        };
        let seen = match &mut watch {
            Some(watch) => watch.see(&buffer[..count]),
            None => Seen::Input(buffer[..count].to_vec()),
        };
        let (bytes, detach) = match seen {
            Seen::Input(bytes) => (bytes, false),
            Seen::Detach(bytes) => (bytes, true),
        };
        if input == Input::Forwarded && !bytes.is_empty() && sender.send(bytes.into()).await.is_err() {
            tracing::trace!("a container reads no more; its input goes by");
        }
        if detach {
            return InputEnd::Detached;
        }
    }
    if input == Input::Ignored {
        // Its end would be the end of the container's input: it goes with the session.
        std::future::pending::<()>().await;
    }
    InputEnd::Closed
}

async fn pump_output(
    mut output: mpsc::Receiver<OutputFrame>,
    writer: &mut (impl AsyncWrite + Unpin),
    framing: Framing,
) {
    while let Some(piece) = output.recv().await {
        let frame = framing.wrap(piece.source.into(), piece.bytes);
        let written = match writer.write_all(&frame).await {
            Ok(()) => writer.flush().await,
            failed => failed,
        };
        if let Err(error) = written {
            tracing::debug!(%error, "a client left its stream");
            return;
        }
    }
}

/// `GET /containers/{id}/logs`.
pub(crate) async fn logs(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
) -> ApiResult {
    let options = LogsOptions {
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        since: point_in_time(&params, "since")?,
        until: point_in_time(&params, "until")?,
        tail: tail(params.get("tail")).map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        timestamps: params.flag("timestamps"),
        details: params.flag("details"),
        follow: params.flag("follow"),
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let logs = state.engine.logs(&id, options).await?;
    let framing = Framing::of_tty(logs.tty);
    let lines = futures::stream::unfold(logs.frames, move |mut frames| async move {
        let frame = frames.recv().await?;
        Some((Ok::<_, Infallible>(framing.wrap(frame.source.into(), frame.bytes)), frames))
    });
    Ok(until_the_end(&state, framing.content_type(version), lines))
}

/// A stream that is also over when the server ends, so that followers do not hold it up.
pub(crate) fn until_the_end(
    state: &Shared,
    content_type: &'static str,
    chunks: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    use futures::StreamExt;
    let ending = state.sessions.ending.clone();
    answer::stream(content_type, chunks.take_until(async move { ending.cancelled().await }))
}

/// `since` and `until` in nanoseconds since 1970: 0 is none.
pub(crate) fn point_in_time(params: &Params, name: &str) -> Result<Option<i64>, ApiError> {
    match params.get(name) {
        "" | "0" => Ok(None),
        text => match time::parse_unix(text) {
            Some(at) => Ok(Some(nanoseconds(at))),
            None => {
                let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
                let wrong = if seconds.parse::<i64>().is_err() { seconds } else { fraction };
                // dockerd leaves it unclassified
                Err(ApiError::internal(go_number_error("ParseInt", wrong)))
            }
        },
    }
}

pub(crate) fn nanoseconds(at: model::Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(tty: bool) -> (Attached, mpsc::Sender<OutputFrame>, mpsc::Receiver<Bytes>) {
        let (output, receiver) = mpsc::channel(4);
        let (sender, input) = mpsc::channel(4);
        (Attached { tty, output: receiver, input: sender }, output, input)
    }

    fn piece(source: OutputSource, text: &'static str) -> OutputFrame {
        OutputFrame { source, bytes: Bytes::from_static(text.as_bytes()) }
    }

    #[tokio::test]
    async fn input_may_end_before_output() {
        let (attached, output, mut input) = attached(false);
        let (mut client, server) = tokio::io::duplex(64);
        let session = tokio::spawn(pump(server, attached, Framing::Framed, Input::Forwarded, vec![16, 17]));
        client.write_all(b"in\x10\x11").await.unwrap();
        assert_eq!(input.recv().await.unwrap(), "in\x10\x11", "no terminal, no detach keys");
        output.send(piece(OutputSource::Stderr, "e")).await.unwrap();
        output.send(piece(OutputSource::Stdout, "o")).await.unwrap();
        drop(output);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x01o");
        session.await.unwrap();
        assert_eq!(input.recv().await, None);
    }

    #[tokio::test]
    async fn detach_keys_end_a_terminals_session() {
        let (attached, output, mut input) = attached(true);
        let (mut client, server) = tokio::io::duplex(64);
        let session = tokio::spawn(pump(server, attached, Framing::Raw, Input::Forwarded, vec![16, 17]));
        client.write_all(b"ls\x10\x11").await.unwrap();
        assert_eq!(input.recv().await.unwrap(), "ls");
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        session.await.unwrap();
        assert!(all.is_empty() && output.is_closed());
    }
}
