//! System calls that neither std nor nix offers safely. Every `unsafe` of the crate is here.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::limits::READ_BYTES;
use crate::protocol::WindowSize;

/// Base of exit codes of processes that a signal ended, as shells and dockerd tell it.
const SIGNAL_EXIT_BASE: i32 = 128;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildExit {
    /// 128 + signal when a signal ended it.
    pub(crate) code: i32,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
}

/// Leaves the caller's session: the caller's process exits with 0, its child goes on. Only while single-threaded.
pub(crate) fn detach() -> io::Result<()> {
    // SAFETY: called first thing in `main`, with one thread, so the child may do anything.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { .. } => {
            // SAFETY: `_exit` runs no handlers; buffers of std are empty here.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Child => {
            nix::unistd::setsid()?;
            Ok(())
        }
    }
}

/// Orphans below this process become its children, so that it sees the container's exit.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: takes no pointers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    // SAFETY: the argument is a string with its zero; the kernel copies it. Only for `ps`, so a failure does not matter.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"skep-shim".as_ptr(), 0, 0, 0) };
    Ok(())
}

/// Signals that would end or disturb the shim stay pending for ever; SIGCHLD comes by the returned descriptor.
///
/// They are blocked, not ignored: [`reset_inherited`] can undo a mask in one call.
pub(crate) fn take_signals() -> io::Result<nix::sys::signalfd::SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGPIPE] {
        mask.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    let mut read = SigSet::empty();
    read.add(Signal::SIGCHLD);
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    Ok(SignalFd::with_flags(&read, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// The next ended child, if there is one.
pub(crate) fn reap() -> Option<(i32, ChildExit)> {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => match ended(status) {
                Some(exit) => return Some(exit),
                None if status == WaitStatus::StillAlive => return None,
                None => {}
            },
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

fn ended(status: WaitStatus) -> Option<(i32, ChildExit)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid.as_raw(), ChildExit { code, signal: None })),
        WaitStatus::Signaled(pid, signal, _) => {
            let number = signal as i32;
            Some((pid.as_raw(), ChildExit { code: SIGNAL_EXIT_BASE + number, signal: Some(number) }))
        }
        _ => None,
    }
}

/// Waits for one child; its exit code, 1 when it is no child (any more).
pub(crate) fn wait_for(pid: i32) -> i32 {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(status) => {
                if let Some((_, exit)) = ended(status) {
                    return exit.code;
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

/// Runs `work` in a child at low priority, without the parent's files, which exits with 0 or 1; its process id.
pub(crate) fn fork_worker(work: impl FnOnce() -> io::Result<()>) -> io::Result<i32> {
    // SAFETY: the shim has one thread, so no lock can be held by another one in the child.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            // SAFETY: takes no pointers. Whoever owns the descriptors here is never used nor dropped again: `_exit` follows.
            unsafe { libc::close_range(libc::STDERR_FILENO as u32 + 1, u32::MAX, 0) };
            // SAFETY: takes no pointers.
            unsafe { libc::nice(10) };
            let code = i32::from(work().is_err());
            // SAFETY: runs no handlers, so nothing of the parent's is done twice.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Lets `command` start with no signal blocked and an `oom_score_adj` of 0, whatever the shim's are: containers inherit both.
pub(crate) fn reset_inherited(command: &mut Command) {
    // SAFETY: between fork and exec only sigemptyset, sigprocmask, open, write and close are called, which are
    // async-signal-safe; nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, c"0".as_ptr().cast(), 1);
                libc::close(fd);
            }
            Ok(())
        });
    }
}

