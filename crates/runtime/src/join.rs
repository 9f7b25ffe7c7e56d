//! The forked processes of `exec`: into the cgroup, into the namespaces, down to the process's rights, and on to its
//! program.
//!
//! Invariants: no descriptor but 0, 1, 2 survives; what the container could replace (its files, its name service) is
//! touched only after the namespaces are joined and never executed before the rights are given up; the order of limits,
//! ids, filter and capabilities is that of `libcontainer`'s first process. Caller: `exec`, after `fork`.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use libcontainer::oci_spec::runtime::Process;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::{apparmor, capabilities, tty};

use crate::error::chain;
use crate::exec::Plan;
use crate::filter::Filter;
use crate::passwd;
use crate::program;

/// Runs the bridge and, in its own child, the process; never returns.
pub(crate) fn run(plan: Plan, report: &OwnedFd) -> ! {
    match bridge(plan, report) {
        Ok(()) => exit(0),
        Err(error) => {
            tell(report, 'E', &error);
            exit(1)
        }
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// One record of the report: a letter, a text, a zero byte, in one write.
fn tell(report: &OwnedFd, kind: char, text: &str) {
    let record = format!("{kind}{}\0", text.replace('\0', " "));
    let _ = nix::unistd::write(report, record.as_bytes());
}

/// A system call's result with what was attempted.
fn check(what: &str, result: i64) -> Result<i64, String> {
    if result < 0 {
        return Err(format!("{what}: {}", program::strerror(&io::Error::last_os_error())));
    }
    Ok(result)
}

fn bridge(plan: Plan, report: &OwnedFd) -> Result<(), String> {
    plan.cgroup.join(plan.init_pid).map_err(|error| error.to_string())?;
    set_limits(&plan.process)?;
    // SAFETY: the descriptor is open; all namespaces are joined at once or none is.
    let joined = unsafe { libc::setns(plan.init.as_raw_fd(), plan.namespaces) };
    check("setns", i64::from(joined))?;
    // A sibling of ours, so that it is the child of the process that waits for it.
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: like fork(2), with one thread: no stack, no thread pointers.
    let pid = check("clone", unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if pid == 0 {
        let error = become_process(plan);
        tell(report, 'E', &error);
        exit(255)
    }
    // The process itself stays in this pid namespace: the number is the host's.
    tell(report, 'P', &pid.to_string());
    Ok(())
}

fn set_limits(process: &Process) -> Result<(), String> {
    let syscall = create_syscall();
    for limit in process.rlimits().iter().flatten() {
        syscall
            .set_rlimit(limit)
            .map_err(|error| format!("error setting rlimit {:?}: {}", limit.typ(), chain(&error)))?;
    }
    Ok(())
}

/// In the namespaces: gives up rights and becomes the program. Returns only an error's text.
fn become_process(plan: Plan) -> String {
    match prepare(&plan.process, plan.console, plan.filter.as_ref()) {
        Ok(home) => program::replace(&plan.process, Some(&home)),
        Err(error) => error,
    }
}

fn prepare(process: &Process, console: Option<OwnedFd>, filter: Option<&Filter>) -> Result<String, String> {
    let syscall = create_syscall();
    // SAFETY: plain system calls of a process with one thread, here and below.
    check("setsid", i64::from(unsafe { libc::setsid() }))?;
    if let Some(console) = console {
        tty::setup_console(syscall.as_ref(), console.into_raw_fd(), false).map_err(|error| chain(&error))?;
    }
    let user = process.user();
    own_standard_streams(user.uid(), user.gid());
    if let Some(profile) = process.apparmor_profile() {
        apparmor::apply_profile(profile).map_err(|error| chain(&error))?;
    }
    if let Some(umask) = user.umask() {
        // SAFETY: see above.
        unsafe { libc::umask(umask as libc::mode_t) };
    }
    let home = passwd::home("/".as_ref(), user.uid());
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    if no_new_privileges {
        // SAFETY: see above.
        check("no_new_privs", i64::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }))?;
    }
    let later = change_directory(process)?;
    set_ids(user.uid(), user.gid(), user.additional_gids().as_deref().unwrap_or(&[]))?;
    // SAFETY: see above; CLOSE_RANGE_CLOEXEC only marks descriptors.
    check("close_range", unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    // Without no_new_privs the filter needs CAP_SYS_ADMIN, which is about to go.
    if let (Some(filter), false) = (filter, no_new_privileges) {
        filter.load()?;
    }
    capabilities::reset_effective(syscall.as_ref()).map_err(|error| chain(&error))?;
    if let Some(wanted) = process.capabilities() {
        capabilities::drop_privileges(wanted, syscall.as_ref()).map_err(|error| chain(&error))?;
    }
    if let CwdLater::Yes = later {
        std::env::set_current_dir(process.cwd()).map_err(|error| cwd_error(process, &error))?;
    }
    // A directory outside the container's root has no path here (CVE-2024-21626).
    if !std::env::current_dir().is_ok_and(|path| path.is_absolute()) {
        return Err("current working directory is outside of container mount namespace root".to_owned());
    }
    if let (Some(filter), true) = (filter, no_new_privileges) {
        filter.load()?;
    }
    Ok(home)
}

enum CwdLater {
    Yes,
    No,
}

/// First as root; a directory that only the user may enter is tried again as the user.
fn change_directory(process: &Process) -> Result<CwdLater, String> {
    if process.cwd().as_os_str().is_empty() {
        return Ok(CwdLater::No);
    }
    match std::env::set_current_dir(process.cwd()) {
        Ok(()) => Ok(CwdLater::No),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(CwdLater::Yes),
        Err(error) => Err(cwd_error(process, &error)),
    }
}

fn cwd_error(process: &Process, error: &io::Error) -> String {
    format!("chdir to cwd ({:?}) set in config.json failed: {}", process.cwd(), program::strerror(error))
}

/// The user of the process may open its own standard streams again (`/dev/stdout`).
pub(crate) fn own_standard_streams(uid: u32, gid: u32) {
    for fd in 0..3 {
        // SAFETY: an all-zero stat is a valid value, overwritten by fstat.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` outlives the call.
        if unsafe { libc::fstat(fd, &mut stat) } != 0 || stat.st_uid == uid {
            continue;
        }
        // The host's /dev/null must not change hands.
        let is_null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
        if !is_null && matches!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFIFO | libc::S_IFSOCK) {
            // SAFETY: plain numbers; a refusal (read-only mount) leaves things as they are.
            unsafe { libc::fchown(fd, uid, gid) };
        }
    }
}

fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> Result<(), String> {
    // SAFETY: the pointer and the length belong together.
    check("setgroups", i64::from(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }))?;
    // SAFETY: plain numbers, as below.
    check("keep capabilities", i64::from(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }))?;
    // SAFETY: one thread, so the raw calls change the whole process.
    check("setgid", unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check("setuid", unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    if uid != 0 {
        // The filter may still need a capability that the change of user made ineffective.
        capabilities::reset_effective(create_syscall().as_ref()).map_err(|error| chain(&error))?;
    }
    // SAFETY: as above.
    check("keep capabilities", i64::from(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) }))?;
    Ok(())
}
