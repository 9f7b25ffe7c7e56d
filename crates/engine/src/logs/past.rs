//! What a log has: the rotated files, the oldest first, then the one being written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc;

use super::{LogFrame, Next, Selection};

/// Rotated files of one log.
pub(super) const ROTATED_MAX: u32 = 1024;
/// Bytes read at once when lines are counted from the end.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of one line; a longer one is no entry of a shim.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// The file being written, and how far it is read.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) path: PathBuf,
    /// `None` before the first line was ever written.
    pub(super) file: Option<File>,
    pub(super) offset: u64,
    /// A line whose end has not been written yet.
    pub(super) partial: Vec<u8>,
}

enum Segment {
    Plain(File),
    Packed(Vec<u8>),
}

impl Segment {
    fn lines(&self) -> io::Result<usize> {
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        match self {
            Self::Packed(bytes) => Ok(count(bytes)),
            Self::Plain(file) => {
                let mut reader = BufReader::with_capacity(CHUNK_BYTES, file.try_clone()?);
                reader.seek(SeekFrom::Start(0))?;
                let mut lines = 0;
                loop {
                    let bytes = reader.fill_buf()?;
                    if bytes.is_empty() {
                        return Ok(lines);
                    }
                    lines += count(bytes);
                    let length = bytes.len();
                    reader.consume(length);
                }
            }
        }
    }

    /// Where the last `lines` lines begin.
    fn tail_offset(&self, lines: usize) -> io::Result<u64> {
        match self {
            Self::Packed(bytes) => Ok(tail_start(bytes, lines) as u64),
            Self::Plain(file) => file_tail(file, lines),
        }
    }
}

/// Where the last `lines` complete lines of `bytes` begin.
fn tail_start(bytes: &[u8], lines: usize) -> usize {
    let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    if lines == 0 {
        return ends.last().map_or(0, |at| at + 1);
    }
    ends.len().checked_sub(lines + 1).map_or(0, |at| ends[at] + 1)
}

/// The same for a file, read from its end.
fn file_tail(mut file: &File, lines: usize) -> io::Result<u64> {
    let mut at = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut buffer = vec![0; CHUNK_BYTES];
    while at > 0 {
        let length = usize::try_from(at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        at -= length as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut buffer[..length])?;
        for index in (0..length).rev().filter(|index| buffer[*index] == b'\n') {
            if found == lines {
                return Ok(at + index as u64 + 1);
            }
            found += 1;
        }
    }
    Ok(0)
}

fn open(path: &Path) -> Option<Segment> {
    File::open(path).ok().map(Segment::Plain)
}

fn open_packed(path: &Path) -> Option<Segment> {
    let mut bytes = Vec::new();
    // a file cut by a crash gives what it has
    let _ = MultiGzDecoder::new(File::open(path).ok()?).read_to_end(&mut bytes);
    Some(Segment::Packed(bytes))
}

/// Rotated files, the newest first.
fn rotated(path: &Path) -> impl Iterator<Item = Segment> {
    let name = path.display().to_string();
    (1..ROTATED_MAX).map_while(move |number| {
        let plain = PathBuf::from(format!("{name}.{number}"));
        open(&plain).or_else(|| open_packed(&PathBuf::from(format!("{name}.{number}.gz"))))
    })
}

/// Sends what there is; the state to follow on, or `None` if the reading ends here. Blocking.
pub(super) fn read(path: &Path, selection: &Selection, sender: &mpsc::Sender<LogFrame>) -> Option<Reader> {
    match try_read(path, selection, sender) {
        Ok(reader) => reader,
        Err(error) => {
            tracing::warn!(log = %path.display(), %error, "cannot read");
            None
        }
    }
}

