//! From `-v`, `--mount`, `--volumes-from` and the image's volumes to what is mounted where. Nothing is made here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use docker_types::container::{ContainerConfig, HostConfig};
use docker_types::container_spec::Mount;
use docker_types::volume::VolumeCreateRequest;

use crate::EngineError;
use crate::mount_options::is_tmpfs_word;
use crate::record::{MountKind, MountRecord};

/// Mounts of one container.
const MOUNTS_MAX: usize = 4096;

/// A mount, and the volume to be made for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PlannedMount {
    pub(crate) mount: MountRecord,
    pub(crate) volume: Option<VolumeCreateRequest>,
}

/// A path without `.`, `..` and double slashes; `None` if it is not absolute.
pub(crate) fn clean_path(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

fn bad_spec(spec: &str) -> EngineError {
    EngineError::invalid(format!("invalid volume specification: '{spec}'"))
}

/// One of `HostConfig.Binds`: `source:destination[:mode]`, `name:destination[:mode]`, `destination`.
fn parse_bind(spec: &str, driver: &str) -> Result<PlannedMount, EngineError> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(bad_spec(spec)),
    };
    if destination.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(bad_spec(spec));
    }
    let Some(target) = clean_path(destination) else {
        return Err(EngineError::invalid(format!(
            "invalid volume specification: '{spec}': invalid mount config for type \"volume\": invalid mount path: \
             '{destination}' mount path must be absolute"
        )));
    };
    if target == "/" {
        return Err(EngineError::invalid(format!(
            "invalid volume specification: '{spec}': invalid mount config for type \"volume\": invalid specification: \
             destination can't be '/'"
        )));
    }
    let mut mount = MountRecord { destination: target, mode: mode.to_owned(), ..MountRecord::default() };
    read_mode(&mut mount, mode, source.starts_with('/'))?;
    if source.starts_with('/') {
        mount.kind = MountKind::Bind;
        mount.source = PathBuf::from(clean_path(source).ok_or_else(|| bad_spec(spec))?);
        mount.make_source = true;
        return Ok(PlannedMount { mount, volume: None });
    }
    mount.kind = MountKind::Volume;
    mount.anonymous = source.is_empty();
    mount.copy_up = !mode.split(',').any(|word| word == "nocopy");
    // dockerd shows `z` for named volumes without a mode
    if mode.is_empty() && !source.is_empty() {
        mount.mode = "z".to_owned();
    }
    let volume =
        VolumeCreateRequest { name: source.to_owned(), driver: driver.to_owned(), ..VolumeCreateRequest::default() };
    Ok(PlannedMount { mount, volume: Some(volume) })
}

fn read_mode(mount: &mut MountRecord, mode: &str, is_bind: bool) -> Result<(), EngineError> {
    let bad = || EngineError::invalid(format!("invalid mode: {mode}"));
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => mount.read_only = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "default" => {}
            "nocopy" | "copy" if !is_bind => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if is_bind => {
                word.clone_into(&mut mount.propagation);
            }
            _ => return Err(bad()),
        }
    }
    Ok(())
}

fn bad_mount(kind: &str, reason: &str) -> EngineError {
    EngineError::invalid(format!("invalid mount config for type \"{kind}\": {reason}"))
}

/// One of `HostConfig.Mounts`.
fn parse_mount(wanted: &Mount) -> Result<PlannedMount, EngineError> {
    let kind = wanted.kind.as_str();
    if wanted.target.is_empty() {
        return Err(bad_mount(kind, "field Target must not be empty"));
    }
    let Some(target) = clean_path(&wanted.target) else {
        let text = format!("invalid mount path: '{}' mount path must be absolute", wanted.target);
        return Err(bad_mount(kind, &text));
    };
    if target == "/" {
        return Err(bad_mount(kind, "invalid specification: destination can't be '/'"));
    }
    let mut mount =
        MountRecord { destination: target, read_only: wanted.read_only, from_mounts: true, ..MountRecord::default() };
    match kind {
        "bind" => {
            parse_bind_mount(&mut mount, wanted)?;
            Ok(PlannedMount { mount, volume: None })
        }
        "tmpfs" => {
            parse_tmpfs(&mut mount, wanted)?;
            Ok(PlannedMount { mount, volume: None })
        }
        "volume" => Ok(parse_volume_mount(mount, wanted)),
        "cluster" | "npipe" | "image" => Err(bad_mount(kind, &format!("mounts of type {kind} are not supported"))),
        other => Err(EngineError::invalid(format!("mount type unknown: \"{other}\""))),
    }
}

