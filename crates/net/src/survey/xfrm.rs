//! Whether the kernel has ESP with the cipher of encrypted networks: by adding a security association, which is the only
//! way to know.

use std::io;

use netlink_sys::Socket;
use netlink_sys::constants::NETLINK_XFRM;

use crate::netlink::{ACK, REQUEST};

const NEW_ASSOCIATION: u16 = 0x10;
const ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
/// `xfrm_usersa_info`.
const ASSOCIATION_BYTES: usize = 224;
/// Within it: destination, number, protocol, source, limits, family.
const DESTINATION: usize = 56;
const SPI: usize = 72;
const PROTOCOL: usize = 76;
const SOURCE: usize = 80;
const LIMITS: usize = 96;
const LIMITS_BYTES: usize = 32;
const FAMILY: usize = 212;
const ESP: u8 = 50;
/// The attribute with the cipher: its name, bits of the key and of the check value, the key with its salt.
const CIPHER: u16 = 18;
const NAME_BYTES: usize = 64;
const KEY_BYTES: usize = 20;
const CHECK_BITS: u32 = 64;

/// Adds an association in the thread's namespace, which is nobody else's.
pub(super) fn try_esp() -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_XFRM)?;
    socket.bind_auto()?;
    socket.send(&request(), 0)?;
    let mut answer = Vec::with_capacity(4096);
    // The kernel works the request off within `send`.
    socket.recv(&mut answer, libc::MSG_DONTWAIT)?;
    read(&answer)
}

fn request() -> Vec<u8> {
    let mut association = vec![0; ASSOCIATION_BYTES];
    association[DESTINATION..DESTINATION + 4].copy_from_slice(&[192, 0, 2, 1]);
    association[SPI..SPI + 4].copy_from_slice(&0x1000_u32.to_be_bytes());
    association[PROTOCOL] = ESP;
    association[SOURCE..SOURCE + 4].copy_from_slice(&[192, 0, 2, 2]);
    association[LIMITS..LIMITS + LIMITS_BYTES].fill(0xff);
    association[FAMILY..FAMILY + 2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    let mut cipher = b"rfc4106(gcm(aes))".to_vec();
    cipher.resize(NAME_BYTES, 0);
    cipher.extend((KEY_BYTES as u32 * 8).to_ne_bytes());
    cipher.extend(CHECK_BITS.to_ne_bytes());
    cipher.extend([7; KEY_BYTES]);
    let mut message = vec![0; HEADER_BYTES];
    message.extend(association);
    message.extend((cipher.len() as u16 + 4).to_ne_bytes());
    message.extend(CIPHER.to_ne_bytes());
    message.extend(cipher);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&NEW_ASSOCIATION.to_ne_bytes());
    message[6..8].copy_from_slice(&(REQUEST | ACK).to_ne_bytes());
    message[8..12].copy_from_slice(&1_u32.to_ne_bytes());
    message
}

fn read(answer: &[u8]) -> io::Result<()> {
    let odd = || io::Error::other("the kernel's answer is none");
    let kind = answer.get(4..6).ok_or_else(odd)?;
    let code = answer.get(HEADER_BYTES..HEADER_BYTES + 4).ok_or_else(odd)?;
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        _ if u16::from_ne_bytes([kind[0], kind[1]]) != ERROR => Err(odd()),
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = |code: i32| {
            let mut bytes = vec![0; HEADER_BYTES];
            bytes[4] = 2;
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(read(&answer(0)).is_ok());
        assert_eq!(read(&answer(-libc::ENOSYS)).expect_err("an error").raw_os_error(), Some(libc::ENOSYS));
        assert!(read(&[]).is_err() && read(&[0; 20]).is_err());
        assert_eq!(request().len(), HEADER_BYTES + ASSOCIATION_BYTES + 4 + NAME_BYTES + 8 + KEY_BYTES);
    }
}
