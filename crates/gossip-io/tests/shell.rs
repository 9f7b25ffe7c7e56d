//! Members on real sockets of the loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gossip::{EntryError, Event, Presence, Via};
use gossip_io::{Running, Settings, Visit, WatchEvent, WriteError, random_name, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LONG: Duration = Duration::from_secs(30);

fn key(byte: u8) -> Vec<u8> {
    vec![byte; 16]
}

async fn member(keys: &[Vec<u8>]) -> Running {
    let settings = Settings {
        name: random_name(),
        bind: SocketAddr::new(LOCAL, 0),
        advertise: LOCAL,
        packet_bytes: 1400,
        keys: keys.to_vec(),
        primary: 0,
    };
    start(settings).await.expect("started")
}

/// Waits for a notice.
async fn notice(receiver: &mut tokio::sync::broadcast::Receiver<Event>, wanted: impl Fn(&Event) -> bool) {
    let wait = async { while !wanted(&receiver.recv().await.expect("a notice")) {} };
    timeout(LONG, wait).await.expect("the notice in time");
}

async fn next(watch: &mut gossip_io::Watch) -> WatchEvent {
    timeout(LONG, watch.next()).await.expect("an event in time").expect("gossip runs")
}

#[tokio::test]
async fn members_meet_share_and_leave() {
    let (a, b) = (member(&[key(1)]).await, member(&[key(1)]).await);
    for member in [&a, &b] {
        member.handle().join_network("net").await.expect("joined");
    }
    a.handle().create_entry("net", "table", "one", b"1".to_vec()).await.expect("created");
    let again = a.handle().create_entry("net", "table", "one", b"1".to_vec()).await;
    assert_eq!(again, Err(WriteError::Refused(EntryError::Exists)));
    let mut watch = b.handle().watch("table", Some("net"));
    assert!(matches!(next(&mut watch).await, WatchEvent::Current(all) if all.is_empty()));
    let mut notices = b.handle().notices();
    b.handle().join(vec![a.handle().advertise()]).await.expect("asked");
    let WatchEvent::Changed(change) = next(&mut watch).await else { panic!("a change") };
    assert_eq!((&*change.key, &*change.after.expect("an entry").value), ("one", &b"1"[..]));
    notice(&mut notices, |event| matches!(event, Event::Joined(_))).await;
    assert_eq!(b.handle().network_peers("net").await.expect("peers").len(), 1);
    // A watch that comes late has it at once.
    let mut late = b.handle().watch("table", None);
    let WatchEvent::Current(current) = next(&mut late).await else { panic!("what there is") };
    assert_eq!(current.len(), 1);
    a.handle().update_entry("net", "table", "one", b"2".to_vec()).await.expect("updated");
    let WatchEvent::Changed(change) = next(&mut watch).await else { panic!("a change") };
    assert_eq!(&*change.after.expect("an entry").value, b"2");
    // Keys are rotated while it goes on.
    for (keys, primary) in [(vec![key(1), key(2)], 0), (vec![key(1), key(2)], 1), (vec![key(2)], 0)] {
        for member in [&a, &b] {
            member.handle().set_keys(keys.clone(), primary).await.expect("keys");
        }
    }
    b.handle().create_entry("net", "table", "two", b"3".to_vec()).await.expect("created");
    let mut other = a.handle().watch("table", Some("net"));
    let seen = async {
        loop {
            let event = next(&mut other).await;
            let found = match event {
                WatchEvent::Current(all) => all.iter().any(|(_, key, _)| &**key == "two"),
                WatchEvent::Changed(change) => &*change.key == "two",
                WatchEvent::Confirm(_) => false,
            };
            if found {
                return;
            }
        }
    };
    timeout(LONG, seen).await.expect("the other's entry in time");
    let handle = a.handle().clone();
    timeout(LONG, a.leave()).await.expect("left in time");
    assert!(handle.peers().await.is_err());
    notice(&mut notices, |event| matches!(event, Event::PeerDown(_))).await;
    assert_eq!(b.handle().entries("net", "table").await.expect("entries").len(), 1);
    assert_eq!(b.handle().report().await.expect("a report").counters.divergences, 0);
}

#[tokio::test]
async fn a_push_returns_when_the_other_has_applied_it() {
    let (a, b) = (member(&[key(1)]).await, member(&[key(1)]).await);
    for member in [&a, &b] {
        member.handle().join_network("net").await.expect("joined");
    }
    a.handle().create_entry("net", "table", "one", b"1".to_vec()).await.expect("created");
    let mut watch = b.handle().watch("table", None);
    b.handle().join(vec![a.handle().advertise()]).await.expect("asked");
    while !matches!(next(&mut watch).await, WatchEvent::Changed(_)) {}
    let entry = || vec![("net".into(), "table".into(), "one".into())];
    let pushed = |value: &'static [u8]| {
        let handle = a.handle().clone();
        async move {
            handle.update_entry("net", "table", "one", value.to_vec()).await.expect("updated");
            let pushed = handle.push(entry()).await.expect("gossip runs");
            (pushed.silent, pushed.foreign)
        }
    };
    let mut push = tokio::spawn(pushed(b"2"));
    let confirm = loop {
        match next(&mut watch).await {
            WatchEvent::Confirm(confirm) => break confirm,
            WatchEvent::Changed(change) => assert_eq!(&*change.after.expect("an entry").value, b"2"),
            WatchEvent::Current(_) => panic!("it did not fall behind"),
        }
    };
    assert!(timeout(Duration::from_millis(100), &mut push).await.is_err(), "it is not applied yet");
    confirm.done();
    assert_eq!(timeout(LONG, push).await.expect("in time").expect("no panic"), (0, 0));
    // Who cannot apply it says nothing, and that is told.
    let push = tokio::spawn(pushed(b"3"));
    while !matches!(next(&mut watch).await, WatchEvent::Confirm(_)) {}
    assert_eq!(timeout(LONG, push).await.expect("in time").expect("no panic"), (1, 0));
    // Nobody watches: there is nothing to apply.
    drop(watch);
    assert_eq!(timeout(LONG, pushed(b"4")).await.expect("in time"), (0, 0));
}

