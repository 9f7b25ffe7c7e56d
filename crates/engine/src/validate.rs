//! What dockerd refuses at `create` and `update`, with its texts and in its order, and what it warns of.

use docker_types::container::{ContainerConfig, HostConfig, RestartPolicy};

use crate::config::{BUILT_IN_RUNTIME, EngineConfig};
use crate::host_limits::HostLimits;
use crate::limits::{self, Purpose};
use crate::mount_points::{self, clean_path};
use crate::{EngineError, bundle, launch, signal};

const MILLISECOND_NS: i64 = 1_000_000;

/// Log drivers that this engine has.
const LOG_DRIVERS: [&str; 2] = ["json-file", "none"];
const JSON_FILE_OPTIONS: [&str; 7] = ["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex"];

fn refuse<T>(text: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::invalid(text))
}

/// A name of a container, with or without `/`.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    let bytes = name.strip_prefix('/').unwrap_or(name).as_bytes();
    if bytes.len() < 2 || !bytes[0].is_ascii_alphanumeric() || !bytes.iter().all(|c| word(*c)) {
        return refuse(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"));
    }
    Ok(())
}

/// A request to create a container, before its image is looked for; gives warnings. What the machine cannot do is taken out.
pub(crate) fn check_request(
    config: &mut ContainerConfig,
    host: &mut HostConfig,
    engine: &EngineConfig,
    machine: &HostLimits,
) -> Result<Vec<String>, EngineError> {
    limits::check_early(host, machine)?;
    check_config(config)?;
    check_host_config(host)?;
    check_platform(host, engine, machine, Purpose::Create)
}

/// What an update asks for, as the settings of a container that has nothing else; gives warnings.
pub(crate) fn check_update(
    asked: &mut HostConfig,
    engine: &EngineConfig,
    machine: &HostLimits,
) -> Result<Vec<String>, EngineError> {
    check_host_config(asked)?;
    check_platform(asked, engine, machine, Purpose::Update)
}

/// What the container runs.
fn check_config(config: &mut ContainerConfig) -> Result<(), EngineError> {
    if !config.working_dir.is_empty() {
        let Some(clean) = clean_path(&config.working_dir) else {
            return refuse(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            ));
        };
        config.working_dir = clean;
    }
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    for variable in config.env.as_deref().unwrap_or_default() {
        if variable.is_empty() || variable.starts_with('=') {
            return refuse(format!("invalid environment variable: {variable}"));
        }
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

/// How the container meets any host.
fn check_host_config(host: &HostConfig) -> Result<(), EngineError> {
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return refuse("can't create 'AutoRemove' container with restart policy");
    }
    for mount in &host.mounts {
        mount_points::check_mount(mount)?;
    }
    for entry in host.extra_hosts.as_deref().unwrap_or_default() {
        check_extra_host(entry)?;
    }
    launch::check_port_bindings(host)?;
    check_restart_policy(&host.restart_policy)?;
    bundle::check_capabilities(host)?;
    if host.annotations.contains_key("") {
        return refuse("invalid Annotations: the empty string is not permitted as an annotation key");
    }
    Ok(())
}

/// `name:address`, or `name:host-gateway`.
fn check_extra_host(entry: &str) -> Result<(), EngineError> {
    match entry.split_once(':') {
        None | Some(("", _)) => refuse(format!("bad format for add-host: {entry:?}")),
        Some((_, "host-gateway")) => Ok(()),
        Some((_, address)) => match address.trim().parse::<std::net::IpAddr>() {
            Ok(_) => Ok(()),
            Err(_) => refuse(format!("invalid IP address in add-host: {address:?}")),
        },
    }
}

/// How it meets this one.
fn check_platform(
    host: &mut HostConfig,
    engine: &EngineConfig,
    machine: &HostLimits,
    purpose: Purpose,
) -> Result<Vec<String>, EngineError> {
    let mut warnings = limits::check(host, machine, purpose)?;
    let ipc = host.ipc_mode.as_str();
    if !matches!(ipc, "" | "none" | "private" | "host" | "shareable") && !ipc.starts_with("container:") {
        return refuse(format!("invalid IPC mode: {ipc}"));
    }
    let pid = host.pid_mode.as_str();
    let joins = pid.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    if !matches!(pid, "" | "host") && !joins {
        return refuse(format!("invalid PID mode: {pid}"));
    }
    if host.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return refuse(format!("invalid UTS mode: {}", host.uts_mode));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return refuse(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj));
    }
    if host.network_mode == "host" && host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if !host.runtime.is_empty() && host.runtime != BUILT_IN_RUNTIME && !engine.runtimes.contains_key(&host.runtime) {
        return refuse(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    for destination in host.tmpfs.keys() {
        mount_points::check_target(destination).map_err(EngineError::invalid)?;
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return refuse(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode));
    }
    Ok(warnings)
}

