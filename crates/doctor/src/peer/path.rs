//! The tunnel to a peer: whether packets pass, how large they may be, and whether checksums are right.

use std::collections::BTreeSet;

use super::{Chart, OverlayView, PeerKind};
use crate::firewall::Hook;
use crate::host::VXLAN_BYTES;
use crate::{Check, Level, Transport};

/// Sizes of outer packets at which paths are known to end: of Ethernet, PPPoE, tunnels, clouds and jumbo frames.
const OUTER_SIZES: [u32; 24] = [
    576, 1000, 1200, 1280, 1300, 1350, 1380, 1400, 1420, 1440, 1450, 1460, 1472, 1476, 1480, 1492, 1500, 1550, 1600,
    2000, 4000, 8000, 8900, 8950,
];
/// The smallest packet that is sent.
pub(crate) const SMALL: u32 = 64;

/// The sizes of packets that are sent through the tunnel of a network: small ones, full ones, and steps between.
pub fn sizes(mtu: u32) -> Vec<u32> {
    let steps = OUTER_SIZES.iter().map(|size| size - VXLAN_BYTES).filter(|size| *size > SMALL && *size < mtu);
    let mut sizes: Vec<u32> = [SMALL].into_iter().chain(steps).collect();
    if mtu > SMALL {
        sizes.push(mtu);
    }
    sizes
}

