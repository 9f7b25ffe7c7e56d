//! The gate in front of all gRPC services of a manager: finds the method in the table, establishes the caller, lets it
//! through to the service here or passes it on to the leader. Nothing reaches a service around it.
//!
//! ```text
//!  request ─► method? ─► caller? ─► answered here ─────────────────────────────► service
//!                 └ no: Unimplemented     └ by the leader ─► here: checked again ─► service
//!                                                         └► there: passed on, once
//! ```
//!
//! Whoever reaches the port may call without a certificate. Such guests get small messages, a bounded time, and a bounded
//! number of calls at a time, shared fairly among their addresses: a stranger must neither use up a manager's memory nor
//! keep joiners out. What a worker may have under way is bounded, too (see `allowance.rs`).

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::Limited;
use identity::{PeerInfo, Places};
use model::{ClusterId, NodeId, NodeRole};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt};

use crate::allowance::Allowances;
use crate::authorize::{Authority, FORWARDING_KEYS, Facts, REDIRECT, REMOTE_ADDR, Subject};
use crate::caller::Caller;
use crate::forward::{self, Behalf, Forwarded};
use crate::leadership::{Leader, Leadership};
use crate::methods::{self, Method, Place};
use crate::shared::Shared;

/// Largest request of a guest: one for a certificate, with its token.
const MAX_GUEST_BYTES: usize = 128 << 10;
/// Calls of guests at a time; with [`MAX_GUEST_BYTES`], 128 MiB.
const MAX_GUEST_CALLS: usize = 1024;
/// How long a guest's call may take; a joiner waits for its certificate for up to a minute in one.
const GUEST_TIME: Duration = Duration::from_secs(90);

/// The places of guests.
#[derive(Clone)]
pub(crate) struct GuestPlaces(Places<IpAddr>);

impl Default for GuestPlaces {
    fn default() -> Self {
        // Among equals nobody's call is broken off for another's.
        Self(Places::new(MAX_GUEST_CALLS, GUEST_TIME))
    }
}

/// Where requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// The listener on 2377, which put [`PeerInfo`] into each request.
    Remote,
    /// The pipe of this node's own agent: the caller is this node, no role is asked for.
    Local,
}

/// What the gate knows.
pub(crate) struct GateKeeper {
    pub(crate) node_id: NodeId,
    pub(crate) cluster_id: ClusterId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) guests: GuestPlaces,
    pub(crate) allowances: Allowances,
}

/// The gate as a service.
#[derive(Clone)]
pub(crate) struct Gate {
    keeper: Arc<GateKeeper>,
    entrance: Entrance,
    services: Routes,
}

/// `services` behind the gate.
pub(crate) fn guarded(keeper: Arc<GateKeeper>, entrance: Entrance, services: Routes) -> Routes {
    let gate = Gate { keeper, entrance, services: services.prepare() };
    let mut routes = Routes::default();
    let router = std::mem::take(routes.axum_router_mut()).fallback_service(gate);
    Routes::from(router).prepare()
}

impl<B> Service<Request<B>> for Gate
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = self.clone();
        let request = request.map(Body::new);
        Box::pin(async move { Ok(gate.handle(request).await.unwrap_or_else(|status| status.into_http())) })
    }
}

impl Gate {
    async fn handle(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let path = request.uri().path();
        let unknown = || Status::unimplemented(format!("unknown service {}", path.trim_start_matches('/')));
        let method = methods::find(path).ok_or_else(unknown)?;
        let keeper = self.keeper.clone();
        let caller = keeper.caller(self.entrance, method, &request)?;
        if let Some(node) = &caller {
            if node.local || node.role == Some(NodeRole::Manager) {
                return self.pass(method, caller, request).await;
            }
            let call = keeper.allowances.begin(&node.node_id)?;
            let request = request.map(|body| call.counted(body));
            return self.pass(method, caller, request).await.map(|answer| call.answered(answer));
        }
        let mut place =
            keeper.guests.0.try_take(identity::host_of(guest_address(&request))).map_err(|_| too_many_guests())?;
        let request = request.map(|body| Body::new(Limited::new(body, MAX_GUEST_BYTES)));
        let passed = tokio::time::timeout(GUEST_TIME, self.pass(method, caller, request));
        tokio::select! {
            // Either ends the call.
            passed = passed => passed.unwrap_or_else(|_| Err(Status::deadline_exceeded("the call took too long"))),
            () = place.lost() => Err(too_many_guests()),
        }
    }

