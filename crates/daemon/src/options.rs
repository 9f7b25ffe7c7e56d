//! The daemon's options: one table that serves the command line, daemon.json and the documentation. Names, forms and
//! clashes are dockerd's (pflag's `--name=value`, `--name value`, `-x value`, repeatable lists).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// How an option's value looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--debug` or `--debug=false`.
    Bool,
    /// One text.
    Text,
    /// One whole number.
    Number,
    /// May be given several times.
    List,
    /// `key=value`, may be given several times.
    Map,
    /// A JSON value of daemon.json; there is no such flag.
    Json,
}

/// Whether an option does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is obeyed.
    Obeyed,
    /// It is taken, so that a dockerd command line works, and changes nothing.
    Ignored,
    /// It is refused when it asks for something: without it containers or clients would be less confined than wanted.
    Refused,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionSpec {
    /// The long name on the command line.
    pub(crate) name: &'static str,
    /// The short name, if any.
    pub(crate) short: Option<char>,
    /// The key in daemon.json; empty: not there.
    pub(crate) key: &'static str,
    /// The form of its value.
    pub(crate) kind: Kind,
    /// Whether it does something.
    pub(crate) effect: Effect,
}

const fn opt(name: &'static str, key: &'static str, kind: Kind, effect: Effect) -> OptionSpec {
    OptionSpec { name, short: None, key, kind, effect }
}

const fn short(name: &'static str, short: char, key: &'static str, kind: Kind) -> OptionSpec {
    OptionSpec { name, short: Some(short), key, kind, effect: Effect::Obeyed }
}

use Effect::{Ignored, Obeyed, Refused};
use Kind::{Bool, Json, List, Map, Number, Text};