fn parse_bind_mount(mount: &mut MountRecord, wanted: &Mount) -> Result<(), EngineError> {
    if wanted.source.is_empty() {
        return Err(bad_mount("bind", "field Source must not be empty"));
    }
    if wanted.volume_options.is_some() {
        return Err(bad_mount("bind", "field VolumeOptions must not be specified"));
    }
    let Some(source) = clean_path(&wanted.source) else {
        let text = format!("invalid mount path: '{}' mount path must be absolute", wanted.source);
        return Err(bad_mount("bind", &text));
    };
    let options = wanted.bind_options.clone().unwrap_or_default();
    let known = ["", "private", "rprivate", "shared", "rshared", "slave", "rslave"];
    if !known.contains(&options.propagation.as_str()) {
        return Err(bad_mount("bind", &format!("invalid propagation mode: {}", options.propagation)));
    }
    if !options.create_mountpoint && std::fs::symlink_metadata(&source).is_err() {
        return Err(bad_mount("bind", &format!("bind source path does not exist: {source}")));
    }
    mount.kind = MountKind::Bind;
    mount.source = PathBuf::from(source);
    mount.propagation = options.propagation;
    mount.non_recursive = options.non_recursive;
    mount.make_source = options.create_mountpoint;
    Ok(())
}

fn parse_volume_mount(mut mount: MountRecord, wanted: &Mount) -> PlannedMount {
    let options = wanted.volume_options.clone().unwrap_or_default();
    let driver = options.driver_config.unwrap_or_default();
    mount.kind = MountKind::Volume;
    mount.anonymous = wanted.source.is_empty();
    mount.copy_up = !options.no_copy && options.subpath.is_empty();
    mount.subpath = options.subpath;
    mount.mode = if wanted.source.is_empty() { String::new() } else { "z".to_owned() };
    let volume = VolumeCreateRequest {
        name: wanted.source.clone(),
        driver: driver.name,
        driver_opts: driver.options,
        labels: options.labels,
        ..VolumeCreateRequest::default()
    };
    PlannedMount { mount, volume: Some(volume) }
}

