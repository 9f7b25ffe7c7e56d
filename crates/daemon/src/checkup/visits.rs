//! What other members' doctors send: their questions, and notes that are counted for whoever waits for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use doctor::wire::Note;
use gossip::Name;
use gossip_io::{Handle, Visit};
use tokio::sync::Semaphore;

use super::{Doctor, answer};

/// Questions that are answered at once; others are told to be busy.
const MAX_ANSWERS: usize = 4;
/// Notes of one session that are counted.
const MAX_NOTES: u32 = 1000;

/// Notes of a session that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) small: u32,
    pub(super) full: u32,
}

/// Sessions that wait for notes, by member and number. There are as many as exams and answers at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies(Arc<Mutex<BTreeMap<(Name, u64), Tally>>>);

/// Counts until it is dropped.
pub(super) struct Counting {
    tallies: Tallies,
    key: (Name, u64),
}

impl Tallies {
    /// Begins to count notes of a session.
    pub(super) fn begin(&self, member: &Name, session: u64) -> Counting {
        let key = (member.clone(), session);
        self.change(|tallies| tallies.insert(key.clone(), Tally::default()));
        Counting { tallies: self.clone(), key }
    }

    fn note(&self, from: Name, note: Note) {
        self.change(|tallies| {
            // A note that nobody waits for is no use, and not kept.
            let Some(tally) = tallies.get_mut(&(from, note.session)) else { return };
            let count = if note.is_full { &mut tally.full } else { &mut tally.small };
            *count = (*count + 1).min(MAX_NOTES);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<(Name, u64), Tally>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counting {
    /// What came so far.
    pub(super) fn tally(&self) -> Tally {
        self.tallies.change(|tallies| tallies.get(&self.key).copied().unwrap_or_default())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.tallies.change(|tallies| tallies.remove(&self.key));
    }
}

/// Takes visits for as long as the daemon runs; to be spawned.
pub(super) async fn run(doctor: Doctor) {
    let mut handles = doctor.0.gossip.clone();
    let answers = Arc::new(Semaphore::new(MAX_ANSWERS));
    loop {
        let handle = handles.borrow_and_update().clone();
        if let Some(handle) = handle {
            tokio::select! {
                // What comes while there is no gossip is nothing.
                () = follow(&doctor, &handle, &answers) => {}
                _ = handles.changed() => continue,
            }
        }
        if handles.changed().await.is_err() {
            return;
        }
    }
}

/// Until the gossip ends.
async fn follow(doctor: &Doctor, handle: &Handle, answers: &Arc<Semaphore>) {
    let Ok(mut visits) = handle.visits().await else { return };
    while let Some(visit) = visits.next().await {
        match visit {
            Visit::Note { from, bytes, .. } => {
                if let Some(note) = Note::decode(&bytes) {
                    doctor.0.tallies.note(from, note);
                }
            }
            Visit::Question(question) => {
                let place = answers.clone().try_acquire_owned().ok();
                // Ends by itself: all that it waits for has a time.
                tokio::spawn(answer::answer(doctor.clone(), handle.clone(), question, place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_counted_for_who_waits() {
        let tallies = Tallies::default();
        let (a, b) = (Name::from("a"), Name::from("b"));
        let note = |session, is_full| Note { session, is_full };
        tallies.note(a.clone(), note(1, false));
        let counting = tallies.begin(&a, 1);
        for _ in 0..3 {
            tallies.note(a.clone(), note(1, false));
        }
        tallies.note(a.clone(), note(1, true));
        tallies.note(a.clone(), note(2, true));
        tallies.note(b, note(1, true));
        assert_eq!(counting.tally(), Tally { small: 3, full: 1 });
        for _ in 0..2 * MAX_NOTES {
            tallies.note(a.clone(), note(1, true));
        }
        assert_eq!(counting.tally().full, MAX_NOTES);
        drop(counting);
        assert!(tallies.0.lock().expect("not poisoned").is_empty());
    }
}
