//! Classes: nodes that can take the same tasks, in the order of how many tasks they have, so that placing one looks at the
//! first few only. With preferences a class is a tree of label values, and the order is kept in each leaf.
//!
//! An assignment touches no class. So a member may stand under fewer tasks than it has, and may have no room any more: it
//! is put right when it is come across. It never stands under more than it has, and none with room is missing: what ends
//! on a node and what changes a node is looked at in every class.

use super::filters::{Demands, FixedFilter};
use super::group::Spread;
use super::nodes::{Index, NodeInfo};
use model::Node;
use std::collections::{BTreeMap, BTreeSet};

/// How many classes are kept; the one that was not asked for the longest gives way.
pub(super) const CLASS_LIMIT: usize = 128;
/// How many classes are kept however many nodes there are.
const CLASS_MINIMUM: usize = 16;
/// How many places of nodes all classes together may have, beyond [`CLASS_MINIMUM`].
const PLACES_LIMIT: usize = 4_000_000;
/// After how many changes of leaf, beyond the number of nodes, a class is made anew: its tree keeps empty branches.
const MOVES_LIMIT: usize = 1_000;

/// Where a node stands: active tasks, a random number against ties, the node.
pub(super) type Rank = (u32, u64, Index);

/// One label value at one level; the first is the root.
#[derive(Clone, Debug, Default)]
struct Branch {
    parent: usize,
    children: BTreeMap<String, usize>,
    /// At the last level: those that may have room.
    members: BTreeSet<Rank>,
}

/// What a class knows of a node.
#[derive(Clone, Copy, Debug)]
struct Place {
    leaf: usize,
    /// Whether it meets the fixed demands.
    is_eligible: bool,
    /// Under how many tasks it stands in its leaf, if it does.
    tasks: Option<u32>,
}

/// Nodes for the same demands.
#[derive(Clone, Debug)]
pub(super) struct Class {
    demands: Demands,
    spreads: Vec<Spread>,
    filter: FixedFilter,
    branches: Vec<Branch>,
    /// By index.
    places: Vec<Option<Place>>,
    moves: usize,
    last_used: u64,
}

