//! `/swarm`: init, join, leave, inspect, update, lock and unlock.

use axum::extract::State;
use axum::response::Response;
use docker_types::json::Base64;
use docker_types::service::SpecError;
use docker_types::swarm::{self as json, ShowTokens, TlsInfo, UnlockKey};
use docker_types::system;
use docker_types::words::Word;
use model::{Cluster, ClusterSpec, NodeAvailability};

use crate::answer;
use crate::error::{ApiError, ApiResult};
use crate::request::{Json, Params};
use crate::state::Shared;
use crate::swarm_backend::{InitRequest, JoinRequest, KeyRotation, LeaveMode, LocalNodeState, SwarmInfo};

/// The only name a swarm can have.
const SWARM_NAME: &str = "default";
/// Where managers listen unless they say otherwise.
const MANAGER_PORT: u16 = 2377;
/// The longest prefix of overlay subnets.
const SUBNET_SIZE_MAX: u32 = 29;

const TWO_MANAGERS: &str = "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n         no fault tolerance, and poses a high risk to lose control over the cluster.\n         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n         Swarm for fault-tolerance.";

pub(crate) async fn init(State(state): State<Shared>, Json(body): Json<json::InitRequest>) -> ApiResult {
    let mut spec = body.spec;
    name_spec(&mut spec)?;
    check_listen_addr(&body.listen_addr)?;
    check_pools(&body.default_addr_pool, body.subnet_size)?;
    let request = InitRequest {
        listen_addr: body.listen_addr,
        advertise_addr: body.advertise_addr,
        data_path_addr: body.data_path_addr,
        data_path_port: body.data_path_port,
        default_address_pool: body.default_addr_pool,
        subnet_size: body.subnet_size,
        force_new_cluster: body.force_new_cluster,
        auto_lock_managers: body.auto_lock_managers || spec.encryption_config.auto_lock_managers,
        availability: availability(&body.availability)?,
        spec,
    };
    let node_id = state.swarm.init(request).await?;
    Ok(answer::ok(&node_id.as_str()))
}

pub(crate) async fn join(State(state): State<Shared>, Json(body): Json<json::JoinRequest>) -> ApiResult {
    check_listen_addr(&body.listen_addr)?;
    if body.remote_addrs.is_empty() {
        return Err(ApiError::bad_request("at least 1 RemoteAddr is required to join"));
    }
    if body.remote_addrs.iter().any(String::is_empty) {
        return Err(ApiError::bad_request("invalid remoteAddr \"\": invalid empty address"));
    }
    let request = JoinRequest {
        listen_addr: body.listen_addr,
        advertise_addr: body.advertise_addr,
        data_path_addr: body.data_path_addr,
        remote_addrs: body.remote_addrs.iter().map(|addr| with_port(addr)).collect(),
        join_token: body.join_token,
        availability: availability(&body.availability)?,
    };
    state.swarm.join(request).await?;
    Ok(answer::empty())
}

pub(crate) async fn leave(State(state): State<Shared>, params: Params) -> ApiResult {
    let mode = if params.flag("force") { LeaveMode::Force } else { LeaveMode::Safe };
    state.swarm.leave(mode).await?;
    Ok(answer::empty())
}

pub(crate) async fn inspect(State(state): State<Shared>) -> ApiResult {
    let cluster = state.swarm.cluster().await?;
    Ok(answer::ok(&shown(&cluster, ShowTokens::Yes)))
}

pub(crate) async fn update(State(state): State<Shared>, params: Params, Json(mut spec): Json<json::Spec>) -> ApiResult {
    let version = params.object_version("swarm")?;
    let rotation = KeyRotation {
        worker_join_token: params.strict_flag("rotateWorkerToken")?,
        manager_join_token: params.strict_flag("rotateManagerToken")?,
        manager_unlock_key: params.strict_flag("rotateManagerUnlockKey")?,
    };
    name_spec(&mut spec)?;
    let spec = spec.merge_into(ClusterSpec::default())?;
    state.swarm.update_cluster(version, spec, rotation).await?;
    Ok(answer::empty())
}

pub(crate) async fn unlock_key(State(state): State<Shared>) -> ApiResult {
    let unlock_key = state.swarm.unlock_key().await?;
    Ok(answer::ok(&UnlockKey { unlock_key }))
}

pub(crate) async fn unlock(State(state): State<Shared>, Json(body): Json<UnlockKey>) -> Result<Response, ApiError> {
    state.swarm.unlock(&body.unlock_key).await?;
    Ok(answer::empty())
}

fn name_spec(spec: &mut json::Spec) -> Result<(), ApiError> {
    match spec.name.as_str() {
        "" => SWARM_NAME.clone_into(&mut spec.name),
        SWARM_NAME => {}
        _ => return Err(ApiError::bad_request("swarm spec must be named \"default\"")),
    }
    Ok(())
}

fn check_listen_addr(addr: &str) -> Result<(), ApiError> {
    if addr.is_empty() {
        return Err(ApiError::bad_request("invalid ListenAddr \"\": invalid empty address"));
    }
    Ok(())
}

