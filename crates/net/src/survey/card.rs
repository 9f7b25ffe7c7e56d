//! Network cards: whose driver, and whether they compute checksums.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use doctor::Link;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Links that are asked: those with a card, of which a machine has few.
const MAX_CARDS: usize = 32;
const ETHTOOL: libc::Ioctl = 0x8946;
const GET_TX_CHECKSUMS: u32 = 0x16;

/// Fills in what cards tell.
pub(super) fn fill(links: &mut [Link]) {
    let driver = |name: &str| {
        let target = fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    for link in links.iter_mut().filter(|link| link.name != "lo").take(MAX_CARDS) {
        link.driver = driver(&link.name);
        link.checksums_in_card = checksums(&link.name).ok();
    }
}

/// `ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

fn checksums(name: &str) -> io::Result<bool> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command: GET_TX_CHECKSUMS, data: 0 };
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a link, ends its name with a zero, and points to a value that lives until the call returns.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    if code == 0 { Ok(value.data != 0) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_are_not_there_tell_nothing() {
        assert!(checksums("no-such-link").is_err());
        assert!(checksums(&"n".repeat(40)).is_err());
    }
}
