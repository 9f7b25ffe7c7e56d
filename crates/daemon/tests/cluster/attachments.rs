//! Plain containers on networks of the swarm: started there, connected and disconnected, found by name from everywhere, through
//! restarts of the daemon and of the container.

use serde_json::Value;

use crate::hosts::{Host, Wire};
use crate::mesh::{container, lines, run, swarm};
use crate::support::{Done, hostname, until};

/// What dockerd says before the reason for which a container has no network.
const SETUP: &str = "failed to set up container networking";

/// A network that plain containers may be on.
const MESH: &str = "network create -d overlay --attachable --subnet 10.90.0.0/24 mesh";

/// What a command that inspects says of the one thing it is about.
pub fn inspect(host: &Host, line: &str) -> Value {
    let shown: Value = serde_json::from_str(&host.docker(line)).expect("JSON");
    shown[0].clone()
}

/// The name of a container in a network's description.
fn name(container: &Value) -> &str {
    container["Name"].as_str().expect("a name")
}

/// The address of a container on a network.
pub fn address(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    host.docker(&format!("inspect {container} --format {format}")).trim().to_owned()
}

#[test]
fn containers_and_tasks_find_each_other_on_all_nodes() {
    let wire = swarm(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.docker(MESH);
    a.docker("service create -d --name web --network mesh --mode global tiny-service");
    a.until_replicas("web", "2/2");
    b.docker("run -d --name one --network mesh --network-alias first tiny-service");
    a.docker("run -d --name two --network mesh --hostname zwei tiny-service");
    let (one, two) = (address(b, "one", "mesh"), address(a, "two", "mesh"));
    let id = b.docker("ps -q --filter name=one").trim().to_owned();
    for (host, from) in [(a, "two"), (a, &container(a, "web")), (b, "one"), (b, &container(b, "web"))] {
        for (name, address) in [("one", &one), ("first", &one), (&id, &one), ("two.mesh", &two), ("zwei", &two)] {
            until("a name", || (lines(host, from, &format!("resolve {name}")) == [address.clone()]).then_some(()));
        }
        assert_eq!(lines(host, from, "resolve tasks.web").len(), 2);
        assert!(run(host, from, "get / one").contains("hostname"), "{} {from}", host.name);
        assert_eq!(hostname(&run(host, from, "get / two")), "zwei");
    }
    // one's own name changes for everybody
    b.docker("rename one uno");
    until("the new name", || (lines(a, "two", "resolve uno") == [one.clone()]).then_some(()));
    until("no old name", || lines(a, "two", "resolve one").is_empty().then_some(()));
    let shown = inspect(b, "network inspect mesh");
    assert_eq!((&shown["Attachable"], &shown["IPAM"]["Config"][0]["Subnet"]), (&true.into(), &"10.90.0.0/24".into()));
    let on_it: Vec<&str> = shown["Containers"].as_object().expect("containers").values().map(name).collect();
    assert!(on_it.len() == 3 && on_it.contains(&"uno"), "the task, the container, the balancer: {on_it:?}");
    assert_eq!(shown["Peers"].as_array().expect("peers").len(), 2);
    b.docker("rm -f uno");
    until("no name", || lines(a, "two", "resolve uno").is_empty().then_some(()));
    a.docker("service rm web");
    a.docker("rm -f two");
    for host in [a, b] {
        host.until("ps -aq", str::is_empty);
    }
    a.until("network rm mesh", |_| true);
    b.until("network ls -q --filter name=mesh", str::is_empty);
}

/// The networks that a container is on, sorted.
pub fn networks_of(host: &Host, container: &str) -> Vec<String> {
    let shown = inspect(host, &format!("inspect {container}"));
    shown["NetworkSettings"]["Networks"].as_object().expect("networks").keys().cloned().collect()
}

/// What the daemon says to a command that it refuses.
pub fn refusal(host: &Host, line: &str) -> String {
    let done = host.try_docker(line);
    assert_ne!(done.code, 0, "{line}: {done:?}");
    let mut said = done.err.lines().filter_map(|line| line.split_once("Error response from daemon: "));
    said.next().unwrap_or_else(|| panic!("{line}: {done:?}")).1.to_owned()
}

#[test]
fn containers_are_connected_and_disconnected() {
    let wire = swarm(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.docker(MESH);
    a.docker("network create -d overlay --attachable --subnet 10.91.0.0/24 --ip-range 10.91.0.64/26 other");
    let id = b.docker("run -d --name one --network mesh tiny-service");
    a.docker("run -d --name two --network other tiny-service");
    let since = inspect(b, "inspect one")["State"]["StartedAt"].as_str().expect("a time").to_owned();
    b.docker("network connect --alias uno --ip 10.91.0.77 other one");
    assert_eq!(networks_of(b, "one"), ["mesh", "other"]);
    assert_eq!(address(b, "one", "other"), "10.91.0.77");
    assert!(address(a, "two", "other").starts_with("10.91.0."));
    for name in ["one", "uno", "one.other", &id[..12]] {
        until("a name", || (lines(a, "two", &format!("resolve {name}")) == ["10.91.0.77"]).then_some(()));
    }
    assert_eq!(hostname(&run(b, "one", "get / two")), a.docker("ps -q --filter name=two").trim());
    let again = refusal(b, "network connect other one");
    assert_eq!(again, "one is already attached to network other");
    let lone = b.docker("run -d --name lone tiny-service");
    let not_on_it = format!("container {} is not connected to network mesh", lone.trim());
    assert_eq!(refusal(b, "network disconnect mesh lone"), not_on_it);
    b.docker("network disconnect mesh one");
    assert_eq!(networks_of(b, "one"), ["other"]);
    assert!(run(b, "one", "get / two").contains("hostname"), "the way out is another one now");
    // It was the network's last container on this machine, which is no manager.
    assert_eq!(refusal(b, "network disconnect mesh one"), "network mesh not found");
    let format = "{{.Action}}:{{.Actor.Attributes.name}}:{{.Actor.Attributes.container}}";
    let expected = [format!("connect:other:{}", id.trim()), format!("disconnect:mesh:{}", id.trim())];
    // `--until` ends with the last whole second.
    b.until(&format!("events --filter type=network --format {format} --since {since} --until 0s"), |happened| {
        happened.lines().filter(|line| line.ends_with(id.trim())).eq(&expected)
    });
    b.docker("network disconnect -f other one");
    assert!(lines(b, "one", "resolve two").is_empty() && networks_of(b, "one").is_empty());
    stopped_ones(a, b);
    a.docker("rm -f two three");
    b.docker("rm -f one lone");
    for network in ["mesh", "other"] {
        a.docker(&format!("network rm {network}"));
    }
}

/// A container that does not run is on a network from its next start on.
fn stopped_ones(a: &Host, b: &Host) {
    b.docker("network connect mesh one");
    a.docker("create --name three --network mesh tiny-service");
    a.docker("network connect --alias drei other three");
    assert_eq!(networks_of(a, "three"), ["mesh", "other"]);
    assert_eq!(address(a, "three", "other"), "");
    a.docker("start three");
    let at = address(a, "three", "other");
    until("a name", || (lines(a, "two", "resolve drei") == [at.clone()]).then_some(()));
    until("a name", || (lines(b, "one", "resolve three") == [address(a, "three", "mesh")]).then_some(()));
    a.docker("stop three");
    until("no name", || lines(b, "one", "resolve three").is_empty().then_some(()));
    a.docker("network disconnect mesh three");
    a.docker("start three");
    assert_eq!(networks_of(a, "three"), ["other"]);
    until("a name", || (lines(a, "two", "resolve three") == [address(a, "three", "other")]).then_some(()));
    assert!(lines(b, "one", "resolve three").is_empty());
}

#[test]
fn places_that_cannot_be_had_are_said_as_dockerd_says_it() {
    let wire = Wire::start(2);
    for host in &wire.hosts {
        host.load_tiny();
        let nowhere = refusal(host, "run --rm --network mesh tiny-service exit 0");
        assert_eq!(nowhere, format!("{SETUP}: network mesh not found"), "{}", host.name);
    }
    wire.init();
    wire.join(1, "worker");
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.docker("network create -d overlay --subnet 10.92.0.0/24 closed");
    a.docker("network create -d overlay --attachable --subnet 10.93.0.0/29 small");
    for host in [a, b] {
        let closed = refusal(host, "run --rm --network closed tiny-service exit 0");
        let reason = "rpc error: code = PermissionDenied desc = network closed not manually attachable";
        let reason = format!("Could not attach to network closed: {reason}");
        assert_eq!(closed, format!("{SETUP}: {reason}"), "{}", host.name);
        let unknown = refusal(host, "run --rm --network none-such tiny-service exit 0");
        let reason_unknown = "rpc error: code = NotFound desc = network none-such not found";
        let reason_unknown = format!("Could not attach to network none-such: {reason_unknown}");
        assert_eq!(unknown, format!("{SETUP}: {reason_unknown}"), "{}", host.name);
        host.docker(&format!("run -d --name on-{} tiny-service", host.name));
        let unknown = refusal(host, &format!("network connect none-such on-{}", host.name));
        assert_eq!(unknown, reason_unknown);
        let closed = refusal(host, &format!("network connect closed on-{}", host.name));
        assert_eq!(closed, reason, "{}", host.name);
    }
    // Of eight addresses one is the network's, one the last, one the gateway; each node's balancer has one.
    b.docker("run -d --name first --network small --ip 10.93.0.5 tiny-service");
    let taken = refusal(a, "run -d --network small --ip 10.93.0.5 tiny-service");
    let hint = "attaching to network failed, make sure your network options are correct and check manager logs";
    assert_eq!(taken, format!("{SETUP}: {hint}: context deadline exceeded"));
    let free = address(b, "first", "small");
    assert_eq!(free, "10.93.0.5");
    b.docker("rm -f first");
    a.docker("run -d --name second --network small --ip 10.93.0.5 tiny-service");
    assert_eq!(address(a, "second", "small"), "10.93.0.5");
    // A start that fails later gives its place back.
    a.docker("run -d --name port -p 9005:9005 tiny-service");
    for line in ["--entrypoint /none-such tiny-service", "-p 9005:9005 tiny-service"] {
        assert_ne!(a.try_docker(&format!("run -d --network small {line}")).code, 0, "{line}");
    }
    assert_eq!(a.docker("node ps self -q").trim(), "", "places are not tasks to users");
    let in_use = refusal(a, "network rm small");
    assert!(
        in_use.contains("rpc error: code = FailedPrecondition desc = network") && in_use.contains("is in use by task")
    );
    a.docker("rm -f second on-a port");
    a.docker("network rm small");
}

/// Ends a container's process behind its daemon's back.
fn end_process(host: &Host, pid: &str) {
    let ended = Done::of(host.inside("kill").args(["-KILL", pid]).output().expect("kill"));
    assert_eq!(ended.code, 0, "{ended:?}");
}

/// The pid of a container's process, as its machine counts.
fn pid(host: &Host, container: &str) -> String {
    host.docker(&format!("inspect {container} --format {{{{.State.Pid}}}}")).trim().to_owned()
}

#[test]
fn places_outlive_the_daemon_and_are_had_again() {
    let mut wire = swarm(2);
    wire.hosts[0].docker(MESH);
    for host in &wire.hosts {
        for name in ["stays", "ends"] {
            host.docker(&format!("run -d --name {name}-{} --network mesh --restart always tiny-service", host.name));
        }
    }
    let facts = |host: &Host, name: &str| (pid(host, name), address(host, name, "mesh"));
    for down in 0..2 {
        let host = &wire.hosts[down];
        let (stays, ends) = (format!("stays-{}", host.name), format!("ends-{}", host.name));
        let (before, ended) = (facts(host, &stays), pid(host, &ends));
        let host = &mut wire.hosts[down];
        // One as by a crash, one as by an update.
        if down == 0 {
            host.kill()
        } else {
            host.terminate()
        }
        end_process(host, &ended);
        host.run();
        let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
        let host = &wire.hosts[down];
        assert_eq!(facts(host, &stays), before, "the process that ran and its address");
        host.until("ps -q", |out| out.lines().count() == 2);
        assert_ne!(pid(host, &ends), ended);
        for name in [stays, ends] {
            let expected = [address(host, &name, "mesh")];
            assert!(expected[0].starts_with("10.90.0."), "{expected:?}");
            for (asked, from) in [(a, "stays-a"), (a, "ends-a"), (b, "stays-b"), (b, "ends-b")] {
                until("a name", || (lines(asked, from, &format!("resolve {name}")) == expected).then_some(()));
                assert!(run(asked, from, &format!("get / {name}")).contains("hostname"), "{name} from {from}");
            }
        }
    }
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    // Plain containers are not the swarm's to stop.
    a.docker("service create -d --name web --mode global tiny-service");
    a.until_replicas("web", "2/2");
    a.docker("node update --availability drain b");
    b.until("ps -q", |out| out.lines().count() == 2);
    assert_eq!(lines(a, "stays-a", "resolve stays-b"), [address(b, "stays-b", "mesh")]);
    // A new place is given where new tasks may be, as with dockerd.
    a.docker("node update --availability active b");
    b.docker("restart -t 1 stays-b");
    let now = [address(b, "stays-b", "mesh")];
    until("a name", || (lines(a, "stays-a", "resolve stays-b") == now).then_some(()));
    // Who leaves the swarm leaves its networks.
    b.docker("swarm leave");
    until("no name", || lines(a, "stays-a", "resolve stays-b").is_empty().then_some(()));
    assert_eq!(b.running(), 2);
    assert!(networks_of(b, "stays-b").is_empty() && networks_of(b, "ends-b").is_empty());
    a.docker("service rm web");
    a.docker("rm -f stays-a ends-a");
    assert!(
        refusal(a, "network rm mesh").contains("is in use by task"),
        "nobody said yet that the node is gone for good"
    );
    a.until("node rm b", |_| true);
    a.docker("network rm mesh");
}

#[test]
fn a_small_network_says_that_it_is_full_and_fills_again() {
    let wire = swarm(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    // Six addresses: the gateway, the service, a task and a balancer on each node.
    a.docker("network create -d overlay --attachable --subnet 10.93.0.0/29 small");
    a.docker("service create -d --name web --network small --mode global tiny-service");
    a.until_replicas("web", "2/2");
    a.docker("service create -d --name late --network small tiny-service");
    let full = "no address left in network small";
    a.until("service ps late --no-trunc --format {{.CurrentState}}:{{.Error}}", |out| {
        out.starts_with("New") && out.ends_with(&format!("{full:?}"))
    });
    // Another service that can run runs all the same.
    a.docker("service create -d --name other tiny-service");
    a.until_replicas("other", "1/1");
    a.docker("service rm late other");
    a.docker("service rm web");
    for round in 0..3 {
        a.docker(&format!("run -d --name one-{round} --network small tiny-service"));
        b.docker(&format!("run -d --name two-{round} --network small tiny-service"));
        let expected = [address(b, &format!("two-{round}"), "small")];
        until("a name", || {
            (lines(a, &format!("one-{round}"), &format!("resolve two-{round}")) == expected).then_some(())
        });
        a.docker(&format!("rm -f one-{round}"));
        b.docker(&format!("rm -f two-{round}"));
    }
    a.until("network rm small", |_| true);
}

/// Plain containers of both engines on one network.
fn with_dockerd(is_dockerd: [bool; 2]) {
    let mut wire = Wire::bare(2);
    for (host, is_dockerd) in wire.hosts.iter_mut().zip(is_dockerd) {
        if is_dockerd {
            host.run_dockerd()
        } else {
            host.run()
        }
        host.load_tiny();
    }
    wire.init();
    wire.join(1, "worker");
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.until("node ls --format {{.Hostname}}/{{.Status}}", |out| out.lines().any(|line| line == "b/Ready"));
    a.docker(MESH);
    b.docker("run -d --name far --network mesh --network-alias alias tiny-service");
    a.docker("run -d --name near tiny-service");
    a.docker("network connect --ip 10.90.0.77 mesh near");
    let far = [address(b, "far", "mesh")];
    assert!(far[0].starts_with("10.90.0."), "{far:?}");
    for name in ["far", "alias"] {
        until("a name", || (lines(a, "near", &format!("resolve {name}")) == far).then_some(()));
    }
    until("a name", || (lines(b, "far", "resolve near") == ["10.90.0.77"]).then_some(()));
    until("an answer", || run(a, "near", "get / far").contains("hostname").then_some(()));
    until("an answer", || run(b, "far", "get / near").contains("hostname").then_some(()));
    a.docker("network disconnect mesh near");
    until("no name", || lines(b, "far", "resolve near").is_empty().then_some(()));
    b.docker("rm -f far");
    a.until("network rm mesh", |_| true);
    a.docker("rm -f near");
}

#[test]
fn containers_of_a_dockerd_below_a_skep_manager_are_found() {
    with_dockerd([false, true]);
}

#[test]
fn containers_below_a_dockerd_manager_are_found() {
    with_dockerd([true, false]);
}
