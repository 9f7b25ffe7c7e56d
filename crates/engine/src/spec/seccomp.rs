//! Seccomp: dockerd's default profile and profiles given as JSON, resolved for one container.
//!
//! Pure. A profile has rules that hold only with some capability, on some architecture or from some kernel on;
//! `resolve` settles these, so the runtime gets plain rules. Caller: `spec::build`.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use super::SpecError;
use super::seccomp_table as table;

/// Longest profile that is taken, in bytes.
pub const MAX_PROFILE: usize = 4 << 20;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// `--security-opt seccomp=…`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SeccompChoice {
    /// The default profile; none for `--privileged`.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile as JSON, in dockerd's form.
    Profile(String),
}

/// What conditions of a profile are settled by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Architecture by Go's name (`amd64`, `arm64`, …).
    pub architecture: String,
    /// Kernel version: major and minor.
    pub kernel: (u32, u32),
}

impl Host {
    /// The machine this program runs on; a kernel release that cannot be read counts as 0.0.
    pub fn current() -> Host {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Host { architecture: architecture.to_owned(), kernel }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    default_action: Option<LinuxSeccompAction>,
    default_errno_ret: Option<u32>,
    architectures: Vec<Arch>,
    arch_map: Vec<ArchMap>,
    flags: Vec<LinuxSeccompFilterFlag>,
    listener_path: String,
    listener_metadata: String,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default, deserialize_with = "null_is_empty")]
    sub_architectures: Vec<Arch>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: String,
    #[serde(deserialize_with = "null_is_empty")]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_is_empty")]
    args: Vec<LinuxSeccompArg>,
    #[serde(deserialize_with = "null_is_default")]
    includes: Filter,
    #[serde(deserialize_with = "null_is_default")]
    excludes: Filter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    #[serde(deserialize_with = "null_is_empty")]
    caps: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

fn null_is_empty<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn null_is_default<'de, T: Deserialize<'de> + Default, D: serde::Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The default profile for a container with these capabilities.
pub fn default_profile(capabilities: &Capabilities, host: &Host) -> Result<LinuxSeccomp, SpecError> {
    resolve(built_in(), capabilities, host)
}

/// A profile given as JSON, for a container with these capabilities.
pub fn from_json(text: &str, capabilities: &Capabilities, host: &Host) -> Result<LinuxSeccomp, SpecError> {
    if text.len() > MAX_PROFILE {
        return Err(SpecError::Seccomp("the profile is longer than 4 MiB".to_owned()));
    }
    let profile = serde_json::from_str(text)
        .map_err(|error| SpecError::Seccomp(format!("Decoding seccomp profile failed: {error}")))?;
    resolve(profile, capabilities, host)
}

fn allow(names: &str) -> Rule {
    let names = names.split_whitespace().map(str::to_owned).collect();
    Rule { names, action: LinuxSeccompAction::ScmpActAllow, ..Rule::default() }
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> Vec<LinuxSeccompArg> {
    let mut argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    if let Some(value_two) = value_two {
        argument = argument.value_two(value_two);
    }
    argument.build().into_iter().collect()
}

fn only(arches: &[&str], caps: &[&str]) -> Filter {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Filter { arches: owned(arches), caps: owned(caps), min_kernel: None }
}

/// dockerd's default profile.
fn built_in() -> Profile {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpMaskedEq, ScmpCmpNe};
    const S390: [&str; 2] = ["s390", "s390x"];
    const ADMIN: [&str; 1] = ["CAP_SYS_ADMIN"];
    let mut rules = vec![
        allow(table::ALWAYS),
        Rule {
            includes: Filter { min_kernel: Some("4.8".to_owned()), ..Filter::default() },
            ..allow(table::SINCE_4_8)
        },
        Rule { args: argument(0, ScmpCmpNe, table::AF_VSOCK, None), ..allow("socket") },
    ];
    let personality = |value| Rule { args: argument(0, ScmpCmpEq, value, None), ..allow("personality") };
    rules.extend(table::PERSONALITIES.map(personality));
    rules.extend(
        table::BY_ARCHITECTURE.iter().map(|(arches, names)| Rule { includes: only(arches, &[]), ..allow(names) }),
    );
    rules.extend(table::BY_CAPABILITY.iter().map(|(cap, names)| Rule { includes: only(&[], &[cap]), ..allow(names) }));
    // On s390 the flags of clone are its second argument.
    let clone = |index| argument(index, ScmpCmpMaskedEq, table::CLONE_NAMESPACES, Some(0));
    rules.push(Rule { args: clone(0), excludes: only(&S390, &ADMIN), ..allow("clone") });
    rules.push(Rule { args: clone(1), includes: only(&S390, &[]), excludes: only(&[], &ADMIN), ..allow("clone") });
    // Its flags are in memory, where no filter can look: programs then fall back to clone.
    rules.push(Rule {
        action: LinuxSeccompAction::ScmpActErrno,
        errno_ret: Some(ENOSYS),
        excludes: only(&[], &ADMIN),
        ..allow("clone3")
    });
    Profile {
        default_action: Some(LinuxSeccompAction::ScmpActErrno),
        default_errno_ret: Some(EPERM),
        arch_map: architectures(),
        syscalls: rules,
        ..Profile::default()
    }
}

