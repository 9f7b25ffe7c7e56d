//! `skep run` and `skep exec`.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::mount;
use crate::Exit;
use crate::context::Context;
use crate::image::pull_for_command;
use crate::json::{encode, number, pairs, text};
use crate::stdio::{self, Ended};
use crate::terminal::{self, DetachKeys};
use crate::text::parse_bytes;

/// The exit code of a container that could not be run at all.
const REFUSED: i32 = 125;

/// When `run` pulls the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pull {
    /// Whatever is there already.
    Always,
    /// If it is not there.
    Missing,
    /// Not at all.
    Never,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Run container in background and print container ID.
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container.
    #[arg(long, value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
    /// Pull image before running.
    #[arg(long, value_enum, default_value_t = Pull::Missing)]
    pull: Pull,
    /// Automatically remove the container when it exits.
    #[arg(long)]
    rm: bool,
    /// Keep STDIN open even if not attached.
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a pseudo-TTY.
    #[arg(short, long)]
    tty: bool,
    /// Assign a name to the container.
    #[arg(long, default_value = "")]
    name: String,
    /// Set environment variables.
    #[arg(short, long)]
    env: Vec<String>,
    /// Bind mount a volume.
    #[arg(short, long)]
    volume: Vec<String>,
    /// Attach a filesystem mount to the container.
    #[arg(long)]
    mount: Vec<String>,
    /// Mount a tmpfs directory.
    #[arg(long)]
    tmpfs: Vec<String>,
    /// Publish a container's port(s) to the host.
    #[arg(short, long)]
    publish: Vec<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>]).
    #[arg(short, long, default_value = "")]
    user: String,
    /// Working directory inside the container.
    #[arg(short, long, default_value = "")]
    workdir: String,
    /// Container host name.
    #[arg(long, default_value = "")]
    hostname: String,
    /// Memory limit.
    #[arg(short, long, value_parser = parse_bytes)]
    memory: Option<i64>,
    /// Number of CPUs.
    #[arg(long)]
    cpus: Option<f64>,
    /// Tune container pids limit.
    #[arg(long)]
    pids_limit: Option<i64>,
    /// Connect a container to a network.
    #[arg(long, visible_alias = "net", default_value = "default")]
    network: String,
    /// Restart policy to apply when a container exits.
    #[arg(long, default_value = "no")]
    restart: String,
    /// Overwrite the default ENTRYPOINT of the image.
    #[arg(long)]
    entrypoint: Option<String>,
    /// Set meta data on a container.
    #[arg(short, long)]
    label: Vec<String>,
    /// Give extended privileges to this container.
    #[arg(long)]
    privileged: bool,
    /// Mount the container's root filesystem as read only.
    #[arg(long)]
    read_only: bool,
    /// Add Linux capabilities.
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop Linux capabilities.
    #[arg(long)]
    cap_drop: Vec<String>,
    /// The image.
    image: String,
    /// Command and arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self: Box<Self>, context: &Context) -> Result<()> {
        let id = match self.create(context).await {
            Ok(id) => id,
            Err(error) => {
                refused(&error);
                return Err(Exit(REFUSED).into());
            }
        };
        if self.detach {
            self.start(context, &id).await?;
            println!("{id}");
            return Ok(());
        }
        let stdin = u8::from(self.interactive);
        let path = format!("/containers/{id}/attach?stream=1&stdin={stdin}&stdout=1&stderr=1");
        let attached = context.client.hijack(&path, None::<&Value>).await?;
        let condition = if self.rm { "removed" } else { "next-exit" };
        let wait = format!("/containers/{id}/wait?condition={condition}");
        let mut waiting = context.client.stream(Method::POST, &wait, Default::default(), None::<&Value>).await?;
        self.start(context, &id).await?;
        let resizing = self
            .tty
            .then(|| tokio::spawn(terminal::follow_size(context.client.clone(), format!("/containers/{id}/resize"))));
        let keys = self.detach_keys.clone().unwrap_or_default();
        let copied = stdio::copy(attached, self.interactive, self.tty, keys).await;
        resizing.inspect(|resizing| resizing.abort());
        if copied? == Ended::Detached {
            return Ok(());
        }
        let ended: Value = waiting.next().await?.unwrap_or_default();
        match i32::try_from(number(&ended, "StatusCode"))? {
            0 => Ok(()),
            code => Err(Exit(code).into()),
        }
    }

    /// Starts the container; a failure has Docker's exit codes 125, 126 and 127.
    async fn start(&self, context: &Context, id: &str) -> Result<()> {
        let Err(error) = context.client.post(&format!("/containers/{id}/start"), None::<&Value>).await else {
            return Ok(());
        };
        let message = error.to_string();
        refused(&error.into());
        let code = if message.contains("executable file not found") || message.contains("no such file or directory") {
            127
        } else if message.contains("permission denied") || message.contains("is a directory") {
            126
        } else {
            REFUSED
        };
        Err(Exit(code).into())
    }

    async fn create(&self, context: &Context) -> Result<String> {
        let body = self.body()?;
        if self.pull == Pull::Always {
            pull_for_command(context, &self.image).await?;
        }
        let path = format!("/containers/create?name={}", encode(&self.name));
        let created: Result<Value, _> = context.client.post_with(&path, Default::default(), &body).await;
        let created = match created {
            Err(error) if error.status() == Some(404) && self.pull == Pull::Missing => {
                eprintln!("Unable to find image '{}' locally", self.image);
                pull_for_command(context, &self.image).await?;
                context.client.post_with(&path, Default::default(), &body).await?
            }
            other => other?,
        };
        Ok(text(&created, "Id").to_owned())
    }

    fn body(&self) -> Result<Value> {
        let mut host = json!({
            "Binds": self.volume, "NetworkMode": self.network, "AutoRemove": self.rm, "Privileged": self.privileged,
            "ReadonlyRootfs": self.read_only, "CapAdd": self.cap_add, "CapDrop": self.cap_drop,
            "Memory": self.memory.unwrap_or(0), "NanoCpus": (self.cpus.unwrap_or(0.0) * 1e9).round() as i64,
        });
        if self.tty
            && let Some((rows, columns)) = terminal::size()
        {
            host["ConsoleSize"] = json!([rows, columns]);
        }
        if let Some(limit) = self.pids_limit {
            host["PidsLimit"] = json!(limit);
        }
        let (policy, retries) = self.restart.split_once(':').unwrap_or((&self.restart, "0"));
        host["RestartPolicy"] = json!({"Name": policy, "MaximumRetryCount": retries.parse::<i64>()?});
        for option in &self.mount {
            let mut mounts = host["Mounts"].as_array().cloned().unwrap_or_default();
            mounts.push(mount(option)?);
            host["Mounts"] = json!(mounts);
        }
        for option in &self.tmpfs {
            let (path, options) = option.split_once(':').unwrap_or((option, ""));
            host["Tmpfs"][path] = json!(options);
        }
        let mut exposed = json!({});
        for option in &self.publish {
            let (inside, binding) = port(option)?;
            exposed[&inside] = json!({});
            let mut bindings = host["PortBindings"][&inside].as_array().cloned().unwrap_or_default();
            bindings.push(binding);
            host["PortBindings"][&inside] = json!(bindings);
        }
        let attach = !self.detach;
        let mut body = json!({
            "Image": self.image, "Env": self.env, "User": self.user, "WorkingDir": self.workdir,
            "Hostname": self.hostname, "Tty": self.tty, "OpenStdin": self.interactive,
            "StdinOnce": self.interactive && attach, "AttachStdin": self.interactive && attach,
            "AttachStdout": attach, "AttachStderr": attach, "Labels": pairs(&self.label), "ExposedPorts": exposed,
            "HostConfig": host,
        });
        if !self.args.is_empty() {
            body["Cmd"] = json!(self.args);
        }
        if let Some(entrypoint) = &self.entrypoint {
            body["Entrypoint"] = json!([entrypoint]);
        }
        Ok(body)
    }
}

