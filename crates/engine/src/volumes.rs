//! Volumes of the driver `local`: `volumes/<name>/{_data,volume.json}`, who uses them, and mounts that their options ask for.
//!
//! A volume with users is never removed. A directory without `volume.json` was half made and is removed at `open`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use docker_types::filters::Filters;
use docker_types::volume::{Volume, VolumeCreateRequest, VolumeList, VolumesPruneResponse};
use nix::mount::{MntFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, fresh_id, time_of};
use crate::events::EventBus;
use crate::mount_options::{MountWords, parse_words};
use crate::record::{Flush, replace_file};
use crate::{EngineError, ErrorKind};

/// The one driver.
pub(crate) const LOCAL_DRIVER: &str = "local";
/// Marks volumes without a name of the user's.
pub(crate) const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
/// Bytes of a name: what a file name may have.
const NAME_BYTES_MAX: usize = 255;
const RECORD_NAME: &str = "volume.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct VolumeRecord {
    created_ns: i64,
    labels: Option<BTreeMap<String, String>>,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, VolumeRecord>,
    /// Volume → containers that have it in their record.
    users: BTreeMap<String, BTreeSet<String>>,
    /// Volume with options → containers it is mounted for.
    mounted: BTreeMap<String, BTreeSet<String>>,
}

/// The volumes of this machine. All methods that touch the disk block.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    state: Mutex<State>,
}

/// What a creation came to.
pub(crate) struct Created {
    pub(crate) volume: Volume,
    /// Whether it was there before.
    pub(crate) existed: bool,
}

