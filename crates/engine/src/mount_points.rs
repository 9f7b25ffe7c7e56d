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

/// Why nothing can be mounted there; dockerd looks in this order.
pub(crate) fn check_target(target: &str) -> Result<(), String> {
    let mut rooted = String::from("/");
    rooted.push_str(target.strip_prefix('/').unwrap_or(target));
    let is_root = clean_path(&rooted).as_deref() == Some("/") && target.starts_with('/');
    match target {
        _ if is_root => Err("invalid specification: destination can't be '/'".to_owned()),
        target if !target.starts_with('/') => {
            Err(format!("invalid mount path: '{target}' mount path must be absolute"))
        }
        _ => Ok(()),
    }
}

/// Words of a mount's mode by what they say; each may be said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModeWord {
    Access,
    Label,
    Propagation,
    Copy,
    Consistency,
}

fn mode_word(word: &str) -> Option<ModeWord> {
    Some(match word {
        "ro" | "rw" => ModeWord::Access,
        "z" | "Z" => ModeWord::Label,
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => ModeWord::Propagation,
        "nocopy" => ModeWord::Copy,
        "consistent" | "cached" | "delegated" => ModeWord::Consistency,
        _ => return None,
    })
}

/// The kinds of words in a mode; `None` if it is none.
fn mode_words(mode: &str) -> Option<Vec<ModeWord>> {
    let mut kinds = Vec::new();
    for word in mode.split(',').filter(|_| !mode.is_empty()) {
        let kind = mode_word(word)?;
        if kinds.contains(&kind) {
            return None;
        }
        kinds.push(kind);
    }
    Some(kinds)
}

/// The mode of `--volumes-from`: what a volume has by its container cannot be changed.
pub(crate) fn check_inherited_mode(mode: &str) -> Result<(), EngineError> {
    let fixed = [ModeWord::Propagation, ModeWord::Copy];
    match mode_words(mode) {
        Some(words) if !words.iter().any(|word| fixed.contains(word)) => Ok(()),
        _ => Err(EngineError::invalid(format!("invalid mode: {mode}"))),
    }
}

/// One of `HostConfig.Binds`: `source:destination[:mode]`, `name:destination[:mode]`, `destination`.
fn parse_bind(spec: &str, driver: &str) -> Result<PlannedMount, EngineError> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        ["", ..] => return Err(bad_spec(spec)),
        [destination] => ("", *destination, ""),
        // a volume without a source has no mode
        [_, mode] if mode_words(mode).is_some() => return Err(bad_spec(spec)),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(bad_spec(spec)),
    };
    let words = mode_words(mode).ok_or_else(|| EngineError::invalid(format!("invalid mode: {mode}")))?;
    let is_bind = source.starts_with('/');
    let kind = if is_bind { "bind" } else { "volume" };
    let bad = |reason: &str| {
        let reason = bad_mount(kind, reason);
        EngineError::invalid(format!("invalid volume specification: '{spec}': {reason}"))
    };
    if destination.is_empty() {
        return Err(bad("field Target must not be empty"));
    }
    check_target(destination).map_err(|reason| bad(&reason))?;
    if is_bind && words.contains(&ModeWord::Copy) {
        return Err(bad("field VolumeOptions must not be specified"));
    }
    if !is_bind && words.contains(&ModeWord::Propagation) {
        return Err(bad("field BindOptions must not be specified"));
    }
    let mut mount = MountRecord {
        destination: clean_path(destination).ok_or_else(|| bad_spec(spec))?,
        mode: mode.to_owned(),
        read_only: mode.split(',').any(|word| word == "ro"),
        ..MountRecord::default()
    };
    if is_bind {
        let propagation = mode.split(',').find(|word| mode_word(word) == Some(ModeWord::Propagation));
        mount.kind = MountKind::Bind;
        mount.source = PathBuf::from(clean_path(source).ok_or_else(|| bad_spec(spec))?);
        mount.make_source = true;
        mount.propagation_asked = propagation.is_some();
        mount.propagation = propagation.unwrap_or_default().to_owned();
        return Ok(PlannedMount { mount, volume: None });
    }
    mount.kind = MountKind::Volume;
    mount.anonymous = source.is_empty();
    mount.copy_up = !words.contains(&ModeWord::Copy);
    // dockerd shows `z` for named volumes without a mode
    if mode.is_empty() && !source.is_empty() {
        mount.mode = "z".to_owned();
    }
    let volume =
        VolumeCreateRequest { name: source.to_owned(), driver: driver.to_owned(), ..VolumeCreateRequest::default() };
    Ok(PlannedMount { mount, volume: Some(volume) })
}

fn bad_mount(kind: &str, reason: &str) -> EngineError {
    EngineError::invalid(format!("invalid mount config for type \"{kind}\": {reason}"))
}

/// Refuses one of `HostConfig.Mounts` that makes no sense, before the image is looked for.
pub(crate) fn check_mount(wanted: &Mount) -> Result<(), EngineError> {
    parse_mount(wanted).map(drop)
}

/// One of `HostConfig.Mounts`.
fn parse_mount(wanted: &Mount) -> Result<PlannedMount, EngineError> {
    let kind = wanted.kind.as_str();
    if wanted.target.is_empty() {
        return Err(bad_mount(kind, "field Target must not be empty"));
    }
    check_target(&wanted.target).map_err(|reason| bad_mount(kind, &reason))?;
    let target = clean_path(&wanted.target).unwrap_or_default();
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
        "volume" => parse_volume_mount(mount, wanted),
        "cluster" | "image" => Err(bad_mount(kind, &format!("mounts of type {kind} are not supported"))),
        _ => Err(bad_mount(kind, "mount type unknown")),
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
    mount.propagation_asked = !options.propagation.is_empty();
    mount.propagation = options.propagation;
    mount.non_recursive = options.non_recursive;
    mount.writable_below = options.read_only_non_recursive;
    mount.make_source = options.create_mountpoint;
    Ok(())
}

