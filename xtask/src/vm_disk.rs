//! What the virtual machine starts from: Debian's kernel, a small initramfs that loads the disk's driver, and a disk with
//! a shell, the modules that the kernel may load on demand, Skep, the client, the images and the scripts of `xtask/vm`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::vm::{Options, Places, output, succeed};
use crate::vm_dockerd;

/// The package that depends on Debian's newest kernel of this kind.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// Size of the disk: images, layers and logs of the walk-through take a third of it.
const DISK_SIZE: &str = "1536M";
const BUSYBOX: &str = "/bin/busybox";
/// Programs of the host that the checks use, with the libraries that they need.
const PROGRAMS: &[&str] = &["/usr/sbin/nft", "/usr/bin/wget", "/usr/sbin/ip"];
/// Modules for the initramfs, below `kernel/`.
const DISK_MODULES: &[&str] = &["drivers/virtio", "drivers/block/virtio_blk.ko"];
/// Modules for the disk, below `kernel/`.
const MODULES: &[&str] = &[
    "arch/x86/crypto",
    "crypto",
    "lib",
    "fs/overlayfs",
    "net",
    "drivers/net/dummy.ko",
    "drivers/net/veth.ko",
    "drivers/net/vxlan",
    "drivers/virtio",
    "drivers/block/virtio_blk.ko",
    "drivers/char/hw_random",
];
/// Scripts of the machine and where they go.
const SCRIPTS: &[(&str, &str)] = &[
    ("etc/inittab", include_str!("../vm/inittab")),
    ("etc/boot", include_str!("../vm/boot")),
    ("lib/checks", include_str!("../vm/checks")),
    ("lib/walk", include_str!("../vm/walk")),
    ("lib/reboot", include_str!("../vm/reboot")),
    ("lib/machines", include_str!("../vm/machines")),
    ("lib/encrypted", include_str!("../vm/encrypted")),
    ("lib/mesh", include_str!("../vm/mesh")),
    ("lib/sctp", include_str!("../vm/sctp")),
];

/// The files that the emulator takes.
pub(crate) struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) disk: PathBuf,
}

/// What has been built for it.
pub(crate) struct Built {
    /// Skep.
    pub(crate) skep: PathBuf,
    /// The tests that need its kernel.
    pub(crate) tests: PathBuf,
}

/// Makes all three; the kernel is downloaded once per version.
pub(crate) fn build(places: &Places, options: &Options, built: &Built) -> Result<Machine> {
    let (tree, version) = kernel(places)?;
    println!("vm: kernel {version}");
    let machine = Machine {
        kernel: tree.join(format!("boot/vmlinuz-{version}")),
        initramfs: places.work.join("initramfs.cpio"),
        disk: places.work.join("disk.raw"),
    };
    initramfs(places, &tree, &version, &machine.initramfs)?;
    disk(places, options, built, (&tree, &version), &machine.disk)?;
    Ok(machine)
}

/// Where the kernel's package is unpacked, and the kernel's version.
fn kernel(places: &Places) -> Result<(PathBuf, String)> {
    let depends =
        output(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE])).context("run apt-get update first")?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| name.starts_with("linux-image-"));
    let package = package.with_context(|| format!("{KERNEL_PACKAGE} names no kernel:\n{depends}"))?;
    let version = package.trim_start_matches("linux-image-").to_owned();
    let tree = places.work.join(&version);
    if !tree.join("complete").exists() {
        println!("vm: downloading {package}");
        let download = places.work.join("download");
        fresh(&download)?;
        succeed(Command::new("apt-get").current_dir(&download).args(["-qq", "download", package]))
            .context("could not download the kernel: is `apt-get update` recent?")?;
        let deb = fs::read_dir(&download)?.next().context("apt-get downloaded nothing")??.path();
        fresh(&tree)?;
        succeed(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
        fs::write(tree.join("complete"), "")?;
    }
    Ok((tree, version))
}