impl Chart<'_> {
    pub(super) fn data_path(&mut self) {
        let port = self.seen.node.as_ref().map_or(crate::walls::DATA_PATH_PORT, |node| node.data_path_port);
        let Some(view) = self.peer.overlay.clone() else {
            let what = format!("UDP {port} could not be checked: this node has no tunnel of the ingress network");
            return self.add(Level::Unknown, Check::DataPath, what);
        };
        if !view.knows_peer && self.peer.kind != PeerKind::Skep {
            let what =
                format!("UDP {port} could not be checked: it does not tell where it is on network {}", view.network);
            return self.add(Level::Unknown, Check::DataPath, what);
        }
        if !view.knows_peer {
            let what = format!(
                "this node does not know where it is on network {}, so nothing is sent there through the tunnel",
                view.network
            );
            let remedy = "it tells so by gossip: see the findings about port 7946; if that passes, restart its daemon";
            return self.add_with(Level::Broken, Check::DataPath, what, remedy);
        }
        let theirs = self.peer.word().and_then(|word| word.overlay.clone());
        if let Some(theirs) = &theirs
            && !theirs.knows_peer
        {
            let what = format!(
                "it does not know where this node is on network {}, so it takes nothing from here through the tunnel",
                view.network
            );
            let remedy = "this node tells so by gossip: see the findings about port 7946";
            return self.add_with(Level::Broken, Check::DataPath, what, remedy);
        }
        if self.peer.word().is_some() && theirs.is_none() {
            let what = format!("UDP {port} could not be checked: it has no tunnel of network {}", view.network);
            return self.add(Level::Unknown, Check::DataPath, what);
        }
        if self.tunnel(&view, theirs.as_ref(), port) {
            self.full_packets(&view, theirs.as_ref());
            self.checksums(&view);
        }
    }

    /// Whether packets pass both ways.
    fn tunnel(&mut self, view: &OverlayView, theirs: Option<&OverlayView>, port: u16) -> bool {
        let out = !view.answered.is_empty() || theirs.is_some_and(|it| !it.heard.is_empty());
        let back = !view.answered.is_empty() || !view.heard.is_empty();
        if out && back {
            self.add(Level::Ok, Check::DataPath, format!("tunnels (UDP {port}) pass both ways"));
            return true;
        }
        if theirs.is_none() && !back {
            let what = format!(
                "tunnels: packets through UDP {port} are not answered; which way they are lost could not be checked"
            );
            let remedy = self.let_through(Hook::Output, Transport::Udp, port);
            self.add_with(Level::Broken, Check::DataPath, what, remedy);
            return false;
        }
        for (passes, hook, from, to) in [(out, Hook::Output, "here", "there"), (back, Hook::Input, "there", "here")] {
            if passes {
                continue;
            }
            let what = format!("tunnels: packets from {from} through UDP {port} do not arrive {to}");
            let remedy = self.let_through(hook, Transport::Udp, port);
            self.add_with(Level::Broken, Check::DataPath, what, remedy);
        }
        false
    }

    /// Whether packets of the network's MTU pass.
    fn full_packets(&mut self, view: &OverlayView, theirs: Option<&OverlayView>) {
        let largest = |sizes: &BTreeSet<u32>| sizes.last().copied().unwrap_or(0);
        // Of requests it is known that they were not cut; an answer may have been.
        let (out, back) = match theirs {
            Some(theirs) => (largest(&theirs.heard), largest(&view.heard)),
            None => (largest(&view.answered), largest(&view.answered)),
        };
        let theirs_mtu = theirs.map_or(view.mtu, |theirs| theirs.mtu);
        let (out_ok, back_ok) = (out >= view.mtu, back >= theirs_mtu);
        if out_ok && back_ok {
            let what = format!("packets of {} bytes pass, as network {} sends them", view.mtu, view.network);
            return self.add(Level::Ok, Check::Mtu, what);
        }
        let way = match (out_ok, back_ok, theirs.is_some()) {
            (_, _, false) => "there and back",
            (false, true, _) => "from here to there",
            (true, false, _) => "from there to here",
            _ => "either way",
        };
        let (passing, full) = match (out_ok, back_ok) {
            (true, false) => (back, theirs_mtu),
            (false, true) => (out, view.mtu),
            _ => (out.min(back), view.mtu.max(theirs_mtu)),
        };
        let mut what = format!(
            "full packets of network {} do not pass {way}: {passing} bytes do, {full} do not ({} and {} with their tunnel). \
             Connections begin and then hang",
            view.network,
            passing + VXLAN_BYTES,
            full + VXLAN_BYTES
        );
        let here = self.seen.node.as_ref().and_then(|node| node.data_path).and_then(|it| self.seen.host.link_of(it));
        if let (Some(here), Some(word)) = (here, self.peer.word())
            && word.link_mtu > 0
            && word.link_mtu != here.mtu
        {
            what += &format!("; the link here has an MTU of {}, the one there {}", here.mtu, word.link_mtu);
        }
        let remedy = format!(
            "have the path take {} bytes (MTU of links, bridges, switches and VPNs between), or make networks with --opt \
             com.docker.network.driver.mtu={passing}, the ingress network too",
            full + VXLAN_BYTES
        );
        self.add_with(Level::Broken, Check::Mtu, what, remedy);
    }

    /// Whether a checksum that the card is to compute is right: a packet whose checksum the kernel computes itself passes.
    fn checksums(&mut self, view: &OverlayView) {
        match view.datagram {
            None => {}
            Some(true) => self.add(Level::Ok, Check::Checksums, "checksums arrive as they should"),
            Some(false) => {
                let bad = self.peer.word().map_or(0, |word| word.bad_checksums);
                let proof = match (bad, self.peer.word()) {
                    (1.., _) => format!("; it counted {bad} with a wrong checksum meanwhile"),
                    (0, Some(_)) => "; it counted no wrong checksum, so they are lost for another reason".to_owned(),
                    (0, None) => String::new(),
                };
                let link = self.seen.node.as_ref().and_then(|node| node.data_path);
                let link = link.and_then(|it| self.seen.host.link_of(it));
                let name = link.map_or("eth0", |link| link.name.as_str());
                let driver = link.and_then(|link| link.driver.as_ref());
                let driver = driver.map(|driver| format!(" (its driver is {driver})")).unwrap_or_default();
                let what = format!(
                    "datagrams through the tunnel are not answered, though pings are: that is how a network card looks \
                     that computes checksums of tunnelled packets wrongly{proof}"
                );
                let remedy = format!(
                    "ethtool -K {name} tx-checksum-ip-generic off on this machine{driver}; if that helps, keep it so, or \
                     found the swarm with another --data-path-port than what the card treats as VXLAN"
                );
                self.add_with(if bad > 0 { Level::Broken } else { Level::Warning }, Check::Checksums, what, remedy);
            }
        }
    }
}