fn parse_volume_mount(mut mount: MountRecord, wanted: &Mount) -> Result<PlannedMount, EngineError> {
    let options = wanted.volume_options.clone().unwrap_or_default();
    let anonymous = wanted.source.is_empty();
    if wanted.bind_options.is_some() {
        return Err(bad_mount("volume", "field BindOptions must not be specified"));
    }
    if anonymous && !options.subpath.is_empty() {
        return Err(bad_mount("volume", "must not set Subpath when using anonymous volumes"));
    }
    if !is_local(&options.subpath) {
        return Err(bad_mount("volume", "subpath must be a relative path within the volume"));
    }
    if anonymous && wanted.read_only {
        return Err(bad_mount("volume", "must not set ReadOnly mode when using anonymous volumes"));
    }
    let driver = options.driver_config.unwrap_or_default();
    mount.kind = MountKind::Volume;
    mount.anonymous = anonymous;
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
    Ok(PlannedMount { mount, volume: Some(volume) })
}

/// Whether a path, as written, stays below where it begins. An empty one does.
fn is_local(path: &str) -> bool {
    let mut depth = 0_usize;
    let steps = path.split('/').all(|step| {
        let next = match step {
            "" | "." => Some(depth),
            ".." => depth.checked_sub(1),
            _ => Some(depth + 1),
        };
        depth = next.unwrap_or_default();
        next.is_some()
    });
    steps && !path.starts_with('/')
}

fn parse_tmpfs(mount: &mut MountRecord, wanted: &Mount) -> Result<(), EngineError> {
    if !wanted.source.is_empty() {
        return Err(bad_mount("tmpfs", "field Source must not be specified"));
    }
    if wanted.bind_options.is_some() {
        return Err(bad_mount("tmpfs", "field BindOptions must not be specified"));
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
        let reason = match option.as_slice() {
            [name] | [name, _] if matches!(name.as_str(), "exec" | "noexec") => None,
            [name] | [name, _] => Some(format!("invalid option: {name}")),
            _ => Some("invalid option array length".to_owned()),
        };
        if let Some(reason) = reason {
            return Err(bad_mount("tmpfs", &reason));
        }
        mount.tmpfs_options.push(option.join("="));
    }
    Ok(())
}

/// `--tmpfs destination:options`.
fn plan_tmpfs(destination: &str, options: &str) -> Result<PlannedMount, EngineError> {
    // it was checked before
    let target = clean_path(destination).unwrap_or_default();
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
        let refused = |spec: &str| bind(spec).unwrap_err();
        for mode in ["what", "ro,rw", "z,Z", "ro,", "default", "copy", "shared,slave"] {
            assert_eq!(refused(&format!("/a:/c:{mode}")), format!("invalid mode: {mode}"));
        }
        for spec in [":/c", "/c:ro", "a:/b:ro:x", "/a:"] {
            assert_eq!(refused(spec), format!("invalid volume specification: '{spec}'"));
        }
        for (spec, kind, reason) in [
            ("/a:c", "bind", "invalid mount path: 'c' mount path must be absolute"),
            ("a:c", "volume", "invalid mount path: 'c' mount path must be absolute"),
            ("/a:/", "bind", "invalid specification: destination can't be '/'"),
            ("/a:/b:nocopy", "bind", "field VolumeOptions must not be specified"),
            ("v:/b:shared", "volume", "field BindOptions must not be specified"),
        ] {
            let text =
                format!("invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": {reason}");
            assert_eq!(refused(spec), text);
        }
        assert!(bind("/a:/c:z,cached,ro,rslave").unwrap().propagation_asked);
        assert!(!bind("/a:/c:ro").unwrap().propagation_asked);
        for (mode, fits) in
            [("", true), ("ro", true), ("z,ro", true), ("shared", false), ("nocopy", false), ("x", false)]
        {
            assert_eq!(check_inherited_mode(mode).is_ok(), fits, "{mode}");
        }
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
        for (kind, source, target, change, reason) in [
            ("what", "", "/x", "", "mount type unknown"),
            ("npipe", "", "/x", "", "mount type unknown"),
            ("volume", "", "/x", "read-only", "must not set ReadOnly mode when using anonymous volumes"),
            ("volume", "", "/x", "subpath", "must not set Subpath when using anonymous volumes"),
            ("volume", "v", "/x", "way-out", "subpath must be a relative path within the volume"),
            ("tmpfs", "", "/x", "option", "invalid option: size"),
            ("tmpfs", "", "/x", "bind", "field BindOptions must not be specified"),
            ("tmpfs", "", "x", "", "invalid mount path: 'x' mount path must be absolute"),
            ("volume", "v", "/x/..", "", "invalid specification: destination can't be '/'"),
        ] {
            let mut wanted = mount(kind, source, target);
            match change {
                "read-only" => wanted.read_only = true,
                "subpath" => wanted.volume_options.get_or_insert_default().subpath = "a".into(),
                "way-out" => wanted.volume_options.get_or_insert_default().subpath = "a/../../b".into(),
                "option" => {
                    wanted.tmpfs_options.get_or_insert_default().options = vec![vec!["size".into(), "1".into()]];
                }
                "bind" => wanted.bind_options = Some(Default::default()),
                _ => {}
            }
            let text = format!("invalid mount config for type \"{kind}\": {reason}");
            assert_eq!(check(wanted).unwrap_err(), text, "{change}");
        }
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
