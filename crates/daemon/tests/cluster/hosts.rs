//! Several machines on one: `tests/hosts/host` makes each of namespaces on a bridge, here each gets a daemon. Dropping a
//! [`Wire`] ends all of them and checks that nothing is left.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};

use crate::support::{Done, get_path, tiny_image, until, words};

const SKEP: &str = env!("CARGO_BIN_EXE_skep");

/// The script that makes a machine.
fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/hosts/host")
}

/// A bridge in a network namespace of its own, and the machines on it: the n-th is 10.77.0.n.
pub struct Wire {
    folder: tempfile::TempDir,
    holder: Child,
    pub hosts: Vec<Host>,
}

/// One machine.
pub struct Host {
    pub name: String,
    pub address: String,
    place: PathBuf,
    namespaces: Child,
    options: Vec<String>,
    daemon: Option<Child>,
}

/// A program that dies with this one.
fn dying_with_us() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).stdin(Stdio::null());
    command
}

impl Wire {
    /// Machines without daemons: `a`, `b`, …
    pub fn bare(count: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("skep-wire-").tempdir().expect("a folder");
        let script_of_wire = "ip link set lo up && ip link add lan type bridge && ip address add 10.77.0.254/24 dev lan \
                              && ip link set lan up && exec sleep infinity";
        let holder = dying_with_us().args(["unshare", "--net", "sh", "-c", script_of_wire]).spawn().expect("unshare");
        let namespace = format!("/proc/{}/ns/net", holder.id());
        until("the wire", || {
            let shown = ["ip", "link", "show", "lan", "up"];
            let seen = Command::new("nsenter").arg(format!("--net={namespace}")).args(shown).output().expect("nsenter");
            String::from_utf8_lossy(&seen.stdout).contains("lan").then_some(())
        });
        let mut wire = Self { folder, holder, hosts: Vec::new() };
        for number in 1..=count {
            let host = wire.host(number);
            wire.hosts.push(host);
        }
        for host in &wire.hosts {
            until("a machine", || host.place.join("init").exists().then_some(()));
        }
        wire
    }

    /// Machines, each with a daemon that runs.
    pub fn start(count: usize) -> Self {
        let mut wire = Self::bare(count);
        for host in &mut wire.hosts {
            host.run();
        }
        wire
    }

    fn host(&self, number: usize) -> Host {
        let name = char::from(b'a' + u8::try_from(number - 1).expect("few machines")).to_string();
        let address = format!("10.77.0.{number}");
        let mut command = dying_with_us();
        command.arg("nsenter").arg(format!("--net={}", self.namespace()));
        command.arg(script()).arg("run").arg(self.folder.path()).args([&name, &format!("{address}/24"), "lan"]);
        let place = self.folder.path().join(&name);
        let namespaces = command.env("SKEP", SKEP).spawn().expect("a machine");
        let path = |file: &str| place.join(file).display().to_string();
        let parent = format!("/skep-hosts/{}-{name}", self.folder.path().file_name().expect("a name").display());
        let options =
            ["-H", &format!("unix://{}", path("sock")), "--data-root", &path("data"), "--exec-root", &path("run")];
        let more = ["--pidfile", &path("pid"), "--config-file", "/dev/null", "--cgroup-parent", &parent];
        let options = options.iter().chain(&more).map(|option| (*option).to_owned()).collect();
        Host { name, address, place, namespaces, options, daemon: None }
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// The network that the bridge is in.
    pub fn network(&self) -> fs::File {
        fs::File::open(self.namespace()).expect("the wire")
    }

    /// A GET from outside of the machines, with a connection of its own.
    pub fn get(&self, address: &str, port: u16) -> std::io::Result<String> {
        self.get_path(address, port, "/")
    }

    /// A GET of a path.
    pub fn get_path(&self, address: &str, port: u16, path: &'static str) -> std::io::Result<String> {
        let namespace = fs::File::open(self.namespace())?;
        let address: SocketAddr = format!("{address}:{port}").parse().expect("an address");
        let asked = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            get_path(address, path)
        });
        asked.join().expect("no panic")
    }

    /// Connections from outside of the machines.
    pub fn connect(&self, address: &str, count: usize) -> Vec<TcpStream> {
        let namespace = fs::File::open(self.namespace()).expect("the wire");
        let address: SocketAddr = address.parse().expect("an address");
        let made = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("the wire");
            (0..count).map(|_| TcpStream::connect(address).expect("a connection")).collect()
        });
        made.join().expect("no panic")
    }

    /// Runs a program where the bridge is.
    pub fn on_wire(&self, words: &[&str]) -> Done {
        let output = Command::new("nsenter").arg(format!("--net={}", self.namespace())).args(words).output();
        Done::of(output.expect("nsenter"))
    }

    /// The first machine founds a swarm.
    pub fn init(&self) {
        let host = &self.hosts[0];
        host.docker(&format!("swarm init --advertise-addr {}", host.address));
    }

    /// Joins a machine through the first one.
    pub fn join(&self, joiner: usize, role: &str) {
        let (first, host) = (&self.hosts[0], &self.hosts[joiner]);
        let token = first.docker(&format!("swarm join-token -q {role}"));
        let out = host.docker(&format!("swarm join --token {} {}:2377", token.trim(), first.address));
        assert_eq!(out.trim(), format!("This node joined a swarm as a {role}."));
    }
}

