//! Whether a service's tasks would be spread more evenly if one of them were elsewhere. Asked by [`crate::rebalance`].
//!
//! The levels are the scheduler's own: the values of each preference's label, then nodes. At each level the fullest place
//! gives to the emptiest if they differ by two or more. A move inside a branch leaves the levels above as they are, and
//! each move makes the sum of squares of its level smaller: so there is an end to moving, whatever the order.

use super::filters::Demands;
use super::group::{Context, Spread};
use super::nodes::{Index, NodeSet};
use super::{Scheduler, preferences, versioned_service};
use model::{Node, Service, Task, TaskId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::View;

/// By how many tasks two places must differ before one moves.
pub(crate) const LEAST_DIFFERENCE: u32 = 2;

/// What there is to gain.
#[derive(Clone, Debug)]
pub(crate) enum Better {
    /// Nothing.
    Even,
    /// There would be something, but where there are fewer tasks none has room.
    NoRoom,
    /// One place has at least two tasks more than another.
    Move(Move),
}

/// A task and where it should be.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) task: Arc<Task>,
    pub(crate) node: Arc<Node>,
    /// Tasks of the service at the two places: nodes, or all nodes with a label's value.
    pub(crate) tasks_from: u32,
    pub(crate) tasks_to: u32,
}

/// A node where a task could go: active tasks of the service, all active tasks, a random number, the node.
type Target = (u32, u32, u64, Index);

/// One label value at one level; the first is the root.
#[derive(Default)]
struct Branch {
    tasks: u32,
    children: BTreeMap<String, usize>,
    /// At the last level: fitting or not, all nodes that could be asked.
    members: Vec<Target>,
    /// The node below with a task to give: the fullest.
    source: Option<(u32, Index)>,
    /// The node below that a task would go to.
    target: Option<Target>,
}

struct Branches<'a> {
    all: Vec<Branch>,
    movable: BTreeMap<Index, &'a Arc<Task>>,
}

impl Scheduler {
    /// Which of the `movable` tasks should be elsewhere. `leaving` ones still count on their nodes, but their
    /// replacements are counted already.
    pub(crate) fn better_place(
        &mut self,
        view: &View,
        service: &Service,
        movable: &[Arc<Task>],
        leaving: &BTreeSet<TaskId>,
        now: Timestamp,
    ) -> Better {
        let Some(first) = movable.first() else { return Better::Even };
        let asked = Task { spec: service.spec.task.clone(), spec_version: service.spec_version, ..(**first).clone() };
        let demands = Demands::of(&asked);
        let versioned = versioned_service(&asked);
        let spreads = preferences(&asked);
        let class = self.nodes.class(&demands, &spreads);
        let slot = Some(self.nodes.service_slot(&service.id));
        let context = Context { view, demands: &demands, service: versioned.as_ref(), slot, class, now };
        let mut places: BTreeMap<Index, &Arc<Task>> = BTreeMap::new();
        for task in movable {
            if let Some(index) = task.node_id.as_ref().and_then(|id| self.nodes.index(id)) {
                // The task that came last to its node goes first.
                let place = places.entry(index).or_insert(task);
                if (place.slot, &place.id) < (task.slot, &task.id) {
                    *place = task;
                }
            }
        }
        let less = leaving.iter().filter_map(|id| self.nodes.index(view.task(id)?.node_id.as_ref()?));
        let mut uncounted: BTreeMap<Index, u32> = BTreeMap::new();
        less.for_each(|index| *uncounted.entry(index).or_insert(0) += 1);
        let count = |nodes: &NodeSet, index: Index| {
            nodes.tasks_of_service(slot, index).saturating_sub(uncounted.get(&index).copied().unwrap_or(0))
        };
        let most = places.keys().map(|&index| count(&self.nodes, index)).max().unwrap_or(0);
        if spreads.is_empty() && most < LEAST_DIFFERENCE {
            return Better::Even;
        }
        let mut branches = Branches { all: vec![Branch::default()], movable: places };
        branches.fill(&self.nodes, &spreads, class, &count);
        branches.choose(|index| {
            let info = self.nodes.info(index);
            info.failures(context.service, now) == 0 && context.has_room(&self.nodes, &self.uses, info)
        });
        branches.find(0, &self.nodes)
    }
}

