//! The leader's loop: begins and ends leaderships as raft says, and while this manager leads plans on the speculative
//! view whenever something changed or a deadline came.
//!
//! ```text
//!  follower ──raft: leading──► first writes ──► plan ◄──► wait for a change, a deadline, a commit ──raft: not leading──► follower
//! ```

use std::sync::Arc;
use std::time::Duration;

use consensus::Status;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::{Node, NodeId, NodeState, Timestamp};
use orchestration::leader::Leader;
use store::{StoreError, Transaction, View};
use tokio::sync::watch;

use crate::dispatcher::Dispatcher;
use crate::duties::Duties;
use crate::error::ControlError;
use crate::founding::Founding;
use crate::writer::{MAX_ACTIONS, Writer, now};

/// What nodes that are not down become when a new leader starts.
const UNKNOWN_MESSAGE: &str = "Node moved to \"unknown\" state due to leadership change in cluster";

/// What the loop works with.
pub(crate) struct LeaderLoop {
    pub(crate) writer: Arc<Writer>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) status: watch::Receiver<Status>,
    /// The other loops of a leader.
    pub(crate) duties: Duties,
    /// What to write into an empty store.
    pub(crate) founding: Option<Founding>,
    /// Says that this manager leads and its first writes are committed.
    pub(crate) ready: watch::Sender<bool>,
}

impl LeaderLoop {
    /// Runs until raft ends.
    pub(crate) async fn run(mut self) {
        loop {
            let Ok(term) = self.status.wait_for(|status| status.leading).await.map(|status| status.term) else {
                return;
            };
            match self.lead(term).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "leadership ended"),
            }
            self.ready.send_replace(false);
            self.writer.end();
            self.dispatcher.end();
            // A failed write without a change of raft's state must not turn this into a busy loop.
            if self.status.borrow().leading {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn lead(&mut self, term: u64) -> Result<(), ControlError> {
        self.writer.begin(term).await?;
        self.first_writes().await?;
        self.dispatcher.begin();
        self.ready.send_replace(true);
        tracing::info!("this manager leads");
        // Ends with the leadership.
        let _duties = self.duties.start();
        // Not the same identifiers again at the next leadership.
        let mut planner = Leader::new(u64::from_le_bytes(identity::random_bytes()));
        planner.rebuild(&self.writer.shared().view());
        let mut under_way = FuturesUnordered::new();
        loop {
            let planned = self.writer.plan(|view, events| {
                let plan = planner.step(view, &events, now());
                for reason in &plan.reasons {
                    tracing::debug!(object = ?reason.object, text = reason.text, "not done yet");
                }
                if plan.rounds_exceeded {
                    tracing::error!("planning came to no end; it goes on a second later");
                }
                (plan.batches, plan.deadline)
            });
            let (pending, deadline) = planned.await?;
            let writer = self.writer.clone();
            under_way.extend(pending.into_iter().map(|pending| settle(writer.clone(), pending)));
            loop {
                tokio::select! {
                    // A permit of `notify_one` is kept until it is taken.
                    () = self.writer.changed() => break,
                    // Made anew each turn.
                    () = until(deadline) => break,
                    // What is not taken stays in the set.
                    Some(settled) = under_way.next() => settled?,
                    // Level-triggered: a missed change is seen at the next turn. Leadership may have been lost and won
                    // again since, and others have written in between.
                    lost = self.status.wait_for(|status| !status.leading || status.term != term) => {
                        return if lost.is_ok() { Ok(()) } else { Err(ControlError::lost_leadership()) };
                    }
                }
            }
        }
    }

    /// An empty store gets the founder's objects; nodes must be heard of anew.
    async fn first_writes(&mut self) -> Result<(), ControlError> {
        if self.writer.shared().view().the_cluster().is_none() {
            let Some(founding) = &self.founding else {
                return Err(ControlError::precondition("the store holds no cluster"));
            };
            self.writer.write(|transaction| founding.write(transaction).map_err(ControlError::from)).await?;
        }
        let known = heard_of(&self.writer.shared().view());
        for ids in known.chunks(MAX_ACTIONS) {
            let written = self.writer.write(|transaction| write_unknown(transaction, ids).map_err(ControlError::from));
            written.await?;
        }
        Ok(())
    }
}

/// The nodes that a new leader must hear of anew.
pub fn heard_of(view: &View) -> Vec<NodeId> {
    view.nodes().filter(|node| is_heard_of(node)).map(|node| node.id.clone()).collect()
}

/// A new leader does not know whether these nodes are there.
pub fn write_unknown(transaction: &mut Transaction, nodes: &[NodeId]) -> Result<(), StoreError> {
    for id in nodes {
        let Some(node) = transaction.node(id).filter(|node| is_heard_of(node)) else { continue };
        let mut node = Node::clone(node);
        node.status.state = NodeState::Unknown;
        node.status.message = UNKNOWN_MESSAGE.to_owned();
        transaction.update(node)?;
    }
    Ok(())
}

fn is_heard_of(node: &Node) -> bool {
    !matches!(node.status.state, NodeState::Down | NodeState::Unknown)
}

async fn settle(writer: Arc<Writer>, pending: crate::writer::Pending) -> Result<(), ControlError> {
    writer.settle(pending).await
}

/// Waits until a wall-clock time; for ever without one. The planner asks again after each wake-up, so a clock that was set
/// back costs at the most a minute.
async fn until(deadline: Option<Timestamp>) {
    const LONGEST: Duration = Duration::from_secs(60);
    let Some(deadline) = deadline else { return std::future::pending().await };
    let left = deadline.unix_nanos().saturating_sub(now().unix_nanos());
    tokio::time::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(0)).min(LONGEST)).await;
}
