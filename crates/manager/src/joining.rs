//! What a node answers on port 2377 between its manager's certificate and its manager: the leader dials back before it
//! takes a member. Everything else is answered `Unavailable`: an `Unimplemented` would tell the leader's raft that this
//! is an old manager which knows no streams.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use identity::PeerInfo;
use model::ClusterId;
use store::View;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::health_server::{Health, HealthServer};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt};

use crate::authorize::{Authority, Facts, Subject};
use crate::methods;

/// The routes of a node that is about to join the raft group.
pub fn joining_routes(cluster_id: ClusterId) -> Routes {
    let mut routes = Routes::default();
    let joining = Joining { cluster_id: Arc::new(cluster_id) };
    let router = std::mem::take(routes.axum_router_mut()).fallback_service(joining);
    Routes::from(router).prepare()
}

#[derive(Clone)]
struct Joining {
    cluster_id: Arc<ClusterId>,
}

impl<B> Service<Request<B>> for Joining
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
        let request = request.map(Body::new);
        match self.check(&request) {
            Ok(()) => Box::pin(HealthServer::new(Willing).oneshot(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

impl Joining {
    /// Lets managers of the cluster ask for the node's health.
    fn check(&self, request: &Request<Body>) -> Result<(), Status> {
        let starting = || Status::unavailable("the manager is starting");
        let method = methods::find(request.uri().path()).filter(|method| method.service == "Health");
        let method = method.ok_or_else(starting)?;
        let facts = Facts { cluster_id: &self.cluster_id, view: &View::new(), authority: Authority::Certificate };
        let peer = request.extensions().get::<PeerInfo>().and_then(|peer| peer.identity.as_ref());
        facts.authorize(method, peer.map(Subject::from).as_ref(), None, request.headers()).map(drop)
    }
}

/// Says that raft's messages will be taken.
struct Willing;

#[tonic::async_trait]
impl Health for Willing {
    async fn check(
        &self,
        request: tonic::Request<p::HealthCheckRequest>,
    ) -> Result<tonic::Response<p::HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" | "Raft" => {
                let status = p::ServingStatus::Serving as i32;
                Ok(tonic::Response::new(p::HealthCheckResponse { status }))
            }
            _ => Err(Status::not_found("unknown service")),
        }
    }
}