#[tokio::test]
async fn a_watch_that_falls_behind_starts_anew_with_what_there_is() {
    let a = member(&[]).await;
    a.handle().join_network("net").await.expect("joined");
    let mut watch = a.handle().watch("table", None);
    assert!(matches!(next(&mut watch).await, WatchEvent::Current(all) if all.is_empty()));
    const ALL: usize = 1500;
    for number in 0..ALL {
        a.handle().create_entry("net", "table", &number.to_string(), Vec::new()).await.expect("created");
    }
    let mut changes = 0;
    loop {
        match next(&mut watch).await {
            WatchEvent::Changed(_) => changes += 1,
            WatchEvent::Confirm(_) => panic!("nobody pushes"),
            WatchEvent::Current(all) => {
                assert_eq!(all.len(), ALL);
                break;
            }
        }
    }
    assert!(changes < ALL, "{changes}");
    a.handle().delete_entry("net", "table", "7").await.expect("deleted");
    let WatchEvent::Changed(change) = next(&mut watch).await else { panic!("a change") };
    assert_eq!((&*change.key, change.after), ("7", None));
}

#[tokio::test]
async fn strangers_take_no_place_for_long_and_do_no_harm() {
    let (a, b) = (member(&[key(1)]).await, member(&[key(1)]).await);
    let address = a.handle().advertise();
    // Garbage by packets, and streams: some say nonsense, some claim much and say nothing.
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for length in [1, 2, 30, 1400, 60_000] {
        socket.send_to(&vec![1; length], address).await.expect("sent");
    }
    let mut open = Vec::new();
    for number in 0..40 {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let bytes: &[u8] = if number % 2 == 0 { &[10, 0, 0xff, 0, 0] } else { &[6, 0x80] };
        // It may be closed already.
        let _ = stream.write_all(bytes).await;
        open.push(stream);
    }
    // What says nonsense, and what finds no place, is closed at once; those that wait stay.
    let mut closed = 0;
    for (number, stream) in open.iter_mut().enumerate() {
        if number % 2 == 1 {
            let ended = timeout(LONG, stream.read(&mut [0; 1])).await.expect("closed in time");
            assert!(matches!(ended, Ok(0) | Err(_)));
            closed += 1;
        }
    }
    assert_eq!(closed, 20);
    // The others still meet: those streams of the same address that wait are given up after their time.
    b.handle().join(vec![address]).await.expect("asked");
    let mut notices = b.handle().notices();
    notice(&mut notices, |event| matches!(event, Event::Joined(_))).await;
    let report = a.handle().report().await.expect("a report");
    assert!(report.counters.refused.values().sum::<u64>() >= 4, "{report:?}");
    assert!(report.streams_denied + report.streams_broken >= 20, "{report:?}");
}

#[tokio::test]
async fn members_ping_ask_and_note() {
    let (a, b) = (member(&[key(1)]).await, member(&[key(1)]).await);
    let (mut notices, mut own_notices) = (a.handle().notices(), b.handle().notices());
    let mut visits = a.handle().visits().await.expect("gossip runs");
    b.handle().join(vec![a.handle().advertise()]).await.expect("asked");
    notice(&mut notices, |event| matches!(event, Event::PeerUp(_))).await;
    notice(&mut own_notices, |event| matches!(event, Event::Joined(_))).await;
    let known = b.handle().members().await.expect("members");
    let name = known.first().expect("the other").peer.name.clone();
    assert_eq!(known[0].presence, Presence::There);
    for via in [Via::Packet { bytes: 1400 }, Via::Stream] {
        assert_eq!(b.handle().probe(a.handle().advertise(), &name, via).await, Ok(true), "{via:?}");
        assert_eq!(b.handle().probe(a.handle().advertise(), "another", via).await, Ok(false), "{via:?}");
    }
    let asked = tokio::spawn({
        let (handle, name) = (b.handle().clone(), name.clone());
        async move { handle.ask(&name, b"how are you".to_vec()).await }
    });
    let Some(Visit::Question(question)) = timeout(LONG, visits.next()).await.expect("in time") else {
        panic!("a question")
    };
    assert_eq!(question.bytes, b"how are you");
    question.answer(b"well".to_vec()).await;
    let answer = timeout(LONG, asked).await.expect("in time").expect("no panic");
    assert_eq!(answer, Ok(Some(b"well".to_vec())));
    b.handle().note(&name, b"word".to_vec(), 500).await.expect("gossip runs");
    let Some(Visit::Note { bytes, packet_bytes, .. }) = timeout(LONG, visits.next()).await.expect("in time") else {
        panic!("a note")
    };
    assert_eq!((bytes.as_slice(), packet_bytes), (&b"word"[..], 500));
    // Nobody takes questions: they have no answer, at once.
    drop(visits);
    let asked = timeout(Duration::from_secs(4), b.handle().ask(&name, b"still there?".to_vec()));
    assert_eq!(asked.await.expect("at once"), Ok(None));
}
