//! The files of a log: appends whole lines, rotates as dockerd does (`.1`, `.2` …, `.gz`), counts what went wrong.
//!
//! Invariant: the file ends with a whole line. What a full disk let through of a line is cut off again.
//! Compression runs in a forked child, so that the loop never waits for it; only one at a time. A rotation that is due while
//! it runs waits until the file has twice its size, and then for the child, as dockerd's writers do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::clock;
use crate::launch::LogSpec;
use crate::protocol::LogHealth;
use crate::sys;

/// Mode of a log file, as dockerd creates it.
const LOG_MODE: u32 = 0o640;

/// The files of one log.
pub(crate) struct LogFile {
    path: PathBuf,
    max_size: u64,
    max_file: u32,
    compress: bool,
    file: Option<File>,
    /// Bytes in `file`.
    size: u64,
    compressing: Option<i32>,
    health: LogHealth,
}

impl LogFile {
    /// Opens the file, creating it; a failure is counted and the next write tries again.
    pub(crate) fn open(spec: &LogSpec) -> LogFile {
        let mut log = LogFile {
            path: spec.path.clone(),
            max_size: spec.max_size,
            max_file: spec.max_file,
            compress: spec.compress,
            file: None,
            size: 0,
            compressing: None,
            health: LogHealth::default(),
        };
        log.reopen();
        log
    }

    /// What it has lost so far.
    pub(crate) fn health(&self) -> LogHealth {
        self.health.clone()
    }

    /// Appends `lines`, each ending with a newline, the last of them seen at `at`.
    pub(crate) fn append(&mut self, mut lines: &[u8], at: SystemTime) {
        while !lines.is_empty() {
            if self.max_size > 0 && self.size >= self.max_size {
                self.rotate(at);
            }
            let take = self.until_rotation(lines);
            self.append_part(&lines[..take]);
            lines = &lines[take..];
        }
    }

    /// Whether `pid` was the compressing child.
    pub(crate) fn child_ended(&mut self, pid: i32, code: i32) -> bool {
        if self.compressing != Some(pid) {
            return false;
        }
        self.compressing = None;
        if code != 0 {
            self.failed(&format!("compressing {}.1: exit code {code}", self.path.display()), 0);
        }
        true
    }

    /// Length of the lines that go into this file: up to the one with which it reaches its size.
    fn until_rotation(&self, lines: &[u8]) -> usize {
        let times = if self.compressing.is_some() { 2 } else { 1 };
        let room = self.max_size.saturating_mul(times).saturating_sub(self.size);
        if self.max_size == 0 || room > lines.len() as u64 {
            return lines.len();
        }
        let reached = (room as usize).saturating_sub(1);
        lines[reached..].iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| reached + end + 1)
    }

    fn append_part(&mut self, lines: &[u8]) {
        if self.file.is_none() {
            self.reopen();
        }
        let Some(file) = &mut self.file else {
            self.health.lost_lines += count_lines(lines);
            return;
        };
        let mut written = 0;
        let error = loop {
            match file.write(&lines[written..]) {
                Ok(0) => break io::Error::from(io::ErrorKind::WriteZero),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => break e,
            }
            if written == lines.len() {
                self.size += written as u64;
                return;
            }
        };
        let whole = lines[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.size += whole as u64;
        if whole != written && file.set_len(self.size).is_err() {
            // Better a new file than a line in the middle of another.
            self.file = None;
        }
        let lost = count_lines(&lines[whole..]);
        self.failed(&format!("writing {}: {error}", self.path.display()), lost);
    }

    fn reopen(&mut self) {
        let opened = OpenOptions::new().append(true).create(true).mode(LOG_MODE).open(&self.path);
        match opened.and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((size, file)) => {
                self.size = size;
                self.file = Some(file);
            }
            Err(error) => self.failed(&format!("opening {}: {error}", self.path.display()), 0),
        }
    }

    fn rotate(&mut self, at: SystemTime) {
        if let Some(pid) = self.compressing {
            if self.size < self.max_size.saturating_mul(2) {
                return;
            }
            let code = sys::wait_for(pid);
            self.child_ended(pid, code);
        }
        self.file = None;
        if let Err(error) = self.move_files() {
            self.failed(&format!("rotating {}: {error}", self.path.display()), 0);
        }
        self.reopen();
        if self.max_file > 1 && self.compress {
            match sys::fork_worker(|| compress(&numbered(&self.path, 1, ""), at)) {
                Ok(pid) => self.compressing = Some(pid),
                Err(error) => self.failed(&format!("compressing: {error}"), 0),
            }
        }
        if self.size >= self.max_size
            && let Some(file) = &self.file
            && file.set_len(0).is_ok()
        {
            // The old file could not be moved away: emptied, as dockerd does, rather than growing without end.
            self.size = 0;
        }
    }

    fn move_files(&self) -> io::Result<()> {
        if self.max_file < 2 {
            return present(fs::remove_file(&self.path));
        }
        let extension = if self.compress { ".gz" } else { "" };
        present(fs::remove_file(numbered(&self.path, self.max_file - 1, extension)))?;
        for number in (2..self.max_file).rev() {
            present(fs::rename(numbered(&self.path, number - 1, extension), numbered(&self.path, number, extension)))?;
        }
        present(fs::rename(&self.path, numbered(&self.path, 1, "")))
    }

    fn failed(&mut self, text: &str, lost_lines: u64) {
        self.health.errors += 1;
        self.health.lost_lines += lost_lines;
        self.health.last_error = Some(text.to_owned());
    }
}