impl Branches<'_> {
    fn fill(&mut self, nodes: &NodeSet, spreads: &[Spread], class: usize, count: &dyn Fn(&NodeSet, Index) -> u32) {
        for info in nodes.iter() {
            let tasks = count(nodes, info.index);
            let mut at = 0;
            self.all[at].tasks += tasks;
            for spread in spreads {
                at = self.child(at, spread.value(&info.node));
                self.all[at].tasks += tasks;
            }
            if nodes.class_at(class).is_eligible(info.index) {
                self.all[at].members.push((tasks, info.active_tasks, info.tie, info.index));
            }
        }
    }

    fn child(&mut self, at: usize, value: &str) -> usize {
        if let Some(&child) = self.all[at].children.get(value) {
            return child;
        }
        let child = self.all.len();
        self.all.push(Branch::default());
        self.all[at].children.insert(value.to_owned(), child);
        child
    }

    /// Finds the best source and target below each branch. Children come after their parents in the list.
    fn choose(&mut self, takes: impl Fn(Index) -> bool) {
        for at in (0..self.all.len()).rev() {
            let mut members = std::mem::take(&mut self.all[at].members);
            members.sort_unstable();
            let mut source = members.iter().rev().find(|it| self.movable.contains_key(&it.3)).map(|it| (it.0, it.3));
            let mut target = members.iter().find(|it| takes(it.3)).copied();
            let children: Vec<usize> = self.all[at].children.values().copied().collect();
            let givers = children.iter().filter(|&&child| self.all[child].source.is_some());
            if let Some(&fullest) = givers.max_by_key(|&&child| self.all[child].tasks) {
                source = self.all[fullest].source;
            }
            let takers = children.iter().filter(|&&child| self.all[child].target.is_some());
            if let Some(&emptiest) = takers.min_by_key(|&&child| self.all[child].tasks) {
                target = self.all[emptiest].target;
            }
            let branch = &mut self.all[at];
            (branch.members, branch.source, branch.target) = (members, source, target);
        }
    }

    /// What there is to gain below a branch; the highest level comes first.
    fn find(&self, at: usize, nodes: &NodeSet) -> Better {
        let branch = &self.all[at];
        let children: Vec<&Branch> = branch.children.values().map(|&child| &self.all[child]).collect();
        // (tasks, node) of the fullest place with a task to give, of the emptiest that takes one, and the emptiest of all.
        let (from, to, least) = if children.is_empty() {
            let to = branch.target.map(|it| (it.0, it.3));
            (branch.source, to, branch.members.first().map(|it| it.0))
        } else {
            let givers = children.iter().filter_map(|child| Some((child.tasks, child.source?.1)));
            let takers = children.iter().filter_map(|child| Some((child.tasks, child.target?.3)));
            let asked = children.iter().filter(|child| child.has_members(&self.all));
            (givers.max_by_key(|it| it.0), takers.min_by_key(|it| it.0), asked.map(|child| child.tasks).min())
        };
        let Some((tasks_from, source)) = from else { return Better::Even };
        if let Some((tasks_to, target)) = to.filter(|to| to.0 + LEAST_DIFFERENCE <= tasks_from) {
            let (task, node) = (self.movable[&source].clone(), nodes.info(target).node.clone());
            return Better::Move(Move { task, node, tasks_from, tasks_to });
        }
        let mut found = match least {
            Some(least) if least + LEAST_DIFFERENCE <= tasks_from => Better::NoRoom,
            _ => Better::Even,
        };
        for &child in branch.children.values() {
            match self.find(child, nodes) {
                Better::Even => {}
                Better::NoRoom => found = Better::NoRoom,
                better @ Better::Move(_) => return better,
            }
        }
        found
    }
}

impl Branch {
    /// Whether there is a node below that meets the fixed demands.
    fn has_members(&self, all: &[Branch]) -> bool {
        !self.members.is_empty() || self.children.values().any(|&child| all[child].has_members(all))
    }
}
