//! A sealed copy of the running binary (CVE-2019-5736): a container that reaches `/proc/<pid>/exe` of the runtime while
//! it joins must not be able to write the program on disk.
//!
//! Invariant: the copy's contents and size can never change again. Callers: the daemon and the shim, once each, and
//! then run `/proc/self/fd/<fd>` (or `fexecve`) for every command of the runtime.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Copies the running binary into a memory file that is sealed against shrinking, growing, writing and unsealing.
///
/// The descriptor is close-on-exec; the kernel opens a program before it closes such descriptors, so running
/// `/proc/self/fd/<fd>` works. Costs the size of the binary in memory, once per holder.
pub fn sealed_self() -> io::Result<OwnedFd> {
    let mut binary = File::open("/proc/self/exe")?;
    // MFD_EXEC would be refused by kernels before 6.3; without it a memory file is executable unless
    // vm.memfd_noexec forbids it.
    let copy = memfd_create(c"skep-runtime", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut copy = File::from(copy);
    io::copy(&mut binary, &mut copy)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(copy.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsRawFd;

    #[test]
    fn the_copy_is_whole_and_unchangeable() {
        let mut copy = File::from(sealed_self().unwrap());
        assert_eq!(copy.metadata().unwrap().len(), std::fs::metadata("/proc/self/exe").unwrap().len());
        copy.rewind().unwrap();
        let mut magic = [0; 4];
        copy.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        copy.rewind().unwrap();
        assert_eq!(copy.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(copy.set_len(0).is_err());
        assert!(fcntl(&copy, FcntlArg::F_ADD_SEALS(SealFlag::empty())).is_err());
    }

    #[test]
    fn the_copy_runs() {
        let copy = sealed_self().unwrap();
        let output = std::process::Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))
            .args(["--list", "no-such-test"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
