//! A machine of its own for each test: a fresh network namespace as host, client namespaces on a link to it, and servers
//! in threads that stand in for containers.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use net::{Backend, DATA_PATH_PORT, IngressPort, Net, NetConfig, OverlaySpec, OverlaySubnet, PortGroup};
use nix::sched::{CloneFlags, setns, unshare};

pub mod cluster;
pub mod wire;

pub const HOST_ADDRESS: &str = "192.0.2.1";
pub const CLIENT_ADDRESS: &str = "192.0.2.100";
const TIMEOUT: Duration = Duration::from_secs(5);

/// A namespace kept open.
pub struct Ns(File);

impl Ns {
    pub fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    pub fn at(path: &Path) -> Self {
        Self(File::open(path).unwrap())
    }

    /// Runs `work` on a thread in this namespace.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.0.try_clone().unwrap();
        std::thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Runs a program in this namespace and returns its output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let (program, arguments) = (program.to_owned(), arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        self.run(move || {
            let output = Command::new(&program).args(&arguments).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} {arguments:?}: {errors}");
            text
        })
    }
}

/// The machine.
pub struct Machine {
    pub host: Ns,
    pub client: Ns,
    pub root: tempfile::TempDir,
}

/// Runs `test` in a machine of its own and checks that nothing is left of it.
pub fn machine(test: impl AsyncFnOnce(&Machine) + Send + 'static) {
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let host = Ns::current();
        let client = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Ns::current()
        });
        let client = client.join().unwrap();
        ip("link set lo up");
        ip("link add wan type veth peer name eth0");
        // ip(8) takes a path as well as a name
        ip(&format!("link set eth0 netns /proc/{}/fd/{}", std::process::id(), client.0.as_raw_fd()));
        ip(&format!("addr add {HOST_ADDRESS}/24 dev wan"));
        ip("link set wan up");
        client.output("ip", &["link", "set", "lo", "up"]);
        client.output("ip", &["addr", "add", &format!("{CLIENT_ADDRESS}/24"), "dev", "eth0"]);
        client.output("ip", &["link", "set", "eth0", "up"]);
        client.output("ip", &["route", "add", "default", "via", HOST_ADDRESS]);
        let machine = Machine { host, client, root: tempfile::tempdir().unwrap() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(test(&machine))));
        unmount_all(machine.root.path());
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    })
    .join()
    .unwrap();
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn unmount_all(root: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(path).starts_with(root) {
            nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
    }
}

fn config(root: &Path) -> NetConfig {
    NetConfig {
        exec_root: root.join("exec"),
        data_root: root.join("data"),
        bridge_name: "skep0".to_owned(),
        gwbridge_name: "skep_gw".to_owned(),
        table_prefix: "skep-test".to_owned(),
        ..NetConfig::default()
    }
}

impl Machine {
    pub fn config(&self) -> NetConfig {
        config(self.root.path())
    }

    pub async fn net(&self) -> Net {
        Net::open(self.config()).await.unwrap()
    }

    pub fn netns_folder(&self) -> PathBuf {
        self.root.path().join("exec/netns")
    }

    /// Panics if any link, pin, table or record of the network is left.
    pub fn assert_nothing_left(&self) {
        assert_nothing_left(&self.host, self.root.path());
    }
}

