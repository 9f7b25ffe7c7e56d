//! The agents' certificates, each asked for with the join token over a connection of its own, as joining nodes do.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use identity::{CertificateRequest, Credentials, JoinToken, RemoteList};
use model::NodeAvailability;

use crate::link::Ready;

/// Joins at a time.
const AT_ONCE: usize = 64;

/// Lets `count` nodes join.
pub(crate) async fn join(ready: &Ready, count: u32) -> Result<Vec<Credentials>> {
    let token = Arc::new(JoinToken::parse(&ready.worker_token).context("the join token")?);
    let roots = Arc::new(identity::fetch_root(&RemoteList::new(ready.addrs.clone()), &token).await?);
    let joins = (0..count).map(|_| {
        let (addrs, token, roots) = (ready.addrs.clone(), token.clone(), roots.clone());
        tokio::spawn(async move {
            let request =
                CertificateRequest::Join { token: &token, availability: NodeAvailability::Active, roots: &roots };
            let granted = identity::request_certificate(&RemoteList::new(addrs), request).await?;
            Ok::<_, anyhow::Error>(Credentials::new((*roots).clone(), Some(granted.credential)))
        })
    });
    // Spawned when the stream comes to them.
    let joined = futures::stream::iter(joins).buffer_unordered(AT_ONCE);
    joined.map(|joined| joined.context("a join broke")?).try_collect().await
}
