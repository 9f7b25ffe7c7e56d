//! Device rules on cgroup v2: a small eBPF program per container, as that kernel interface has no files for them.
//!
//! Owns: the translation of rules to a program, and attaching it. Invariant: for each of the accesses (make, read,
//! write) the last rule that matches decides, and none means no; that is what v1's files do. `libcontainer` leaves
//! devices open on v2 unless built with a C library. Caller: `create`, while the first process still waits.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

/// Most rules that are taken; the program then stays far below the kernel's limit of instructions.
const MAX_RULES: usize = 4096;

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// One eBPF instruction in the kernel's layout.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

// Registers: 0 result, 1 context, 2 type, 3 accesses still undecided, 4 major, 5 minor.
const fn load(register: u8, at: i16) -> Instruction {
    instruction(0x61, register, 1, at, 0)
}
const fn set(register: u8, value: i32) -> Instruction {
    instruction(0xb7, register, 0, 0, value)
}
const fn and(register: u8, value: i32) -> Instruction {
    instruction(0x57, register, 0, 0, value)
}
const fn shift_right(register: u8, bits: i32) -> Instruction {
    instruction(0x77, register, 0, 0, bits)
}
const fn jump_unless_equal(register: u8, value: i32, by: i16) -> Instruction {
    instruction(0x55, register, 0, by, value)
}
const fn jump_if_any(register: u8, bits: i32, by: i16) -> Instruction {
    instruction(0x45, register, 0, by, bits)
}
const fn jump(by: i16) -> Instruction {
    instruction(0x05, 0, 0, by, 0)
}
const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

/// Attaches the rules, followed by those every container has, to the cgroup at `dir`.
pub(crate) fn attach(dir: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let rules: Vec<LinuxDeviceCgroup> = rules.iter().cloned().chain(usual()).collect();
    if rules.len() > MAX_RULES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many device rules"));
    }
    let program = load_program(&program(&rules))?;
    attach_program(&File::open(dir)?, &program)
}

/// What every container may do, as with runc: make any node, and use null, random, full, tty, zero, urandom, ptmx and
/// terminals.
fn usual() -> Vec<LinuxDeviceCgroup> {
    const NODES: [(Option<i64>, Option<i64>); 8] = [
        (Some(1), Some(3)),
        (Some(1), Some(8)),
        (Some(1), Some(7)),
        (Some(5), Some(0)),
        (Some(1), Some(5)),
        (Some(1), Some(9)),
        (Some(5), Some(2)),
        (Some(136), None),
    ];
    let rule = |kind, major, minor, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true).set_typ(Some(kind)).set_access(Some(access.to_owned()));
        rule.set_major(major).set_minor(minor);
        rule
    };
    let make = [LinuxDeviceType::C, LinuxDeviceType::B].map(|kind| rule(kind, None, None, "m"));
    let nodes = NODES.map(|(major, minor)| rule(LinuxDeviceType::C, major, minor, "rwm"));
    make.into_iter().chain(nodes).collect()
}

/// Goes through the rules from the last to the first: a denied access ends it, allowed ones are struck off.
fn program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    // The context: accesses << 16 | type, major, minor.
    let mut program = vec![load(2, 0), load(3, 0), shift_right(3, 16), and(2, 0xffff), load(4, 4), load(5, 8)];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend([set(0, 0), EXIT]);
    program
}

fn block(rule: &LinuxDeviceCgroup) -> Vec<Instruction> {
    let accesses = rule.access().as_deref().unwrap_or("rwm").chars().fold(0, |bits, letter| {
        bits | match letter {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            _ => 0,
        }
    });
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(1),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(2),
        // Pipes are not devices.
        LinuxDeviceType::P => return Vec::new(),
    };
    // Negative numbers mean any, as in runc.
    let number =
        |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0);
    let tail = if rule.allow() {
        vec![and(3, !accesses), jump_unless_equal(3, 0, 2), set(0, 1), EXIT]
    } else {
        vec![jump_if_any(3, accesses, 1), jump(2), set(0, 0), EXIT]
    };
    let tests: Vec<(u8, i32)> = [(2, kind), (4, number(rule.major())), (5, number(rule.minor()))]
        .into_iter()
        .filter_map(|(r, v)| Some((r, v?)))
        .collect();
    let count = tests.len();
    let mut block = Vec::new();
    for (index, (register, value)) in tests.into_iter().enumerate() {
        // Past the tests that remain and the tail.
        let by = (count - index - 1 + tail.len()) as i16;
        block.push(jump_unless_equal(register, value, by));
    }
    block.extend(tail);
    block
}

