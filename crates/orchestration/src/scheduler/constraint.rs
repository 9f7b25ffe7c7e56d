//! The language of `placement.constraints`: `key == value` and `key != value`. Used by the scheduler, by the constraint
//! enforcer and, to refuse what cannot be parsed, by the control API. The error texts are SwarmKit's.

use model::{Node, NodeRole};
use std::net::IpAddr;
use thiserror::Error;

/// The prefix of keys that mean a label of the node object.
pub const NODE_LABEL_PREFIX: &str = "node.labels.";
/// The prefix of keys that mean a label of the node's engine.
pub const ENGINE_LABEL_PREFIX: &str = "engine.labels.";
/// The operators, in the order in which they are looked for.
const OPERATORS: [(&str, Operator); 2] = [("==", Operator::Equal), ("!=", Operator::NotEqual)];

/// Why a constraint cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConstraintError {
    /// There is neither `==` nor `!=` in it.
    #[error("constraint expected one operator from ==, !=")]
    NoOperator,
    /// What is left of the operator cannot be a key.
    #[error("key '{0}' is invalid")]
    InvalidKey(String),
    /// What is right of the operator cannot be a value.
    #[error("value '{0}' is invalid")]
    InvalidValue(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
}

/// What of a node is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    /// Never satisfied.
    Unknown,
}

/// One parsed constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    operator: Operator,
    value: String,
}

/// Parses constraints; the first that cannot be parsed is the error.
pub fn parse(constraints: &[String]) -> Result<Vec<Constraint>, ConstraintError> {
    constraints.iter().map(|text| Constraint::parse(text)).collect()
}

/// Whether `node` satisfies all of `constraints`.
pub fn node_matches(constraints: &[Constraint], node: &Node) -> bool {
    constraints.iter().all(|constraint| constraint.matches(node))
}

impl Constraint {
    /// Parses `key == value` or `key != value`.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let split = |(sign, operator)| text.split_once(sign).map(|(key, value)| (key.trim(), operator, value.trim()));
        let (key, operator, value) = OPERATORS.into_iter().find_map(split).ok_or(ConstraintError::NoOperator)?;
        if !is_key(key) {
            return Err(ConstraintError::InvalidKey(key.to_owned()));
        }
        if value.is_empty() || !value.chars().all(is_value_char) {
            return Err(ConstraintError::InvalidValue(value.to_owned()));
        }
        Ok(Self { key: Key::parse(key), operator, value: value.to_owned() })
    }

    /// Whether `node` satisfies it.
    pub fn matches(&self, node: &Node) -> bool {
        let platform = node.description.as_ref().and_then(|it| it.platform.as_ref());
        match &self.key {
            Key::Id => self.compare(node.id.as_str()),
            Key::Hostname => self.compare(node.description.as_ref().map_or("", |it| &it.hostname)),
            Key::Ip => self.matches_ip(&node.status.addr),
            Key::Role => self.compare(match node.role {
                NodeRole::Worker => "worker",
                NodeRole::Manager => "manager",
            }),
            Key::Os => self.compare(platform.map_or("", |it| &it.os)),
            Key::Arch => self.compare(platform.map_or("", |it| &it.architecture)),
            Key::NodeLabel(name) => self.compare(node_label(node, name)),
            Key::EngineLabel(name) => self.compare(engine_label(node, name)),
            Key::Unknown => false,
        }
    }

    fn compare(&self, seen: &str) -> bool {
        self.holds(self.value.eq_ignore_ascii_case(seen))
    }

    fn holds(&self, equal: bool) -> bool {
        equal == (self.operator == Operator::Equal)
    }

    fn matches_ip(&self, addr: &str) -> bool {
        let seen = addr.parse::<IpAddr>().ok();
        if let Ok(wanted) = self.value.parse::<IpAddr>() {
            return self.holds(seen.is_some_and(|seen| seen.to_canonical() == wanted.to_canonical()));
        }
        match parse_cidr(&self.value) {
            Some((base, length)) => self.holds(seen.is_some_and(|seen| is_within(seen, base, length))),
            None => false,
        }
    }
}

impl Key {
    fn parse(text: &str) -> Self {
        let label = |prefix: &str| {
            let (head, name) = text.split_at_checked(prefix.len())?;
            (head.eq_ignore_ascii_case(prefix) && !name.is_empty()).then(|| name.to_owned())
        };
        match text.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => match (label(NODE_LABEL_PREFIX), label(ENGINE_LABEL_PREFIX)) {
                (Some(name), _) => Self::NodeLabel(name),
                (_, Some(name)) => Self::EngineLabel(name),
                _ => Self::Unknown,
            },
        }
    }
}

/// The node object's label, `""` if it has none.
pub(super) fn node_label<'a>(node: &'a Node, name: &str) -> &'a str {
    node.spec.annotations.labels.get(name).map_or("", String::as_str)
}

