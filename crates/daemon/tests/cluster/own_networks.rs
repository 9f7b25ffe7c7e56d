//! Networks of one machine that users make for themselves, as compose files do.

use crate::attachments::{address, inspect, networks_of, refusal};
use crate::hosts::{Host, Wire};
use crate::mesh::{lines, run};
use crate::support::{Done, until};

/// The addresses that a name has in a container.
fn resolve(host: &Host, container: &str, name: &str) -> Vec<String> {
    lines(host, container, &format!("resolve {name}"))
}

#[test]
fn containers_on_networks_of_ones_own_find_each_other() {
    let mut wire = Wire::start(1);
    wire.hosts[0].load_tiny();
    let a = &wire.hosts[0];
    let id = a.docker("network create --label a=b mine");
    a.docker("network create --subnet 172.30.0.0/16 --ip-range 172.30.7.0/24 --gateway 172.30.0.9 --internal inner");
    let shown = inspect(a, "network inspect inner");
    let plan = serde_json::json!({"Subnet": "172.30.0.0/16", "IPRange": "172.30.7.0/24", "Gateway": "172.30.0.9"});
    assert_eq!((&shown["IPAM"]["Config"][0], &shown["Internal"]), (&plan, &true.into()));
    a.docker("run -d --name db --network mine --network-alias data tiny-service");
    a.docker("run -d --name web --network mine -p 9005:9005 --link db:database tiny-service");
    a.docker("run -d --name lone --network inner tiny-service");
    let db = [address(a, "db", "mine")];
    let short = a.docker("ps -q --filter name=db");
    for name in ["db", "data", "db.mine", "database", short.trim()] {
        assert_eq!(resolve(a, "web", name), db, "{name}");
    }
    assert!(wire.get(&a.address, 9005).expect("an answer").contains("hostname"));
    assert!(
        resolve(a, "lone", "db").is_empty(),
        "isolation itself is tested in `net`, which does not wait for what is dropped"
    );
    assert!(run(a, "web", "get / 10.77.0.1").contains("hostname"), "the way out, and back in by the port");
    a.docker("network connect --ip 172.30.7.77 --alias inside inner web");
    assert_eq!(networks_of(a, "web"), ["inner", "mine"]);
    assert_eq!(resolve(a, "lone", "inside"), ["172.30.7.77"]);
    assert!(run(a, "lone", "get / web").contains("hostname"));
    let ends = "has active endpoints (name:\"";
    assert!(refusal(a, "network rm inner").contains(ends), "two of them");
    a.docker("network disconnect inner web");
    assert!(resolve(a, "lone", "web").is_empty());
    after_a_restart(&mut wire, id.trim());
}

/// The same networks and containers with a daemon that was killed and one that is new.
fn after_a_restart(wire: &mut Wire, mine: &str) {
    let host = &mut wire.hosts[0];
    let db = [address(host, "db", "mine")];
    host.kill();
    host.run();
    let a = &wire.hosts[0];
    assert_eq!(a.docker("network ls -q --no-trunc --filter label=a=b").trim(), mine);
    assert_eq!(resolve(a, "web", "data"), db);
    a.docker("run -d --name more --network mine --restart always tiny-service");
    assert_eq!(resolve(a, "more", "data"), db);
    a.docker("restart -t 1 db");
    until("the name's address", || (resolve(a, "web", "data") == [address(a, "db", "mine")]).then_some(()));
    // What no daemon knew of when it ended is started on its network.
    let pid = a.docker("inspect more --format {{.State.Pid}}");
    let host = &mut wire.hosts[0];
    host.terminate();
    let ended = Done::of(host.inside("kill").args(["-KILL", pid.trim()]).output().expect("kill"));
    assert_eq!(ended.code, 0, "{ended:?}");
    host.run();
    let a = &wire.hosts[0];
    a.until("ps -q --filter name=more", |out| !out.is_empty());
    assert_eq!(resolve(a, "web", "more"), [address(a, "more", "mine")]);
    a.docker("rm -f db web lone more");
    assert_eq!(a.docker("network prune -f").lines().filter(|line| ["mine", "inner"].contains(line)).count(), 2);
    assert_eq!(a.docker("network ls -q").lines().count(), 3);
}