fn architectures() -> Vec<ArchMap> {
    let map = |architecture, sub: &[Arch]| ArchMap { architecture, sub_architectures: sub.to_vec() };
    vec![
        map(Arch::ScmpArchX86_64, &[Arch::ScmpArchX86, Arch::ScmpArchX32]),
        map(Arch::ScmpArchAarch64, &[Arch::ScmpArchArm]),
        map(Arch::ScmpArchS390x, &[Arch::ScmpArchS390]),
        map(Arch::ScmpArchRiscv64, &[]),
        map(Arch::ScmpArchLoongarch64, &[]),
    ]
}

fn native(architecture: &str) -> Option<Arch> {
    Some(match architecture {
        "amd64" => Arch::ScmpArchX86_64,
        "386" | "x86" => Arch::ScmpArchX86,
        "arm64" => Arch::ScmpArchAarch64,
        "arm" => Arch::ScmpArchArm,
        "ppc64le" => Arch::ScmpArchPpc64le,
        "s390x" => Arch::ScmpArchS390x,
        "riscv64" => Arch::ScmpArchRiscv64,
        "loong64" | "loongarch64" => Arch::ScmpArchLoongarch64,
        _ => return None,
    })
}

fn resolve(profile: Profile, capabilities: &Capabilities, host: &Host) -> Result<LinuxSeccomp, SpecError> {
    let wrong = |text: &str| SpecError::Seccomp(text.to_owned());
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(wrong(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ));
    }
    let mut architectures = profile.architectures;
    let native = native(&host.architecture);
    if let Some(map) = profile.arch_map.into_iter().find(|map| Some(map.architecture) == native) {
        architectures.push(map.architecture);
        architectures.extend(map.sub_architectures);
    }
    let names: BTreeSet<String> = capabilities.iter().map(|capability| format!("CAP_{capability}")).collect();
    let mut syscalls = Vec::new();
    for rule in profile.syscalls {
        if rule_holds(&rule, &names, host)? {
            syscalls.push(syscall(rule)?);
        }
    }
    let mut seccomp =
        LinuxSeccompBuilder::default().default_action(profile.default_action.unwrap_or_default()).build()?;
    let some = |text: String| (!text.is_empty()).then_some(text);
    seccomp
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures((!architectures.is_empty()).then_some(architectures))
        .set_flags((!profile.flags.is_empty()).then_some(profile.flags))
        .set_listener_path(some(profile.listener_path).map(Into::into))
        .set_listener_metadata(some(profile.listener_metadata))
        .set_syscalls(Some(syscalls));
    Ok(seccomp)
}

fn rule_holds(rule: &Rule, capabilities: &BTreeSet<String>, host: &Host) -> Result<bool, SpecError> {
    let since = |filter: &Filter| -> Result<Option<bool>, SpecError> {
        filter.min_kernel.as_deref().map(|least| Ok(host.kernel >= version(least)?)).transpose()
    };
    let (includes, excludes) = (&rule.includes, &rule.excludes);
    let excluded = excludes.arches.contains(&host.architecture)
        || excludes.caps.iter().any(|cap| capabilities.contains(cap))
        || since(excludes)? == Some(true);
    let included = (includes.arches.is_empty() || includes.arches.contains(&host.architecture))
        && includes.caps.iter().all(|cap| capabilities.contains(cap))
        && since(includes)? != Some(false);
    Ok(included && !excluded)
}

/// `4.8` as numbers.
fn version(text: &str) -> Result<(u32, u32), SpecError> {
    let wrong = || SpecError::Seccomp(format!("invalid kernel version: {text:?}, expected \"<kernel>.<major>\""));
    let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
    Ok((major.parse().map_err(|_| wrong())?, minor.parse().map_err(|_| wrong())?))
}

fn syscall(rule: Rule) -> Result<LinuxSyscall, SpecError> {
    let mut names = rule.names;
    if !rule.name.is_empty() {
        if !names.is_empty() {
            let text = "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'";
            return Err(SpecError::Seccomp(text.to_owned()));
        }
        names.push(rule.name);
    }
    let mut syscall = LinuxSyscallBuilder::default().names(names).action(rule.action).build()?;
    syscall.set_errno_ret(rule.errno_ret).set_args((!rule.args.is_empty()).then_some(rule.args));
    Ok(syscall)
}
