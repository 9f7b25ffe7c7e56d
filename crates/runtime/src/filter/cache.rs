//! Compiled filters, kept under `<root>/.filters` until the machine restarts.
//!
//! A file's name is the digest of all that the program depends on: the profile (its rules for capabilities, architecture
//! and kernel are resolved by then), libseccomp, the kernel, and this crate. Its contents are the program's digest and
//! the program. Invariants: a file is used only if it is a plain file, written by our own user and by nobody else, and
//! whole; whatever is not so is compiled anew and replaced; a file appears under its name complete.
//! Not being able to keep a program is no error. Caller: [`Filter`](super::Filter).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};

use super::{MAX_INSTRUCTIONS, Program, compile};
use crate::error::RuntimeError;
use crate::log;

/// Most programs that are kept; the oldest goes first.
const MAX_KEPT: usize = 64;

/// Bytes of a SHA-256 digest.
const DIGEST: usize = 32;

/// Changes with the form of the files and with the way profiles are compiled.
const FORM: &str = concat!("skep seccomp 1 ", env!("CARGO_PKG_VERSION"));

/// The profile's program: the one that is kept, or a new one.
pub(super) fn program(root: &Path, profile: &LinuxSeccomp) -> Result<Program, RuntimeError> {
    let dir = root.join(".filters");
    let path = key(profile).map(|key| dir.join(key));
    match path.as_ref().map(|path| read(path)) {
        Some(Ok(program)) => return Ok(program),
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            log::warn(&format!("a kept seccomp filter is not used: {error}"));
        }
        _ => {}
    }
    let program = compile::compile(profile).map_err(RuntimeError::Create)?;
    if let Some(path) = path
        && let Err(error) = keep(&dir, &path, &program)
    {
        log::warn(&format!("cannot keep a seccomp filter in {}: {error}", dir.display()));
    }
    Ok(program)
}

