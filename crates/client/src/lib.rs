//! A client of the Docker Engine API over a unix socket or TCP: JSON calls, streamed answers, hijacked connections. It
//! knows HTTP and the API's error form, not the endpoints. Works against any engine.

#![forbid(unsafe_code)]

mod address;
mod body;
mod connection;

pub use address::{Address, AddressError};
pub use body::JsonLines;
pub use connection::{Client, Hijacked};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answers there.
    #[error("Cannot connect to the daemon at {address}. Is it running? Start it with `skep daemon`.")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The daemon refused, with its message.
    #[error("Error response from daemon: {message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The daemon's text.
        message: String,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Http(#[from] hyper::Error),
    /// The answer is not what the API promises.
    #[error("the daemon's answer could not be read")]
    Decode(#[from] serde_json::Error),
    /// An answer is larger than any the API gives.
    #[error("the daemon's answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A request could not be put together.
    #[error("the request is not valid HTTP")]
    Request(#[from] http::Error),
}

impl ClientError {
    /// The HTTP status, if the daemon answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }
}
