//! Matches and targets that iptables writes into nftables in its own form: those that decide about ports and connections.

use doctor::firewall::Step;

use crate::netlink::attribute;

/// Within `xt_conntrack_mtinfo`: addresses with masks, times, protocol and ports come before.
const CONNTRACK_FLAGS: usize = 146;
const CONNTRACK_INVERTED: usize = 148;
const CONNTRACK_STATES: usize = 150;
const CONNTRACK_STATE: u16 = 1;
/// The same, under a name of iptables' own.
const CONNTRACK_STATE_ALIAS: u16 = 1 << 13;
const ALL_PORTS: (u16, u16) = (0, u16::MAX);
const MULTIPORT_PORTS: usize = 15;
const TO_DESTINATION: u8 = 1;
/// A bit for `RTN_LOCAL`.
const LOCAL: u16 = 4;
const INVERTED_DESTINATION: u32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Attributes of both: name, revision, the structure of the module.
fn parts(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let name = attribute(data, 1)?;
    Some((name.strip_suffix(&[0]).unwrap_or(name), attribute(data, 3).unwrap_or_default()))
}

fn number(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?))
}

/// A match; nothing for one that is not known here.
pub(super) fn matched(data: &[u8]) -> Option<Step> {
    let (name, info) = parts(data)?;
    match name {
        b"comment" => Some(Step::Nothing),
        b"state" => Some(Step::States(u32::from_ne_bytes(info.get(..4)?.try_into().ok()?))),
        b"conntrack" => conntrack(info),
        b"tcp" => ports(TCP, info, info.get(11)?),
        b"udp" => ports(UDP, info, info.get(8)?),
        b"multiport" => multiport(info),
        b"addrtype" => to_local(info),
        _ => None,
    }
}

/// A target; nothing for one that is not known here.
pub(super) fn target(data: &[u8]) -> Option<Step> {
    match parts(data)?.0 {
        b"REJECT" => Some(Step::Reject),
        b"LOG" | b"NFLOG" | b"MARK" | b"CONNMARK" | b"TCPMSS" | b"CT" | b"TRACE" | b"CHECKSUM" => Some(Step::Nothing),
        _ => None,
    }
}

fn conntrack(info: &[u8]) -> Option<Step> {
    let (flags, inverted) = (number(info, CONNTRACK_FLAGS)?, number(info, CONNTRACK_INVERTED)?);
    if flags & !CONNTRACK_STATE_ALIAS != CONNTRACK_STATE {
        return None;
    }
    let states = u32::from(number(info, CONNTRACK_STATES)?);
    Some(Step::States(if inverted & CONNTRACK_STATE != 0 { !states } else { states }))
}

/// `xt_addrtype_info_v1`: types of the source, of the destination, conditions. Known is whether the destination is this
/// machine.
fn to_local(info: &[u8]) -> Option<Step> {
    let flags = u32::from_ne_bytes(info.get(4..8)?.try_into().ok()?);
    let is_plain = flags & !INVERTED_DESTINATION == 0;
    let types = (number(info, 0)?, number(info, 2)?);
    (is_plain && types == (0, LOCAL)).then_some(Step::ToLocal { inverted: flags & INVERTED_DESTINATION != 0 })
}

/// `xt_tcp`, `xt_udp`: two source ports, two destination ports, conditions on the rest.
fn ports(protocol: u8, info: &[u8], inverted: &u8) -> Option<Step> {
    let flags_of_tcp = protocol == TCP && info.get(8..11)?.iter().any(|byte| *byte != 0);
    if *inverted != 0 || flags_of_tcp {
        return None;
    }
    let pair = |at: usize| Some((number(info, at)?, number(info, at + 2)?));
    Some(Step::Ports { protocol: Some(protocol), source: pair(0)?, destinations: vec![pair(4)?], inverted: false })
}

