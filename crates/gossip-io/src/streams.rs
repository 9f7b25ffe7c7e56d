//! Streams beside the task: each carries one message, and an answer where there is one. Their number, the bytes that all
//! of them hold together and the time of each are bounded, whoever opens them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gossip::limits::{MAX_STREAM_BYTES, STREAM_TIMEOUT};
use gossip::{Answer, Dial, DialEnd, DialId, Framer, Secrecy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Streams of others that are open at once: memberlist's limit for push/pulls.
const MAX_STREAMS: usize = 128;
/// Of these, from one address: one that opens many leaves places to others.
const MAX_STREAMS_PER_ADDRESS: usize = 16;
/// Bytes that messages which are not whole yet may hold, all of them together: three of the largest.
const MAX_HELD_BYTES: usize = 3 * MAX_STREAM_BYTES;
/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// What streams tell the task.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// Another's message; the answer, or none, goes back over the stream.
    Frame { bytes: Vec<u8>, answer: oneshot::Sender<Option<Vec<u8>>> },
    /// Another's stream ended; whether it brought a message.
    Closed { from: IpAddr, whole: bool },
    /// A stream of ours ended.
    DialEnded(DialId, DialEnd),
}

/// How many streams each address has open. The task owns it.
#[derive(Debug, Default)]
pub(crate) struct Places {
    open: BTreeMap<IpAddr, usize>,
    count: usize,
}

impl Places {
    /// Takes a place; false if there is none.
    pub(crate) fn take(&mut self, from: IpAddr) -> bool {
        let open = self.open.get(&from).copied().unwrap_or(0);
        if self.count >= MAX_STREAMS || open >= MAX_STREAMS_PER_ADDRESS {
            return false;
        }
        self.count += 1;
        self.open.insert(from, open + 1);
        true
    }

    /// Gives it back.
    pub(crate) fn give_back(&mut self, from: IpAddr) {
        self.count -= 1;
        let open = self.open.remove(&from).expect("it was taken") - 1;
        if open > 0 {
            self.open.insert(from, open);
        }
    }
}

/// The bytes that all streams hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<AtomicUsize>);

/// A stream's share of them, given back at its end.
struct Share {
    held: Held,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        let before = self.held.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > MAX_HELD_BYTES {
            return Err(io::Error::other("streams hold too much together"));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads one whole frame.
async fn read_frame(stream: &mut TcpStream, secrecy: Secrecy, held: &Held) -> io::Result<Vec<u8>> {
    let mut share = Share { held: held.clone(), bytes: 0 };
    let mut framer = Framer::new(secrecy);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        share.grow(length)?;
        match framer.push(&chunk[..length]) {
            Ok(true) => return Ok(framer.into_message()),
            Ok(false) => {}
            Err(reason) => return Err(io::Error::other(format!("{reason:?}"))),
        }
    }
}

/// Serves a stream that another opened.
pub(crate) async fn serve(
    mut stream: TcpStream,
    from: SocketAddr,
    secrecy: Secrecy,
    held: Held,
    events: mpsc::Sender<StreamEvent>,
) {
    let served = timeout(STREAM_TIMEOUT, serve_in_time(&mut stream, secrecy, &held, &events)).await;
    let whole = matches!(served, Ok(Ok(())));
    // The task is gone only when all of this is.
    let _ = events.send(StreamEvent::Closed { from: from.ip(), whole }).await;
}

async fn serve_in_time(
    stream: &mut TcpStream,
    secrecy: Secrecy,
    held: &Held,
    events: &mpsc::Sender<StreamEvent>,
) -> io::Result<()> {
    let bytes = read_frame(stream, secrecy, held).await?;
    let (answer, answered) = oneshot::channel();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    events.send(StreamEvent::Frame { bytes, answer }).await.map_err(|_| gone(()))?;
    if let Some(bytes) = answered.await.map_err(|_| gone(()))? {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

/// Opens a stream of ours and tells its end.
pub(crate) async fn dial(dial: Dial, secrecy: Secrecy, held: Held, events: mpsc::Sender<StreamEvent>) {
    let id = dial.id;
    let end = match timeout(dial.within, dial_in_time(dial, secrecy, &held)).await {
        Ok(Ok(end)) => end,
        Ok(Err(_)) | Err(_) => DialEnd::Failed,
    };
    let _ = events.send(StreamEvent::DialEnded(id, end)).await;
}

async fn dial_in_time(dial: Dial, secrecy: Secrecy, held: &Held) -> io::Result<DialEnd> {
    let mut stream = TcpStream::connect(dial.to).await?;
    stream.write_all(&dial.bytes).await?;
    Ok(match dial.answer {
        Answer::None => {
            stream.shutdown().await?;
            DialEnd::Sent
        }
        Answer::One => DialEnd::Answered(read_frame(&mut stream, secrecy, held).await?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_address_and_in_all() {
        let mut places = Places::default();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        for _ in 0..MAX_STREAMS_PER_ADDRESS {
            assert!(places.take(address(1)));
        }
        assert!(!places.take(address(1)));
        for last in 2..=(MAX_STREAMS / MAX_STREAMS_PER_ADDRESS) as u8 {
            for _ in 0..MAX_STREAMS_PER_ADDRESS {
                assert!(places.take(address(last)));
            }
        }
        assert!(!places.take(address(200)));
        places.give_back(address(1));
        assert!(places.take(address(200)));
    }

    #[test]
    fn held_bytes_are_bounded_and_given_back() {
        let held = Held::default();
        let mut one = Share { held: held.clone(), bytes: 0 };
        one.grow(MAX_HELD_BYTES).expect("room");
        let mut other = Share { held: held.clone(), bytes: 0 };
        assert!(other.grow(1).is_err());
        drop((one, other));
        assert_eq!(held.0.load(Ordering::Relaxed), 0);
    }
}
