//! An engine of its own for each test: directories, cgroup, a busybox image, a network that is the host's. What a failed
//! test leaves is ended and unmounted by `Drop`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docker_types::container::{CreateRequest, HostConfig, Inspect, WaitResponse};
use engine::{
    AttachmentRequest, ContainerNetwork, CreateOptions, Engine, EngineConfig, ErrorKind, EtcFiles, LogsOptions,
    NetworkBackend, NetworkDriver, NetworkEndpoint, NetworkError, NetworkMember, NetworkName, NetworkRequest,
    RemoveOptions, Shutdown, SizeMode, WaitCondition,
};
use image::{ImageStore, ProgressSender};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The image of all tests.
pub const IMAGE: &str = "busybox:test";
const APPLETS: [&str; 24] = [
    "sh", "ls", "cat", "sleep", "echo", "id", "env", "hostname", "stat", "true", "false", "kill", "touch", "mkdir",
    "mount", "pwd", "seq", "printf", "rm", "readlink", "tty", "stty", "test", "grep",
];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The host's network for every container; what it says of networks is made up: the n-th address of each is given.
#[derive(Debug, Default)]
pub struct HostNetwork(Mutex<BTreeMap<String, (NetworkRequest, Vec<NetworkEndpoint>)>>);

/// Networks that there are.
const NETWORKS: [(&str, &str, NetworkDriver); 6] = [
    ("bridge", "b", NetworkDriver::Bridge),
    ("host", "h", NetworkDriver::Host),
    ("none", "n", NetworkDriver::Null),
    ("ingress", "i", NetworkDriver::Overlay),
    ("mesh", "m", NetworkDriver::Overlay),
    ("own", "o", NetworkDriver::Bridge),
];

impl HostNetwork {
    fn endpoint(&self, attachment: &AttachmentRequest) -> Result<NetworkEndpoint, NetworkError> {
        let missing = || NetworkError::new(ErrorKind::NotFound, format!("network {} not found", attachment.network));
        let network = self.network(&attachment.network).ok_or_else(missing)?;
        Ok(NetworkEndpoint {
            network_name: network.name,
            network_id: network.id,
            endpoint_id: "e".repeat(64),
            mac: "02:42:ac:11:00:02".into(),
            address: Some((attachment.address.unwrap_or("172.17.0.2".parse().unwrap()), 16)),
            address_v6: None,
            gateway: Some("172.17.0.1".parse().unwrap()),
            driver: network.driver,
        })
    }
}

#[async_trait::async_trait]
impl NetworkBackend for HostNetwork {
    async fn create(&self, request: NetworkRequest) -> Result<ContainerNetwork, NetworkError> {
        let endpoints = request.attachments.iter().map(|it| self.endpoint(it)).collect::<Result<_, _>>()?;
        let id = request.container_id.clone();
        self.0.lock().unwrap().insert(id.clone(), (request, endpoints));
        Ok(self.get(&id).unwrap())
    }

    async fn remove(&self, container_id: &str) -> Result<(), NetworkError> {
        self.0.lock().unwrap().remove(container_id);
        Ok(())
    }

    async fn connect(
        &self,
        member: NetworkMember,
        attachment: AttachmentRequest,
    ) -> Result<NetworkEndpoint, NetworkError> {
        let endpoint = self.endpoint(&attachment)?;
        let mut containers = self.0.lock().unwrap();
        containers.get_mut(&member.container_id).unwrap().1.push(endpoint.clone());
        Ok(endpoint)
    }

    async fn disconnect(&self, container_id: &str, network_id: &str) -> Result<(), NetworkError> {
        let mut containers = self.0.lock().unwrap();
        containers.get_mut(container_id).unwrap().1.retain(|endpoint| endpoint.network_id != network_id);
        Ok(())
    }

    async fn rename(&self, member: NetworkMember) -> Result<(), NetworkError> {
        self.0.lock().unwrap().get_mut(&member.container_id).unwrap().0.name = member.name;
        Ok(())
    }

    fn network(&self, term: &str) -> Option<NetworkName> {
        let known = NETWORKS.into_iter().map(|(name, digit, driver)| NetworkName {
            name: name.into(),
            id: digit.repeat(64),
            driver,
            chosen_subnets: if name == "own" { vec!["172.17.0.0/16".into()] } else { Vec::new() },
        });
        known.into_iter().find(|network| network.name == term || network.id == term)
    }

