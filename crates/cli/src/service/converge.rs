//! Waiting for a service to converge, with a bar for each task: Docker's rules, Docker's words.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::context::Context;
use crate::json::{at, encode, number, text};
use crate::text::shortened;

/// How often the daemon is asked.
const POLL: Duration = Duration::from_millis(200);
/// How long a service must stay converged when it does not say.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);
/// More tasks than this are counted in one line instead of a bar each.
const MAX_BARS: usize = 20;
/// States from the first to the last, as the bars count them.
const STATES: [&str; 13] = [
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
];

/// Waits until the service has converged and stayed so.
pub(crate) async fn wait(context: &Context, id: &str, quiet: bool) -> Result<()> {
    let mut bars = Bars::new(quiet);
    let mut since: Option<Instant> = None;
    let mut rollback_message = String::new();
    loop {
        let service: Value = context.client.get(&format!("/services/{id}")).await?;
        let converged = since.is_some();
        match text(&service, "UpdateStatus.State") {
            "completed" if !converged => break,
            "paused" => bail!("service update paused: {}", text(&service, "UpdateStatus.Message")),
            "rollback_started" => bars.say(&format!("rollback: {}", text(&service, "UpdateStatus.Message"))),
            "rollback_paused" => bail!("service rollback paused: {}", text(&service, "UpdateStatus.Message")),
            "rollback_completed" => rollback_message = text(&service, "UpdateStatus.Message").to_owned(),
            _ => {}
        }
        let monitor = match number(&service, "Spec.UpdateConfig.Monitor") {
            0 => DEFAULT_MONITOR,
            nanos => Duration::from_nanos(nanos.unsigned_abs()),
        };
        if since.is_some_and(|since| since.elapsed() >= monitor) {
            break;
        }
        let progress = look(context, &service, id).await?;
        bars.show(&progress);
        if progress.job && progress.done() {
            bars.finish("job complete");
            return Ok(());
        }
        match (progress.done(), since) {
            (true, None) => since = Some(Instant::now()),
            (true, Some(at)) => {
                let left = monitor.saturating_sub(at.elapsed()).as_secs() + 1;
                bars.verify(&format!("verify: Waiting {left} seconds to verify that tasks are stable..."));
            }
            (false, Some(_)) => {
                since = None;
                bars.say("verify: Detected task failure");
            }
            (false, None) => {}
        }
        tokio::time::sleep(POLL).await;
    }
    bars.finish(&format!("verify: Service {id} converged"));
    if !rollback_message.is_empty() {
        bail!("service rolled back: {rollback_message}");
    }
    Ok(())
}

/// How far a service's tasks are.
struct Progress {
    /// What a bar is called, how far its task is (0..=9), and what is wrong with it.
    lines: BTreeMap<String, (usize, String)>,
    running: usize,
    wanted: usize,
    job: bool,
}

impl Progress {
    fn done(&self) -> bool {
        self.running == self.wanted && (self.wanted > 0 || self.lines.is_empty())
    }
}

