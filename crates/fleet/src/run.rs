//! A run: managers, certificates, sessions, a rest, tasks, and what each took.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::agents::{self, Tally};
use crate::link::{Link, Order, Sample};
use crate::report::{Report, Stage};
use crate::{Options, certificates};

/// How often the managers are asked.
const POLL: Duration = Duration::from_millis(100);

/// Runs all of it and tells what was reached until the time was over.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let (mut link, ready) = Link::start(options.managers, &options.folder).await?;
    let tally = Arc::new(Tally::default());
    let mut report = Report::of(options);
    let course = async {
        let mut clock = Clock::start(&mut link).await?;
        let joined = certificates::join(&ready, options.agents).await?;
        report.join = clock.lap(&mut link).await?;

        let _agents = agents::start(joined, &ready.addrs, &tally);
        let wanted = u64::from(options.agents) + u64::from(options.managers);
        let sample = until(&mut link, deadline, |sample| sample.sessions >= wanted).await?;
        report.sessions_open = sample.sessions.saturating_sub(u64::from(options.managers));
        report.register = clock.lap(&mut link).await?;

        tokio::time::sleep(Duration::from_secs(options.idle_seconds)).await;
        report.idle = clock.lap(&mut link).await?;

        link.order(&Order::Create { tasks: options.tasks, replicas: options.replicas }).await?;
        let all = u64::from(options.tasks);
        let sample = until(&mut link, deadline, |sample| sample.running >= all).await?;
        (report.tasks_running, report.nodes_down, report.failed) = (sample.running, sample.down, sample.failed);
        report.place = clock.lap(&mut link).await?;
        report.lost = tally.lost.load(Ordering::Relaxed);
        report.refused = tally.refused.load(Ordering::Relaxed);
        Ok::<_, anyhow::Error>(())
    };
    let left = deadline.saturating_duration_since(Instant::now()) + POLL * 10;
    let over = tokio::select! {
        over = tokio::time::timeout(left, course) => over.context("the time is over"),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let ended = link.end().await;
    over??;
    ended?;
    report.last_loss = tally.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(report)
}

/// Asks the managers until things are as wanted, they cannot go on, or the time is over.
async fn until(link: &mut Link, deadline: Instant, wanted: impl Fn(&Sample) -> bool) -> Result<Sample> {
    loop {
        let sample = link.order(&Order::Measure).await?;
        if wanted(&sample) || sample.failed.is_some() || Instant::now() >= deadline {
            return Ok(sample);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Takes the time and the managers' use of the machine from one lap to the next.
struct Clock {
    at: Instant,
    sample: Sample,
}

impl Clock {
    async fn start(link: &mut Link) -> Result<Self> {
        Ok(Self { at: Instant::now(), sample: link.order(&Order::Measure).await? })
    }

    async fn lap(&mut self, link: &mut Link) -> Result<Stage> {
        let (begun, before) = (self.at, self.sample.clone());
        *self = Self::start(link).await?;
        let after = &self.sample;
        Ok(Stage {
            seconds: (self.at - begun).as_secs_f64(),
            cpu_seconds: (after.cpu - before.cpu).as_secs_f64(),
            memory_bytes: after.memory_bytes as i64 - before.memory_bytes as i64,
        })
    }
}
