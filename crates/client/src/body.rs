//! Answers that come in pieces: one JSON value a line, or raw bytes.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::ClientError;

/// Longest line of a stream.
const MAX_LINE_BYTES: usize = 16 << 20;

/// A stream of JSON values.
pub struct JsonLines {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl JsonLines {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), ended: false }
    }

    /// The next value; `None` at the end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            while let Some(line) = self.take_line() {
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return Ok(Some(serde_json::from_slice(&line)?));
                }
            }
            if self.ended {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    /// The next raw bytes; `None` at the end.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, ClientError> {
        while self.buffer.is_empty() && !self.ended {
            self.fill().await?;
        }
        Ok((!self.buffer.is_empty()).then(|| self.buffer.split().freeze()))
    }

    async fn fill(&mut self) -> Result<(), ClientError> {
        match self.body.frame().await {
            None => self.ended = true,
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
        if self.buffer.len() > MAX_LINE_BYTES {
            return Err(ClientError::TooLarge { limit: MAX_LINE_BYTES });
        }
        Ok(())
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        match self.buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => Some(self.buffer.split_to(at + 1)),
            None if self.ended && !self.buffer.is_empty() => Some(self.buffer.split()),
            None => None,
        }
    }
}