/// Every option, dockerd's first, then our own.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    short("host", 'H', "hosts", List),
    short("debug", 'D', "debug", Bool),
    short("log-level", 'l', "log-level", Text),
    short("group", 'G', "group", Text),
    short("pidfile", 'p', "pidfile", Text),
    short("storage-driver", 's', "storage-driver", Text),
    opt("config-file", "", Text, Obeyed),
    opt("validate", "", Bool, Obeyed),
    opt("data-root", "data-root", Text, Obeyed),
    opt("exec-root", "exec-root", Text, Obeyed),
    opt("tls", "tls", Bool, Obeyed),
    opt("tlsverify", "tlsverify", Bool, Obeyed),
    opt("tlscacert", "tlscacert", Text, Obeyed),
    opt("tlscert", "tlscert", Text, Obeyed),
    opt("tlskey", "tlskey", Text, Obeyed),
    opt("registry-mirror", "registry-mirrors", List, Obeyed),
    opt("insecure-registry", "insecure-registries", List, Obeyed),
    opt("max-concurrent-downloads", "max-concurrent-downloads", Number, Obeyed),
    opt("max-concurrent-uploads", "max-concurrent-uploads", Number, Ignored),
    opt("max-download-attempts", "max-download-attempts", Number, Ignored),
    opt("cgroup-parent", "cgroup-parent", Text, Obeyed),
    opt("label", "labels", List, Obeyed),
    opt("default-address-pool", "default-address-pools", List, Obeyed),
    opt("add-runtime", "runtimes", List, Obeyed),
    opt("default-runtime", "default-runtime", Text, Obeyed),
    opt("init", "init", Bool, Obeyed),
    opt("init-path", "init-path", Text, Ignored),
    opt("live-restore", "live-restore", Bool, Obeyed),
    opt("swarm-default-advertise-addr", "swarm-default-advertise-addr", Text, Obeyed),
    opt("default-ulimit", "default-ulimits", List, Obeyed),
    opt("log-driver", "log-driver", Text, Obeyed),
    opt("log-opt", "log-opts", Map, Obeyed),
    opt("shutdown-timeout", "shutdown-timeout", Number, Ignored),
    opt("bridge", "bridge", Text, Obeyed),
    opt("bip", "bip", Text, Obeyed),
    opt("dns", "dns", List, Obeyed),
    opt("dns-opt", "dns-opts", List, Obeyed),
    opt("dns-search", "dns-search", List, Obeyed),
    opt("mtu", "mtu", Number, Obeyed),
    opt("iptables", "iptables", Bool, Obeyed),
    opt("ip6tables", "ip6tables", Bool, Ignored),
    opt("ip-forward", "ip-forward", Bool, Obeyed),
    opt("ip-masq", "ip-masq", Bool, Obeyed),
    opt("ip", "ip", Text, Obeyed),
    opt("ipv6", "ipv6", Bool, Ignored),
    opt("fixed-cidr", "fixed-cidr", Text, Ignored),
    opt("fixed-cidr-v6", "fixed-cidr-v6", Text, Ignored),
    opt("icc", "icc", Bool, Obeyed),
    opt("userland-proxy", "userland-proxy", Bool, Ignored),
    opt("userland-proxy-path", "userland-proxy-path", Text, Ignored),
    opt("firewall-backend", "firewall-backend", Text, Ignored),
    opt("containerd", "containerd", Text, Ignored),
    opt("containerd-namespace", "containerd-namespace", Text, Ignored),
    opt("containerd-plugins-namespace", "containerd-plugins-namespace", Text, Ignored),
    opt("experimental", "experimental", Bool, Ignored),
    opt("metrics-addr", "metrics-addr", Text, Obeyed),
    opt("network-control-plane-mtu", "network-control-plane-mtu", Number, Ignored),
    opt("api-cors-header", "api-cors-header", Text, Ignored),
    opt("authorization-plugin", "authorization-plugins", List, Refused),
    opt("cri-containerd", "", Bool, Ignored),
    opt("default-cgroupns-mode", "default-cgroupns-mode", Text, Ignored),
    opt("default-gateway", "default-gateway", Text, Ignored),
    opt("default-gateway-v6", "default-gateway-v6", Text, Ignored),
    opt("default-ipc-mode", "default-ipc-mode", Text, Ignored),
    opt("default-network-opt", "default-network-opts", Map, Ignored),
    opt("default-shm-size", "default-shm-size", Text, Ignored),
    opt("exec-opt", "exec-opts", List, Ignored),
    opt("feature", "features", Map, Ignored),
    opt("host-gateway-ip", "host-gateway-ips", List, Ignored),
    opt("log-format", "log-format", Text, Ignored),
    opt("no-new-privileges", "no-new-privileges", Bool, Refused),
    opt("no-proxy", "proxies.no-proxy", Text, Ignored),
    opt("http-proxy", "proxies.http-proxy", Text, Ignored),
    opt("https-proxy", "proxies.https-proxy", Text, Ignored),
    opt("swarm-raft-heartbeat-tick", "swarm-raft-heartbeat-tick", Number, Ignored),
    opt("swarm-raft-election-tick", "swarm-raft-election-tick", Number, Ignored),
    opt("network-diagnostic-port", "network-diagnostic-port", Number, Ignored),
    opt("cdi-spec-dir", "cdi-spec-dirs", List, Ignored),
    opt("allow-nondistributable-artifacts", "allow-nondistributable-artifacts", List, Ignored),
    opt("min-api-version", "min-api-version", Text, Ignored),
    opt("builder", "builder", Json, Ignored),
    opt("node-generic-resource", "node-generic-resources", List, Ignored),
    opt("oom-score-adjust", "oom-score-adjust", Number, Ignored),
    opt("raw-logs", "raw-logs", Bool, Ignored),
    opt("rootless", "", Bool, Refused),
    opt("seccomp-profile", "seccomp-profile", Text, Refused),
    opt("selinux-enabled", "selinux-enabled", Bool, Refused),
    opt("storage-opt", "storage-opts", List, Ignored),
    opt("userns-remap", "userns-remap", Text, Refused),
    opt("cpu-rt-period", "cpu-rt-period", Number, Ignored),
    opt("cpu-rt-runtime", "cpu-rt-runtime", Number, Ignored),
    opt("bridge-accept-fwmark", "bridge-accept-fwmark", Text, Ignored),
    opt("allow-direct-routing", "allow-direct-routing", Bool, Ignored),
    opt("remove-everything", "", Bool, Obeyed),
    opt("gwbridge", "skep-gwbridge", Text, Obeyed),
    opt("table-prefix", "skep-table-prefix", Text, Obeyed),
];

