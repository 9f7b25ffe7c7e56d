//! One peer, well and with each of the faults.

use super::*;
use crate::{Node, Report, Standing};

fn word() -> Word {
    Word {
        version: "0.1.0".into(),
        reach_gossip: Reach::Connected,
        gossip_answered: true,
        reach_manager: Reach::Connected,
        notes_small: 3,
        notes_full: 3,
        overlay: Some(OverlayView { answered: BTreeSet::new(), ..overlay() }),
        link_mtu: 1500,
        walls: vec![],
        bad_checksums: 0,
    }
}

fn overlay() -> OverlayView {
    let all: BTreeSet<u32> = sizes(1450).into_iter().collect();
    OverlayView {
        network: "ingress".into(),
        mtu: 1450,
        knows_peer: true,
        heard: all.clone(),
        answered: all,
        datagram: Some(true),
    }
}

/// A peer that runs Skep and is well.
fn skep() -> Peer {
    Peer {
        name: "b".into(),
        address: IpAddr::from([192, 0, 2, 2]),
        role: PeerRole::Manager,
        kind: PeerKind::Skep,
        known: Known::There,
        reach_manager: Reach::Connected,
        reach_gossip: Reach::Connected,
        gossip_answered: true,
        echoes: Echoes { small: true, full: true },
        exam: Exam::Done(Box::new(word())),
        notes_small: 3,
        notes_full: 3,
        skew: Some(Skew { offset_ms: 4, error_ms: 1 }),
        tables: vec![TableView { network: "ingress".into(), differs: false }],
        overlay: Some(overlay()),
        ..Peer::default()
    }
}

/// A peer that runs dockerd and is well.
fn dockerd() -> Peer {
    let overlay = OverlayView { heard: BTreeSet::new(), ..overlay() };
    Peer {
        kind: PeerKind::Other,
        exam: Exam::Impossible,
        skew: None,
        tables: vec![],
        overlay: Some(overlay),
        notes_small: 0,
        notes_full: 0,
        ..skep()
    }
}

fn judged(peer: &Peer) -> Vec<Finding> {
    let node = Node { standing: Standing::Active, data_path_port: 4789, ..Node::default() };
    let seen = Observations { node: Some(node), peers: vec![peer.clone()], ..Observations::default() };
    let mut findings = Vec::new();
    judge(peer, &seen, &Walls::default(), &mut findings);
    findings
}

/// That exactly this is wrong with a peer, and what it is called.
fn check(peer: &Peer, expected: &[(Level, Check, &str)]) {
    let found = judged(peer);
    let wrong: Vec<_> = found.iter().filter(|it| !matches!(it.level, Level::Ok | Level::Unknown)).collect();
    assert_eq!(wrong.len(), expected.len(), "{found:#?}");
    for (finding, (level, check, words)) in wrong.iter().zip(expected) {
        assert!(finding.level == *level && finding.check == *check && finding.what.contains(words), "{finding:#?}");
        assert!(finding.remedy.is_some() && finding.peer.as_deref() == Some("b (192.0.2.2)"), "{finding:#?}");
    }
}

fn changed(change: impl FnOnce(&mut Peer, &mut Word)) -> Peer {
    let mut peer = skep();
    let mut word = word();
    change(&mut peer, &mut word);
    if peer.exam == skep().exam {
        peer.exam = Exam::Done(Box::new(word));
    }
    peer
}

#[test]
fn peers_that_are_well_have_no_findings() {
    check(&skep(), &[]);
    assert!(judged(&skep()).iter().all(|finding| finding.level == Level::Ok), "all is known of a Skep");
    check(&dockerd(), &[]);
    let unknown: Vec<_> = judged(&dockerd()).into_iter().filter(|it| it.level == Level::Unknown).collect();
    assert!(unknown.len() == 1 && unknown[0].what.contains("does not run Skep"), "{unknown:#?}");
}

