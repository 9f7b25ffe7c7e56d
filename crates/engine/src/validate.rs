//! What dockerd refuses at `create`, with its texts.

use docker_types::container::{ContainerConfig, HostConfig, RestartPolicy};

use crate::EngineError;
use crate::config::{BUILT_IN_RUNTIME, EngineConfig};
use crate::signal;

/// The least memory a container may have, bytes.
const MEMORY_MIN: i64 = 6 * 1024 * 1024;
const HOSTNAME_BYTES_MAX: usize = 63;
const MILLISECOND_NS: i64 = 1_000_000;

/// Log drivers that this engine has.
const LOG_DRIVERS: [&str; 2] = ["json-file", "none"];
const JSON_FILE_OPTIONS: [&str; 7] = ["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex"];

fn refuse<T>(text: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::invalid(text))
}

/// A name of a container.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    let bytes = name.as_bytes();
    if bytes.len() < 2 || !bytes[0].is_ascii_alphanumeric() || !bytes.iter().all(|c| word(*c)) {
        return refuse(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"));
    }
    Ok(())
}

/// What the container runs.
pub(crate) fn check_config(config: &ContainerConfig) -> Result<(), EngineError> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return refuse(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    for variable in config.env.as_deref().unwrap_or_default() {
        if variable.is_empty() || variable.starts_with('=') {
            return refuse(format!("invalid environment variable: {variable}"));
        }
    }
    if config.hostname.len() > HOSTNAME_BYTES_MAX {
        return refuse(format!("invalid hostname: {}: hostname too long", config.hostname));
    }
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    check_healthcheck(config)
}

fn check_healthcheck(config: &ContainerConfig) -> Result<(), EngineError> {
    let Some(check) = &config.healthcheck else { return Ok(()) };
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, value) in times {
        if value != 0 && value < MILLISECOND_NS {
            return refuse(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if check.retries < 0 {
        return refuse("Retries in Healthcheck cannot be negative");
    }
    Ok(())
}

/// A restart policy.
pub(crate) fn check_restart_policy(policy: &RestartPolicy) -> Result<(), EngineError> {
    let count = policy.maximum_retry_count;
    match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if count < 0 => refuse(
            "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative",
        ),
        "no" | "always" | "unless-stopped" if count > 0 => {
            refuse("invalid restart policy: maximum retry count can only be used with 'on-failure'")
        }
        "on-failure" if count < 0 => refuse("invalid restart policy: maximum retry count cannot be negative"),
        "no" | "always" | "unless-stopped" | "on-failure" | "" => Ok(()),
        other => refuse(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

/// How the container meets its host.
pub(crate) fn check_host_config(host: &HostConfig, engine: &EngineConfig) -> Result<(), EngineError> {
    check_restart_policy(&host.restart_policy)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return refuse("can't create 'AutoRemove' container with restart policy");
    }
    for host_entry in host.extra_hosts.as_deref().unwrap_or_default() {
        if !host_entry.contains([':', '=']) {
            return refuse(format!("bad format for add-host: \"{host_entry}\""));
        }
    }
    if host.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return refuse(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj));
    }
    if !host.runtime.is_empty() && host.runtime != BUILT_IN_RUNTIME && !engine.runtimes.contains_key(&host.runtime) {
        return refuse(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    check_resources(host)?;
    check_log(host)
}

fn check_resources(host: &HostConfig) -> Result<(), EngineError> {
    if host.memory != 0 && host.memory < MEMORY_MIN {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|value| *value != -1 && !(0..=100).contains(value)) {
        return refuse(format!("invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    if host.memory_reservation > 0 && host.memory_reservation < MEMORY_MIN {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.nano_cpus > 0 && (host.cpu_period > 0 || host.cpu_quota > 0) {
        let what = if host.cpu_period > 0 { "CPU Period" } else { "CPU Quota" };
        return refuse(format!("conflicting options: Nano CPUs and {what} cannot both be set"));
    }
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
    if host.nano_cpus < 0 || host.nano_cpus > cpus * 1_000_000_000 {
        return refuse(format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    Ok(())
}

fn check_log(host: &HostConfig) -> Result<(), EngineError> {
    let driver = host.log_config.kind.as_str();
    if !LOG_DRIVERS.contains(&driver) {
        return refuse(format!("logger: no log driver named '{driver}' is registered"));
    }
    for (name, value) in host.log_config.config.iter().flatten() {
        let common =
            ["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];
        if driver == "none" || common.contains(&name.as_str()) || name == "tag" {
            continue;
        }
        if !JSON_FILE_OPTIONS.contains(&name.as_str()) {
            return refuse(format!("unknown log opt '{name}' for json-file log driver"));
        }
        crate::log_options::check(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(change: impl FnOnce(&mut HostConfig)) -> String {
        let mut host = HostConfig::default();
        host.log_config.kind = "json-file".into();
        change(&mut host);
        let config = EngineConfig::new("/d".into(), "/e".into(), "/s".into());
        check_host_config(&host, &config).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn bad_settings_have_dockerds_texts() {
        assert_eq!(text(|_| ()), "");
        assert_eq!(text(|host| host.memory = 1), "Minimum memory limit allowed is 6MB");
        assert_eq!(text(|host| host.runtime = "x".into()), "unknown or invalid runtime name: x");
        assert_eq!(text(|host| host.log_config.kind = "x".into()), "logger: no log driver named 'x' is registered");
        let policy = |name: &str, count| RestartPolicy { name: name.into(), maximum_retry_count: count };
        assert_eq!(
            text(|host| host.restart_policy = policy("x", 0)),
            "invalid restart policy: unknown policy 'x'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        );
        assert_eq!(
            text(|host| host.restart_policy = policy("always", 1)),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        );
        assert_eq!(text(|host| host.restart_policy = policy("on-failure", 2)), "");
        assert_eq!(
            text(|host| (host.auto_remove, host.restart_policy) = (true, policy("always", 0))),
            "can't create 'AutoRemove' container with restart policy"
        );
    }

    #[test]
    fn names_are_checked() {
        assert!(check_name("web-1.x_y").is_ok());
        for bad in ["", "a", "-a", "a b", "a/b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