/// The engine's label, `""` if it has none.
pub(super) fn engine_label<'a>(node: &'a Node, name: &str) -> &'a str {
    let engine = node.description.as_ref().and_then(|it| it.engine.as_ref());
    engine.and_then(|it| it.labels.get(name)).map_or("", String::as_str)
}

/// `^[a-z_][a-z0-9\-_.]+$`, whatever the case.
fn is_key(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|it| it.is_ascii_alphabetic() || it == '_');
    let rest = chars.as_str();
    first && !rest.is_empty() && rest.chars().all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it))
}

fn is_value_char(it: char) -> bool {
    it.is_ascii_alphanumeric() || ":-_.*()?+[]\\^$|/ \t\n\r\u{c}".contains(it)
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (base, length) = text.split_once('/')?;
    let (base, length) = (base.parse::<IpAddr>().ok()?, length.parse::<u32>().ok()?);
    (length <= if base.is_ipv4() { 32 } else { 128 }).then_some((base, length))
}

fn is_within(seen: IpAddr, base: IpAddr, length: u32) -> bool {
    match (seen.to_canonical(), base) {
        (IpAddr::V4(seen), IpAddr::V4(base)) => {
            let differ = u32::from(seen) ^ u32::from(base);
            length == 0 || differ >> (32 - length) == 0
        }
        (IpAddr::V6(seen), IpAddr::V6(base)) => {
            let differ = u128::from(seen) ^ u128::from(base);
            length == 0 || differ >> (128 - length) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Constraint, node_matches, parse};
    use model::{EngineDescription, Node, NodeDescription, NodeRole, Platform};

    fn node() -> Node {
        let engine = EngineDescription { labels: [("Disk".into(), "SSD".into())].into(), ..Default::default() };
        let platform = Platform { os: "linux".into(), architecture: "x86_64".into() };
        let description = NodeDescription {
            hostname: "Host-1".into(),
            platform: Some(platform),
            engine: Some(engine),
            ..Default::default()
        };
        let mut node = Node { id: "n1".into(), description: Some(description), ..Default::default() };
        node.role = NodeRole::Manager;
        node.status.addr = "10.1.2.3".into();
        node.spec.annotations.labels = [("Zone".into(), "east".into())].into();
        node
    }

    #[test]
    fn constraints_are_evaluated_as_swarmkit_does() {
        let check = |text: &str, expected: bool| {
            let constraint = Constraint::parse(text).unwrap();
            assert_eq!(constraint.matches(&node()), expected, "{text}");
        };
        check("node.id==n1", true);
        check("node.id == N1", true);
        check("NODE.ID != n1", false);
        check("node.hostname==host-1", true);
        check("node.hostname==host*", false);
        check("node.role==manager", true);
        check("node.role!=Worker", true);
        check("node.platform.os==Linux", true);
        check("node.platform.arch==amd64", false);
        check("node.ip==10.1.2.3", true);
        check("node.ip!=10.1.2.3", false);
        check("node.ip==10.1.0.0/16", true);
        check("node.ip!=10.1.0.0/16", false);
        check("node.ip==10.2.0.0/16", false);
        check("node.ip==0.0.0.0/0", true);
        check("node.ip==nonsense", false);
        check("node.ip!=nonsense", false);
        check("node.labels.Zone==EAST", true);
        check("node.labels.zone==east", false);
        check("node.labels.zone!=east", true);
        check("Node.Labels.Zone==east", true);
        check("engine.labels.Disk==ssd", true);
        check("engine.labels.other!=ssd", true);
        check("node.labels.==x", false);
        check("node.colour==red", false);
        check("node.colour!=red", false);
    }

    #[test]
    fn what_cannot_be_parsed_is_refused_with_swarmkits_texts() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse(&[text.to_owned()]).unwrap_err().to_string(), expected, "{text}");
        };
        check("node.id", "constraint expected one operator from ==, !=");
        check("node.id=n1", "constraint expected one operator from ==, !=");
        check("==n1", "key '' is invalid");
        check("a==b", "key 'a' is invalid");
        check("1node==b", "key '1node' is invalid");
        check("node id==b", "key 'node id' is invalid");
        check("node.id==", "value '' is invalid");
        check("node.id==a,b", "value 'a,b' is invalid");
        check("node.id==a==b", "value 'a==b' is invalid");
        check("node.labels.a!=b==c", "key 'node.labels.a!=b' is invalid");
    }

    #[test]
    fn all_must_hold_and_a_bare_node_has_empty_values() {
        let constraints = parse(&["node.role==worker".into(), "node.labels.x!=y".into()]).unwrap();
        assert!(!node_matches(&constraints, &node()));
        assert!(node_matches(&constraints, &Node::default()));
        assert!(node_matches(&[], &node()));
        assert!(!Constraint::parse("node.ip==10.0.0.0/8").unwrap().matches(&Node::default()));
        assert!(Constraint::parse("node.ip!=10.0.0.0/8").unwrap().matches(&Node::default()));
    }
}
