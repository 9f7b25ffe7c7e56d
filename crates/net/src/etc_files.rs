//! Texts of `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`, laid out as dockerd does. Pure.

use std::net::{IpAddr, Ipv4Addr};

use crate::state::GWBRIDGE;
use crate::{DnsConfig, Endpoint};

const HOSTS_HEAD: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";
/// Servers for containers if the host's are all on its loopback link, where no container can reach them.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
/// What stands for the host's own address in `--add-host`.
const HOST_GATEWAY: &str = "host-gateway";

/// What `/etc/hosts` is made from.
pub(crate) struct Hosts<'a> {
    /// The host's file, for containers in its namespace; else the usual head is used.
    pub(crate) base: Option<&'a str>,
    /// `--add-host`.
    pub(crate) extra: &'a [(String, String)],
    /// Address that `host-gateway` stands for.
    pub(crate) host_gateway: Option<Ipv4Addr>,
    /// The container's addresses.
    pub(crate) addresses: &'a [IpAddr],
    /// Its host name.
    pub(crate) hostname: &'a str,
    /// Its domain name, may be empty.
    pub(crate) domainname: &'a str,
}

/// The addresses that stand for a container's own name. dockerd leaves the ingress out; here it stands in where there is no
/// other, or the container could not resolve its own name.
pub(crate) fn own_addresses(endpoints: &[Endpoint], ingress_id: Option<&str>) -> Vec<IpAddr> {
    let inner: Vec<&Endpoint> = endpoints.iter().filter(|endpoint| endpoint.network_name != GWBRIDGE).collect();
    let is_ingress = |endpoint: &Endpoint| ingress_id == Some(endpoint.network_id.as_str());
    let has_others = inner.iter().any(|endpoint| !is_ingress(endpoint));
    let shown = inner.into_iter().filter(|endpoint| !has_others || !is_ingress(endpoint));
    let addresses = shown.flat_map(|endpoint| {
        let second = endpoint.address6.map(|(address, _)| IpAddr::V6(address));
        [Some(IpAddr::V4(endpoint.address.address)), second]
    });
    addresses.flatten().collect()
}

/// The text of `/etc/hosts`.
pub(crate) fn hosts(input: &Hosts<'_>) -> String {
    let mut text = input.base.unwrap_or(HOSTS_HEAD).to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in input.extra {
        let gateway = input.host_gateway.filter(|_| address == HOST_GATEWAY).map(|gateway| gateway.to_string());
        text.push_str(&format!("{}\t{name}\n", gateway.as_deref().unwrap_or(address)));
    }
    let names = match input.domainname {
        "" => input.hostname.to_owned(),
        domain => format!("{0}.{domain} {0}", input.hostname),
    };
    for address in input.addresses {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    text
}

/// The text of `/etc/resolv.conf` from the host's. `own` beats `defaults` list by list. Loopback servers are dropped
/// unless the container is in the host's namespace.
pub(crate) fn resolv_conf(host: &str, own: &DnsConfig, defaults: &DnsConfig, in_host_namespace: bool) -> String {
    let mut conf = ResolvConf::read(host, own, defaults);
    if !in_host_namespace && !conf.overrides.contains(&"nameservers") {
        conf.servers.retain(|server| is_reachable(server));
    }
    let is_fallback = conf.servers.is_empty() && !in_host_namespace;
    let mut notes = Vec::new();
    if is_fallback {
        conf.servers = FALLBACK_SERVERS.map(str::to_owned).to_vec();
        notes.push("Used default nameservers.".to_owned());
    }
    conf.text("legacy", &notes)
}

/// A `resolv.conf`, taken apart, with the user's wishes in place of what the host has.
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<String>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
    /// Lines with other keywords.
    rest: Vec<String>,
    /// Which lists the user, or the daemon's settings, replaced.
    pub(crate) overrides: Vec<&'static str>,
}

