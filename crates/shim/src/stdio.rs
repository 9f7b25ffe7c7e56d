//! The streams of one process, the container's or an exec's: pipes or a terminal. Owns the shim's ends and the input that
//! waits to be taken.
//!
//! Invariant: every descriptor here is non-blocking and closed on exec.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use crate::limits::STDIN_BUFFER_BYTES;
use crate::protocol::{FrameKind, WindowSize};
use crate::sys;

/// How long the runtime may take to send the terminal once it has connected.
const CONSOLE_WAIT: Duration = Duration::from_secs(5);

/// One of the two streams a process writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Also everything that comes from a terminal.
    Stdout,
    /// Errors.
    Stderr,
}

impl Output {
    /// Both.
    pub(crate) const ALL: [Output; 2] = [Output::Stdout, Output::Stderr];

    /// Its place in arrays of two.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The frames it travels in.
    pub(crate) fn frame(self) -> FrameKind {
        match self {
            Output::Stdout => FrameKind::Stdout,
            Output::Stderr => FrameKind::Stderr,
        }
    }
}

/// Which streams a process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// `/dev/null` thrice.
    Nothing,
    /// Pipes for stdout and stderr.
    Output,
    /// Pipes for all three.
    InputAndOutput,
    /// A terminal, which the runtime makes and sends.
    Terminal,
}

/// The shim's ends of one process's streams.
#[derive(Default)]
pub(crate) struct ProcessIo {
    stdin: Option<File>,
    waiting: VecDeque<u8>,
    stdin_ends: bool,
    outputs: [Option<File>; 2],
    terminal: bool,
}

/// The other ends, for the runtime's command.
pub(crate) struct ChildIo {
    /// Its standard input.
    pub(crate) stdin: Stdio,
    /// Its standard output; None = where the command's own output goes.
    pub(crate) stdout: Option<Stdio>,
    /// Its standard error; None = where the command's own errors go.
    pub(crate) stderr: Option<Stdio>,
}

impl ProcessIo {
    /// Makes the pipes of `wiring`; a terminal comes later, with [`ProcessIo::receive_terminal`].
    pub(crate) fn new(wiring: Wiring) -> io::Result<(ProcessIo, ChildIo)> {
        let mut io = ProcessIo { terminal: wiring == Wiring::Terminal, ..ProcessIo::default() };
        let mut child = ChildIo { stdin: Stdio::null(), stdout: None, stderr: None };
        match wiring {
            Wiring::Terminal => return Ok((io, child)),
            Wiring::Nothing => {
                child.stdout = Some(Stdio::null());
                child.stderr = Some(Stdio::null());
                return Ok((io, child));
            }
            Wiring::Output | Wiring::InputAndOutput => {}
        }
        if wiring == Wiring::InputAndOutput {
            let (theirs, ours) = sys::pipe()?;
            child.stdin = theirs.into();
            io.stdin = Some(ours_of(ours)?);
        }
        for (slot, end) in io.outputs.iter_mut().zip([&mut child.stdout, &mut child.stderr]) {
            let (ours, theirs) = sys::pipe()?;
            *end = Some(theirs.into());
            *slot = Some(ours_of(ours)?);
        }
        Ok((io, child))
    }

    /// Takes the terminal from the runtime that has connected to `console`.
    pub(crate) fn receive_terminal(&mut self, console: &UnixListener, size: Option<WindowSize>) -> io::Result<()> {
        let (stream, _) = console.accept()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(CONSOLE_WAIT))?;
        let master = sys::receive_fd(&stream)?;
        if let Some(size) = size {
            sys::set_window_size(&master, size)?;
        }
        self.stdin = Some(ours_of(master.try_clone()?)?);
        self.outputs[0] = Some(ours_of(master)?);
        Ok(())
    }

    /// Sets the terminal's size; nothing when there is no terminal, as dockerd does.
    pub(crate) fn resize(&self, size: WindowSize) -> io::Result<()> {
        match &self.outputs[0] {
            Some(master) if self.terminal => sys::set_window_size(master, size),
            _ => Ok(()),
        }
    }

    /// Whether it is a terminal rather than pipes.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Takes bytes for the process; without stdin they are dropped.
    pub(crate) fn push_input(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() && !self.stdin_ends {
            self.waiting.extend(bytes);
            self.write_input();
        }
    }

    /// Closes stdin once everything before is taken. A terminal stays: it has no end of input.
    pub(crate) fn end_input(&mut self) {
        if !self.terminal {
            self.stdin_ends = true;
            self.write_input();
        }
    }

    /// Whether senders may go on.
    pub(crate) fn takes_input(&self) -> bool {
        self.waiting.len() < STDIN_BUFFER_BYTES
    }

    /// The descriptor to poll for writing, while input waits.
    pub(crate) fn input_waits(&self) -> Option<BorrowedFd<'_>> {
        if self.waiting.is_empty() { None } else { self.stdin.as_ref().map(AsFd::as_fd) }
    }

    /// Writes as much waiting input as the process's pipe takes.
    pub(crate) fn write_input(&mut self) {
        while let Some(stdin) = &mut self.stdin
            && !self.waiting.is_empty()
        {
            match stdin.write(self.waiting.as_slices().0) {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.close_input(),
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(0);
            if self.stdin_ends {
                self.close_input();
            }
        }
    }

    /// Closes stdin, whatever waits.
    pub(crate) fn close_input(&mut self) {
        self.stdin = None;
        self.waiting = VecDeque::new();
    }

    /// The descriptor to poll for reading, until its end.
    pub(crate) fn output(&self, output: Output) -> Option<BorrowedFd<'_>> {
        self.outputs[output.index()].as_ref().map(AsFd::as_fd)
    }

    /// Reads into `buffer`: the number of bytes, None when there are none now. Its end, once reached, is told by
    /// [`ProcessIo::output`] being None from then on. A terminal's end is an `EIO`.
    pub(crate) fn read(&mut self, output: Output, buffer: &mut [u8]) -> Option<usize> {
        let slot = &mut self.outputs[output.index()];
        loop {
            match slot.as_mut()?.read(buffer) {
                Ok(0) => {
                    *slot = None;
                    return None;
                }
                Ok(n) => return Some(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    *slot = None;
                    return None;
                }
            }
        }
    }

    /// Whether nothing more can come.
    pub(crate) fn output_ended(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Gives the outputs up, whoever else holds them.
    pub(crate) fn close_output(&mut self) {
        self.outputs = [None, None];
    }
}

fn ours_of(fd: OwnedFd) -> io::Result<File> {
    sys::set_nonblocking(&fd)?;
    Ok(File::from(fd))
}