fn try_read(path: &Path, selection: &Selection, sender: &mpsc::Sender<LogFrame>) -> io::Result<Option<Reader>> {
    // a rotation between the two would be seen twice or not at all; opened files stay what they were
    let newest = File::open(path).ok();
    let mut segments = Vec::new();
    let mut wanted = selection.options.tail;
    if let Some(file) = &newest {
        let segment = Segment::Plain(file.try_clone()?);
        let offset = wanted.map_or(Ok(0), |lines| segment.tail_offset(lines))?;
        if let Some(lines) = &mut wanted {
            *lines = lines.saturating_sub(segment.lines()?);
        }
        segments.push((segment, offset));
    }
    if wanted != Some(0) {
        for segment in rotated(path) {
            let offset = wanted.map_or(Ok(0), |lines| segment.tail_offset(lines))?;
            let lines = if wanted.is_some() { segment.lines()? } else { 0 };
            segments.push((segment, offset));
            wanted = wanted.map(|wanted| wanted.saturating_sub(lines));
            if wanted == Some(0) {
                break;
            }
        }
    }
    let mut reader = Reader { path: path.to_owned(), file: newest, offset: 0, partial: Vec::new() };
    let has_newest = reader.file.is_some();
    for (index, (segment, offset)) in segments.iter().enumerate().rev() {
        let is_newest = has_newest && index == 0;
        let (next, end, partial) = send(segment, *offset, selection, sender)?;
        if next == Next::Stop {
            return Ok(None);
        }
        if is_newest {
            (reader.offset, reader.partial) = (end, partial);
        }
    }
    Ok(Some(reader))
}

/// Sends the lines from `offset` on; where it ended, and the line without an end.
fn send(
    segment: &Segment,
    offset: u64,
    selection: &Selection,
    sender: &mpsc::Sender<LogFrame>,
) -> io::Result<(Next, u64, Vec<u8>)> {
    let mut reader: Box<dyn BufRead> = match segment {
        Segment::Packed(bytes) => Box::new(&bytes[usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len())..]),
        Segment::Plain(file) => {
            let mut file = file.try_clone()?;
            file.seek(SeekFrom::Start(offset))?;
            Box::new(BufReader::with_capacity(CHUNK_BYTES, file))
        }
    };
    let mut at = offset;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        at += length as u64;
        if line.last() != Some(&b'\n') {
            if length < LINE_BYTES_MAX {
                return Ok((Next::GoOn, at, line));
            }
            continue;
        }
        match selection.frame(&line) {
            Ok(Some(frame)) => {
                if sender.blocking_send(frame).is_err() {
                    return Ok((Next::Stop, at, Vec::new()));
                }
            }
            Ok(None) => {}
            Err(next) => return Ok((next, at, Vec::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::LogsOptions;
    use std::io::Write;

    fn line(number: u32) -> String {
        let stream = if number.is_multiple_of(2) { "stdout" } else { "stderr" };
        format!("{{\"log\":\"{number}\\n\",\"stream\":\"{stream}\",\"time\":\"2024-01-01T00:00:{number:02}Z\"}}\n")
    }

    fn log(directory: &Path) -> PathBuf {
        let path = directory.join("x-json.log");
        let lines = |range: std::ops::Range<u32>| range.map(line).collect::<String>();
        let packed = File::create(directory.join("x-json.log.2.gz")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        packed.write_all(lines(0..3).as_bytes()).unwrap();
        packed.finish().unwrap();
        std::fs::write(directory.join("x-json.log.1"), lines(3..6)).unwrap();
        std::fs::write(&path, lines(6..9) + "{\"log\":\"cut").unwrap();
        path
    }

    fn shown(path: &Path, options: LogsOptions) -> String {
        let (sender, mut receiver) = mpsc::channel(64);
        let selection = Selection { options: LogsOptions { stdout: true, ..options } };
        read(path, &selection, &sender);
        drop(sender);
        let mut text = String::new();
        while let Ok(frame) = receiver.try_recv() {
            text.push_str(std::str::from_utf8(&frame.bytes).unwrap().trim_end());
        }
        text
    }

    #[test]
    fn rotated_files_come_first_and_tails_reach_into_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path());
        let both = LogsOptions { stderr: true, ..LogsOptions::default() };
        assert_eq!(shown(&path, both.clone()), "012345678");
        assert_eq!(shown(&path, LogsOptions::default()), "02468");
        for (lines, expected) in [(0, ""), (2, "78"), (3, "678"), (4, "5678"), (8, "12345678"), (99, "012345678")] {
            assert_eq!(shown(&path, LogsOptions { tail: Some(lines), ..both.clone() }), expected, "{lines}");
        }
        let second = |number: i64| {
            Some(docker_types::time::parse("2024-01-01T00:00:00Z").unwrap().unix_nanos() + number * 1_000_000_000)
        };
        assert_eq!(shown(&path, LogsOptions { since: second(4), until: second(6), ..both }), "456");
        assert_eq!(shown(&directory.path().join("none"), LogsOptions::default()), "");
    }
}
