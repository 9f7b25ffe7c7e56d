//! Reading answers: the API's JSON, where absent, null and empty mean the same.

use serde_json::Value;

/// The value at a dotted path; `Null` if there is none.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    const NULL: &Value = &Value::Null;
    path.split('.').fold(value, |value, key| value.get(key).unwrap_or(NULL))
}

/// The text at a path; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The number at a path; 0 if there is none.
pub(crate) fn number(value: &Value, path: &str) -> i64 {
    at(value, path).as_i64().unwrap_or_default()
}

/// The list at a path; empty if there is none.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// JSON as Go indents it: four spaces a level, keys in the order that they come in.
pub(crate) fn indented(raw: &str) -> String {
    let (mut out, mut depth, mut in_text, mut is_escaped) = (String::new(), 0_usize, false, false);
    let mut letters = raw.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    while let Some(letter) = letters.next() {
        if in_text {
            out.push(letter);
            in_text = letter != '"' || is_escaped;
            is_escaped = letter == '\\' && !is_escaped;
            continue;
        }
        match letter {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_text = letter == '"';
                out.push(letter);
            }
        }
    }
    out
}

/// Text in a query string.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `--filter key=value` options as the API's `filters` parameter.
pub(crate) fn filters(options: &[String]) -> anyhow::Result<String> {
    filters_with(options, "", &[])
}

/// The same, and `values` of `key` beside what the options ask for.
pub(crate) fn filters_with(options: &[String], key: &str, values: &[String]) -> anyhow::Result<String> {
    let mut map: serde_json::Map<String, Value> = serde_json::Map::new();
    if !values.is_empty() {
        map.insert(key.to_owned(), values.iter().map(|value| (value.clone(), Value::Bool(true))).collect());
    }
    for option in options {
        let (key, value) = option.split_once('=').ok_or_else(|| {
            anyhow::anyhow!(
                "invalid argument {option:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"
            )
        })?;
        let values = map.entry(key.trim().to_lowercase()).or_insert_with(|| Value::Object(Default::default()));
        if let Value::Object(values) = values {
            values.insert(value.trim().to_owned(), Value::Bool(true));
        }
    }
    Ok(encode(&Value::Object(map).to_string()))
}

/// Adds and removes labels of a spec; to remove one that is not there is a mistake, as with docker.
pub(crate) fn change_labels(spec: &mut Value, add: &[String], remove: &[String], of: &str) -> anyhow::Result<()> {
    let mut labels = spec.get("Labels").and_then(Value::as_object).cloned().unwrap_or_default();
    for label in add {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        labels.insert(key.to_owned(), Value::from(value));
    }
    for key in remove {
        if labels.remove(key).is_none() {
            anyhow::bail!("key {key} doesn't exist in {of}'s labels");
        }
    }
    spec["Labels"] = Value::Object(labels);
    Ok(())
}

/// `key=value` options as an object; a bare key has an empty value.
pub(crate) fn pairs(options: &[String]) -> Value {
    let pair = |option: &String| {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        (key.to_owned(), Value::String(value.to_owned()))
    };
    Value::Object(options.iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn json_is_indented_in_its_own_order() {
        let check = |raw: &str, expected: &str| assert_eq!(indented(raw), expected, "{raw}");
        check("[]", "[]");
        check("[ { } , [ ] ]", "[\n    {},\n    []\n]");
        check(
            r#"{"b":1,"a":{"x":"a{,}:\"\\"}}"#,
            "{\n    \"b\": 1,\n    \"a\": {\n        \"x\": \"a{,}:\\\"\\\\\"\n    }\n}",
        );
        check("{\"k\":[true,null,-1.5e3]}", "{\n    \"k\": [\n        true,\n        null,\n        -1.5e3\n    ]\n}");
    }
}