    async fn pass(
        self,
        method: Method,
        caller: Option<Caller>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let keeper = self.keeper.clone();
        if method.place == Place::Here {
            return self.serve(caller, request).await;
        }
        match keeper.leadership.find().await? {
            Leader::Here => self.serve_as_leader(method, request).await,
            Leader::There(remote) => {
                keeper.check_first_hop(self.entrance, &request)?;
                let behalf = behalf(self.entrance, &request);
                // What a call brings beside its message stays with it when it is served here after all.
                let extensions = request.extensions().clone();
                match forward::forward(&keeper.leadership, remote, method, &behalf, request).await? {
                    Forwarded::Answer(answer) => Ok(answer),
                    Forwarded::Here(mut request) => {
                        *request.extensions_mut() = extensions;
                        self.serve_as_leader(method, request).await
                    }
                }
            }
        }
    }

    /// The store may know more of the caller than when it came in: it is asked again.
    async fn serve_as_leader(self, method: Method, request: Request<Body>) -> Result<Response<Body>, Status> {
        let caller = self.keeper.caller(self.entrance, method, &request)?;
        self.serve(caller, request).await
    }

    async fn serve(self, caller: Option<Caller>, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let headers = std::mem::take(request.headers_mut());
        *request.headers_mut() = forward::stripped(headers);
        request.extensions_mut().remove::<Caller>();
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        match self.services.oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }
}

impl GateKeeper {
    fn caller(&self, entrance: Entrance, method: Method, request: &Request<Body>) -> Result<Option<Caller>, Status> {
        if entrance == Entrance::Local {
            return Ok(Some(Caller {
                node_id: self.node_id.clone(),
                role: Some(NodeRole::Manager),
                cluster_id: self.cluster_id.clone(),
                address: None,
                forwarded_by: None,
                local: true,
            }));
        }
        let view = self.shared.view();
        let facts = Facts { cluster_id: &self.cluster_id, view: &view, authority: self.authority(method) };
        let peer = request.extensions().get::<PeerInfo>();
        let subject = peer.and_then(|peer| peer.identity.as_ref()).map(Subject::from);
        let address = peer.map(|peer| peer.remote_addr.ip().to_string());
        facts.authorize(method, subject.as_ref(), address, request.headers())
    }

    /// Former managers must hear from raft that they were removed; for what the leader answers, a follower's store may
    /// not know yet that a node was promoted.
    fn authority(&self, method: Method) -> Authority {
        match (method.service, method.place) {
            ("Raft" | "Health", _) => Authority::Certificate,
            (_, Place::Leader) if !self.leadership.is_here() => Authority::Certificate,
            _ => Authority::Store,
        }
    }

    /// A call goes on once: a manager that gets one from another manager and does not lead would send it in circles, or
    /// put its own name on it.
    fn check_first_hop(&self, entrance: Entrance, request: &Request<Body>) -> Result<(), Status> {
        let peer = request.extensions().get::<PeerInfo>().and_then(|peer| peer.identity.as_ref());
        let believed = entrance == Entrance::Local || peer.is_some_and(|peer| peer.role == NodeRole::Manager);
        let headers = request.headers();
        if !believed || !FORWARDING_KEYS.iter().any(|key| *key != REMOTE_ADDR && headers.contains_key(*key)) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!("more than one redirect to leader from: {}", redirects(headers))))
    }
}

/// Where a call without a certificate comes from; what another manager passes on says where that one got it from.
fn guest_address(request: &Request<Body>) -> IpAddr {
    let peer = request.extensions().get::<PeerInfo>();
    let told = peer.and_then(|peer| peer.identity.as_ref()).and_then(|_| request.headers().get(REMOTE_ADDR));
    let told = told.and_then(|told| told.to_str().ok()?.parse::<SocketAddr>().ok()).map(|told| told.ip());
    told.or(peer.map(|peer| peer.remote_addr.ip())).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn too_many_guests() -> Status {
    Status::resource_exhausted("too many calls of nodes without a certificate: try again later")
}

fn redirects(headers: &HeaderMap) -> String {
    let values: Vec<_> =
        headers.get_all(REDIRECT).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    format!("[{}]", values.join(" "))
}

fn behalf(entrance: Entrance, request: &Request<Body>) -> Behalf {
    if entrance == Entrance::Local {
        return Behalf::Ourselves;
    }
    let peer = request.extensions().get::<PeerInfo>();
    Behalf::Caller {
        subject: peer.and_then(|peer| peer.identity.as_ref()).map(Subject::from),
        address: peer.map(|peer| peer.remote_addr.to_string()).unwrap_or_default(),
    }
}