#[test]
fn packets_of_the_gossip_that_are_lost_one_way_are_told_with_the_way() {
    let out = changed(|_, word| (word.notes_small, word.notes_full) = (0, 0));
    check(&out, &[(Level::Broken, Check::GossipUdp, "packets from here do not arrive there")]);
    let back = changed(|peer, _| (peer.notes_small, peer.notes_full) = (0, 0));
    check(&back, &[(Level::Broken, Check::GossipUdp, "packets from there do not arrive here")]);
    let full = changed(|_, word| word.notes_full = 0);
    check(&full, &[(Level::Broken, Check::GossipUdp, "those of 1400 bytes do not")]);
    let rule = changed(|_, word| {
        (word.notes_small, word.notes_full) = (0, 0);
        word.walls = vec!["rule 3 of chain in in table inet x drops UDP 7946 from 192.0.2.1".to_owned()];
    });
    assert!(
        judged(&rule).iter().any(|it| it.remedy.as_ref().is_some_and(|it| it.contains("there, rule 3 of chain in")))
    );
}

#[test]
fn of_others_the_way_is_not_known() {
    let lost = Peer { echoes: Echoes::default(), ..dockerd() };
    check(&lost, &[(Level::Broken, Check::GossipUdp, "which way they are lost could not be checked")]);
    let full = Peer { echoes: Echoes { small: true, full: false }, ..dockerd() };
    check(&full, &[(Level::Broken, Check::GossipUdp, "those of 1400 bytes are not")]);
    let mut tunnel = dockerd();
    tunnel.overlay =
        Some(OverlayView { answered: BTreeSet::new(), datagram: Some(false), ..dockerd().overlay.unwrap() });
    check(&tunnel, &[(Level::Broken, Check::DataPath, "which way they are lost could not be checked")]);
}

#[test]
fn connections_that_are_not_made_are_told() {
    let manager = changed(|peer, _| peer.reach_manager = Reach::NoAnswer);
    check(
        &manager,
        &[(Level::Broken, Check::ManagerPort, "this machine does not reach TCP 2377 of it: nothing comes back")],
    );
    let back = changed(|_, word| word.reach_manager = Reach::Refused);
    check(
        &back,
        &[(Level::Broken, Check::ManagerPort, "it does not reach TCP 2377 of this machine: the connection is refused")],
    );
    let stranger = changed(|peer, _| (peer.gossip_answered, peer.exam) = (false, Exam::Silent));
    let lost = (Level::Broken, Check::GossipTcp, "does not answer as this swarm's gossip");
    check(&stranger, &[lost]);
    let route = changed(|peer, _| {
        peer.reach_gossip = Reach::Unreachable("No route to host".to_owned());
        peer.exam = Exam::Silent;
    });
    check(&route, &[(Level::Broken, Check::GossipTcp, "No route to host")]);
}

#[test]
fn who_is_silent_has_one_finding() {
    let peer = Peer { name: "b".into(), address: IpAddr::from([192, 0, 2, 2]), is_down: true, ..Peer::default() };
    check(
        &peer,
        &[(Level::Broken, Check::Peer, "nothing comes from it, on no port; the managers have it for down, too")],
    );
    assert_eq!(judged(&peer).len(), 1);
}

#[test]
fn tunnels_that_pass_one_way_are_told_with_the_way() {
    let theirs = |word: &mut Word| word.overlay.as_mut().expect("a tunnel").heard.clear();
    let out = changed(|peer, word| {
        theirs(word);
        peer.overlay.as_mut().expect("a tunnel").answered.clear();
    });
    check(&out, &[(Level::Broken, Check::DataPath, "packets from here through UDP 4789 do not arrive there")]);
    let back = changed(|peer, _| {
        let overlay = peer.overlay.as_mut().expect("a tunnel");
        overlay.heard.clear();
        overlay.answered.clear();
    });
    check(&back, &[(Level::Broken, Check::DataPath, "packets from there through UDP 4789 do not arrive here")]);
    let both = changed(|peer, word| {
        theirs(word);
        peer.overlay = Some(OverlayView { heard: BTreeSet::new(), answered: BTreeSet::new(), ..overlay() });
    });
    let lost = |what| (Level::Broken, Check::DataPath, what);
    check(&both, &[lost("from here through UDP 4789"), lost("from there through UDP 4789")]);
    let stranger = changed(|peer, _| peer.overlay.as_mut().expect("a tunnel").knows_peer = false);
    check(&stranger, &[lost("this node does not know where it is")]);
    let silent = Peer { overlay: Some(OverlayView { knows_peer: false, ..overlay() }), ..dockerd() };
    check(&silent, &[]);
    let stranger = changed(|_, word| word.overlay.as_mut().expect("a tunnel").knows_peer = false);
    check(&stranger, &[lost("it does not know where this node is")]);
}

