//! A follower passes calls on to the leader, as HTTP/2 requests: no message is decoded, streams flow through. What the
//! leader needs to know of the caller goes into the metadata; whatever the caller put there itself goes out.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::authorize::{
    FORWARDED, FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU, FORWARDING_KEYS, REDIRECT, REMOTE_ADDR, Subject,
};
use crate::leadership::{Leader, Leadership, Remote};
use crate::methods::{Method, Shape};

/// Largest message that a manager takes; SwarmKit's. Five bytes open each.
const MAX_CALL_BYTES: usize = (4 << 20) + 5;

/// In whose name a call is passed on.
#[derive(Clone, Debug)]
pub(crate) enum Behalf {
    /// This node's own agent: as a call of the manager itself.
    Ourselves,
    /// A caller from elsewhere, with its certificate's subject if it showed one.
    Caller { subject: Option<Subject>, address: String },
}

/// What became of a call that was to be passed on.
pub(crate) enum Forwarded {
    /// The leader answered.
    Answer(Response<Body>),
    /// This manager leads by now: here is the call.
    Here(Request<Body>),
}

/// Passes a call on to `leader`. One of a single message is sent once more if the connection breaks under it.
pub(crate) async fn forward(
    leadership: &Leadership,
    leader: Remote,
    method: Method,
    behalf: &Behalf,
    request: Request<Body>,
) -> Result<Forwarded, Status> {
    let (parts, body) = request.into_parts();
    let headers = with_identity(&parts.headers, behalf)?;
    let remake = |headers: &HeaderMap, body: Body| {
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = headers.clone();
        request
    };
    if method.shape == Shape::Stream {
        let sent = leader.channel.clone().oneshot(remake(&headers, body)).await;
        return sent.map(Forwarded::Answer).map_err(|error| broken(&error));
    }
    let message = collect(body).await?;
    match send(leadership, &leader, remake(&headers, whole(&message))).await {
        Ok(answer) => return Ok(Forwarded::Answer(answer)),
        Err(error) => tracing::debug!(%error, leader = leader.leadership.addr, "the way to the leader broke"),
    }
    match leadership.find_again(&leader.leadership).await? {
        // Its own services see the metadata as it came; the gate strips it.
        Leader::Here => Ok(Forwarded::Here(remake(&parts.headers, whole(&message)))),
        Leader::There(leader) => {
            send(leadership, &leader, remake(&headers, whole(&message))).await.map(Forwarded::Answer)
        }
    }
}

/// One try; given up when another leads, since a leader that is cut off may never answer.
async fn send(leadership: &Leadership, leader: &Remote, request: Request<Body>) -> Result<Response<Body>, Status> {
    let mut channel = leader.channel.clone();
    let call = async {
        let ready = channel.ready().await.map_err(|error| broken(&error))?;
        ready.call(request).await.map_err(|error| broken(&error))
    };
    tokio::select! {
        // Dropped when the other arm is first: the leader learns that nobody waits.
        answer = call => answer,
        // Level-triggered.
        () = leadership.over(&leader.leadership) => Err(Status::unavailable("connection error: the leader changed")),
    }
}

async fn collect(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_CALL_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::resource_exhausted(format!("grpc: received message larger than max ({MAX_CALL_BYTES})")))
        }
        // A bound of the gate's speaks for itself.
        Err(error) => Err(match error.downcast_ref::<Status>() {
            Some(status) => status.clone(),
            None => Status::cancelled(format!("the call broke off: {error}")),
        }),
    }
}

fn whole(message: &Bytes) -> Body {
    Body::new(Full::new(message.clone()))
}

/// The call's metadata with the caller's identity in place of whatever it held of that kind.
fn with_identity(metadata: &HeaderMap, behalf: &Behalf) -> Result<HeaderMap, Status> {
    let mut headers = stripped(metadata.clone());
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Status::invalid_argument("a certificate's subject is not ASCII"))
    };
    match behalf {
        Behalf::Ourselves => drop(headers.insert(REDIRECT, HeaderValue::from_static("local"))),
        Behalf::Caller { subject, address } => {
            let (node_id, cluster_id) =
                subject.as_ref().map_or(("", ""), |subject| (subject.node_id.as_str(), subject.cluster_id.as_str()));
            headers.insert(FORWARDED, HeaderValue::from_static("true"));
            headers.insert(FORWARDED_CN, value(node_id)?);
            headers.insert(FORWARDED_ORG, value(cluster_id)?);
            for unit in subject.iter().flat_map(|subject| &subject.units) {
                headers.append(FORWARDED_OU, value(unit)?);
            }
            headers.insert(REMOTE_ADDR, value(address)?);
            headers.insert(REDIRECT, value(address)?);
        }
    }
    Ok(headers)
}

/// Metadata without the keys that only managers may set.
pub(crate) fn stripped(mut headers: HeaderMap) -> HeaderMap {
    for key in FORWARDING_KEYS {
        headers.remove(key);
    }
    headers
}

/// A connection's error with all that is behind it, as SwarmKit's clients know it.
fn broken(error: &tonic::transport::Error) -> Status {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Status::unavailable(format!("connection error: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_says_of_itself_is_replaced() {
        let mut forged = HeaderMap::new();
        for key in FORWARDING_KEYS {
            forged.append(key, HeaderValue::from_static("forged"));
            forged.append(key, HeaderValue::from_static("twice"));
        }
        forged.insert("grpc-timeout", HeaderValue::from_static("5S"));
        let subject = Subject {
            node_id: "w1".into(),
            units: vec!["swarm-worker".to_owned(), "x".to_owned()],
            cluster_id: "c".into(),
        };
        let behalf = Behalf::Caller { subject: Some(subject), address: "10.0.0.1:5".to_owned() };
        let headers = with_identity(&forged, &behalf).unwrap();
        let all = |key: &str| headers.get_all(key).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(all(FORWARDED), ["true"]);
        assert_eq!(all(FORWARDED_CN), ["w1"]);
        assert_eq!(all(FORWARDED_ORG), ["c"]);
        assert_eq!(all(FORWARDED_OU), ["swarm-worker", "x"]);
        assert_eq!((all(REMOTE_ADDR), all(REDIRECT)), (vec!["10.0.0.1:5".to_owned()], vec!["10.0.0.1:5".to_owned()]));
        assert_eq!(all("grpc-timeout"), ["5S"]);
        let stranger = Behalf::Caller { subject: None, address: "10.0.0.1:5".to_owned() };
        let headers = with_identity(&forged, &stranger).unwrap();
        assert_eq!(headers[FORWARDED_CN], "");
        assert_eq!(headers[FORWARDED_ORG], "");
        assert!(!headers.contains_key(FORWARDED_OU), "no OU is no empty OU");
        let own = with_identity(&forged, &Behalf::Ourselves).unwrap();
        assert_eq!(FORWARDING_KEYS.iter().filter(|key| own.contains_key(**key)).collect::<Vec<_>>(), [&REDIRECT]);
    }

    #[tokio::test]
    async fn a_call_larger_than_a_message_may_be_is_refused() {
        let fits = Body::new(Full::new(Bytes::from(vec![0; MAX_CALL_BYTES])));
        assert_eq!(collect(fits).await.unwrap().len(), MAX_CALL_BYTES);
        let too_large = Body::new(Full::new(Bytes::from(vec![0; MAX_CALL_BYTES + 1])));
        assert_eq!(collect(too_large).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
