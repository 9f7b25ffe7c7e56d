//! `cargo xtask vm`: the walk-through in a virtual machine with Debian's kernel and cgroup v2 alone, which the machines
//! that develop and test Skep may not have. Emulated (TCG), so it needs no virtualization of the host; slow, so it stands
//! outside `./check`. Everything of it lies in `target/vm`; it changes nothing else but installing missing packages.
//!
//! The machine is started once per phase on one disk: the first run ends by a power cut, the second finds the swarm again;
//! then come encrypted networks, whose tests need a kernel with ESP, a mesh with a dockerd, whose own needs IPVS, and SCTP.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{vm_disk, vm_machine};

/// How to call it.
pub(crate) const USAGE: &str = "cargo xtask vm [--debug | --binary PATH] [--tiny] [--own-cli] [--only PHASE]";

/// Debian packages that the host needs: the emulator, a shell for the machine, what goes onto its disk, and what makes the disk.
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "seabios",
    "busybox-static",
    "e2fsprogs",
    "nftables",
    "iproute2",
    "wget",
    "binutils",
    "libc-bin",
    "apt",
    "dpkg",
];

/// What the arguments ask for.
pub(crate) struct Options {
    /// Which build of Skep: `debug` or `release`.
    profile: &'static str,
    /// Skep, where it is built already.
    binary: Option<PathBuf>,
    /// The one phase to run; all if `None`.
    only: Option<String>,
    /// The image of the service: a folder of `examples/`.
    pub(crate) example: &'static str,
    /// The client in the machine: the docker CLI of the host, if there is one; else Skep's own.
    pub(crate) docker: Option<PathBuf>,
}

/// Where things are.
pub(crate) struct Places {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// All that this makes.
    pub(crate) work: PathBuf,
}

/// Builds the machine, runs it, prints what it found. Fails if a check failed or the machine did not come to its end.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = options(args)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?.to_path_buf();
    let work = root.join("target/vm");
    std::fs::create_dir_all(&work)?;
    let places = Places { root, work };

    install(PACKAGES)?;
    let skep = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(&places, options.profile)?,
    };
    let tests = build_tests(&places)?;
    let machine = vm_disk::build(&places, &options, &vm_disk::Built { skep, tests })?;
    println!("vm: client is {}", options.docker.as_deref().unwrap_or(Path::new("skep")).display());
    let mut failed = 0;
    let is_asked_for = |phase: &&&str| options.only.as_deref().is_none_or(|only| only == **phase);
    for phase in vm_machine::PHASES.iter().filter(is_asked_for) {
        failed += vm_machine::run(&places, &machine, phase)?;
    }
    ensure!(failed == 0, "{failed} checks failed; logs of the machine: {}", places.work.join("logs").display());
    println!("vm: everything passed");
    Ok(())
}

/// Builds Skep; gives the binary.
fn build(places: &Places, profile: &str) -> Result<PathBuf> {
    println!("vm: building Skep ({profile})");
    let mut build = Command::new("cargo");
    build.current_dir(&places.root).args(["build", "--locked", "--quiet", "-p", "daemon", "--bin", "skep"]);
    if profile == "release" {
        build.arg("--release");
    }
    succeed(&mut build)?;
    Ok(places.root.join("target/x86_64-unknown-linux-gnu").join(profile).join("skep"))
}

/// Builds the tests of encrypted networks; gives the program.
fn build_tests(places: &Places) -> Result<PathBuf> {
    println!("vm: building the tests of encrypted networks");
    let mut build = Command::new("cargo");
    build.current_dir(&places.root).args(["test", "--locked", "--quiet", "-p", "net", "--test", "esp", "--no-run"]);
    let messages = output(build.arg("--message-format=json"))?;
    let key = "\"executable\":\"";
    let programs = messages.lines().filter_map(|line| line.split_once(key)?.1.split_once('"'));
    let program = programs.map(|(program, _)| program).next_back().context("cargo names no test program")?;
    Ok(PathBuf::from(program))
}

fn options(args: &[String]) -> Result<Options> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let docker = std::env::split_paths(&path).map(|dir| dir.join("docker")).find(|path| path.is_file());
    let mut options = Options { profile: "release", binary: None, only: None, example: "dummy-service-py", docker };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--binary" => options.binary = Some(args.next().context("--binary needs a path")?.into()),
            "--only" => options.only = Some(phase(args.next())?),
            "--debug" => options.profile = "debug",
            "--tiny" => options.example = "tiny-service",
            "--own-cli" => options.docker = None,
            other => bail!("unknown argument {other:?}; usage: {USAGE}"),
        }
    }
    Ok(options)
}

fn phase(name: Option<&String>) -> Result<String> {
    let name = name.filter(|name| vm_machine::PHASES.contains(&name.as_str()));
    name.cloned().with_context(|| format!("--only needs one of {}", vm_machine::PHASES.join(", ")))
}

/// Installs those of the packages that are missing.
fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("vm: installing {}", missing.join(" "));
    let hint = || format!("could not install {}: run as root on Debian, or install them by hand", missing.join(" "));
    succeed(Command::new("apt-get").args(["update", "-qq"])).with_context(hint)?;
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing);
    succeed(&mut apt).with_context(hint)
}

fn installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    output.is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// Runs a command to its end. Its standard output is dropped, unless it fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command to its end and gives what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| shown.clone())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}\n{text}{errors}", output.status);
    Ok(text)
}