fn initramfs(places: &Places, tree: &Path, version: &str, file: &Path) -> Result<()> {
    let root = places.work.join("initramfs");
    fresh(&root)?;
    for dir in ["bin", "dev", "proc", "sys", "sbin", "new"] {
        fs::create_dir(root.join(dir))?;
    }
    install(Path::new(BUSYBOX), &root.join("bin/busybox"))?;
    write_script(&root.join("init"), include_str!("../vm/initramfs-init"))?;
    modules(tree, version, &root, DISK_MODULES)?;
    let names = output(Command::new("find").current_dir(&root).arg("."))?;
    let mut cpio = Command::new(BUSYBOX);
    cpio.current_dir(&root).args(["cpio", "-o", "-H", "newc"]).stdin(Stdio::piped()).stdout(fs::File::create(file)?);
    let mut child = cpio.stderr(Stdio::null()).spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("cpio's input")?, names.as_bytes())?;
    ensure!(child.wait()?.success(), "busybox cpio failed");
    Ok(())
}

fn disk(places: &Places, options: &Options, built: &Built, (tree, version): (&Path, &str), file: &Path) -> Result<()> {
    let root = places.work.join("root");
    fresh(&root)?;
    for dir in [
        "bin", "dev", "etc", "images", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin",
        "usr/sbin", "var/log",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    install(Path::new(BUSYBOX), &root.join("bin/busybox"))?;
    for applet in output(Command::new(BUSYBOX).arg("--list-full"))?.lines().filter(|applet| *applet != "bin/busybox") {
        // Relative: no write below `root` can leave it.
        let up = "../".repeat(applet.matches('/').count());
        symlink(format!("{up}bin/busybox"), root.join(applet)).with_context(|| applet.to_owned())?;
    }
    for program in PROGRAMS {
        program_with_libraries(Path::new(program), Path::new("/"), &root)?;
    }
    vm_dockerd::copy(&vm_dockerd::unpack(places)?, &root)?;
    modules(tree, version, &root, MODULES)?;
    for (path, text) in SCRIPTS {
        write_script(&root.join(path), text)?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for (from, name) in [(&built.skep, "skep"), (&built.tests, "esp-tests")] {
        succeed(Command::new("strip").arg("-o").arg(root.join("usr/bin").join(name)).arg(from))?;
    }
    match &options.docker {
        Some(docker) => install(&fs::canonicalize(docker)?, &root.join("usr/bin/docker"))?,
        None => symlink("skep", root.join("usr/bin/docker"))?,
    }
    for (example, archive) in [(options.example, "dummy.tar"), ("tiny-service", "tiny.tar")] {
        let name = if archive == "tiny.tar" { "tiny" } else { "agrrh/dummy-service-py" };
        let script = places.root.join("examples").join(example).join("build-image");
        succeed(Command::new(script).arg(root.join("images").join(archive)).arg(format!("{name}:latest")))?;
    }
    let _ = fs::remove_file(file);
    let mut mke2fs = Command::new("/sbin/mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"]).arg(&root).arg(file).arg(DISK_SIZE);
    succeed(&mut mke2fs)
}

/// Copies modules and makes the lists that `modprobe` reads.
fn modules(tree: &Path, version: &str, root: &Path, wanted: &[&str]) -> Result<()> {
    let base = Path::new("lib/modules").join(version);
    for module in wanted {
        let path = base.join("kernel").join(module);
        let target = root.join(&path);
        fs::create_dir_all(target.parent().context("a module lies in a folder")?)?;
        succeed(Command::new("cp").arg("-r").arg(tree.join(&path)).arg(&target))?;
    }
    for list in ["modules.builtin", "modules.order"] {
        fs::copy(tree.join(&base).join(list), root.join(&base).join(list))?;
    }
    succeed(Command::new(BUSYBOX).arg("depmod").arg("-b").arg(root).arg(version))
}

/// Copies a program of a tree and the shared objects that `ldd` names, each to its own path. Those that the tree has not
/// are the host's.
pub(crate) fn program_with_libraries(program: &Path, tree: &Path, root: &Path) -> Result<()> {
    let folders = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|folder| tree.join(folder));
    let search = std::env::join_paths(folders)?;
    let listed = output(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", search))?;
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for path in std::iter::once(program).chain(libraries) {
        let target = root.join(path.strip_prefix(tree).or_else(|_| path.strip_prefix("/"))?);
        fs::create_dir_all(target.parent().context("a program lies in a folder")?)?;
        install(path, &target)?;
    }
    Ok(())
}

/// Copies a file. What lies at the target is removed first: it may be a link to an applet, and the copy would go through
/// it to the host's own file.
fn install(from: &Path, to: &Path) -> Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(to.display().to_string());
        }
        _ => {}
    }
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    ensure!(!path.is_symlink(), "{} is a link", path.display());
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// An empty folder.
pub(crate) fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}
