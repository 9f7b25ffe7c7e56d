//! Several machines on one switch: each a namespace with a thread of its own, that the network's calls are made on.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use net::{
    IngressEndpointSpec, IngressPort, Net, OverlayEndpointSpec, OverlaySpec, Peer, Sandbox, SandboxMode, SandboxSpec,
};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

use super::{CLIENT_ADDRESS, Ns, assert_nothing_left, config, container, unmount_all};

/// One machine.
pub struct Node {
    pub host: Ns,
    /// Its address on the switch, and its tunnels'.
    pub address: Ipv4Addr,
    pub net: Net,
    pub root: tempfile::TempDir,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The switch's namespace, the machines, and a client that is none of them.
pub struct Cluster {
    pub switch: Ns,
    pub client: Ns,
    pub nodes: Vec<Node>,
}

/// Runs `test` with `count` machines, `192.0.2.1` and up, and checks that nothing is left of them.
pub fn cluster(count: u8, test: impl FnOnce(&mut Cluster)) {
    let switch = namespace();
    switch.output("ip", &["link", "add", "switch", "type", "bridge"]);
    switch.output("ip", &["link", "set", "switch", "up"]);
    let client = namespace();
    plug(&switch, &client, "client", CLIENT_ADDRESS);
    let mut cluster = Cluster { switch, client, nodes: Vec::new() };
    for last in 1..=count {
        let node = Node::start(&cluster.switch, last);
        cluster.nodes.push(node);
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        test(&mut cluster);
        for node in &cluster.nodes {
            let net = node.net.clone();
            node.run(async move { net.destroy().await }).unwrap();
            assert_nothing_left(&node.host, node.root.path());
        }
    }));
    for node in &cluster.nodes {
        unmount_all(node.root.path());
    }
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

fn namespace() -> Ns {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Ns::current()
    });
    let ns = thread.join().unwrap();
    ns.output("ip", &["link", "set", "lo", "up"]);
    ns
}

/// Connects a namespace to the switch.
fn plug(switch: &Ns, ns: &Ns, name: &str, address: &str) {
    let place = format!("/proc/{}/fd/{}", std::process::id(), ns.0.as_raw_fd());
    switch.output("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &place]);
    switch.output("ip", &["link", "set", name, "master", "switch", "up"]);
    ns.output("ip", &["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    ns.output("ip", &["link", "set", "eth0", "up"]);
}

impl Node {
    fn start(switch: &Ns, last: u8) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (sender, receiver) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            sender.send((Ns::current(), runtime.handle().clone())).unwrap();
            let _ = runtime.block_on(stopped);
        });
        let (host, runtime) = receiver.recv().unwrap();
        host.output("ip", &["link", "set", "lo", "up"]);
        let address = Ipv4Addr::new(192, 0, 2, last);
        plug(switch, &host, &format!("node{last}"), &address.to_string());
        let net = block(&runtime, Net::open(config(root.path()))).unwrap();
        Self { host, address, net, root, runtime, stop: Some(stop), thread: Some(thread) }
    }

    /// Runs `work` on the machine's thread.
    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        block(&self.runtime, work)
    }

    /// Calls the network.
    pub fn call<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, work: impl FnOnce(Net) -> F) -> T {
        self.run(work(self.net.clone()))
    }

    /// A new daemon takes the place of the one that was.
    pub fn restart(&mut self) {
        self.net = self.run(Net::open(config(self.root.path()))).unwrap();
    }

    /// Runs `test` while the daemon can do nothing, as if it were dead.
    pub fn frozen<T>(&self, test: impl FnOnce() -> T) -> T {
        let ((release, released), (sender, receiver)) = (mpsc::channel::<()>(), mpsc::channel());
        self.runtime.spawn(async move {
            sender.send(()).unwrap();
            // on purpose without awaiting: it is the machine's only thread
            let _ = released.recv();
        });
        receiver.recv().unwrap();
        let result = test();
        drop(release);
        result
    }

    /// This machine's balancer address on a network.
    pub fn balancer(&self, spec: &OverlaySpec) -> Ipv4Addr {
        let [a, b, c, _] = spec.subnets[0].gateway.octets();
        Ipv4Addr::new(a, b, c, 200 + self.address.octets()[3])
    }

    /// Makes a network with tunnels from this machine, and a balancer address if the network is for such.
    pub fn ensure(&self, spec: OverlaySpec) {
        let lb_address = spec.lb_address.map(|_| self.balancer(&spec));
        let spec = OverlaySpec { vtep: Some(self.address), lb_address, ..spec };
        self.call(|net| async move { net.overlay_ensure(spec).await }).unwrap();
    }

    /// Makes a container on a network and tells the others.
    pub fn container(&self, spec: &OverlaySpec, word: &str, address: &str) -> Sandbox {
        let mut sandbox = SandboxSpec::new(&container(word), word, SandboxMode::Swarm);
        sandbox.overlays = vec![OverlayEndpointSpec::new(&spec.network_id, address.parse().unwrap())];
        self.call(|net| async move { net.create_sandbox(sandbox).await }).unwrap()
    }

    /// An endpoint of this machine as the others are told of it.
    pub fn peer(&self, address: Ipv4Addr) -> Peer {
        let [a, b, c, d] = address.octets();
        Peer { address, mac: [0x02, 0x42, a, b, c, d], vtep: self.address }
    }

    /// Makes a task on the ingress network.
    pub fn task(&self, spec: &OverlaySpec, word: &str, address: &str, ports: &[IngressPort]) -> Sandbox {
        let mut sandbox = SandboxSpec::new(&container(word), word, SandboxMode::Swarm);
        let (network_id, address) = (spec.network_id.clone(), address.parse().unwrap());
        sandbox.ingress = Some(IngressEndpointSpec { network_id, address, ports: ports.to_vec() });
        self.call(|net| async move { net.create_sandbox(sandbox).await }).unwrap()
    }

    /// Pin of a network's balancer.
    pub fn balancer_path(&self, spec: &OverlaySpec) -> PathBuf {
        self.netns_folder().join(format!("lb_{}", &spec.network_id[..9]))
    }

    /// Pin of a network's namespace.
    pub fn network_ns(&self, spec: &OverlaySpec) -> Ns {
        Ns::at(&self.netns_folder().join(format!("1-{}", &spec.network_id[..10])))
    }

    pub fn netns_folder(&self) -> PathBuf {
        self.root.path().join("exec/netns")
    }
}

impl Cluster {
    /// Tells every machine that has the network of endpoints, each with the index of its machine, and of balancers.
    pub fn tell(&self, spec: &OverlaySpec, endpoints: &[(usize, [u8; 4])]) {
        let peers = endpoints.iter().map(|(at, address)| self.nodes[*at].peer((*address).into()));
        let balancers = self.nodes.iter().filter(|_| spec.lb_address.is_some());
        let peers: Vec<Peer> = peers.chain(balancers.map(|node| node.peer(node.balancer(spec)))).collect();
        let has_it = |node: &&Node| node.net.overlays().iter().any(|known| known.network_id == spec.network_id);
        for node in self.nodes.iter().filter(has_it) {
            let (id, peers) = (spec.network_id.clone(), peers.clone());
            node.call(|net| async move { net.set_peers(&id, peers).await }).unwrap();
        }
    }
}

fn block<T: Send + 'static>(runtime: &tokio::runtime::Handle, work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    runtime.spawn(async move {
        let _ = sender.send(work.await);
    });
    receiver.recv().expect("the machine's thread lives, and its work does not panic")
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