/// A pipe; both ends are closed on exec, both block.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Makes reads and writes fail with `WouldBlock` instead of waiting.
pub(crate) fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Takes over an inherited descriptor, which programs started from now on do not inherit. It may be that of stdin, which
/// is the only way safe code has to hand one over.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd == libc::STDIN_FILENO {
        let copy = fcntl(io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(libc::STDERR_FILENO + 1))?;
        // SAFETY: the kernel has just made this descriptor for us.
        return Ok(unsafe { OwnedFd::from_raw_fd(copy) });
    }
    if fd <= libc::STDERR_FILENO {
        return Err(io::Error::other(format!("file descriptor {fd} is not one for a program")));
    }
    // SAFETY: only asks whether the number is open.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: it is open, and the engine says in launch.json that it is ours; nothing else in this process uses it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(owned)
}

/// A file that exists in memory only; others open it at [`proc_path`].
pub(crate) fn memory_file(contents: &[u8]) -> io::Result<File> {
    let fd = nix::sys::memfd::memfd_create(c"skep-shim", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let file = File::from(fd);
    std::os::unix::fs::FileExt::write_all_at(&file, contents, 0)?;
    Ok(file)
}

/// Where another process finds a descriptor of this one.
pub(crate) fn proc_path(fd: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

/// Sets a terminal's size; SIGWINCH goes to its foreground processes.
pub(crate) fn set_window_size(terminal: &impl AsRawFd, size: WindowSize) -> io::Result<()> {
    let window = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one `winsize`, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &window) })?;
    Ok(())
}

/// The descriptor that comes over `stream`, as OCI runtimes send the terminal's master.
pub(crate) fn receive_fd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0u8; 256];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut parts = [IoSliceMut::new(&mut name)];
    let received = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    let mut first = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            for fd in fds {
                // SAFETY: the kernel has just made this descriptor for us; the others are closed by being dropped.
                let owned = unsafe { OwnedFd::from_raw_fd(fd) };
                first.get_or_insert(owned);
            }
        }
    }
    first.ok_or_else(|| io::Error::other("no terminal came over the console socket"))
}

/// Sends a signal to one process.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    // SAFETY: takes no pointers; the process is a child of ours that is not reaped, so the number is still its own.
    Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Waits until one of `fds` is ready or `timeout_ms` (-1 = for ever) is over. A signal in between counts as ready.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<()> {
    // SAFETY: the kernel writes only the `revents` of the entries the length names.
    match Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }) {
        Ok(_) => Ok(()),
        Err(Errno::EINTR) => {
            fds.iter_mut().for_each(|fd| fd.revents = 0);
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// Puts `file` in the place of one of the standard streams.
pub(crate) fn replace_stream(file: &File, stream: RawFd) -> io::Result<()> {
    // SAFETY: both are open descriptors; std's handles of the standard streams go on to work with the new file.
    Errno::result(unsafe { libc::dup2(file.as_raw_fd(), stream) })?;
    Ok(())
}

/// Memory to read into, which costs nothing while it is not used.
pub(crate) struct Scratch {
    start: *mut u8,
    used: bool,
}

impl Scratch {
    /// [`READ_BYTES`] bytes.
    pub(crate) fn new() -> io::Result<Scratch> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), READ_BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Scratch { start: start.cast(), used: false })
    }

    /// The memory; what was in it before may be gone.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.used = true;
        // SAFETY: the mapping is READ_BYTES long, readable, writable, zeroed by the kernel, and lives as long as `self`,
        // which is borrowed for as long as the slice is used.
        unsafe { std::slice::from_raw_parts_mut(self.start, READ_BYTES) }
    }

    /// Whether it has been used since it was given back.
    pub(crate) fn used(&self) -> bool {
        self.used
    }

    /// Gives its pages, and what the heap does not need, back to the kernel.
    pub(crate) fn give_back(&mut self) {
        self.used = false;
        // SAFETY: the range is the mapping of `self`, and nobody holds a slice of it: `&mut self`.
        unsafe { libc::madvise(self.start.cast(), READ_BYTES, libc::MADV_DONTNEED) };
        // SAFETY: only returns free pages of the heap.
        unsafe { libc::malloc_trim(0) };
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping of `self`, made in `new`, and nobody holds a slice of it.
        unsafe { libc::munmap(self.start.cast(), READ_BYTES) };
    }
}
