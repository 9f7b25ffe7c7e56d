//! Wakes a node's streams, and only those: the router puts in what a commit changed for the node, the stream takes it out
//! when its connection can take a message. What waits is merged, so a slow node costs no memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::NodeId;
use tokio::sync::Notify;

use super::core::{Dirt, EndReason, Routed};

/// Streams of one node at once; the oldest ends when one more is opened.
const MAX_STREAMS_PER_NODE: usize = 8;

/// Which part of a node's news a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Node, managers, keys, root CA.
    Session,
    /// Tasks, secrets, configs.
    Assignments,
}

/// The mailboxes of all open streams.
#[derive(Default)]
pub(crate) struct Mailboxes {
    by_node: Mutex<BTreeMap<NodeId, Vec<Arc<Mailbox>>>>,
    wakes: AtomicU64,
}

struct Mailbox {
    kind: StreamKind,
    session_id: String,
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    dirt: Dirt,
    over: Option<EndReason>,
}

/// A stream's end of its mailbox; the mailbox goes when this is dropped.
pub(crate) struct Subscription {
    node: NodeId,
    mailbox: Arc<Mailbox>,
    owner: Arc<Mailboxes>,
}

impl Mailboxes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Arc<Mailbox>>>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mailbox for a new stream. Whatever is committed after this call is put in.
    pub(crate) fn open(self: &Arc<Self>, node: &NodeId, session_id: &str, kind: StreamKind) -> Subscription {
        let (inner, wake) = (Mutex::default(), Notify::new());
        let mailbox = Arc::new(Mailbox { kind, session_id: session_id.to_owned(), inner, wake });
        let mut by_node = self.lock();
        let streams = by_node.entry(node.clone()).or_default();
        if streams.len() >= MAX_STREAMS_PER_NODE {
            streams.remove(0).end(EndReason::Disconnect);
        }
        streams.push(mailbox.clone());
        Subscription { node: node.clone(), mailbox, owner: self.clone() }
    }

    /// Puts what a commit changed into the mailboxes of the nodes that it concerns.
    pub(crate) fn deliver(&self, routed: Routed) {
        let by_node = self.lock();
        for (node, dirt) in routed.nodes {
            for mailbox in by_node.get(&node).into_iter().flatten() {
                self.put(mailbox, &dirt);
            }
        }
        if routed.every_session {
            self.put_all(&by_node, &Dirt { session: true, ..Dirt::default() });
        }
    }

    /// Tells every session that the managers' list changed.
    pub(crate) fn wake_sessions(&self) {
        self.put_all(&self.lock(), &Dirt { session: true, ..Dirt::default() });
    }

    /// Events were lost: every stream looks at everything again.
    pub(crate) fn wake_all(&self) {
        self.put_all(&self.lock(), &Dirt { session: true, everything: true, ..Dirt::default() });
    }

    fn put_all(&self, by_node: &BTreeMap<NodeId, Vec<Arc<Mailbox>>>, dirt: &Dirt) {
        for mailbox in by_node.values().flatten() {
            self.put(mailbox, dirt);
        }
    }

    fn put(&self, mailbox: &Mailbox, dirt: &Dirt) {
        let concerns = match mailbox.kind {
            StreamKind::Session => dirt.session,
            StreamKind::Assignments => *dirt != Dirt { session: dirt.session, ..Dirt::default() },
        };
        if concerns {
            mailbox.lock().dirt.merge(dirt.clone());
            mailbox.wake.notify_one();
            self.wakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the streams of a node that are not of the session `kept`.
    pub(crate) fn end(&self, node: &NodeId, kept: Option<&str>, reason: EndReason) {
        let by_node = self.lock();
        let streams = by_node.get(node).into_iter().flatten();
        for mailbox in streams.filter(|mailbox| kept != Some(mailbox.session_id.as_str())) {
            mailbox.end(reason);
        }
    }

    /// Ends all streams.
    pub(crate) fn end_all(&self) {
        for mailbox in self.lock().values().flatten() {
            mailbox.end(EndReason::Disconnect);
        }
    }

    /// How often a stream was woken.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, reason: EndReason) {
        self.lock().over.get_or_insert(reason);
        self.wake.notify_one();
    }
}

impl Subscription {
    /// The node whose stream this is.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// Why the session is over, if it is.
    pub(crate) fn ended(&self) -> Option<EndReason> {
        self.mailbox.lock().over
    }

    /// Waits until there is something to take, or the session is over. Cancel-safe.
    pub(crate) async fn news(&self) -> Result<(), EndReason> {
        loop {
            {
                let inner = self.mailbox.lock();
                if let Some(reason) = inner.over {
                    return Err(reason);
                }
                if !inner.dirt.is_empty() {
                    return Ok(());
                }
            }
            // A permit of `notify_one` is kept until it is taken, and this is its only taker.
            self.mailbox.wake.notified().await;
        }
    }

    /// Takes as much as fits into one message.
    pub(crate) fn take(&self, limit: usize) -> Dirt {
        self.mailbox.lock().dirt.take(limit)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut by_node = self.owner.lock();
        if let Some(streams) = by_node.get_mut(&self.node) {
            streams.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
            if streams.is_empty() {
                by_node.remove(&self.node);
            }
        }
    }
}
