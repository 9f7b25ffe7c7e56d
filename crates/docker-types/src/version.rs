//! Versions of the Engine API: `1.24` … `1.51`.

use std::fmt;

use thiserror::Error;

/// A version of the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
}

/// The newest version that is spoken.
pub const MAX: ApiVersion = ApiVersion::new(1, 51);
/// The oldest version that is spoken.
pub const MIN: ApiVersion = ApiVersion::new(1, 24);

/// Why a version is refused; the texts are dockerd's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum VersionError {
    /// Older than [`MIN`].
    #[error(
        "client version {0} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer version"
    )]
    TooOld(ApiVersion),
    /// Newer than [`MAX`].
    #[error("client version {0} is too new. Maximum supported API version is {MAX}")]
    TooNew(ApiVersion),
}

impl ApiVersion {
    /// A version.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Reads `1.51`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(major) && digits(minor)).then_some(())?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Refuses what is not spoken.
    pub fn check(self) -> Result<(), VersionError> {
        match self {
            version if version < MIN => Err(VersionError::TooOld(version)),
            version if version > MAX => Err(VersionError::TooNew(version)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let parse = |text| ApiVersion::parse(text).unwrap();
        assert!(parse("1.9") < parse("1.10"));
        assert_eq!(parse("1.51").to_string(), "1.51");
        for text in ["", "1", "1.", ".1", "1.x", "v1.2", "1.2.3", "+1.2"] {
            assert_eq!(ApiVersion::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        assert_eq!(
            ApiVersion::new(1, 23).check().unwrap_err().to_string(),
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert_eq!(
            ApiVersion::new(1, 52).check().unwrap_err().to_string(),
            "client version 1.52 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(MAX.check(), Ok(()));
        assert_eq!(MIN.check(), Ok(()));
    }
}
