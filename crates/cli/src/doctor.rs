//! `skep doctor`: asks the daemon what keeps networks from working; where none answers, looks at the machine itself.

use anyhow::Result;
use clap::Args;
use client::ClientError;
use doctor::{Check, Finding, Level, Observations, Report};

use crate::Exit;
use crate::context::Context;

/// `skep doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

pub(crate) async fn run(host: Option<&str>, command: Doctor) -> Result<()> {
    let report = match ask(host).await {
        Ok(report) => report,
        Err(why) => alone(why).await?,
    };
    if command.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    match report.exit_code() {
        0 => Ok(()),
        code => Err(Exit(code).into()),
    }
}

/// The daemon's report, or a finding that says why there is none.
async fn ask(host: Option<&str>) -> Result<Report, Finding> {
    let silent = |what: String| {
        Finding::new(Level::Warning, Check::Daemon, format!("{what}: only this machine itself was looked at"))
    };
    let context = match Context::open(host).await {
        Ok(context) => context,
        Err(error) => {
            let remedy = "start it with skep daemon (systemctl start skep), or say where it is with -H";
            return Err(silent(first_sentence(&format!("{error:#}"))).remedy(remedy));
        }
    };
    match context.client.get::<Report>("/skep/doctor").await {
        Ok(report) => Ok(report),
        Err(ClientError::Api { status: 404, .. }) => {
            let what = format!("the engine at {} is not Skep, or an older one", context.client.address());
            Err(silent(what).remedy("say where Skep's daemon is with -H"))
        }
        Err(error) => Err(silent(format!("the daemon did not answer: {error}"))),
    }
}

/// "Cannot connect to … . Is it running?" without the rest.
fn first_sentence(text: &str) -> String {
    text.split(". ").next().unwrap_or_default().to_owned()
}

/// What this machine shows without a daemon.
async fn alone(why: Finding) -> Result<Report> {
    let own = net::own_names(&net::NetConfig::default());
    let host = net::survey(own, net::DATA_PATH_PORT).await?;
    let mut report = doctor::judge(&Observations { host, ..Observations::default() });
    report.add(why);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    /// The exit code of `skep doctor` where the daemon's report has these levels.
    async fn code(levels: &[&str]) -> i32 {
        let daemon = FakeDaemon::start().await;
        let finding = |level: &&str| json!({ "Level": level, "Check": "mtu", "What": "something" });
        let worst = levels.first().copied().unwrap_or("ok");
        let report = json!({
            "Machine": { "Name": "a", "Address": "", "Version": "1" },
            "Peers": 0,
            "Worst": worst,
            "Findings": levels.iter().map(finding).collect::<Vec<_>>(),
        });
        daemon.answer("GET /skep/doctor", 200, report);
        match daemon.run(&["doctor", "--json"]).await {
            Ok(()) => 0,
            Err(error) => error.downcast_ref::<Exit>().expect("an exit code").0,
        }
    }

    #[tokio::test]
    async fn the_exit_code_is_the_reports() {
        assert_eq!(code(&[]).await, 0);
        assert_eq!(code(&["note", "ok"]).await, 0);
        assert_eq!(code(&["warning", "ok"]).await, 1);
        assert_eq!(code(&["broken", "warning"]).await, 2);
    }

    #[tokio::test]
    async fn another_engine_and_none_are_told_apart() {
        let daemon = FakeDaemon::start().await;
        let host = daemon.context().await.client.address().to_string();
        let why = ask(Some(&host)).await.expect_err("it knows no doctor");
        assert!(why.level == Level::Warning && why.what.contains("is not Skep, or an older one"), "{why:?}");
        drop(daemon);
        let why = ask(Some("unix:///nonexistent/skep.sock")).await.expect_err("nobody is there");
        assert!(why.what.starts_with("Cannot connect to the daemon at unix:///nonexistent/skep.sock: "), "{why:?}");
    }
}