fn parse_tmpfs(mount: &mut MountRecord, wanted: &Mount) -> Result<(), EngineError> {
    if !wanted.source.is_empty() {
        return Err(bad_mount("tmpfs", "field Source must not be specified"));
    }
    let options = wanted.tmpfs_options.clone().unwrap_or_default();
    mount.kind = MountKind::Tmpfs;
    let words = ["noexec", "nosuid", "nodev"];
    mount.tmpfs_options = words.iter().map(|word| (*word).to_owned()).collect();
    if mount.read_only {
        mount.tmpfs_options.push("ro".to_owned());
    }
    if options.mode != 0 {
        mount.tmpfs_options.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes != 0 {
        mount.tmpfs_options.push(format!("size={}", options.size_bytes));
    }
    for option in &options.options {
        mount.tmpfs_options.push(option.join("="));
    }
    Ok(())
}

/// `--tmpfs destination:options`.
fn plan_tmpfs(destination: &str, options: &str) -> Result<PlannedMount, EngineError> {
    let Some(target) = clean_path(destination) else {
        let text = format!("invalid mount path: '{destination}' mount path must be absolute");
        return Err(bad_mount("tmpfs", &text));
    };
    let mut words: Vec<String> = ["noexec", "nosuid", "nodev"].iter().map(|word| (*word).to_owned()).collect();
    for word in options.split(',').filter(|word| !word.is_empty()) {
        if !is_tmpfs_word(word) {
            return Err(EngineError::invalid(format!("invalid tmpfs option [\"{word}\"]")));
        }
        words.push(word.to_owned());
    }
    let mount =
        MountRecord { kind: MountKind::Tmpfs, destination: target, tmpfs_options: words, ..MountRecord::default() };
    Ok(PlannedMount { mount, volume: None })
}

/// The default propagation of a bind. What holds the data root, or lies in it, must let go of mounts that are removed
/// there: containers would keep each other's root filesystems busy.
fn settle_propagation(mount: &mut MountRecord, data_root: &Path) -> Result<(), EngineError> {
    let shares_root = mount.source.starts_with(data_root) || data_root.starts_with(&mount.source);
    match (shares_root, mount.propagation.as_str()) {
        (true, "") => mount.propagation = "rslave".to_owned(),
        (false, "") => mount.propagation = "rprivate".to_owned(),
        (true, "rslave" | "rshared") | (false, _) => {}
        (true, other) => {
            let (root, source) = (data_root.display().to_string(), mount.source.display().to_string());
            return Err(EngineError::invalid(format!(
                "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within \
                 the daemon root, daemon root: {root:?}, bind mount source: {source:?}, propagation: {other:?}"
            )));
        }
    }
    Ok(())
}

/// All mounts of a container by destination; `inherited` are those of `--volumes-from`.
pub(crate) fn plan_mounts(
    config: &ContainerConfig,
    host: &HostConfig,
    inherited: Vec<MountRecord>,
    data_root: &Path,
) -> Result<Vec<PlannedMount>, EngineError> {
    let mut planned: BTreeMap<String, PlannedMount> = BTreeMap::new();
    for mount in inherited {
        planned.insert(mount.destination.clone(), PlannedMount { mount, volume: None });
    }
    let mut explicit = Vec::new();
    let binds = host.binds.as_deref().unwrap_or_default().iter();
    let binds = binds.map(|spec| parse_bind(spec, &host.volume_driver));
    let tmpfs = host.tmpfs.iter().map(|(destination, options)| plan_tmpfs(destination, options));
    for mount in binds.chain(host.mounts.iter().map(parse_mount)).chain(tmpfs) {
        let mut mount = mount?;
        if mount.mount.kind == MountKind::Bind {
            settle_propagation(&mut mount.mount, data_root)?;
        }
        let destination = mount.mount.destination.clone();
        if explicit.contains(&destination) {
            return Err(EngineError::invalid(format!("Duplicate mount point: {destination}")));
        }
        explicit.push(destination.clone());
        planned.insert(destination, mount);
    }
    for destination in config.volumes.iter().flatten().map(|(destination, _)| destination) {
        let Some(target) = clean_path(destination) else { return Err(bad_spec(destination)) };
        planned.entry(target).or_insert_with_key(|target| PlannedMount {
            mount: MountRecord {
                kind: MountKind::Volume,
                destination: target.clone(),
                anonymous: true,
                copy_up: true,
                ..MountRecord::default()
            },
            volume: Some(VolumeCreateRequest { driver: host.volume_driver.clone(), ..VolumeCreateRequest::default() }),
        });
    }
    if planned.len() > MOUNTS_MAX {
        return Err(EngineError::invalid(format!("too many mounts: at most {MOUNTS_MAX}")));
    }
    Ok(planned.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(host: &HostConfig) -> Result<Vec<PlannedMount>, String> {
        plan_mounts(&ContainerConfig::default(), host, Vec::new(), Path::new("/var/lib/skep"))
            .map_err(|error| error.to_string())
    }

    fn bind(spec: &str) -> Result<MountRecord, String> {
        let host = HostConfig { binds: Some(vec![spec.into()]), ..HostConfig::default() };
        plan(&host).map(|mut mounts| mounts.remove(0).mount)
    }

    #[test]
    fn binds_are_read_as_dockerd_does() {
        let mount = bind("/a/../b:/c/:ro,rshared").unwrap();
        assert_eq!(
            (mount.kind, mount.source.to_str(), mount.destination.as_str()),
            (MountKind::Bind, Some("/b"), "/c")
        );
        assert!(mount.read_only && mount.propagation == "rshared" && mount.make_source);
        let mount = bind("data:/c").unwrap();
        assert_eq!(
            (mount.kind, mount.anonymous, mount.copy_up, mount.mode.as_str()),
            (MountKind::Volume, false, true, "z")
        );
        assert!(!bind("data:/c:nocopy").unwrap().copy_up);
        assert_eq!(bind("/a:/c:what").unwrap_err(), "invalid mode: what");
        assert_eq!(bind(":/c").unwrap_err(), "invalid volume specification: ':/c'");
        assert!(bind("/a:c").unwrap_err().ends_with("invalid mount path: 'c' mount path must be absolute"));
        assert!(bind("/a:/").unwrap_err().ends_with("destination can't be '/'"));
    }

    #[test]
    fn mounts_are_read_as_dockerd_does() {
        let mount = |kind: &str, source: &str, target: &str| Mount {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        let check = |mount: Mount| plan(&HostConfig { mounts: vec![mount], ..HostConfig::default() });
        assert_eq!(
            check(mount("bind", "/no/such", "/x")).unwrap_err(),
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such"
        );
        assert_eq!(check(mount("what", "", "/x")).unwrap_err(), "mount type unknown: \"what\"");
        let volume = check(mount("volume", "v", "/x")).unwrap().remove(0);
        assert_eq!(volume.volume.unwrap().name, "v");
        let both = HostConfig {
            binds: Some(vec!["/tmp:/x".into()]),
            mounts: vec![mount("tmpfs", "", "/x")],
            ..HostConfig::default()
        };
        assert_eq!(plan(&both).unwrap_err(), "Duplicate mount point: /x");
    }

    #[test]
    fn volumes_of_the_image_give_way() {
        let config = ContainerConfig {
            volumes: Some([("/data".to_owned(), Default::default()), ("/other".to_owned(), Default::default())].into()),
            ..ContainerConfig::default()
        };
        let host = HostConfig { binds: Some(vec!["/tmp:/data".into()]), ..HostConfig::default() };
        let mounts = plan_mounts(&config, &host, Vec::new(), Path::new("/var/lib/skep")).unwrap();
        let kinds: Vec<_> = mounts.iter().map(|planned| (planned.mount.kind, planned.mount.anonymous)).collect();
        assert_eq!(kinds, [(MountKind::Bind, false), (MountKind::Volume, true)]);
    }

    #[test]
    fn binds_around_the_data_root_let_go_of_its_mounts() {
        let plan = |bind: &str| {
            let host = HostConfig { binds: Some(vec![bind.to_owned()]), ..HostConfig::default() };
            let planned = plan_mounts(&ContainerConfig::default(), &host, Vec::new(), Path::new("/var/lib/skep"));
            planned.map(|planned| planned[0].mount.propagation.clone()).map_err(|error| error.to_string())
        };
        for (bind, propagation) in [
            ("/etc:/x", "rprivate"),
            ("/etc:/x:rshared", "rshared"),
            ("/:/x", "rslave"),
            ("/var/lib:/x", "rslave"),
            ("/var/lib/skep/volumes:/x", "rslave"),
            ("/var/lib/skep2:/x", "rprivate"),
            ("/:/x:rshared", "rshared"),
        ] {
            assert_eq!(plan(bind).as_deref(), Ok(propagation), "{bind}");
        }
        let refused = plan("/var:/x:rprivate").unwrap_err();
        assert!(refused.starts_with("invalid mount config: must use either propagation mode \"rslave\""), "{refused}");
    }
}
