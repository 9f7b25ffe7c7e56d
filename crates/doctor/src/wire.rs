//! What one Skep asks another: to send it packets and to say what arrived. Sealed by the gossip that carries it; nothing in
//! it says where to send anything: a peer looks back at the address that the gossip knows the asker by, and at fixed ports.

use std::collections::BTreeSet;

use prost::Message;

use crate::peer::{OverlayView, Reach, Word};

/// Networks whose sums one question carries.
pub const MAX_NETWORKS: usize = 64;
/// Sizes that one answer names.
const MAX_SIZES: usize = 64;
/// Rules that one answer names, and how long each may be.
const MAX_WALLS: usize = 8;
const MAX_WALL_BYTES: usize = 256;
/// The largest size that is believed.
const MAX_SIZE: u32 = 65_535;

/// What a network's entries add up to: see `gossip`.
#[derive(Clone, Eq, Message, PartialEq)]
pub struct NetworkSum {
    /// The network's identifier.
    #[prost(string, tag = "1")]
    pub network: String,
    /// Entries up to this time are in it.
    #[prost(uint64, tag = "2")]
    pub until: u64,
    /// The sum.
    #[prost(fixed64, tag = "3")]
    pub sum: u64,
    /// How many they are.
    #[prost(uint64, tag = "4")]
    pub entries: u64,
}

/// A question: "look back, and tell what arrives".
#[derive(Clone, Eq, Message, PartialEq)]
pub struct Question {
    /// Marks packets that belong to it.
    #[prost(fixed64, tag = "1")]
    pub session: u64,
    /// The network whose tunnel is tried; empty if none is.
    #[prost(string, tag = "2")]
    pub network: String,
    /// Networks whose sums are to be told, with the time that counts.
    #[prost(message, repeated, tag = "3")]
    pub sums: Vec<NetworkSum>,
    /// The asker listens on 2377.
    #[prost(bool, tag = "4")]
    pub is_manager: bool,
    /// Only sums are wanted, at once.
    #[prost(bool, tag = "5")]
    pub only_sums: bool,
}

/// A connection's end on the wire: 0 untried, 1 connected, 2 refused, 3 no answer, 4 unreachable.
#[derive(Clone, Eq, Message, PartialEq)]
pub struct WireReach {
    #[prost(uint32, tag = "1")]
    end: u32,
    #[prost(string, tag = "2")]
    said: String,
}

/// The peer's side of the tunnel.
#[derive(Clone, Eq, Message, PartialEq)]
pub struct WireOverlay {
    #[prost(uint32, tag = "1")]
    mtu: u32,
    #[prost(bool, tag = "2")]
    knows_peer: bool,
    #[prost(uint32, repeated, tag = "3")]
    heard: Vec<u32>,
    #[prost(uint32, repeated, tag = "4")]
    answered: Vec<u32>,
}

/// An answer.
#[derive(Clone, Eq, Message, PartialEq)]
pub struct Answer {
    /// The peer has too many questions.
    #[prost(bool, tag = "1")]
    pub is_busy: bool,
    /// When the question came, in nanoseconds since 1970 by the peer's clock.
    #[prost(int64, tag = "2")]
    pub asked_unix_ns: i64,
    /// When this was sent.
    #[prost(int64, tag = "3")]
    pub answered_unix_ns: i64,
    /// The peer's host name.
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(string, tag = "5")]
    version: String,
    #[prost(message, optional, tag = "6")]
    reach_gossip: Option<WireReach>,
    #[prost(bool, tag = "7")]
    gossip_answered: bool,
    #[prost(message, optional, tag = "8")]
    reach_manager: Option<WireReach>,
    #[prost(uint32, tag = "9")]
    notes_small: u32,
    #[prost(uint32, tag = "10")]
    notes_full: u32,
    #[prost(message, optional, tag = "11")]
    overlay: Option<WireOverlay>,
    #[prost(uint32, tag = "12")]
    link_mtu: u32,
    #[prost(string, repeated, tag = "13")]
    walls: Vec<String>,
    #[prost(uint64, tag = "14")]
    bad_checksums: u64,
    /// The sums that were asked for, of networks that the peer is in.
    #[prost(message, repeated, tag = "15")]
    pub sums: Vec<NetworkSum>,
}

/// A note: it arrives, or it does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Note {
    /// The question that it belongs to.
    pub session: u64,
    /// It fills a packet.
    pub is_full: bool,
}

impl Note {
    /// As bytes.
    pub fn encode(self) -> Vec<u8> {
        [&self.session.to_be_bytes()[..], &[u8::from(self.is_full)]].concat()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (session, rest) = bytes.split_first_chunk::<8>()?;
        Some(Self { session: u64::from_be_bytes(*session), is_full: *rest.first()? != 0 })
    }
}

fn reach_out(reach: &Reach) -> WireReach {
    let (end, said) = match reach {
        Reach::Untried => (0, String::new()),
        Reach::Connected => (1, String::new()),
        Reach::Refused => (2, String::new()),
        Reach::NoAnswer => (3, String::new()),
        Reach::Unreachable(said) => (4, said.clone()),
    };
    WireReach { end, said }
}

fn reach_in(reach: Option<WireReach>) -> Reach {
    let WireReach { end, said } = reach.unwrap_or_default();
    match end {
        1 => Reach::Connected,
        2 => Reach::Refused,
        3 => Reach::NoAnswer,
        4 => Reach::Unreachable(cut(said)),
        _ => Reach::Untried,
    }
}