/// The name under which the profile's program is kept; None where one of the parts cannot be had.
fn key(profile: &LinuxSeccomp) -> Option<String> {
    let profile = serde_json::to_vec(profile).ok()?;
    let kernel = fs::read("/proc/version").ok()?;
    let library = libseccomp::ScmpVersion::current().ok()?.to_string();
    let mut hash = Sha256::new();
    for part in [FORM.as_bytes(), library.as_bytes(), &kernel, &profile] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(path: &Path) -> io::Result<Program> {
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    let own = unsafe { libc::geteuid() };
    if !metadata.is_file() || metadata.uid() != own || metadata.mode() & 0o077 != 0 {
        return Err(refused("others may have written it"));
    }
    let longest = DIGEST + MAX_INSTRUCTIONS * size_of::<libc::sock_filter>();
    let mut bytes = Vec::with_capacity(longest.min(metadata.len() as usize + 1));
    file.take(longest as u64 + 1).read_to_end(&mut bytes)?;
    let Some((digest, program)) = bytes.split_at_checked(DIGEST) else { return Err(refused("too short")) };
    if Sha256::digest(program).as_slice() != digest {
        return Err(refused("damaged"));
    }
    Program::new(program.to_vec()).ok_or_else(|| refused("not a program"))
}

fn keep(dir: &Path, path: &Path, program: &Program) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    make_room(dir)?;
    let temporary = dir.join(format!(".new.{}", std::process::id()));
    // Left by a process that died here and had our process id.
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        file.write_all(&Sha256::digest(&program.0))?;
        file.write_all(&program.0)?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Leaves room for one more file.
fn make_room(dir: &Path) -> io::Result<()> {
    let mut kept: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        // One that has gone meanwhile needs no room.
        if let Ok(metadata) = entry.metadata() {
            kept.push((metadata.modified()?, entry.path()));
        }
    }
    kept.sort();
    for (_, path) in kept.iter().take((kept.len() + 1).saturating_sub(MAX_KEPT)) {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn profile(errno: u32) -> LinuxSeccomp {
        serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno }],
        }))
        .unwrap()
    }

    fn only_file(root: &Path) -> PathBuf {
        let files: Vec<_> = fs::read_dir(root.join(".filters")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn a_program_is_kept_for_its_profile_alone() {
        let root = tempfile::tempdir().unwrap();
        let first = program(root.path(), &profile(1)).unwrap();
        let file = only_file(root.path());
        let made = fs::metadata(&file).unwrap();
        assert_eq!(made.mode() & 0o7777, 0o600);
        assert_eq!(program(root.path(), &profile(1)).unwrap(), first);
        assert_eq!(fs::metadata(&file).unwrap().ino(), made.ino());
        assert_ne!(program(root.path(), &profile(2)).unwrap(), first);
        assert_eq!(fs::read_dir(root.path().join(".filters")).unwrap().count(), 2);
    }

    #[test]
    fn what_is_kept_is_used() {
        let root = tempfile::tempdir().unwrap();
        let other = program(root.path(), &profile(2)).unwrap();
        let planted = fs::read(only_file(root.path())).unwrap();
        fs::remove_dir_all(root.path().join(".filters")).unwrap();
        program(root.path(), &profile(1)).unwrap();
        fs::write(only_file(root.path()), planted).unwrap();
        assert_eq!(program(root.path(), &profile(1)).unwrap(), other);
    }

    #[test]
    fn damaged_and_foreign_files_are_replaced() {
        let root = tempfile::tempdir().unwrap();
        let right = program(root.path(), &profile(1)).unwrap();
        let file = only_file(root.path());
        let whole = fs::read(&file).unwrap();
        let planted = root.path().join("planted");
        let spoil: [&dyn Fn(); 7] = [
            &|| fs::write(&file, "").unwrap(),
            &|| fs::write(&file, &whole[..whole.len() - 8]).unwrap(),
            &|| fs::write(&file, [&whole[..DIGEST], &[0; 16]].concat()).unwrap(),
            &|| fs::write(&file, Sha256::digest(b"")).unwrap(),
            &|| fs::write(&file, vec![0; 1 << 20]).unwrap(),
            &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap(),
            &|| {
                fs::rename(&file, &planted).unwrap();
                symlink(&planted, &file).unwrap();
            },
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            spoil();
            assert_eq!(program(root.path(), &profile(1)).unwrap(), right, "{number}");
            assert_eq!(fs::read(&file).unwrap(), whole, "{number}");
            assert!(read(&file).is_ok(), "{number}");
        }
        // SAFETY: geteuid(2) takes nothing and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            std::os::unix::fs::chown(&file, Some(1), None).unwrap();
            assert!(read(&file).is_err());
            assert_eq!(program(root.path(), &profile(1)).unwrap(), right);
        }
    }

    #[test]
    fn no_more_than_the_limit_are_kept() {
        let root = tempfile::tempdir().unwrap();
        for errno in 0..MAX_KEPT as u32 + 3 {
            program(root.path(), &profile(errno)).unwrap();
        }
        assert_eq!(fs::read_dir(root.path().join(".filters")).unwrap().count(), MAX_KEPT);
    }

    #[test]
    fn a_program_that_cannot_be_kept_is_used_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".filters"), "").unwrap();
        program(root.path(), &profile(1)).unwrap();
    }

    #[test]
    fn wrong_profiles_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let refused = |errno: u32, index: usize| {
            let mut profile = serde_json::to_value(profile(errno)).unwrap();
            profile["syscalls"][0]["args"] = serde_json::json!([{ "index": index, "value": 1, "op": "SCMP_CMP_EQ" }]);
            program(root.path(), &serde_json::from_value(profile).unwrap()).unwrap_err().to_string()
        };
        assert!(refused(1 << 16, 0).ends_with("invalid seccomp errnoRet 65536"));
        assert!(refused(1, 6).contains("error adding seccomp rule for syscall mkdir"));
    }
}