/// Docker's words for a container that is not started.
fn refused(error: &anyhow::Error) {
    eprintln!("skep: {error:#}\n\nRun 'skep run --help' for more information");
}

/// `[ip:][public:]private[/proto]` as a key of ExposedPorts and a binding.
fn port(option: &str) -> Result<(String, Value)> {
    let (ports, protocol) = option.split_once('/').unwrap_or((option, "tcp"));
    let (outside, inside) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, public) = outside.rsplit_once(':').unwrap_or(("", outside));
    if inside.parse::<u16>().is_err() || !(public.is_empty() || public.parse::<u16>().is_ok()) {
        bail!("invalid port mapping {option:?}: give [ip:][public:]private[/protocol]");
    }
    Ok((format!("{inside}/{protocol}"), json!({"HostIp": ip.trim_matches(['[', ']']), "HostPort": public})))
}

/// Options of `exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Detached mode: run command in the background.
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container.
    #[arg(long, value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
    /// Keep STDIN open even if not attached.
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a pseudo-TTY.
    #[arg(short, long)]
    tty: bool,
    /// Set environment variables.
    #[arg(short, long)]
    env: Vec<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>]).
    #[arg(short, long, default_value = "")]
    user: String,
    /// Working directory inside the container.
    #[arg(short, long, default_value = "")]
    workdir: String,
    /// Give extended privileges to the command.
    #[arg(long)]
    privileged: bool,
    container: String,
    /// Command and arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut body = json!({
            "AttachStdin": self.interactive && !self.detach, "AttachStdout": !self.detach,
            "AttachStderr": !self.detach, "Detach": self.detach, "Tty": self.tty, "Env": self.env, "Cmd": self.command,
            "User": self.user, "WorkingDir": self.workdir, "Privileged": self.privileged,
        });
        if self.tty
            && let Some((rows, columns)) = terminal::size()
        {
            body["ConsoleSize"] = json!([rows, columns]);
        }
        let path = format!("/containers/{}/exec", self.container);
        let created: Value = context.client.post_with(&path, Default::default(), &body).await?;
        let id = text(&created, "Id");
        let start = json!({"Detach": self.detach, "Tty": self.tty});
        let path = format!("/exec/{id}/start");
        if self.detach {
            context.client.post(&path, Some(&start)).await?;
            return Ok(());
        }
        let attached = context.client.hijack(&path, Some(&start)).await?;
        let resizing =
            self.tty.then(|| tokio::spawn(terminal::follow_size(context.client.clone(), format!("/exec/{id}/resize"))));
        let keys = self.detach_keys.clone().unwrap_or_default();
        let copied = stdio::copy(attached, self.interactive, self.tty, keys).await;
        resizing.inspect(|resizing| resizing.abort());
        if copied? == Ended::Detached {
            // As docker: whoever lets go of a command has no exit code of it.
            bail!("read escape sequence");
        }
        let ended: Value = context.client.get(&format!("/exec/{id}/json")).await?;
        match i32::try_from(number(&ended, "ExitCode"))? {
            0 => Ok(()),
            code => Err(Exit(code).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::port;
    use serde_json::json;

    #[test]
    fn port_mappings_are_read() {
        let check = |option: &str, inside: &str, ip: &str, public: &str| {
            let expected = (inside.to_owned(), json!({"HostIp": ip, "HostPort": public}));
            assert_eq!(port(option).unwrap(), expected);
        };
        check("80", "80/tcp", "", "");
        check("8080:80/udp", "80/udp", "", "8080");
        check("127.0.0.1:8080:80", "80/tcp", "127.0.0.1", "8080");
        check("127.0.0.1::80", "80/tcp", "127.0.0.1", "");
        assert!(port("x:80").is_err());
    }
}
