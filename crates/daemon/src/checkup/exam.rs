//! Looks at one peer: connections, pings, a question that has it look back, packets both ways meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use doctor::wire::{Answer, MAX_NETWORKS, NetworkSum, Question};
use doctor::{Echoes, Exam, Known, Observations, Peer, PeerKind, PeerRole, Reach, TableView};
use gossip::Via;
use gossip::limits::PACKET_BYTES;
use gossip_io::Handle;
use tokio::time::sleep;

use super::clock::{Times, now_unix_ns, skew};
use super::gather::Candidate;
use super::reach::reach;
use super::session::{self, Session};
use super::{Doctor, answer};

/// Pings of one size.
const PINGS: usize = 2;
/// How long news get to arrive before tables are compared again.
const SETTLE: Duration = Duration::from_secs(3);

/// What all exams of a run share.
pub(super) struct Context {
    is_manager: bool,
    /// The network whose tunnels are tried, by identifier and name.
    network: Option<(String, String)>,
    /// Networks whose tables are compared, likewise.
    networks: Vec<(String, String)>,
}

impl Context {
    pub(super) async fn new(doctor: &Doctor, seen: &Observations) -> Self {
        let overlays = doctor.0.net.overlays();
        let named = |spec: &net::OverlaySpec| (spec.network_id.clone(), spec.name.clone());
        let with_tunnel = || overlays.iter().filter(|spec| spec.vtep.is_some());
        // Every node is on the ingress network, containers or not.
        let network = with_tunnel().find(|spec| spec.ingress).or_else(|| with_tunnel().next());
        Self {
            is_manager: seen.node.as_ref().is_some_and(|node| node.role == PeerRole::Manager),
            network: network.map(named),
            networks: overlays.iter().map(named).take(MAX_NETWORKS).collect(),
        }
    }
}

/// A number that nobody else uses meanwhile.
fn new_session() -> u64 {
    u64::from_str_radix(&gossip_io::random_name(), 16).unwrap_or_default()
}

/// Looks.
pub(super) async fn examine(doctor: &Doctor, context: &Context, candidate: &Candidate) -> Peer {
    let mut peer = Peer {
        name: candidate.name.clone(),
        address: candidate.address,
        role: candidate.role,
        kind: candidate.kind,
        known: candidate.known,
        is_down: candidate.is_down,
        ..Peer::default()
    };
    let gossip = SocketAddr::new(candidate.address, candidate.gossip_port);
    let manager = candidate.manager.or_else(|| answer::manager_address(doctor, candidate.address));
    let to_manager = async {
        match manager {
            Some(manager) => reach(manager).await,
            None => Reach::Untried,
        }
    };
    let Some(handle) = doctor.handle() else {
        (peer.reach_gossip, peer.reach_manager) = tokio::join!(reach(gossip), to_manager);
        return peer;
    };
    // One that has failed may be another process by now.
    let name = if candidate.known == Known::There { &*candidate.member } else { "" };
    (peer.reach_gossip, peer.reach_manager, peer.echoes) =
        tokio::join!(reach(gossip), to_manager, pings(&handle, gossip, name));
    if peer.reach_gossip == Reach::Connected {
        peer.gossip_answered = handle.probe(gossip, name, Via::Stream).await.unwrap_or(false);
    }
    let session = Session { id: new_session(), member: candidate.member.clone(), network: context.network.clone() };
    if candidate.kind == PeerKind::Skep {
        let (came, ()) =
            tokio::join!(session::run(doctor, &handle, &session), ask(&handle, context, &session, &mut peer));
        (peer.notes_small, peer.notes_full, peer.overlay) = (came.notes.small, came.notes.full, came.overlay);
    } else if candidate.known != Known::Stranger {
        peer.overlay = session::run(doctor, &handle, &session).await.overlay;
    }
    peer
}

