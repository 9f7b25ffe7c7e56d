//! From an OCI profile to a BPF program, by libseccomp.
//!
//! Invariant: the rules are added as libcontainer and runc add them, so the program is the same: a call that libseccomp
//! does not know is passed over, a rule that only repeats the default too, and several conditions on one argument are
//! rules of their own. Caller: `cache`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};

use libcontainer::oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{MAX_INSTRUCTIONS, Program};

/// Compiles; the error is a text for the user.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Program, String> {
    let failed = |error: SeccompError| format!("error creating seccomp filter: {error}");
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(failed)?;
    for architecture in profile.architectures().iter().flatten() {
        context.add_arch(self::architecture(*architecture)).map_err(failed)?;
    }
    for syscall in profile.syscalls().iter().flatten() {
        add(&mut context, default, syscall)?;
    }
    export(&context)
}

fn add(context: &mut ScmpFilterContext, default: ScmpAction, syscall: &LinuxSyscall) -> Result<(), String> {
    let action = action(syscall.action(), syscall.errno_ret())?;
    if action == default {
        return Ok(());
    }
    let conditions: Vec<ScmpArgCompare> = syscall.args().iter().flatten().map(condition).collect();
    let arguments: BTreeSet<usize> = syscall.args().iter().flatten().map(LinuxSeccompArg::index).collect();
    for name in syscall.names() {
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        let failed = |error: SeccompError| format!("error adding seccomp rule for syscall {name}: {error}");
        if arguments.len() == conditions.len() {
            context.add_rule_conditional(action, call, &conditions).map_err(failed)?;
            continue;
        }
        for condition in &conditions {
            context.add_rule_conditional(action, call, std::slice::from_ref(condition)).map_err(failed)?;
        }
    }
    Ok(())
}

fn condition(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let operator = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::MaskedEqual(argument.value()),
    };
    let value = match argument.op() {
        LinuxSeccompOperator::ScmpCmpMaskedEq => argument.value_two().unwrap_or(0),
        _ => argument.value(),
    };
    ScmpArgCompare::new(argument.index() as u32, operator, value)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, String> {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    let short = u16::try_from(errno).map_err(|_| format!("invalid seccomp errnoRet {errno}"))?;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(i32::from(short)),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(short),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => return Err("SCMP_ACT_NOTIFY needs a listener".to_owned()),
    })
}

fn architecture(architecture: Arch) -> ScmpArch {
    match architecture {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

/// libseccomp 2.5 writes programs to files only.
fn export(context: &ScmpFilterContext) -> Result<Program, String> {
    let mut file = memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)
        .map(File::from)
        .map_err(|errno| format!("seccomp filter: memory file: {errno}"))?;
    context.export_bpf(&file).map_err(|error| format!("error exporting seccomp filter: {error}"))?;
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(|error| format!("seccomp filter: memory file: {error}"))?;
    Program::new(bytes).ok_or_else(|| format!("the seccomp filter has more than {MAX_INSTRUCTIONS} instructions"))
}
