//! The bus of events: a history of the last 256, and subscribers that see every event after it without a gap.
//!
//! A subscriber that lags more than [`CHANNEL_EVENTS`] behind loses the oldest ones, as with dockerd.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use docker_types::event::{Actor, EventMessage};
use tokio::sync::broadcast;

use crate::clock::{Clock, seconds_of};

/// Events kept for `since`.
pub const HISTORY_EVENTS: usize = 256;
/// Events a subscriber may lag behind.
const CHANNEL_EVENTS: usize = 1024;

#[derive(Debug)]
pub(crate) struct EventBus {
    history: Mutex<VecDeque<Arc<EventMessage>>>,
    live: broadcast::Sender<Arc<EventMessage>>,
    /// Events told so far.
    told: AtomicU64,
}

impl Default for EventBus {
    fn default() -> Self {
        Self { history: Mutex::default(), live: broadcast::channel(CHANNEL_EVENTS).0, told: AtomicU64::new(0) }
    }
}

impl EventBus {
    /// Tells everybody. An event without a time happens now; one without a scope is local.
    pub(crate) fn publish(&self, mut event: EventMessage) {
        if event.scope.is_empty() {
            "local".clone_into(&mut event.scope);
        }
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if event.time_nano == 0 {
            event.time_nano = Clock::now_ns();
        }
        event.time = seconds_of(event.time_nano);
        let event = Arc::new(event);
        if history.len() == HISTORY_EVENTS {
            history.pop_front();
        }
        history.push_back(event.clone());
        // under the lock, so that a new subscriber sees each event once; nobody listening is no failure
        let _ = self.live.send(event);
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// How many events were told, and how many listen now.
    pub(crate) fn tally(&self) -> (u64, usize) {
        (self.told.load(Ordering::Relaxed), self.live.receiver_count())
    }

    pub(crate) fn log(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let mut event = EventMessage {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            ..EventMessage::default()
        };
        if kind == "container" || kind == "image" {
            event.status = action.to_owned();
            event.id = id.to_owned();
        }
        if kind == "container" {
            event.from = event.actor.attributes.get("image").cloned().unwrap_or_default();
        }
        self.publish(event);
    }

    /// What happened from `since_ns` on (`None`: nothing), then what happens until `until_ns`.
    pub(crate) fn subscribe(&self, since_ns: Option<i64>, until_ns: Option<i64>) -> EventStream {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let past = match since_ns {
            Some(since) => history.iter().filter(|event| event.time_nano >= since).cloned().collect(),
            None => VecDeque::new(),
        };
        EventStream { past, live: self.live.subscribe(), until_ns }
    }
}

/// Events in their order.
#[derive(Debug)]
pub struct EventStream {
    past: VecDeque<Arc<EventMessage>>,
    live: broadcast::Receiver<Arc<EventMessage>>,
    until_ns: Option<i64>,
}

impl EventStream {
    /// The next event; `None` when there will be no more. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<EventMessage>> {
        let event = match self.past.pop_front() {
            Some(event) => event,
            None => self.next_live().await?,
        };
        self.until_ns.is_none_or(|until| event.time_nano <= until).then_some(event)
    }

    async fn next_live(&mut self) -> Option<Arc<EventMessage>> {
        let deadline = match self.until_ns {
            Some(until) => {
                // what has been told already comes even if the time is over
                let left = u64::try_from(until.saturating_sub(Clock::now_ns())).unwrap_or(0);
                Some(tokio::time::Instant::now() + std::time::Duration::from_nanos(left))
            }
            None => None,
        };
        loop {
            let received = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, self.live.recv()).await.ok()?,
                None => self.live.recv().await,
            };
            match received {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, time_nano: i64) -> EventMessage {
        EventMessage { kind: "volume".into(), action: action.into(), time_nano, ..EventMessage::default() }
    }

    #[tokio::test]
    async fn history_comes_first_and_nothing_twice() {
        let bus = EventBus::default();
        for time in 1..=300 {
            bus.publish(event(&time.to_string(), time));
        }
        let mut stream = bus.subscribe(Some(0), Some(301));
        bus.publish(event("301", 301));
        bus.publish(event("302", 302));
        for expected in 45..=301 {
            assert_eq!(stream.next().await.unwrap().action, expected.to_string());
        }
        assert!(stream.next().await.is_none(), "302 is after until");
        assert_eq!(bus.tally(), (302, 1));
        drop(stream);
        assert_eq!(bus.tally(), (302, 0));
    }

    #[tokio::test]
    async fn without_since_there_is_no_history() {
        let bus = EventBus::default();
        bus.publish(event("old", 1));
        let mut stream = bus.subscribe(None, None);
        bus.log("container", "start", "c", [("image".to_owned(), "i".to_owned())].into());
        let event = stream.next().await.unwrap();
        assert_eq!((event.action.as_str(), event.status.as_str(), event.from.as_str()), ("start", "start", "i"));
        assert!(event.time > 0 && event.scope == "local");
    }
}
