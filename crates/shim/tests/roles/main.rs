//! The processes of the shim's tests: `shim-test-roles shim <launch.json>` is the shim, `shim-test-roles runtime …` a runtime
//! with runc's command line that isolates nothing.
//!
//! A created container whose command has the argument `stillborn` has ended before `create` does. Any other is a shell that waits at a fifo for `start` and then executes the command of `config.json`.

use std::error::Error;
use std::fs;
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::Value;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let code = match args.next().as_deref().and_then(|role| role.to_str()) {
        Some("shim") => shim::main(args),
        Some("runtime") => runtime(args.map(|arg| arg.to_string_lossy().into_owned()).collect()),
        _ => 2,
    };
    std::process::exit(code);
}

/// Options (with values) and words of a command line.
#[derive(Default)]
struct Line {
    options: Vec<(String, String)>,
    words: Vec<String>,
}

impl Line {
    fn parse(args: Vec<String>) -> Line {
        let mut line = Line::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--") {
                Some("detach" | "force" | "all" | "systemd-cgroup") => {}
                Some(name) => line.options.push((name.to_owned(), args.next().unwrap_or_default())),
                None => line.words.push(arg),
            }
        }
        line
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn word(&self, place: usize) -> Outcome<&str> {
        Ok(self.words.get(place).ok_or("too few words")?)
    }
}

fn runtime(args: Vec<String>) -> i32 {
    let line = Line::parse(args);
    let Err(error) = run(&line) else { return 0 };
    let text = format!("{}\n", serde_json::json!({"level": "error", "msg": error.to_string(), "time": "now"}));
    if let Some(log) = line.option("log") {
        fs::OpenOptions::new().append(true).open(log).and_then(|mut log| log.write_all(text.as_bytes())).unwrap_or(());
    }
    eprintln!("{error}");
    1
}

fn run(line: &Line) -> Outcome {
    let directory = |place| Outcome::Ok(Path::new(line.option("root").ok_or("no root")?).join(line.word(place)?));
    match line.word(0)? {
        "create" => create(line, &directory(1)?),
        "start" => Ok(fs::write(directory(1)?.join("go"), "\n")?),
        "exec" => exec(line),
        "kill" => Ok(kill(pid_of(&directory(1)?)?, Signal::try_from(line.word(2)?.parse::<i32>()?)?)?),
        "pause" => Ok(kill(pid_of(&directory(1)?)?, Signal::SIGSTOP)?),
        "resume" => Ok(kill(pid_of(&directory(1)?)?, Signal::SIGCONT)?),
        "update" => Ok(fs::write(directory(1)?.join("resources"), fs::read(line.option("resources").ok_or("none")?)?)?),
        "delete" => {
            let directory = directory(1)?;
            if let Ok(pid) = pid_of(&directory) {
                let _ = kill(pid, Signal::SIGKILL);
            }
            if directory.exists() {
                fs::remove_dir_all(directory)?;
            }
            Ok(())
        }
        other => Err(format!("unknown command {other}").into()),
    }
}

fn create(line: &Line, directory: &Path) -> Outcome {
    let bundle = PathBuf::from(line.option("bundle").ok_or("no bundle")?);
    let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
    fs::create_dir_all(directory)?;
    let fifo = directory.join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    println!("noise of the runtime");
    let args = arguments(&config["process"])?;
    let stillborn = args.iter().any(|arg| arg == "stillborn");
    let mut command = Command::new("/usr/bin/setsid");
    if config["process"]["terminal"] == true {
        command.arg("--ctty");
    }
    command.args(["/bin/sh", "-c", "exec 3<\"$0\"; read _ <&3; exec 3<&-; exec \"$@\""]).arg(&fifo).args(args);
    let pid = spawn(line, command)?;
    fs::write(directory.join("pid"), pid.to_string())?;
    if stillborn {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGKILL)?;
        // Ended, and left for the shim to reap.
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    }
    Ok(())
}

fn exec(line: &Line) -> Outcome {
    let process: Value = serde_json::from_slice(&fs::read(line.option("process").ok_or("no process")?)?)?;
    let args = arguments(&process)?;
    let mut command = Command::new("/usr/bin/setsid");
    if process["terminal"] == true {
        command.arg("--ctty");
    }
    command.args(args);
    spawn(line, command).map(drop)
}

fn arguments(process: &Value) -> Outcome<Vec<String>> {
    let args: Vec<String> = serde_json::from_value(process["args"].clone())?;
    let program = args.first().ok_or("no args")?;
    if !program.starts_with('/') && !["/bin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(program).exists()) {
        return Err(format!("exec: {program:?}: executable file not found in $PATH").into());
    }
    Ok(args)
}

/// Starts `command` with this process's streams, or on a new terminal; writes the pid file.
fn spawn(line: &Line, mut command: Command) -> Outcome<u32> {
    if let Some(console) = line.option("console-socket") {
        let pty = nix::pty::openpty(None, None)?;
        let stream = UnixStream::connect(console)?;
        let fds = [pty.master.as_raw_fd()];
        let parts = [IoSlice::new(b"terminal")];
        sendmsg::<()>(stream.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
        let slave: OwnedFd = pty.slave;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(Stdio::from(slave));
    }
    let pid = command.spawn()?.id();
    let file = line.option("pid-file").ok_or("no pid file")?;
    fs::write(file, pid.to_string())?;
    Ok(pid)
}

fn pid_of(directory: &Path) -> Outcome<Pid> {
    let text = fs::read_to_string(directory.join("pid")).map_err(|_| "container does not exist")?;
    Ok(Pid::from_raw(text.parse()?))
}
