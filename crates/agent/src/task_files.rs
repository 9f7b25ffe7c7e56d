//! What a worker was given, on disk, so that it runs on through a restart without a manager: `tasks/<id>` holds the task,
//! `tasks/<id>.status` what was last seen of it. Secrets and configs are never written, as dockerd never writes them.
//!
//! One tokio task writes; callers only note what is to be written, and the newest note wins. Files are not synced: each
//! carries a checksum, and what a power cut took or tore is given again by the next complete set of assignments.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::{Task, TaskId, TaskStatus};
use prost::Message;
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::swarmkit as p;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Bytes of the checksum in front of each record.
const CHECKSUM_BYTES: usize = 4;
/// Ending of the files that hold statuses.
const STATUS_ENDING: &str = ".status";
/// Ending of files that are being written.
const TEMPORARY_ENDING: &str = ".new";
/// Longest task identifier that becomes a file name; SwarmKit's have 25 characters.
const MAX_ID_BYTES: usize = 64;
/// Largest record that is read back; the manager's own limit for a proposal is 1.5 MiB.
const MAX_RECORD_BYTES: u64 = 8 << 20;

/// Notes for the writer. Clones share the writer.
#[derive(Clone, Debug)]
pub(crate) struct TaskFiles {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    notes: Mutex<Notes>,
    wake: Notify,
}

/// File name to its new content; `None` removes it.
#[derive(Debug, Default)]
struct Notes {
    files: BTreeMap<String, Option<Vec<u8>>>,
    ended: bool,
}

/// The writer; ends when told, after the last note is on disk.
pub(crate) struct Writer {
    files: TaskFiles,
    join: JoinHandle<()>,
}

/// Opens the folder: the tasks in it, each with the status that this node saw last, and the writer for what comes.
pub(crate) async fn open(folder: PathBuf) -> io::Result<(Vec<Task>, TaskFiles, Writer)> {
    let folder = folder.join("tasks");
    let reading = folder.clone();
    let found = tokio::task::spawn_blocking(move || load(&reading)).await.map_err(io::Error::other)??;
    let files = TaskFiles { shared: Arc::new(Shared { notes: Mutex::default(), wake: Notify::new() }) };
    let join = tokio::spawn(run(files.shared.clone(), folder));
    Ok((found, files.clone(), Writer { files, join }))
}

impl TaskFiles {
    /// A task as assigned; its status is kept elsewhere.
    pub(crate) fn put_task(&self, task: &Task) {
        let bare = Task { status: TaskStatus::default(), ..task.clone() };
        self.note(task.id.as_str().to_owned(), Some(bare.to_proto().encode_to_vec()));
    }

    /// What was seen of a task.
    pub(crate) fn put_status(&self, id: &TaskId, status: &TaskStatus) {
        self.note(format!("{id}{STATUS_ENDING}"), Some(status.to_proto().encode_to_vec()));
    }

    /// The task is no longer this node's.
    pub(crate) fn remove(&self, id: &TaskId) {
        self.note(format!("{id}{STATUS_ENDING}"), None);
        self.note(id.as_str().to_owned(), None);
    }

    fn note(&self, name: String, content: Option<Vec<u8>>) {
        if !is_file_name(&name) {
            return tracing::warn!(name, "a task with this identifier is not kept on disk");
        }
        self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).files.insert(name, content);
        self.shared.wake.notify_one();
    }
}

impl Writer {
    /// Returns when all that was noted is written.
    pub(crate) async fn end(self) {
        self.files.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.files.shared.wake.notify_one();
        if let Err(error) = self.join.await {
            tracing::error!(%error, "the writer of assignments broke");
        }
    }
}

/// Identifiers come from the network and must not leave the folder.
fn is_file_name(name: &str) -> bool {
    let id = name.strip_suffix(STATUS_ENDING).unwrap_or(name);
    !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

async fn run(shared: Arc<Shared>, folder: PathBuf) {
    loop {
        let (batch, ended) = {
            let mut notes = shared.notes.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut notes.files), notes.ended)
        };
        if batch.is_empty() {
            if ended {
                return;
            }
            shared.wake.notified().await;
            continue;
        }
        let folder = folder.clone();
        let written = tokio::task::spawn_blocking(move || write_batch(&folder, batch)).await;
        // A full disk must not stop tasks: they run on, and only a restart without a manager would miss them.
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "assignments could not be written"),
            Err(error) => tracing::error!(%error, "assignments could not be written"),
        }
    }
}

