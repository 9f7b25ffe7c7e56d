//! What is read and written, checked against another implementation; any bytes are survived.

use proptest::prelude::*;
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::*;

/// A question as another implementation writes it.
fn question(name: &str, kind: TYPE, udp_bytes: Option<u16>) -> Vec<u8> {
    let mut packet = Packet::new_query(0xabcd);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).unwrap().into_owned();
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    *packet.opt_mut() = udp_bytes.map(|udp_packet_size| OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
    packet.build_bytes_vec().unwrap()
}

fn read(bytes: &[u8]) -> Query {
    Query::read(bytes).unwrap()
}

fn addresses(count: u32) -> Vec<Record> {
    (0..count).map(|index| Record::Address(IpAddr::from((0x0a00_0000 + index).to_be_bytes()))).collect()
}

#[test]
fn a_question_is_read() {
    let query = read(&question("Web.Net", TYPE::AAAA, None));
    assert_eq!((query.name.as_deref(), query.kind, query.class, query.udp_bytes), (Some("web.net"), 28, 1, None));
    let query = read(&question("web", TYPE::A, Some(1232)));
    assert_eq!((query.name.as_deref(), query.kind, query.udp_bytes), (Some("web"), 1, Some(1232)));
    let mut padded = question("web", TYPE::A, None);
    let len = padded.len();
    padded.extend([1, 2, 3]);
    assert_eq!(read(&padded).forwarded(7).len(), len);
}

#[test]
fn an_answer_is_what_others_read() {
    let query = read(&question("Web", TYPE::A, Some(1232)));
    let bytes = query.answer_with(&addresses(3), Transport::Udp);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.id(), packet.rcode()), (0xabcd, RCODE::NoError));
    let (response, rd, ra) = (PacketFlag::RESPONSE, PacketFlag::RECURSION_DESIRED, PacketFlag::RECURSION_AVAILABLE);
    assert!(packet.has_flags(response | rd | ra) && !packet.has_flags(PacketFlag::TRUNCATION));
    assert_eq!(packet.questions[0].qname.to_string(), "Web");
    assert_eq!(packet.opt().map(|opt| opt.udp_packet_size), Some(OWN_UDP_BYTES));
    let found: Vec<_> =
        packet.answers.iter().map(|answer| (answer.name.to_string(), answer.ttl, &answer.rdata)).collect();
    assert_eq!(found.len(), 3);
    for (index, (name, ttl, data)) in found.into_iter().enumerate() {
        assert_eq!((name.as_str(), ttl), ("Web", 600));
        assert!(matches!(data, RData::A(a) if a.address == 0x0a00_0000 + index as u32), "{data:?}");
    }
    let bytes = query.empty_answer(code::SERVER_FAILURE);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.rcode(), packet.answers.len(), packet.questions.len()), (RCODE::ServerFailure, 0, 1));
}

#[test]
fn other_records_are_what_others_read() {
    let query = read(&question("x", TYPE::AAAA, None));
    let records = [Record::Address("fd00::5".parse().unwrap()), Record::pointer("web.1.net").unwrap()];
    let bytes = query.answer_with(&records, Transport::Udp);
    let packet = Packet::parse(&bytes).unwrap();
    assert!(matches!(&packet.answers[0].rdata, RData::AAAA(a) if a.address == 0xfd00 << 112 | 5));
    assert!(matches!(&packet.answers[1].rdata, RData::PTR(name) if name.0.to_string() == "web.1.net"));
    assert!(packet.opt().is_none());
    let long = "a".repeat(64);
    for name in ["", "a..b", ".a", "a.", long.as_str(), &["abcdefg"; 40].join(".")] {
        assert_eq!(Record::pointer(name), None, "{name}");
    }
    assert!(Record::pointer(&"a".repeat(63)).is_some());
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let check = |udp_bytes: Option<u16>, count: u32, transport: Transport, fitting: usize| {
        let query = read(&question("web", TYPE::A, udp_bytes));
        let bytes = query.answer_with(&addresses(count), transport);
        let packet = Packet::parse(&bytes).unwrap();
        let is_cut = packet.has_flags(PacketFlag::TRUNCATION);
        assert_eq!((packet.answers.len(), is_cut), (fitting, fitting < count as usize), "{udp_bytes:?} {count}");
        let room = if transport == Transport::Tcp { 65535 } else { udp_bytes.unwrap_or(512).max(512) };
        assert!(bytes.len() <= usize::from(room));
    };
    // 512 bytes: header 12, question 9, records of 16
    check(None, 30, Transport::Udp, 30);
    check(None, 31, Transport::Udp, 30);
    check(Some(100), 31, Transport::Udp, 30);
    check(Some(512), 30, Transport::Udp, 30);
    check(Some(512), 31, Transport::Udp, 30);
    check(Some(1232), 75, Transport::Udp, 75);
    check(Some(1232), 76, Transport::Udp, 75);
    check(None, 4094, Transport::Tcp, 4094);
    check(None, 5000, Transport::Tcp, 4094);
}

