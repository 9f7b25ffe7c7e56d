//! A daemon of its own for each test: own roots, socket, bridges, tables, ports. Dropping it removes everything and checks
//! that nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything; only what is broken reaches it.
pub const LONG: Duration = Duration::from_secs(60);

pub const SKEP: &str = env!("CARGO_BIN_EXE_skep");

/// A running daemon.
pub struct Daemon {
    folder: tempfile::TempDir,
    /// Four letters that its bridges and tables carry.
    tag: String,
    options: Vec<String>,
    process: Option<Child>,
    /// Published port, free at the start.
    pub port: u16,
    /// Where its manager listens.
    swarm_port: u16,
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    free_port_from(20_000)
}

/// A free port not far above `base`.
fn free_port_from(base: u16) -> u16 {
    // In a range that the kernel does not give to clients, so that nobody takes it meanwhile.
    let start = base + (std::process::id() % 8_000) as u16;
    (start..base + 10_000).find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()).expect("a free port")
}

/// Waits until `found` gives something.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < LONG, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Daemon {
    /// Starts one on empty roots.
    pub fn start(extra: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("skep-test-").tempdir().expect("a folder");
        let tag = format!("{:04x}", std::process::id() & 0xffff);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut options = vec![
            "-H".to_owned(),
            format!("unix://{}", path("skep.sock")),
            "--data-root".to_owned(),
            path("data"),
            "--exec-root".to_owned(),
            path("run"),
            "--pidfile".to_owned(),
            path("skep.pid"),
            "--config-file".to_owned(),
            "/dev/null".to_owned(),
            "--bridge".to_owned(),
            format!("skt{tag}b"),
            "--gwbridge".to_owned(),
            format!("skt{tag}g"),
            "--table-prefix".to_owned(),
            format!("skt{tag}"),
        ];
        // Daemons that start at the same time must not choose the same subnet for their bridges.
        let pid = std::process::id();
        let pool = format!("base=10.{}.{}.0/20,size=24", 128 + (pid >> 4) % 100, (pid % 16) * 16);
        options.extend(["--default-address-pool".to_owned(), pool]);
        options.extend(extra.iter().map(|option| (*option).to_owned()));
        let mut daemon =
            Self { folder, tag, options, process: None, port: free_port(), swarm_port: free_port_from(10_000) };
        daemon.run();
        daemon
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the daemon's folder; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.file(name), text).expect("a file");
        self.file(name).display().to_string()
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Starts the process and waits until it answers.
    pub fn run(&mut self) {
        self.run_by(Command::new(SKEP));
    }

    /// The same, with a listening socket from a parent as systemd hands it over: it is asked by `-H fd://` in the options.
    pub fn run_activated(&mut self, socket: &str) {
        let parent = "$^F = 9; my $path = shift; socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die $!; \
                      bind($s, sockaddr_un($path)) or die $!; listen($s, 16) or die $!; \
                      POSIX::dup2(fileno($s), 3) or die $!; \
                      $ENV{LISTEN_FDS} = 1; $ENV{LISTEN_PID} = $$; exec @ARGV or die $!";
        let mut command = Command::new("perl");
        command.args(["-MSocket", "-MPOSIX", "-e", parent]).arg(self.file(socket)).arg(SKEP);
        self.options.extend(["-H".to_owned(), "fd://".to_owned()]);
        self.run_by(command);
        self.options.truncate(self.options.len() - 2);
    }

    fn run_by(&mut self, mut command: Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.file("log")).expect("a log");
        command.arg("daemon").args(&self.options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.process_group(0).spawn().expect("the daemon starts"));
        let socket = self.file("skep.sock");
        until("an answer of the daemon", || {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            ping(&socket).then_some(())
        });
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a daemon").id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a daemon");
        process.kill().expect("kill");
        process.wait().expect("wait");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("a daemon");
        let pid = nix::unistd::Pid::from_raw(process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("SIGTERM");
        until("the daemon's end", || process.try_wait().expect("wait"));
    }

    /// Whether the API answers on a socket of the daemon's folder.
    pub fn answers_on(&self, socket: &str) -> bool {
        ping(&self.file(socket))
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.file("skep.sock").display())
    }

    /// A docker command, whatever it comes to.
    pub fn try_docker(&self, line: &str) -> Done {
        self.command("docker", &words(line))
    }

    /// A docker command that must succeed; its standard output.
    pub fn docker(&self, line: &str) -> String {
        let done = self.try_docker(line);
        assert_eq!(done.code, 0, "docker {line}: {done:?}\n{}", self.log());
        done.out
    }

    /// A command of Skep's own.
    pub fn try_skep(&self, line: &str) -> Done {
        self.command(SKEP, &words(line))
    }

    /// A command of Skep's own that must succeed.
    pub fn skep(&self, line: &str) -> String {
        let done = self.try_skep(line);
        assert_eq!(done.code, 0, "skep {line}: {done:?}\n{}", self.log());
        done.out
    }

    fn command(&self, program: &str, words: &[String]) -> Done {
        let output = Command::new(program)
            .args(["-H", &self.host()])
            .args(words)
            .env("HOME", self.folder.path())
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null())
            .output();
        Done::of(output.unwrap_or_else(|error| panic!("{program}: {error}; ./check installs what tests need")))
    }

    /// The words that found a swarm with a port of its own: several daemons share this machine's addresses.
    pub fn init_words(&self, address: Ipv4Addr) -> String {
        let own = format!("{address}:{}", self.swarm_port);
        format!("swarm init --advertise-addr {own} --listen-addr {own}")
    }

    /// Loads the tiny example image under its name.
    pub fn load_tiny(&self) {
        let archive = tiny_image();
        self.docker(&format!("load -q -i {}", archive.display()));
    }

    /// Running tasks of a service, from `docker ps`: container id to pid and start time.
    pub fn containers(&self) -> BTreeMap<String, String> {
        let ids = self.docker("ps -q --no-trunc");
        let mut found = BTreeMap::new();
        for id in ids.lines() {
            let seen = self.try_docker(&format!("inspect {id} --format {{{{.State.Pid}}}}/{{{{.State.StartedAt}}}}"));
            if seen.code == 0 {
                found.insert(id.to_owned(), seen.out.trim().to_owned());
            }
        }
        found
    }

    /// Waits until `docker service ls` shows these replicas.
    pub fn until_replicas(&self, service: &str, replicas: &str) {
        until(&format!("{service} at {replicas}"), || {
            let out = self.docker(&format!("service ls --filter name={service} --format {{{{.Replicas}}}}"));
            (out.trim() == replicas).then_some(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // The test is over, however it went.
            process.kill().ok();
            process.wait().ok();
        }
        let log = self.log();
        let done = Command::new(SKEP).arg("daemon").args(&self.options).arg("--remove-everything").output();
        let done = Done::of(done.expect("the daemon's cleaning"));
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{log}");
            return;
        }
        assert_eq!(done.code, 0, "--remove-everything: {done:?}\n{log}");
        // A shim that has answered its last request may still be on its way out.
        let start = Instant::now();
        while !self.leftovers().is_empty() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.leftovers(), BTreeSet::new(), "left over\n{log}");
    }
}