/// Why the options cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OptionError {
    /// No such option.
    #[error("unknown flag: {0}")]
    Unknown(String),
    /// It asks for a confinement that is not built.
    #[error("--{0} is not built in this version of Skep, and would leave things less confined than you ask for")]
    Refused(&'static str),
    /// A word that is no option.
    #[error("\"{0}\" accepts no arguments.")]
    Argument(String),
    /// A value is missing.
    #[error("flag needs an argument: {0}")]
    NoValue(String),
    /// A value has the wrong form.
    #[error("invalid argument {value:?} for \"{name}\" flag: {why}")]
    BadValue {
        /// The option as it was given.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// daemon.json holds keys that are none.
    #[error("the following directives don't match any configuration option: {0}")]
    UnknownKeys(String),
    /// Given on the command line and in daemon.json.
    #[error("the following directives are specified both as a flag and in the configuration file: {0}")]
    Clash(String),
    /// daemon.json is not a JSON object, or a key's value has another type.
    #[error("{0}")]
    File(String),
}

/// The options that were given: key (or, without one, name) to values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, Vec<String>>,
}

impl OptionSpec {
    fn slot(&self) -> &'static str {
        self.name
    }

    fn check(&self, given_as: &str, value: &str) -> Result<(), OptionError> {
        let bad = |why: &str| OptionError::BadValue {
            name: given_as.to_owned(),
            value: value.to_owned(),
            why: why.to_owned(),
        };
        match self.kind {
            Kind::Bool if parse_bool(value).is_none() => Err(bad("parsing as a truth value: invalid syntax")),
            Kind::Number if value.parse::<i64>().is_err() => Err(bad("parsing as a number: invalid syntax")),
            Kind::Map if !value.contains('=') => Err(bad("must be formatted as key=value")),
            _ => Ok(()),
        }
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Given {
    /// Parses a command line without the program's name.
    pub(crate) fn from_args(args: &[String]) -> Result<Self, OptionError> {
        let mut given = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (spec, inline) = find_flag(arg)?;
            let value = match (inline, spec.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => args.next().cloned().ok_or_else(|| OptionError::NoValue(arg.clone()))?,
            };
            spec.check(arg, &value)?;
            given.put(spec, value);
        }
        Ok(given)
    }

    fn put(&mut self, spec: &OptionSpec, value: String) {
        let values = self.values.entry(spec.slot()).or_default();
        if !matches!(spec.kind, Kind::List | Kind::Map) {
            values.clear();
        }
        values.push(value);
    }

    /// Adds what daemon.json says. A key that the command line has too is an error, as with dockerd.
    pub(crate) fn merge_file(&mut self, text: &str) -> Result<(), OptionError> {
        let value: Value = serde_json::from_str(text).map_err(|error| OptionError::File(error.to_string()))?;
        let Value::Object(mut map) = value else {
            return Err(OptionError::File("the configuration file must hold a JSON object".to_owned()));
        };
        // The one object whose members are options of their own.
        if let Some(Value::Object(proxies)) = map.remove("proxies") {
            map.extend(proxies.into_iter().map(|(key, value)| (format!("proxies.{key}"), value)));
        }
        let by_key = |key: &str| OPTIONS.iter().find(|spec| !spec.key.is_empty() && spec.key == key);
        let unknown: Vec<&str> = map.keys().map(String::as_str).filter(|key| by_key(key).is_none()).collect();
        if !unknown.is_empty() {
            return Err(OptionError::UnknownKeys(unknown.join(", ")));
        }
        let mut clashes = BTreeSet::new();
        for (key, value) in &map {
            let Some(spec) = by_key(key) else { continue };
            let values = file_values(spec, value)?;
            if let Some(flag) = self.values.get(spec.slot()) {
                clashes.insert(format!("{key}: (from flag: {}, from file: {})", flag.join(","), values.join(",")));
            } else {
                self.values.insert(spec.slot(), values);
            }
        }
        if clashes.is_empty() {
            Ok(())
        } else {
            Err(OptionError::Clash(clashes.into_iter().collect::<Vec<_>>().join(", ")))
        }
    }

    /// The one value of an option.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    /// All values of a list.
    pub(crate) fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// A truth value; `default` if it was not given.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.text(name).and_then(parse_bool).unwrap_or(default)
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    /// The `key=value` pairs of a map.
    pub(crate) fn map(&self, name: &str) -> BTreeMap<String, String> {
        let pairs = self.list(name).iter().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// The first option that was given, asks for something, and must not be passed over.
    pub(crate) fn check_refused(&self) -> Result<(), OptionError> {
        let refused = OPTIONS.iter().filter(|spec| spec.effect == Effect::Refused);
        let asks = |spec: &&OptionSpec| {
            let values = self.values.get(spec.name).map_or(&[][..], Vec::as_slice);
            values.iter().any(|value| !matches!(value.as_str(), "" | "false" | "0" | "builtin"))
        };
        refused.filter(asks).map(|spec| spec.name).next().map_or(Ok(()), |name| Err(OptionError::Refused(name)))
    }

    /// Options that were given and change nothing.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        let ignored = OPTIONS.iter().filter(|spec| spec.effect == Effect::Ignored);
        ignored.map(|spec| spec.name).filter(|name| self.values.contains_key(name)).collect()
    }
}

