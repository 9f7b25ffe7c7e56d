//! `WWW-Authenticate`: what a registry wants to see, and the bodies of its errors.

use serde::Deserialize;

/// A way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token of a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// The registry's name there.
        service: String,
    },
}

/// The challenges of a header; unknown schemes are left out.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    headers.filter_map(parse_one).collect()
}

fn parse_one(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, String::new());
    for (key, value) in parameters(rest) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = value,
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service })
}

/// `key="value",key=value`; quotes may hold commas and escapes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| *letter == ',' || letter.is_whitespace()).is_some() {}
        let mut key = String::new();
        while let Some(letter) = letters.next_if(|letter| !matches!(letter, '=' | ',')) {
            key.push(letter);
        }
        if letters.next_if_eq(&'=').is_none() {
            return found;
        }
        let mut value = String::new();
        if letters.next_if_eq(&'"').is_some() {
            while let Some(letter) = letters.next() {
                match letter {
                    '"' => break,
                    '\\' => value.extend(letters.next()),
                    other => value.push(other),
                }
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                value.push(letter);
            }
        }
        found.push((key.trim().to_string(), value));
    }
}

/// The first error of a registry's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RegistryErrorBody {
    /// `MANIFEST_UNKNOWN`, …; empty if the body was something else.
    pub(super) code: String,
    /// Go's way to write it: `manifest unknown: manifest unknown`.
    pub(super) text: String,
}

/// Reads the body of an error; nonsense gives an empty one.
pub(super) fn error_body(bytes: &[u8]) -> RegistryErrorBody {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Details {
        details: String,
    }
    let first = serde_json::from_slice::<Body>(bytes).ok().and_then(|body| body.errors.into_iter().next());
    match first {
        Some(One { code, message }) => {
            let words = code.to_lowercase().replace('_', " ");
            let text = match message.filter(|message| !message.is_empty()) {
                Some(message) => format!("{words}: {message}"),
                None => words,
            };
            RegistryErrorBody { code, text }
        }
        // token servers have a form of their own
        None => match serde_json::from_slice::<Details>(bytes) {
            Ok(Details { details }) => RegistryErrorBody { code: String::new(), text: details },
            Err(_) => RegistryErrorBody::default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let header = r#"Bearer realm="https://a.example/token",service="reg, \"x\"",scope="repository:a/b:pull""#;
        assert_eq!(
            parse([header, "Basic realm=x", "Negotiate"].into_iter()),
            [
                Challenge::Bearer { realm: "https://a.example/token".into(), service: "reg, \"x\"".into() },
                Challenge::Basic
            ]
        );
        assert_eq!(parse(["Bearer", "Bearer realm", "", "Bearer service=\"x"].into_iter()), []);
    }

    #[test]
    fn errors() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(error_body(body).text, "manifest unknown: manifest unknown");
        assert_eq!(error_body(b"<html>"), RegistryErrorBody::default());
        assert_eq!(error_body(br#"{"errors":[]}"#), RegistryErrorBody::default());
    }
}
