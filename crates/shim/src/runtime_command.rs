//! The OCI runtime's command line, as runc defined it: builds and starts the commands and gathers what they say.
//!
//! A started command is an [`Invocation`]; the loop learns of its end by SIGCHLD and asks for its [`Invocation::error_text`].

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::clock;
use crate::launch::{Launch, RuntimeCommand, SignalPath};
use crate::limits::{ERROR_TEXT_BYTES, RUNTIME_MS};
use crate::stdio::ChildIo;
use crate::sys;

/// The runtime of one container.
pub(crate) struct Runtime {
    container: String,
    command: RuntimeCommand,
    /// The program, when the engine handed it over open.
    program: Option<OwnedFd>,
}

/// A command of the runtime that is at work.
pub(crate) struct Invocation {
    /// Its process id.
    pub(crate) pid: i32,
    /// When it is killed.
    pub(crate) deadline: Instant,
    log: File,
    errors: File,
    /// Documents it reads while it works.
    _inputs: Vec<File>,
}

impl Runtime {
    /// Takes the inherited program over.
    pub(crate) fn new(launch: &Launch) -> io::Result<Runtime> {
        let program = launch.runtime.fd.map(sys::take_inherited).transpose()?;
        Ok(Runtime { container: launch.container.clone(), command: launch.runtime.clone(), program })
    }

    /// The container's id, as the runtime knows it.
    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    /// Whether the first process can be sent signals without the runtime.
    pub(crate) fn signals(&self) -> SignalPath {
        self.command.signals
    }

    /// Starts `<runtime> <global options> <args>`.
    pub(crate) fn start(&self, args: Vec<OsString>) -> io::Result<Invocation> {
        self.start_with(args, Vec::new(), ChildIo { stdin: Stdio::null(), stdout: None, stderr: None })
    }

    /// The same with the process's streams, and with documents that must exist while it works.
    pub(crate) fn start_with(&self, args: Vec<OsString>, inputs: Vec<File>, io: ChildIo) -> io::Result<Invocation> {
        let log = sys::memory_file(b"")?;
        let errors = sys::memory_file(b"")?;
        let mut command = match &self.program {
            Some(fd) => Command::new(sys::proc_path(fd)),
            None => Command::new(&self.command.program),
        };
        command.arg0(&self.command.program).args(&self.command.args);
        if let Some(root) = &self.command.root {
            command.arg("--root").arg(root);
        }
        command.arg("--log").arg(sys::proc_path(&log)).args(["--log-format", "json"]);
        if self.command.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.args(args);
        command.stdin(io.stdin);
        command.stdout(or_errors(io.stdout, &errors)?).stderr(or_errors(io.stderr, &errors)?);
        sys::reset_inherited(&mut command);
        let name = self.command.program.display().to_string();
        let child =
            command.spawn().map_err(|e| io::Error::new(e.kind(), format!("cannot start the runtime {name}: {e}")))?;
        // The loop reaps it; std's handle does nothing when dropped.
        let pid = child.id() as i32;
        Ok(Invocation { pid, deadline: clock::after_ms(clock::now(), RUNTIME_MS), log, errors, _inputs: inputs })
    }
}

impl Invocation {
    /// What it said about its failure: the last error of its log, else its standard error, else `also`, which is what it
    /// wrote to the container's stderr.
    pub(crate) fn error_text(&self, exit_code: i32, also: &[u8]) -> String {
        let log = tail(&self.log);
        if let Some(text) = last_error(&log) {
            return text;
        }
        for text in [&tail(&self.errors)[..], also, &log[..]] {
            let text = String::from_utf8_lossy(text);
            if !text.trim().is_empty() {
                return text.trim().to_owned();
            }
        }
        format!("the runtime failed with exit code {exit_code} and without a word")
    }
}

fn or_errors(given: Option<Stdio>, errors: &File) -> io::Result<Stdio> {
    match given {
        Some(stdio) => Ok(stdio),
        None => Ok(errors.try_clone()?.into()),
    }
}

/// The last bytes of `file`.
fn tail(file: &File) -> Vec<u8> {
    let length = file.metadata().map_or(0, |m| m.len());
    let from = length.saturating_sub(ERROR_TEXT_BYTES as u64);
    let mut bytes = vec![0; (length - from) as usize];
    match file.read_exact_at(&mut bytes, from) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// The last message of level `error` or worse in a log of JSON lines.
fn last_error(log: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    log.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let line: Line = serde_json::from_slice(line).ok()?;
        matches!(line.level.to_ascii_lowercase().as_str(), "error" | "fatal" | "panic").then_some(line.msg)
    })
}

/// Arguments from texts.
pub(crate) fn args<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_found() {
        let log = br#"{"level":"error","msg":"first","time":"x"}
{"level":"error","msg":"exec: \"foo\": executable file not found in $PATH","time":"x"}
{"level":"warning","msg":"later","time":"x"}
not json
"#;
        assert_eq!(last_error(log).as_deref(), Some("exec: \"foo\": executable file not found in $PATH"));
        assert_eq!(last_error(b"plain\n"), None);
    }
}
