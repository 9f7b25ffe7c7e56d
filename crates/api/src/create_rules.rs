//! What the API's version makes of a container that is to be created: fields that older clients could not know are put
//! aside, and combinations that newer ones forbid are refused, with dockerd's texts.

use docker_types::container::{CreateRequest, EndpointSettings, HostConfig};
use docker_types::container_spec::Mount;
use http::StatusCode;

use crate::error::ApiError;
use crate::request::ClientVersion;

const MAC_WARNING: &str =
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.";
const VOLUME_DRIVER_WARNING: &str = "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead";

/// Brings the request into the newest version's form; gives warnings.
pub(crate) fn apply(request: &mut CreateRequest, version: ClientVersion) -> Result<Vec<String>, ApiError> {
    let mut host = request.host_config.take().unwrap_or_default();
    refuse_unbuilt(&host)?;
    name_default_network(request, &mut host);
    for_older_clients(request, &mut host, version);
    for mount in &mut host.mounts {
        check_mount(mount, version)?;
    }
    check_endpoints(request, version)?;
    let mut warnings = Vec::new();
    if version.at_least(48) && ignores_volume_driver(&host) {
        warnings.push(VOLUME_DRIVER_WARNING.to_owned());
    }
    warnings.extend(move_mac_address(request, &host, version)?);
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    request.host_config = Some(host);
    Ok(warnings)
}

/// What would otherwise be taken without effect.
fn refuse_unbuilt(host: &HostConfig) -> Result<(), ApiError> {
    let given = |list: bool, what: &'static str| list.then_some(what);
    // On users' networks links are part of the endpoint; elsewhere they would be names in /etc/hosts and variables.
    let is_default = matches!(host.network_mode.as_str(), "" | "default" | "bridge" | "none");
    let has_links = is_default && host.links.as_ref().is_some_and(|links| !links.is_empty());
    let has_requests = host.device_requests.as_ref().is_some_and(|requests| !requests.is_empty());
    let unbuilt = given(has_links, "linking containers on the default bridge (docker run --link)")
        .or(given(has_requests, "requesting devices of a driver (docker run --gpus)"));
    if let Some(what) = unbuilt {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported by Skep yet")));
    }
    if !host.storage_opt.is_empty() {
        let text = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
        return Err(ApiError::internal(text));
    }
    if !host.isolation.is_empty() && !host.isolation.eq_ignore_ascii_case("default") {
        let text = format!("invalid isolation ({}): linux only supports 'default'", host.isolation);
        return Err(ApiError::bad_request(text));
    }
    Ok(())
}

fn name_default_network(request: &mut CreateRequest, host: &mut HostConfig) {
    if !matches!(host.network_mode.as_str(), "" | "default") {
        return;
    }
    "bridge".clone_into(&mut host.network_mode);
    if let Some(endpoints) = request.networking_config.as_mut().and_then(|config| config.endpoints_config.as_mut())
        && let Some(endpoint) = endpoints.remove("default")
    {
        endpoints.insert("bridge".to_owned(), endpoint);
    }
}

fn for_older_clients(request: &mut CreateRequest, host: &mut HostConfig, version: ClientVersion) {
    if !version.at_least(25) {
        host.auto_remove = false;
    }
    if !version.at_least(40) {
        host.kernel_memory_tcp = 0;
        if host.ipc_mode.is_empty() {
            "shareable".clone_into(&mut host.ipc_mode);
        }
    }
    if version.at_least(42) {
        host.kernel_memory = 0;
    } else {
        host.console_size = [0, 0];
    }
    if !version.at_least(43) {
        host.annotations.clear();
    }
    if let (false, Some(health)) = (version.at_least(44), &mut request.healthcheck) {
        health.start_interval = 0;
    }
    let endpoints = request.networking_config.iter_mut().flat_map(|config| &mut config.endpoints_config);
    for endpoint in endpoints.flat_map(|endpoints| endpoints.values_mut().flatten()) {
        if !version.at_least(48) {
            endpoint.gw_priority = 0;
        }
    }
}

