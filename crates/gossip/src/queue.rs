//! Messages to spread by gossip. Each is handed out a limited number of times, those that were handed out least often
//! first and among them the largest that fits; a newer message about the same subject takes the place of the older one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// memberlist's multiplier of retransmissions.
const RETRANSMIT_MULTIPLIER: usize = 4;

/// How many times a message is handed out in a cluster of `members`: 4 × ⌈log10(members + 1)⌉.
pub(crate) fn retransmit_limit(members: usize) -> usize {
    let mut digits = 0;
    let mut reach = 1;
    while reach < members + 1 {
        reach *= 10;
        digits += 1;
    }
    RETRANSMIT_MULTIPLIER * digits
}

/// Handed out how often, how large, how new: the order of the queue.
type Place = (usize, Reverse<usize>, Reverse<u64>);

/// The queue; `K` names what a message is about.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    waiting: BTreeMap<Place, (K, Arc<[u8]>)>,
    places: BTreeMap<K, Place>,
    next: u64,
    capacity: usize,
}

impl<K: Ord + Clone> Queue<K> {
    /// A queue of at most `capacity` messages.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { waiting: BTreeMap::new(), places: BTreeMap::new(), next: 0, capacity }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the message about `subject` still waits to be handed out for the last time.
    pub(crate) fn holds(&self, subject: &K) -> bool {
        self.places.contains_key(subject)
    }

    /// Puts in a message; if the queue is full, the one that was handed out most often goes.
    pub(crate) fn push(&mut self, subject: K, message: impl Into<Arc<[u8]>>) {
        self.remove(&subject);
        if self.waiting.len() >= self.capacity
            && let Some((_, (oldest, _))) = self.waiting.pop_last()
        {
            self.places.remove(&oldest);
        }
        let message = message.into();
        self.next += 1;
        self.put((0, Reverse(message.len()), Reverse(self.next)), subject, message);
    }

    /// Takes the message about `subject` out.
    pub(crate) fn remove(&mut self, subject: &K) {
        if let Some(place) = self.places.remove(subject) {
            self.waiting.remove(&place);
        }
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.places.clear();
    }

    fn put(&mut self, place: Place, subject: K, message: Arc<[u8]>) {
        self.places.insert(subject.clone(), place);
        self.waiting.insert(place, (subject, message));
    }

    /// Whether a message was never handed out.
    pub(crate) fn has_fresh(&self) -> bool {
        self.waiting.first_key_value().is_some_and(|(place, _)| place.0 == 0)
    }

    /// Messages that fit into `room` bytes with `overhead` each; each of them has been handed out once more, and is gone
    /// if that was the `limit`th time.
    pub(crate) fn take(&mut self, overhead: usize, room: usize, limit: usize) -> Vec<Arc<[u8]>> {
        self.take_until(overhead, room, limit, limit)
    }

    /// The same of messages that were never handed out.
    pub(crate) fn take_fresh(&mut self, overhead: usize, room: usize, limit: usize) -> Vec<Arc<[u8]>> {
        self.take_until(overhead, room, limit, 0)
    }

    /// Those that were handed out `most` times at most.
    fn take_until(&mut self, overhead: usize, mut room: usize, limit: usize, most: usize) -> Vec<Arc<[u8]>> {
        let mut taken = Vec::new();
        let mut again = Vec::new();
        let mut tier = 0;
        while let Some(free) = room.checked_sub(overhead).filter(|free| *free > 0) {
            let from = (tier, Reverse(free), Reverse(u64::MAX));
            let Some((&place, _)) = self.waiting.range(from..).next().filter(|(place, _)| place.0 <= most) else {
                break;
            };
            if place.0 > tier {
                // Nothing that fits in this tier; in the next one, larger ones come first again.
                tier = place.0;
                if place.1.0 > free {
                    continue;
                }
            }
            let (subject, message) = self.waiting.remove(&place).expect("it was just seen");
            self.places.remove(&subject);
            room -= overhead + message.len();
            taken.push(message.clone());
            if place.0 + 1 < limit {
                again.push(((place.0 + 1, place.1, place.2), subject, message));
            }
        }
        for (place, subject, message) in again {
            self.put(place, subject, message);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_grows_with_the_logarithm_of_the_cluster() {
        let check = |members, limit| assert_eq!(retransmit_limit(members), limit, "{members}");
        check(0, 0);
        check(1, 4);
        check(9, 4);
        check(10, 8);
        check(99, 8);
        check(100, 12);
        check(2000, 16);
    }

    fn sizes(taken: &[Arc<[u8]>]) -> Vec<usize> {
        taken.iter().map(|message| message.len()).collect()
    }

    #[test]
    fn fresh_and_large_ones_go_first_and_each_goes_out_so_often() {
        let mut queue = Queue::new(10);
        queue.push("small", vec![1; 10]);
        queue.push("large", vec![2; 50]);
        assert_eq!(sizes(&queue.take(2, 60, 3)), [50]);
        assert_eq!(sizes(&queue.take(2, 64, 3)), [10, 50]);
        assert_eq!(sizes(&queue.take(2, 11, 3)), []);
        assert_eq!(sizes(&queue.take(2, 12, 3)), [10]);
        assert_eq!(sizes(&queue.take(2, 100, 3)), [50, 10]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_newer_message_takes_the_place_and_the_queue_is_bounded() {
        let mut queue = Queue::new(2);
        queue.push("a", vec![1; 1]);
        assert_eq!(queue.take(0, 10, 5).len(), 1);
        queue.push("b", vec![1; 2]);
        queue.push("b", vec![1; 3]);
        assert_eq!(queue.len(), 2);
        queue.push("c", vec![1; 4]);
        assert_eq!((queue.holds(&"a"), queue.holds(&"b"), queue.holds(&"c")), (false, true, true));
        assert_eq!(sizes(&queue.take(0, 10, 1)), [4, 3]);
        assert!(queue.is_empty() && queue.places.is_empty());
    }
}
