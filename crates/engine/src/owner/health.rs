//! Health checks: an exec every interval while the container runs, and what dockerd makes of its results.

use std::time::Duration;

use docker_types::container::HealthLog;
use docker_types::container_spec::HealthConfig;
use tokio::task::JoinHandle;

use super::Owner;
use crate::clock::SECOND_NS;
use crate::container::{Command, ProbeOutcome};
use crate::exec::{Probe, run_probe};
use crate::record::{Flush, HealthRecord, Phase};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// Results kept.
const LOG_MAX: usize = 5;

/// Checks under way; dropping it ends them.
#[derive(Debug)]
pub(super) struct HealthRun {
    run: u64,
    task: JoinHandle<()>,
}

impl Drop for HealthRun {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn duration(nanos: i64, default: Duration) -> Duration {
    if nanos == 0 { default } else { Duration::from_nanos(nanos.unsigned_abs()) }
}

/// The words to run; `None` if there is nothing to check.
pub(crate) fn probe_words(check: &HealthConfig, shell: Option<&[String]>) -> Option<Vec<String>> {
    match check.test.split_first() {
        Some((kind, words)) if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
        Some((kind, words)) if kind == "CMD-SHELL" => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or(&default);
            Some(shell.iter().chain(words).cloned().collect())
        }
        _ => None,
    }
}

/// What a result does to the record; answers whether the status changed.
fn judge(
    health: &mut HealthRecord,
    probe: HealthLog,
    outcome: ProbeOutcome,
    retries: i64,
    in_start_period: bool,
) -> bool {
    let before = health.status.clone();
    match outcome {
        ProbeOutcome::Good => {
            health.failing_streak = 0;
            "healthy".clone_into(&mut health.status);
        }
        ProbeOutcome::Bad if health.status == "starting" && in_start_period => {}
        ProbeOutcome::Bad => {
            health.failing_streak += 1;
            if health.failing_streak >= retries {
                "unhealthy".clone_into(&mut health.status);
            }
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(LOG_MAX);
    health.log.drain(..surplus);
    health.status != before
}

impl Owner {
    fn probe(&self) -> Option<(Probe, HealthConfig)> {
        let check = self.record.config.healthcheck.clone()?;
        let words = probe_words(&check, self.record.config.shell.as_deref())?;
        let client = self.shim.as_ref()?.client.clone();
        let timeout = duration(check.timeout, TIMEOUT);
        Some((Probe { engine: self.engine.clone(), record: self.record.clone(), client, words, timeout }, check))
    }

    /// A new run starts with no results.
    pub(super) fn reset_health(&mut self) {
        self.record.life.health =
            self.probe().map(|_| HealthRecord { status: "starting".to_owned(), ..HealthRecord::default() });
    }

    pub(super) fn start_health(&mut self) {
        let Some((probe, check)) = self.probe() else { return };
        self.health_runs += 1;
        let run = self.health_runs;
        let started_ns = self.record.life.started_ns;
        let mailbox = self.own_mailbox.clone();
        let view = self.view.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let starting =
                    view.borrow().record.life.health.as_ref().is_some_and(|health| health.status == "starting");
                let age = crate::clock::Clock::now_ns().saturating_sub(started_ns);
                let interval = if starting && age < check.start_period {
                    duration(check.start_interval, START_INTERVAL)
                } else {
                    duration(check.interval, INTERVAL)
                };
                tokio::time::sleep(interval).await;
                let (log, outcome) = run_probe(&probe).await;
                let Some(mailbox) = mailbox.upgrade() else { return };
                if mailbox.send(Command::Probed { run, probe: log, outcome }).await.is_err() {
                    return;
                }
            }
        });
        self.health = Some(HealthRun { run, task });
    }

    pub(super) fn stop_health(&mut self) {
        self.health = None;
    }

    pub(super) fn probed(&mut self, run: u64, probe: HealthLog, outcome: ProbeOutcome) {
        if self.record.life.phase != Phase::Running || self.health.as_ref().is_none_or(|health| health.run != run) {
            return;
        }
        let check = self.record.config.healthcheck.clone().unwrap_or_default();
        let retries = if check.retries == 0 { RETRIES } else { i64::from(check.retries) };
        let started = self.record.life.started_ns;
        let probe_ns = probe.start.0.map_or(0, model::Timestamp::unix_nanos);
        let in_start_period = probe_ns.saturating_sub(started) < check.start_period;
        let health = self.record.life.health.get_or_insert_default();
        let changed = judge(health, probe, outcome, retries, in_start_period);
        let status = format!("health_status: {}", health.status);
        // a lost result is not worth a wait for the disk
        if let Err(error) = self.record.save(&self.paths.data, Flush::Later) {
            tracing::warn!(container = %self.record.id, %error, "cannot keep a health result");
        }
        self.publish();
        if changed {
            self.log(&status);
        }
    }
}

/// How dockerd writes a span in the text about a timeout.
pub(crate) fn go_duration(span: Duration) -> String {
    let nanos = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    if nanos % SECOND_NS == 0 {
        let seconds = nanos / SECOND_NS;
        return match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, seconds) => format!("{seconds}s"),
            (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
            (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
        };
    }
    if nanos < SECOND_NS && nanos % 1_000_000 == 0 {
        return format!("{}ms", nanos / 1_000_000);
    }
    format!("{}s", span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(results: &[ProbeOutcome], in_start_period: bool) -> HealthRecord {
        let mut health = HealthRecord { status: "starting".into(), ..HealthRecord::default() };
        for result in results {
            judge(&mut health, HealthLog::default(), *result, 3, in_start_period);
        }
        health
    }

    #[test]
    fn results_are_judged_as_dockerd_does() {
        use ProbeOutcome::{Bad, Good};
        let check = |results: &[ProbeOutcome], period, status: &str, streak| {
            let health = judged(results, period);
            assert_eq!((health.status.as_str(), health.failing_streak), (status, streak), "{results:?}");
        };
        check(&[Bad, Bad], false, "starting", 2);
        check(&[Bad, Bad, Bad], false, "unhealthy", 3);
        check(&[Bad, Bad, Bad, Bad], true, "starting", 0);
        check(&[Bad, Good], true, "healthy", 0);
        check(&[Good, Bad, Bad], true, "healthy", 2);
        assert_eq!(judged(&[Good; 9], false).log.len(), LOG_MAX);
    }

    #[test]
    fn tests_become_words() {
        let words = |test: &[&str]| {
            let test = test.iter().map(|word| (*word).to_owned()).collect();
            probe_words(&HealthConfig { test, ..HealthConfig::default() }, None).map(|words| words.join(" "))
        };
        assert_eq!(words(&["CMD", "a", "b"]).as_deref(), Some("a b"));
        assert_eq!(words(&["CMD-SHELL", "exit 1"]).as_deref(), Some("/bin/sh -c exit 1"));
        assert_eq!(words(&["NONE"]), None);
        assert_eq!(words(&[]), None);
        assert_eq!(go_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(go_duration(Duration::from_millis(500)), "500ms");
    }
}
