//! A bounded number of places, shared fairly among those who want them: who has many gives way to who has few, so that
//! one, or a few, cannot keep the others out. For callers that are known by nothing else it is their addresses that share.
//!
//! ```text
//!   a place is free ─────────────────────────────────────────────► taken
//!   none, and another sharer has more than ours would have ──────► its oldest one is given up
//!   none, and ours has as many as any: the oldest of those ──────► given up if it had its time, else there is no place
//!   ours has as many as one may have ────────────────────────────► its oldest one is given up
//! ```

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// The places, and who has them. Clones share them.
#[derive(Debug)]
pub struct Places<K: Ord> {
    table: Arc<Mutex<Table<K>>>,
    freed: Arc<Notify>,
}

/// One taken place. Dropping it makes it free.
#[derive(Debug)]
pub struct Place<K: Ord> {
    places: Places<K>,
    sharer: K,
    number: u64,
    /// Ends when the place was given to somebody else.
    lost: oneshot::Receiver<()>,
}

/// No place now; there will be one at this time at the latest, for whoever asks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// When the oldest of who has the most has had its time.
    pub until: Instant,
}

#[derive(Debug)]
struct Table<K> {
    limit: usize,
    limit_each: usize,
    /// How long nobody loses a place to one who has as many.
    patience: Duration,
    taken: usize,
    next_number: u64,
    /// Each one's by number, so the first is the oldest. Nobody without a place is in it.
    sharers: BTreeMap<K, BTreeMap<u64, Taken>>,
}

#[derive(Debug)]
struct Taken {
    since: Instant,
    /// Dropped to tell.
    _keep: oneshot::Sender<()>,
}

impl<K: Ord> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), freed: self.freed.clone() }
    }
}

impl<K: Ord> Places<K> {
    fn lock(&self) -> MutexGuard<'_, Table<K>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone> Places<K> {
    /// So many places, one at least. For the time of the patience, nobody loses a place to one who has as many.
    pub fn new(limit: usize, patience: Duration) -> Self {
        let table = Table {
            limit: limit.max(1),
            limit_each: usize::MAX,
            patience,
            taken: 0,
            next_number: 0,
            sharers: BTreeMap::new(),
        };
        Self { table: Arc::new(Mutex::new(table)), freed: Arc::default() }
    }

    /// Places without end of which each sharer may have so many, one at least.
    pub fn for_each(limit: usize) -> Self {
        let places = Self::new(usize::MAX, Duration::ZERO);
        places.lock().limit_each = limit.max(1);
        places
    }

    /// A place, if there is one now.
    pub fn try_take(&self, sharer: K) -> Result<Place<K>, Full> {
        let (number, lost) = self.lock().seat(&sharer, Instant::now())?;
        Ok(Place { places: self.clone(), sharer, number, lost })
    }

    /// Waits for a place, no longer than the patience with who has the most. For one waiter at a time.
    pub async fn take(&self, sharer: K) -> Place<K> {
        loop {
            match self.try_take(sharer.clone()) {
                Ok(place) => return place,
                // A permit of `notify_one` is kept: a place that becomes free before this is not missed.
                Err(Full { until }) => drop(tokio::time::timeout_at(until, self.freed.notified()).await),
            }
        }
    }
}

impl<K: Ord> Place<K> {
    /// Ready when the place was given to somebody else.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.lost).poll(cx).map(drop)
    }

    /// Waits until the place is given to somebody else. Cancel-safe.
    pub async fn lost(&mut self) {
        std::future::poll_fn(|cx| self.poll_lost(cx)).await;
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        if self.places.lock().remove(&self.sharer, self.number) {
            self.places.freed.notify_one();
        }
    }
}

impl<K: Ord> Table<K> {
    fn seat(&mut self, sharer: &K, now: Instant) -> Result<(u64, oneshot::Receiver<()>), Full>
    where
        K: Clone,
    {
        let ours = self.sharers.get(sharer);
        if let Some((oldest, _)) = ours.filter(|ours| ours.len() >= self.limit_each).and_then(BTreeMap::first_key_value)
        {
            let oldest = *oldest;
            self.remove(sharer, oldest);
        }
        if self.taken >= self.limit {
            self.make_room(sharer, now)?;
        }
        let (keep, lost) = oneshot::channel();
        let number = self.next_number;
        self.next_number += 1;
        self.taken += 1;
        self.sharers.entry(sharer.clone()).or_default().insert(number, Taken { since: now, _keep: keep });
        Ok((number, lost))
    }

