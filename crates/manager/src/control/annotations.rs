//! Which names objects may have.

use crate::error::ControlError;

/// Longest name of a service or network.
const MAX_DNS_NAME: usize = 63;
/// Longest name of a secret or config.
const MAX_SECRET_NAME: usize = 64;

/// Services and networks: `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`, at most 63 characters.
pub(crate) fn check_dns_name(name: &str) -> Result<(), ControlError> {
    if name.is_empty() {
        return Err(ControlError::invalid("meta: name must be provided"));
    }
    let inner = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if !inner || !ends_are_alphanumeric(name) {
        return Err(ControlError::invalid("name must be valid as a DNS name component"));
    }
    if name.len() > MAX_DNS_NAME {
        return Err(ControlError::invalid("name must be 63 characters or fewer"));
    }
    Ok(())
}

/// Secrets and configs: `^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$`, at most 64 characters.
pub(crate) fn check_secret_name(name: &str) -> Result<(), ControlError> {
    if name.is_empty() {
        return Err(ControlError::invalid("name must be provided"));
    }
    let inner = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if name.len() > MAX_SECRET_NAME || !inner || !ends_are_alphanumeric(name) {
        return Err(ControlError::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        ));
    }
    Ok(())
}

fn ends_are_alphanumeric(name: &str) -> bool {
    let ends = [name.bytes().next(), name.bytes().last()];
    ends.iter().all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names() {
        let check = |name: &str, text: &str| {
            let found = check_dns_name(name).err().map(|error| error.desc).unwrap_or_default();
            assert_eq!(found, text, "{name}");
        };
        check("web-1_x", "");
        check("", "meta: name must be provided");
        check("-web", "name must be valid as a DNS name component");
        check("we.b", "name must be valid as a DNS name component");
        check(&"a".repeat(64), "name must be 63 characters or fewer");
    }

    #[test]
    fn secret_names() {
        assert!(check_secret_name("a.b-c_d").is_ok());
        assert!(check_secret_name("a.").is_err());
        assert!(check_secret_name(&"a".repeat(65)).is_err());
    }
}
