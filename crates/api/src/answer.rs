//! Answers: one JSON value and a newline, nothing at all, or a stream.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// Media type of JSON.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON value.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], json_bytes(value)).into_response()
}

/// A JSON value and a newline.
pub(crate) fn json_bytes<T: Serialize>(value: &T) -> Bytes {
    let mut body = serde_json::to_vec(value).expect("the API's types have string keys and no failing serializers");
    body.push(b'\n');
    body.into()
}

/// 200 and a JSON value.
pub(crate) fn ok<T: Serialize>(value: &T) -> Response {
    json(StatusCode::OK, value)
}

/// 201 and a JSON value.
pub(crate) fn created<T: Serialize>(value: &T) -> Response {
    json(StatusCode::CREATED, value)
}

/// 200 with nothing in it.
pub(crate) fn empty() -> Response {
    StatusCode::OK.into_response()
}

/// 201 with nothing in it.
pub(crate) fn created_empty() -> Response {
    StatusCode::CREATED.into_response()
}

/// 204.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 200 and a body that is sent as it comes; the headers leave at once.
pub(crate) fn stream<S, E>(content_type: &'static str, chunks: S) -> Response
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], Body::from_stream(chunks)).into_response()
}

/// One line of a stream of JSON values.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("the API's types have string keys and no failing serializers");
    line.extend_from_slice(b"\r\n");
    line.into()
}