fn check_mount(mount: &mut Mount, version: ClientVersion) -> Result<(), ApiError> {
    let kind = mount.kind.clone();
    let old = !version.at_least(42);
    let misplaced =
        |option: &str| Err(ApiError::bad_request(format!("{option} must not be specified on mount type {kind:?}")));
    if mount.volume_options.is_some() && kind != "volume" {
        if !old {
            return misplaced("VolumeOptions");
        }
        mount.volume_options = None;
    }
    if mount.bind_options.is_some() && kind != "bind" && !old {
        return misplaced("BindOptions");
    }
    if mount.tmpfs_options.is_some() && kind != "tmpfs" {
        if !old {
            return misplaced("TmpfsOptions");
        }
        mount.tmpfs_options = None;
    }
    if let Some(options) = &mut mount.bind_options {
        options.non_recursive &= version.at_least(40);
        options.create_mountpoint &= !old;
        if options.read_only_force_recursive && kind == "bind" && !version.at_least(44) {
            return Err(ApiError::bad_request("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"));
        }
    }
    let has_subpath = mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty());
    if has_subpath && !version.at_least(45) {
        return Err(ApiError::bad_request("VolumeOptions.Subpath needs API v1.45 or newer"));
    }
    if !version.at_least(48) && kind == "image" {
        return Err(ApiError::bad_request("Mount type \"Image\" needs API v1.48 or newer"));
    }
    Ok(())
}

fn check_endpoints(request: &CreateRequest, version: ClientVersion) -> Result<(), ApiError> {
    let endpoints = request.networking_config.as_ref().and_then(|config| config.endpoints_config.as_ref());
    match endpoints {
        Some(endpoints) if endpoints.len() > 1 && !version.at_least(44) => {
            let names: Vec<_> = endpoints.keys().cloned().collect();
            let text = format!("Container cannot be created with multiple network endpoints: {}", names.join(", "));
            Err(ApiError::bad_request(text))
        }
        _ => Ok(()),
    }
}

fn ignores_volume_driver(host: &HostConfig) -> bool {
    let has_driver = |mount: &Mount| {
        let driver = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
        driver.is_some_and(|driver| !driver.name.is_empty())
    };
    !host.volume_driver.is_empty() && host.mounts.iter().any(|mount| mount.kind == "volume" && !has_driver(mount))
}