async fn look(context: &Context, service: &Value, id: &str) -> Result<Progress> {
    let filter = format!("{{\"service\":{{\"{id}\":true}},\"_up-to-date\":{{\"true\":true}}}}");
    let tasks: Value = context.client.get(&format!("/tasks?filters={}", encode(&filter))).await?;
    let nodes: Value = context.client.get("/nodes").await?;
    let nodes = nodes.as_array().cloned().unwrap_or_default();
    let down: Vec<&str> =
        nodes.iter().filter(|node| text(node, "Status.State") == "down").map(|node| text(node, "ID")).collect();
    let mode = at(service, "Spec.Mode");
    let job = mode.get("ReplicatedJob").is_some() || mode.get("GlobalJob").is_some();
    let iteration = number(service, "JobStatus.JobIteration.Index");
    let goal = if job { "complete" } else { "running" };
    let mut best: BTreeMap<String, &Value> = BTreeMap::new();
    for task in tasks.as_array().map_or(&[][..], Vec::as_slice) {
        if down.contains(&text(task, "NodeID")) || (job && number(task, "JobIteration.Index") != iteration) {
            continue;
        }
        let key = match mode.get("Global").or(mode.get("GlobalJob")) {
            Some(_) => text(task, "NodeID").to_owned(),
            None => format!("{:06}", number(task, "Slot")),
        };
        let rank = |task: &Value| (rank(text(task, "DesiredState")), rank(text(task, "Status.State")));
        if rank(task).0.is_none() {
            continue;
        }
        if best.get(&key).is_none_or(|held| rank(task) < rank(held)) {
            best.insert(key, task);
        }
    }
    let is_done = |task: &&&Value| {
        let wanted = rank(text(task, "DesiredState")).is_some_and(|desired| desired <= 9);
        text(task, "Status.State") == goal && wanted
    };
    let running = best.values().filter(is_done).count();
    let wanted = match (mode.get("Replicated"), mode.get("ReplicatedJob")) {
        (Some(mode), _) => number(mode, "Replicas").unsigned_abs() as usize,
        (_, Some(mode)) => number(mode, "TotalCompletions").unsigned_abs() as usize,
        _ => best.len(),
    };
    let line = |task: &Value| {
        let step = rank(text(task, "Status.State")).unwrap_or(0).min(9);
        (step, shortened(text(task, "Status.Err"), 75))
    };
    let lines = best.iter().map(|(key, task)| (key.clone(), line(task))).collect();
    Ok(Progress { lines, running, wanted, job })
}

fn rank(state: &str) -> Option<usize> {
    STATES.iter().position(|known| *known == state)
}

struct Bars {
    quiet: bool,
    all: MultiProgress,
    overall: ProgressBar,
    tasks: BTreeMap<String, ProgressBar>,
    verify: Option<ProgressBar>,
}

impl Bars {
    fn new(quiet: bool) -> Self {
        let all = MultiProgress::new();
        if quiet {
            all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let overall = all.add(ProgressBar::new_spinner().with_style(plain()));
        Self { quiet, all, overall, tasks: BTreeMap::new(), verify: None }
    }

    fn show(&mut self, progress: &Progress) {
        let overall = format!("overall progress: {} out of {} tasks", progress.running, progress.wanted);
        self.overall.set_message(overall);
        if progress.wanted > MAX_BARS {
            return;
        }
        for (key, (step, error)) in &progress.lines {
            let name = key.trim_start_matches('0');
            let bar = self.tasks.entry(key.clone()).or_insert_with(|| {
                let style = ProgressStyle::with_template("{prefix}: {msg:<9} [{bar:50}]").unwrap_or_else(|_| plain());
                let bar = self.all.add(ProgressBar::new(8).with_style(style.progress_chars("=> ")));
                bar.set_prefix(format!("{name}/{}", progress.wanted));
                bar
            });
            bar.set_position((*step).min(8) as u64);
            bar.set_message(if error.is_empty() { STATES[*step].to_owned() } else { error.clone() });
        }
        self.tasks.retain(|key, bar| {
            let kept = progress.lines.contains_key(key);
            if !kept {
                bar.finish_and_clear();
            }
            kept
        });
    }

    fn verify(&mut self, text: &str) {
        let bar = self.verify.get_or_insert_with(|| self.all.add(ProgressBar::new_spinner().with_style(plain())));
        bar.set_message(text.to_owned());
    }

    fn say(&mut self, text: &str) {
        if !self.quiet {
            self.verify(text);
        }
    }

    fn finish(&mut self, text: &str) {
        for bar in self.tasks.values() {
            bar.abandon();
        }
        self.overall.abandon();
        if let Some(bar) = self.verify.take() {
            bar.finish_and_clear();
        }
        if !self.quiet {
            println!("{text}");
        }
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}
