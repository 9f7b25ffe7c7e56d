//! `/_ping`, `/version`, `/info`, `/plugins`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use docker_types::system::{Commit, IndexConfig, Info, PluginsInfo, RegistryConfig};
use http::{HeaderMap, HeaderValue, Method, header};

use crate::answer;
use crate::error::ApiResult;
use crate::host_facts;
use crate::request::ClientVersion;
use crate::state::{Context, Settings, Shared};
use crate::swarm::cluster;

/// Docker Hub's index, as dockerd names it.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

pub(crate) async fn ping(State(state): State<Shared>, method: Method) -> Response {
    let swarm = cluster::ping_header(&state.swarm.info().await);
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static(swarm));
    let body = if method == Method::HEAD { "" } else { "OK" };
    (headers, body).into_response()
}

pub(crate) async fn version(State(state): State<Shared>) -> ApiResult {
    Ok(answer::ok(&state.about.version(&host_facts::kernel_version())))
}

pub(crate) async fn info(State(state): State<Shared>, version: ClientVersion) -> ApiResult {
    let mut info = Info::default();
    host_facts::fill(&mut info);
    fill_settings(&mut info, &state.settings);
    fill_counts(&mut info, &state);
    info.swarm = cluster::info(&state.swarm.info().await);
    let warnings = info.warnings.get_or_insert_default();
    warnings.extend(state.settings.warnings.iter().cloned());
    warnings.extend(info.swarm.warnings.iter().cloned());
    info.server_version.clone_from(&state.about.engine_version);
    info.experimental_build = state.about.experimental;
    if !version.at_least(49) {
        info.firewall_backend = None;
    }
    Ok(answer::ok(&info))
}

fn fill_counts(info: &mut Info, state: &Context) {
    let counts = state.engine.counts();
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    info.containers = number(counts.containers);
    info.containers_running = number(counts.running);
    info.containers_paused = number(counts.paused);
    info.containers_stopped = number(counts.stopped);
    info.images = number(state.images.list().len());
}

fn fill_settings(info: &mut Info, settings: &Settings) {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    info.id.clone_from(&settings.id);
    "overlay2".clone_into(&mut info.driver);
    info.driver_status = vec![["Supports d_type".to_owned(), "true".to_owned()]];
    info.plugins = PluginsInfo {
        volume: owned(&["local"]),
        network: owned(&["bridge", "host", "null", "overlay"]),
        authorization: None,
        log: owned(&["json-file", "none"]),
    };
    info.debug = settings.debug;
    info.logging_driver.clone_from(&settings.log_driver);
    info.docker_root_dir = settings.data_root.display().to_string();
    info.labels.clone_from(&settings.labels);
    info.live_restore_enabled = settings.live_restore;
    info.default_runtime.clone_from(&settings.default_runtime);
    info.runtimes.clone_from(&settings.runtimes);
    info.default_address_pools.clone_from(&settings.default_address_pools);
    info.generic_resources.clone_from(&settings.generic_resources);
    info.firewall_backend =
        Some(docker_types::system::FirewallInfo { driver: "nftables".to_owned(), info: Vec::new() });
    INDEX_SERVER.clone_into(&mut info.index_server_address);
    info.registry_config = registries(settings);
    let none = || Commit { id: "N/A".to_owned() };
    (info.runc_commit, info.containerd_commit, info.init_commit) = (none(), none(), none());
}

fn registries(settings: &Settings) -> RegistryConfig {
    let (cidrs, hosts): (Vec<_>, Vec<_>) =
        settings.insecure_registries.iter().cloned().partition(|registry| registry.contains('/'));
    let index = |name: &str, mirrors: &[String], secure: bool, official: bool| {
        (name.to_owned(), IndexConfig { name: name.to_owned(), mirrors: mirrors.to_vec(), secure, official })
    };
    let mut index_configs: BTreeMap<_, _> = hosts.iter().map(|host| index(host, &[], false, false)).collect();
    index_configs.extend([index("docker.io", &settings.registry_mirrors, true, true)]);
    let own = ["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    RegistryConfig {
        insecure_registry_cidrs: own.into_iter().chain(cidrs).collect(),
        index_configs,
        mirrors: settings.registry_mirrors.clone(),
        ..RegistryConfig::default()
    }
}

/// `GET /plugins`: there are none.
pub(crate) async fn plugins() -> Response {
    answer::ok::<[(); 0]>(&[])
}