/// The log driver and its options, with those of the daemon filled in.
pub(crate) fn check_log(host: &HostConfig) -> Result<(), EngineError> {
    let driver = host.log_config.kind.as_str();
    let option = |name: &str| host.log_config.config.as_ref()?.get(name).map(String::as_str);
    if driver == "none" {
        return Ok(());
    }
    let mode = option("mode").unwrap_or_default();
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return refuse(format!("logger: logging mode not supported: {mode}"));
    }
    if let Some(size) = option("max-buffer-size") {
        if mode != "non-blocking" {
            return refuse("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
        }
        if crate::log_options::parse_size(size).is_none() {
            return refuse(format!("error parsing option max-buffer-size: invalid size: '{size}'"));
        }
    }
    if !LOG_DRIVERS.contains(&driver) {
        return refuse(format!("logger: no log driver named '{driver}' is registered"));
    }
    let common = ["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];
    for (name, value) in host.log_config.config.iter().flatten() {
        if common.contains(&name.as_str()) || name == "tag" {
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

    fn checked(change: impl FnOnce(&mut ContainerConfig, &mut HostConfig)) -> Result<Vec<String>, String> {
        let (mut container, mut host) = (ContainerConfig::default(), HostConfig::default());
        change(&mut container, &mut host);
        let config = EngineConfig::new("/d".into(), "/e".into(), "/s".into());
        let checked = check_request(&mut container, &mut host, &config, HostLimits::current());
        checked.map_err(|error| error.to_string())
    }

    fn text(change: impl FnOnce(&mut HostConfig)) -> String {
        checked(|_, host| change(host)).err().unwrap_or_default()
    }

    #[test]
    fn bad_settings_have_dockerds_texts() {
        assert_eq!(text(|_| ()), "");
        assert_eq!(text(|host| host.memory = 1), "Minimum memory limit allowed is 6MB");
        assert_eq!(text(|host| host.runtime = "x".into()), "unknown or invalid runtime name: x");
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
    fn log_options_have_dockerds_texts() {
        for (driver, options, text) in [
            ("x", &[][..], "logger: no log driver named 'x' is registered"),
            ("json-file", &[("mode", "x")], "logger: logging mode not supported: x"),
            ("json-file", &[("mode", "non-blocking"), ("max-buffer-size", "4m"), ("max-size", "1m")], ""),
            (
                "json-file",
                &[("max-buffer-size", "4m")],
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            (
                "json-file",
                &[("mode", "non-blocking"), ("max-buffer-size", "x")],
                "error parsing option max-buffer-size: invalid size: 'x'",
            ),
            ("json-file", &[("foo", "1")], "unknown log opt 'foo' for json-file log driver"),
            ("none", &[("foo", "1"), ("mode", "x")], ""),
        ] {
            let mut host = HostConfig::default();
            host.log_config.kind = driver.into();
            host.log_config.config =
                Some(options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
            let found = check_log(&host).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(found, text);
        }
    }

    #[test]
    fn modes_and_hosts_have_dockerds_texts() {
        type Change = fn(&mut HostConfig);
        let cases: [(Change, &str); 15] = [
            (|host| host.ipc_mode = "x".into(), "invalid IPC mode: x"),
            (|host| host.ipc_mode = "shareable".into(), ""),
            (|host| host.pid_mode = "private".into(), "invalid PID mode: private"),
            (|host| host.pid_mode = "container:".into(), "invalid PID mode: container:"),
            (|host| host.uts_mode = "private".into(), "invalid UTS mode: private"),
            (|host| host.cgroupns_mode = "x".into(), "invalid cgroup namespace mode: x"),
            (|host| host.shm_size = -1, "SHM size can not be less than 0"),
            (|host| host.oom_score_adj = 2000, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
            (|host| host.extra_hosts = Some(vec!["a=1.2.3.4".into()]), "bad format for add-host: \"a=1.2.3.4\""),
            (|host| host.extra_hosts = Some(vec![":1.2.3.4".into()]), "bad format for add-host: \":1.2.3.4\""),
            (|host| host.extra_hosts = Some(vec!["a:b".into()]), "invalid IP address in add-host: \"b\""),
            (|host| host.extra_hosts = Some(vec!["a:::1".into(), "b:host-gateway".into()]), ""),
            (
                |host| drop(host.annotations.insert(String::new(), "x".into())),
                "invalid Annotations: the empty string is not permitted as an annotation key",
            ),
            (
                |host| drop(host.tmpfs.insert("x".into(), String::new())),
                "invalid mount path: 'x' mount path must be absolute",
            ),
            (
                |host| drop(host.tmpfs.insert("/a/..".into(), String::new())),
                "invalid specification: destination can't be '/'",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(text(change), expected);
        }
    }

    #[test]
    fn ports_of_the_hosts_network_are_warned_of() {
        let warnings = checked(|_, host| {
            "host".clone_into(&mut host.network_mode);
            host.port_bindings = Some([("80/tcp".to_owned(), None)].into());
        });
        assert_eq!(warnings.unwrap(), ["Published ports are discarded when using host network mode"]);
    }

    #[test]
    fn the_working_directory_is_cleaned() {
        let mut config = ContainerConfig { working_dir: "/a//b/../c/".into(), ..ContainerConfig::default() };
        check_config(&mut config).unwrap();
        assert_eq!(config.working_dir, "/a/c");
        let relative = checked(|config, _| config.working_dir = "a".into()).unwrap_err();
        assert_eq!(relative, "the working directory 'a' is invalid, it needs to be an absolute path");
    }

    #[test]
    fn names_are_checked() {
        assert!(check_name("web-1.x_y").is_ok() && check_name("/web").is_ok());
        for bad in ["", "/", "//ab", "a", "-a", "a b", "a/b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