    fn get(&self, container_id: &str) -> Option<ContainerNetwork> {
        let containers = self.0.lock().unwrap();
        let (_, endpoints) = containers.get(container_id)?;
        let (sandbox_id, endpoints) = ("s".repeat(64), endpoints.clone());
        Some(ContainerNetwork { sandbox_id, netns: None, endpoints, ports: Vec::new() })
    }

    async fn release_ports(&self, _container_id: &str) -> Result<(), NetworkError> {
        Ok(())
    }

    fn etc_files(&self, container_id: &str) -> Result<EtcFiles, NetworkError> {
        let containers = self.0.lock().unwrap();
        let (request, endpoints) = containers.get(container_id).ok_or_else(|| NetworkError::failed("no network"))?;
        let own = endpoints.iter().filter_map(|endpoint| endpoint.address);
        let own: String = own.map(|(address, _)| format!("{address}\t{}\n", request.hostname)).collect();
        let names = endpoints.iter().any(|endpoint| endpoint.network_name != "bridge");
        Ok(EtcFiles {
            hosts: format!("127.0.0.1\tlocalhost\n{own}"),
            resolv_conf: format!("nameserver {}\n", if names { "127.0.0.11" } else { "192.0.2.1" }),
            hostname: format!("{}\n", request.hostname),
        })
    }

    async fn reconcile(&self, _running: &BTreeSet<String>) -> Result<(), NetworkError> {
        Ok(())
    }
}