fn check_name(name: &str) -> Result<(), EngineError> {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    if name.len() == 1 {
        return Err(EngineError::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    let first = name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !first || !name.bytes().all(word) || name.len() > NAME_BYTES_MAX {
        return Err(EngineError::invalid(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

fn check_options(name: &str, options: &BTreeMap<String, String>) -> Result<(), EngineError> {
    for key in options.keys() {
        if !["type", "o", "device"].contains(&key.as_str()) {
            return Err(EngineError::invalid(format!("create {name}: invalid option: \"{key}\"")));
        }
    }
    for key in ["device", "type"] {
        if !options.is_empty() && options.get(key).is_none_or(String::is_empty) {
            return Err(EngineError::invalid(format!("create {name}: missing required option: \"{key}\"")));
        }
    }
    Ok(())
}

fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("get {name}: no such volume"))
}

impl Volumes {
    pub(crate) fn open(data_root: &Path) -> Result<Self, EngineError> {
        let root = data_root.join("volumes");
        fs::create_dir_all(&root).map_err(|error| EngineError::io("create", &root, &error))?;
        let mut volumes = BTreeMap::new();
        let list = fs::read_dir(&root).map_err(|error| EngineError::io("list", &root, &error))?;
        for entry in list.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            match fs::read(entry.path().join(RECORD_NAME)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                Some(record) => {
                    volumes.insert(name, record);
                }
                // `rmdir`s only: what somebody put there by hand stays
                None => {
                    let _ = fs::remove_dir(entry.path().join("_data"));
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
        Ok(Self { root, state: Mutex::new(State { volumes, ..State::default() }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory with a volume's contents.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    /// Makes a volume, or finds the one of this name. An empty name gets 64 random digits.
    pub(crate) fn create(&self, request: &VolumeCreateRequest) -> Result<Created, EngineError> {
        if !request.driver.is_empty() && request.driver != LOCAL_DRIVER {
            let text = format!(
                "create {}: error looking up volume plugin {}: plugin \"{}\" not found",
                request.name, request.driver, request.driver
            );
            return Err(EngineError::not_found(text));
        }
        if request.cluster_volume_spec.is_some() {
            return Err(EngineError::new(
                ErrorKind::NotImplemented,
                "cluster volumes are not supported by this engine",
            ));
        }
        let mut labels = request.labels.clone();
        let name = if request.name.is_empty() {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
            fresh_id()?
        } else {
            request.name.clone()
        };
        check_name(&name)?;
        check_options(&name, &request.driver_opts)?;
        let mut state = self.lock();
        if let Some(record) = state.volumes.get(&name) {
            return Ok(Created { volume: self.describe(&name, record), existed: true });
        }
        let directory = self.root.join(&name);
        let data = directory.join("_data");
        fs::create_dir_all(&data).map_err(|error| EngineError::io("create", &data, &error))?;
        let options = Some(request.driver_opts.clone()).filter(|options| !options.is_empty());
        let record = VolumeRecord {
            created_ns: Clock::now_ns(),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            options,
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| EngineError::internal(format!("volume: {error}")))?;
        let path = directory.join(RECORD_NAME);
        replace_file(&path, &bytes, Flush::Wait).map_err(|error| EngineError::io("write", &path, &error))?;
        let volume = self.describe(&name, &record);
        state.volumes.insert(name, record);
        Ok(Created { volume, existed: false })
    }

    fn describe(&self, name: &str, record: &VolumeRecord) -> Volume {
        Volume {
            created_at: time_of(crate::clock::seconds_of(record.created_ns) * crate::clock::SECOND_NS),
            driver: LOCAL_DRIVER.to_owned(),
            labels: record.labels.clone(),
            mountpoint: self.data(name).display().to_string(),
            name: name.to_owned(),
            options: record.options.clone(),
            scope: "local".to_owned(),
            ..Volume::default()
        }
    }

    pub(crate) fn inspect(&self, name: &str) -> Result<Volume, EngineError> {
        let state = self.lock();
        let record = state.volumes.get(name).ok_or_else(|| no_such(name))?;
        Ok(self.describe(name, record))
    }

    pub(crate) fn list(&self, filters: &Filters) -> Result<VolumeList, EngineError> {
        filters
            .validate(&["dangling", "name", "driver", "label"])
            .map_err(|error| EngineError::invalid(error.to_string()))?;
        let dangling = filters.flag("dangling").map_err(|error| EngineError::invalid(error.to_string()))?;
        let state = self.lock();
        let wanted = |(name, record): &(&String, &VolumeRecord)| {
            filters.matches_part("name", name)
                && filters.matches_exact("driver", LOCAL_DRIVER)
                && filters.matches_labels("label", record.labels.as_ref().unwrap_or(&BTreeMap::new()))
                && dangling.is_none_or(|dangling| state.users.contains_key(name.as_str()) != dangling)
        };
        let volumes = state.volumes.iter().filter(wanted).map(|(name, record)| self.describe(name, record)).collect();
        Ok(VolumeList { volumes, warnings: None })
    }

    /// Removes it. `force` only forgives that it does not exist.
    pub(crate) fn remove(&self, name: &str) -> Result<(), EngineError> {
        let mut state = self.lock();
        if !state.volumes.contains_key(name) {
            return Err(no_such(name));
        }
        if let Some(users) = state.users.get(name) {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            return Err(EngineError::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        let directory = self.root.join(name);
        // the record goes first: what follows may be interrupted
        let _ = fs::remove_file(directory.join(RECORD_NAME));
        state.volumes.remove(name);
        drop(state);
        let _ = umount2(&directory.join("_data"), MntFlags::MNT_DETACH);
        fs::remove_dir_all(&directory).map_err(|error| EngineError::io("remove", &directory, &error))
    }

    /// Removes what no container uses: anonymous volumes, or all with the filter `all`.
    pub(crate) fn prune(&self, filters: &Filters, events: &EventBus) -> Result<VolumesPruneResponse, EngineError> {
        filters.validate(&["label", "label!", "all"]).map_err(|error| EngineError::invalid(error.to_string()))?;
        let all = filters.flag("all").map_err(|error| EngineError::invalid(error.to_string()))?.unwrap_or(false);
        let names: Vec<String> = {
            let state = self.lock();
            let wanted = |(name, record): &(&String, &VolumeRecord)| {
                let none = BTreeMap::new();
                let labels = record.labels.as_ref().unwrap_or(&none);
                !state.users.contains_key(name.as_str())
                    && (all || labels.contains_key(ANONYMOUS_LABEL))
                    && filters.matches_labels("label", labels)
                    && (!filters.contains("label!") || !filters.matches_labels("label!", labels))
            };
            state.volumes.iter().filter(wanted).map(|(name, _)| name.clone()).collect()
        };
        let mut response = VolumesPruneResponse::default();
        for name in names {
            let size = directory_bytes(&self.data(&name));
            // one that got a user meanwhile stays
            if self.remove(&name).is_ok() {
                events.log("volume", "destroy", &name, [("driver".to_owned(), LOCAL_DRIVER.to_owned())].into());
                response.space_reclaimed += size;
                response.volumes_deleted.get_or_insert_default().push(name);
            }
        }
        let reclaimed = [("reclaimed".to_owned(), response.space_reclaimed.to_string())].into();
        events.log("volume", "prune", "", reclaimed);
        Ok(response)
    }

    /// Notes that a container has the volume in its record.
    pub(crate) fn add_user(&self, name: &str, container_id: &str) -> Result<(), EngineError> {
        let mut state = self.lock();
        if !state.volumes.contains_key(name) {
            return Err(no_such(name));
        }
        state.users.entry(name.to_owned()).or_default().insert(container_id.to_owned());
        Ok(())
    }

    pub(crate) fn remove_user(&self, name: &str, container_id: &str) {
        let mut state = self.lock();
        if let Some(users) = state.users.get_mut(name) {
            users.remove(container_id);
            if users.is_empty() {
                state.users.remove(name);
            }
        }
    }

    /// Sees to it that the volume's data is where [`Volumes::data`] says: mounts what its options ask for.
    pub(crate) fn mount(&self, name: &str, container_id: &str) -> Result<PathBuf, EngineError> {
        let data = self.data(name);
        let mut state = self.lock();
        let record = state.volumes.get(name).ok_or_else(|| no_such(name))?;
        let Some(options) = record.options.clone() else { return Ok(data) };
        if !is_mount_point(&data) {
            let MountWords { flags, data: words, .. } = parse_words(options.get("o").map_or("", String::as_str));
            let device = options.get("device").map(String::as_str);
            let kind = options.get("type").map(String::as_str).filter(|kind| *kind != "none");
            mount(device, &data, kind, flags, Some(words.as_str())).map_err(|error| {
                EngineError::internal(format!(
                    "failed to mount local volume: mount {}:{}, flags: {:#x}: {}",
                    device.unwrap_or_default(),
                    data.display(),
                    flags.bits(),
                    error.desc().to_lowercase()
                ))
            })?;
        }
        state.mounted.entry(name.to_owned()).or_default().insert(container_id.to_owned());
        Ok(data)
    }

    /// Undoes [`Volumes::mount`] with the last container.
    pub(crate) fn unmount(&self, name: &str, container_id: &str) {
        let mut state = self.lock();
        if let Some(users) = state.mounted.get_mut(name) {
            users.remove(container_id);
            if users.is_empty() {
                state.mounted.remove(name);
                let _ = umount2(&self.data(name), MntFlags::MNT_DETACH);
            }
        }
    }
}

/// Whether something is mounted at `path`: it lies on another device than its parent.
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    path.parent().is_some_and(|parent| device(parent) != device(path))
}

/// Bytes of all files below, links not followed.
pub(crate) fn directory_bytes(path: &Path) -> u64 {
    let Ok(list) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    list.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> VolumeCreateRequest {
        VolumeCreateRequest { name: name.into(), ..VolumeCreateRequest::default() }
    }

    #[test]
    fn volumes_live_on_and_users_keep_them() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        assert!(!volumes.create(&request("one")).unwrap().existed);
        assert!(volumes.create(&request("one")).unwrap().existed);
        fs::create_dir_all(root.path().join("volumes/half/_data")).unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        assert!(!root.path().join("volumes/half").exists());
        volumes.add_user("one", "c1").unwrap();
        assert_eq!(volumes.remove("one").unwrap_err().to_string(), "remove one: volume is in use - [c1]");
        let mut filters = Filters::default();
        filters.insert("dangling", "true");
        assert!(volumes.list(&filters).unwrap().volumes.is_empty());
        volumes.remove_user("one", "c1");
        assert_eq!(volumes.list(&filters).unwrap().volumes.len(), 1);
        volumes.remove("one").unwrap();
        assert_eq!(volumes.remove("one").unwrap_err().to_string(), "get one: no such volume");
    }

    #[test]
    fn only_anonymous_ones_are_pruned_unless_all() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let events = EventBus::default();
        volumes.create(&request("named")).unwrap();
        let anonymous = volumes.create(&request("")).unwrap().volume.name;
        assert!(volumes.inspect(&anonymous).unwrap().labels.unwrap().contains_key(ANONYMOUS_LABEL));
        let gone = volumes.prune(&Filters::default(), &events).unwrap();
        assert_eq!(gone.volumes_deleted, Some(vec![anonymous]));
        let mut filters = Filters::default();
        filters.insert("all", "true");
        assert_eq!(volumes.prune(&filters, &events).unwrap().volumes_deleted, Some(vec!["named".to_owned()]));
    }

    #[test]
    fn names_and_options_have_dockerds_texts() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let text = |request| volumes.create(&request).err().unwrap().to_string();
        assert!(text(request("a/b")).starts_with("create a/b: \"a/b\" includes invalid characters"));
        assert!(text(request("a")).starts_with("create a: volume name is too short"));
        let with =
            |key: &str| VolumeCreateRequest { driver_opts: [(key.to_owned(), "x".to_owned())].into(), ..request("vv") };
        assert_eq!(text(with("nope")), "create vv: invalid option: \"nope\"");
        assert_eq!(text(with("type")), "create vv: missing required option: \"device\"");
        let driver = VolumeCreateRequest { driver: "nfs".into(), ..request("vv") };
        assert_eq!(text(driver), "create vv: error looking up volume plugin nfs: plugin \"nfs\" not found");
    }
}