/// `bpf_attr` of BPF_PROG_LOAD, its first 48 bytes.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// `bpf_attr` of BPF_PROG_ATTACH.
#[repr(C)]
struct ProgramAttach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn load_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    const PROG_LOAD: i32 = 5;
    const CGROUP_DEVICE_PROGRAM: u32 = 15;
    let attributes = ProgramLoad {
        program_type: CGROUP_DEVICE_PROGRAM,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let size = size_of::<ProgramLoad>();
    // SAFETY: the attributes have the kernel's layout and the given size; what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size) };
    let fd = nix::errno::Errno::result(fd)?;
    // SAFETY: the descriptor (always close-on-exec) was just returned and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach_program(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    const PROG_ATTACH: i32 = 8;
    const CGROUP_DEVICE: u32 = 6;
    /// Programs of parents stay in force, and a container may attach its own below.
    const ALLOW_MULTI: u32 = 2;
    let attributes = ProgramAttach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    let size = size_of::<ProgramAttach>();
    // SAFETY: the attributes have the kernel's layout and the given size; both descriptors are open.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libcontainer::oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn rule(allow: bool, text: &str) -> LinuxDeviceCgroup {
        let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let (major, minor) = numbers.split_once(':').unwrap();
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).access(access).build().unwrap();
        rule.set_typ(match kind {
            "a" => None,
            "b" => Some(LinuxDeviceType::B),
            _ => Some(LinuxDeviceType::C),
        });
        rule.set_major(major.parse().ok()).set_minor(minor.parse().ok());
        rule
    }

    /// Runs a program on a request, as the kernel would.
    fn run(program: &[Instruction], kind: u32, accesses: i32, major: u32, minor: u32) -> bool {
        let context = [(accesses as u32) << 16 | kind, major, minor];
        let mut registers = [0u64; 6];
        let mut at = 0usize;
        for _ in 0..10_000 {
            let now = program[at];
            let (to, value) = (usize::from(now.registers & 15), now.immediate as i64 as u64);
            let mut by = 1isize;
            let jump = isize::from(now.offset);
            match now.code {
                0x61 => registers[to] = u64::from(context[now.offset as usize / 4]),
                0xb7 => registers[to] = value,
                0x57 => registers[to] &= value,
                0x77 => registers[to] >>= value,
                0x55 if registers[to] != value => by += jump,
                0x45 if registers[to] & value != 0 => by += jump,
                0x05 => by += jump,
                0x95 => return registers[0] == 1,
                0x55 | 0x45 => {}
                code => panic!("{code:#x}"),
            }
            at = at.checked_add_signed(by).unwrap();
        }
        panic!("the program does not end");
    }

    #[test]
    fn the_last_rule_decides_each_access() {
        let rules = [
            rule(false, "a *:* rwm"),
            rule(true, "c 1:3 rwm"),
            rule(true, "c 10:* r"),
            rule(true, "c 10:200 w"),
            rule(true, "b 8:* rwm"),
            rule(false, "b 8:1 w"),
        ];
        let program = program(&rules);
        for (kind, accesses, major, minor, wanted) in [
            (2, READ | WRITE, 1, 3, true),
            (2, READ, 1, 4, false),
            (1, READ, 1, 3, false),
            (2, READ, 10, 1, true),
            (2, WRITE, 10, 1, false),
            (2, READ | WRITE, 10, 200, true),
            (2, READ | MKNOD, 10, 200, false),
            (1, READ | WRITE, 8, 2, true),
            (1, READ | WRITE, 8, 1, false),
            (1, READ | MKNOD, 8, 1, true),
        ] {
            assert_eq!(run(&program, kind, accesses, major, minor), wanted, "{kind} {accesses} {major}:{minor}");
        }
        let open = super::program(&[rule(false, "a *:* rwm"), rule(true, "a *:* rwm")]);
        assert!(run(&open, 1, READ | WRITE | MKNOD, 9, 9));
        assert!(!run(&super::program(&[]), 2, READ, 1, 3));
    }

    /// On a hybrid host the v2 hierarchy is under `unified`; the kernel's verifier and effect can be seen there too.
    #[test]
    fn the_kernel_takes_and_obeys_it() {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = roots.into_iter().find(|root| Path::new(root).join("cgroup.procs").exists()).unwrap();
        let dir = Path::new(root).join(format!("skep-test-devices-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let attached = attach(&dir, &[rule(false, "a *:* rwm"), rule(false, "c 1:7 r")]);
        let script = "echo $$ > \"$0/cgroup.procs\"; head -c 1 /dev/zero > /dev/null && echo zero; head -c 1 /dev/mem && echo mem; head -c 1 /dev/kmsg && echo kmsg; true";
        let output = std::process::Command::new("/bin/sh").args(["-c", script]).arg(&dir).output();
        std::fs::remove_dir(&dir).unwrap();
        attached.unwrap();
        let output = output.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "zero\n", "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"), "{output:?}");
    }
}
