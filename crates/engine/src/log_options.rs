//! `--log-opt` of the driver json-file.

use std::collections::BTreeMap;

use docker_types::container::{ContainerConfig, LogConfig};

use crate::EngineError;

/// Reads `10m`, `1g`, `512k`, `100`; -1 or 0 is no bound.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        b't' => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    if digits == "-1" {
        return Some(0);
    }
    let value: f64 = digits.trim().parse().ok()?;
    (value >= 0.0 && value.is_finite()).then(|| (value * (1u64 << shift) as f64) as u64)
}

/// Refuses values that cannot be read.
pub(crate) fn check(name: &str, value: &str) -> Result<(), EngineError> {
    match name {
        "max-size" if parse_size(value).is_none() => Err(EngineError::invalid(format!("invalid size: '{value}'"))),
        "max-file" if value.parse::<u32>().is_ok_and(|count| count < 1) => {
            Err(EngineError::invalid("max-file cannot be less than 1"))
        }
        "max-file" if value.parse::<u32>().is_err() => {
            Err(EngineError::invalid(format!("strconv.Atoi: parsing \"{value}\": invalid syntax")))
        }
        "compress" if value.parse::<bool>().is_err() => {
            Err(EngineError::invalid(format!("strconv.ParseBool: parsing \"{value}\": invalid syntax")))
        }
        _ => Ok(()),
    }
}

/// What each line of the log carries: labels and variables that `labels` and `env` name, and the tag.
pub(crate) fn attributes(log: &LogConfig, config: &ContainerConfig, id: &str, name: &str) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let none = BTreeMap::new();
    let options = log.config.as_ref().unwrap_or(&none);
    let listed = |key: &str| options.get(key).map_or("", String::as_str).split(',').filter(|word| !word.is_empty());
    let labels = config.labels.as_ref();
    for label in listed("labels") {
        if let Some(value) = labels.and_then(|labels| labels.get(label)) {
            attributes.insert(label.to_owned(), value.clone());
        }
    }
    for wanted in listed("env") {
        for variable in config.env.as_deref().unwrap_or_default() {
            if let Some((name, value)) = variable.split_once('=').filter(|(name, _)| *name == wanted) {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        let short = &id[..12.min(id.len())];
        let image = config.image.as_str();
        let tag = tag
            .replace("{{.ID}}", short)
            .replace("{{.FullID}}", id)
            .replace("{{.Name}}", name)
            .replace("{{.ImageName}}", image)
            .replace("{{.DaemonName}}", "docker");
        attributes.insert("tag".to_owned(), tag);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("10m", 10 << 20), ("1g", 1 << 30), ("1.5k", 1536), ("100", 100), ("-1", 0), ("2KB", 2048)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        assert_eq!(parse_size("x"), None);
        assert!(check("max-file", "0").is_err() && check("max-file", "3").is_ok() && check("compress", "x").is_err());
    }

    #[test]
    fn attributes_are_what_is_listed() {
        let options = [("labels", "a,zz"), ("env", "E"), ("tag", "{{.Name}}/{{.ID}}")];
        let log = LogConfig {
            kind: "json-file".into(),
            config: Some(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        };
        let config = ContainerConfig {
            labels: Some([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into()),
            env: Some(vec!["E=x=y".into(), "F=1".into()]),
            ..ContainerConfig::default()
        };
        let found = attributes(&log, &config, &"c".repeat(64), "web");
        let expected = [("a", "1"), ("E", "x=y"), ("tag", "web/cccccccccccc")];
        assert_eq!(found, expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    }
}
