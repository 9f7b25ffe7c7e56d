//! The keys that detach a client from a container with a terminal (`--detach-keys`, ctrl-p ctrl-q).

/// dockerd's default keys: ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [16, 17];

/// The keys as bytes; `Err` holds the part that is no key. Empty text is the default.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    text.split(',').map(|key| one(key).ok_or_else(|| key.to_owned())).collect()
}

fn one(key: &str) -> Option<u8> {
    if let [byte] = key.as_bytes() {
        return Some(*byte);
    }
    let [control] = key.strip_prefix("ctrl-")?.as_bytes() else { return None };
    match control {
        b'a'..=b'z' => Some(control - b'a' + 1),
        b'@' => Some(0),
        b'[' => Some(27),
        b'\\' => Some(28),
        b']' => Some(29),
        b'^' => Some(30),
        b'_' => Some(31),
        _ => None,
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

/// What a piece of input came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// This goes to the container; the beginning of the keys is held back.
    Input(Vec<u8>),
    /// The keys; what was typed before them still goes to the container.
    Detach(Vec<u8>),
}

impl Watch {
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    pub(crate) fn see(&mut self, typed: &[u8]) -> Seen {
        let mut input = Vec::with_capacity(typed.len() + self.matched);
        for byte in typed {
            if self.keys.get(self.matched) != Some(byte) {
                input.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return Seen::Detach(input);
                }
            } else {
                input.push(*byte);
            }
        }
        Seen::Input(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dockers() {
        assert_eq!(parse("").unwrap(), [16, 17]);
        assert_eq!(parse("ctrl-a,b,ctrl-\\,ctrl-@").unwrap(), [1, b'b', 28, 0]);
        assert_eq!(parse("ctrl-a,nonsense").unwrap_err(), "nonsense");
        assert_eq!(parse("ctrl-").unwrap_err(), "ctrl-");
    }

    #[test]
    fn the_keys_are_found_across_pieces_and_nothing_else_is_lost() {
        let mut watch = Watch::new(vec![16, 17]);
        assert_eq!(watch.see(b"ab\x10"), Seen::Input(b"ab".to_vec()));
        assert_eq!(watch.see(b"c\x10"), Seen::Input(b"\x10c".to_vec()));
        assert_eq!(watch.see(b"\x10"), Seen::Input(b"\x10".to_vec()), "the second may begin the keys too");
        assert_eq!(watch.see(b"\x11rest"), Seen::Detach(Vec::new()));
        assert_eq!(Watch::new(vec![16, 17]).see(b"x\x10\x11y"), Seen::Detach(b"x".to_vec()));
    }
}
