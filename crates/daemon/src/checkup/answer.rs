//! Answers another member's doctor: looks back at it, and tells what arrived.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use doctor::wire::{Answer, NetworkSum, Question};
use doctor::{Node, Peer, PeerRole, Reach, Word};
use gossip::Via;
use gossip_io::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::clock::now_unix_ns;
use super::reach::reach;
use super::session::{self, Session};
use super::{Doctor, gather};

/// How long a ping over a stream may take here: whoever asked waits for `ASIDE_TIMEOUT`, connecting and the rest included.
const PING_PATIENCE: Duration = Duration::from_millis(1500);

/// Answers a question; without a `place` only that there is none.
pub(super) async fn answer(
    doctor: Doctor,
    handle: Handle,
    asked: gossip_io::Question,
    place: Option<OwnedSemaphorePermit>,
) {
    let asked_unix_ns = now_unix_ns();
    // Something that only a newer Skep understands has no answer.
    let Some(question) = Question::read(&asked.bytes) else { return };
    let member = asked.from.clone();
    let known = handle.members().await.unwrap_or_default().into_iter().find(|it| it.peer.name == member);
    let Some(address) = known.map(|it| it.peer.address) else { return };
    let mut answer = match place {
        Some(_) if question.only_sums => Answer::default(),
        Some(_) => Answer::of(&look_back(&doctor, &handle, &question, &member, address).await),
        None => Answer::busy(),
    };
    answer.sums = sums(&handle, &question).await;
    answer.name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    answer.asked_unix_ns = asked_unix_ns;
    answer.answered_unix_ns = now_unix_ns();
    asked.answer(answer.to_bytes()).await;
}

async fn sums(handle: &Handle, question: &Question) -> Vec<NetworkSum> {
    let mut sums = Vec::new();
    for asked in &question.sums {
        if let Ok(Some(sum)) = handle.sum(&asked.network, Some(asked.until)).await {
            let network = asked.network.clone();
            sums.push(NetworkSum { network, until: sum.until, sum: sum.sum, entries: sum.entries });
        }
    }
    sums
}

async fn look_back(
    doctor: &Doctor,
    handle: &Handle,
    question: &Question,
    member: &gossip::Name,
    address: SocketAddr,
) -> Word {
    let network = Some(question.network.clone()).filter(|id| !id.is_empty());
    let session =
        Session { id: question.session, member: member.clone(), network: network.map(|id| (id, String::new())) };
    let gossip = async {
        let reached = reach(address).await;
        let probe = timeout(PING_PATIENCE, handle.probe(address, member, Via::Stream));
        let answered = reached == Reach::Connected && matches!(probe.await, Ok(Ok(true)));
        (reached, answered)
    };
    let manager = async {
        match manager_address(doctor, address.ip()).filter(|_| question.is_manager) {
            Some(manager) => reach(manager).await,
            None => Reach::Untried,
        }
    };
    let (came, (reach_gossip, gossip_answered), reach_manager) =
        tokio::join!(session::run(doctor, handle, &session), gossip, manager);
    let mut word = Word {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reach_gossip,
        gossip_answered,
        reach_manager,
        notes_small: came.notes.small,
        notes_full: came.notes.full,
        overlay: came.overlay,
        link_mtu: 0,
        walls: Vec::new(),
        bad_checksums: came.bad_checksums,
    };
    own_side(doctor, &mut word, address.ip(), question).await;
    word
}

/// Where a manager listens, if the peer at this address is one.
pub(super) fn manager_address(doctor: &Doctor, ip: IpAddr) -> Option<SocketAddr> {
    let managers = doctor.0.node.info().managers;
    managers.iter().filter_map(|manager| manager.addr.parse().ok()).find(|address: &SocketAddr| address.ip() == ip)
}

/// What of this machine's own may be in the way: its link's MTU, and its firewall if something did not arrive.
async fn own_side(doctor: &Doctor, word: &mut Word, peer: IpAddr, question: &Question) {
    let node: Node = gather::node(doctor).await;
    let Ok(host) = net::survey_firewall(doctor.0.own.clone()).await else { return };
    let link = node.data_path.and_then(|address| host.link_of(address));
    word.link_mtu = link.map_or(0, |link| link.mtu);
    let role = if question.is_manager { PeerRole::Manager } else { PeerRole::Worker };
    word.walls = doctor::walls_towards(&host, &node, &Peer { address: peer, role, ..Peer::default() });
}
