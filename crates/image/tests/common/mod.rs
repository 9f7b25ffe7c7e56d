//! Images made in memory, Debian's registry on loopback, and a registry that misbehaves on request.
#![allow(dead_code, unreachable_pub)]

pub mod archive;
pub mod fake;
pub mod registry;

use image::{Config, ImageStore, Progress, ProgressSender, RegistryConfig};

/// A store in a directory of its own.
pub struct Store {
    pub store: ImageStore,
    pub root: tempfile::TempDir,
}

pub fn settings() -> RegistryConfig {
    RegistryConfig {
        stall_timeout_ms: 3_000,
        connect_timeout_ms: 3_000,
        max_download_attempts: 2,
        ..Default::default()
    }
}

pub fn store_with(registry: RegistryConfig) -> Store {
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path(), Config { registry, ..Config::default() }).unwrap();
    Store { store, root }
}

pub fn store() -> Store {
    store_with(settings())
}

/// A sender, and all that was sent once the operation is over.
pub fn recorder() -> (ProgressSender, tokio::task::JoinHandle<Vec<Progress>>) {
    let (sender, mut receiver) = ProgressSender::channel();
    let task = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(progress) = receiver.recv().await {
            all.push(progress);
        }
        all
    });
    (sender, task)
}

/// The progress in docker's words, figures left out.
pub fn words(progress: &[Progress]) -> Vec<String> {
    let line = |progress: &Progress| {
        let message = progress.message();
        message.stream.or(message.status).unwrap_or_default().trim().to_string()
    };
    let mut lines: Vec<String> = progress.iter().map(line).collect();
    lines.dedup();
    lines
}

pub fn reference(text: &str) -> oci_types::Reference {
    oci_types::Reference::parse(text).unwrap()
}

/// What stands below a directory, as sorted relative paths.
pub fn tree(root: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}
