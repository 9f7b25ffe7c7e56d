//! Finds nodes for the tasks of one group: tasks of one service and spec version, which all demand the same.
//!
//! Without preferences, nodes that have no task of the service yet are taken from the class in the order of load, one by
//! one; only when they are used up is a heap of all fitting nodes made. With preferences, all fitting nodes are put into a
//! tree, one level for each preference, with a heap at each leaf.

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

    /// Whether what runs on a member of the class leaves room.
    pub(super) fn has_room(&self, nodes: &NodeSet, uses: &VolumeUses, info: &NodeInfo) -> bool {
        self.demands.resources_fit(info)
            && self.demands.host_ports_fit(info)
            && (self.demands.max_replicas == 0 || self.demands.replicas_fit(self.tasks_of_service(nodes, info.index)))
            && (self.demands.volumes.is_empty() || uses.choose(self.view, info, &self.demands.volumes).is_some())
    }

    /// The first filter that turns the node down.
    pub(super) fn rejection(&self, nodes: &NodeSet, uses: &VolumeUses, info: &NodeInfo) -> Option<Filter> {
        let fixed = nodes.filter(self.class);
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

/// Picks nodes one after the other.
pub(super) enum Picker {
    /// Members without a task of the service, by load; the rank of the last one looked at.
    Stream(Option<(u32, u64, Index)>),
    /// All fitting nodes.
    Heap(BinaryHeap<Key>),
    /// All fitting nodes under the preferences' labels.
    Tree(Tree),
}

impl Picker {
    pub(super) fn new(
        context: &Context<'_>,
        nodes: &NodeSet,
        uses: &VolumeUses,
        preferences: &[Spread],
        rng: &mut Rng,
    ) -> Self {
        if preferences.is_empty() {
            Self::Stream(None)
        } else {
            Self::Tree(Tree::new(context, nodes, uses, preferences, rng))
        }
    }

    /// The best node for the next task; `None`: there is none, not for any task of the group.
    pub(super) fn next(&mut self, context: &Context<'_>, nodes: &mut NodeSet, uses: &VolumeUses) -> Option<Index> {
        if let Self::Stream(after) = self {
            while let Some(rank) = nodes.next_member(context.class, *after) {
                *after = Some(rank);
                let info = nodes.info(rank.2);
                if context.tasks_of_service(nodes, rank.2) == 0
                    && info.failures(context.service, context.now) == 0
                    && context.has_room(nodes, uses, info)
                {
                    return Some(rank.2);
                }
            }
            let fitting = nodes.members(context.class).filter(|info| context.has_room(nodes, uses, info));
            *self = Self::Heap(fitting.map(|info| context.key(nodes, info)).collect());
        }
        match self {
            Self::Stream(_) => None,
            Self::Heap(heap) => heap.pop().map(|Reverse(key)| key.4),
            Self::Tree(tree) => tree.next(),
        }
    }

    /// The node of the last [`Self::next`] got the task.
    pub(super) fn assigned(&mut self, context: &Context<'_>, nodes: &NodeSet, uses: &VolumeUses, index: Index) {
        let info = nodes.info(index);
        let key = context.has_room(nodes, uses, info).then(|| context.key(nodes, info));
        match self {
            Self::Stream(_) => {}
            Self::Heap(heap) => heap.extend(key),
            Self::Tree(tree) => tree.assigned(key),
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

/// One label value at one level.
#[derive(Default)]
struct Branch {
    /// Active tasks of the service below.
    tasks: u32,
    /// Decides between equals.
    tie: u64,
    children: BTreeMap<String, usize>,
    /// Children that may have room, the one with the fewest tasks first.
    open: BTreeSet<(u32, u64, usize)>,
    /// The nodes, at the last level.
    heap: BinaryHeap<Key>,
}

/// Branches; the first is the root.
pub(super) struct Tree {
    branches: Vec<Branch>,
    /// From the root to the leaf of the last pick.
    path: Vec<usize>,
}

impl Tree {
    fn new(context: &Context<'_>, nodes: &NodeSet, uses: &VolumeUses, preferences: &[Spread], rng: &mut Rng) -> Self {
        let mut tree = Self { branches: vec![Branch::default()], path: Vec::new() };
        for info in nodes.iter() {
            let tasks = context.tasks_of_service(nodes, info.index);
            let mut at = 0;
            tree.branches[at].tasks += tasks;
            for preference in preferences {
                at = tree.child(at, preference.value(&info.node), rng);
                tree.branches[at].tasks += tasks;
            }
            if nodes.is_member(context.class, info.index) && context.has_room(nodes, uses, info) {
                tree.branches[at].heap.push(context.key(nodes, info));
            }
        }
        for at in 0..tree.branches.len() {
            let children = tree.branches[at].children.values();
            tree.branches[at].open = children.map(|&child| tree.standing(child)).collect();
        }
        tree
    }

    fn child(&mut self, at: usize, value: &str, rng: &mut Rng) -> usize {
        if let Some(&child) = self.branches[at].children.get(value) {
            return child;
        }
        let child = self.branches.len();
        self.branches.push(Branch { tie: rng.next_u64(), ..Default::default() });
        self.branches[at].children.insert(value.to_owned(), child);
        child
    }

    fn standing(&self, at: usize) -> (u32, u64, usize) {
        (self.branches[at].tasks, self.branches[at].tie, at)
    }

    fn next(&mut self) -> Option<Index> {
        self.path.clear();
        self.pick(0)
    }

    /// The depth is the number of preferences (see [`PREFERENCE_LIMIT`]).
    fn pick(&mut self, at: usize) -> Option<Index> {
        self.path.push(at);
        if self.branches[at].children.is_empty() {
            return self.branches[at].heap.pop().map(|Reverse(key)| key.4);
        }
        while let Some(&child) = self.branches[at].open.first() {
            if let Some(index) = self.pick(child.2) {
                return Some(index);
            }
            self.path.pop();
            self.branches[at].open.remove(&child);
        }
        None
    }

    fn assigned(&mut self, key: Option<Key>) {
        for step in 1..self.path.len() {
            let (parent, at) = (self.path[step - 1], self.path[step]);
            let standing = self.standing(at);
            self.branches[parent].open.remove(&standing);
            self.branches[at].tasks += 1;
            let standing = self.standing(at);
            self.branches[parent].open.insert(standing);
        }
        if let Some(&leaf) = self.path.last() {
            self.branches[leaf].heap.extend(key);
        }
    }
}
