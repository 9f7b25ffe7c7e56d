//! `/exec`: programs run in running containers.

use axum::body::Body;
use axum::extract::{FromRequest, Path, State};
use bytes::Bytes;
use docker_types::exec::{ExecCreateRequest, ExecStartRequest};
use engine::{Attached, OutputFrame, OutputSource};
use http::Request;
use tokio::sync::mpsc;

use crate::answer;
use crate::containers::terminal_size;
use crate::detach;
use crate::engine_backend::EngineResult;
use crate::error::{ApiError, ApiResult};
use crate::frames::{Framing, RAW};
use crate::hijack::Takeover;
use crate::request::{ClientVersion, Json, Params};
use crate::state::Shared;
use crate::streams::{Input, output_only, pump};

/// `POST /containers/{id}/exec`.
pub(crate) async fn create(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    Json(mut request): Json<ExecCreateRequest>,
) -> ApiResult {
    if request.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    if !version.at_least(42) {
        request.console_size = None;
    }
    detach::parse(&request.detach_keys)
        .map_err(|_| ApiError::bad_request(format!("Invalid detach keys ({}) provided", request.detach_keys)))?;
    Ok(answer::created(&state.engine.exec_create(&id, request).await?))
}

/// `POST /exec/{id}/start`. As in dockerd, what fails after the exec was found is written into the stream.
pub(crate) async fn start(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    mut request: Request<Body>,
) -> ApiResult {
    let takeover = Takeover::of(&mut request);
    let Json(mut options) = Json::<ExecStartRequest>::from_request(request, &()).await?;
    state.engine.exec_inspect(&id).await?;
    if !version.at_least(42) || !options.tty {
        options.console_size = None;
    }
    let framing = Framing::of_tty(options.tty);
    if options.detach {
        state.engine.exec_start(&id, options).await?;
        return Ok(answer::empty());
    }
    let Some(takeover) = takeover else {
        let attached = attached_or_told(state.engine.exec_start(&id, options).await);
        return Ok(answer::stream(RAW, output_only(attached, framing)));
    };
    let server = state.clone();
    let serve = move |stream| async move {
        let attached = attached_or_told(server.engine.exec_start(&id, options).await);
        pump(stream, attached, framing, Input::Forwarded, detach::parse("").unwrap_or_default()).await;
    };
    Ok(takeover.answer(&state.sessions, framing.content_type(version), serve))
}

/// The streams of an exec; a refusal becomes its output.
fn attached_or_told(started: EngineResult<Option<Attached>>) -> Attached {
    let (sender, output) = mpsc::channel(1);
    match started {
        Ok(Some(attached)) => return attached,
        Ok(None) => {}
        Err(error) => {
            let bytes = Bytes::from(format!("{error}\r\n"));
            // The queue is empty and its reader stands above.
            let _ = sender.try_send(OutputFrame { source: OutputSource::Stdout, bytes });
        }
    }
    Attached { tty: false, output, input: mpsc::channel(1).0 }
}

pub(crate) async fn inspect(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    Ok(answer::ok(&state.engine.exec_inspect(&id).await?))
}

pub(crate) async fn resize(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    state.engine.exec_resize(&id, terminal_size(&params)?).await?;
    Ok(answer::empty())
}
