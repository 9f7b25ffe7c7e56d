//! `--user` and `--group-add`: names to numbers, by the files of the container's root.
//!
//! The one part of `spec` that reads the world: `etc/passwd` and `etc/group` inside the root, never out of it by links,
//! plain files only, up to [`MAX_FILE`] bytes. Rules and texts are those of moby's `sys/user`. Caller: the start of a
//! container and of an exec.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::SpecError;

/// Longest `passwd` or `group` that is read, in bytes.
pub(super) const MAX_FILE: u64 = 4 << 20;

/// Highest id that may be given as a number.
const MAX_ID: u32 = i32::MAX as u32;

/// A user as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All supplementary groups, beginning with `gid`, as dockerd passes them on.
    pub additional_gids: Vec<u32>,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// Resolves `user[:group]` (empty: the user 0) and the groups of `--group-add`, names or numbers.
pub fn resolve_user(rootfs: &Path, user: &str, group_add: &[String]) -> Result<ResolvedUser, SpecError> {
    let passwd = read(rootfs, "etc/passwd");
    let group = read(rootfs, "etc/group");
    resolve(&passwd, &group, user, group_add)
}

fn resolve(passwd: &str, group: &str, user: &str, group_add: &[String]) -> Result<ResolvedUser, SpecError> {
    let (user_arg, group_arg) = user.split_once(':').unwrap_or((user, ""));
    let user_arg = if user_arg.is_empty() { "0" } else { user_arg };
    let number = user_arg.parse::<u32>().ok();
    let entry =
        passwd.lines().filter_map(passwd_entry).find(|entry| entry.name == user_arg || Some(entry.uid) == number);
    let (uid, mut gid, name) = match (entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.name),
        (None, Some(number)) if number <= MAX_ID => (number, 0, ""),
        (None, Some(_)) => return Err(SpecError::IdRange),
        (None, None) if user_arg.parse::<i128>().is_ok() => return Err(SpecError::IdRange),
        (None, None) => return Err(SpecError::UnknownUser(user_arg.to_owned())),
    };
    let groups: Vec<GroupEntry<'_>> = group.lines().filter_map(group_entry).collect();
    let mut more = Vec::new();
    if group_arg.is_empty() {
        more.extend(
            groups.iter().filter(|group| !name.is_empty() && group.members.contains(&name)).map(|group| group.gid),
        );
    } else {
        gid = group_id(&groups, group_arg)?;
    }
    let mut additional_gids = vec![gid];
    for name in group_add {
        more.push(group_id(&groups, name)?);
    }
    for gid in more {
        if !additional_gids.contains(&gid) {
            additional_gids.push(gid);
        }
    }
    Ok(ResolvedUser { uid, gid, additional_gids })
}

fn group_id(groups: &[GroupEntry<'_>], name: &str) -> Result<u32, SpecError> {
    let number = name.parse::<u32>().ok();
    if let Some(group) = groups.iter().find(|group| group.name == name || Some(group.gid) == number) {
        return Ok(group.gid);
    }
    match number {
        Some(number) if number <= MAX_ID => Ok(number),
        None if name.parse::<i128>().is_err() => Err(SpecError::UnknownGroup(name.to_owned())),
        _ => Err(SpecError::IdRange),
    }
}

fn passwd_entry(line: &str) -> Option<PasswdEntry<'_>> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(PasswdEntry { name, uid, gid })
}

fn group_entry(line: &str) -> Option<GroupEntry<'_>> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or("").split(',').filter(|member| !member.is_empty()).collect();
    Some(GroupEntry { name, gid, members })
}

/// The file's text; a missing or unfit file counts as empty, as with dockerd.
fn read(rootfs: &Path, path: &str) -> String {
    let open = || {
        let root = File::open(rootfs)?;
        // Not waiting: the file may be a pipe.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let how =
            OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(&root, path, how)?);
        if !file.metadata()?.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    open().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# c\napp:x:100:101::/app:/bin/sh\n1000:x:7:8::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:101:\nextra:x:102:app\n";

    fn text(user: &str, add: &[&str]) -> String {
        let add: Vec<String> = add.iter().map(ToString::to_string).collect();
        match resolve(PASSWD, GROUP, user, &add) {
            Ok(user) => format!("{}:{} {:?}", user.uid, user.gid, user.additional_gids),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn users_and_groups() {
        for (user, add, wanted) in [
            ("", &[][..], "0:0 [0, 10]"),
            ("root", &[], "0:0 [0, 10]"),
            ("0", &[], "0:0 [0, 10]"),
            ("app", &[], "100:101 [101, 10, 102]"),
            ("100", &[], "100:101 [101, 10, 102]"),
            ("app:wheel", &[], "100:10 [10]"),
            ("app:55", &[], "100:55 [55]"),
            ("4242", &[], "4242:0 [0]"),
            ("4242:4243", &[], "4242:4243 [4243]"),
            ("1000", &[], "7:8 [8]"),
            ("app", &["extra", "77", "wheel"], "100:101 [101, 10, 102, 77]"),
            (":wheel", &[], "0:10 [10]"),
            ("nobody", &[], "unable to find user nobody: no matching entries in passwd file"),
            ("app:nogroup", &[], "unable to find group nogroup: no matching entries in group file"),
            ("app", &["nogroup"], "unable to find group nogroup: no matching entries in group file"),
            ("4294967295", &[], "uids and gids must be in range 0-2147483647"),
            ("-1", &[], "uids and gids must be in range 0-2147483647"),
        ] {
            assert_eq!(text(user, add), wanted, "{user} {add:?}");
        }
    }

    #[test]
    fn files_are_read_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve_user(dir.path(), "", &[]).unwrap().additional_gids, [0]);
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::create_dir_all(dir.path().join("x")).unwrap();
        std::os::unix::fs::symlink("/x/passwd", dir.path().join("etc/passwd")).unwrap();
        std::fs::write(dir.path().join("x/passwd"), PASSWD).unwrap();
        assert_eq!(resolve_user(dir.path(), "app", &[]).unwrap().uid, 100);
        std::fs::remove_file(dir.path().join("x/passwd")).unwrap();
        assert!(resolve_user(dir.path(), "root", &[]).is_err());
        nix::unistd::mkfifo(&dir.path().join("x/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(resolve_user(dir.path(), "root", &[]).is_err());
    }
}
