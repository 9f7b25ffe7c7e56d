//! Where a daemon listens: `unix:///path` or `tcp://host:port`.

use std::path::PathBuf;
use std::str::FromStr;

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Plain TCP, `host:port`.
    Tcp(String),
}

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {0:?} as the daemon's address: give unix:///path or tcp://host:port")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let host = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")).ok_or_else(bad)?;
        let host = host.trim_end_matches('/');
        if host.is_empty() {
            return Err(bad());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self::Tcp(if has_port { host.to_owned() } else { format!("{host}:2375") }))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        assert_eq!("unix:///run/x.sock".parse(), Ok(Address::Unix("/run/x.sock".into())));
        assert_eq!("tcp://1.2.3.4".parse(), Ok(Address::Tcp("1.2.3.4:2375".into())));
        assert_eq!("tcp://h:1/".parse(), Ok(Address::Tcp("h:1".into())));
        assert!("ftp://x".parse::<Address>().is_err());
        assert!("unix://".parse::<Address>().is_err());
    }
}