fn assert_nothing_left(host: &Ns, root: &Path) {
    let links = host.output("ip", &["-br", "link"]);
    for word in ["skep", "veth", "br-"] {
        assert!(!links.contains(word), "{links}");
    }
    assert_eq!(host.output("nft", &["list", "tables"]), "");
    let pins: Vec<_> = std::fs::read_dir(root.join("exec/netns")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(pins.is_empty(), "{pins:?}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "{mounts}");
    for folder in ["networks", "sandboxes", "services", "overlays", "virtual"] {
        let folder = root.join("data/network").join(folder);
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    }
}

/// A container id made of one word.
pub fn container(word: &str) -> String {
    format!("{word}{}", "0".repeat(64 - word.len()))
}

/// An overlay network of one subnet, `10.0.<third>.0/24`, on one machine.
pub fn overlay_spec(name: &str, third: u8) -> OverlaySpec {
    OverlaySpec {
        network_id: format!("{name}networkid0000000000001"),
        name: name.to_owned(),
        subnets: vec![OverlaySubnet {
            subnet: format!("10.0.{third}.0/24").parse().unwrap(),
            gateway: Ipv4Addr::new(10, 0, third, 1),
            vni: 4096 + u32::from(third),
        }],
        mtu: 0,
        internal: false,
        ingress: false,
        encrypted: false,
        lb_address: None,
        vtep: None,
        data_path_port: DATA_PATH_PORT,
    }
}

/// The usual ingress network.
pub fn ingress_spec() -> OverlaySpec {
    OverlaySpec { ingress: true, lb_address: Some(Ipv4Addr::new(10, 0, 0, 2)), ..overlay_spec("ingress", 0) }
}

/// Ports with the same tasks behind them.
pub fn group(ports: Vec<IngressPort>, backends: Vec<Backend>) -> Vec<PortGroup> {
    vec![PortGroup { ports, backends }]
}

/// A server in a namespace: greets with `<name> <peer address>`, then echoes lines.
pub struct Server {
    stop: i32,
    thread: Option<JoinHandle<()>>,
    pub port: u16,
}

impl Server {
    pub fn tcp(netns: &Path, name: &str, port: u16) -> Self {
        Self::tcp_here(&Ns::at(netns), name, port)
    }

    pub fn tcp_here(ns: &Ns, name: &str, port: u16) -> Self {
        let name = name.to_owned();
        let (sender, receiver) = mpsc::channel();
        let thread = ns.spawn(move || {
            let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
            sender.send((listener.as_raw_fd(), listener.local_addr().unwrap().port())).unwrap();
            while let Ok((stream, peer)) = listener.accept() {
                let name = name.clone();
                std::thread::spawn(move || serve(stream, &name, peer));
            }
        });
        let (stop, port) = receiver.recv().unwrap();
        Self { stop, thread: Some(thread), port }
    }

    pub fn udp(netns: &Path, name: &str, port: u16) -> Self {
        Self::udp_here(&Ns::at(netns), name, port)
    }

    pub fn udp_here(ns: &Ns, name: &str, port: u16) -> Self {
        let name = name.to_owned();
        let (sender, receiver) = mpsc::channel();
        let thread = ns.spawn(move || {
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            sender.send((socket.as_raw_fd(), socket.local_addr().unwrap().port())).unwrap();
            let mut buffer = [0; 2048];
            while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                if len == 0 {
                    break;
                }
                let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
        let (stop, port) = receiver.recv().unwrap();
        Self { stop, thread: Some(thread), port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // wakes the thread out of accept or receive; a datagram socket answers ENOTCONN and wakes all the same
        let _ = nix::sys::socket::shutdown(self.stop, nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(mut stream: TcpStream, name: &str, peer: SocketAddr) {
    if writeln!(stream, "{name} {}", peer.ip()).is_err() {
        return;
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|len| len > 0) {
        if stream.write_all(line.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}

/// A connection that has been greeted.
pub struct Client {
    stream: BufReader<TcpStream>,
    pub greeting: String,
}

impl Client {
    pub fn connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        stream.read_line(&mut greeting)?;
        Ok(Self { stream, greeting: greeting.trim().to_owned() })
    }

    pub fn echo(&mut self, word: &str) -> std::io::Result<String> {
        writeln!(self.stream.get_mut(), "{word}")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    pub fn at_end(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}

/// Greeting of a new connection, or the error.
pub fn greet(ns: &Ns, address: &str) -> Result<String, String> {
    let address = address.to_owned();
    ns.run(move || Client::connect(&address).map(|client| client.greeting).map_err(|error| error.to_string()))
}

/// One datagram and its answer.
pub fn ask_udp(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"hello")?;
    let mut buffer = [0; 256];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// A connected datagram socket in a namespace.
pub fn udp_client(ns: &Ns, address: &str) -> UdpSocket {
    let address = address.to_owned();
    ns.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    })
}

/// Whether an ICMP echo is answered.
pub fn ping(ns: &Ns, address: Ipv4Addr) -> bool {
    ping_within(ns, address, TIMEOUT)
}

/// Whether an ICMP echo is answered soon enough. It is sent again and again: one that waits for the hardware address of its
/// destination is lost if nobody tells that in time.
pub fn ping_within(ns: &Ns, address: Ipv4Addr, limit: Duration) -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, connect, socket};
    const PAUSE: Duration = Duration::from_millis(100);
    ns.run(move || {
        let (flags, protocol) = (SockFlag::empty(), SockProtocol::Icmp);
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, protocol).unwrap();
        let [a, b, c, d] = address.octets();
        connect(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(PAUSE)).unwrap();
        let end = Instant::now() + limit;
        while Instant::now() < end {
            // type 8, code 0; the kernel fills in checksum and identifier
            let sent = socket.send(&[8, 0, 0, 0, 0, 0, 0, 1]);
            if sent.is_ok() && socket.recv(&mut [0; 64]).is_ok() {
                return true;
            }
        }
        false
    })
}

/// Port that [`vxlan_datagram`] is for.
pub const VXLAN_INNER_PORT: u16 = 7000;

/// A VXLAN packet with a datagram for a port of `to`, from an address and a hardware address that nobody has.
pub fn vxlan_datagram(vni: u32, to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend_from_slice(&(vni << 8).to_be_bytes());
    packet.extend_from_slice(&[0x02, 0x42, to[0], to[1], to[2], to[3]]);
    packet.extend_from_slice(&[0x02, 0x42, 10, 0, 1, 99, 8, 0]);
    let mut ip = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 1, 99, to[0], to[1], to[2], to[3]];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    packet.extend(ip);
    packet.extend_from_slice(&[0x13, 0x88, (VXLAN_INNER_PORT >> 8) as u8, VXLAN_INNER_PORT as u8, 0, 12, 0, 0]);
    packet.extend_from_slice(b"here");
    packet
}