impl Daemon {
    /// Does to a stopped daemon's containers what a reboot does: no process, no mount, an empty exec root.
    pub fn reboot(&self) {
        let run = self.file("run").display().to_string();
        let own = |process: &fs::DirEntry| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&run)
        };
        for shim in fs::read_dir("/proc").expect("/proc").flatten().filter(own) {
            let pid: i32 = shim.file_name().display().to_string().parse().expect("a pid");
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse().ok());
            for pid in [pid].into_iter().chain(children) {
                // It may have ended with the one before it.
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
        until("the shims' end", || {
            let mut processes = fs::read_dir("/proc").expect("/proc").flatten();
            (!processes.any(|process| own(&process))).then_some(())
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let folder = self.folder.path().display().to_string();
        let points: Vec<&str> = points.filter(|point| point.starts_with(&folder)).collect();
        for point in points.into_iter().rev() {
            nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).expect("umount");
        }
        fs::remove_dir_all(self.file("run")).expect("the exec root");
    }

    /// What of this daemon the machine still has.
    fn leftovers(&self) -> BTreeSet<String> {
        let folder = self.folder.path().display().to_string();
        let mut found = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        found.extend(mounts.lines().filter(|line| line.contains(&folder)).map(|line| format!("mount {line}")));
        for process in fs::read_dir("/proc").expect("/proc").flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&folder) {
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                found.insert(format!("process {}: {line}", process.file_name().display()));
            }
        }
        for link in fs::read_dir("/sys/class/net").expect("links").flatten() {
            let name = link.file_name().display().to_string();
            if name.starts_with(&format!("skt{}", self.tag)) {
                found.insert(format!("link {name}"));
            }
        }
        let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft");
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        let own = format!("skt{}", self.tag);
        found.extend(tables.lines().filter(|line| line.contains(&own)).map(|line| format!("nft {line}")));
        found
    }
}

pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn ping(socket: &Path) -> bool {
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else { return false };
    if stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").is_err() {
        return false;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.0 200")
}

/// The tiny example image, built once for all tests.
pub fn tiny_image() -> PathBuf {
    built("tiny-service", "tiny-service.tar", "tiny-service:latest")
}

/// The article's image, built once for all tests.
pub fn dummy_image() -> PathBuf {
    built("dummy-service-py", "dummy-service-py.tar", "agrrh/dummy-service-py:latest")
}

fn built(example: &str, file: &str, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let sources = root.join("examples").join(example);
    let script = sources.join("build-image");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (archive, lock) = (folder.join(file), folder.join(format!("{file}.lock")));
    let lock = fs::File::create(lock).expect("a lock file");
    let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("a lock");
    let newer = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let sources = fs::read_dir(&sources).expect("the example").map(|file| file.expect("a file").path());
    if newer(&archive) < sources.filter_map(|file| newer(&file)).max() {
        let built = Command::new(&script).arg(&archive).arg(name).output().expect("build-image");
        assert!(built.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&built.stderr));
    }
    archive
}

/// A GET that opens a connection of its own; the body.
pub fn get(address: SocketAddr) -> std::io::Result<String> {
    get_path(address, "/")
}

/// A GET of a path.
pub fn get_path(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("a cut answer"))?;
    if !head.starts_with("HTTP/1.1 200") && !head.starts_with("HTTP/1.0 200") {
        return Err(std::io::Error::other(head.to_owned()));
    }
    Ok(body.to_owned())
}

/// The host name that an answer of the example services names.
pub fn hostname(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    value["hostname"].as_str().expect("a hostname").to_owned()
}

/// An address of this machine that is not loopback.
pub fn host_address() -> Ipv4Addr {
    let all = nix::ifaddrs::getifaddrs().expect("addresses");
    let found = all.filter_map(|entry| {
        let usable = !entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK)
            && !entry.interface_name.starts_with("sk");
        entry.address?.as_sockaddr_in().map(|address| address.ip()).filter(|_| usable)
    });
    found.into_iter().next().unwrap_or(Ipv4Addr::LOCALHOST)
}
