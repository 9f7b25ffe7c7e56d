//! `docker top`: the host's `ps`, cut down to the processes of a container.

use std::collections::BTreeSet;
use std::fs;

use docker_types::container::TopResponse;

use crate::container::Container;
use crate::record::Phase;
use crate::{EngineError, ErrorKind};

/// Bytes of arguments for `ps`.
const ARGUMENTS_MAX: usize = 4096;

/// Processes below a container's cgroups; on cgroup v1 those of the pids or memory hierarchy.
fn processes(pid: i32, id: &str) -> BTreeSet<String> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.contains(id) || (!own.is_empty() && groups == own && own.contains(id)) {
            found.insert(name);
        }
    }
    found.insert(pid.to_string());
    found
}

pub(crate) async fn top(container: &Container, arguments: &str) -> Result<TopResponse, EngineError> {
    let record = container.record();
    match record.life.phase {
        Phase::Running | Phase::Paused => {}
        Phase::Restarting => {
            return Err(EngineError::conflict(format!(
                "container {} is restarting, wait until the container is running",
                record.id
            )));
        }
        _ => return Err(EngineError::not_running(&record.id)),
    }
    let arguments = if arguments.trim().is_empty() { "-ef" } else { arguments };
    if arguments.len() > ARGUMENTS_MAX {
        return Err(EngineError::invalid("too many arguments for ps"));
    }
    let output = tokio::process::Command::new("ps").args(arguments.split_whitespace()).output().await;
    let output = output.map_err(|error| EngineError::internal(format!("error running ps: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(EngineError::new(ErrorKind::Internal, format!("error running ps: {}", text.trim())));
    }
    let wanted = processes(record.life.pid, &record.id);
    parse(&String::from_utf8_lossy(&output.stdout), &wanted)
}

fn parse(text: &str, wanted: &BTreeSet<String>) -> Result<TopResponse, EngineError> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let at = titles.iter().position(|title| title == "PID");
    let at = at.ok_or_else(|| EngineError::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.get(at).is_some_and(|pid| wanted.contains(*pid)) {
            continue;
        }
        // the last column has spaces of its own
        let last = titles.len() - 1;
        let mut row: Vec<String> = words.iter().take(last).map(|word| (*word).to_owned()).collect();
        row.push(words.get(last..).unwrap_or_default().join(" "));
        processes.push(row);
    }
    Ok(TopResponse { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_are_kept() {
        let text = "UID PID CMD\nroot 1 /sbin/init x\nroot 7 sleep 1 h\n";
        let top = parse(text, &BTreeSet::from(["7".to_owned()])).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "7", "sleep 1 h"]]);
        assert!(parse("UID CMD\n", &BTreeSet::new()).is_err());
    }
}
