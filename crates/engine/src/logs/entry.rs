//! One line of a json-file log.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use docker_types::time;
use model::Timestamp;
use serde::Deserialize;

use super::LogFrame;
use crate::options::LogsOptions;
use crate::streams::OutputSource;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// A line, read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) source: OutputSource,
    pub(crate) time_ns: i64,
    attributes: BTreeMap<String, String>,
    text: String,
}

impl Entry {
    /// `None` for what is no entry: a cut one after a crash.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let source = if line.stream == "stderr" { OutputSource::Stderr } else { OutputSource::Stdout };
        Some(Self {
            source,
            time_ns: time::parse(&line.time).map_or(0, Timestamp::unix_nanos),
            attributes: line.attrs.unwrap_or_default(),
            text: line.log.into_owned(),
        })
    }

    pub(crate) fn into_frame(self, options: &LogsOptions) -> LogFrame {
        let mut shown = String::new();
        if options.timestamps {
            shown.push_str(&time::format_fixed(Timestamp::from_unix_nanos(self.time_ns)));
            shown.push(' ');
        }
        if options.details {
            let details: Vec<String> =
                self.attributes.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
            shown.push_str(&details.join(","));
            shown.push(' ');
        }
        let bytes = if shown.is_empty() { self.text } else { shown + &self.text };
        LogFrame { source: self.source, time_ns: self.time_ns, attributes: self.attributes, bytes: Bytes::from(bytes) }
    }
}

/// Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_as_asked_for() {
        let line = br#"{"log":"hi\n","stream":"stderr","attrs":{"b":"x y","a":"1"},"time":"2024-01-02T03:04:05.6Z"}"#;
        let show = |timestamps, details| {
            let options = LogsOptions { timestamps, details, ..LogsOptions::default() };
            String::from_utf8(Entry::parse(line).unwrap().into_frame(&options).bytes.to_vec()).unwrap()
        };
        assert_eq!(show(false, false), "hi\n");
        assert_eq!(show(true, true), "2024-01-02T03:04:05.600000000Z a=1,b=x+y hi\n");
        assert_eq!(Entry::parse(line).unwrap().source, OutputSource::Stderr);
        assert!(Entry::parse(&line[..20]).is_none());
    }
}
