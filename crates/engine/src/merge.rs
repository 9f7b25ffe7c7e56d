//! What an image gives to a container, merged under what the user asks for, as dockerd does.

use docker_types::container::ContainerConfig;
use docker_types::container_spec::HealthConfig;

use crate::EngineError;

fn env_name(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

/// Fills what the user left open from the image; then says what there is to run.
pub(crate) fn merge(user: &mut ContainerConfig, image: &oci_types::ContainerConfig) -> Result<(), EngineError> {
    if user.user.is_empty() {
        user.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.keys() {
        user.exposed_ports.entry(port.clone()).or_default();
    }
    let env = user.env.get_or_insert_default();
    for variable in &image.env {
        if !env.iter().any(|known| env_name(known) == env_name(variable)) {
            env.push(variable.clone());
        }
    }
    let labels = user.labels.get_or_insert_default();
    for (name, value) in &image.labels {
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    merge_command(user, image)?;
    if let Some(check) = &image.healthcheck {
        merge_healthcheck(&mut user.healthcheck, check);
    }
    if user.working_dir.is_empty() {
        user.working_dir.clone_from(&image.working_dir);
    }
    for volume in image.volumes.keys() {
        user.volumes.get_or_insert_default().entry(volume.clone()).or_default();
    }
    // an empty set is shown as null
    user.volumes = user.volumes.take().filter(|volumes| !volumes.is_empty());
    if user.stop_signal.is_empty() {
        user.stop_signal.clone_from(&image.stop_signal);
    }
    if user.shell.is_none() && !image.shell.is_empty() {
        user.shell = Some(image.shell.clone());
    }
    Ok(())
}

fn is_empty(words: Option<&Vec<String>>) -> bool {
    words.is_none_or(Vec::is_empty)
}

fn merge_command(user: &mut ContainerConfig, image: &oci_types::ContainerConfig) -> Result<(), EngineError> {
    if is_empty(user.entrypoint.as_ref()) {
        if is_empty(user.cmd.as_ref()) {
            user.cmd.clone_from(&image.cmd);
        }
        if user.entrypoint.is_none() {
            user.entrypoint.clone_from(&image.entrypoint);
        }
    }
    // `--entrypoint ""` takes the image's away
    if user.entrypoint.as_deref() == Some(&[String::new()]) {
        user.entrypoint = None;
    }
    if is_empty(user.entrypoint.as_ref()) && is_empty(user.cmd.as_ref()) {
        return Err(EngineError::invalid("no command specified"));
    }
    Ok(())
}

fn merge_healthcheck(user: &mut Option<HealthConfig>, image: &oci_types::Healthcheck) {
    let check = user.get_or_insert_default();
    if check.test.is_empty() {
        check.test.clone_from(&image.test);
    }
    let inherit = |value: &mut i64, from: i64| {
        if *value == 0 {
            *value = from;
        }
    };
    inherit(&mut check.interval, image.interval);
    inherit(&mut check.timeout, image.timeout);
    inherit(&mut check.start_period, image.start_period);
    inherit(&mut check.start_interval, image.start_interval);
    if check.retries == 0 {
        check.retries = i32::try_from(image.retries).unwrap_or(i32::MAX);
    }
}

/// Program and arguments.
pub(crate) fn command_of(config: &ContainerConfig) -> (String, Vec<String>) {
    let entrypoint = config.entrypoint.as_deref().unwrap_or_default();
    let mut words = entrypoint.iter().chain(config.cmd.as_deref().unwrap_or_default()).cloned();
    (words.next().unwrap_or_default(), words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Option<Vec<String>> {
        Some(text.iter().map(|word| (*word).to_owned()).collect())
    }

    fn image() -> oci_types::ContainerConfig {
        oci_types::ContainerConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["a", "b"]),
            env: vec!["PATH=/bin".into(), "X=image".into()],
            stop_signal: "SIGINT".into(),
            ..oci_types::ContainerConfig::default()
        }
    }

    fn command(entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>) -> Result<Vec<String>, String> {
        let mut user = ContainerConfig { entrypoint, cmd, ..ContainerConfig::default() };
        merge(&mut user, &image()).map_err(|error| error.to_string())?;
        let (path, args) = command_of(&user);
        Ok(std::iter::once(path).chain(args).collect())
    }

    #[test]
    fn commands_are_dockerds() {
        let check = |entrypoint, cmd, expected: &[&str]| assert_eq!(command(entrypoint, cmd).ok(), words(expected));
        check(None, None, &["/entry", "a", "b"]);
        check(None, words(&["c"]), &["/entry", "c"]);
        check(words(&["/e"]), None, &["/e"]);
        check(words(&["/e"]), words(&["c"]), &["/e", "c"]);
        check(words(&[""]), words(&["c"]), &["c"]);
        assert_eq!(command(words(&[""]), None).unwrap_err(), "no command specified");
    }

    #[test]
    fn the_users_values_win() {
        let mut user = ContainerConfig { env: words(&["X=user", "Y=1"]), ..ContainerConfig::default() };
        merge(&mut user, &image()).unwrap();
        assert_eq!(user.env, words(&["X=user", "Y=1", "PATH=/bin"]));
        assert_eq!(user.stop_signal, "SIGINT");
        assert_eq!(user.labels, Some(Default::default()));
    }
}
