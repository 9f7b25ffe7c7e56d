//! Finds nodes for the tasks of one group: tasks of one service and spec version, which all demand the same.
//!
//! Nodes that have no task of the service yet are taken from a leaf of the class (without preferences it has only one) in
//! the order of load, one by one; only when they are used up is a heap made of the others that were come across. Between
//! leaves, the branch with the fewest tasks of the service comes first, level by level. So a group costs what its service
//! has of tasks and the tree of branches; the number of nodes does not matter.

use super::classes::Rank;
use super::constraint::{ENGINE_LABEL_PREFIX, NODE_LABEL_PREFIX, engine_label, node_label};
use super::filters::{Demands, Filter, Rejections, is_ready};
use super::nodes::{Index, NodeInfo, NodeSet, ServiceSlot, VersionedService};
use super::volumes::VolumeUses;
use model::{Node, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use stdx::Rng;
use store::View;

/// How many preferences are heeded; further ones change nothing.
pub(super) const PREFERENCE_LIMIT: usize = 16;

/// What is known while a group is placed.
pub(super) struct Context<'a> {
    pub(super) view: &'a View,
    pub(super) demands: &'a Demands,
    pub(super) service: Option<&'a VersionedService>,
    pub(super) slot: Option<ServiceSlot>,
    pub(super) class: usize,
    pub(super) now: Timestamp,
}

/// Best first: failures, active tasks of the service, active tasks, a random number, the node.
type Key = Reverse<(u32, u32, u32, u64, Index)>;

impl Context<'_> {
    fn tasks_of_service(&self, nodes: &NodeSet, index: Index) -> u32 {
        nodes.tasks_of_service(self.slot, index)
    }

    fn key(&self, nodes: &NodeSet, info: &NodeInfo) -> Key {
        let failures = info.failures(self.service, self.now);
        Reverse((failures, self.tasks_of_service(nodes, info.index), info.active_tasks, info.tie, info.index))
    }

    /// Whether what runs on a node leaves room.
    pub(super) fn has_room(&self, nodes: &NodeSet, uses: &VolumeUses, info: &NodeInfo) -> bool {
        self.demands.room_fits(info)
            && (self.demands.max_replicas == 0 || self.demands.replicas_fit(self.tasks_of_service(nodes, info.index)))
            && (self.demands.volumes.is_empty() || uses.choose(self.view, info, &self.demands.volumes).is_some())
    }

    /// The first filter that turns the node down.
    pub(super) fn rejection(&self, nodes: &NodeSet, uses: &VolumeUses, info: &NodeInfo) -> Option<Filter> {
        let fixed = nodes.class_at(self.class).filter();
        let checks: [(Filter, &dyn Fn() -> bool); 8] = [
            (Filter::Ready, &|| is_ready(&info.node)),
            (Filter::Resource, &|| self.demands.resources_fit(info)),
            (Filter::Plugin, &|| fixed.plugins_fit(&info.node)),
            (Filter::Constraint, &|| fixed.constraints_fit(&info.node)),
            (Filter::Platform, &|| fixed.platform_fits(&info.node)),
            (Filter::HostPort, &|| self.demands.host_ports_fit(info)),
            (Filter::MaxReplicas, &|| self.demands.replicas_fit(self.tasks_of_service(nodes, info.index))),
            (Filter::Volumes, &|| {
                self.demands.volumes.is_empty() || uses.choose(self.view, info, &self.demands.volumes).is_some()
            }),
        ];
        checks.into_iter().find(|(_, passes)| !passes()).map(|(filter, _)| filter)
    }

    /// Why no node fits.
    pub(super) fn explain(&self, nodes: &NodeSet, uses: &VolumeUses) -> String {
        let mut rejections = Rejections::default();
        for info in nodes.iter() {
            if let Some(filter) = self.rejection(nodes, uses, info) {
                rejections.add(filter);
            }
        }
        rejections.explain()
    }
}

/// How far a leaf was gone through.
enum Leaf {
    /// Members without a task of the service: the last one looked at, and those that come after all others.
    Stream { after: Option<Rank>, later: Vec<Index> },
    /// All fitting ones.
    Heap(BinaryHeap<Key>),
}

/// A branch with several below it.
type Open = BTreeSet<(u32, u64, usize)>;

/// Picks nodes one after the other. Branches are those of the class.
pub(super) struct Picker {
    /// Active tasks of the service below each branch, where there are any.
    tasks: BTreeMap<usize, u32>,
    /// Below each branch that was come across: those that may have room, by tasks and a random number.
    open: BTreeMap<usize, Open>,
    leaves: BTreeMap<usize, Leaf>,
    /// From the root to the leaf of the last pick, with the random number of each.
    path: Vec<(usize, u64)>,
    rng: Rng,
}