impl Class {
    fn new<'a>(demands: Demands, spreads: &[Spread], nodes: impl Iterator<Item = &'a NodeInfo>) -> Self {
        let filter = demands.fixed.filter();
        let branches = vec![Branch::default()];
        let spreads = spreads.to_vec();
        let mut class = Self { demands, spreads, filter, branches, places: Vec::new(), moves: 0, last_used: 0 };
        nodes.for_each(|info| class.update(info));
        class
    }

    /// The leaf of a node, which is made if it is new.
    fn leaf(&mut self, node: &Node) -> usize {
        let mut at = 0;
        for spread in &self.spreads {
            let value = spread.value(node);
            let known = self.branches[at].children.get(value).copied();
            at = known.unwrap_or_else(|| {
                let child = self.branches.len();
                self.branches.push(Branch { parent: at, ..Default::default() });
                self.branches[at].children.insert(value.to_owned(), child);
                child
            });
        }
        at
    }

    /// A node came or has changed.
    pub(super) fn update(&mut self, info: &NodeInfo) {
        let index = info.index as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        self.set_aside(info);
        let leaf = self.leaf(&info.node);
        self.moves += usize::from(self.places[index].is_some_and(|before| before.leaf != leaf));
        let is_eligible = self.filter.passes(&info.node);
        self.places[index] = Some(Place { leaf, is_eligible, tasks: None });
        if is_eligible {
            self.insert(info);
        }
    }

    /// A node is gone.
    pub(super) fn remove(&mut self, info: &NodeInfo) {
        self.set_aside(info);
        if let Some(place) = self.places.get_mut(info.index as usize) {
            *place = None;
        }
    }

    fn insert(&mut self, info: &NodeInfo) {
        let Some(place) = &mut self.places[info.index as usize] else { return };
        place.tasks = Some(info.active_tasks);
        self.branches[place.leaf].members.insert((info.active_tasks, info.tie, info.index));
    }

    /// The node has no room: it is not come across again until something on it ends or it changes.
    pub(super) fn set_aside(&mut self, info: &NodeInfo) {
        let Some(Some(place)) = self.places.get_mut(info.index as usize) else { return };
        if let Some(tasks) = place.tasks.take() {
            self.branches[place.leaf].members.remove(&(tasks, info.tie, info.index));
        }
    }

    /// Something on the node has ended.
    pub(super) fn freed(&mut self, info: &NodeInfo) {
        let Some(Some(place)) = self.places.get(info.index as usize) else { return };
        let stands_well = match place.tasks {
            Some(tasks) => tasks <= info.active_tasks,
            None => !place.is_eligible || !self.demands.room_fits(info),
        };
        if !stands_well {
            self.set_aside(info);
            self.insert(info);
        }
    }

    /// The member of a leaf after `after`, in the order of load.
    pub(super) fn next_member(&mut self, nodes: &[Option<NodeInfo>], leaf: usize, after: Option<Rank>) -> Option<Rank> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let mut from = after.map_or(Included((0, 0, 0)), Excluded);
        loop {
            let rank = *self.branches[leaf].members.range((from, Unbounded)).next()?;
            let info = nodes[rank.2 as usize].as_ref().expect("removed nodes are taken out of every class");
            from = Excluded(rank);
            if !self.demands.room_fits(info) {
                self.set_aside(info);
            } else if info.active_tasks == rank.0 {
                return Some(rank);
            } else {
                self.set_aside(info);
                self.insert(info);
            }
        }
    }

    /// Whether the node meets the fixed demands.
    pub(super) fn is_eligible(&self, index: Index) -> bool {
        self.places.get(index as usize).copied().flatten().is_some_and(|place| place.is_eligible)
    }

    /// The branches from the node's leaf up to, and without, the root.
    pub(super) fn path_up(&self, index: Index) -> impl Iterator<Item = usize> + '_ {
        let leaf = self.places.get(index as usize).copied().flatten().map_or(0, |place| place.leaf);
        std::iter::successors(Some(leaf), |&at| Some(self.branches[at].parent)).take_while(|&at| at != 0)
    }

    /// The branches below a branch; none: it is a leaf.
    pub(super) fn children(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        self.branches[at].children.values().copied()
    }

    pub(super) fn has_spreads(&self) -> bool {
        !self.spreads.is_empty()
    }

    pub(super) fn filter(&self) -> &FixedFilter {
        &self.filter
    }
}

/// The classes that were asked for last.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    classes: Vec<Class>,
    uses: u64,
}

impl Classes {
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Class> {
        self.classes.iter_mut()
    }

    pub(super) fn get(&self, place: usize) -> &Class {
        &self.classes[place]
    }

    pub(super) fn get_mut(&mut self, place: usize) -> &mut Class {
        &mut self.classes[place]
    }

    /// The class of nodes for `demands`: its place until the next call. What depends on the service (the maximum for a
    /// node) or on other objects (volumes) makes no class.
    pub(super) fn place(&mut self, demands: &Demands, spreads: &[Spread], nodes: &[Option<NodeInfo>]) -> usize {
        self.uses += 1;
        let same = |class: &Class| class.spreads == spreads && class.demands.same_nodes(demands);
        let found = self.classes.iter().position(same);
        let is_fresh = |&place: &usize| self.classes[place].moves <= MOVES_LIMIT + nodes.len();
        let place = found.filter(is_fresh).unwrap_or_else(|| self.add(found, demands, spreads, nodes));
        self.classes[place].last_used = self.uses;
        place
    }

    fn add(
        &mut self,
        stale: Option<usize>,
        demands: &Demands,
        spreads: &[Spread],
        nodes: &[Option<NodeInfo>],
    ) -> usize {
        let demands = Demands { max_replicas: 0, volumes: Vec::new(), ..demands.clone() };
        let class = Class::new(demands, spreads, nodes.iter().flatten());
        let limit = (PLACES_LIMIT / nodes.len().max(1)).clamp(CLASS_MINIMUM, CLASS_LIMIT);
        let oldest = || (0..self.classes.len()).min_by_key(|&place| self.classes[place].last_used);
        let replaced = stale.or_else(|| oldest().filter(|_| self.classes.len() >= limit));
        match replaced {
            Some(place) => {
                self.classes[place] = class;
                place
            }
            None => {
                self.classes.push(class);
                self.classes.len() - 1
            }
        }
    }
}
