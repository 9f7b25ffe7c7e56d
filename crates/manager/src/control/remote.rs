//! Calls of the leader's Control service: to whom, once more when the connection breaks, and until this manager's view
//! has what was written.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use store::StoreObject;
use swarm_proto::convert::FromProto;
use swarm_proto::swarmkit::control_client::ControlClient;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::Control;
use crate::error::ControlError;
use crate::leadership::{Leader, Leadership, LeadershipId, Remote};

/// Largest answer; lists of everything come this way.
const MAX_ANSWER_BYTES: usize = i32::MAX as usize;
/// How long a write that is through may take to arrive here before it is answered all the same.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);

/// Finds the leader.
#[async_trait]
pub(crate) trait FindLeader: Send + Sync + 'static {
    /// Who leads; waits for an election within bounds.
    async fn find(&self) -> Result<Leader, ControlError>;
    /// Who leads after the connection to `lost` broke.
    async fn find_again(&self, lost: &LeadershipId) -> Result<Leader, ControlError>;
    /// Ready when this leadership is over, as far as is known. Cancel-safe.
    async fn over(&self, leadership: &LeadershipId);
}

#[async_trait]
impl FindLeader for Leadership {
    async fn find(&self) -> Result<Leader, ControlError> {
        Ok(Leadership::find(self).await?)
    }

    async fn find_again(&self, lost: &LeadershipId) -> Result<Leader, ControlError> {
        Ok(Leadership::find_again(self, lost).await?)
    }

    async fn over(&self, leadership: &LeadershipId) {
        Leadership::over(self, leadership).await;
    }
}

impl Control {
    /// Waits until somebody leads, within the finder's bounds.
    pub(crate) async fn await_leader(&self) -> Result<(), ControlError> {
        self.leader.find().await.map(drop)
    }

    /// Asks the leader's Control service; `None` if this manager is the leader.
    pub(super) async fn ask<Q, A>(
        &self,
        request: &Q,
        call: impl Fn(ControlClient<Channel>, Q) -> BoxFuture<'static, Result<Response<A>, Status>>,
    ) -> Result<Option<A>, ControlError>
    where
        Q: Clone,
    {
        if self.local.writer().is_leading() {
            return Ok(None);
        }
        let Leader::There(remote) = self.leader.find().await? else { return Ok(None) };
        match self.try_once(&remote, request.clone(), &call).await {
            Err(Failure::Broken(status)) => {
                tracing::debug!(%status, leader = remote.leadership.addr, "the way to the leader broke");
            }
            answered => return answered.map(Some).map_err(Failure::into_error),
        }
        let Leader::There(remote) = self.leader.find_again(&remote.leadership).await? else { return Ok(None) };
        self.try_once(&remote, request.clone(), &call).await.map(Some).map_err(Failure::into_error)
    }

    async fn try_once<Q, A>(
        &self,
        remote: &Remote,
        request: Q,
        call: impl Fn(ControlClient<Channel>, Q) -> BoxFuture<'static, Result<Response<A>, Status>>,
    ) -> Result<A, Failure> {
        let client = ControlClient::new(remote.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        tokio::select! {
            // Dropped when the other arm is first: the leader learns that nobody waits.
            answer = call(client, request) => answer.map(Response::into_inner).map_err(Failure::of),
            // Level-triggered. A leader that is cut off may never answer.
            () = self.leader.over(&remote.leadership) => {
                Err(Failure::Broken(Status::unavailable("connection error: the leader changed")))
            }
        }
    }

    /// Waits until this manager's view has an object at least as new as the leader's answer, which it returns.
    pub(super) async fn arrived<T>(&self, answer: Option<T::Proto>) -> Result<T, ControlError>
    where
        T: StoreObject + FromProto,
    {
        let answer = answer.ok_or_else(|| ControlError::new(Code::Internal, "the leader's answer holds no object"))?;
        let object = T::from_proto(answer).map_err(|error| ControlError::new(Code::Internal, error.to_string()))?;
        let mut watch = self.local.writer().shared().watch();
        let is_here = watch.until(|view| {
            view.get::<T>(object.id()).filter(|stored| stored.meta().version >= object.meta().version).map(drop)
        });
        // A write that does not arrive is none the less done: who reads on will see it later.
        tokio::time::timeout(ARRIVAL_LIMIT, is_here).await.ok();
        Ok(object)
    }

    /// Waits until an object that the leader removed is gone from this manager's view, too.
    pub(super) async fn is_gone<T: StoreObject>(&self, id: &T::Id) {
        let mut watch = self.local.writer().shared().watch();
        let gone = watch.until(|view| view.get::<T>(id).is_none().then_some(()));
        // As above.
        tokio::time::timeout(ARRIVAL_LIMIT, gone).await.ok();
    }
}

/// Why a call came to nothing.
enum Failure {
    /// The leader's answer.
    Refused(Status),
    /// There was none.
    Broken(Status),
}

impl Failure {
    /// What the peer answers has no source; what the connection makes of its own troubles has one.
    fn of(status: Status) -> Self {
        if std::error::Error::source(&status).is_some() { Self::Broken(status) } else { Self::Refused(status) }
    }

    fn into_error(self) -> ControlError {
        match self {
            Self::Refused(status) => status.into(),
            Self::Broken(status) => ControlError::new(Code::Unavailable, format!("connection error: {status}")),
        }
    }
}
