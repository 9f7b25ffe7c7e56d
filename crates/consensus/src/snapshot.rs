//! Snapshots on disk: `<term>-<index>.snap`, a checksum and an encrypted raftpb snapshot, replaced atomically. A broken
//! one is set aside and the one before it is used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use swarm_proto::raftpb;

use crate::cipher::{Dek, Keys};

/// Stores a snapshot; its data is sealed here. Returns the size of the data.
pub(crate) fn store(folder: &Path, dek: &Dek, mut snapshot: raftpb::Snapshot) -> io::Result<u64> {
    fs::create_dir_all(folder)?;
    let metadata = snapshot.metadata.clone().unwrap_or_default();
    let bytes = snapshot.data.len() as u64;
    snapshot.data = dek.seal(&snapshot.data).map_err(io::Error::other)?;
    let data = snapshot.encode_to_vec();
    let name = format!("{:016x}-{:016x}.snap", metadata.term, metadata.index);
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&crc32fast::hash(&data).to_le_bytes())?;
    file.write_all(&data)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(&name))?;
    File::open(folder)?.sync_all()?;
    // Not a later one: the leader's may have come while this one was being made.
    for old in list(folder)?.into_iter().filter(|path| path.file_name() < Some(name.as_ref())) {
        fs::remove_file(old)?;
    }
    Ok(bytes)
}

/// The snapshot at exactly this index, its data opened.
pub(crate) fn load_at(folder: &Path, keys: &Keys, index: u64) -> io::Result<Option<raftpb::Snapshot>> {
    let suffix = format!("-{index:016x}.snap");
    let named = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(&suffix));
    match list(folder)?.into_iter().rev().find(named) {
        Some(path) => read(&path, keys),
        None => Ok(None),
    }
}

/// The newest good snapshot, its data opened. To be called before anything is stored: it removes what was left half done.
pub(crate) fn load(folder: &Path, keys: &Keys) -> io::Result<Option<raftpb::Snapshot>> {
    if !folder.exists() {
        return Ok(None);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(&path)?;
        }
    }
    for path in list(folder)?.into_iter().rev() {
        match read(&path, keys)? {
            Some(snapshot) => return Ok(Some(snapshot)),
            None => {
                tracing::error!(path = %path.display(), "a raft snapshot is broken and set aside");
                fs::rename(&path, path.with_extension("snap.broken"))?;
            }
        }
    }
    Ok(None)
}

/// `None` for a damaged file; a wrong key is an error, since the file may be fine.
fn read(path: &Path, keys: &Keys) -> io::Result<Option<raftpb::Snapshot>> {
    let bytes = fs::read(path)?;
    let Some((crc, data)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    if crc32fast::hash(data) != u32::from_le_bytes(*crc) {
        return Ok(None);
    }
    let Ok(mut snapshot) = raftpb::Snapshot::decode(data) else { return Ok(None) };
    snapshot.data = keys.open(&snapshot.data).map_err(io::Error::other)?;
    Ok(Some(snapshot))
}

/// Snapshot files by age, oldest first: the names sort by term and index.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "snap") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8) -> Keys {
        Keys::new(Dek::new(&[byte; 32]), None)
    }

    fn snapshot(index: u64) -> raftpb::Snapshot {
        let metadata = raftpb::SnapshotMetadata { index, term: 1, ..Default::default() };
        raftpb::Snapshot { data: b"state".to_vec(), metadata: Some(metadata) }
    }

    #[test]
    fn the_newest_good_snapshot_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let dek = Dek::new(&[3; 32]);
        assert!(load(folder.path(), &keys(3)).unwrap().is_none());
        store(folder.path(), &dek, snapshot(5)).unwrap();
        fs::write(folder.path().join("0000000000000001-0000000000000009.snap"), b"broken").unwrap();
        assert_eq!(load(folder.path(), &keys(3)).unwrap(), Some(snapshot(5)));
        assert!(load(folder.path(), &keys(4)).is_err());
        store(folder.path(), &dek, snapshot(7)).unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 1);
        store(folder.path(), &dek, snapshot(6)).unwrap();
        assert_eq!(load(folder.path(), &keys(3)).unwrap(), Some(snapshot(7)));
        assert_eq!(load_at(folder.path(), &keys(3), 6).unwrap(), Some(snapshot(6)));
        assert_eq!(load_at(folder.path(), &keys(3), 5).unwrap(), None);
    }
}