async fn pings(handle: &Handle, to: SocketAddr, name: &str) -> Echoes {
    let ping = |bytes| async move {
        for _ in 0..PINGS {
            if handle.probe(to, name, Via::Packet { bytes }).await.unwrap_or(false) {
                return true;
            }
        }
        false
    };
    let (small, full) = tokio::join!(ping(0), ping(PACKET_BYTES));
    Echoes { small, full }
}

async fn own_sums(handle: &Handle, context: &Context) -> Vec<NetworkSum> {
    let mut sums = Vec::new();
    for (id, _) in &context.networks {
        if let Ok(Some(sum)) = handle.sum(id, None).await {
            sums.push(NetworkSum { network: id.clone(), until: sum.until, sum: sum.sum, entries: sum.entries });
        }
    }
    sums
}

/// Has the peer look back.
async fn ask(handle: &Handle, context: &Context, session: &Session, peer: &mut Peer) {
    let network = session.network.clone().unwrap_or_default();
    let question = Question {
        session: session.id,
        network: network.0,
        sums: own_sums(handle, context).await,
        is_manager: context.is_manager,
        only_sums: false,
    };
    let sent = now_unix_ns();
    let answer = handle.ask(&session.member, question.to_bytes()).await;
    let answered = now_unix_ns();
    let Some(answer) = answer.ok().flatten().and_then(|bytes| Answer::read(&bytes)) else {
        peer.exam = Exam::Silent;
        return;
    };
    if !answer.name.is_empty() {
        peer.name.clone_from(&answer.name);
    }
    peer.skew = skew(Times { sent, came: answer.asked_unix_ns, gone: answer.answered_unix_ns, answered });
    peer.tables = compare_twice(handle, context, session, (&question.sums, &answer.sums)).await;
    peer.exam = if answer.is_busy { Exam::Busy } else { Exam::Done(Box::new(answer.into_word(&network.1))) };
}

/// Networks that both are in, and whether their tables differ.
fn compare(context: &Context, ours: &[NetworkSum], theirs: &[NetworkSum]) -> Vec<TableView> {
    let view = |ours: &NetworkSum| {
        let theirs = theirs.iter().find(|theirs| theirs.network == ours.network)?;
        let name = context.networks.iter().find(|(id, _)| *id == ours.network).map(|(_, name)| name.clone());
        Some(TableView { network: name.unwrap_or_default(), differs: theirs != ours })
    };
    ours.iter().filter_map(view).collect()
}

/// News are on their way all the time: what differs must differ a second time.
async fn compare_twice(
    handle: &Handle,
    context: &Context,
    session: &Session,
    (ours, theirs): (&[NetworkSum], &[NetworkSum]),
) -> Vec<TableView> {
    let first = compare(context, ours, theirs);
    if !first.iter().any(|view| view.differs) {
        return first;
    }
    sleep(SETTLE).await;
    let question = Question { only_sums: true, sums: own_sums(handle, context).await, ..Question::default() };
    let answer = handle.ask(&session.member, question.to_bytes()).await.ok().flatten();
    let Some(answer) = answer.and_then(|bytes| Answer::read(&bytes)) else { return Vec::new() };
    let mut second = compare(context, &question.sums, &answer.sums);
    for view in &mut second {
        view.differs &= first.iter().any(|before| before.network == view.network && before.differs);
    }
    second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_compared_where_both_are() {
        let context = Context {
            is_manager: false,
            network: None,
            networks: vec![("id1".to_owned(), "one".to_owned()), ("id2".to_owned(), "two".to_owned())],
        };
        let sum = |network: &str, sum| NetworkSum { network: network.to_owned(), until: 7, sum, entries: 2 };
        let found = compare(&context, &[sum("id1", 1), sum("id2", 2)], &[sum("id2", 3), sum("id3", 4)]);
        assert_eq!(found, [TableView { network: "two".to_owned(), differs: true }]);
        let found = compare(&context, &[sum("id1", 1)], &[sum("id1", 1)]);
        assert_eq!(found, [TableView { network: "one".to_owned(), differs: false }]);
    }
}
