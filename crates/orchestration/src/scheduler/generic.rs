//! Generic resources: a node has a number of a kind or named pieces of it; a task asks for a number.

use model::{DiscreteGenericResource, GenericResource, GenericResourceKind, NamedGenericResource};
use std::collections::{BTreeMap, BTreeSet};

/// What tasks on a node hold, by kind.
#[derive(Clone, Debug, Default)]
pub struct Held {
    kinds: BTreeMap<String, HeldKind>,
}

#[derive(Clone, Debug, Default)]
struct HeldKind {
    discrete: i64,
    named: BTreeSet<String>,
}

/// How many of each kind `reservations` ask for.
pub fn wanted(reservations: &[GenericResource]) -> Vec<(&str, i64)> {
    let kinds = reservations.iter().filter_map(|it| match &it.resource {
        Some(GenericResourceKind::DiscreteResourceSpec(it)) => Some((it.kind.as_str(), it.value)),
        _ => None,
    });
    kinds.filter(|(_, count)| *count > 0).collect()
}

impl Held {
    /// A task that was assigned `resources` came.
    pub fn add(&mut self, resources: &[GenericResource]) {
        for resource in resources {
            match &resource.resource {
                Some(GenericResourceKind::NamedResourceSpec(it)) => {
                    self.kinds.entry(it.kind.clone()).or_default().named.insert(it.value.clone());
                }
                Some(GenericResourceKind::DiscreteResourceSpec(it)) => {
                    self.kinds.entry(it.kind.clone()).or_default().discrete += it.value;
                }
                None => {}
            }
        }
    }

    /// A task that was assigned `resources` is gone.
    pub fn remove(&mut self, resources: &[GenericResource]) {
        for resource in resources {
            match &resource.resource {
                Some(GenericResourceKind::NamedResourceSpec(it)) => {
                    self.kinds.entry(it.kind.clone()).or_default().named.remove(&it.value);
                }
                Some(GenericResourceKind::DiscreteResourceSpec(it)) => {
                    self.kinds.entry(it.kind.clone()).or_default().discrete -= it.value;
                }
                None => {}
            }
        }
    }

    /// Whether `advertised` less what is held has `count` of `kind`.
    pub fn has_left(&self, advertised: &[GenericResource], kind: &str, count: i64) -> bool {
        self.pick(advertised, kind, count).is_some()
    }

    /// `count` of `kind` out of `advertised`, without those held: the first free names, or the number.
    pub fn pick(&self, advertised: &[GenericResource], kind: &str, count: i64) -> Option<Vec<GenericResource>> {
        let none = HeldKind::default();
        let held = self.kinds.get(kind).unwrap_or(&none);
        let mut picked = Vec::new();
        for resource in advertised {
            match &resource.resource {
                Some(GenericResourceKind::DiscreteResourceSpec(it)) if it.kind == kind => {
                    return (it.value - held.discrete >= count).then(|| vec![discrete(kind, count)]);
                }
                Some(GenericResourceKind::NamedResourceSpec(it)) if it.kind == kind => {
                    if !held.named.contains(&it.value) {
                        picked.push(named(kind, &it.value));
                    }
                    if picked.len() as i64 == count {
                        return Some(picked);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// `value` pieces of `kind`.
pub fn discrete(kind: &str, value: i64) -> GenericResource {
    let spec = DiscreteGenericResource { kind: kind.to_owned(), value };
    GenericResource { resource: Some(GenericResourceKind::DiscreteResourceSpec(spec)) }
}

/// The piece `value` of `kind`.
pub fn named(kind: &str, value: &str) -> GenericResource {
    let spec = NamedGenericResource { kind: kind.to_owned(), value: value.to_owned() };
    GenericResource { resource: Some(GenericResourceKind::NamedResourceSpec(spec)) }
}

#[cfg(test)]
mod tests {
    use super::{Held, discrete, named};

    #[test]
    fn the_first_free_names_are_taken_and_counts_are_counted() {
        let advertised = [named("gpu", "a"), named("gpu", "b"), named("gpu", "c"), discrete("ssd", 3)];
        let mut held = Held::default();
        assert_eq!(held.pick(&advertised, "gpu", 2), Some(vec![named("gpu", "a"), named("gpu", "b")]));
        held.add(&[named("gpu", "a"), discrete("ssd", 2)]);
        assert_eq!(held.pick(&advertised, "gpu", 2), Some(vec![named("gpu", "b"), named("gpu", "c")]));
        assert_eq!(held.pick(&advertised, "ssd", 2), None);
        assert_eq!(held.pick(&advertised, "ssd", 1), Some(vec![discrete("ssd", 1)]));
        assert!(!held.has_left(&advertised, "fpga", 1));
        held.remove(&[named("gpu", "a"), discrete("ssd", 2)]);
        assert!(held.has_left(&advertised, "ssd", 3));
    }
}
