//! `skep doctor`: looks at this machine and at what passes between it and its peers, and answers peers that look.
//!
//! ```text
//!   GET /skep/doctor ─► gather: machine, node, peers ─► exam of each peer ─► doctor::judge ─► report
//!                                                         │ pings, connections
//!                                                         │ question over the gossip ──► the peer's `answer`
//!                                                         ▼                                │
//!                                              session: notes and echoes both ways ◄───────┘
//! ```
//!
//! Whatever is sent is harmless and bounded: small packets, at the addresses that the swarm itself uses.

mod answer;
mod clock;
mod exam;
mod gather;
mod places;
mod reach;
mod session;
mod visits;

use std::sync::Arc;

use doctor::{Finding, Level, Observations, Own, Peer, Report};
use gossip_io::Handle;
use net::Net;
use node::SwarmNode;
use tokio::sync::{Mutex, watch};

use crate::errors::chain;
use crate::overlay::Exchange;
use visits::Tallies;

/// Peers that one run looks at.
const MAX_PEERS: usize = 128;
/// Of these, at once.
const AT_ONCE: usize = 16;

/// The doctor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Doctor(Arc<Shared>);

struct Shared {
    net: Net,
    exchange: Exchange,
    gossip: watch::Receiver<Option<Handle>>,
    node: Arc<SwarmNode>,
    own: Own,
    tallies: Tallies,
    /// One run at a time: two would count each other's packets.
    turn: Mutex<()>,
}

impl Doctor {
    /// One that answers peers from now on.
    pub(crate) fn new(
        net: Net,
        exchange: Exchange,
        gossip: watch::Receiver<Option<Handle>>,
        node: Arc<SwarmNode>,
        own: Own,
    ) -> Self {
        let (tallies, turn) = (Tallies::default(), Mutex::new(()));
        let doctor = Self(Arc::new(Shared { net, exchange, gossip, node, own, tallies, turn }));
        tokio::spawn(visits::run(doctor.clone()));
        doctor
    }

    fn handle(&self) -> Option<Handle> {
        self.0.gossip.borrow().clone()
    }

    async fn observe(&self) -> Result<Observations, net::NetError> {
        let node = gather::node(self).await;
        let mut host = net::survey(self.0.own.clone(), node.data_path_port).await?;
        host.conntracks.extend(self.0.net.mesh_conntrack());
        let mut seen = Observations { host, node: Some(node), ..Observations::default() };
        let (members, strangers) = gather::candidates(self).await;
        let context = exam::Context::new(self, &seen).await;
        let count = members.len();
        seen.peers = self.examine(&context, members.into_iter().take(MAX_PEERS).collect()).await;
        // A node of several addresses is known to the managers by another one than to the gossip.
        let names: Vec<_> = seen.peers.iter().map(|peer| peer.name.as_str()).filter(|name| !name.is_empty()).collect();
        let strangers: Vec<_> = strangers.into_iter().filter(|it| !names.contains(&it.name.as_str())).collect();
        let room = MAX_PEERS.saturating_sub(count);
        seen.peers_left_out = count.saturating_sub(MAX_PEERS) + strangers.len().saturating_sub(room);
        let strangers = self.examine(&context, strangers.into_iter().take(room).collect()).await;
        seen.peers.extend(strangers);
        Ok(seen)
    }
}

impl Doctor {
    /// Looks at peers, some at once.
    async fn examine(&self, context: &exam::Context, candidates: Vec<gather::Candidate>) -> Vec<Peer> {
        let mut found = Vec::new();
        for some in candidates.chunks(AT_ONCE) {
            let mut exams = Vec::new();
            for candidate in some {
                exams.push(exam::examine(self, context, candidate));
            }
            found.extend(futures::future::join_all(exams).await);
        }
        found
    }
}

#[async_trait::async_trait]
impl api::Checkup for Doctor {
    async fn report(&self) -> Report {
        let _turn = self.0.turn.lock().await;
        match self.observe().await {
            Ok(seen) => doctor::judge(&seen),
            Err(error) => {
                let mut report = doctor::judge(&Observations::default());
                let what = format!("this machine could not be looked at: {}", chain(&error));
                report.add(Finding::new(Level::Unknown, doctor::Check::Kernel, what));
                report
            }
        }
    }
}
