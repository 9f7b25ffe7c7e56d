//! Runs the virtual machine and judges what it reports. The kernel's console goes to a file; the second serial port
//! carries one line per check, `PASS name` or `FAIL name: why`, then `DONE`. Lines of other shapes are only shown.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::Places;
use crate::vm_disk::Machine;

/// What the machine is asked to do, in this order, by the word on the kernel's command line.
pub(crate) const PHASES: &[&str] = &["walk", "reboot", "encrypted", "mesh", "sctp"];
/// Memory of the machine.
const MEMORY_MIB: u32 = 2048;
/// Longest time of one phase: emulated on two cores, the longer takes about a fourth of it.
const PHASE_TIMEOUT: Duration = Duration::from_secs(1800);
/// Longest silence: every wait inside the machine is shorter.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(300);

/// Ends the emulator when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one phase and gives the number of failed checks.
pub(crate) fn run(places: &Places, machine: &Machine, phase: &str) -> Result<usize> {
    let logs = places.work.join("logs");
    fs::create_dir_all(&logs)?;
    let started = Instant::now();
    let console = logs.join(format!("console-{phase}.log"));
    let mut running = Running(emulator(machine, phase, &console).spawn().context("qemu-system-x86_64")?);
    let stdout = running.0.stdout.take().context("the machine's output")?;
    let (sender, receiver) = mpsc::sync_channel(1024);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
            if sender.send(line.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });

    println!("vm: {phase}");
    let (mut passed, mut failed, mut done) = (0, 0, false);
    while !done {
        let left = PHASE_TIMEOUT.saturating_sub(started.elapsed()).min(SILENCE_TIMEOUT);
        match receiver.recv_timeout(left) {
            Ok(line) => {
                println!("{:5.0}s  {line}", started.elapsed().as_secs_f64());
                passed += usize::from(line.starts_with("PASS "));
                failed += usize::from(line.starts_with("FAIL "));
                done = line == "DONE";
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                save_logs(places, machine, phase);
                bail!("{phase}: nothing heard for {left:?}; the machine's console: {}", console.display())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    // A power cut: what the machine has not written to its disk by now is lost.
    drop(running);
    save_logs(places, machine, phase);
    println!("vm: {phase}: {passed} passed, {failed} failed in {} s", started.elapsed().as_secs());
    if !done {
        bail!("{phase}: the machine ended early; its console: {}", console.display());
    }
    Ok(failed)
}

fn emulator(machine: &Machine, phase: &str, console: &std::path::Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max", "-smp", "2", "-no-reboot"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]);
    qemu.arg("-m").arg(MEMORY_MIB.to_string());
    qemu.arg("-kernel").arg(&machine.kernel).arg("-initrd").arg(&machine.initramfs);
    qemu.arg("-append").arg(format!("console=ttyS0 loglevel=5 panic=-1 skep.phase={phase}"));
    qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,cache=writeback", machine.disk.display()));
    qemu.args(["-device", "virtio-rng-pci"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    qemu
}

/// Copies the logs of the machine's disk to `target/vm/logs`. It may have none yet.
fn save_logs(places: &Places, machine: &Machine, phase: &str) {
    for log in ["skep.log", "transcript.log"] {
        let target = places.work.join("logs").join(format!("{phase}-{log}"));
        let request = format!("dump /var/log/{log} {}", target.display());
        let _ = Command::new("/sbin/debugfs").arg("-R").arg(request).arg(&machine.disk).output();
    }
}
