//! Packets to one peer for a while, and what comes from it meanwhile: notes by the gossip, echoes through the tunnel. Both
//! sides of an exam do the same.

use std::collections::BTreeSet;
use std::time::Duration;

use doctor::wire::Note;
use doctor::{OverlayView, sizes};
use gossip::Name;
use gossip::limits::PACKET_BYTES;
use gossip_io::Handle;
use net::TunnelProbe;
use tokio::time::sleep;

use super::Doctor;
use super::places::{self, Places};
use super::visits::Tally;

/// How often packets of every size are sent: the first may come before the peer listens.
const ROUNDS: usize = 4;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(300);
/// Packets that are sent in a row before the next few: queues on the way are short.
const IN_A_ROW: usize = 8;
const BETWEEN_ROWS: Duration = Duration::from_millis(5);

/// How long all of it takes.
pub(super) const SPAN: Duration = Duration::from_millis(1400);

/// What one session is about.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    /// The peer's name in the gossip; empty if it is not in it.
    pub(super) member: Name,
    /// The network whose tunnel is tried, by identifier and name; nothing if there is none.
    pub(super) network: Option<(String, String)>,
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub(super) notes: Tally,
    pub(super) overlay: Option<OverlayView>,
    /// Datagrams with a wrong checksum.
    pub(super) bad_checksums: u64,
}

/// Sends and counts. Notes are for our own members, and others take no offence at the rest.
pub(super) async fn run(doctor: &Doctor, handle: &Handle, session: &Session) -> Came {
    let counting = doctor.0.tallies.begin(&session.member, session.id);
    let notes = async {
        for round in 0..ROUNDS {
            for (is_full, bytes) in [(false, 0), (true, PACKET_BYTES)] {
                let note = Note { session: session.id, is_full }.encode();
                // Gossip that has stopped has nothing to tell either.
                let _ = handle.note(&session.member, note, bytes).await;
            }
            pause(round).await;
        }
    };
    let ((), overlay, ()) = tokio::join!(notes, tunnel(doctor, handle, session), sleep(SPAN));
    let (overlay, bad_checksums) = overlay.map_or((None, 0), |(view, bad)| (Some(view), bad));
    Came { notes: counting.tally(), overlay, bad_checksums }
}

async fn pause(round: usize) {
    if round + 1 < ROUNDS {
        sleep(BETWEEN_ROUNDS).await;
    }
}

/// The tunnel, if this node is on the network itself; beside it, datagrams whose checksums were wrong.
async fn tunnel(doctor: &Doctor, handle: &Handle, session: &Session) -> Option<(OverlayView, u64)> {
    let (network, name) = session.network.as_ref()?;
    let probe = doctor.0.net.tunnel_probe(network);
    let probe = probe.inspect_err(|error| tracing::debug!(%error, network, "no place on a network")).ok()??;
    let places = places::of(&doctor.0.net, handle, network, &session.member).await;
    let mut view =
        OverlayView { network: name.clone(), mtu: probe.mtu(), knows_peer: places.is_linked, ..OverlayView::default() };
    let bad_before = probe.bad_checksums();
    let (mut heard, mut answered) = (BTreeSet::new(), BTreeSet::new());
    let listen = async {
        while let Ok(packet) = probe.next().await {
            if packet.session == session.id && places.addresses.contains(&packet.from) {
                if packet.is_reply {
                    answered.insert(packet.size)
                } else {
                    heard.insert(packet.size)
                };
            }
        }
    };
    let (_, (), datagram) = tokio::join!(
        tokio::time::timeout(SPAN, listen),
        echoes(&probe, &places, session.id),
        datagram(&probe, &places)
    );
    (view.heard, view.answered, view.datagram) = (heard, answered, datagram);
    Some((view, probe.bad_checksums().saturating_sub(bad_before)))
}

async fn echoes(probe: &TunnelProbe, places: &Places, session: u64) {
    let sizes = sizes(probe.mtu());
    for round in 0..ROUNDS {
        for row in sizes.chunks(IN_A_ROW) {
            for size in row {
                places.addresses.iter().for_each(|to| probe.send(*to, session, *size));
            }
            sleep(BETWEEN_ROWS).await;
        }
        pause(round).await;
    }
}

/// Whether a datagram to any of the peer's places was refused; nothing if there is none.
async fn datagram(probe: &TunnelProbe, places: &Places) -> Option<bool> {
    let mut refused = None;
    for to in &places.addresses {
        match probe.is_datagram_refused(*to).await {
            Ok(true) => return Some(true),
            Ok(false) => refused = Some(false),
            Err(error) => tracing::debug!(%error, %to, "no datagram could be sent"),
        }
    }
    refused
}