fn write_batch(folder: &Path, batch: BTreeMap<String, Option<Vec<u8>>>) -> io::Result<()> {
    let mut failed = None;
    for (name, content) in batch {
        let done = match content {
            Some(content) => write(folder, &name, &content),
            None => match fs::remove_file(folder.join(&name)) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                done => done,
            },
        };
        if let Err(error) = done {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn write(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}{TEMPORARY_ENDING}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&crc32fast::hash(content).to_le_bytes())?;
    file.write_all(content)?;
    fs::rename(&temporary, folder.join(name))
}

/// Every whole task in the folder; the rest is removed.
fn load(folder: &Path) -> io::Result<Vec<Task>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let mut found = Vec::new();
    for name in &names {
        if name.ends_with(STATUS_ENDING) && names.iter().any(|other| name.strip_suffix(STATUS_ENDING) == Some(other)) {
            continue;
        }
        match read_task(folder, name) {
            Some(task) => found.push(task),
            None => {
                tracing::warn!(name, "a stored assignment is not whole and is dropped");
                fs::remove_file(folder.join(name))?;
            }
        }
    }
    Ok(found)
}

fn read_task(folder: &Path, name: &str) -> Option<Task> {
    let task = p::Task::decode(read(folder, name)?.as_slice()).ok()?;
    let mut task = Task::from_proto(task).ok().filter(|task| task.id.as_str() == name)?;
    let status = read(folder, &format!("{name}{STATUS_ENDING}"));
    let status = status.and_then(|bytes| p::TaskStatus::decode(bytes.as_slice()).ok());
    task.status = TaskStatus::from_proto(status?).ok()?;
    Some(task)
}

fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let path = folder.join(name);
    if fs::metadata(&path).ok()?.len() > MAX_RECORD_BYTES {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (sum, content) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    (sum == crc32fast::hash(content).to_le_bytes()).then(|| content.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::TaskState;

    fn task(id: &str, state: TaskState) -> Task {
        let status = TaskStatus { state, message: "seen".to_owned(), ..TaskStatus::default() };
        Task { id: TaskId::from(id), status, ..Task::default() }
    }

    #[tokio::test]
    async fn what_was_assigned_comes_back_with_what_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (found, files, writer) = open(folder.path().to_owned()).await.unwrap();
        assert!(found.is_empty());
        let kept = task("kept", TaskState::Running);
        files.put_task(&kept);
        files.put_status(&kept.id, &kept.status);
        let gone = task("gone", TaskState::Running);
        files.put_task(&gone);
        files.put_status(&gone.id, &gone.status);
        files.remove(&gone.id);
        // Not a name for a file: it is not kept, and nothing else is touched.
        files.put_task(&task("../../escape", TaskState::Running));
        writer.end().await;
        let (found, _, writer) = open(folder.path().to_owned()).await.unwrap();
        assert_eq!(found, [kept]);
        writer.end().await;
    }

    #[tokio::test]
    async fn torn_and_foreign_files_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (_, files, writer) = open(folder.path().to_owned()).await.unwrap();
        for id in ["whole", "torn", "flipped", "empty"] {
            let one = task(id, TaskState::Starting);
            files.put_task(&one);
            files.put_status(&one.id, &one.status);
        }
        writer.end().await;
        let tasks = folder.path().join("tasks");
        let torn = fs::read(tasks.join("torn")).unwrap();
        fs::write(tasks.join("torn"), &torn[..torn.len() - 1]).unwrap();
        let mut flipped = fs::read(tasks.join("flipped.status")).unwrap();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(tasks.join("flipped.status"), flipped).unwrap();
        fs::write(tasks.join("empty"), "").unwrap();
        fs::write(tasks.join("x.new"), "half").unwrap();
        let (found, _, writer) = open(folder.path().to_owned()).await.unwrap();
        assert_eq!(found.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["whole"]);
        writer.end().await;
    }
}
