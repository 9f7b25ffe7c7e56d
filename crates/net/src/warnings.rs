//! What of the host stands in the way: a drop of another table is not undone by our accepts.

use crate::NetConfig;
use crate::firewall::Firewall;
use crate::legacy;
use crate::netlink::{DUMP, REQUEST, Writer, attribute};
use crate::nft::{FORWARD, HEAD_BYTES, Head, Socket, begin};

const GET_CHAINS: u16 = (10 << 8) | 4;
/// Families whose chains see forwarded IPv4 packets: `inet` and `ip`.
const FAMILIES: [u8; 2] = [1, 2];

/// A base chain on the forward hook that drops what no rule accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DroppingChain {
    family: &'static str,
    table: String,
    chain: String,
}

/// Looks for obstacles; each text says the remedy.
pub(crate) fn find(config: &NetConfig, firewall: &mut Firewall) -> Vec<String> {
    let own: Vec<String> = firewall.table_names().map(str::to_owned).to_vec();
    let Some(socket) = firewall.socket() else {
        return vec!["firewall rules are switched off: no port is published".to_owned()];
    };
    let chains = match dropping_chains(socket) {
        Ok(chains) => chains,
        Err(error) => return vec![format!("the firewall's other tables cannot be read: {error}")],
    };
    let mut texts: Vec<String> =
        chains.iter().filter(|chain| !own.contains(&chain.table)).map(|chain| advice(config, chain)).collect();
    match legacy::forward_drops() {
        Ok(false) => {}
        Ok(true) => texts.push(format!(
            "chain FORWARD of iptables-legacy drops forwarded packets by its policy, \
             which keeps containers from the network; let them through with: {}",
            iptables_remedy(config, "iptables-legacy")
        )),
        Err(error) => tracing::debug!(%error, "the policy of iptables-legacy cannot be read"),
    }
    texts
}

fn advice(config: &NetConfig, DroppingChain { family, table, chain }: &DroppingChain) -> String {
    let (bridge, gateway) = (&config.bridge_name, &config.gwbridge_name);
    let remedy = if (*family, table.as_str(), chain.as_str()) == ("ip", "filter", "FORWARD") {
        iptables_remedy(config, "iptables")
    } else {
        format!(
            "nft insert rule {family} {table} {chain} iifname {{ {bridge}, {gateway} }} accept; \
             nft insert rule {family} {table} {chain} oifname {{ {bridge}, {gateway} }} accept"
        )
    };
    format!(
        "chain {chain} of table {family} {table} drops forwarded packets by its policy, \
         which keeps containers from the network; let them through with: {remedy}"
    )
}

fn iptables_remedy(config: &NetConfig, program: &str) -> String {
    let bridges = [&config.bridge_name, &config.gwbridge_name];
    let commands = bridges.map(|bridge| {
        format!("{program} -I FORWARD -i {bridge} -j ACCEPT; {program} -I FORWARD -o {bridge} -j ACCEPT")
    });
    commands.join("; ")
}

fn dropping_chains(socket: &mut Socket) -> std::io::Result<Vec<DroppingChain>> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let mut writer = Writer::default();
        let start = begin(&mut writer, (GET_CHAINS, REQUEST | DUMP), 1, Head { family, resource: 0 });
        writer.end(start);
        for reply in socket.request(&writer.bytes)? {
            found.extend(reply.body.get(HEAD_BYTES..).and_then(|attributes| read(family, attributes)));
        }
    }
    Ok(found)
}

fn read(family: u8, attributes: &[u8]) -> Option<DroppingChain> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let hook = attribute(attribute(attributes, 4)?, 1).and_then(number)?;
    let policy = attribute(attributes, 5).and_then(number)?;
    (hook == FORWARD && policy == 0).then_some(DroppingChain {
        family: if family == 1 { "inet" } else { "ip" },
        table: text(attribute(attributes, 1)?),
        chain: text(attribute(attributes, 3)?),
    })
}