#[test]
fn a_path_that_is_too_small_is_measured() {
    let up_to = |most: u32| sizes(1450).into_iter().filter(|size| *size <= most).collect::<BTreeSet<u32>>();
    let out = changed(|_, word| word.overlay.as_mut().expect("a tunnel").heard = up_to(1350));
    check(
        &out,
        &[(Level::Broken, Check::Mtu, "do not pass from here to there: 1350 bytes do, 1450 do not (1400 and 1500")],
    );
    let remedy = judged(&out).into_iter().find_map(|it| it.remedy).expect("a remedy");
    assert!(remedy.contains("driver.mtu=1350"), "{remedy}");
    let both = changed(|peer, word| {
        word.overlay.as_mut().expect("a tunnel").heard = up_to(1350);
        let overlay = peer.overlay.as_mut().expect("a tunnel");
        (overlay.heard, overlay.answered) = (up_to(1230), up_to(1230));
    });
    check(&both, &[(Level::Broken, Check::Mtu, "do not pass either way: 1230 bytes do")]);
    let mut other = dockerd();
    other.overlay.as_mut().expect("a tunnel").answered = up_to(1350);
    check(&other, &[(Level::Broken, Check::Mtu, "do not pass there and back: 1350")]);
}

#[test]
fn sizes_begin_small_and_end_full() {
    assert_eq!(sizes(1450).first(), Some(&64));
    assert_eq!(sizes(1450).last(), Some(&1450));
    assert_eq!(sizes(60), [64]);
    assert_eq!(sizes(8951).last(), Some(&8951));
    assert!(sizes(9000).windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn checksums_clocks_and_tables_are_told() {
    let bad = changed(|peer, word| {
        peer.overlay.as_mut().expect("a tunnel").datagram = Some(false);
        word.bad_checksums = 3;
    });
    check(&bad, &[(Level::Broken, Check::Checksums, "it counted 3 with a wrong checksum")]);
    let lost = changed(|peer, _| peer.overlay.as_mut().expect("a tunnel").datagram = Some(false));
    check(&lost, &[(Level::Warning, Check::Checksums, "counted no wrong checksum")]);
    let clock = |offset_ms, error_ms| changed(|peer, _| peer.skew = Some(Skew { offset_ms, error_ms }));
    check(&clock(-1_500, 600), &[]);
    check(&clock(2_000, 100), &[(Level::Note, Check::Clock, "2.000 s ahead of this machine's, give or take 0.100 s")]);
    check(&clock(-40_000, 100), &[(Level::Warning, Check::Clock, "40.000 s behind")]);
    check(&clock(3_600_000, 100), &[(Level::Broken, Check::Clock, "certificates")]);
    check(&clock(i64::MIN, u64::MAX), &[]);
    let tables = changed(|peer, _| peer.tables[0].differs = true);
    check(&tables, &[(Level::Warning, Check::Tables, "tables of ingress differ")]);
}

#[test]
fn what_a_peer_says_is_shown_without_what_a_terminal_obeys() {
    let peer = Peer { name: "\x1b[2Jb".into(), ..skep() };
    assert_eq!(peer.label(), "[2Jb (192.0.2.2)");
    let seen = Observations { peers: vec![peer], ..Observations::default() };
    let report: Report = crate::judge(&seen);
    assert!(!report.text().contains('\x1b'));
}