impl ResolvConf {
    /// Reads the host's file. `own` beats `defaults` list by list.
    pub(crate) fn read(host: &str, own: &DnsConfig, defaults: &DnsConfig) -> Self {
        let (mut servers, mut search, mut options, mut rest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for line in host.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            let keyword = words.next().unwrap_or_default();
            let words: Vec<String> = words.map(str::to_owned).collect();
            match keyword {
                "nameserver" => servers.extend(words.into_iter().take(1)),
                // the last line counts, as in the resolver
                "search" | "domain" => search = words,
                "options" => options.extend(words),
                _ => rest.push(line.to_owned()),
            }
        }
        let mut overrides = Vec::new();
        for (list, own, defaults, what) in [
            (&mut servers, &own.servers, &defaults.servers, "nameservers"),
            (&mut search, &own.search, &defaults.search, "search"),
            (&mut options, &own.options, &defaults.options, "options"),
        ] {
            if let Some(chosen) = [own, defaults].into_iter().find(|chosen| !chosen.is_empty()) {
                list.clone_from(chosen);
                overrides.push(what);
            }
        }
        if search == ["."] {
            search.clear();
        }
        Self { servers, search, options, rest, overrides }
    }

    /// The file's text: what `transform` was made of the host's, with `notes` as comments.
    pub(crate) fn text(&self, transform: &str, notes: &[String]) -> String {
        let mut text = "# Generated by Skep.\n\n".to_owned();
        self.servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        for (keyword, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                text.push_str(&format!("{keyword} {}\n", words.join(" ")));
            }
        }
        self.rest.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text.push_str(&format!("\n# Based on host file: '/etc/resolv.conf' ({transform})\n"));
        notes.iter().for_each(|note| text.push_str(&format!("# {note}\n")));
        text.push_str(&format!("# Overrides: [{}]\n", self.overrides.join(" ")));
        text
    }
}

/// Whether only the local stub of systemd-resolved is named; then its own upstream file is the one to read.
pub(crate) fn is_resolved_stub(host: &str) -> bool {
    let mut servers = host.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim);
    servers.next() == Some("127.0.0.53") && servers.next().is_none()
}

fn is_reachable(server: &str) -> bool {
    // containers have no IPv6 yet; a zone ("fe80::1%eth0") would be another link's anyway
    server.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() && !address.is_loopback())
}

/// The text of `/etc/hostname`.
pub(crate) fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ends_with_the_containers_addresses() {
        let text = hosts(&Hosts {
            base: None,
            extra: &[("db".into(), "10.1.1.1".into()), ("me".into(), "host-gateway".into())],
            host_gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
            addresses: &[Ipv4Addr::new(172, 17, 0, 2).into()],
            hostname: "web",
            domainname: "example.org",
        });
        let tail: Vec<_> = text.lines().skip(6).collect();
        assert_eq!(tail, ["10.1.1.1\tdb", "172.17.0.1\tme", "172.17.0.2\tweb.example.org web"]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\t"));
    }

    fn lines(host: &str, own: &DnsConfig, in_host_namespace: bool) -> Vec<String> {
        let text = resolv_conf(host, own, &DnsConfig::default(), in_host_namespace);
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn loopback_servers_are_replaced() {
        let none = DnsConfig::default();
        let check = |host: &str, own: &DnsConfig, in_host: bool, expected: &[&str]| {
            assert_eq!(lines(host, own, in_host), expected, "{host}");
        };
        check("nameserver 127.0.0.1\n", &none, false, &["nameserver 8.8.8.8", "nameserver 8.8.4.4"]);
        check("nameserver 127.0.0.1\n", &none, true, &["nameserver 127.0.0.1"]);
        check("", &none, false, &["nameserver 8.8.8.8", "nameserver 8.8.4.4"]);
        check(
            "# x\nnameserver 192.0.2.1\nnameserver ::1\nsearch a b\noptions ndots:2\nsortlist 1.2.3.4\n",
            &none,
            false,
            &["nameserver 192.0.2.1", "search a b", "options ndots:2", "sortlist 1.2.3.4"],
        );
        let own = DnsConfig { servers: vec!["9.9.9.9".into()], search: vec![".".into()], options: vec![] };
        check("nameserver 192.0.2.1\nsearch a\n", &own, false, &["nameserver 9.9.9.9"]);
    }

    #[test]
    fn the_stub_is_recognized() {
        assert!(is_resolved_stub("nameserver 127.0.0.53\noptions edns0\n"));
        assert!(!is_resolved_stub("nameserver 127.0.0.53\nnameserver 192.0.2.1\n"));
        assert!(!is_resolved_stub(""));
    }
}