#[test]
fn what_is_no_question_is_ignored_or_refused() {
    let good = question("web", TYPE::A, None);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let refused = |bytes: &[u8], code: u8| match Query::read(bytes) {
        Err(Unread::Answered(answer)) => {
            assert_eq!((answer.len(), &answer[..2], rcode(&answer)), (12, &bytes[..2], code));
            assert_eq!(answer[2] & 0x80, 0x80);
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(Query::read(&good[..11]), Err(Unread::Ignored));
    assert_eq!(Query::read(&changed(2, 0x80)), Err(Unread::Ignored));
    refused(&changed(2, 0x28), code::NOT_IMPLEMENTED);
    refused(&changed(5, 0), code::FORMAT_ERROR);
    refused(&changed(5, 2), code::FORMAT_ERROR);
    refused(&changed(11, 3), code::FORMAT_ERROR);
    refused(&changed(12, 0xc0), code::FORMAT_ERROR);
    refused(&changed(12, 60), code::FORMAT_ERROR);
    refused(&good[..good.len() - 1], code::FORMAT_ERROR);
}

#[test]
fn a_name_is_not_mistaken_for_another() {
    let mut bytes = question("abc", TYPE::A, None);
    // one label "a.c"
    bytes[14] = b'.';
    assert_eq!(read(&bytes).name, None);
    bytes[14] = 0xff;
    assert_eq!(read(&bytes).name, None);
}

#[test]
fn only_the_answer_to_the_question_is_taken() {
    let query = read(&question("Example.com", TYPE::A, None));
    let answer = |id: u16, name: &str, kind: TYPE| {
        let mut packet = Packet::new_reply(id);
        let name = Name::new(name).unwrap().into_owned();
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().unwrap()
    };
    let check = |bytes: &[u8], expected: bool| assert_eq!(query.is_answered_by(7, bytes), expected, "{bytes:?}");
    check(&answer(7, "example.com", TYPE::A), true);
    check(&answer(8, "example.com", TYPE::A), false);
    check(&answer(7, "example.org", TYPE::A), false);
    check(&answer(7, "example.com", TYPE::AAAA), false);
    check(&query.forwarded(7), false);
    check(&answer(7, "example.com", TYPE::A)[..20], false);
    // refused without a question
    let bare = |code: u8| [&[0, 7, 0x80, code][..], &[0; 8]].concat();
    check(&bare(code::FORMAT_ERROR), true);
    check(&bare(code::NO_ERROR), false);
    assert_eq!(query.returned(answer(7, "example.com", TYPE::A))[..2], [0xab, 0xcd]);
}

#[test]
fn reversed_names_are_addresses() {
    let check = |name: &str, expected: Option<&str>| {
        assert_eq!(reversed_address(name), expected.map(|address| address.parse().unwrap()), "{name}");
    };
    check("5.1.0.10.in-addr.arpa", Some("10.0.1.5"));
    check("1.0.10.in-addr.arpa", None);
    check("6.5.1.0.10.in-addr.arpa", None);
    check("05.1.0.10.in-addr.arpa", None);
    check("+5.1.0.10.in-addr.arpa", None);
    check("256.1.0.10.in-addr.arpa", None);
    check("in-addr.arpa", None);
    let zeros = "0.".repeat(27);
    check(&format!("5.{zeros}0.0.d.f.ip6.arpa"), Some("fd00::5"));
    check(&format!("5.{zeros}0.d.f.ip6.arpa"), None);
    check(&format!("5.{zeros}0.0.d.g.ip6.arpa"), None);
    check(&format!("5.{zeros}00.d.f.ip6.arpa"), None);
}

fn near_question() -> impl Strategy<Value = Vec<u8>> {
    let base = proptest::sample::select(vec![
        question("web.example.com", TYPE::A, Some(1232)),
        question("5.1.0.10.in-addr.arpa", TYPE::PTR, None),
        read(&question("web", TYPE::A, Some(4096))).answer_with(&addresses(3), Transport::Udp),
    ]);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (base, changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(mut bytes, changes, end, cut)| {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes
    })
}

fn survive(bytes: &[u8], other: &[u8]) {
    // an answer's flag would end it early
    let mut asked = bytes.to_vec();
    if let Some(flags) = asked.get_mut(2) {
        *flags &= 0x07;
    }
    for bytes in [bytes, asked.as_slice()] {
        match Query::read(bytes) {
            Ok(query) => {
                let written = query.answer_with(&addresses(40), Transport::Udp);
                assert!(written.len() <= usize::from(query.udp_bytes.unwrap_or(0).max(512)));
                assert_eq!(rcode(&written), code::NO_ERROR);
                // what we write is an answer to what we read
                assert!(query.is_answered_by(u16::from_be_bytes([bytes[0], bytes[1]]), &written));
                query.is_answered_by(7, other);
                assert_eq!(read(&query.forwarded(7)).name, query.name);
                query.name.as_deref().map(reversed_address);
            }
            Err(Unread::Answered(answer)) => assert_eq!(answer.len(), HEADER_BYTES),
            Err(Unread::Ignored) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), other in near_question()) {
        survive(&bytes, &other);
    }

    #[test]
    fn almost_questions_are_survived(bytes in near_question(), other in near_question()) {
        survive(&bytes, &other);
    }

    #[test]
    fn whatever_is_read_is_read_alike_by_others(bytes in near_question()) {
        if let (Ok(query), Ok(packet)) = (Query::read(&bytes), Packet::parse(&bytes)) {
            let labels: Vec<_> = packet.questions[0].qname.as_bytes().collect();
            if let Some(own) = &query.name {
                prop_assert_eq!(own.as_bytes(), labels.join(&b'.').to_ascii_lowercase());
            }
        }
    }
}