/// A manager's address as dockerd completes it; what it cannot read, it leaves to the connection.
fn with_port(addr: &str) -> String {
    let addr = addr.strip_prefix("tcp://").unwrap_or(addr);
    match addr.matches(':').count() {
        0 => format!("{addr}:{MANAGER_PORT}"),
        1 if addr.ends_with(':') => format!("{addr}{MANAGER_PORT}"),
        2.. if addr.starts_with('[') && addr.ends_with(']') => format!("{addr}:{MANAGER_PORT}"),
        _ => addr.to_owned(),
    }
}

fn check_pools(pools: &[String], subnet_size: u32) -> Result<(), ApiError> {
    if subnet_size > SUBNET_SIZE_MAX {
        return Err(ApiError::bad_request(format!("subnet size is out of range: {subnet_size}")));
    }
    for pool in pools {
        let parsed = pool
            .split_once('/')
            .and_then(|(base, bits)| Some((base.parse::<std::net::IpAddr>().ok()?, bits.parse::<u32>().ok()?)));
        let Some((base, bits)) = parsed.filter(|(base, bits)| *bits <= if base.is_ipv4() { 32 } else { 128 }) else {
            return Err(ApiError::bad_request(format!("invalid base pool {pool}: invalid CIDR address: {pool}")));
        };
        let size = if subnet_size == 0 { json::DEFAULT_SUBNET_SIZE } else { subnet_size };
        if base.is_ipv4() && bits > size {
            return Err(ApiError::bad_request(format!(
                "invalid CIDR: {pool:?}. Subnet size is too small for pool: {size}"
            )));
        }
    }
    Ok(())
}

fn availability(word: &str) -> Result<NodeAvailability, ApiError> {
    if word.is_empty() {
        return Ok(NodeAvailability::Active);
    }
    Ok(NodeAvailability::from_word(word).ok_or_else(|| SpecError::NodeAvailability(word.to_owned()))?)
}

/// How the cluster is shown.
fn shown(cluster: &Cluster, tokens: ShowTokens) -> json::Swarm {
    json::Swarm::from_model(cluster, issuer(&cluster.root_ca.ca_cert), tokens)
}

/// The issuer that all certificates of the cluster have: what its root's certificate says of itself.
fn issuer(ca_cert: &[u8]) -> TlsInfo {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(ca_cert) else { return TlsInfo::default() };
    let Ok(certificate) = pem.parse_x509() else { return TlsInfo::default() };
    TlsInfo {
        trust_root: String::new(),
        cert_issuer_subject: Base64(certificate.tbs_certificate.subject.as_raw().to_vec()),
        cert_issuer_public_key: Base64(certificate.tbs_certificate.subject_pki.raw.to_vec()),
    }
}

/// `Swarm` of `GET /info`.
pub(crate) fn info(info: &SwarmInfo) -> system::SwarmInfo {
    let warnings = if info.managers == 2 { vec![TWO_MANAGERS.to_owned()] } else { Vec::new() };
    let peers: Vec<_> = info
        .remote_managers
        .iter()
        .map(|peer| system::Peer { node_id: peer.node_id.to_string(), addr: peer.addr.clone() })
        .collect();
    system::SwarmInfo {
        node_id: info.node_id.clone(),
        node_addr: info.node_addr.clone(),
        local_node_state: state_word(info.local_node_state).to_owned(),
        control_available: info.control_available,
        error: info.error.clone(),
        remote_managers: (!peers.is_empty()).then_some(peers),
        nodes: info.nodes,
        managers: info.managers,
        cluster: info.cluster.as_ref().map(|cluster| shown(cluster, ShowTokens::No)),
        warnings,
    }
}

fn state_word(state: LocalNodeState) -> &'static str {
    match state {
        LocalNodeState::Inactive => "inactive",
        LocalNodeState::Pending => "pending",
        LocalNodeState::Active => "active",
        LocalNodeState::Error => "error",
        LocalNodeState::Locked => "locked",
    }
}

/// The header `Swarm` of `/_ping`.
pub(crate) fn ping_header(info: &SwarmInfo) -> &'static str {
    match (info.local_node_state, info.control_available) {
        (LocalNodeState::Active, true) => "active/manager",
        (LocalNodeState::Active, false) => "active/worker",
        (state, _) => state_word(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_managers_address_needs_no_port() {
        let check = |addr: &str, expected: &str| assert_eq!(with_port(addr), expected, "{addr}");
        check("10.0.0.1", "10.0.0.1:2377");
        check("web1.example", "web1.example:2377");
        check("tcp://10.0.0.1", "10.0.0.1:2377");
        check("10.0.0.1:", "10.0.0.1:2377");
        check("10.0.0.1:4000", "10.0.0.1:4000");
        check("[fd00::1]", "[fd00::1]:2377");
        check("[fd00::1]:4000", "[fd00::1]:4000");
        check("fd00::1", "fd00::1");
    }
}
