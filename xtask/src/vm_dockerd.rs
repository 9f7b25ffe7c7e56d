//! Debian's dockerd for the virtual machine, with containerd, runc and iptables: downloaded once and unpacked, not
//! installed; then copied to the disk with the libraries that they need.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::vm::{Places, succeed};
use crate::vm_disk::{fresh, program_with_libraries};

const PACKAGES: &[&str] = &[
    "docker.io",
    "containerd",
    "runc",
    "libdevmapper1.02.1",
    "iptables",
    "libxtables12",
    "libnftnl11",
    "libmnl0",
    "libseccomp2",
];
const PROGRAMS: &[&str] = &[
    "usr/sbin/dockerd",
    "usr/sbin/docker-proxy",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/sbin/runc",
    "usr/sbin/xtables-nft-multi",
];
/// What iptables loads by name.
const EXTENSIONS: &str = "usr/lib/x86_64-linux-gnu/xtables";

/// The folder with what has been unpacked.
pub(crate) fn unpack(places: &Places) -> Result<PathBuf> {
    let folder = places.work.join("docker.io");
    let root = folder.join("root");
    if !folder.join("complete").exists() {
        println!("vm: downloading {}", PACKAGES.join(" "));
        fresh(&folder)?;
        succeed(Command::new("apt-get").current_dir(&folder).args(["-qq", "download"]).args(PACKAGES))
            .context("could not download dockerd: is `apt-get update` recent?")?;
        for entry in fs::read_dir(&folder)? {
            let package = entry?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                succeed(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))?;
                fs::remove_file(&package)?;
            }
        }
        fs::write(folder.join("complete"), "")?;
    }
    Ok(root)
}

/// Copies the programs to the machine's disk.
pub(crate) fn copy(unpacked: &Path, disk: &Path) -> Result<()> {
    for program in PROGRAMS {
        program_with_libraries(&unpacked.join(program), unpacked, disk)?;
    }
    let target = disk.join(EXTENSIONS);
    fs::create_dir_all(target.parent().context("extensions lie in a folder")?)?;
    succeed(Command::new("cp").arg("-r").arg(unpacked.join(EXTENSIONS)).arg(&target))?;
    for name in ["iptables", "ip6tables"] {
        symlink("xtables-nft-multi", disk.join("usr/sbin").join(name))?;
    }
    Ok(())
}
