//! Renews the node's certificate: in time, when the cluster asks for it, and until its role is the one that is wanted.
//! `Schedule` decides and is pure; [`run`] is the loop around it, the only one that asks for certificates.

use std::sync::Arc;
use std::time::Duration;

use identity::{
    CertificateRequest, Expiry, FORCED_PAUSE, Granted, JoinError, NodeCredential, NodeKey, RenewalBackOff, UnlockKey,
    next_renewal, request_certificate, system_now,
};
use model::{NodeRole, Timestamp};
use stdx::Rng;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::node_ca_client::NodeCaClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::broker::Broker;
use crate::error::chain;
use crate::keeper::{Keeper, KeeperError};

/// How long one request may stay unanswered before it is made anew: its node object may have been lost on the way.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Pause between questions to the own manager.
const POLL_PAUSE: Duration = Duration::from_secs(1);

/// What others want of the renewals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    /// Grows with each demand for a renewal at once.
    demands: u64,
    /// The role that the certificate should come to have.
    role: Option<NodeRole>,
}

/// Asks for renewals.
#[derive(Clone, Debug)]
pub(crate) struct RenewalHandle(Arc<watch::Sender<Wish>>);

/// Hears what is asked.
pub(crate) struct RenewalInbox(watch::Receiver<Wish>);

/// Both ends.
pub(crate) fn channel() -> (RenewalHandle, RenewalInbox) {
    let (sender, receiver) = watch::channel(Wish::default());
    (RenewalHandle(Arc::new(sender)), RenewalInbox(receiver))
}

impl RenewalHandle {
    /// Renew at once.
    pub(crate) fn force(&self) {
        self.0.send_modify(|wish| wish.demands += 1);
    }

    /// Renew at once, and again until the certificate has this role.
    pub(crate) fn expect(&self, role: NodeRole) {
        self.0.send_modify(|wish| {
            wish.demands += 1;
            wish.role = Some(role);
        });
    }
}

/// When to renew.
#[derive(Debug, Default)]
struct Schedule {
    back_off: RenewalBackOff,
    /// The last renewal failed or gave another role than the wanted one.
    retry: Option<Duration>,
    /// An expired certificate was renewed at once already.
    tried_expired: bool,
}

impl Schedule {
    /// How long to wait from now.
    fn pause(&mut self, (not_before, not_after): (Timestamp, Timestamp), now: Timestamp, rng: &mut Rng) -> Duration {
        if let Some(pause) = self.retry {
            return pause;
        }
        if now > not_after && !self.tried_expired {
            self.tried_expired = true;
            return Duration::ZERO;
        }
        next_renewal(not_before, not_after, now, rng).into()
    }

