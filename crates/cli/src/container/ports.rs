//! The ports of a container in one cell: docker's order, neighbouring ports as ranges.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json::{number, text};

/// Ports in a row: of the container, and of the host if they are published.
#[derive(Clone, Copy)]
struct Run {
    private: (i64, i64),
    public: Option<(i64, i64)>,
}

/// The cell.
pub(super) fn column(ports: &[Value]) -> String {
    let mut ports: Vec<(i64, &str, i64, &str)> = ports
        .iter()
        .map(|it| (number(it, "PrivatePort"), text(it, "IP"), number(it, "PublicPort"), text(it, "Type")))
        .collect();
    // By port, address, public port, protocol.
    ports.sort_unstable();
    let (mut lines, mut moved) = (Vec::new(), Vec::new());
    let mut runs: BTreeMap<(String, String), Run> = BTreeMap::new();
    let mut order = Vec::new();
    for (private, ip, public, protocol) in ports {
        let shown_ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        // A port under another number stands for itself, behind the others.
        if public > 0 && public != private {
            moved.push(format!("{shown_ip}:{public}->{private}/{protocol}"));
            continue;
        }
        let key = (if public > 0 { shown_ip } else { String::new() }, protocol.to_owned());
        let run = Run { private: (private, private), public: (public > 0).then_some((public, public)) };
        match runs.get_mut(&key) {
            Some(known) if known.private.1 == private => {}
            Some(known) if known.private.1 + 1 == private => {
                known.private.1 = private;
                known.public = known.public.map(|(first, _)| (first, public));
            }
            Some(known) => {
                lines.push(shown(&key, *known));
                *known = run;
            }
            None => {
                order.push(key.clone());
                runs.insert(key, run);
            }
        }
    }
    lines.extend(order.iter().map(|key| shown(key, runs[key])));
    lines.extend(moved);
    lines.join(", ")
}

fn shown((ip, protocol): &(String, String), run: Run) -> String {
    let range = |(first, last): (i64, i64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let inside = format!("{}/{protocol}", range(run.private));
    match run.public {
        Some(public) => format!("{ip}:{}->{inside}", range(public)),
        None => inside,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn neighbouring_ports_are_one_range() {
        let port = |ip: &str, private: i64, public: i64, protocol: &str| json!({"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": protocol});
        let check = |ports: &[Value], expected: &str| assert_eq!(column(ports), expected);
        check(&[], "");
        check(&[port("", 80, 0, "tcp"), port("", 81, 0, "tcp"), port("", 81, 0, "udp")], "80-81/tcp, 81/udp");
        check(
            &[port("0.0.0.0", 80, 8080, "tcp"), port("::", 80, 8080, "tcp")],
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        );
        check(&[port("0.0.0.0", 80, 8080, "tcp"), port("", 90, 0, "tcp")], "90/tcp, 0.0.0.0:8080->80/tcp");
        let same = |port_number| port("0.0.0.0", port_number, port_number, "tcp");
        check(&[same(81), same(80), same(90)], "0.0.0.0:80-81->80-81/tcp, 0.0.0.0:90->90/tcp");
    }
}
