//! Between a shim's stream and a caller: two bounded channels and a task that ends with either side.

use std::sync::Arc;

use bytes::Bytes;
use shim::protocol::End;
use tokio::sync::mpsc;

use crate::container::AttachStreams;
use crate::shim_client::{OutputItem, ShimInput, ShimOutput};

/// Pieces of output or input that wait for the other side.
const CHANNEL_PIECES: usize = 64;

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputSource {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFrame {
    /// Where from.
    pub source: OutputSource,
    /// As it came.
    pub bytes: Bytes,
}

/// The caller's ends of the streams of a container or an exec. Dropping `input` ends standard input; dropping all detaches.
#[derive(Debug)]
pub struct Attached {
    /// Whether there is a terminal: then all is `Stdout`, and nothing shall be framed.
    pub tty: bool,
    /// Output until the end.
    pub output: mpsc::Receiver<OutputFrame>,
    /// Input.
    pub input: mpsc::Sender<Bytes>,
}

/// What to do with the last word of a stream.
pub(crate) type OnEnd = Box<dyn FnOnce(Option<End>) + Send>;

/// New streams: the caller's ends and the owner's.
pub(crate) fn pair(tty: bool) -> (Attached, AttachStreams) {
    let (output_sender, output) = mpsc::channel(CHANNEL_PIECES);
    let (input, input_receiver) = mpsc::channel(CHANNEL_PIECES);
    (Attached { tty, output, input }, AttachStreams { output: output_sender, input: input_receiver })
}

/// Carries bytes until either side ends.
pub(crate) fn join(stream: (ShimOutput, ShimInput), streams: AttachStreams, on_end: Option<OnEnd>) {
    let (output, input) = stream;
    let detached = Arc::new(tokio::sync::Notify::new());
    tokio::spawn(carry_input(input, streams.input, detached.clone()));
    tokio::spawn(async move {
        let end = carry_output(output, &streams.output).await;
        detached.notify_one();
        // first: who sees the end of the output may ask at once how it ended
        if let Some(on_end) = on_end {
            on_end(end);
        }
        drop(streams.output);
    });
}

async fn carry_output(mut output: ShimOutput, sink: &mpsc::Sender<OutputFrame>) -> Option<End> {
    loop {
        // both arms lose nothing: `next` is cancel-safe, and a closed sink has nobody to lose anything for
        let item = tokio::select! {
            item = output.next() => item,
            () = sink.closed() => return None,
        };
        let frame = match item {
            Ok(OutputItem::Stdout(bytes)) => OutputFrame { source: OutputSource::Stdout, bytes },
            Ok(OutputItem::Stderr(bytes)) => OutputFrame { source: OutputSource::Stderr, bytes },
            Ok(OutputItem::End(end)) => return Some(end),
            Err(_) => return None,
        };
        if sink.send(frame).await.is_err() {
            return None;
        }
    }
}

async fn carry_input(mut input: ShimInput, mut source: mpsc::Receiver<Bytes>, detached: Arc<tokio::sync::Notify>) {
    loop {
        let bytes = tokio::select! {
            bytes = source.recv() => bytes,
            () = detached.notified() => return,
        };
        let Some(bytes) = bytes else { break };
        let written = tokio::select! {
            written = input.write(&bytes) => written,
            () = detached.notified() => return,
        };
        if written.is_err() {
            return;
        }
    }
    if input.end().await.is_ok() {
        // the connection stays open for the output
        detached.notified().await;
    }
}

/// First what is past, then what comes, into one sink.
pub(crate) fn chain(past: Vec<OutputFrame>, mut live: mpsc::Receiver<OutputFrame>, sink: mpsc::Sender<OutputFrame>) {
    tokio::spawn(async move {
        for frame in past {
            if sink.send(frame).await.is_err() {
                return;
            }
        }
        loop {
            // a closed sink has nobody to lose a frame for
            let frame = tokio::select! {
                frame = live.recv() => frame,
                () = sink.closed() => return,
            };
            let Some(frame) = frame else { return };
            if sink.send(frame).await.is_err() {
                return;
            }
        }
    });
}