/// The address of the container as a whole becomes the one of its main network's endpoint.
fn move_mac_address(
    request: &mut CreateRequest,
    host: &HostConfig,
    version: ClientVersion,
) -> Result<Option<String>, ApiError> {
    let address = std::mem::take(&mut request.mac_address);
    let has_own_network =
        !matches!(host.network_mode.as_str(), "host" | "none") && !host.network_mode.starts_with("container:");
    let newer = version.at_least(44);
    if address.is_empty() {
        return Ok(None);
    }
    if !has_own_network {
        let text = "conflicting options: mac-address and the network mode";
        return if newer { Ok(Some(MAC_WARNING.to_owned())) } else { Err(ApiError::bad_request(text)) };
    }
    let endpoints = request.networking_config.get_or_insert_default().endpoints_config.get_or_insert_default();
    if !endpoints.is_empty() && !endpoints.contains_key(&host.network_mode) {
        return Err(ApiError::bad_request(
            "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
        ));
    }
    let endpoint: &mut EndpointSettings =
        endpoints.entry(host.network_mode.clone()).or_default().get_or_insert_default();
    if newer && !endpoint.mac_address.is_empty() && endpoint.mac_address != address {
        return Err(ApiError::bad_request(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
        ));
    }
    endpoint.mac_address = address;
    Ok(newer.then(|| MAC_WARNING.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use docker_types::version::ApiVersion;

    fn run(body: &str, minor: u16) -> Result<(CreateRequest, Vec<String>), ApiError> {
        let mut request = docker_types::json::from_slice(body.as_bytes()).unwrap();
        let warnings = apply(&mut request, ClientVersion(ApiVersion::new(1, minor)))?;
        Ok((request, warnings))
    }

    #[test]
    fn the_default_network_has_a_name() {
        let body = r#"{"HostConfig":{"NetworkMode":"default","PidsLimit":-1},
            "NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["a"]}}}}"#;
        let (request, warnings) = run(body, 51).unwrap();
        let host = request.host_config.unwrap();
        assert_eq!((host.network_mode.as_str(), host.pids_limit), ("bridge", None));
        assert!(request.networking_config.unwrap().endpoints_config.unwrap().contains_key("bridge"));
        assert!(warnings.is_empty());
        assert_eq!(run("{}", 51).unwrap().0.host_config.unwrap().network_mode, "bridge");
    }

    #[test]
    fn links_are_for_networks_of_ones_own() {
        let links = |mode: &str| run(&format!(r#"{{"HostConfig":{{"NetworkMode":"{mode}","Links":["a:b"]}}}}"#), 51);
        for mode in ["", "default", "bridge"] {
            let error = links(mode).unwrap_err();
            let text = "linking containers on the default bridge (docker run --link) is not supported by Skep yet";
            assert_eq!((error.status.as_u16(), error.message.as_str()), (501, text));
        }
        assert!(links("mine").is_ok());
    }

    #[test]
    fn options_of_mounts_belong_to_their_type() {
        let body = r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","VolumeOptions":{}}]}}"#;
        let error = run(body, 51).unwrap_err();
        assert_eq!(error.message, "VolumeOptions must not be specified on mount type \"bind\"");
        assert!(run(body, 41).unwrap().0.host_config.unwrap().mounts[0].volume_options.is_none());
    }

    #[test]
    fn older_clients_did_not_know_all_options_of_mounts() {
        let mount = |kind: &str, options: &str| {
            format!(r#"{{"HostConfig":{{"Mounts":[{{"Type":"{kind}","Source":"/a","Target":"/b",{options}}}]}}}}"#)
        };
        let bind = mount("bind", r#""BindOptions":{"NonRecursive":true,"CreateMountpoint":true}"#);
        for (minor, kept) in [(39, (false, false)), (41, (true, false)), (42, (true, true))] {
            let host = run(&bind, minor).unwrap().0.host_config.unwrap();
            let options = host.mounts[0].bind_options.clone().unwrap();
            assert_eq!((options.non_recursive, options.create_mountpoint), kept, "{minor}");
        }
        for (body, minor, what) in [
            (
                mount("bind", r#""BindOptions":{"ReadOnlyForceRecursive":true}"#),
                44,
                "BindOptions.ReadOnlyForceRecursive",
            ),
            (mount("volume", r#""VolumeOptions":{"Subpath":"x"}"#), 45, "VolumeOptions.Subpath"),
        ] {
            assert!(run(&body, minor).is_ok());
            let error = run(&body, minor - 1).unwrap_err();
            assert_eq!(error.message, format!("{what} needs API v1.{minor} or newer"));
        }
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        for (host, status) in [
            (r#"{"Links":["a:b"]}"#, 501),
            (r#"{"DeviceRequests":[{"Count":-1}]}"#, 501),
            (r#"{"StorageOpt":{"size":"1G"}}"#, 500),
            (r#"{"Isolation":"hyperv"}"#, 400),
        ] {
            let error = run(&format!(r#"{{"HostConfig":{host}}}"#), 51).unwrap_err();
            assert_eq!(error.status.as_u16(), status, "{host}");
        }
        assert!(run(r#"{"HostConfig":{"Links":null,"DeviceRequests":[],"Isolation":"default"}}"#, 51).is_ok());
    }

    #[test]
    fn mac_addresses_move_to_the_endpoint() {
        let (request, warnings) = run(r#"{"MacAddress":"02:42:ac:11:00:09"}"#, 51).unwrap();
        let endpoints = request.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(endpoints["bridge"].as_ref().unwrap().mac_address, "02:42:ac:11:00:09");
        assert_eq!((request.mac_address.as_str(), warnings.len()), ("", 1));
        let two = r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}"#;
        let error = run(two, 43).unwrap_err();
        assert_eq!(error.message, "Container cannot be created with multiple network endpoints: a, b");
        assert!(run(two, 44).is_ok());
    }
}
