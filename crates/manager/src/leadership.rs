//! Where the leader is: here, behind a connection, or nowhere yet. Callers wake on the election. One connection, to the
//! present leader, is kept and shared by all calls.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use consensus::Status as RaftStatus;
use identity::{Credentials, ServerRole};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::health_client::HealthClient;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;
use tonic::transport::Channel;

use crate::error::ControlError;

/// How long the group may be without a leader before calls fail: SwarmKit's ten ticks. Counted from the leader's loss,
/// so that later calls fail at once.
pub(crate) const LEADERLESS_LIMIT: Duration = Duration::from_secs(10);
/// How long a manager may take to say that it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two questions to a leader whose connection broke.
const HEALTH_PAUSE: Duration = Duration::from_millis(500);

/// Who answers for the group.
#[derive(Clone, Debug)]
pub(crate) enum Leader {
    /// This manager, and its first writes are committed.
    Here,
    /// Another one.
    There(Remote),
}

/// Another manager that leads.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Which leadership this is.
    pub(crate) leadership: LeadershipId,
    /// The way to it; dials when it is first used, and anew when it breaks.
    pub(crate) channel: Channel,
}

/// One manager's leadership in one term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeadershipId {
    pub(crate) raft_id: u64,
    pub(crate) term: u64,
    pub(crate) addr: String,
}

/// Finds the leader.
pub(crate) struct Leadership {
    status: watch::Receiver<RaftStatus>,
    /// This manager leads and its first writes are committed.
    ready: watch::Receiver<bool>,
    /// Since when nobody leads; kept by [`run_clock`].
    leaderless_since: watch::Receiver<Option<Instant>>,
    credentials: Credentials,
    connection: Mutex<Option<(String, Channel)>>,
}

/// Keeps the time since which nobody leads. Runs until raft ends.
pub(crate) async fn run_clock(mut status: watch::Receiver<RaftStatus>, since: watch::Sender<Option<Instant>>) {
    loop {
        let is_led = status.borrow_and_update().leader != 0;
        since.send_if_modified(|since| {
            let changed = is_led == since.is_some();
            if changed {
                *since = (!is_led).then(Instant::now);
            }
            changed
        });
        if status.changed().await.is_err() {
            return;
        }
    }
}

impl Leadership {
    pub(crate) fn new(
        status: watch::Receiver<RaftStatus>,
        ready: watch::Receiver<bool>,
        leaderless_since: watch::Receiver<Option<Instant>>,
        credentials: Credentials,
    ) -> Self {
        Self { status, ready, leaderless_since, credentials, connection: Mutex::new(None) }
    }

    /// Whether this manager leads and its first writes are committed.
    pub(crate) fn is_here(&self) -> bool {
        *self.ready.borrow()
    }

    /// What calls fail with at present: nobody has led for longer than they wait.
    pub(crate) fn missing(&self) -> Option<ControlError> {
        let is_over = |since: &Instant| since.elapsed() >= LEADERLESS_LIMIT;
        self.leaderless_since.borrow().as_ref().is_some_and(is_over).then(ControlError::no_leader)
    }

    /// The leader; waits for one as long as [`LEADERLESS_LIMIT`] allows.
    pub(crate) async fn find(&self) -> Result<Leader, Status> {
        let (mut status, mut ready) = (self.status.clone(), self.ready.clone());
        let started = Instant::now();
        loop {
            if *ready.borrow_and_update() {
                return Ok(Leader::Here);
            }
            if let Some(remote) = self.remote(&status.borrow_and_update())? {
                return Ok(Leader::There(remote));
            }
            let since = self.leaderless_since.borrow().unwrap_or(started);
            tokio::select! {
                // Both keep what was not seen yet.
                changed = status.changed() => changed.map_err(|_| stopped())?,
                changed = ready.changed() => changed.map_err(|_| stopped())?,
                // A deadline, not a duration.
                () = sleep_until(since + LEADERLESS_LIMIT) => return Err(ControlError::no_leader().into()),
            }
        }
    }

    /// The leader after a connection to `lost` broke: another one, or the same once it says that it is well.
    pub(crate) async fn find_again(&self, lost: &LeadershipId) -> Result<Leader, Status> {
        let deadline = Instant::now() + LEADERLESS_LIMIT;
        loop {
            match self.find().await? {
                Leader::There(remote) if remote.leadership == *lost && !is_well(&remote.channel).await => {
                    let mut status = self.status.clone();
                    status.mark_unchanged();
                    // Either ends the pause; an election is not waited for longer than it lasts.
                    if let Ok(Err(_)) = timeout(HEALTH_PAUSE, status.changed()).await {
                        return Err(stopped());
                    }
                }
                leader => return Ok(leader),
            }
            if Instant::now() >= deadline {
                return Err(ControlError::no_leader().into());
            }
        }
    }

    /// Ready when `leadership` is over, as far as this manager knows. Cancel-safe.
    pub(crate) async fn over(&self, leadership: &LeadershipId) {
        let mut status = self.status.clone();
        let is_over = |status: &RaftStatus| status.leader != leadership.raft_id || status.term != leadership.term;
        // Raft's end is an end, too.
        status.wait_for(is_over).await.ok();
    }

    fn remote(&self, status: &RaftStatus) -> Result<Option<Remote>, Status> {
        if status.removed_from_group || status.failed.is_some() {
            return Err(Status::unavailable("this manager takes no part in the raft group"));
        }
        if status.leader == 0 || status.leader == status.raft_id {
            return Ok(None);
        }
        let Some(member) = status.members.get(&status.leader) else { return Ok(None) };
        let channel = self.channel(&member.addr)?;
        let leadership = LeadershipId { raft_id: status.leader, term: status.term, addr: member.addr.clone() };
        Ok(Some(Remote { leadership, channel }))
    }

    fn channel(&self, addr: &str) -> Result<Channel, Status> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, channel)) = held.as_ref().filter(|(held, _)| held == addr) {
            return Ok(channel.clone());
        }
        let channel = identity::connect_lazy(addr, ServerRole::Manager, &self.credentials);
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        *held = Some((addr.to_owned(), channel.clone()));
        Ok(channel)
    }
}

/// Whether the manager behind a connection takes part in the group.
pub(crate) async fn is_well(channel: &Channel) -> bool {
    let asked = timeout(HEALTH_TIMEOUT, check_raft(channel.clone())).await;
    matches!(asked, Ok(Ok(p::ServingStatus::Serving)))
}

/// What a manager says of its raft.
pub(crate) async fn check_raft(channel: Channel) -> Result<p::ServingStatus, Status> {
    let request = p::HealthCheckRequest { service: "Raft".to_owned() };
    let response = HealthClient::new(channel).check(request).await?;
    Ok(response.into_inner().status())
}

fn stopped() -> Status {
    Status::unavailable("the manager is stopping")
}

/// What a clock of [`run_clock`] writes into.
pub(crate) fn clock() -> (watch::Sender<Option<Instant>>, watch::Receiver<Option<Instant>>) {
    watch::channel(Some(Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_missing_leader_is_told_of_when_calls_no_longer_wait_for_one() {
        let (_status, status) = watch::channel(RaftStatus::default());
        let (_ready, ready) = watch::channel(false);
        let (since, leaderless_since) = clock();
        let leadership = Leadership::new(status, ready, leaderless_since, crate::test_support::credentials());
        assert!(leadership.missing().is_none());
        tokio::time::advance(LEADERLESS_LIMIT).await;
        assert_eq!(leadership.missing().map(|error| error.desc), Some(ControlError::no_leader().desc));
        since.send_replace(None);
        assert!(leadership.missing().is_none());
    }
}
