//! The `filters` query parameter, in both forms: `{"label":{"a=b":true}}` and the old `{"label":["a=b"]}`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use thiserror::Error;

/// Why filters were refused; the texts are dockerd's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FilterError {
    /// It is not JSON of one of the two forms.
    #[error("invalid filter")]
    Unparsable,
    /// A key that this list does not know.
    #[error("invalid filter '{0}'")]
    UnknownKey(String),
    /// A value that this key does not take.
    #[error("invalid filter '{key}={}'", .values.join(", "))]
    BadValue {
        /// Key.
        key: String,
        /// Values.
        values: Vec<String>,
    },
}

/// Filters of a list: values by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads the query parameter's text; empty text is no filter.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(text).map_err(|_| FilterError::Unparsable)?;
        let object = match value {
            Value::Object(object) => object,
            Value::Null => return Ok(Self::default()),
            _ => return Err(FilterError::Unparsable),
        };
        let mut filters = Self::default();
        for (key, values) in object {
            filters.0.insert(key, values_of(values)?);
        }
        Ok(filters)
    }

    /// Adds a value.
    pub fn insert(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// The parameter's text, for clients.
    pub fn to_query(&self) -> String {
        let object: BTreeMap<_, BTreeMap<_, _>> =
            self.0.iter().map(|(key, values)| (key, values.iter().map(|value| (value, true)).collect())).collect();
        serde_json::to_string(&object).expect("maps of strings are always JSON")
    }

    /// Refuses keys that are not in `accepted`.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|key| !accepted.contains(&key.as_str())) {
            Some(key) => Err(FilterError::UnknownKey(key.clone())),
            None => Ok(()),
        }
    }

    /// Whether nothing is filtered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key is given.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The key's values, none if it is not given.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// The key's values, owned.
    pub fn values(&self, key: &str) -> Vec<String> {
        self.get(key).map(str::to_owned).collect()
    }

    /// The key's values as `key=value` labels; a label without `=` has an empty value.
    pub fn labels(&self, key: &str) -> BTreeMap<String, String> {
        self.get(key)
            .map(|label| {
                let (name, value) = label.split_once('=').unwrap_or((label, ""));
                (name.to_owned(), value.to_owned())
            })
            .collect()
    }

    /// Whether `value` is one of the key's, or the key is not given.
    pub fn matches_exact(&self, key: &str, value: &str) -> bool {
        self.0.get(key).is_none_or(|values| values.is_empty() || values.contains(value))
    }

    /// Whether `value` contains one of the key's values (Go matches them as regular expressions or as parts), or the key is not given.
    pub fn matches_part(&self, key: &str, value: &str) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.iter().any(|wanted| value.contains(wanted.as_str())))
    }

    /// Whether `value` starts with one of the key's values, or the key is not given.
    pub fn matches_prefix(&self, key: &str, value: &str) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.iter().any(|wanted| value.starts_with(wanted.as_str())))
    }

    /// Whether every label asked for under the key is there, with that value if one is given.
    pub fn matches_labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|label| match label.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(label),
        })
    }

    /// A key that is true or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let Some(values) = self.0.get(key) else { return Ok(None) };
        let is = |words: [&str; 2]| words.iter().any(|word| values.contains(*word));
        match (is(["1", "true"]), is(["0", "false"])) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            _ => Err(FilterError::BadValue { key: key.to_owned(), values: values.iter().cloned().collect() }),
        }
    }
}

fn values_of(values: Value) -> Result<BTreeSet<String>, FilterError> {
    match values {
        Value::Object(object) => Ok(object.into_iter().map(|(value, _)| value).collect()),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(FilterError::Unparsable),
            })
            .collect(),
        Value::Null => Ok(BTreeSet::new()),
        _ => Err(FilterError::Unparsable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let new = Filters::parse(r#"{"label":{"a=b":true,"c":true},"name":{"x":true}}"#).unwrap();
        let old = Filters::parse(r#"{"label":["a=b","c"],"name":["x"]}"#).unwrap();
        assert_eq!(new, old);
        assert_eq!(Filters::parse(&new.to_query()).unwrap(), new);
        assert_eq!(Filters::parse("").unwrap(), Filters::default());
    }

    #[test]
    fn bad_filters_have_dockers_texts() {
        for text in ["{", "[]", "1", r#"{"a":1}"#, r#"{"a":[1]}"#] {
            assert_eq!(Filters::parse(text).unwrap_err().to_string(), "invalid filter", "{text}");
        }
        let error = Filters::parse(r#"{"nam":["x"]}"#).unwrap().validate(&["name"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid filter 'nam'");
    }

    #[test]
    fn labels_match_by_key_or_by_key_and_value() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for (text, passes) in [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=b"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
            (r#"{"label":["a","x"]}"#, false),
        ] {
            assert_eq!(Filters::parse(text).unwrap().matches_labels("label", &labels), passes, "{text}");
        }
    }

    #[test]
    fn flags_are_one_of_two() {
        let flag = |text: &str| Filters::parse(text).unwrap().flag("dangling");
        assert_eq!(flag("{}"), Ok(None));
        assert_eq!(flag(r#"{"dangling":["1"]}"#), Ok(Some(true)));
        assert_eq!(flag(r#"{"dangling":{"false":true}}"#), Ok(Some(false)));
        assert!(flag(r#"{"dangling":["true","false"]}"#).is_err());
    }
}