/// `xt_multiport_v1`: which side, how many, ports, marks of those that begin a range, whether inverted.
fn multiport(info: &[u8]) -> Option<Step> {
    let (side, count) = (*info.first()?, usize::from(*info.get(1)?).min(MULTIPORT_PORTS));
    if side != TO_DESTINATION {
        return None;
    }
    let (mut destinations, mut at) = (Vec::new(), 0);
    while at < count {
        let port = number(info, 2 + 2 * at)?;
        let begins_range = *info.get(2 + 2 * MULTIPORT_PORTS + at)? != 0 && at + 1 < count;
        at += 1;
        let last = if begins_range { number(info, 2 + 2 * at)? } else { port };
        at += usize::from(begins_range);
        destinations.push((port, last));
    }
    let inverted = *info.get(2 + 3 * MULTIPORT_PORTS)? != 0;
    Some(Step::Ports { protocol: None, source: ALL_PORTS, destinations, inverted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;

    fn data(name: &str, info: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.text(1, name);
        writer.be32(2, 0);
        writer.bytes(3, info);
        writer.bytes
    }

    #[test]
    fn states_and_ports_are_read() {
        let check = |name: &str, info: &[u8], expected: Option<Step>| {
            assert_eq!(matched(&data(name, info)), expected, "{name}");
            for cut in 0..info.len().min(44) {
                matched(&data(name, &info[..cut]));
            }
        };
        check("comment", &[], Some(Step::Nothing));
        check("state", &6_u32.to_ne_bytes(), Some(Step::States(6)));
        let mut conntrack = vec![0; 168];
        conntrack[CONNTRACK_FLAGS..CONNTRACK_FLAGS + 2].copy_from_slice(&0x2001_u16.to_ne_bytes());
        conntrack[CONNTRACK_STATES..CONNTRACK_STATES + 2].copy_from_slice(&6_u16.to_ne_bytes());
        check("conntrack", &conntrack, Some(Step::States(6)));
        conntrack[CONNTRACK_INVERTED] = 1;
        check("conntrack", &conntrack, Some(Step::States(!6)));
        conntrack[CONNTRACK_FLAGS] = 3;
        check("conntrack", &conntrack, None);
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let ports = |protocol, destinations, inverted| {
            Some(Step::Ports { protocol, source: ALL_PORTS, destinations, inverted })
        };
        let udp = [words(&[0, 65535, 4789, 4789]), vec![0]].concat();
        check("udp", &udp, ports(Some(UDP), vec![(4789, 4789)], false));
        let tcp = [words(&[0, 65535, 7946, 7946]), vec![0; 4]].concat();
        check("tcp", &tcp, ports(Some(TCP), vec![(7946, 7946)], false));
        let syn = [words(&[0, 65535, 7946, 7946]), vec![0, 0x17, 2, 0]].concat();
        check("tcp", &syn, None);
        let mut multi = vec![1, 3];
        multi.extend(words(&[22, 4000, 5000]));
        multi.resize(2 + 2 * MULTIPORT_PORTS, 0);
        multi.extend([0, 1]);
        multi.resize(2 + 3 * MULTIPORT_PORTS + 1, 0);
        check("multiport", &multi, ports(None, vec![(22, 22), (4000, 5000)], false));
        let addresses =
            |destination: u16, flags: u32| [words(&[0, destination]), flags.to_ne_bytes().to_vec()].concat();
        check("addrtype", &addresses(LOCAL, 0), Some(Step::ToLocal { inverted: false }));
        check("addrtype", &addresses(LOCAL, 2), Some(Step::ToLocal { inverted: true }));
        check("addrtype", &addresses(8, 0), None);
        check("unheard-of", &[1, 2, 3], None);
        assert_eq!(target(&data("REJECT", &[0; 4])), Some(Step::Reject));
        assert_eq!(target(&data("LOG", &[])), Some(Step::Nothing));
        assert_eq!(target(&data("SNAT", &[])), None);
    }
}
