//! The agents: a task of tokio's for each, which keeps a session open until the fleet ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::Credentials;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::session::Session;

/// Sessions that are being opened at a time: as many as the listener lets shake hands, less some.
const OPENING_AT_ONCE: usize = 128;
/// Pause before a session that broke is opened again. A node may register three times in eight seconds.
const RETRY_PAUSE: Duration = Duration::from_secs(3);

/// How the sessions are.
#[derive(Default)]
pub(crate) struct Tally {
    /// Sessions that were opened.
    pub(crate) opened: AtomicU64,
    /// Sessions that broke.
    pub(crate) lost: AtomicU64,
    /// Sessions that could not be opened.
    pub(crate) refused: AtomicU64,
    /// Why one was lost or refused at last.
    pub(crate) last: Mutex<Option<String>>,
}

impl Tally {
    fn failed(&self, counter: &AtomicU64, status: &tonic::Status) {
        counter.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.to_string());
    }
}

/// Starts all agents. They end with the set.
pub(crate) fn start(all: Vec<Credentials>, addrs: &[String], tally: &Arc<Tally>) -> JoinSet<()> {
    let permits = Arc::new(Semaphore::new(OPENING_AT_ONCE));
    let mut agents = JoinSet::new();
    for (number, credentials) in all.into_iter().enumerate() {
        let addr = addrs[number % addrs.len()].clone();
        agents.spawn(keep(credentials, addr, format!("agent-{number:05}"), tally.clone(), permits.clone()));
    }
    agents
}

async fn keep(credentials: Credentials, addr: String, hostname: String, tally: Arc<Tally>, permits: Arc<Semaphore>) {
    loop {
        let Ok(permit) = permits.acquire().await else { return };
        let session = Session::open(&addr, &credentials, hostname.clone()).await;
        drop(permit);
        match session {
            Ok(session) => {
                tally.opened.fetch_add(1, Ordering::Relaxed);
                tally.failed(&tally.lost, &session.serve().await);
            }
            Err(status) => tally.failed(&tally.refused, &status),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
