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
    let more = state.settings.warnings.iter().chain(&info.swarm.warnings).cloned();
    let warnings: Vec<_> = info.warnings.take().into_iter().flatten().chain(more).collect();
    info.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    info.server_version.clone_from(&state.about.engine_version);
    info.experimental_build = state.about.experimental;
    for_older_clients(&mut info, version);
    Ok(answer::ok(&info))
}

/// What newer versions of the API have dropped, or have brought.
fn for_older_clients(info: &mut Info, version: ClientVersion) {
    if !version.at_least(47) {
        let registries = &mut info.registry_config;
        registries.allow_nondistributable_artifacts_cidrs = Some(serde_json::Value::Null);
        registries.allow_nondistributable_artifacts_hostnames = Some(serde_json::Value::Null);
    }
    if !version.at_least(49) {
        info.firewall_backend = None;
        for commit in [&mut info.containerd_commit, &mut info.runc_commit, &mut info.init_commit] {
            commit.expected.clone_from(&commit.id);
        }
    }
    if !version.at_least(50) {
        (info.bridge_nf_iptables, info.bridge_nf_ip6tables) = (Some(false), Some(false));
    }
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
    info.driver_status = host_facts::overlay_status(&settings.data_root);
    info.plugins = PluginsInfo {
        volume: owned(&["local"]),
        network: owned(&["bridge", "host", "null", "overlay"]),
        authorization: None,
        // `none` writes no log and is no driver in dockerd's list
        log: owned(&["json-file"]),
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
    let none = || Commit { id: "N/A".to_owned(), expected: String::new() };
    (info.runc_commit, info.containerd_commit, info.init_commit) = (none(), none(), none());
}

fn registries(settings: &Settings) -> RegistryConfig {
    let mirrors: Vec<_> =
        settings.registry_mirrors.iter().map(|mirror| format!("{}/", mirror.trim_end_matches('/'))).collect();
    let (cidrs, hosts): (Vec<_>, Vec<_>) =
        settings.insecure_registries.iter().cloned().partition(|registry| registry.contains('/'));
    let index = |name: &str, mirrors: &[String], secure: bool, official: bool| {
        (name.to_owned(), IndexConfig { name: name.to_owned(), mirrors: mirrors.to_vec(), secure, official })
    };
    let mut index_configs: BTreeMap<_, _> = hosts.iter().map(|host| index(host, &[], false, false)).collect();
    index_configs.extend([index("docker.io", &mirrors, true, true)]);
    let own = ["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    RegistryConfig {
        insecure_registry_cidrs: own.into_iter().chain(cidrs).collect(),
        index_configs,
        mirrors,
        ..RegistryConfig::default()
    }
}

/// `GET /plugins`: there are none.
pub(crate) async fn plugins() -> Response {
    answer::ok::<[(); 0]>(&[])
}
