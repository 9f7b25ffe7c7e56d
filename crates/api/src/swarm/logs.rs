//! `/services/{id}/logs` and `/tasks/{id}/logs`.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use bytes::Bytes;
use docker_types::time;
use model::{TaskRuntime, TaskSpec};
use std::convert::Infallible;
use tokio::sync::mpsc;

use crate::answer;
use crate::error::{ApiError, ApiResult};
use crate::frames::{Channel, Framing};
use crate::lookup;
use crate::request::{ClientVersion, Params};
use crate::state::Shared;
use crate::swarm_backend::{InsertDefaults, LogMessage, LogOptions, LogSelector, LogStream, SwarmResult};

/// How lines are shown.
#[derive(Clone, Copy, Debug)]
struct LineStyle {
    framing: Framing,
    timestamps: bool,
    details: bool,
}

pub(crate) async fn of_service(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
) -> ApiResult {
    let options = log_options(&params)?;
    let service = lookup::service(&*state.swarm, &id, InsertDefaults::No).await?;
    let selector = LogSelector { service_ids: vec![service.id], ..LogSelector::default() };
    answer_with(&state, selector, options, has_tty(&service.spec.task), version, &params).await
}

pub(crate) async fn of_task(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
) -> ApiResult {
    let options = log_options(&params)?;
    let task = lookup::task(&*state.swarm, &id).await?;
    let selector = LogSelector { task_ids: vec![task.id], ..LogSelector::default() };
    answer_with(&state, selector, options, has_tty(&task.spec), version, &params).await
}

fn has_tty(spec: &TaskSpec) -> bool {
    matches!(&spec.runtime, Some(TaskRuntime::Container(container)) if container.tty)
}

async fn answer_with(
    state: &Shared,
    selector: LogSelector,
    options: LogOptions,
    tty: bool,
    version: ClientVersion,
    params: &Params,
) -> ApiResult {
    let framing = Framing::of_tty(tty);
    let style = LineStyle { framing, timestamps: params.flag("timestamps"), details: params.flag("details") };
    let messages = state.swarm.logs(selector, options).await?;
    let frames = futures::stream::unfold(messages, move |messages| next_frame(messages, style));
    Ok(answer::stream(framing.content_type(version), frames))
}

type Messages = mpsc::Receiver<SwarmResult<LogMessage>>;

async fn next_frame(mut messages: Messages, style: LineStyle) -> Option<(Result<Bytes, Infallible>, Messages)> {
    let frame = match messages.recv().await? {
        Ok(message) => {
            let channel = match message.stream {
                LogStream::Stdout => Channel::Stdout,
                LogStream::Stderr => Channel::Stderr,
            };
            style.framing.wrap(channel, line(&message, style))
        }
        Err(error) => style.framing.wrap(Channel::System, format!("Error grabbing logs: {error}\n").into()),
    };
    Some((Ok(frame), messages))
}

/// Timestamp, details, text.
fn line(message: &LogMessage, style: LineStyle) -> Bytes {
    let mut line = Vec::with_capacity(message.data.len() + 64);
    if style.timestamps {
        line.extend_from_slice(time::format_fixed(message.timestamp.unwrap_or_default()).as_bytes());
        line.push(b' ');
    }
    if style.details {
        let mut details: BTreeMap<&str, &str> =
            message.attrs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        details.insert("com.docker.swarm.node.id", message.node_id.as_str());
        details.insert("com.docker.swarm.service.id", message.service_id.as_str());
        details.insert("com.docker.swarm.task.id", message.task_id.as_str());
        line.extend_from_slice(details_text(&details).as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(&message.data);
    line.into()
}

/// `k=v` pairs, URL-encoded, sorted by key.
pub(crate) fn details_text(details: &BTreeMap<&str, &str>) -> String {
    let pairs: Vec<_> = details.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    pairs.join(",")
}

/// Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn log_options(params: &Params) -> Result<LogOptions, ApiError> {
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::internal("Bad parameters: you must choose at least one stream"));
    }
    let since = match params.get("since") {
        "" | "0" => None,
        text => Some(
            time::parse_unix(text)
                .ok_or_else(|| ApiError::bad_request(format!("invalid value for \"since\": {text:?}")))?,
        ),
    };
    Ok(LogOptions { stdout, stderr, follow: params.flag("follow"), tail: tail(params.get("tail")), since })
}

/// `None` for all lines: also for what is no number, as dockerd has it.
pub(crate) fn tail(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_timestamp_details_and_text() {
        let message = LogMessage {
            service_id: "s".into(),
            node_id: "n".into(),
            task_id: "t".into(),
            timestamp: Some(model::Timestamp { seconds: 1, nanos: 2 }),
            data: b"hello\n".to_vec(),
            attrs: BTreeMap::from([("a b".to_owned(), "c/d".to_owned())]),
            ..LogMessage::default()
        };
        let style = LineStyle { framing: Framing::Raw, timestamps: true, details: true };
        assert_eq!(
            line(&message, style),
            "1970-01-01T00:00:01.000000002Z a+b=c%2Fd,com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t hello\n"
        );
    }

    #[test]
    fn a_stream_must_be_chosen() {
        let error = log_options(&Params::parse("follow=1")).unwrap_err();
        assert_eq!(error.status.as_u16(), 500);
        assert_eq!(error.message, "Bad parameters: you must choose at least one stream");
        assert_eq!(log_options(&Params::parse("stdout=1&tail=all")).unwrap().tail, None);
        assert_eq!(log_options(&Params::parse("stdout=1&tail=5")).unwrap().tail, Some(5));
    }
}
