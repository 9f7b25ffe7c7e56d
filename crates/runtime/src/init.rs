//! The first process of a container with `--init` (`/sbin/docker-init`): runs the program, passes signals on to it, and
//! reaps orphans, as tini does.
//!
//! Invariants: one thread; every signal that can be passed on is blocked and waited for, so none is lost between two
//! steps; ends with the program's exit code. Caller: the `skep` binary when it is run under the name `docker-init`.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execvp, fork, setpgid, tcsetpgrp};

/// Signals that are about this process itself, or that the terminal sends for writing from the background.
const OWN: [Signal; 9] = [
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Runs the program named by `args` (after an optional `--`) and returns its exit code, 128 and the signal's number if a
/// signal ended it, 126 or 127 if it cannot be run.
pub fn main(args: impl Iterator<Item = OsString>) -> i32 {
    let mut args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|first| first == "--") {
        args.remove(0);
    }
    let args: Result<Vec<CString>, _> = args.iter().map(|arg| CString::new(arg.as_bytes())).collect();
    let Some(args) = args.ok().filter(|args| !args.is_empty()) else {
        eprintln!("docker-init: no program to run");
        return 1;
    };
    let mut passed = SigSet::all();
    for signal in OWN {
        passed.remove(signal);
    }
    let mut before = SigSet::empty();
    if let Err(errno) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&passed), Some(&mut before)) {
        eprintln!("docker-init: cannot block signals: {errno}");
        return 1;
    }
    // SAFETY: the process has one thread, so the child may do anything.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => run(&args, &before),
        Ok(ForkResult::Parent { child }) => attend(child, &passed),
        Err(errno) => {
            eprintln!("docker-init: fork: {errno}");
            1
        }
    }
}

/// In the child: a process group of its own, in the terminal's foreground if there is one, then the program.
fn run(args: &[CString], mask: &SigSet) -> ! {
    let own = Pid::from_raw(0);
    if setpgid(own, own).is_ok() {
        // The kernel sends SIGTTOU to whoever takes the terminal from the background.
        // SAFETY: dispositions are set to constants; no handler runs.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
        let _ = tcsetpgrp(io::stdin(), nix::unistd::getpid());
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_DFL) };
    }
    // SAFETY: as above. Rust ignores this signal in every program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
    let error = execvp(&args[0], args).err().unwrap_or(Errno::UnknownErrno);
    eprintln!("docker-init: exec {} failed: {}", args[0].to_string_lossy(), error.desc());
    let code = if error == Errno::ENOENT { 127 } else { 126 };
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// Waits for signals until the program has ended and nothing is left to reap just now.
fn attend(child: Pid, passed: &SigSet) -> i32 {
    loop {
        let mut signal = 0;
        // By number, as real-time signals are passed on too.
        // SAFETY: both pointers outlive the call.
        let waited = unsafe { libc::sigwait(passed.as_ref(), &mut signal) };
        if waited == 0 && signal != libc::SIGCHLD {
            // The program may have ended meanwhile; its SIGCHLD comes next.
            // SAFETY: kill(2) takes plain numbers.
            unsafe { libc::kill(child.as_raw(), signal) };
        }
        if let Some(code) = reap(child) {
            return code;
        }
    }
}

fn reap(child: Pid) -> Option<i32> {
    let mut ended = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => ended = Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => ended = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Ok(_) | Err(_) => {}
        }
    }
}
