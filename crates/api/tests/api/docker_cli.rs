//! The unmodified docker CLI against our server; where there is no docker CLI nothing is tested.

use std::time::Duration;

use crate::support::Server;
use tokio::process::Command;

/// How long one command may take.
const CLI_TIMEOUT: Duration = Duration::from_secs(20);

/// What the CLI says, or `None` if there is no CLI.
pub(crate) async fn docker(server: &Server, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("docker")
        .args(["-H", &server.host()])
        .args(arguments)
        .env_remove("DOCKER_API_VERSION")
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_HOST")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let Ok(output) = tokio::time::timeout(CLI_TIMEOUT, output).await else { panic!("docker {arguments:?} hangs") };
    let output = output.ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test]
async fn the_cli_manages_services_secrets_and_nodes() {
    let server = Server::start().await;
    let mut node = model::Node { id: "node1".into(), ..model::Node::default() };
    node.spec.desired_role = model::NodeRole::Manager;
    node.status.state = model::NodeState::Ready;
    node.description = Some(model::NodeDescription { hostname: "host1".into(), ..model::NodeDescription::default() });
    node.manager_status = Some(model::ManagerStatus {
        leader: true,
        reachability: model::Reachability::Reachable,
        addr: "127.0.0.1:2377".into(),
        ..model::ManagerStatus::default()
    });
    server.swarm.nodes.lock().unwrap().insert("node1".into(), node);

    let create = ["service", "create", "-d", "--no-resolve-image", "--name", "dummy", "--publish", "9005:9005", "a/b"];
    let Some((created, text)) = docker(&server, &create).await else { return };
    assert!(created, "{text}");
    let check = async |arguments: &[&str], succeeds: bool, expected: &str| {
        let (succeeded, text) = docker(&server, arguments).await.unwrap();
        assert_eq!(succeeded, succeeds, "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    };
    check(&["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"], true, "dummy replicated 4/5").await;
    check(&["service", "inspect", "--pretty", "dummy"], true, "PublishedPort = 9005").await;
    check(&["service", "scale", "-d", "dummy=5"], true, "dummy scaled to 5").await;
    check(&["service", "inspect", "-f", "{{.Spec.Mode.Replicated.Replicas}}", "dummy"], true, "5").await;
    check(&["service", "update", "-d", "--force", "--no-resolve-image", "dummy"], true, "dummy").await;
    check(&["service", "inspect", "-f", "{{.Spec.TaskTemplate.ForceUpdate}}", "dummy"], true, "1").await;
    check(&["service", "rm", "dummy"], true, "dummy").await;
    check(&["service", "inspect", "dummy"], false, "no such service: dummy").await;
    check(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"], true, "host1 Ready Leader")
        .await;
    check(&["node", "inspect", "-f", "{{.ManagerStatus.Addr}}", "host1"], true, "127.0.0.1:2377").await;
    check(&["node", "rm", "host1"], false, "rpc error: code = FailedPrecondition desc = node node1 is not down").await;
    check(&["swarm", "init", "--advertise-addr", "127.0.0.1"], true, "is now a manager").await;
    check(&["swarm", "join-token", "-q", "worker"], true, "").await;
    check(&["version", "-f", "{{.Server.APIVersion}}"], true, "1.51").await;
}

#[tokio::test]
async fn the_cli_runs_containers() {
    let server = Server::start().await;
    let Some((ran, text)) = docker(&server, &["run", "--name", "one", "alpine", "echo", "hello"]).await else { return };
    assert!(ran, "{text}");
    assert_eq!(text, "hello\n");
    let check = async |arguments: &[&str], succeeds: bool, expected: &str| {
        let (succeeded, text) = docker(&server, arguments).await.unwrap();
        assert_eq!(succeeded, succeeds, "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    };
    check(&["logs", "one"], true, "hello\n").await;
    check(&["logs", "-f", "--tail", "5", "one"], true, "hello\n").await;
    check(&["wait", "one"], true, "0\n").await;
    check(&["ps", "-a", "--format", "{{.Names}} {{.Status}} {{.Command}}"], true, "one Exited (0) 5 minutes ago").await;
    check(&["ps", "-q"], true, "").await;
    check(&["ps", "-a", "--filter", "status=odd"], false, "invalid filter 'status=odd'").await;
    check(
        &["inspect", "-f", "{{.Name}} {{.State.ExitCode}} {{.HostConfig.NetworkMode}}", "one"],
        true,
        "/one 0 bridge",
    )
    .await;
    check(&["run", "--name", "one", "alpine"], false, "Conflict. The container name \"/one\" is already in use").await;
    check(&["run", "--rm", "alpine", "echo", "gone"], true, "gone\n").await;
    check(&["run", "-d", "--name", "two", "-e", "A=b", "alpine", "sleep"], true, "").await;
    check(&["ps", "--format", "{{.Names}} {{.Status}}"], true, "two Up 3 seconds").await;
    check(&["exec", "two", "echo", "inside"], true, "inside\n").await;
    check(&["exec", "two", "nope"], false, "executable file not found in $PATH").await;
    check(&["exec", "-d", "two", "echo", "x"], true, "").await;
    check(&["exec", "one", "echo"], false, "is not running").await;
    check(&["top", "two"], true, "sleep").await;
    check(&["rename", "two", "three"], true, "").await;
    check(&["update", "--memory", "10m", "three"], true, "three").await;
    check(&["stop", "-t", "1", "three"], true, "three").await;
    check(&["restart", "three"], true, "three").await;
    check(&["kill", "three"], true, "three").await;
    check(&["kill", "three"], false, "cannot kill container: three: container").await;
    check(&["rm", "one", "three"], true, "one\nthree\n").await;
    check(&["inspect", "one"], false, "No such object: one").await;
    check(&["cp", "one:/x", "/tmp"], false, "is not supported by Skep yet").await;
    check(&["run", "missing"], false, "Unable to find image 'missing:latest' locally").await;
}

/// Exit codes are the container's.
#[tokio::test]
async fn the_cli_gives_the_exit_code_and_passes_input_on() {
    let server = Server::start().await;
    let host = server.host();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["-H", &host]).args(arguments).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
        command
    };
    let code = async |arguments: &[&str]| {
        let output = tokio::time::timeout(CLI_TIMEOUT, run(arguments).output()).await.expect("docker hangs");
        output.ok().and_then(|output| output.status.code())
    };
    let Some(first) = code(&["run", "--rm", "alpine", "exit", "7"]).await else { return };
    assert_eq!(first, 7);
    let mut child = run(&["run", "-i", "--rm", "alpine", "cat"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"through the pipe").await.unwrap();
    drop(input);
    let output = tokio::time::timeout(CLI_TIMEOUT, child.wait_with_output()).await.unwrap();
    let output = output.unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"through the pipe".as_slice()));
    assert_eq!(code(&["run", "--name", "x", "alpine", "exit", "3"]).await, Some(3));
    assert_eq!(code(&["start", "-a", "x"]).await, Some(3));
}

#[tokio::test]
async fn the_cli_shows_system_networks_and_volumes() {
    let server = Server::start().await;
    let Some((shown, text)) = docker(&server, &["info"]).await else { return };
    assert!(shown && text.contains("Storage Driver: overlay2") && text.contains("Swarm: active"), "{text}");
    let check = async |arguments: &[&str], succeeds: bool, expected: &str| {
        let (succeeded, text) = docker(&server, arguments).await.unwrap();
        assert_eq!(succeeded, succeeds, "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    };
    check(&["version"], true, "Skep ").await;
    check(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"], true, "bridge bridge local").await;
    check(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"], true, "172.17.0.1").await;
    check(&["volume", "create", "data"], true, "data").await;
    check(&["volume", "ls", "-q"], true, "data").await;
    check(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"], true, "/volumes/data/_data").await;
    check(&["system", "df", "-v"], true, "data").await;
    check(&["volume", "rm", "data"], true, "data").await;
    check(&["volume", "rm", "data"], false, "no such volume").await;
    check(&["container", "prune", "-f"], true, "Total reclaimed space: 0B").await;
    check(&["network", "prune", "-f"], true, "").await;
    check(&["search", "x"], false, "is not supported by Skep yet").await;
    check(&["plugin", "ls"], true, "ENABLED").await;
    check(&["events", "--since", "1", "--until", "2"], true, "").await;
}
