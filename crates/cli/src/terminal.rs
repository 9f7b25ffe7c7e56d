//! The user's terminal: raw mode, its size, and the keys that let go of a container.

use std::time::Duration;

use client::Client;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::Value;
use terminal_size::{Height, Width};
use tokio::signal::unix::{SignalKind, signal};

/// A process that has just been started may not have its terminal yet: docker's number of tries.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// The terminal in raw mode until dropped.
pub(crate) struct Raw(Termios);

impl Raw {
    /// Nothing if standard input is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

/// Rows and columns; nothing if standard output is no terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let (Width(columns), Height(rows)) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some((rows, columns))
}

/// Tells the daemon the terminal's size, now and whenever it changes. `path` is where: `…/resize`. Never ends; to be
/// spawned and aborted.
pub(crate) async fn follow_size(client: Client, path: String) {
    // Before the first telling, so that no change is missed.
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    for attempt in 1..=TRIES {
        if resize(&client, &path).await {
            break;
        }
        tokio::time::sleep(BETWEEN_TRIES * attempt).await;
    }
    while changes.recv().await.is_some() {
        resize(&client, &path).await;
    }
}

/// Whether the daemon has it, or there is nothing to tell.
async fn resize(client: &Client, path: &str) -> bool {
    let Some((rows, columns)) = size() else { return true };
    client.post(&format!("{path}?h={rows}&w={columns}"), None::<&Value>).await.is_ok()
}

/// Keys that let go of a container when they are typed in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// Ctrl-p, ctrl-q.
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q`: each a letter, or `ctrl-` with a letter or one of `@[\]^_`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let key = |word: &str| match (word.strip_prefix("ctrl-"), word.as_bytes()) {
            (None, [letter]) => Some(*letter),
            (Some(letter), _) => match letter.as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                [b'@'] => Some(0),
                [letter @ b'['..=b'_'] => Some(letter - b'@'),
                _ => None,
            },
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(Self).ok_or_else(|| format!("unable to parse detach keys ({text}): unknown character"))
    }
}

/// What was typed, on its way to the container.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    keys: DetachKeys,
    /// Keys of the sequence that were typed so far, and are held back.
    matched: usize,
}

impl Typed {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What goes on to the container, and whether the user lets go of it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let DetachKeys(keys) = &self.keys;
        let mut out = Vec::new();
        for byte in bytes {
            if keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == keys.len() {
                    return (out, true);
                }
                continue;
            }
            // It was something else: what was held back goes first.
            out.extend(&keys[..self.matched]);
            self.matched = usize::from(keys.first() == Some(byte));
            if self.matched == 0 {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read() {
        let check =
            |text: &str, expected: &[u8]| assert_eq!(DetachKeys::parse(text), Ok(DetachKeys(expected.to_vec())));
        check("ctrl-p,ctrl-q", &[0x10, 0x11]);
        check("a,ctrl-@,ctrl-[,ctrl-_", &[b'a', 0, 27, 31]);
        for text in ["", "ctrl-", "ctrl-1", "ab", "ctrl-p,"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_sequence_is_found_however_it_is_cut_and_nothing_else_is_lost() {
        let feed = |parts: &[&[u8]]| {
            let mut typed = Typed::new(DetachKeys::default());
            let mut out = Vec::new();
            for part in parts {
                let (bytes, detached) = typed.feed(part);
                out.extend(bytes);
                if detached {
                    return (out, true);
                }
            }
            (out, false)
        };
        assert_eq!(feed(&[b"ls\n"]), (b"ls\n".to_vec(), false));
        assert_eq!(feed(&[b"a\x10\x11b"]), (b"a".to_vec(), true));
        assert_eq!(feed(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(feed(&[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(feed(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(feed(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }
}
