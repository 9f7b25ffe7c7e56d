//! The seccomp filter of a container: compiled once per profile, kept, and loaded from there.
//!
//! libseccomp needs some 16 ms of CPU for dockerd's default profile on its three architectures; loading the finished
//! program takes the kernel a fraction of one. So the program is kept under `<root>/.filters` ([`cache`]) and the
//! first process of a container, and those of `exec`, only load it.
//!
//! Invariants: the program is the one that libseccomp would have loaded itself; a container whose profile cannot be
//! compiled or loaded does not start. Callers: `create` (through [`Confinement`]) and `exec`.

mod cache;
mod compile;

use std::path::Path;

use libcontainer::capabilities;
use libcontainer::oci_spec::runtime::{
    LinuxCapabilities, LinuxSeccomp, LinuxSeccompArgBuilder, LinuxSeccompOperator, Spec,
};
use libcontainer::seccomp;
use libcontainer::syscall::syscall::create_syscall;

use crate::error::{RuntimeError, chain};
use crate::program::strerror;

/// The longest program that the kernel takes, in instructions (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// A classic BPF program for seccomp(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program(Vec<u8>);

impl Program {
    /// Takes instructions as the kernel lays them out; None if there are none, too many, or half of one.
    fn new(bytes: Vec<u8>) -> Option<Program> {
        let size = size_of::<libc::sock_filter>();
        let whole = bytes.len().is_multiple_of(size);
        (whole && !bytes.is_empty() && bytes.len() / size <= MAX_INSTRUCTIONS).then_some(Program(bytes))
    }

    /// Confines this process, for good. Without no_new_privs it needs CAP_SYS_ADMIN.
    fn load(&self) -> Result<(), String> {
        let mut instructions: Vec<libc::sock_filter> = self
            .0
            .chunks_exact(size_of::<libc::sock_filter>())
            .map(|one| libc::sock_filter {
                code: u16::from_ne_bytes([one[0], one[1]]),
                jt: one[2],
                jf: one[3],
                k: u32::from_ne_bytes([one[4], one[5], one[6], one[7]]),
            })
            .collect();
        let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
        // SAFETY: the program's pointer and length belong together and outlive the call.
        let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            return Err(format!("error loading seccomp filter into kernel: {}", strerror(&error)));
        }
        Ok(())
    }
}

/// A container's filter, ready to be loaded.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// A finished program.
    Program(Program),
    /// Left to libcontainer, and turned round for it: a profile with a listener, or with flags.
    ByLibcontainer(LinuxSeccomp),
}

impl Filter {
    /// From what is kept under `root`, or compiled and then kept there.
    pub(crate) fn prepare(root: &Path, profile: &LinuxSeccomp) -> Result<Filter, RuntimeError> {
        if !is_plain(profile) {
            return Ok(Filter::ByLibcontainer(for_libcontainer(profile.clone())));
        }
        cache::program(root, profile).map(Filter::Program)
    }

    /// Confines this process, for good.
    pub(crate) fn load(&self) -> Result<(), String> {
        match self {
            Filter::Program(program) => program.load(),
            Filter::ByLibcontainer(profile) => {
                seccomp::initialize_seccomp(profile).map(drop).map_err(|error| chain(&error))
            }
        }
    }
}

/// libcontainer 0.7 takes the value of SCMP_CMP_MASKED_EQ for its mask and the mask for the value.
fn for_libcontainer(mut profile: LinuxSeccomp) -> LinuxSeccomp {
    let mut rules = profile.syscalls().clone();
    for rule in rules.iter_mut().flatten() {
        let mut conditions = rule.args().clone();
        for condition in conditions.iter_mut().flatten() {
            if condition.op() == LinuxSeccompOperator::ScmpCmpMaskedEq {
                let turned = LinuxSeccompArgBuilder::default()
                    .index(condition.index())
                    .op(condition.op())
                    .value(condition.value_two().unwrap_or(0))
                    .value_two(condition.value());
                *condition = turned.build().expect("every field is set");
            }
        }
        rule.set_args(conditions);
    }
    profile.set_syscalls(rules);
    profile
}

/// Whether a program is all there is to the profile.
fn is_plain(profile: &LinuxSeccomp) -> bool {
    !seccomp::is_notify(profile) && profile.flags().as_ref().is_none_or(Vec::is_empty)
}

/// The last steps of a container's first process that libcontainer would take if it compiled the filter: loading it and
/// giving up capabilities. They hang together, as a filter without no_new_privs must be loaded before CAP_SYS_ADMIN goes.
#[derive(Debug, Clone)]
pub(crate) struct Confinement {
    program: Program,
    capabilities: Option<LinuxCapabilities>,
    no_new_privileges: bool,
}

impl Confinement {
    /// Takes filter and capabilities out of the spec that libcontainer will see; None, and neither taken, where there is
    /// no filter or libcontainer must do both itself. Hooks are among these cases: they read that spec.
    pub(crate) fn take(spec: &mut Spec, root: &Path) -> Result<Option<Confinement>, RuntimeError> {
        let has_hooks = spec.hooks().is_some();
        let Some(linux) = spec.linux_mut() else { return Ok(None) };
        let Some(profile) = linux.seccomp() else { return Ok(None) };
        let program = match Filter::prepare(root, profile)? {
            Filter::Program(program) if !has_hooks => program,
            _ => {
                let profile = for_libcontainer(profile.clone());
                linux.set_seccomp(Some(profile));
                return Ok(None);
            }
        };
        linux.set_seccomp(None);
        // A spec without a process is refused later.
        let Some(process) = spec.process_mut() else { return Ok(None) };
        let no_new_privileges = process.no_new_privileges() == Some(true);
        let capabilities = process.capabilities().clone();
        process.set_capabilities(None);
        Ok(Some(Confinement { program, capabilities, no_new_privileges }))
    }

    /// In the container's first process, once libcontainer has done the rest: its user is the container's, its
    /// capabilities are still all.
    pub(crate) fn apply(&self) -> Result<(), String> {
        if !self.no_new_privileges {
            self.program.load()?;
        }
        if let Some(wanted) = &self.capabilities {
            capabilities::drop_privileges(wanted, create_syscall().as_ref()).map_err(|error| chain(&error))?;
        }
        if self.no_new_privileges {
            self.program.load()?;
        }
        Ok(())
    }
}
