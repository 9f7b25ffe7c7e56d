//! Noticing that someone removed our tables: a firewall's start script begins with `nft flush ruleset`, and an IKE daemon may
//! end by clearing all of IPsec.
//!
//! ```text
//! kernel ── a table is deleted ──► Watch, one a namespace ──► Alarms ──► a while later: are ours there? else write them
//! ```
//! The kernel tells of our own changes as well, so an alarm is only a reason to look. Nothing is looked at without one.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::NetError;
use crate::balance::{Balance, Kind};
use crate::ipsec::Synced;
use crate::net::Inner;
use crate::netlink::News;
use crate::state::kernel;

/// After an alarm: whoever replaces the ruleset is not done with its first step.
const SETTLE: Duration = Duration::from_millis(200);
/// Tables are looked at no more often than this, however often someone removes them.
const PAUSE: Duration = Duration::from_secs(1);

/// Where something of ours stands that is watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// Tables in the host's namespace.
    Host,
    /// In the ingress sandbox.
    Ingress,
    /// In the balancer of a network, by its id.
    Balancer(String),
    /// States and policies of the host's namespace.
    Ipsec,
}

/// Places where something was deleted.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    sites: Mutex<BTreeSet<Site>>,
    raised: Notify,
}

impl Alarms {
    fn raise(&self, site: &Site) {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone());
        self.raised.notify_one();
    }

    fn take(&self) -> BTreeSet<Site> {
        std::mem::take(&mut *self.sites.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A task that ends with this.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The news of one namespace, raising alarms; ends with this.
#[derive(Debug)]
pub(crate) struct Watch(#[expect(dead_code, reason = "held for its end")] Task);

impl Watch {
    /// Watches through a socket that was opened in the namespace. Must be called within a runtime.
    pub(crate) fn start(news: News, site: Site, alarms: &Arc<Alarms>) -> io::Result<Self> {
        let (listener, alarms) = (news.listen()?, Arc::clone(alarms));
        let watch = async move {
            loop {
                match listener.next().await {
                    Ok(()) => alarms.raise(&site),
                    Err(error) => {
                        tracing::warn!(%error, ?site, "what others remove there is not noticed any more");
                        return;
                    }
                }
            }
        };
        Ok(Self(Task(tokio::spawn(watch))))
    }
}

/// Answers alarms for as long as there is a network.
pub(crate) fn answer(alarms: Arc<Alarms>, inner: Weak<Inner>) -> Task {
    Task(tokio::spawn(async move {
        loop {
            alarms.raised.notified().await;
            tokio::time::sleep(SETTLE).await;
            for site in alarms.take() {
                let Some(inner) = inner.upgrade() else { return };
                if site == Site::Ipsec {
                    inner.restore_ipsec().await;
                    continue;
                }
                match inner.restore(&site) {
                    Ok(false) => {}
                    Ok(true) => tracing::warn!(?site, "someone removed our nftables tables; they are written anew"),
                    Err(error) => tracing::error!(%error, ?site, "our nftables tables cannot be looked after"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }))
}

impl Inner {
    /// Writes states and policies anew that are gone or worn.
    async fn restore_ipsec(&self) {
        match self.sync_ipsec().await {
            Ok(Synced { written: 0, .. }) => {}
            Ok(Synced { written, .. }) => {
                tracing::warn!(written, "states or policies of IPsec were removed, or worn; they are written anew");
            }
            Err(error) => tracing::error!(%error, "states and policies of IPsec cannot be written anew"),
        }
    }

    /// Has a site looked at a while later, if there is a reason.
    pub(crate) fn look_later(&self, site: &Site, is_needed: bool) {
        if is_needed {
            self.alarms.raise(site);
        }
    }

    /// Writes the tables of a site anew if they are gone, and tells whether they were.
    fn restore(&self, site: &Site) -> Result<bool, NetError> {
        let mut state = self.state();
        let state = &mut *state;
        let (mesh, vips) = match site {
            Site::Host => return state.restore_host(&self.config),
            Site::Ipsec => (None, None),
            Site::Ingress => (state.ingress.as_mut().map(|ingress| &mut ingress.mesh), None),
            Site::Balancer(id) => {
                let overlay = state.overlays.get_mut(id);
                (None, overlay.and_then(|overlay| overlay.balancer.as_mut()).map(|balancer| &mut balancer.vips))
            }
        };
        match (mesh, vips) {
            (Some(mesh), _) => self.look_after(site, mesh),
            (_, Some(vips)) => self.look_after(site, vips),
            (None, None) => Ok(false),
        }
    }

    fn look_after<T: Kind>(&self, site: &Site, balance: &mut Balance<T>) -> Result<bool, NetError> {
        let restored = balance.restore_if_gone().map_err(kernel("write a table anew"))?;
        balance.drop_unanswered().map_err(kernel("drop connections that nobody has answered"))?;
        // a backend may have gone just now
        self.look_later(site, balance.may_strand());
        Ok(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_answered_once() {
        let alarms = Alarms::default();
        alarms.raise(&Site::Host);
        alarms.raise(&Site::Ingress);
        alarms.raise(&Site::Host);
        assert_eq!(alarms.take(), [Site::Host, Site::Ingress].into());
        assert!(alarms.take().is_empty());
    }
}
