//! Tables of connections while the daemon runs: the log says once that one is full, and once that this is over. What is
//! said, and when, is decided by `doctor`.

use std::time::Duration;

use doctor::{ConntrackNews, ConntrackWatch};
use net::Net;
use tokio::time::MissedTickBehavior;

/// How often they are looked at: a few small files of `/proc`.
const EVERY: Duration = Duration::from_secs(10);

/// Looks until it is aborted; to be spawned.
pub(crate) async fn watch(net: Net) {
    let mut watch = ConntrackWatch::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let net = net.clone();
        let Ok(tables) = tokio::task::spawn_blocking(move || net.conntracks()).await else { return };
        let tables: Vec<_> = tables.host.into_iter().chain(tables.mesh).collect();
        watch.look(&tables).into_iter().for_each(say);
    }
}

fn say(news: ConntrackNews) {
    match news {
        ConntrackNews::Full(finding) => {
            tracing::warn!(remedy = finding.remedy.unwrap_or_default(), "{}", finding.what);
        }
        ConntrackNews::Over(what) => tracing::warn!("{what}"),
    }
}
