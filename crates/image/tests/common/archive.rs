//! Layers, images and archives made in memory.

use std::io::Write;

use oci_types::Digest;
use serde_json::json;

/// A tar in the making; names are written as they are, however hostile.
#[derive(Default)]
pub struct Layer(Vec<u8>);

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, name: &[u8], kind: u8, link: &[u8], mode: u32, data: &[u8]) -> Self {
        self.0.extend(header(name, kind, link, mode, data.len() as u64));
        self.data(data);
        self
    }

    fn data(&mut self, data: &[u8]) {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.raw(name.as_bytes(), b'0', b"", 0o644, data.as_bytes())
    }

    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(name.as_bytes(), b'5', b"", mode, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', target.as_bytes(), 0o777, b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'1', target.as_bytes(), 0o644, b"")
    }

    /// A pax header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            write!(body, "{length} {key}=").unwrap();
            body.extend(*value);
            body.push(b'\n');
        }
        self.raw(b"pax", b'x', b"", 0o644, &body)
    }

    pub fn bytes(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// Without the end of archive.
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

pub fn header(name: &[u8], kind: u8, link: &[u8], mode: u32, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"14000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub fn digest(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Digest::from_bytes(digest.as_ref().try_into().unwrap())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}

/// An image configuration.
pub fn config(diffs: &[Digest]) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/serve"], "Env": ["A=b"], "ExposedPorts": {"9005/tcp": {}}, "Labels": {"l": "v"}},
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": [{"created_by": "test"}],
    }))
    .unwrap()
}

/// An archive as `docker save` writes it, and the image's id.
pub fn docker_archive(layers: &[Vec<u8>], names: &[&str]) -> (Vec<u8>, Digest) {
    let config = config(&layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>());
    let id = digest(&config);
    let mut archive = Layer::new().raw(b"config.json", b'0', b"", 0o644, &config);
    let mut paths = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let path = format!("layer{index}/layer.tar");
        archive = archive.raw(path.as_bytes(), b'0', b"", 0o644, layer);
        paths.push(path);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": paths}]).to_string();
    (archive.file("manifest.json", &manifest).bytes(), id)
}

/// Two layers: the second removes, hides and replaces.
pub fn two_layers() -> Vec<Vec<u8>> {
    vec![
        Layer::new()
            .dir("etc/", 0o755)
            .file("etc/base", "base")
            .file("etc/gone", "gone")
            .dir("var/", 0o750)
            .dir("var/data/", 0o700)
            .file("var/data/old", "old")
            .bytes(),
        Layer::new()
            .file("etc/.wh.gone", "")
            .file("var/data/.wh..wh..opq", "")
            .file("var/data/new", "new")
            .file("serve", "#!")
            .bytes(),
    ]
}
