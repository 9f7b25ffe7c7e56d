//! Whether a node may leave its swarm without force. Pure; the rules are dockerd's.

use model::{Node, NodeId, Reachability};

/// Whether leaving may lose data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveMode {
    /// Refuse where state or quorum would be lost.
    Safe,
    /// Leave whatever it costs.
    Force,
}

/// Why leaving needs force. The API chooses the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaveRefusal {
    /// Its manager is locked: what the swarm would lose is unknown.
    #[error("a locked manager leaves only with force")]
    Locked,
    /// It is the only manager: the swarm would be lost.
    #[error("the last manager leaves only with force")]
    LastManager,
    /// The managers that remain could not agree any more.
    #[error("leaving leaves {remaining} managers out of {total}")]
    QuorumLost {
        /// Managers that would remain reachable.
        remaining: u64,
        /// Managers that there are.
        total: u64,
    },
    /// It is a manager; the others would go on.
    #[error("a manager leaves only with force")]
    Manager,
    /// Its manager does not answer: what the swarm would lose is unknown.
    #[error("a manager that is not active leaves only with force")]
    InactiveManager,
}

/// What is known of the node that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its key is locked.
    Locked,
    /// It is a worker, or could not even start.
    Worker,
    /// Its manager runs and does not answer.
    InactiveManager,
    /// Its manager answers.
    ActiveManager(Managers),
}

/// The managers of the swarm, as they are seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Managers {
    reachable: u64,
    unreachable: u64,
    /// Whether this node is among the reachable ones.
    own: bool,
}

impl Managers {
    /// Counts the nodes that have a manager status.
    pub(crate) fn count<'a>(nodes: impl Iterator<Item = &'a Node>, own: &NodeId) -> Self {
        let mut managers = Self::default();
        for node in nodes {
            match node.manager_status.as_ref().map(|status| status.reachability) {
                Some(Reachability::Reachable) => {
                    managers.reachable += 1;
                    managers.own |= node.id == *own;
                }
                Some(Reachability::Unreachable) => managers.unreachable += 1,
                Some(Reachability::Unknown) | None => {}
            }
        }
        managers
    }
}

/// Whether the node may leave.
pub(crate) fn may_leave(mode: LeaveMode, standing: Standing) -> Result<(), LeaveRefusal> {
    if mode == LeaveMode::Force {
        return Ok(());
    }
    let managers = match standing {
        Standing::Worker => return Ok(()),
        Standing::Locked => return Err(LeaveRefusal::Locked),
        Standing::InactiveManager => return Err(LeaveRefusal::InactiveManager),
        Standing::ActiveManager(managers) => managers,
    };
    let Managers { reachable, unreachable, own } = managers;
    // Without this node, reachable - 1 managers face unreachable ones, of which the majority must be reachable.
    if !own || reachable > unreachable + 2 {
        return Err(LeaveRefusal::Manager);
    }
    if reachable == 1 && unreachable == 0 {
        return Err(LeaveRefusal::LastManager);
    }
    Err(LeaveRefusal::QuorumLost { remaining: reachable - 1, total: reachable + unreachable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managers(reachable: u64, unreachable: u64) -> Standing {
        Standing::ActiveManager(Managers { reachable, unreachable, own: true })
    }

    #[test]
    fn leaving_is_refused_as_dockerd_refuses_it() {
        let table = [
            (Standing::Worker, Ok(())),
            (Standing::Locked, Err(LeaveRefusal::Locked)),
            (Standing::InactiveManager, Err(LeaveRefusal::InactiveManager)),
            (managers(1, 0), Err(LeaveRefusal::LastManager)),
            (managers(2, 0), Err(LeaveRefusal::QuorumLost { remaining: 1, total: 2 })),
            (managers(2, 1), Err(LeaveRefusal::QuorumLost { remaining: 1, total: 3 })),
            (managers(3, 0), Err(LeaveRefusal::Manager)),
            (managers(3, 2), Err(LeaveRefusal::QuorumLost { remaining: 2, total: 5 })),
            (
                Standing::ActiveManager(Managers { reachable: 1, unreachable: 1, own: false }),
                Err(LeaveRefusal::Manager),
            ),
        ];
        for (standing, expected) in table {
            assert_eq!(may_leave(LeaveMode::Safe, standing), expected, "{standing:?}");
            assert_eq!(may_leave(LeaveMode::Force, standing), Ok(()), "{standing:?}");
        }
    }

    #[test]
    fn managers_are_counted_by_their_reachability() {
        let node = |id: &str, reachability| Node {
            id: id.into(),
            manager_status: Some(model::ManagerStatus { reachability, ..Default::default() }),
            ..Node::default()
        };
        let nodes = [
            node("a", Reachability::Reachable),
            node("b", Reachability::Unreachable),
            node("c", Reachability::Unknown),
            Node { id: "d".into(), ..Node::default() },
        ];
        let counted = Managers::count(nodes.iter(), &"a".into());
        assert_eq!(counted, Managers { reachable: 1, unreachable: 1, own: true });
        assert!(!Managers::count(nodes.iter(), &"d".into()).own);
    }
}