/// Debian's docker.io and what it needs, unpacked once, not installed.
fn docker_packages() -> PathBuf {
    const PACKAGES: [&str; 14] = [
        "docker.io",
        "containerd",
        "runc",
        "tini",
        "libdevmapper1.02.1",
        "iptables",
        "libip4tc2",
        "libip6tc2",
        "libxtables12",
        "libnftnl11",
        "libmnl0",
        "libnfnetlink0",
        "libnetfilter-conntrack3",
        "libseccomp2",
    ];
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docker.io");
    fs::create_dir_all(&folder).expect("a folder");
    let lock = fs::File::create(folder.join("lock")).expect("a lock file");
    let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("a lock");
    let root = folder.join("root");
    if !folder.join("unpacked").exists() {
        let script = format!(
            "apt-get -qq download {names} || {{ apt-get -qq update && apt-get -qq download {names}; }} \
             && for package in *.deb; do dpkg -x $package root; done && rm *.deb && touch unpacked",
            names = PACKAGES.join(" ")
        );
        let done = Command::new("sh").args(["-ec", &script]).current_dir(&folder).output().expect("sh");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    root
}

impl Drop for Wire {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in &self.hosts {
                eprintln!("==== log of {}:\n{}", host.name, host.log());
            }
        }
        let mut failed = Vec::new();
        for host in &mut self.hosts {
            // The test is over, however it went; the machine's processes end with its init.
            host.namespaces.kill().ok();
            host.namespaces.wait().ok();
            if let Some(daemon) = &mut host.daemon {
                daemon.wait().ok();
            }
            let down = Command::new(script()).arg("down").arg(self.folder.path()).arg(&host.name).output();
            let down = Done::of(down.expect("the script"));
            if down.code != 0 {
                failed.push(down);
            }
        }
        self.holder.kill().ok();
        self.holder.wait().ok();
        assert!(failed.is_empty() || std::thread::panicking(), "not all is gone: {failed:?}");
    }
}

impl Host {
    /// Starts the daemon and waits until it answers.
    pub fn run(&mut self) {
        self.run_with(&[]);
    }

