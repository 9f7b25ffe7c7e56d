//! Tells two machines that use one node's certificate, as a copied data root makes them, from one that comes back. Each takes
//! the other's session without knowing of it; tasks then run on both and are reported by whoever was last.
//!
//! A node goes on from the last session that it was given, or from none after a restart. So a session that was replaced and
//! is named again, though the one that replaced it is in use, belongs to another machine. That may be a call that was late
//! once; it is believed at the second time. Pure; a leader begins with an empty one.

use std::collections::BTreeMap;
use std::time::Duration;

use model::NodeId;

use super::Moment;

/// Signs of a second machine within [`MEMORY`] until it is believed.
const MIN_SIGNS: u32 = 2;
/// How long a sign counts. Two machines take each other's place every few seconds.
const MEMORY: Duration = Duration::from_mins(2);
/// Pause between two warnings of one node.
const WARNING_PAUSE: Duration = Duration::from_mins(5);

/// The last sessions of the nodes that have registered with this leader.
#[derive(Debug, Default)]
pub struct Twins {
    nodes: BTreeMap<NodeId, Trace>,
}

#[derive(Debug, Default)]
struct Trace {
    session_id: String,
    address: String,
    /// Whoever opened the session has it, and calls with it.
    in_use: bool,
    /// The session before this one.
    before: Option<String>,
    signs: u32,
    last_sign: Moment,
    warned: Option<Moment>,
    /// Where the two were seen, once it is believed that there are two.
    addresses: Option<[String; 2]>,
}

impl Twins {
    /// Forgets everything: another leadership.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// The node is no longer in the store.
    pub fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// A node was given a session, or keeps the one it has.
    pub fn registered(&mut self, node: &NodeId, session_id: &str, address: &str) {
        let trace = self.nodes.entry(node.clone()).or_default();
        address.clone_into(&mut trace.address);
        if trace.session_id != session_id {
            let before = std::mem::replace(&mut trace.session_id, session_id.to_owned());
            trace.before = Some(before).filter(|before| !before.is_empty());
            trace.in_use = false;
        }
    }

    /// A call with the node's session. Whether the trouble with a second machine is over, which is said once.
    pub fn called(&mut self, now: Moment, node: &NodeId, session_id: &str) -> bool {
        let Some(trace) = self.nodes.get_mut(node).filter(|trace| trace.session_id == session_id) else { return false };
        trace.in_use = true;
        let over = now.saturating_sub(trace.last_sign) >= MEMORY;
        over && trace.addresses.take().is_some()
    }

    /// A call that names a session that is not the node's. Gives the addresses of the two machines when it is time to warn
    /// of them.
    pub fn called_amiss(&mut self, now: Moment, node: &NodeId, session_id: &str, address: &str) -> Option<[String; 2]> {
        let trace = self.nodes.get_mut(node)?;
        if !trace.in_use || trace.before.as_deref() != Some(session_id) {
            return None;
        }
        if now.saturating_sub(trace.last_sign) >= MEMORY {
            trace.signs = 0;
        }
        trace.signs += 1;
        trace.last_sign = now;
        if trace.signs < MIN_SIGNS {
            return None;
        }
        let addresses = [trace.address.clone(), address.to_owned()];
        trace.addresses = Some(addresses.clone());
        if trace.warned.is_some_and(|warned| now.saturating_sub(warned) < WARNING_PAUSE) {
            return None;
        }
        trace.warned = Some(now);
        Some(addresses)
    }

    /// What the node's status is to say.
    pub fn message(&self, node: &NodeId) -> String {
        match self.nodes.get(node).and_then(|trace| trace.addresses.as_ref()) {
            Some([one, other]) => format!(
                "two machines use this node's certificate, at {one} and {other}: one of them must leave the swarm and join again"
            ),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two agents, each of which names the last session that it was given.
    struct Case {
        twins: Twins,
        now: Moment,
        node: NodeId,
        given: u32,
    }

    impl Case {
        fn new() -> Self {
            Self { twins: Twins::default(), now: Moment::from_secs(1000), node: "a".into(), given: 0 }
        }

        fn register(&mut self, wanted: &str, address: &str) -> (String, Option<[String; 2]>) {
            let warning = self.twins.called_amiss(self.now, &self.node, wanted, address);
            self.given += 1;
            let session = format!("s{}", self.given);
            self.twins.registered(&self.node, &session, address);
            self.twins.called(self.now, &self.node, &session);
            self.now += Duration::from_secs(3);
            (session, warning)
        }
    }

    #[test]
    fn a_node_that_comes_back_is_one() {
        let mut case = Case::new();
        let mut session = String::new();
        for round in 0..20 {
            // Its address may be another one each time, and it may have been started anew.
            let wanted = if round % 3 == 0 { "" } else { &session };
            let (given, warning) = case.register(wanted, &format!("10.0.0.{round}"));
            assert_eq!(warning, None);
            session = given;
        }
        // A beat of the session before that was late.
        assert_eq!(case.twins.called_amiss(case.now, &case.node, "s19", "10.0.0.1"), None);
        assert_eq!(case.twins.message(&case.node), "");
    }

    #[test]
    fn two_machines_are_told_of_now_and_then_until_one_is_gone() {
        let mut case = Case::new();
        let (mut one, _) = case.register("", "10.0.0.1");
        let (mut other, _) = case.register("", "10.0.0.2");
        let mut warnings = Vec::new();
        for _ in 0..60 {
            let (given, warning) = case.register(&one, "10.0.0.1");
            one = given;
            warnings.extend(warning.map(|addresses| (case.given, addresses)));
            let (given, warning) = case.register(&other, "10.0.0.2");
            other = given;
            warnings.extend(warning.map(|addresses| (case.given, addresses)));
        }
        let addresses = ["10.0.0.1", "10.0.0.2"].map(str::to_owned);
        assert_eq!(warnings, [(4, addresses.clone()), (104, addresses)], "every five minutes");
        let message = case.twins.message(&case.node);
        assert!(message.contains("10.0.0.1") && message.contains("10.0.0.2"), "{message}");
        assert!(!case.twins.called(case.now, &case.node, &other));
        case.now += MEMORY;
        assert!(case.twins.called(case.now, &case.node, &other), "said once");
        assert!(!case.twins.called(case.now, &case.node, &other));
        assert_eq!(case.twins.message(&case.node), "");
    }
}