fn find_flag(arg: &str) -> Result<(&'static OptionSpec, Option<String>), OptionError> {
    if let Some(long) = arg.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let spec = OPTIONS.iter().find(|spec| spec.name == name && spec.kind != Kind::Json);
        return spec.map(|spec| (spec, value)).ok_or_else(|| OptionError::Unknown(format!("--{name}")));
    }
    let Some(rest) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return Err(OptionError::Argument(arg.to_owned()));
    };
    let letter = rest.chars().next().unwrap_or_default();
    let spec = OPTIONS.iter().find(|spec| spec.short == Some(letter));
    let spec = spec.ok_or_else(|| OptionError::Unknown(format!("-{letter}")))?;
    let value = rest[letter.len_utf8()..].trim_start_matches('=');
    Ok((spec, (!value.is_empty()).then(|| value.to_owned())))
}

fn file_values(spec: &OptionSpec, value: &Value) -> Result<Vec<String>, OptionError> {
    let wrong = || OptionError::File(format!("cannot use {value} as the value of {}", spec.key));
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let values = match (spec.name, value) {
        // {"name": {"path": "...", "runtimeArgs": [...]}} becomes the flag's name=path.
        ("add-runtime", Value::Object(map)) => {
            let path = |value: &Value| value.get("path").and_then(Value::as_str).map(str::to_owned);
            map.iter().filter_map(|(name, value)| Some(format!("{name}={}", path(value)?))).collect()
        }
        ("default-ulimit", Value::Object(map)) => {
            let limit = |value: &Value, key| value.get(key).and_then(Value::as_i64);
            let text = |(name, value): (&String, &Value)| {
                Some(format!("{name}={}:{}", limit(value, "Soft")?, limit(value, "Hard")?))
            };
            map.iter().filter_map(text).collect()
        }
        ("default-address-pool", Value::Array(list)) => {
            let text = |value: &Value| {
                let (base, size) = (value.get("base")?.as_str()?, value.get("size")?.as_i64()?);
                Some(format!("base={base},size={size}"))
            };
            list.iter().filter_map(text).collect()
        }
        (_, value) if spec.kind == Kind::Json => vec![value.to_string()],
        (_, Value::Object(map)) if spec.kind == Kind::Map => {
            map.iter().filter_map(|(key, value)| Some(format!("{key}={}", scalar(value)?))).collect()
        }
        (_, Value::Array(list)) if spec.kind == Kind::List => {
            list.iter().map(scalar).collect::<Option<Vec<_>>>().ok_or_else(wrong)?
        }
        (_, value) => vec![scalar(value).ok_or_else(wrong)?],
    };
    for value in &values {
        spec.check(spec.key, value)?;
    }
    Ok(values)
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let mut out =
        String::from("Usage:  skep daemon [OPTIONS]\n\nRuns the engine and the swarm of this machine.\n\nOptions:\n");
    for spec in OPTIONS.iter().filter(|spec| spec.kind != Kind::Json) {
        let short = spec.short.map_or("   ".to_owned(), |letter| format!("-{letter},"));
        let value = match spec.kind {
            Kind::Bool => "",
            Kind::Text => " string",
            Kind::Number => " int",
            Kind::List => " list",
            Kind::Map => " map",
            Kind::Json => " json",
        };
        let note = match spec.effect {
            Effect::Obeyed => "",
            Effect::Ignored => "  (accepted, no effect)",
            Effect::Refused => "  (refused: not built)",
        };
        out.push_str(&format!("  {short} --{}{value}{note}\n", spec.name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Given, OptionError> {
        Given::from_args(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_take_every_form_of_pflag() {
        let given = parse(&["-H", "unix:///a", "-Htcp://b", "--host=fd://", "-D", "--log-opt", "max-size=1m"]).unwrap();
        assert_eq!(given.list("host"), ["unix:///a", "tcp://b", "fd://"]);
        assert!(given.flag("debug", false));
        assert_eq!(given.map("log-opt")["max-size"], "1m");
        assert!(!parse(&["--iptables=false"]).unwrap().flag("iptables", true));
        assert_eq!(parse(&["--containerd", "/x"]).unwrap().ignored(), ["containerd"]);
    }

    #[test]
    fn what_would_confine_less_is_refused() {
        let check = |args: &[&str], ok: bool| assert_eq!(parse(args).unwrap().check_refused().is_ok(), ok, "{args:?}");
        check(&["--userns-remap", ""], true);
        check(&["--userns-remap", "default"], false);
        check(&["--userns-remap", "nobody"], false);
        check(&["--no-new-privileges"], false);
        check(&["--no-new-privileges=false", "--selinux-enabled=false"], true);
        check(&["--authorization-plugin", "x"], false);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse(&["--nonsense"]).unwrap_err().to_string(), "unknown flag: --nonsense");
        assert_eq!(parse(&["--data-root"]).unwrap_err().to_string(), "flag needs an argument: --data-root");
        assert!(parse(&["--mtu", "x"]).is_err());
        assert!(parse(&["word"]).is_err());
    }

    #[test]
    fn a_clash_of_flag_and_file_is_an_error() {
        let mut given = parse(&["--debug"]).unwrap();
        let error = given.merge_file(r#"{"debug": true}"#).unwrap_err().to_string();
        assert_eq!(
            error,
            "the following directives are specified both as a flag and in the configuration file: \
             debug: (from flag: true, from file: true)"
        );
        let error = given.merge_file(r#"{"nope": 1}"#).unwrap_err().to_string();
        assert_eq!(error, "the following directives don't match any configuration option: nope");
        given
            .merge_file(r#"{"hosts": ["unix:///x"], "default-address-pools": [{"base":"10.9.0.0/16","size":24}]}"#)
            .unwrap();
        assert_eq!(given.list("host"), ["unix:///x"]);
        assert_eq!(given.list("default-address-pool"), ["base=10.9.0.0/16,size=24"]);
    }
}