fn cut(mut text: String) -> String {
    let mut end = MAX_WALL_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn sizes_in(sizes: Vec<u32>) -> BTreeSet<u32> {
    sizes.into_iter().take(MAX_SIZES).filter(|size| *size <= MAX_SIZE).collect()
}

impl Question {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// From bytes; of a peer's networks so many are kept.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut question = Self::decode(bytes).ok()?;
        question.sums.truncate(MAX_NETWORKS);
        Some(question)
    }
}

impl Answer {
    /// What the peer has to say.
    pub fn of(word: &Word) -> Self {
        let overlay = word.overlay.as_ref().map(|it| WireOverlay {
            mtu: it.mtu,
            knows_peer: it.knows_peer,
            heard: it.heard.iter().copied().collect(),
            answered: it.answered.iter().copied().collect(),
        });
        Self {
            version: word.version.clone(),
            reach_gossip: Some(reach_out(&word.reach_gossip)),
            gossip_answered: word.gossip_answered,
            reach_manager: Some(reach_out(&word.reach_manager)),
            notes_small: word.notes_small,
            notes_full: word.notes_full,
            overlay,
            link_mtu: word.link_mtu,
            walls: word.walls.iter().take(MAX_WALLS).cloned().map(cut).collect(),
            bad_checksums: word.bad_checksums,
            ..Self::default()
        }
    }

    /// That there are too many questions.
    pub fn busy() -> Self {
        Self { is_busy: true, ..Self::default() }
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// From bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut answer = Self::decode(bytes).ok()?;
        answer.sums.truncate(MAX_NETWORKS);
        answer.name = cut(answer.name);
        Some(answer)
    }

    /// What it says of the tunnel of `network`, the ports and the rest.
    pub fn into_word(self, network: &str) -> Word {
        let overlay = self.overlay.map(|it| OverlayView {
            network: network.to_owned(),
            mtu: it.mtu.min(MAX_SIZE),
            knows_peer: it.knows_peer,
            heard: sizes_in(it.heard),
            answered: sizes_in(it.answered),
            datagram: None,
        });
        Word {
            version: cut(self.version),
            reach_gossip: reach_in(self.reach_gossip),
            gossip_answered: self.gossip_answered,
            reach_manager: reach_in(self.reach_manager),
            notes_small: self.notes_small,
            notes_full: self.notes_full,
            overlay,
            link_mtu: self.link_mtu.min(MAX_SIZE),
            walls: self.walls.into_iter().take(MAX_WALLS).map(cut).collect(),
            bad_checksums: self.bad_checksums,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_answers_and_notes_come_back() {
        let sum = NetworkSum { network: "net".to_owned(), until: 1, sum: u64::MAX, entries: 2 };
        let question = Question {
            session: 7,
            network: "net".to_owned(),
            sums: vec![sum.clone()],
            is_manager: true,
            only_sums: true,
        };
        assert_eq!(Question::read(&question.to_bytes()), Some(question));
        let overlay = OverlayView {
            network: "net".to_owned(),
            mtu: 1450,
            knows_peer: true,
            heard: [64, 1450].into(),
            answered: [64].into(),
            datagram: None,
        };
        let word = Word {
            version: "1".to_owned(),
            reach_gossip: Reach::Unreachable("no route".to_owned()),
            gossip_answered: true,
            reach_manager: Reach::NoAnswer,
            notes_small: 3,
            notes_full: 2,
            overlay: Some(overlay),
            link_mtu: 1500,
            walls: vec!["rule".to_owned()],
            bad_checksums: 1,
        };
        let answer = Answer { sums: vec![sum], ..Answer::of(&word) };
        let read = Answer::read(&answer.to_bytes()).expect("an answer");
        assert_eq!(read, answer);
        assert_eq!(read.into_word("net"), word);
        for reach in [Reach::Untried, Reach::Connected, Reach::Refused, Reach::NoAnswer] {
            assert_eq!(reach_in(Some(reach_out(&reach))), reach);
        }
        let note = Note { session: 9, is_full: true };
        assert_eq!(Note::decode(&note.encode()), Some(note));
        assert_eq!(Note::decode(&[0; 8]), None);
    }

    #[test]
    fn what_a_peer_says_is_bounded() {
        let many = Word { walls: vec!["ä".repeat(500); 100], ..Word::default() };
        let answer = Answer {
            walls: vec!["ä".repeat(500); 100],
            sums: vec![NetworkSum::default(); 1000],
            name: "n".repeat(1000),
            overlay: Some(WireOverlay { heard: (0..100_000).collect(), mtu: u32::MAX, ..WireOverlay::default() }),
            link_mtu: u32::MAX,
            ..Answer::of(&many)
        };
        let read = Answer::read(&answer.to_bytes()).expect("an answer");
        assert_eq!((read.sums.len(), read.name.len()), (MAX_NETWORKS, MAX_WALL_BYTES));
        let word = read.into_word("");
        assert_eq!((word.walls.len(), word.walls[0].len(), word.link_mtu), (MAX_WALLS, MAX_WALL_BYTES, MAX_SIZE));
        let overlay = word.overlay.expect("a tunnel");
        assert_eq!((overlay.heard.len(), overlay.mtu), (MAX_SIZES, MAX_SIZE));
        for bytes in [&[0xff; 40][..], &[8], &[]] {
            let _ = (Question::read(bytes), Answer::read(bytes), Note::decode(bytes));
        }
    }
}
