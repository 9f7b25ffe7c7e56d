//! The command line, read by hand: start-up time counts here and the grammar is small and fixed (runc's).
//!
//! Owns: the mapping from arguments to [`Command`]. Invariant: nothing here touches the world.
//! Caller: `crate::main`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::RuntimeError;
use crate::log::{Format, Verbosity};

/// Where containers' state lives unless `--root` says otherwise.
pub(crate) const DEFAULT_ROOT: &str = "/run/skep/runtime";

/// Options before the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_format: Format,
    pub(crate) verbosity: Verbosity,
}

/// One run of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Create(Create),
    Start { id: String },
    State { id: String },
    Kill { id: String, signal: i32, target: KillTarget },
    Delete { id: String, mode: DeleteMode },
    Exec(Exec),
    Pause { id: String },
    Resume { id: String },
    Ps { id: String, format: PsFormat },
    Update { id: String, resources: PathBuf },
    Version,
}

/// `create`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Create {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) root_switch: RootSwitch,
}

/// How the container's root becomes `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RootSwitch {
    /// `pivot_root(2)`.
    #[default]
    Pivot,
    /// Move mount and `chroot(2)` (`--no-pivot`, for a rootfs on a ramdisk).
    Chroot,
}

/// `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) process: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) wait: ExecWait,
}

/// Whether `exec` stays until the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ExecWait {
    /// Stay, and end with the process's exit code.
    #[default]
    Attached,
    /// Return once the process runs (`--detach`).
    Detached,
}

/// Whom `kill` reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillTarget {
    /// The container's first process.
    Init,
    /// Every process in its cgroup (`--all`).
    All,
}

/// What `delete` does with a container that still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeleteMode {
    /// Refuse.
    Stopped,
    /// Kill it; a container that does not exist is no error either (`--force`).
    Force,
}

/// Output of `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PsFormat {
    /// An array of process ids.
    Json,
    /// One process id per line.
    Table,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<(Global, Command), RuntimeError> {
    let mut args = Args { rest: args, inline: None };
    let mut global = Global {
        root: PathBuf::from(DEFAULT_ROOT),
        log: None,
        log_format: Format::default(),
        verbosity: Verbosity::default(),
    };
    loop {
        let word = args.next_word()?.ok_or_else(|| usage("a command is required"))?;
        match word.as_str() {
            "--root" => global.root = args.value("--root")?.into(),
            "--log" => global.log = Some(args.value("--log")?.into()),
            "--log-format" => global.log_format = log_format(&args.value("--log-format")?)?,
            "--debug" => global.verbosity = Verbosity::Debug,
            // Accepted for compatibility: cgroups are always managed through the file system.
            "--systemd-cgroup" => {}
            "--rootless" | "--criu" => drop(args.value(&word)?),
            "--version" | "-v" => return Ok((global, Command::Version)),
            option if option.starts_with('-') => return Err(usage(&format!("unknown option {option}"))),
            name => {
                let name = name.to_owned();
                return Ok((global, command(&name, &mut args)?));
            }
        }
    }
}

fn log_format(value: &str) -> Result<Format, RuntimeError> {
    match value {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        other => Err(usage(&format!("invalid log-format: {other}"))),
    }
}

fn command(name: &str, args: &mut Args<impl Iterator<Item = OsString>>) -> Result<Command, RuntimeError> {
    match name {
        "create" => create(args),
        "exec" => exec(args),
        "kill" => kill(args),
        "start" => Ok(Command::Start { id: args.only_id()? }),
        "state" => Ok(Command::State { id: args.only_id()? }),
        "pause" => Ok(Command::Pause { id: args.only_id()? }),
        "resume" => Ok(Command::Resume { id: args.only_id()? }),
        "delete" => {
            let mut mode = DeleteMode::Stopped;
            let id = args.options_then_id(|option, _| match option {
                "--force" | "-f" => {
                    mode = DeleteMode::Force;
                    Ok(Known::Yes)
                }
                _ => Ok(Known::No),
            })?;
            Ok(Command::Delete { id, mode })
        }
        "ps" => {
            let mut format = PsFormat::Table;
            let id = args.options_then_id(|option, args| {
                if !matches!(option, "--format" | "-f") {
                    return Ok(Known::No);
                }
                format = match args.value(option)?.as_str() {
                    "json" => PsFormat::Json,
                    "table" => PsFormat::Table,
                    other => return Err(usage(&format!("invalid format {other}"))),
                };
                Ok(Known::Yes)
            })?;
            Ok(Command::Ps { id, format })
        }
        "update" => {
            let mut resources = None;
            let id = args.options_then_id(|option, args| {
                if !matches!(option, "--resources" | "-r") {
                    return Ok(Known::No);
                }
                resources = Some(PathBuf::from(args.value(option)?));
                Ok(Known::Yes)
            })?;
            let resources = resources.ok_or_else(|| usage("update needs --resources"))?;
            Ok(Command::Update { id, resources })
        }
        other => Err(usage(&format!("unknown command {other}"))),
    }
}

fn create(args: &mut Args<impl Iterator<Item = OsString>>) -> Result<Command, RuntimeError> {
    let mut create = Create { bundle: PathBuf::from("."), ..Create::default() };
    create.id = args.options_then_id(|option, args| {
        match option {
            "--bundle" | "-b" => create.bundle = args.value(option)?.into(),
            "--pid-file" => create.pid_file = Some(args.value(option)?.into()),
            "--console-socket" => create.console_socket = Some(args.value(option)?.into()),
            "--no-pivot" => create.root_switch = RootSwitch::Chroot,
            "--no-new-keyring" => {}
            _ => return Ok(Known::No),
        }
        Ok(Known::Yes)
    })?;
    Ok(Command::Create(create))
}