/// A file that is not there is no error.
fn present(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn numbered(path: &Path, number: u32, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{extension}"));
    PathBuf::from(name)
}

/// Replaces `path` by `path.gz`. The head carries the time of the last line, as dockerd writes it, so that a reader who
/// wants later lines need not unpack it.
fn compress(path: &Path, last: SystemTime) -> io::Result<()> {
    let mut extra = b"{\"lastTime\":\"".to_vec();
    clock::write_rfc3339(last, &mut extra);
    extra.extend_from_slice(b"\"}");
    let mut target = path.as_os_str().to_owned();
    target.push(".gz");
    let mut source = File::open(path)?;
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(LOG_MODE).open(&target)?;
    let mut encoder = flate2::GzBuilder::new().extra(extra).write(out, flate2::Compression::default());
    let result = io::copy(&mut source, &mut encoder).and_then(|_| encoder.finish());
    fs::remove_file(if result.is_ok() { path.as_os_str() } else { &target })?;
    result.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, max_size: u64, max_file: u32) -> LogSpec {
        LogSpec { path: dir.join("x-json.log"), max_size, max_file, ..LogSpec::default() }
    }

    fn read(dir: &Path, name: &str) -> Option<String> {
        fs::read_to_string(dir.join(name)).ok()
    }

    #[test]
    fn a_file_that_has_its_size_is_moved_before_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&spec(dir.path(), 8, 3));
        log.append(b"1234567\n", SystemTime::now());
        assert_eq!(read(dir.path(), "x-json.log.1"), None);
        log.append(b"a\nb\nc\nd\ne\nf\ng\n", SystemTime::now());
        log.append(b"h\ni\nj\n", SystemTime::now());
        assert_eq!(read(dir.path(), "x-json.log").as_deref(), Some("i\nj\n"));
        assert_eq!(read(dir.path(), "x-json.log.1").as_deref(), Some("e\nf\ng\nh\n"));
        assert_eq!(read(dir.path(), "x-json.log.2").as_deref(), Some("a\nb\nc\nd\n"));
        assert_eq!(read(dir.path(), "x-json.log.3"), None);
        assert_eq!(log.health(), LogHealth::default());
    }

    #[test]
    fn a_single_file_is_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&spec(dir.path(), 4, 1));
        log.append(b"1\n2\n3\n4\n5\n", SystemTime::now());
        assert_eq!(read(dir.path(), "x-json.log").as_deref(), Some("5\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn rotated_files_are_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&LogSpec { compress: true, ..spec(dir.path(), 4, 3) });
        log.append(b"one\ntwo\n", SystemTime::now());
        let pid = log.compressing.expect("a child compresses");
        assert_eq!(sys::wait_for(pid), 0);
        assert!(log.child_ended(pid, 0));
        let mut text = String::new();
        let packed = File::open(dir.path().join("x-json.log.1.gz")).unwrap();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut text).unwrap();
        assert_eq!(text, "one\n");
        assert_eq!(read(dir.path(), "x-json.log.1"), None);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&spec(&dir.path().join("missing"), 0, 0));
        log.append(b"a\nb\n", SystemTime::now());
        assert_eq!((log.health().lost_lines, log.health().errors), (2, 2));
        fs::create_dir(dir.path().join("missing")).unwrap();
        log.append(b"c\n", SystemTime::now());
        assert_eq!(read(dir.path(), "missing/x-json.log").as_deref(), Some("c\n"));
        let mut full = LogFile::open(&LogSpec { path: "/dev/full".into(), ..LogSpec::default() });
        full.append(b"a\n", SystemTime::now());
        assert_eq!(full.health().lost_lines, 1);
        assert!(full.health().last_error.unwrap().contains("No space left"));
    }
}
