//! What lasts: small JSON files under `<data root>/network`, each replaced in one step.
//!
//! ```text
//! networks.json            ids and subnets of the local networks (synced: ids must never change)
//! ingress.json             the ingress sandbox
//! networks/<network>       one per bridge of the user's own (synced, likewise)
//! overlays/<network>       one per overlay network
//! sandboxes/<container>    one per sandbox
//! services/<service>       ports and backends of one service of the mesh
//! virtual/<network>-<id>   a service's own address on a network, and the backends
//! ```
//! All but the first three are worth nothing without the kernel's objects that they describe, which a crash of the machine takes with
//! it, so they are not synced. The peers of an overlay network stand in the kernel alone.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dns::Ports;
use crate::{ClientAddress, Endpoint, Ipv4Cidr, NetError, PortGroup, Sandbox, SandboxSpec};

/// A local network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) id: String,
    pub(crate) created_unix_ns: i64,
    /// The bridge's address with the subnet's prefix; `None` for host and none.
    pub(crate) address: Option<Ipv4Cidr>,
}

/// The local networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Networks {
    pub(crate) bridge: NetworkRecord,
    pub(crate) host: NetworkRecord,
    pub(crate) none: NetworkRecord,
    pub(crate) gwbridge: Option<NetworkRecord>,
}

/// Where the near end of a veth pair is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    Host,
    /// In the namespace of an overlay network, by its id.
    Network(String),
}

/// The near end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NearLink {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// A sandbox, complete or in the making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) spec: SandboxSpec,
    pub(crate) sandbox: Sandbox,
    pub(crate) links: Vec<NearLink>,
    pub(crate) created_unix_ns: i64,
    /// Where its name server listens, if it has one.
    #[serde(default)]
    pub(crate) dns_ports: Option<Ports>,
    /// Everything of it is made.
    pub(crate) is_ready: bool,
}

/// This node's sandbox on the ingress network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IngressRecord {
    pub(crate) network_id: String,
    /// On the ingress network.
    pub(crate) mesh: Endpoint,
    /// On the gateway bridge.
    pub(crate) gateway: Endpoint,
    pub(crate) links: Vec<NearLink>,
}

/// One service of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceRecord {
    pub(crate) groups: Vec<PortGroup>,
    pub(crate) clients: ClientAddress,
}

/// One service with an address of its own on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VirtualRecord {
    pub(crate) network_id: String,
    pub(crate) service_id: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) backends: Vec<Ipv4Addr>,
}

impl VirtualRecord {
    /// Name of its file: both ids are letters and digits.
    pub(crate) fn name(network_id: &str, service_id: &str) -> String {
        format!("{network_id}-{service_id}")
    }
}

/// This node's balancer on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BalancerRecord {
    pub(crate) endpoint: Endpoint,
    pub(crate) link: NearLink,
}

/// The files.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// The folders of records.
#[derive(Clone, Copy)]
pub(crate) enum Folder {
    Networks,
    Sandboxes,
    Services,
    Overlays,
    Virtual,
}

impl Folder {
    fn name(self) -> &'static str {
        match self {
            Self::Networks => "networks",
            Self::Sandboxes => "sandboxes",
            Self::Services => "services",
            Self::Overlays => "overlays",
            Self::Virtual => "virtual",
        }
    }
}

/// The single files.
#[derive(Clone, Copy)]
pub(crate) enum Single {
    Networks,
    Ingress,
}

impl Single {
    fn name(self) -> &'static str {
        match self {
            Self::Networks => "networks.json",
            Self::Ingress => "ingress.json",
        }
    }
}

impl Store {
    /// Opens, or makes, the folders below `data_root`.
    pub(crate) fn open(data_root: &Path) -> Result<Self, NetError> {
        let root = data_root.join("network");
        for folder in [Folder::Networks, Folder::Sandboxes, Folder::Services, Folder::Overlays, Folder::Virtual] {
            let path = root.join(folder.name());
            fs::create_dir_all(&path).map_err(|source| NetError::File { path, source })?;
        }
        let store = Self { root };
        // The sandbox is made anew when the managers ask for it.
        if let Err(error) = store.read::<IngressRecord>(Single::Ingress) {
            tracing::warn!(%error, "unreadable record removed");
            store.remove(Single::Ingress)?;
        }
        Ok(store)
    }

    /// Reads a single file.
    pub(crate) fn read<T: DeserializeOwned>(&self, single: Single) -> Result<Option<T>, NetError> {
        read(&self.root.join(single.name()))
    }

    /// Whether a single file is there.
    pub(crate) fn exists(&self, single: Single) -> bool {
        self.root.join(single.name()).exists()
    }

    /// Replaces a single file, and waits until it is on the disk.
    pub(crate) fn write<T: Serialize>(&self, single: Single, value: &T) -> Result<(), NetError> {
        replace(&self.root.join(single.name()), value, true)
    }

    /// Removes a single file.
    pub(crate) fn remove(&self, single: Single) -> Result<(), NetError> {
        remove(&self.root.join(single.name()))
    }

    /// Reads all records of a folder; one that cannot be read is removed and named in the log.
    pub(crate) fn read_all<T: DeserializeOwned>(&self, folder: Folder) -> Result<Vec<(String, T)>, NetError> {
        let folder = self.root.join(folder.name());
        let entries = fs::read_dir(&folder).map_err(|source| NetError::File { path: folder.clone(), source })?;
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| NetError::File { path: folder.clone(), source })?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match read(&path) {
                Ok(Some(record)) if !name.ends_with(".new") => records.push((name, record)),
                Ok(None) => {}
                other => {
                    tracing::warn!(file = %path.display(), error = ?other.err(), "unreadable record removed");
                    remove(&path)?;
                }
            }
        }
        Ok(records)
    }

    /// Replaces a record; waits until it is on the disk if it must outlive the machine.
    pub(crate) fn write_record<T: Serialize>(&self, folder: Folder, name: &str, value: &T) -> Result<(), NetError> {
        let must_last = matches!(folder, Folder::Networks);
        replace(&self.root.join(folder.name()).join(name), value, must_last)
    }

    /// Reads a record.
    pub(crate) fn read_record<T: DeserializeOwned>(&self, folder: Folder, name: &str) -> Result<Option<T>, NetError> {
        read(&self.root.join(folder.name()).join(name))
    }

    /// Removes a record. `Ok` if there is none.
    pub(crate) fn remove_record(&self, folder: Folder, name: &str) -> Result<(), NetError> {
        remove(&self.root.join(folder.name()).join(name))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(NetError::File { path: path.to_owned(), source }),
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(NetError::File { path: path.to_owned(), source: error.into() }),
    }
}

fn replace<T: Serialize>(path: &Path, value: &T, sync: bool) -> Result<(), NetError> {
    let write = || {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if sync {
            file.sync_data()?;
        }
        fs::rename(&new, path)?;
        match path.parent() {
            Some(parent) if sync => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(|source| NetError::File { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), NetError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(NetError::File { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
