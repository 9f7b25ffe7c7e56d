//! Debian's docker-registry on loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{free_port, until};

/// A registry; ended when dropped.
pub struct Registry {
    process: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Away from the port that the same test publishes.
        let port = (free_port() + 100..32_700)
            .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .expect("a free port");
        let config = folder.path().join("config.yml");
        let storage = folder.path().join("data");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\" }}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry; ./check installs it");
        let registry = Self { process, port, _folder: folder };
        until("an answer of the registry", || registry.answers().then_some(()));
        registry
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = String::new();
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("200 OK")
    }

    /// Pushes an archive under a name.
    pub fn push(&self, archive: &Path, name: &str) {
        let to = format!("docker://127.0.0.1:{}/{name}", self.port);
        let from = format!("docker-archive:{}", archive.display());
        let done = Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &from, &to]).output().unwrap();
        assert!(done.status.success(), "skopeo: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn mirror(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It holds nothing of worth.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
