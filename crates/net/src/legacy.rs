//! The policies of iptables' own (not nftables') chains, read as `iptables-legacy` does: by socket options.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// Tables that this namespace has. Asking for another would make it.
const TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const NAME_BYTES: usize = 32;
/// `ipt_getinfo`: name, valid hooks, entry and underflow of five hooks, number and size of entries.
const INFO_BYTES: usize = NAME_BYTES + 4 * 13;
/// `ipt_get_entries`: name, size, padding.
const ENTRIES_HEAD: usize = NAME_BYTES + 8;
/// `target_offset` within `ipt_entry`.
const TARGET_OFFSET: usize = 88;
/// The verdict within a standard target.
const VERDICT: usize = 32;
/// `-NF_DROP - 1`
const DROP: i32 = -1;
/// More than any table in use; a size beyond is not believed.
const TABLE_BYTES_MAX: usize = 64 << 20;

/// A chain, by the number of its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    Input = 1,
    Forward = 2,
    Output = 3,
}

/// Whether forwarded packets that no rule of iptables accepts are dropped.
pub(crate) fn forward_drops() -> io::Result<bool> {
    drops(Chain::Forward)
}

/// Whether packets that no rule of a chain accepts are dropped.
pub(crate) fn drops(chain: Chain) -> io::Result<bool> {
    let tables = match std::fs::read_to_string(TABLES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        tables => tables?,
    };
    if !tables.lines().any(|table| table == "filter") {
        return Ok(false);
    }
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let mut info = named(INFO_BYTES);
    get(&raw, GET_INFO, &mut info)?;
    let (Some(underflow), Some(size)) =
        (word(&info, NAME_BYTES + 4 * (6 + chain as usize)), word(&info, INFO_BYTES - 4))
    else {
        return Ok(false);
    };
    let size = size as usize;
    if size > TABLE_BYTES_MAX {
        return Err(io::Error::other("the table of iptables is too large"));
    }
    let mut entries = named(ENTRIES_HEAD + size);
    entries[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&info[INFO_BYTES - 4..]);
    get(&raw, GET_ENTRIES, &mut entries)?;
    Ok(policy(&entries[ENTRIES_HEAD..], underflow as usize) == Some(DROP))
}

/// The verdict of the entry that ends a chain.
fn policy(entries: &[u8], underflow: usize) -> Option<i32> {
    let entry = entries.get(underflow..)?;
    let target = entry.get(TARGET_OFFSET..TARGET_OFFSET + 2)?;
    let target = usize::from(u16::from_ne_bytes([target[0], target[1]]));
    word(entry, target + VERDICT).map(|verdict| verdict as i32)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn named(len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    buffer[..6].copy_from_slice(b"filter");
    buffer
}

fn get(socket: &OwnedFd, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut len = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `len` bytes, which is the buffer's length, and the descriptor is open.
    let code = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, buffer.as_mut_ptr().cast(), &raw mut len)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_ends_early_has_no_policy() {
        for len in 0..200 {
            assert_ne!(policy(&vec![0xff; len], 40), Some(DROP - 1));
        }
    }
}
