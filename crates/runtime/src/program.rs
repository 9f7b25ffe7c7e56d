//! The last step: which file a process's first argument names, and replacing ourselves with it.
//!
//! Invariant: error texts are those of Go's `exec.LookPath`, because dockerd (and so the engine) derives the exit codes
//! 126 and 127 from them. Callers: `create` (as `libcontainer`'s executor) and `join`, inside the container.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

use crate::filter::Confinement;

/// Runs the spec's process with runc's rules.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What libcontainer leaves to us.
    pub(crate) confinement: Option<Confinement>,
}

impl Executor for Program {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        if let Some(confinement) = &self.confinement {
            confinement.apply().map_err(ExecutorValidationError::ArgValidationError)?;
        }
        let process = spec.process().as_ref();
        make_null_writable();
        let found =
            process.map_or_else(|| Err("the spec has no process".to_owned()), |process| find(process).map(drop));
        found.map_err(ExecutorValidationError::ArgValidationError)
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), libcontainer::workload::ExecutorSetEnvsError> {
        // Only HOME, which `libcontainer` computed, is not in the spec; `replace` takes the rest from there, in order.
        if let Some(home) = envs.get("HOME") {
            // SAFETY: the process has one thread.
            unsafe { std::env::set_var("HOME", home) };
        }
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let home = std::env::var("HOME").ok();
        let error = replace(process, home.as_deref());
        // The container has started: its own error output is the only place left to tell, as with runc.
        let _ = writeln!(std::io::stderr(), "{error}");
        Err(ExecutorError::Other(error))
    }
}

/// libcontainer replaces the host's /dev/null in the standard streams by the container's, but opened for reading only.
fn make_null_writable() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    for fd in 1..3 {
        // SAFETY: an all-zero stat is a valid value, overwritten by fstat.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` outlives the call.
        let found = unsafe { libc::fstat(fd, &mut stat) } == 0;
        let is_null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
        if found && is_null {
            // SAFETY: both are open; the standard stream is replaced, and stays open across the program's start.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    }
}

/// The file that `process.args[0]` names, searched in the `PATH` of the process's own environment.
pub(crate) fn find(process: &Process) -> Result<PathBuf, String> {
    let name = process.args().as_ref().and_then(|args| args.first()).map_or("", String::as_str);
    if name.contains('/') {
        return match executable(name.into()) {
            Ok(path) => Ok(path),
            Err(error) => Err(format!("exec: {name:?}: {}", error.text(name))),
        };
    }
    let path = process.env().iter().flatten().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    if !name.is_empty() {
        for directory in path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            if let Ok(path) = executable(PathBuf::from(directory).join(name)) {
                return Ok(path);
            }
        }
    }
    Err(format!("exec: {name:?}: executable file not found in $PATH"))
}

enum NotExecutable {
    Stat(std::io::Error),
    Directory,
    Denied,
}

impl NotExecutable {
    fn text(&self, name: &str) -> String {
        match self {
            NotExecutable::Stat(error) => format!("stat {name}: {}", strerror(error)),
            NotExecutable::Directory => "is a directory".to_owned(),
            NotExecutable::Denied => "permission denied".to_owned(),
        }
    }
}

fn executable(path: PathBuf) -> Result<PathBuf, NotExecutable> {
    let metadata = std::fs::metadata(&path).map_err(NotExecutable::Stat)?;
    if metadata.is_dir() {
        return Err(NotExecutable::Directory);
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(NotExecutable::Denied);
    }
    Ok(path)
}

/// Go's spelling of an errno: lower case, without the number.
pub(crate) fn strerror(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => {
            let text = nix::errno::Errno::from_raw(errno).desc();
            let mut letters = text.chars();
            letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
        }
        None => error.to_string(),
    }
}

/// Becomes the process; returns only an error's text. `home` is set unless the environment has one.
pub(crate) fn replace(process: &Process, home: Option<&str>) -> String {
    let path = match find(process) {
        Ok(path) => path,
        Err(error) => return error,
    };
    let mut env: Vec<&str> = process.env().iter().flatten().map(String::as_str).collect();
    let home = home.filter(|_| !env.iter().any(|entry| entry.len() > 5 && entry.starts_with("HOME=")));
    let home = home.map(|home| format!("HOME={home}"));
    if let Some(home) = &home {
        env.retain(|entry| *entry != "HOME=");
        env.push(home);
    }
    let c_string = |text: &str| CString::new(text).map_err(|_| format!("exec: {text:?}: invalid argument"));
    let prepared = (|| {
        let path = c_string(&path.to_string_lossy())?;
        let args = process.args().iter().flatten().map(|arg| c_string(arg)).collect::<Result<Vec<_>, _>>()?;
        let env = env.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, String>((path, args, env))
    })();
    let (c_path, args, env) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    default_signals();
    match nix::unistd::execve(&c_path, &args, &env) {
        Ok(never) => match never {},
        Err(errno) => format!("exec {}: {}", path.display(), strerror(&errno.into())),
    }
}

/// Rust ignores SIGPIPE and a caller may ignore or block signals; a container's process begins with none of that.
fn default_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    /// The kernel's `sigaction`: handler, flags, restorer, mask; all zero is the default disposition.
    const DEFAULT: [u64; 4] = [0; 4];
    // By number up to 64, as the C library hides the two it uses itself.
    for signal in 1..=64 {
        let old = std::ptr::null_mut::<u64>();
        // SAFETY: `DEFAULT` has the kernel's layout, the old value is not asked for; no handler of ours runs.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, size_of::<u64>()) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use libcontainer::oci_spec::runtime::ProcessBuilder;

    fn lookup(name: &str) -> Result<PathBuf, String> {
        let process = ProcessBuilder::default()
            .args(vec![name.to_owned()])
            .env(vec!["PATH=/nonexistent:/bin:/usr/bin".to_owned()])
            .build()
            .unwrap();
        find(&process)
    }

    #[test]
    fn texts_of_go() {
        assert_eq!(lookup("sh").unwrap(), PathBuf::from("/bin/sh"));
        assert_eq!(lookup("/bin/sh").unwrap(), PathBuf::from("/bin/sh"));
        for (name, text) in [
            ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
            ("", "exec: \"\": executable file not found in $PATH"),
            ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
            ("/etc", "exec: \"/etc\": is a directory"),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
            ("/etc/passwd/x", "exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory"),
        ] {
            assert_eq!(lookup(name).unwrap_err(), text);
        }
    }
}
