//! SwarmKit's list filters: any value of a field will do, all fields must match.

use std::collections::BTreeMap;
use std::collections::HashMap;

use model::Annotations;

/// The filters that all kinds of objects share.
pub(super) struct Common<'a> {
    pub(super) names: &'a [String],
    pub(super) name_prefixes: &'a [String],
    pub(super) id_prefixes: &'a [String],
    pub(super) labels: &'a HashMap<String, String>,
}

/// The shared filters of a message that has them all.
macro_rules! common {
    ($filters:expr) => {
        $crate::control_service::filter::Common {
            names: &$filters.names,
            name_prefixes: &$filters.name_prefixes,
            id_prefixes: &$filters.id_prefixes,
            labels: &$filters.labels,
        }
    };
}
pub(super) use common;

impl Common<'_> {
    /// Whether an object with these annotations passes.
    pub(super) fn takes(&self, id: &str, annotations: &Annotations) -> bool {
        self.takes_named(id, &annotations.name, &annotations.labels)
    }

    /// Whether an object with this name and these labels passes.
    pub(super) fn takes_named(&self, id: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        any_or_none(self.names, |wanted| wanted == name)
            && any_or_none(self.name_prefixes, |prefix| name.starts_with(prefix.as_str()))
            && any_or_none(self.id_prefixes, |prefix| id.starts_with(prefix.as_str()))
            && has_labels(self.labels, labels)
    }
}

/// Whether no value is asked for, or one of them fits.
pub(super) fn any_or_none<T>(wanted: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

/// Whether each wanted label is there and, if a value is asked for, has it.
pub(super) fn has_labels(wanted: &HashMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    let fits =
        |(key, value): (&String, &String)| labels.get(key).is_some_and(|found| value.is_empty() || found == value);
    wanted.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_joined_by_and_values_by_or() {
        let labels: BTreeMap<_, _> = [("a".to_owned(), "1".to_owned())].into();
        let annotations = Annotations { name: "web-1".into(), labels, ..Default::default() };
        let check = |names: &[&str], prefixes: &[&str], ids: &[&str], label: Option<(&str, &str)>, expected: bool| {
            let list = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
            let (names, name_prefixes, id_prefixes) = (list(names), list(prefixes), list(ids));
            let labels = label.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let common =
                Common { names: &names, name_prefixes: &name_prefixes, id_prefixes: &id_prefixes, labels: &labels };
            assert_eq!(common.takes("id1", &annotations), expected, "{names:?} {name_prefixes:?} {id_prefixes:?}");
        };
        check(&[], &[], &[], None, true);
        check(&["x", "web-1"], &["web"], &["id"], Some(("a", "")), true);
        check(&["web"], &[], &[], None, false);
        check(&["WEB-1"], &[], &[], None, false);
        check(&["web-1"], &["x"], &[], None, false);
        check(&[], &[], &["x"], None, false);
        check(&[], &[], &[], Some(("a", "1")), true);
        check(&[], &[], &[], Some(("a", "2")), false);
        check(&[], &[], &[], Some(("b", "")), false);
    }
}
