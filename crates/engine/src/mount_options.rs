//! The words of `-o`, `--tmpfs` and volume options: flags of mount(2), and what the filesystem itself reads.

use nix::mount::MsFlags;

/// What options come to.
#[derive(Clone, Debug)]
pub(crate) struct MountWords {
    /// Flags of mount(2).
    pub(crate) flags: MsFlags,
    /// The rest, for the filesystem.
    pub(crate) data: String,
}

/// Reads comma-separated options as mount(8) does.
pub(crate) fn parse_words(text: &str) -> MountWords {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match flag(word) {
            Some((bits, true)) => flags.insert(bits),
            Some((bits, false)) => flags.remove(bits),
            None => data.push(word),
        }
    }
    MountWords { flags, data: data.join(",") }
}

fn flag(word: &str) -> Option<(MsFlags, bool)> {
    Some(match word {
        "defaults" => (MsFlags::empty(), true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        _ => return None,
    })
}

/// The options of a tmpfs that dockerd takes; others are refused.
pub(crate) fn is_tmpfs_word(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    flag(word).is_some()
        || [
            "size",
            "nr_blocks",
            "nr_inodes",
            "mode",
            "uid",
            "gid",
            "mpol",
            "huge",
            "private",
            "rprivate",
            "shared",
            "rshared",
            "slave",
            "rslave",
            "unbindable",
            "runbindable",
            "strictatime",
            "nostrictatime",
            "diratime",
            "nodiratime",
            "mand",
            "nomand",
            "dirsync",
            "iversion",
            "remount",
            "norelatime",
            "atime",
        ]
        .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_data_are_told_apart() {
        let words = parse_words("ro,size=1m,nosuid,rw,uid=3");
        assert_eq!((words.flags, words.data.as_str()), (MsFlags::MS_NOSUID, "size=1m,uid=3"));
        assert!(is_tmpfs_word("size=1m") && is_tmpfs_word("noexec") && !is_tmpfs_word("x=1"));
    }
}
