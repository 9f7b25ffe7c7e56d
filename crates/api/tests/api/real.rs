//! The docker CLI, the server and the real engine with real containers. Where there is no docker CLI nothing is tested.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::support::{FakeSwarm, Server};

/// The shim and the runtime are in an example of this crate.
fn skep() -> String {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples/api-test-skep");
    assert!(path.exists(), "{} is missing: build the examples", path.display());
    path.into_os_string().into_string().unwrap()
}

/// The engine's tests name their own binary so; ours takes its place.
macro_rules! env {
    ("CARGO_BIN_EXE_engine-test-skep") => {
        super::skep()
    };
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../../engine/tests/engine/support.rs"]
mod world;

const PATIENCE: Duration = Duration::from_secs(30);

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs a program with this input.
async fn say(mut command: Command, input: &str) -> Option<Said> {
    command.env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST").env_remove("DOCKER_API_VERSION");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut stdin = child.stdin.take()?;
    stdin.write_all(input.as_bytes()).await.ok()?;
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?} hangs")).ok()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Some(Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

struct Real {
    world: world::World,
    server: Server,
}

impl Real {
    async fn start() -> Self {
        let world = world::World::new().await;
        let engine = Arc::new(world.engine.clone());
        let server = Server::start_of(Arc::new(FakeSwarm::default()), engine, world.images.clone(), Vec::new()).await;
        Self { world, server }
    }

    async fn docker_with(&self, arguments: &[&str], input: &str) -> Option<Said> {
        let mut command = Command::new("docker");
        command.args(["-H", &self.server.host()]).args(arguments);
        say(command, input).await
    }

    async fn docker(&self, arguments: &[&str]) -> Option<Said> {
        self.docker_with(arguments, "").await
    }

    /// In a terminal: each text is typed when the one before it was shown. All that was shown, and the exit code.
    async fn in_terminal(&self, arguments: &str, steps: &[(&str, &str)]) -> Said {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("docker -H {} {arguments}", self.server.host()), "/dev/null"]);
        command.env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST").env_remove("DOCKER_API_VERSION");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("script is installed");
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = Vec::new();
        let text = |shown: &[u8]| String::from_utf8_lossy(shown).into_owned();
        for (awaited, typed) in steps {
            while !text(&shown).contains(awaited) {
                let read = tokio::time::timeout(PATIENCE, stdout.read_buf(&mut shown)).await;
                let count = read.unwrap_or_else(|_| panic!("{awaited} in {}", text(&shown))).unwrap();
                assert_ne!(count, 0, "{awaited} in {}", text(&shown));
            }
            stdin.write_all(typed.as_bytes()).await.unwrap();
        }
        let rest = tokio::time::timeout(PATIENCE, stdout.read_to_end(&mut shown)).await;
        rest.unwrap_or_else(|_| panic!("{arguments} hangs after {}", text(&shown))).unwrap();
        let code = child.wait().await.unwrap().code();
        Said { code, out: text(&shown), err: String::new() }
    }

    /// What a command says that must succeed.
    async fn ok(&self, arguments: &[&str]) -> String {
        let said = self.docker(arguments).await.unwrap();
        assert_eq!(said.code, Some(0), "{arguments:?}: {} {}", said.out, said.err);
        said.out
    }

    async fn end(self) {
        self.world.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_gives_streams_and_exit_code() {
    let real = Real::start().await;
    let script = "echo out; echo err >&2; exit 5";
    let Some(said) = real.docker(&["run", "--rm", world::IMAGE, "sh", "-c", script]).await else { return };
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(5), "out\n", "err\n"));
    let said = real.docker_with(&["run", "--rm", "-i", world::IMAGE, "cat"], "through\n").await.unwrap();
    assert_eq!((said.code, said.out.as_str()), (Some(0), "through\n"), "{}", said.err);
    let said = real.docker(&["run", "--rm", world::IMAGE, "nosuch"]).await.unwrap();
    assert_eq!(said.code, Some(127), "{}", said.err);
    assert!(said.err.contains("exec: \"nosuch\": executable file not found in $PATH"), "{}", said.err);
    let said = real.in_terminal(&format!("run --rm -it {} sh -c 'tty; exit 4'", world::IMAGE), &[]).await;
    assert_eq!(said.code, Some(4), "{} {}", said.out, said.err);
    assert!(said.out.contains("/dev/pts/"), "{}", said.out);
    assert_eq!(real.ok(&["ps", "-aq"]).await, "");
    real.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_watched_entered_and_ended() {
    let real = Real::start().await;
    let script = "echo ready; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done";
    let run = ["run", "-d", "--name", "web", "-l", "a=b", "-e", "X=1", world::IMAGE, "sh", "-c", script];
    if real.docker(&run).await.is_none() {
        return;
    }
    let shown = real.ok(&["ps", "--format", "{{.Names}} {{.Image}} {{.State}} {{.Status}}"]).await;
    assert!(shown.starts_with(&format!("web {} running Up ", world::IMAGE)), "{shown}");
    assert_eq!(real.ok(&["ps", "-q", "--filter", "label=a=c"]).await, "");
    assert_eq!(real.ok(&["exec", "web", "sh", "-c", "echo $X $FROM"]).await, "1 image\n");
    let said = real.docker(&["exec", "web", "sh", "-c", "exit 9"]).await.unwrap();
    assert_eq!(said.code, Some(9));
    let said = real.docker(&["exec", "web", "nosuch"]).await.unwrap();
    assert_eq!(said.code, Some(127), "{} {}", said.out, said.err);
    let said = real.docker_with(&["exec", "-i", "web", "cat"], "typed").await.unwrap();
    assert_eq!(said.out, "typed");
    let said = real.in_terminal("exec -it web sh -c 'tty; exit 6'", &[]).await;
    assert_eq!(said.code, Some(6), "{} {}", said.out, said.err);
    assert!(said.out.contains("/dev/pts/"), "{}", said.out);
    assert!(real.ok(&["top", "web"]).await.contains("sleep"));
    assert_eq!(real.ok(&["pause", "web"]).await, "web\n");
    assert!(real.ok(&["ps"]).await.contains("(Paused)"));
    assert_eq!(real.ok(&["unpause", "web"]).await, "web\n");
    let (followed, stopped, waited) =
        tokio::join!(real.ok(&["logs", "-f", "web"]), real.ok(&["stop", "web"]), real.ok(&["wait", "web"]),);
    assert_eq!((followed.as_str(), stopped.as_str(), waited.as_str()), ("ready\nbye\n", "web\n", "3\n"));
    let shown = real.ok(&["ps", "-a", "--format", "{{.Status}}"]).await;
    assert!(shown.starts_with("Exited (3) "), "{shown}");
    assert!(real.ok(&["logs", "-t", "--tail", "1", "web"]).await.ends_with("Z bye\n"));
    assert_eq!(real.ok(&["inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "web"]).await, "3 exited\n");
    let said = real.docker(&["kill", "web"]).await.unwrap();
    assert!(said.err.contains("cannot kill container: web: ") && said.err.contains("is not running"), "{}", said.err);
    let said = real.docker(&["run", "--name", "web", world::IMAGE]).await.unwrap();
    assert_eq!(said.code, Some(125));
    assert!(said.err.contains("The container name \"/web\" is already in use by container"), "{}", said.err);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let until = (now + 1).to_string();
    let events = real.ok(&["events", "--since", "1", "--until", &until, "--format", "{{.Action}}"]).await;
    for action in ["create", "start", "die", "stop", "pause", "unpause"] {
        assert!(events.lines().any(|line| line == action), "{action} in {events}");
    }
    assert_eq!(real.ok(&["rm", "web"]).await, "web\n");
    let said = real.docker(&["rm", "web"]).await.unwrap();
    assert!(said.err.contains("No such container: web"), "{}", said.err);
    real.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_are_detached_from_and_attached_to() {
    let real = Real::start().await;
    let run = format!("run -it --name tt {} sh -c 'echo ready; cat; echo after'", world::IMAGE);
    if real.docker(&["version"]).await.is_none() {
        return;
    }
    let said = real.in_terminal(&run, &[("ready", "one\n"), ("one\r\none", "\x10\x11")]).await;
    assert_eq!(said.code, Some(0), "{}", said.out);
    assert_eq!(real.ok(&["inspect", "-f", "{{.State.Running}}", "tt"]).await, "true\n");
    let steps = [("", "two\n"), ("two\r\ntwo", "\x04")];
    let said = real.in_terminal("attach tt", &steps).await;
    assert!(said.out.contains("after"), "{}", said.out);
    assert_eq!(real.ok(&["wait", "tt"]).await, "0\n");
    assert_eq!(real.ok(&["rm", "tt"]).await, "tt\n");
    real.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_outlive_containers() {
    let real = Real::start().await;
    let Some(said) = real.docker(&["volume", "create", "data"]).await else { return };
    assert_eq!(said.out, "data\n");
    real.ok(&["run", "--rm", "-v", "data:/d", world::IMAGE, "sh", "-c", "echo kept > /d/file"]).await;
    assert_eq!(real.ok(&["run", "--rm", "-v", "data:/d:ro", world::IMAGE, "cat", "/d/file"]).await, "kept\n");
    assert!(real.ok(&["system", "df", "-v"]).await.contains("data"));
    assert_eq!(real.ok(&["volume", "ls", "-q"]).await, "data\n");
    assert_eq!(real.ok(&["volume", "rm", "data"]).await, "data\n");
    real.end().await;
}
