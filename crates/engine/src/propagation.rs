//! Whether a bind's source can pass mounts on, as its propagation asks. dockerd looks when the container starts.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::EngineError;
use crate::record::MountRecord;

/// A mount of this namespace: where it is, and its optional fields (`shared:1 master:2`).
struct Mount {
    point: PathBuf,
    fields: String,
}

/// Refuses a shared or slave bind of what is neither.
pub(crate) fn check(mount: &MountRecord, data_root: &Path) -> Result<(), EngineError> {
    let wanted: &[&str] = match mount.propagation.as_str() {
        "shared" | "rshared" => &["shared:"],
        "slave" | "rslave" => &["shared:", "master:"],
        _ => return Ok(()),
    };
    let shares_root = mount.source.starts_with(data_root) || data_root.starts_with(&mount.source);
    if shares_root && !mount.propagation_asked {
        // it was our choice: where nothing is passed on there is nothing to let go of
        return Ok(());
    }
    let path = Path::new("/proc/self/mountinfo");
    let mountinfo = std::fs::read(path).map_err(|error| EngineError::io("read", path, &error))?;
    let source = mount.source.canonicalize().map_err(|error| EngineError::io("resolve", &mount.source, &error))?;
    refuse_unless(wanted, &mount.source, mount_of(&mountinfo, &source))
}

fn refuse_unless(wanted: &[&str], source: &Path, on: Option<Mount>) -> Result<(), EngineError> {
    let source = source.display();
    let Some(on) = on else {
        return Err(EngineError::internal(format!("Can't find mount point of {source}")));
    };
    if on.fields.split(' ').any(|field| wanted.iter().any(|wanted| field.starts_with(wanted))) {
        return Ok(());
    }
    let kind = if wanted.len() > 1 { "shared or slave" } else { "shared" };
    Err(EngineError::internal(format!(
        "path {source} is mounted on {} but it is not a {kind} mount",
        on.point.display()
    )))
}

/// The mount that holds a path without symbolic links: the deepest one, and of those on one place the last.
fn mount_of(mountinfo: &[u8], path: &Path) -> Option<Mount> {
    let mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(read_line);
    mounts.filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn read_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ').skip(4);
    let point = PathBuf::from(OsString::from_vec(unescape(words.next()?)));
    let fields = words.skip(1).take_while(|word| *word != b"-").map(String::from_utf8_lossy);
    Some(Mount { point, fields: fields.collect::<Vec<_>>().join(" ") })
}

/// The kernel writes blanks, line ends and backslashes as `\040`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n\
                          30 22 8:2 / /srv rw shared:7 - ext4 /dev/b rw\n\
                          31 22 8:3 / /srv/with\\040blank rw master:7 - ext4 /dev/c rw\n\
                          32 22 8:4 / /over rw - ext4 /dev/d rw\n\
                          33 32 8:5 / /over rw shared:9 master:1 - ext4 /dev/e rw\n";

    #[test]
    fn a_path_needs_a_mount_that_passes_on() {
        let check = |wanted: &[&str], path: &str| {
            let path = Path::new(path);
            refuse_unless(wanted, path, mount_of(MOUNTS.as_bytes(), path)).err().map(|error| error.to_string())
        };
        let (shared, slave) = (&["shared:"][..], &["shared:", "master:"][..]);
        let not = |path: &str, on: &str, kind: &str| {
            Some(format!("path {path} is mounted on {on} but it is not a {kind} mount"))
        };
        assert_eq!(check(shared, "/a"), not("/a", "/", "shared"));
        assert_eq!(check(slave, "/a"), not("/a", "/", "shared or slave"));
        assert_eq!(check(shared, "/srvx"), not("/srvx", "/", "shared"));
        assert_eq!((check(shared, "/srv/x"), check(slave, "/srv")), (None, None));
        assert_eq!(check(shared, "/srv/with blank/x"), not("/srv/with blank/x", "/srv/with blank", "shared"));
        assert_eq!((check(slave, "/srv/with blank"), check(shared, "/over/x")), (None, None));
    }
}