/// One engine and all that belongs to it.
pub struct World {
    pub root: tempfile::TempDir,
    pub engine: Engine,
    pub network: Arc<HostNetwork>,
    pub images: ImageStore,
    cgroup: String,
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, path, data).unwrap();
    };
    let busybox = std::fs::read("/usr/bin/busybox").expect("busybox-static is installed");
    for directory in ["bin/", "etc/", "tmp/", "seeded/", "run/"] {
        add(directory, tar::EntryType::Directory, 0o755, b"", None);
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox, None);
    for applet in APPLETS {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, b"", Some("busybox"));
    }
    add(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
        None,
    );
    add("etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nuser:x:1000:\n", None);
    add("seeded/file", tar::EntryType::Regular, 0o640, b"from the image", None);
    tar.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn archive() -> Vec<u8> {
    let layer = layer();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=image"], "Labels": {"image": "yes"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let mut tar = tar::Builder::new(Vec::new());
    let files = [
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ];
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

impl World {
    pub async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = tempfile::Builder::new().prefix("engine-").tempdir().unwrap();
        let cgroup = format!("/engine-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let images = ImageStore::open(&root.path().join("data"), image::Config::default()).unwrap();
        images.load(Cursor::new(archive()), ProgressSender::default()).await.unwrap();
        let network = Arc::new(HostNetwork::default());
        let engine = Engine::open(config(root.path(), &cgroup), images.clone(), network.clone()).await.unwrap();
        Self { root, engine, network, images, cgroup }
    }

    /// Another daemon on the same roots; the old one leaves its containers.
    pub async fn reopen(&mut self) {
        self.engine.shutdown(Shutdown::LeaveAll).await;
        self.open_again().await;
    }

    /// Another daemon on the same roots, whatever became of the old one.
    pub async fn open_again(&mut self) {
        let config = config(self.root.path(), &self.cgroup);
        self.engine = Engine::open(config, self.images.clone(), self.network.clone()).await.unwrap();
    }

    pub fn exec_root(&self) -> PathBuf {
        self.root.path().join("exec")
    }

    pub fn container_directory(&self, id: &str) -> PathBuf {
        self.root.path().join("data/containers").join(id)
    }

    pub async fn create(&self, name: &str, request: CreateRequest) -> String {
        self.engine.create(Some(name), request, CreateOptions::default()).await.unwrap().id
    }

    /// Creates and starts a container that runs a script.
    pub async fn run(&self, name: &str, script: &str) -> String {
        let id = self.create(name, shell(script)).await;
        self.engine.start(&id).await.unwrap();
        id
    }

    pub async fn wait(&self, id: &str) -> WaitResponse {
        patiently(self.engine.wait(id, WaitCondition::NotRunning).await.unwrap()).await
    }

    pub async fn inspect(&self, id: &str) -> Inspect {
        self.engine.inspect(id, SizeMode::Without).await.unwrap()
    }

    /// Waits until inspect shows what is wanted; woken by events.
    pub async fn until(&self, id: &str, what: impl Fn(&Inspect) -> bool) -> Inspect {
        let mut events = self.engine.subscribe(None, None);
        patiently(async {
            loop {
                let inspect = self.inspect(id).await;
                if what(&inspect) {
                    return inspect;
                }
                events.next().await.unwrap();
            }
        })
        .await
    }

    pub async fn log(&self, id: &str) -> String {
        let options = LogsOptions { stdout: true, stderr: true, ..LogsOptions::default() };
        let mut stream = self.engine.logs(id, options).await.unwrap();
        let mut text = String::new();
        while let Some(frame) = patiently(stream.frames.recv()).await {
            text.push_str(std::str::from_utf8(&frame.bytes).unwrap());
        }
        text
    }

    pub async fn remove(&self, id: &str) {
        self.engine.remove(id, RemoveOptions { force: true, volumes: true }).await.unwrap();
    }

    /// Mounts something on its root filesystem, so that it cannot be removed.
    pub fn hold_rootfs(&self, id: &str) {
        let merged = self.root.path().join("data/overlay2/containers").join(id).join("merged");
        // a removal undoes one
        for _ in 0..2 {
            mount(Some("held"), &merged, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        }
    }

    /// Unmounts what is mounted below its directories.
    pub fn let_go(&self) {
        for path in mounts_below(self.root.path()) {
            umount2(&path, MntFlags::MNT_DETACH).unwrap();
        }
    }

    /// Nothing of any container is left.
    pub fn assert_clean(&self) {
        let empty = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count) == 0;
        assert!(empty(&self.root.path().join("data/containers")), "records");
        assert!(empty(&self.exec_root().join("shim")), "shims");
        assert_eq!(mounts_below(self.root.path()), Vec::<PathBuf>::new(), "mounts");
        // a shim answers just before it ends
        let deadline = std::time::Instant::now() + PATIENCE;
        while !processes_of(self.root.path()).is_empty() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(processes_of(self.root.path()), Vec::<i32>::new(), "processes");
        assert!(self.images.rootfs_containers().unwrap().is_empty(), "root filesystems");
    }
}

fn config(root: &Path, cgroup: &str) -> EngineConfig {
    let mut config =
        EngineConfig::new(root.join("data"), root.join("exec"), PathBuf::from(env!("CARGO_BIN_EXE_engine-test-skep")));
    config.cgroup_parent = cgroup.to_owned();
    config
}

/// A future that must not take long.
pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

pub fn request(words: &[&str]) -> CreateRequest {
    CreateRequest {
        image: IMAGE.into(),
        cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        host_config: Some(HostConfig::default()),
        ..CreateRequest::default()
    }
}

pub fn shell(script: &str) -> CreateRequest {
    request(&["sh", "-c", script])
}

/// Changes the host's part of a request.
pub fn with_host(mut request: CreateRequest, change: impl FnOnce(&mut HostConfig)) -> CreateRequest {
    change(request.host_config.get_or_insert_default());
    request
}

fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(root))
        .collect();
    mounts.reverse();
    mounts
}

/// Shims whose launch file lies below `root`.
pub fn processes_of(root: &Path) -> Vec<i32> {
    let root = root.display().to_string();
    let list = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    list.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        (pid != std::process::id() as i32 && String::from_utf8_lossy(&words).contains(&root)).then_some(pid)
    })
    .collect()
}

impl Drop for World {
    fn drop(&mut self) {
        for pid in processes_of(self.root.path()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            end_cgroup(&controller.path().join(self.cgroup.trim_start_matches('/')));
        }
        end_cgroup(&Path::new("/sys/fs/cgroup").join(self.cgroup.trim_start_matches('/')));
        for path in mounts_below(self.root.path()) {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
        }
    }
}

fn end_cgroup(path: &Path) {
    let Ok(list) = std::fs::read_dir(path) else { return };
    for entry in list.flatten().filter(|entry| entry.path().is_dir()) {
        end_cgroup(&entry.path());
    }
    for pid in std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = std::fs::remove_dir(path);
}
