//! Output in pieces becomes the lines of dockerd's `json-file` log. Owns the unfinished line of one stream.
//!
//! As dockerd's copier does it: a line longer than [`LOG_LINE_BYTES`] is written in parts that bear the first part's time and
//! all but the last lack the newline; so does what is left without newline at the end of the output.

use std::time::SystemTime;

use crate::clock;
use crate::limits::LOG_LINE_BYTES;

/// The unfinished line of one stream.
pub(crate) struct Splitter {
    stream: &'static str,
    rest: Vec<u8>,
    /// When the first part of the line at hand was written, if one was.
    part_of: Option<SystemTime>,
}

impl Splitter {
    /// `stream` is `stdout` or `stderr`, as it is written into each line.
    pub(crate) fn new(stream: &'static str) -> Splitter {
        Splitter { stream, rest: Vec::new(), part_of: None }
    }

    /// Takes `data`, seen at `at`, and appends the finished lines to `out`. `attrs` is a JSON object, or empty.
    pub(crate) fn feed(&mut self, mut data: &[u8], at: SystemTime, attrs: &[u8], out: &mut Vec<u8>) {
        while !data.is_empty() {
            let room = LOG_LINE_BYTES - self.rest.len();
            let window = &data[..data.len().min(room)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                // The newline goes in as well.
                let first = self.part_of.take().unwrap_or(at);
                self.emit(&window[..=end], first, attrs, out);
                data = &data[end + 1..];
            } else if window.len() == room {
                let first = *self.part_of.get_or_insert(at);
                self.emit(window, first, attrs, out);
                data = &data[room..];
            } else {
                self.rest.extend_from_slice(data);
                return;
            }
        }
    }

    /// The output has ended: what is left becomes a line without newline.
    pub(crate) fn finish(&mut self, at: SystemTime, attrs: &[u8], out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            let first = self.part_of.take().unwrap_or(at);
            self.emit(&[], first, attrs, out);
        }
    }

    /// Gives memory back that is not needed.
    pub(crate) fn shrink(&mut self) {
        self.rest.shrink_to_fit();
    }

    fn emit(&mut self, tail: &[u8], at: SystemTime, attrs: &[u8], out: &mut Vec<u8>) {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            write_entry(out, tail, self.stream, attrs, at);
        } else {
            self.rest = rest;
            self.rest.extend_from_slice(tail);
            write_entry(out, &self.rest, self.stream, attrs, at);
            self.rest.clear();
        }
    }
}

/// One line of the log file: fields in dockerd's order.
fn write_entry(out: &mut Vec<u8>, line: &[u8], stream: &str, attrs: &[u8], at: SystemTime) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(line, out);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.push(b'"');
    if !attrs.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attrs);
    }
    out.extend_from_slice(b",\"time\":\"");
    clock::write_rfc3339(at, out);
    out.extend_from_slice(b"\"}\n");
}

/// A JSON object of `attrs` as Go's `encoding/json` writes it; empty when there are none.
pub(crate) fn attrs_json(attrs: &std::collections::BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in attrs {
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.push(b'"');
        escape(name.as_bytes(), &mut out);
        out.extend_from_slice(b"\":\"");
        escape(value.as_bytes(), &mut out);
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

/// Appends `text` as the inside of a JSON string, escaped as dockerd's log writer does: also `<`, `>`, `&`, U+2028 and
/// U+2029, and each byte that is no UTF-8 as U+FFFD.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        escape_text(chunk.valid().as_bytes(), out);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_text(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut plain_from = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        let separator = byte == 0xe2 && text[at..].starts_with(&[0xe2, 0x80]) && matches!(text[at + 2], 0xa8 | 0xa9);
        if !separator && byte >= 0x20 && !matches!(byte, b'\\' | b'"' | b'<' | b'>' | b'&') {
            at += 1;
            continue;
        }
        out.extend_from_slice(&text[plain_from..at]);
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => {
                out.extend_from_slice(if text[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                at += 2;
            }
            _ => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
        at += 1;
        plain_from = at;
    }
    out.extend_from_slice(&text[plain_from..]);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn lines(pieces: &[&[u8]], attrs: &[u8]) -> String {
        let mut splitter = Splitter::new("stdout");
        let mut out = Vec::new();
        for (second, piece) in pieces.iter().enumerate() {
            splitter.feed(piece, UNIX_EPOCH + Duration::from_secs(second as u64), attrs, &mut out);
        }
        splitter.finish(UNIX_EPOCH + Duration::from_secs(59), attrs, &mut out);
        String::from_utf8(out).expect("escaped")
    }

    fn entry(log: &str, second: u32) -> String {
        format!("{{\"log\":\"{log}\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:{second:02}Z\"}}\n")
    }

    #[test]
    fn pieces_become_lines() {
        assert_eq!(lines(&[b"a\nb", b"c\n\n"], b""), entry("a\\n", 0) + &entry("bc\\n", 1) + &entry("\\n", 1));
        assert_eq!(lines(&[b"no end"], b""), entry("no end", 59));
        assert_eq!(
            lines(&[b"a\n"], &attrs_json(&[("k".to_owned(), "<\"".to_owned())].into())),
            "{\"log\":\"a\\n\",\"stream\":\"stdout\",\"attrs\":{\"k\":\"\\u003c\\\"\"},\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
    }

    #[test]
    fn long_lines_are_split_at_16_kib_with_the_time_of_the_first_part() {
        let long = vec![b'x'; LOG_LINE_BYTES + 10];
        let x = |count: usize| "x".repeat(count);
        assert_eq!(lines(&[&long, b"end\n"], b""), entry(&x(LOG_LINE_BYTES), 0) + &entry(&(x(10) + "end\\n"), 0));
        assert_eq!(
            lines(&[&long[..LOG_LINE_BYTES], b"\nnext\n"], b""),
            entry(&x(LOG_LINE_BYTES), 0) + &entry("\\n", 0) + &entry("next\\n", 1)
        );
    }

    #[test]
    fn escapes_are_dockerds() {
        let mut out = Vec::new();
        escape("\t\u{1b}\u{7f}é\u{2028}\u{2029}<>&\\\"\r".as_bytes(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\\u0009\\u001b\u{7f}é\\u2028\\u2029\\u003c\\u003e\\u0026\\\\\\\"\\r"
        );
        let mut out = Vec::new();
        escape(b"a\xff\xe2\x80z\xe2", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\\ufffd\\ufffd\\ufffdz\\ufffd");
    }
}