    /// A renewal ended: with this role, or not at all.
    fn ended(&mut self, role: Option<NodeRole>, wanted: Option<NodeRole>, rng: &mut Rng) {
        let done = role.is_some_and(|role| wanted.is_none_or(|wanted| wanted == role));
        if done {
            *self = Self::default();
        } else {
            self.retry = Some(self.back_off.failed(rng).into());
        }
    }
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Request(#[from] JoinError),
    #[error(transparent)]
    Keep(#[from] KeeperError),
    #[error("the own manager cannot be asked: {0}")]
    Local(String),
    #[error("no manager has signed the certificate in time")]
    Timeout,
}

/// Renews for as long as it lives.
pub(crate) async fn run(keeper: Arc<Keeper>, broker: Arc<Broker>, mut inbox: RenewalInbox, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut schedule = Schedule::default();
    loop {
        let pause = schedule.pause(keeper.validity(), system_now(), &mut rng);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Level-triggered: a demand during the wait or the renewal before is seen here.
            wish = inbox.0.changed() => match wish {
                // Demands come in twos, as the role manager follows the user; the later one finds the role changed.
                Ok(()) => tokio::time::sleep(FORCED_PAUSE).await,
                Err(_) => return,
            },
        }
        let wanted = inbox.0.borrow_and_update().role;
        let renewed = tokio::select! {
            renewed = renew(&keeper, &broker) => renewed,
            // A newer demand makes the answer to this request useless; nothing of it is stored yet.
            wish = inbox.0.changed() => match wish {
                Ok(()) => {
                    inbox.0.mark_changed();
                    continue;
                }
                Err(_) => return,
            },
        };
        if let Err(error) = &renewed {
            tracing::warn!(error = chain(error), "the node's certificate was not renewed");
        }
        schedule.ended(renewed.ok(), wanted, &mut rng);
    }
}

async fn renew(keeper: &Keeper, broker: &Broker) -> Result<NodeRole, RenewalError> {
    let granted = tokio::time::timeout(REQUEST_TIMEOUT, request(keeper, broker)).await;
    let granted = granted.map_err(|_| RenewalError::Timeout)??;
    let role = granted.credential.identity().role;
    keeper.renew(granted)?;
    tracing::info!(?role, "the node's certificate was renewed");
    Ok(role)
}

/// Through the own manager's pipe while there is one, which works with an expired certificate, too; else, or when that
/// fails, from another manager.
async fn request(keeper: &Keeper, broker: &Broker) -> Result<Granted, RenewalError> {
    if let Some(local) = broker.local() {
        let channel = local.connect().await.map_err(RenewalError::Local)?;
        match request_locally(keeper, channel).await {
            Ok(granted) => return Ok(granted),
            Err(error) => tracing::debug!(error = chain(&error), "no certificate through the own manager"),
        }
    }
    let request = CertificateRequest::Renew { credentials: keeper.credentials() };
    Ok(request_certificate(broker, request).await?)
}

async fn request_locally(keeper: &Keeper, channel: Channel) -> Result<Granted, RenewalError> {
    let key = NodeKey::generate();
    let csr = key.request().map_err(JoinError::Request)?;
    let mut client = NodeCaClient::new(channel);
    let issue = p::IssueNodeCertificateRequest { csr: csr.clone(), ..Default::default() };
    let node_id = client.issue_node_certificate(issue).await.map_err(JoinError::Rpc)?.into_inner().node_id;
    let chain_pem = loop {
        let ask = p::NodeCertificateStatusRequest { node_id: node_id.clone() };
        let answer = client.node_certificate_status(ask).await.map_err(JoinError::Rpc)?.into_inner();
        match answer.certificate {
            // Answers only when the certificate is signed or cannot be; another request may have come between.
            Some(certificate) if certificate.csr == csr && !certificate.certificate.is_empty() => {
                break certificate.certificate;
            }
            _ => tokio::time::sleep(POLL_PAUSE).await,
        }
    };
    let roots = keeper.credentials().current().roots.clone();
    let credential = NodeCredential::load(&chain_pem, &key, &roots, system_now(), Expiry::Refuse);
    let credential = credential.map_err(JoinError::Chain)?;
    // A running manager follows the cluster's unlock key anyway.
    Ok(Granted { credential, key, unlock_key: UnlockKey::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn renewals_come_in_time_and_failures_back_off() {
        let (mut schedule, mut rng) = (Schedule::default(), Rng::new(1));
        let life = (at(0), at(100_000));
        let first = schedule.pause(life, at(0), &mut rng).as_secs();
        assert!((49_000..=80_000).contains(&first), "{first}");
        schedule.ended(None, None, &mut rng);
        let retry = schedule.pause(life, at(0), &mut rng).as_secs();
        assert!((5..10).contains(&retry), "{retry}");
        assert_eq!(schedule.pause(life, at(0), &mut rng).as_secs(), retry, "asking does not change it");
        schedule.ended(Some(NodeRole::Worker), None, &mut rng);
        assert!(schedule.pause(life, at(0), &mut rng).as_secs() >= 49_000);
    }

    #[test]
    fn a_certificate_of_another_role_than_the_wanted_one_is_tried_again() {
        let (mut schedule, mut rng) = (Schedule::default(), Rng::new(1));
        schedule.ended(Some(NodeRole::Worker), Some(NodeRole::Manager), &mut rng);
        assert!(schedule.pause((at(0), at(100_000)), at(0), &mut rng).as_secs() < 10);
        schedule.ended(Some(NodeRole::Manager), Some(NodeRole::Manager), &mut rng);
        assert!(schedule.pause((at(0), at(100_000)), at(0), &mut rng).as_secs() > 10);
    }

    #[test]
    fn an_expired_certificate_is_renewed_at_once_and_then_with_pauses() {
        let (mut schedule, mut rng) = (Schedule::default(), Rng::new(1));
        assert_eq!(schedule.pause((at(0), at(10)), at(11), &mut rng), Duration::ZERO);
        schedule.ended(None, None, &mut rng);
        assert!(schedule.pause((at(0), at(10)), at(11), &mut rng).as_secs() >= 5);
    }
}