impl Picker {
    pub(super) fn new(context: &Context<'_>, nodes: &NodeSet, rng: &mut Rng) -> Self {
        let class = nodes.class_at(context.class);
        let mut tasks = BTreeMap::new();
        if class.has_spreads() {
            for (index, count) in nodes.nodes_of_service(context.slot) {
                class.path_up(index).for_each(|at| *tasks.entry(at).or_insert(0) += count);
            }
        }
        let (open, leaves) = (BTreeMap::new(), BTreeMap::new());
        Self { tasks, open, leaves, path: Vec::new(), rng: Rng::new(rng.next_u64()) }
    }

    /// The best node for the next task; `None`: there is none, not for any task of the group.
    pub(super) fn next(&mut self, context: &Context<'_>, nodes: &mut NodeSet, uses: &VolumeUses) -> Option<Index> {
        self.path.clear();
        self.pick(context, nodes, uses, (0, 0))
    }

    /// The depth is the number of preferences (see [`PREFERENCE_LIMIT`]).
    fn pick(
        &mut self,
        context: &Context<'_>,
        nodes: &mut NodeSet,
        uses: &VolumeUses,
        step: (usize, u64),
    ) -> Option<Index> {
        let at = step.0;
        self.path.push(step);
        if !self.open.contains_key(&at) {
            let children = nodes.class_at(context.class).children(at);
            let tasks = |child| self.tasks.get(&child).copied().unwrap_or(0);
            let open: Open = children.map(|child| (tasks(child), self.rng.next_u64(), child)).collect();
            if open.is_empty() {
                return self.pick_in_leaf(context, nodes, uses, at);
            }
            self.open.insert(at, open);
        }
        while let Some(&child) = self.open.get(&at).and_then(Open::first) {
            if let Some(index) = self.pick(context, nodes, uses, (child.2, child.1)) {
                return Some(index);
            }
            self.path.pop();
            if let Some(open) = self.open.get_mut(&at) {
                open.remove(&child);
            }
        }
        None
    }

    fn pick_in_leaf(
        &mut self,
        context: &Context<'_>,
        nodes: &mut NodeSet,
        uses: &VolumeUses,
        at: usize,
    ) -> Option<Index> {
        let leaf = self.leaves.entry(at).or_insert_with(|| Leaf::Stream { after: None, later: Vec::new() });
        if let Leaf::Stream { after, later } = leaf {
            while let Some(rank) = nodes.next_member(context.class, at, *after) {
                *after = Some(rank);
                let info = nodes.info(rank.2);
                if context.tasks_of_service(nodes, rank.2) == 0
                    && info.failures(context.service, context.now) == 0
                    && context.has_room(nodes, uses, info)
                {
                    return Some(rank.2);
                }
                later.push(rank.2);
            }
            let fitting = later.iter().map(|&index| nodes.info(index));
            let fitting = fitting.filter(|info| context.has_room(nodes, uses, info));
            *leaf = Leaf::Heap(fitting.map(|info| context.key(nodes, info)).collect());
        }
        match leaf {
            Leaf::Stream { .. } => None,
            Leaf::Heap(heap) => heap.pop().map(|Reverse(key)| key.4),
        }
    }

    /// The node of the last [`Self::next`] got the task.
    pub(super) fn assigned(&mut self, context: &Context<'_>, nodes: &NodeSet, uses: &VolumeUses, index: Index) {
        for step in 1..self.path.len() {
            let (parent, (at, tie)) = (self.path[step - 1].0, self.path[step]);
            let tasks = self.tasks.entry(at).or_insert(0);
            *tasks += 1;
            if let Some(open) = self.open.get_mut(&parent) {
                open.remove(&(*tasks - 1, tie, at));
                open.insert((*tasks, tie, at));
            }
        }
        let leaf = self.path.last().and_then(|(leaf, _)| self.leaves.get_mut(leaf));
        match leaf {
            Some(Leaf::Stream { later, .. }) => later.push(index),
            Some(Leaf::Heap(heap)) => {
                let info = nodes.info(index);
                heap.extend(context.has_room(nodes, uses, info).then(|| context.key(nodes, info)));
            }
            None => {}
        }
    }
}

/// A preference: tasks are spread over the values of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    NodeLabel(String),
    EngineLabel(String),
}

impl Spread {
    /// `node.labels.x` or `engine.labels.x`; anything else is no preference.
    pub(super) fn parse(descriptor: &str) -> Option<Self> {
        let label = |prefix: &str| {
            let (head, name) = descriptor.split_at_checked(prefix.len())?;
            (head.eq_ignore_ascii_case(prefix) && !name.is_empty()).then(|| name.to_owned())
        };
        label(NODE_LABEL_PREFIX).map(Self::NodeLabel).or_else(|| label(ENGINE_LABEL_PREFIX).map(Self::EngineLabel))
    }

    pub(super) fn value<'a>(&self, node: &'a Node) -> &'a str {
        match self {
            Self::NodeLabel(name) => node_label(node, name),
            Self::EngineLabel(name) => engine_label(node, name),
        }
    }
}