    fn make_room(&mut self, sharer: &K, now: Instant) -> Result<(), Full>
    where
        K: Clone,
    {
        let oldest = |places: &BTreeMap<u64, Taken>| places.first_key_value().map(|(number, _)| *number);
        let crowd = self.sharers.iter().max_by_key(|(_, places)| (places.len(), Reverse(oldest(places))));
        // Never empty: the limit is one at least.
        let Some((crowd, places)) = crowd else { return Ok(()) };
        let Some((number, first)) = places.first_key_value() else { return Ok(()) };
        let ours = self.sharers.get(sharer).map_or(0, BTreeMap::len);
        let until = first.since + self.patience;
        if ours + 1 >= places.len() && now < until {
            return Err(Full { until });
        }
        let (crowd, number) = (crowd.clone(), *number);
        self.remove(&crowd, number);
        Ok(())
    }

    /// Whether it was still there.
    fn remove(&mut self, sharer: &K, number: u64) -> bool {
        let Some(places) = self.sharers.get_mut(sharer) else { return false };
        let was_there = places.remove(&number).is_some();
        if places.is_empty() {
            self.sharers.remove(sharer);
        }
        self.taken -= usize::from(was_there);
        was_there
    }
}

/// What one host has to itself of the addresses there are: an IPv4 address, an IPv6 /64.
pub fn host_of(caller: IpAddr) -> IpAddr {
    match caller.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_lost(place: &mut Place<IpAddr>) -> bool {
        place.poll_lost(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_many_places_gives_way_to_who_has_few() {
        let places = Places::new(4, PATIENCE);
        let mut crowd: Vec<_> = (0..4).map(|_| places.try_take(from("10.0.0.1")).unwrap()).collect();
        let mut one = places.try_take(from("10.0.0.2")).unwrap();
        assert!(is_lost(&mut crowd[0]), "the oldest");
        // They wait for their own.
        let until = Instant::now() + PATIENCE;
        assert_eq!(places.try_take(from("10.0.0.1")).unwrap_err(), Full { until });
        let _two = places.try_take(from("10.0.0.3")).unwrap();
        assert!(is_lost(&mut crowd[1]) && !is_lost(&mut crowd[2]));
        let _three = places.try_take(from("10.0.0.4")).unwrap();
        assert!(is_lost(&mut crowd[2]) && !is_lost(&mut crowd[3]));
        assert_eq!(places.try_take(from("10.0.0.5")).unwrap_err(), Full { until }, "all have as many as it would");
        assert!(!is_lost(&mut one) && !is_lost(&mut crowd[3]));
        assert_eq!(places.lock().taken, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_time_the_oldest_of_a_crowd_goes() {
        let places = Places::new(2, PATIENCE);
        let mut first = places.try_take(from("10.0.0.1")).unwrap();
        tokio::time::advance(PATIENCE / 2).await;
        let mut second = places.try_take(from("10.0.0.1")).unwrap();
        let before = Instant::now();
        let _third = places.take(from("10.0.0.1")).await;
        assert_eq!(before.elapsed(), PATIENCE / 2);
        assert!(is_lost(&mut first) && !is_lost(&mut second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_place_is_taken_at_once() {
        let places = Places::new(1, PATIENCE);
        let first = places.try_take(from("10.0.0.1")).unwrap();
        let before = Instant::now();
        let (_second, ()) = tokio::join!(places.take(from("10.0.0.2")), async { drop(first) });
        assert_eq!(before.elapsed(), Duration::ZERO);
        let table = places.lock();
        assert_eq!((table.taken, table.sharers.len()), (1, 1));
    }

    #[test]
    fn who_may_have_so_many_loses_its_oldest() {
        let places = Places::for_each(2);
        let [mut first, mut second, mut third] = [(); 3].map(|()| places.try_take(from("10.0.0.1")).unwrap());
        let mut other = places.try_take(from("10.0.0.2")).unwrap();
        assert_eq!([&mut first, &mut second, &mut third, &mut other].map(is_lost), [true, false, false, false]);
    }

    #[test]
    fn a_host_is_an_address_or_half_of_one() {
        let check = |caller, expected| assert_eq!(host_of(from(caller)), from(expected));
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
