//! Connections that are made only to see whether they are: nothing is sent over them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use doctor::Reach;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects, and closes.
pub(super) async fn reach(to: SocketAddr) -> Reach {
    match timeout(PATIENCE, TcpStream::connect(to)).await {
        Err(_) => Reach::NoAnswer,
        Ok(Ok(_)) => Reach::Connected,
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Reach::Refused,
            io::ErrorKind::TimedOut => Reach::NoAnswer,
            _ => Reach::Unreachable(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listeners_are_told_from_closed_ports() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        assert_eq!(reach(address).await, Reach::Connected);
        drop(listener);
        assert_eq!(reach(address).await, Reach::Refused);
        assert!(matches!(reach(([255, 255, 255, 255], 1).into()).await, Reach::Unreachable(_)));
    }
}
