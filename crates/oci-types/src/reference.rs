//! Image references with Docker's normalisation: `agrrh/x` is `docker.io/agrrh/x:latest`.

use std::fmt;

use crate::Digest;

/// The registry that a name without one means.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that a name without one means.
pub const DEFAULT_TAG: &str = "latest";

const OFFICIAL_PREFIX: &str = "library/";
const LEGACY_DOMAIN: &str = "index.docker.io";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A full reference: registry, repository, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Malformed.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// Nothing at all.
    #[error("repository name must have at least one component")]
    Empty,
    /// 64 hexadecimal digits would be taken for an id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The digest is malformed or of an unknown algorithm.
    #[error("{0}")]
    Digest(crate::DigestError),
}

impl Reference {
    /// Reads what a user typed. No tag is added: see [`Reference::with_default_tag`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Format);
        }
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::LooksLikeId(text.to_string()));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        };
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') => {
                let tag = &rest[colon + 1..];
                if !is_tag(tag) {
                    return Err(ReferenceError::Format);
                }
                (&rest[..colon], Some(tag.to_string()))
            }
            _ => (rest, None),
        };
        let (domain, path) = split_domain(name);
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(path));
        }
        if !is_domain(&domain) || !is_path(&path) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path, tag, digest })
    }

    /// The same, with `latest` where there is neither tag nor digest.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_string());
        }
        self
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.to_string()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository alone.
    pub fn repository(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// The registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository as users write it: `alpine`, `agrrh/x`, `localhost:5000/x`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_string(),
            _ => self.path.clone(),
        }
    }

    /// The reference as users write it: `alpine:3.20`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    use crate::DigestError;
    Digest::parse(text).map_err(|error| match error {
        DigestError::Algorithm => ReferenceError::Digest(DigestError::Algorithm),
        _ => ReferenceError::Format,
    })
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Docker's rule: the first part is a registry only if it has a dot or a colon, is `localhost`, or has upper case.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first => {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_string(), format!("{OFFICIAL_PREFIX}{path}"));
    }
    (domain.to_string(), path.to_string())
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    !bytes.is_empty()
        && bytes.len() <= TAG_MAX
        && word(&bytes[0])
        && bytes.iter().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
                return false;
            }
            (None, port.strip_prefix(':').or(if port.is_empty() { None } else { Some("") }))
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_path_component)
}

/// Alphanumerics joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    component
        .split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation() {
        for (text, full, familiar) in [
            ("agrrh/dummy-service-py", "docker.io/agrrh/dummy-service-py:latest", "agrrh/dummy-service-py:latest"),
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("localhost:5000/a/b__c:x", "localhost:5000/a/b__c:x", "localhost:5000/a/b__c:x"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("ghcr.io/a---b/c.d", "ghcr.io/a---b/c.d:latest", "ghcr.io/a---b/c.d:latest"),
        ] {
            let reference = Reference::parse(text).unwrap().with_default_tag();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(full).unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn digests() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let reference = Reference::parse(&format!("alpine:3@{digest}")).unwrap().with_default_tag();
        assert_eq!(reference.tag(), Some("3"));
        assert_eq!(reference.digest().unwrap().as_str(), digest);
        let pinned = Reference::parse(&format!("alpine@{digest}")).unwrap().with_default_tag();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.familiar(), format!("alpine@{digest}"));
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            ":x",
            "a/",
            "/a",
            "a//b",
            "a:",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a b",
            "x@sha256:zz",
            "a:b@",
            "ex.com:p/a",
        ] {
            assert_eq!(Reference::parse(text), Err(ReferenceError::Format), "{text}");
        }
        assert_eq!(
            Reference::parse("Foo").unwrap_err().to_string(),
            "invalid reference format: repository name (library/Foo) must be lowercase"
        );
        assert!(matches!(Reference::parse(&"a".repeat(64)), Err(ReferenceError::LooksLikeId(_))));
        assert_eq!(Reference::parse(&"z".repeat(300)), Err(ReferenceError::TooLong));
        assert_eq!(Reference::parse(&format!("a:{}", "t".repeat(129))), Err(ReferenceError::Format));
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "[a-zA-Z0-9./:@_-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                proptest::prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference.clone());
                proptest::prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