fn exec(args: &mut Args<impl Iterator<Item = OsString>>) -> Result<Command, RuntimeError> {
    let mut exec = Exec::default();
    exec.id = args.options_then_id(|option, args| {
        match option {
            "--process" | "-p" => exec.process = args.value(option)?.into(),
            "--pid-file" => exec.pid_file = Some(args.value(option)?.into()),
            "--console-socket" => exec.console_socket = Some(args.value(option)?.into()),
            "--detach" | "-d" => exec.wait = ExecWait::Detached,
            _ => return Ok(Known::No),
        }
        Ok(Known::Yes)
    })?;
    if exec.process.as_os_str().is_empty() {
        return Err(usage("exec needs --process"));
    }
    Ok(Command::Exec(exec))
}

fn kill(args: &mut Args<impl Iterator<Item = OsString>>) -> Result<Command, RuntimeError> {
    let mut target = KillTarget::Init;
    let mut words = Vec::new();
    while let Some(word) = args.next_word()? {
        match word.as_str() {
            "--all" | "-a" => target = KillTarget::All,
            "--" => {}
            _ if words.len() == 2 => return Err(usage(&format!("unexpected argument {word}"))),
            _ => words.push(word),
        }
    }
    let mut words = words.into_iter();
    let id = words.next().ok_or_else(|| usage("kill needs a container id"))?;
    let signal = words.next().unwrap_or_else(|| "SIGTERM".to_owned());
    Ok(Command::Kill { id, signal: crate::signal::parse(&signal)?, target })
}

enum Known {
    Yes,
    No,
}

/// The words that are left; `--name=value` is split.
struct Args<I> {
    rest: I,
    inline: Option<String>,
}

impl<I: Iterator<Item = OsString>> Args<I> {
    fn next_word(&mut self) -> Result<Option<String>, RuntimeError> {
        if let Some(value) = self.inline.take() {
            return Err(usage(&format!("unexpected value {value:?}")));
        }
        let Some(word) = self.rest.next() else { return Ok(None) };
        let word = word.into_string().map_err(|word| usage(&format!("{word:?} is not UTF-8")))?;
        if word.starts_with("--")
            && let Some((name, value)) = word.split_once('=')
        {
            self.inline = Some(value.to_owned());
            return Ok(Some(name.to_owned()));
        }
        Ok(Some(word))
    }

    fn value(&mut self, option: &str) -> Result<String, RuntimeError> {
        if let Some(value) = self.inline.take() {
            return Ok(value);
        }
        let word = self.rest.next().ok_or_else(|| usage(&format!("{option} needs a value")))?;
        word.into_string().map_err(|word| usage(&format!("{word:?} is not UTF-8")))
    }

    fn only_id(&mut self) -> Result<String, RuntimeError> {
        self.options_then_id(|_, _| Ok(Known::No))
    }

    fn options_then_id(
        &mut self,
        mut option: impl FnMut(&str, &mut Self) -> Result<Known, RuntimeError>,
    ) -> Result<String, RuntimeError> {
        let mut id = None;
        while let Some(word) = self.next_word()? {
            if word.starts_with('-') && word.len() > 1 {
                if word != "--" && matches!(option(&word, self)?, Known::No) {
                    return Err(usage(&format!("unknown option {word}")));
                }
            } else if id.replace(word).is_some() {
                return Err(usage("exactly one container id is required"));
            }
        }
        id.ok_or_else(|| usage("a container id is required"))
    }
}

fn usage(text: &str) -> RuntimeError {
    RuntimeError::Usage(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(Global, Command), RuntimeError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn lines_of_the_shim() {
        let (global, command) =
            read("--root /r --log /l --log-format=json --debug --systemd-cgroup create --bundle /b --pid-file /p --console-socket /s --no-pivot abc")
                .unwrap();
        assert_eq!(global.root, PathBuf::from("/r"));
        assert_eq!(global.log_format, Format::Json);
        assert_eq!(global.verbosity, Verbosity::Debug);
        assert_eq!(
            command,
            Command::Create(Create {
                id: "abc".into(),
                bundle: "/b".into(),
                pid_file: Some("/p".into()),
                console_socket: Some("/s".into()),
                root_switch: RootSwitch::Chroot,
            })
        );
        let (_, command) = read("exec --process /p.json --pid-file /p --detach abc").unwrap();
        let Command::Exec(exec) = command else { panic!("{command:?}") };
        assert_eq!((exec.id.as_str(), exec.wait), ("abc", ExecWait::Detached));
        assert_eq!(
            read("kill --all abc 9").unwrap().1,
            Command::Kill { id: "abc".into(), signal: 9, target: KillTarget::All }
        );
        assert_eq!(
            read("kill abc").unwrap().1,
            Command::Kill { id: "abc".into(), signal: 15, target: KillTarget::Init }
        );
        assert_eq!(read("delete -f abc").unwrap().1, Command::Delete { id: "abc".into(), mode: DeleteMode::Force });
        assert_eq!(read("ps --format json abc").unwrap().1, Command::Ps { id: "abc".into(), format: PsFormat::Json });
        assert_eq!(read("--version").unwrap().1, Command::Version);
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "",
            "start",
            "start a b",
            "start --x a",
            "frob a",
            "--log-format xml state a",
            "exec a",
            "kill a NOPE",
            "kill a 9 b",
            "--debug=1 state a",
            "create --bundle",
        ] {
            assert!(matches!(read(line), Err(RuntimeError::Usage(_) | RuntimeError::Signal(_))), "{line}");
        }
    }
}
