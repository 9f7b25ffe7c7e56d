//! Secrets and configs of a task: one tmpfs under the container's exec directory, bound read-only into the container.
//! Contents are never on a disk; they go with the unmount.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::EngineError;
use crate::mount_points::clean_path;
use crate::options::{FileKind, SecretFile};

/// Where dockerd puts secrets.
const SECRETS_TARGET: &str = "/run/secrets";
/// Files of one task.
const FILES_MAX: usize = 1024;
/// Bytes of all files of one task.
const BYTES_MAX: usize = 64 << 20;

/// What to bind where, read-only.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskFiles {
    pub(crate) binds: Vec<(PathBuf, String)>,
}

/// Refuses what cannot be written later.
pub(crate) fn check(files: &[SecretFile]) -> Result<(), EngineError> {
    if files.len() > FILES_MAX || files.iter().map(|file| file.data.len()).sum::<usize>() > BYTES_MAX {
        return Err(EngineError::invalid(format!(
            "a task has at most {FILES_MAX} secrets and configs of {BYTES_MAX} bytes"
        )));
    }
    match files.iter().find(|file| clean_path(&file.path).is_none_or(|path| path == "/")) {
        Some(file) => Err(EngineError::invalid(format!("invalid target of a secret or config: {}", file.path))),
        None => Ok(()),
    }
}

/// Writes them; `directory` becomes the tmpfs. Blocking.
pub(crate) fn write(directory: &Path, files: &[SecretFile]) -> Result<TaskFiles, EngineError> {
    let mut binds = Vec::new();
    if files.is_empty() {
        return Ok(TaskFiles { binds });
    }
    remove(directory);
    fs::create_dir_all(directory).map_err(|error| EngineError::io("create", directory, &error))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some("mode=0700"))
        .map_err(|error| EngineError::io("mount a tmpfs at", directory, &error.into()))?;
    let secrets = directory.join("secrets");
    for (number, file) in files.iter().enumerate() {
        let target = clean_path(&file.path).ok_or_else(|| EngineError::invalid("a target is not absolute"))?;
        let inside = target.strip_prefix(SECRETS_TARGET).and_then(|rest| rest.strip_prefix('/'));
        match inside.filter(|_| file.kind == FileKind::Secret) {
            Some(inside) => write_file(&secrets.join(inside), file)?,
            None => {
                let path = directory.join("single").join(number.to_string());
                write_file(&path, file)?;
                binds.push((path, target));
            }
        }
    }
    if secrets.exists() {
        binds.insert(0, (secrets, SECRETS_TARGET.to_owned()));
    }
    Ok(TaskFiles { binds })
}

fn write_file(path: &Path, file: &SecretFile) -> Result<(), EngineError> {
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        opened.write_all(&file.data)?;
        chown(path, Some(file.uid), Some(file.gid))?;
        opened.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))
    };
    write().map_err(|error| EngineError::io("write", path, &error))
}

/// Takes them away. Blocking; nothing there is fine.
pub(crate) fn remove(directory: &Path) {
    if directory.exists() {
        let _ = umount2(directory, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_on_a_tmpfs_and_go_with_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("files");
        let file =
            |path: &str, kind| SecretFile { path: path.into(), uid: 1, gid: 2, mode: 0o440, data: b"x".to_vec(), kind };
        let files = [
            file("/run/secrets/a", FileKind::Secret),
            file("/etc/b", FileKind::Secret),
            file("/run/secrets/c", FileKind::Config),
        ];
        check(&files).unwrap();
        let written = write(&directory, &files).unwrap();
        let targets: Vec<_> = written.binds.iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(targets, ["/run/secrets", "/etc/b", "/run/secrets/c"]);
        let meta = fs::metadata(directory.join("secrets/a")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o440);
        remove(&directory);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "nothing is below the tmpfs");
        assert!(check(&[file("relative", FileKind::Secret)]).is_err());
    }
}
