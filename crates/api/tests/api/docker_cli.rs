//! The unmodified docker CLI against our server; where there is no docker CLI nothing is tested.

use std::process::Output;

use crate::support::Server;
use tokio::process::Command;

/// What the CLI says, or `None` if there is no CLI.
async fn docker(server: &Server, arguments: &[&str]) -> Option<(bool, String)> {
    let output: Output = Command::new("docker")
        .args(["-H", &server.host()])
        .args(arguments)
        .env_remove("DOCKER_API_VERSION")
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_HOST")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .ok()?;
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
