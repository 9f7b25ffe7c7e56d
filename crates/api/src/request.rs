//! What handlers read from a request: query parameters, JSON bodies, the client's API version.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts};
use docker_types::filters::Filters;
use docker_types::json;
use docker_types::version::{self, ApiVersion};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// How large a JSON body may be. The largest that is legitimate is a config of 1 MB in base64.
pub const JSON_BODY_LIMIT: usize = 8 * 1024 * 1024;

/// The credentials a client sends along.
pub(crate) const REGISTRY_AUTH: &str = "x-registry-auth";

/// The version in front of the path, the newest if there was none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientVersion(pub(crate) ApiVersion);

impl<S: Sync> FromRequestParts<S> for ClientVersion {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(version::MAX)))
    }
}

impl ClientVersion {
    /// Whether the client speaks 1.`minor` or newer.
    pub(crate) fn at_least(self, minor: u16) -> bool {
        self.0 >= ApiVersion::new(1, minor)
    }
}

/// Query parameters, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Params {
    pub(crate) fn parse(query: &str) -> Self {
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a parameter, "" if it is not given.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// Whether a parameter is given.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name)
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
    }

    /// dockerd's loose truth: everything but "", 0, no, false, none.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.get(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// Go's `ParseBool`; "" is false.
    pub(crate) fn strict_flag(&self, name: &str) -> Result<bool, ApiError> {
        let value = self.get(name);
        match value {
            "" => Ok(false),
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err(ApiError::bad_request(format!(
                "invalid value for {name}: {value}: strconv.ParseBool: parsing {value:?}: invalid syntax"
            ))),
        }
    }

    /// A whole number, `None` if it is not given.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            value => value.parse().map(Some).map_err(|_| ApiError::bad_request(go_number_error("Atoi", value))),
        }
    }

    /// The version an update is made against.
    pub(crate) fn object_version(&self, kind: &str) -> Result<model::ObjectVersion, ApiError> {
        let value = self.get("version");
        value.parse().map(model::ObjectVersion).map_err(|_| {
            ApiError::bad_request(match kind {
                // dockerd says no more of these
                "secret" | "config" => format!("invalid {kind} version"),
                _ => format!("invalid {kind} version '{value}': {}", go_number_error("ParseUint", value)),
            })
        })
    }

    /// The `filters` parameter, of which only `accepted` keys may be there.
    pub(crate) fn filters(&self, accepted: &[&str]) -> Result<Filters, ApiError> {
        let filters = Filters::parse(self.get("filters"))?;
        filters.validate(accepted)?;
        Ok(filters)
    }
}

pub(crate) fn go_number_error(function: &str, value: &str) -> String {
    let out_of_range = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let reason = if out_of_range { "value out of range" } else { "invalid syntax" };
    format!("strconv.{function}: parsing {value:?}: {reason}")
}

/// Undoes percent encoding; what is no encoding stays.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A body that must be JSON.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _state: &S) -> Result<Self, ApiError> {
        let body = json_bytes(request).await?;
        Ok(Self(json::from_slice(&body)?))
    }
}

async fn json_bytes(request: Request<Body>) -> Result<bytes::Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, JSON_BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let text = format!("request body is larger than {JSON_BODY_LIMIT} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Err(error) => return Err(ApiError::bad_request(format!("invalid JSON: {error}"))),
    };
    check_content_type(&parts.headers, !body.is_empty())?;
    Ok(body)
}

fn check_content_type(headers: &HeaderMap, has_body: bool) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given.is_empty() && !has_body {
        return Ok(());
    }
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::bad_request(if given.is_empty() {
        "malformed Content-Type header (): mime: no media type".to_owned()
    } else {
        format!("unsupported Content-Type header ({given}): must be 'application/json'")
    }))
}

/// A header's text, "" if it is not there.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let params = Params::parse("filters=%7B%22name%22%3A%5B%22a+b%22%5D%7D&t=a&t=b&force&x=%zz");
        assert_eq!(params.filters(&["name"]).unwrap().values("name"), ["a b"]);
        assert_eq!(params.all("t"), ["a", "b"]);
        assert!(params.contains("force") && !params.flag("force"));
        assert_eq!(params.get("x"), "%zz");
    }

    #[test]
    fn flags_are_dockers() {
        for (value, expected) in [("", false), ("0", false), ("No", false), ("none", false), ("1", true), ("x", true)] {
            assert_eq!(Params::parse(&format!("f={value}")).flag("f"), expected, "{value}");
        }
        assert!(Params::parse("f=True").strict_flag("f").unwrap());
        assert_eq!(
            Params::parse("status=maybe").strict_flag("status").unwrap_err().message,
            "invalid value for status: maybe: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(Params::parse("version=7").object_version("swarm").unwrap().0, 7);
        assert_eq!(
            Params::parse("").object_version("swarm").unwrap_err().message,
            "invalid swarm version '': strconv.ParseUint: parsing \"\": invalid syntax"
        );
    }
}