    /// Starts the daemon with more options.
    pub fn run_with(&mut self, more: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.place.join("log")).expect("a log");
        let mut command = self.inside(SKEP);
        command
            .arg("daemon")
            .args(&self.options)
            .arg("--debug")
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.daemon = Some(command.spawn().expect("the daemon starts"));
        until("an answer of the daemon", || {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            (self.try_docker("version").code == 0).then_some(())
        });
    }

    /// Starts Debian's dockerd instead of Skep's daemon.
    pub fn run_dockerd(&mut self) {
        let root = docker_packages();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.place.join("log")).expect("a log");
        fs::write(self.place.join("daemon.json"), "{}").expect("a file");
        let config = self.place.join("daemon.json").display().to_string();
        let options = self.options.iter().map(|option| if option == "/dev/null" { &config } else { option });
        let mut command = self.inside("env");
        for (name, folders) in [
            ("PATH", "usr/sbin usr/bin sbin bin"),
            ("LD_LIBRARY_PATH", "lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu"),
            ("XTABLES_LIBDIR", "usr/lib/x86_64-linux-gnu/xtables"),
        ] {
            let below = folders.split(' ').map(|folder| root.join(folder).display().to_string());
            let system = (name == "PATH").then(|| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
            command.arg(format!("{name}={}", below.chain(system).collect::<Vec<_>>().join(":")));
        }
        command.arg("dockerd").args(options).args(["--storage-driver", "overlay2"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.daemon = Some(command.spawn().expect("dockerd starts"));
        until("an answer of dockerd", || {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            assert!(ended.is_none(), "dockerd ended: {}", self.log());
            (self.try_docker("version").code == 0).then_some(())
        });
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    /// The file of this machine below the test's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// A program in the machine's namespaces, to be given arguments and started.
    pub fn inside(&self, program: &str) -> Command {
        let init = fs::read_to_string(self.place.join("init")).expect("an init");
        let mut command = Command::new("nsenter");
        command.args(["-t", init.trim(), "-m", "-u", "-n", "-p", "--", program]);
        command
    }

    /// The daemon's pid in this process's namespace.
    pub fn pid(&self) -> nix::unistd::Pid {
        // nsenter forks: the daemon is its only child.
        let holder = self.daemon.as_ref().expect("a daemon").id();
        let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children")).expect("children");
        let pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        nix::unistd::Pid::from_raw(pid.expect("the daemon's pid"))
    }

    /// SIGKILL; containers live on.
    pub fn kill(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
    }

    /// SIGTERM, and waits for the end; containers live on.
    pub fn terminate(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
    }

    fn signal(&mut self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("a signal");
        self.daemon.take().expect("a daemon").wait().expect("the daemon's end");
    }

    /// Ends the whole machine as a power cut does: daemon, shims, containers. `Wire` cannot start it again.
    pub fn power_off(&mut self) {
        self.namespaces.kill().expect("kill");
        self.namespaces.wait().expect("wait");
        if let Some(mut daemon) = self.daemon.take() {
            daemon.wait().expect("the daemon's end");
        }
    }

    fn client(&self, program: &str, words: &[String]) -> Command {
        let mut command = Command::new(program);
        command.args(["-H", &format!("unix://{}", self.place.join("sock").display())]).args(words);
        command.env("HOME", &self.place).env_remove("DOCKER_HOST").stdin(Stdio::null());
        command
    }

    fn command(&self, program: &str, words: &[String]) -> Done {
        let output = self.client(program, words).output();
        Done::of(output.unwrap_or_else(|error| panic!("{program}: {error}; ./check installs what tests need")))
    }

    /// A docker command, whatever it comes to.
    pub fn try_docker(&self, line: &str) -> Done {
        self.command("docker", &words(line))
    }

    /// A docker command that must succeed; its standard output.
    pub fn docker(&self, line: &str) -> String {
        let done = self.try_docker(line);
        assert_eq!(done.code, 0, "{}: docker {line}: {done:?}", self.name);
        done.out
    }

    /// A command of Skep's own, whatever it comes to.
    pub fn try_skep(&self, line: &str) -> Done {
        self.command(SKEP, &words(line))
    }

    /// What the daemon's API answers to a GET.
    pub fn get(&self, path: &str) -> serde_json::Value {
        let mut stream = UnixStream::connect(self.place.join("sock")).expect("the daemon");
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        assert!(head.contains(" 200 "), "{}: GET {path}: {answer}", self.name);
        serde_json::from_str(body).expect("JSON")
    }

    /// A docker command with something to read.
    pub fn docker_with_input(&self, line: &str, input: &str) -> Done {
        let mut command = self.client("docker", &words(line));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("docker");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("input");
        Done::of(child.wait_with_output().expect("docker"))
    }

    /// Whether the daemon was started and not ended by the test.
    pub fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// Waits until the key file of this machine is locked.
    pub fn until_locked(&self) {
        let file = self.file("data/swarm/certificates/swarm-node.key");
        until("a locked key file", || {
            fs::read_to_string(&file).expect("the key file").contains("ENCRYPTED PRIVATE KEY").then_some(())
        });
    }

    /// Drops all packets to and from this machine.
    pub fn cut(&self) {
        let rules = "table inet cut { chain in { type filter hook input priority -500; iifname \"eth0\" drop; }; \
                     chain out { type filter hook output priority -500; oifname \"eth0\" drop; }; }";
        let done = Done::of(self.inside("nft").arg(rules).output().expect("nft"));
        assert_eq!(done.code, 0, "{done:?}");
    }

    /// Ends what [`Self::cut`] began.
    pub fn heal(&self) {
        let done = Done::of(self.inside("nft").arg("delete table inet cut").output().expect("nft"));
        assert_eq!(done.code, 0, "{done:?}");
    }

    /// Loads the tiny example image.
    pub fn load_tiny(&self) {
        self.docker(&format!("load -q -i {}", tiny_image().display()));
    }

    /// How many containers run here.
    pub fn running(&self) -> usize {
        self.docker("ps -q").lines().count()
    }

    /// Waits until a docker command prints what `wanted` likes.
    pub fn until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(&format!("{}: docker {line}", self.name), || {
            let done = self.try_docker(line);
            (done.code == 0 && wanted(done.out.trim())).then_some(done.out)
        })
    }

    /// Waits until `docker service ls` shows these replicas.
    pub fn until_replicas(&self, service: &str, replicas: &str) {
        self.until(&format!("service ls --filter name={service} --format {{{{.Replicas}}}}"), |out| out == replicas);
    }
}
