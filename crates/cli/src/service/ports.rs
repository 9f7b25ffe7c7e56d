//! Published ports: `9005:9005`, `8080:80/udp`, `80`, and the long form `published=8080,target=80,protocol=tcp,mode=host`.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::json::{number, text};

/// One `--publish` option as the API's port configs; a range gives several.
pub(crate) fn parse(option: &str) -> Result<Vec<Value>> {
    if option.contains('=') { Ok(vec![parse_long(option)?]) } else { parse_short(option) }
}

fn parse_long(option: &str) -> Result<Value> {
    let mut port = json!({"Protocol": "tcp", "PublishMode": "ingress"});
    for field in option.split(',') {
        let Some((key, value)) = field.split_once('=') else { bail!("invalid field: {field}") };
        match key.to_lowercase().as_str() {
            "protocol" => port["Protocol"] = json!(value.to_lowercase()),
            "mode" => port["PublishMode"] = json!(value.to_lowercase()),
            "target" => port["TargetPort"] = json!(number_of(value)?),
            "published" => port["PublishedPort"] = json!(number_of(value)?),
            _ => bail!("invalid field key: {key}"),
        }
    }
    if port.get("TargetPort").is_none() {
        bail!("missing mandatory field \"target\"");
    }
    Ok(port)
}

fn parse_short(option: &str) -> Result<Vec<Value>> {
    let (ports, protocol) = option.split_once('/').unwrap_or((option, "tcp"));
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, _)) if published.contains(':') => bail!("hostip is not supported"),
        Some((published, target)) => (range(published)?, range(target)?),
        None => ((0, 0), range(ports)?),
    };
    let count = target.1 - target.0;
    if published != (0, 0) && published.1 - published.0 != count {
        bail!("invalid publish opts: ranges of {option} have different lengths");
    }
    let one = |step: u16| {
        let mut port = json!({"Protocol": protocol, "TargetPort": target.0 + step, "PublishMode": "ingress"});
        if published.0 != 0 {
            port["PublishedPort"] = json!(published.0 + step);
        }
        port
    };
    Ok((0..=count).map(one).collect())
}

fn range(text: &str) -> Result<(u16, u16)> {
    match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (number_of(first)?, number_of(last)?);
            if last < first { bail!("invalid range {text}") } else { Ok((first, last)) }
        }
        None => number_of(text).map(|port| (port, port)),
    }
}

fn number_of(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(0) | Err(_) => bail!("invalid port {text:?}: give a number from 1 to 65535"),
        Ok(port) => Ok(port),
    }
}

/// Published ports in a row with their targets, first and last of each.
struct Run<'a> {
    published: (i64, i64),
    target: (i64, i64),
    protocol: &'a str,
}

impl Run<'_> {
    /// Whether a port goes on with this: the next number, to the next target or to the same one. A run to one target and one
    /// to several are not mixed.
    fn takes(&self, published: i64, target: i64, protocol: &str) -> bool {
        let is_range = self.target.0 != self.target.1;
        let goes_back = is_range && target <= self.target.1;
        let is_next = published - self.published.1 <= 1 && (0..=1).contains(&(target - self.target.1));
        protocol == self.protocol && is_next && !goes_back
    }

    fn text(&self) -> String {
        let range =
            |(first, last): (i64, i64)| if last > first { format!("{first}-{last}") } else { first.to_string() };
        format!("*:{}->{}/{}", range(self.published), range(self.target), self.protocol)
    }
}

/// The PORTS column of `service ls`: neighbouring ports are ranges.
pub(crate) fn column(ports: &[Value]) -> String {
    let mut ingress: Vec<(&str, i64, i64)> = ports
        .iter()
        .filter(|port| text(port, "PublishMode") != "host")
        .map(|port| (text(port, "Protocol"), number(port, "PublishedPort"), number(port, "TargetPort")))
        .collect();
    ingress.sort_by_key(|(protocol, published, _)| (*protocol, *published));
    let mut runs: Vec<Run<'_>> = Vec::new();
    for (protocol, published, target) in ingress {
        match runs.last_mut().filter(|run| run.takes(published, target, protocol)) {
            Some(run) => (run.published.1, run.target.1) = (published, target),
            None => runs.push(Run { published: (published, published), target: (target, target), protocol }),
        }
    }
    runs.iter().map(Run::text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let short = parse("9005:9006").unwrap();
        assert_eq!(
            short[0],
            json!({"Protocol": "tcp", "TargetPort": 9006, "PublishedPort": 9005, "PublishMode": "ingress"})
        );
        assert_eq!(parse("8000-8002:9000-9002/udp").unwrap().len(), 3);
        assert_eq!(parse("80").unwrap()[0].get("PublishedPort"), None);
        let long = parse("mode=host,target=80,published=8080").unwrap();
        assert_eq!(text(&long[0], "PublishMode"), "host");
        assert!(parse("published=1").is_err());
        assert!(parse("1.2.3.4:80:80").is_err());
        assert!(parse("0:80").is_err());
        assert_eq!(column(&parse("9005:9005").unwrap()), "*:9005->9005/tcp");
        let check = |options: &[&str], expected: &str| {
            let ports: Vec<Value> = options.iter().flat_map(|option| parse(option).unwrap()).collect();
            assert_eq!(column(&ports), expected);
        };
        check(&["81:81", "80:80", "82:80"], "*:80-81->80-81/tcp, *:82->80/tcp");
        check(&["80:80", "81:80", "83:80"], "*:80-81->80/tcp, *:83->80/tcp");
        check(&["53:53/udp", "53:53", "published=1,target=1,mode=host"], "*:53->53/tcp, *:53->53/udp");
    }
}
