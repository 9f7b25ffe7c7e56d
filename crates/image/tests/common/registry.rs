//! Debian's `docker-registry` on a free port of loopback, and `skopeo` to push to it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const USER: &str = "alice";
pub const PASSWORD: &str = "wonder land";

/// A running registry; stops when dropped.
pub struct Registry {
    pub address: String,
    child: Child,
    directory: tempfile::TempDir,
    auth: bool,
}

impl Registry {
    pub fn start() -> Self {
        Self::launch(false)
    }

    pub fn start_with_auth() -> Self {
        Self::launch(true)
    }

    fn launch(auth: bool) -> Self {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            if let Some(registry) = Self::try_launch(auth) {
                return registry;
            }
        }
        panic!("docker-registry does not start (apt-get install docker-registry skopeo apache2-utils)");
    }

    fn try_launch(auth: bool) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let root = directory.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            root.display()
        );
        if auth {
            let file = directory.path().join("htpasswd");
            let status = Command::new("htpasswd").args(["-Bbc"]).arg(&file).args([USER, PASSWORD]).output().unwrap();
            assert!(status.status.success());
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { address, child, directory, auth };
        registry.answers().then_some(registry)
    }

    /// Waits until it answers; false if it ended (somebody took the port).
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if let Ok(mut stream) = TcpStream::connect(&self.address) {
                let _ = stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n");
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                if answer.starts_with("HTTP/1.") {
                    return true;
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// `skopeo copy <from> docker://<this>/<name>`.
    pub fn push(&self, from: &str, name: &str, extra: &[&str]) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]).args(extra);
        if self.auth {
            command.args(["--dest-creds", &format!("{USER}:{PASSWORD}")]);
        }
        let output = command.arg(from).arg(format!("docker://{}/{name}", self.address)).output().unwrap();
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Pushes an archive made in memory.
    pub fn push_archive(&self, archive: &[u8], name: &str, extra: &[&str]) {
        let file = self.directory.path().join("archive.tar");
        std::fs::write(&file, archive).unwrap();
        self.push(&format!("docker-archive:{}", file.display()), name, extra);
    }

    /// The file of a blob in the registry's own storage.
    pub fn data(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
