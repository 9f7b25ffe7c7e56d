//! The metrics of `--metrics-addr`. Nothing is kept for them: what engine, node, manager, gossip and kernel say anyway is
//! gathered when somebody asks, by one at a time.
//!
//! ```text
//!   GET /metrics ─► api::MetricsListener ─► Metrics::text ─► gather ─► Samples ─► Prometheus' text
//! ```

mod families;
mod gather;
mod process;
mod samples;

use std::sync::Arc;

use async_trait::async_trait;
use docker_types::system::Info;
use engine::Engine;
use gossip_io::Handle;
use net::Net;
use node::SwarmNode;
use tokio::sync::{Mutex, watch};

use samples::Samples;

/// Who gathers them.
pub(crate) struct Metrics {
    engine: Engine,
    net: Net,
    node: Arc<SwarmNode>,
    gossip: watch::Receiver<Option<Handle>>,
    facts: Facts,
    /// One gathers at a time: whoever asks much takes turns with others.
    turn: Mutex<()>,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    version: String,
    commit: String,
    daemon_id: String,
    host: Info,
}

impl Facts {
    /// Looks at the machine.
    pub(crate) fn read(about: &api::About, daemon_id: &str) -> Self {
        let mut host = Info::default();
        api::fill_host_facts(&mut host);
        Self {
            version: about.engine_version.clone(),
            commit: about.git_commit.clone(),
            daemon_id: daemon_id.to_owned(),
            host,
        }
    }
}

impl Metrics {
    pub(crate) fn new(
        engine: Engine,
        net: Net,
        node: Arc<SwarmNode>,
        gossip: watch::Receiver<Option<Handle>>,
        facts: Facts,
    ) -> Self {
        Self { engine, net, node, gossip, facts, turn: Mutex::new(()) }
    }
}

#[async_trait]
impl api::MetricsSource for Metrics {
    async fn text(&self) -> String {
        let _turn = self.turn.lock().await;
        let mut samples = Samples::default();
        gather::engine(&mut samples, &self.facts, self.engine.counts(), self.engine.tallies());
        gather::node(&mut samples, &self.node.info());
        let standing = self.node.manager().map(|manager| gather::Standing::of(&manager));
        gather::manager(&mut samples, standing.as_ref());
        // Not across the question: the watch's lock is held as long as what is borrowed.
        let handle = self.gossip.borrow().clone();
        if let Some(handle) = handle {
            gather::gossip(&mut samples, &handle).await;
        }
        let net = self.net.clone();
        // Small files of /proc, and a thread in another namespace.
        let looked = tokio::task::spawn_blocking(move || {
            process::gather(&mut samples);
            gather::conntracks(&mut samples, &net.conntracks());
            samples
        });
        looked.await.map(Samples::text).unwrap_or_default()
    }
}
