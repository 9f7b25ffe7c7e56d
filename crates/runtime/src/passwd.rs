//! The home directory of a user, from a root's `/etc/passwd`.
//!
//! Invariants: the file is opened inside the root only, never followed out of it by links, and read up to a limit; the
//! C library's name service is not asked (a container could make it load code). Callers: `adapt`, `join`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

/// Longest `passwd` that is read, in bytes.
const MAX_PASSWD: u64 = 1 << 20;

/// The user's home, or `/`.
pub(crate) fn home(root: &Path, uid: u32) -> String {
    let text = read(root).unwrap_or_default();
    find(&text, uid).unwrap_or("/").to_owned()
}

fn find(text: &str, uid: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, _, _, home, ..] = fields[..] else { return None };
        (id.trim().parse() == Ok(uid) && !home.is_empty()).then_some(home)
    })
}

fn read(root: &Path) -> std::io::Result<String> {
    let root = File::open(root)?;
    // SAFETY: an all-zero open_how is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // Not waiting: the file may be a pipe.
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let size = size_of::<libc::open_how>();
    // SAFETY: the directory is open, the path ends with zero, `how` has the given size.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), c"etc/passwd".as_ptr(), &raw const how, size) };
    let fd = nix::errno::Errno::result(fd)?;
    // SAFETY: the descriptor was just returned and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd as i32) };
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_PASSWD).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(home(dir.path(), 0), "/");
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = dir.path().join("etc/passwd");
        std::fs::write(
            &passwd,
            "root:x:0:0:root:/root:/bin/sh\n#\nbroken:x\napp:x:10:10::/srv/app:/bin/sh\nn:x:11:1:::\n",
        )
        .unwrap();
        assert_eq!(home(dir.path(), 0), "/root");
        assert_eq!(home(dir.path(), 10), "/srv/app");
        assert_eq!(home(dir.path(), 11), "/");
        assert_eq!(home(dir.path(), 12), "/");
        // A link out of the root ends at the root; a pipe is not waited for.
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/../../etc/passwd", &passwd).unwrap();
        assert_eq!(home(dir.path(), 0), "/");
        std::fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(home(dir.path(), 0), "/");
    }
}
