//! Bodies recorded from docker CLI 28.2.2 go into the model and come back without losing a key.

use docker_types::json::from_slice;
use docker_types::network::{Network, NetworkCreateRequest};
use docker_types::node::{Node, NodeSpec};
use docker_types::secret::{Config, ConfigSpec, Secret, SecretSpec};
use docker_types::service::{Service, ServiceSpec};
use docker_types::swarm::{InitRequest, JoinRequest, Spec};
use docker_types::version::ApiVersion;
use serde_json::Value;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("recorded/", $name, ".json"))
    };
}

/// Whether Go would have left it out, or means nothing by it.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.values().all(is_zero),
        Value::Bool(true) => false,
    }
}

/// Every value of `sent` that means something is in `shown`.
fn assert_kept(sent: &Value, shown: &Value, path: &str) {
    match (sent, shown) {
        (Value::Object(sent), Value::Object(shown)) => {
            for (key, value) in sent.iter().filter(|(_, value)| !is_zero(value)) {
                let path = format!("{path}.{key}");
                assert_kept(value, shown.get(key).unwrap_or_else(|| panic!("{path} is lost")), &path);
            }
        }
        (Value::Array(sent), Value::Array(shown)) => {
            assert_eq!(sent.len(), shown.len(), "{path}");
            for (at, (sent, shown)) in sent.iter().zip(shown).enumerate() {
                assert_kept(sent, shown, &format!("{path}[{at}]"));
            }
        }
        (Value::Number(sent), Value::Number(shown)) => {
            assert_eq!(sent.as_f64().map(|n| n as f32), shown.as_f64().map(|n| n as f32), "{path}");
        }
        _ => assert_eq!(sent, shown, "{path}"),
    }
}

fn check_service(body: &[u8]) -> Value {
    let sent: Value = serde_json::from_slice(body).unwrap();
    let spec: ServiceSpec = from_slice(body).unwrap();
    assert_kept(&sent, &serde_json::to_value(&spec).unwrap(), "json");
    let model = spec.to_model().unwrap();
    let shown_spec = ServiceSpec::from_model(&model);
    let shown = serde_json::to_value(&shown_spec).unwrap();
    assert_kept(&sent, &shown, "");
    assert_eq!(shown_spec.to_model().unwrap(), model, "what is shown can be sent back unchanged");
    shown
}

#[test]
fn no_key_of_a_service_is_lost() {
    check_service(recorded!("service_create_all_flags"));
    check_service(recorded!("service_create_published"));
    check_service(recorded!("service_create_global"));
    check_service(recorded!("service_create_global_job"));
    check_service(recorded!("service_create_replicated_job"));
}

#[test]
fn services_show_dockerds_defaults() {
    let shown = check_service(recorded!("service_create_published"));
    assert_eq!(shown["Mode"]["Replicated"]["Replicas"], 1);
    assert_eq!(shown["TaskTemplate"]["Runtime"], "container");
    assert_eq!(shown["TaskTemplate"]["ContainerSpec"]["Isolation"], "default");
    assert_eq!(shown["TaskTemplate"]["ContainerSpec"]["DNSConfig"], serde_json::json!({}));
    assert_eq!(shown["TaskTemplate"]["Placement"], serde_json::json!({}));
    assert_eq!(shown["Labels"], serde_json::json!({}));
    let object = shown.as_object().unwrap();
    assert!(!object.contains_key("UpdateConfig") && !object.contains_key("Networks"));
    let shown = check_service(recorded!("service_create_replicated_job"));
    assert_eq!(shown["Mode"]["ReplicatedJob"]["MaxConcurrent"], 3);
}

#[test]
fn keys_are_read_in_any_case() {
    let lower: String = String::from_utf8(recorded!("service_create_all_flags").to_vec())
        .unwrap()
        .replace("\"Healthcheck\"", "\"HealthCheck\"")
        .replace("\"TaskTemplate\"", "\"tasktemplate\"")
        .replace("\"NanoCPUs\"", "\"NanoCpus\"");
    let given: ServiceSpec = from_slice(lower.as_bytes()).unwrap();
    let recorded: ServiceSpec = from_slice(recorded!("service_create_all_flags")).unwrap();
    assert_eq!(given, recorded);
}

#[test]
fn old_clients_cannot_have_meant_new_fields() {
    let adjusted = |minor| {
        let mut spec: ServiceSpec = from_slice(recorded!("service_create_all_flags")).unwrap();
        spec.adjust_for(ApiVersion::new(1, minor));
        spec
    };
    let container = |minor| adjusted(minor).task_template.container_spec.unwrap();
    assert_eq!(
        container(51),
        from_slice::<ServiceSpec>(recorded!("service_create_all_flags")).unwrap().task_template.container_spec.unwrap()
    );
    assert_eq!((container(46).oom_score_adj, container(45).oom_score_adj), (300, 0));
    assert_eq!((container(41).ulimits.len(), container(40).ulimits.len()), (1, 0));
    assert_eq!((container(40).sysctls.len(), container(39).sysctls.len()), (1, 0));
    let max_replicas = |minor| adjusted(minor).task_template.placement.unwrap().max_replicas;
    assert_eq!((max_replicas(40), max_replicas(39)), (2, 0));
}

#[test]
fn bad_specs_have_dockerds_texts() {
    let check = |body: &str, text: &str| {
        let error = from_slice::<ServiceSpec>(body.as_bytes()).unwrap().to_model().unwrap_err();
        assert_eq!(error.to_string(), text, "{body}");
    };
    check(r#"{"Name":"x"}"#, "mismatched Runtime and *Spec fields");
    check(
        r#"{"TaskTemplate":{"ContainerSpec":{}},"Mode":{"Global":{},"Replicated":{}}}"#,
        "must specify only one service mode",
    );
    check(
        r#"{"TaskTemplate":{"ContainerSpec":{},"RestartPolicy":{"Condition":"x"}}}"#,
        r#"invalid RestartCondition: "x""#,
    );
    check(r#"{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"Type":"x"}]}}}"#, r#"invalid MountType: "x""#);
    check(r#"{"TaskTemplate":{"ContainerSpec":{}},"EndpointSpec":{"Mode":"x"}}"#, r#"invalid resolution mode: "x""#);
    check(r#"{"TaskTemplate":{"ContainerSpec":{}},"UpdateConfig":{"Order":"x"}}"#, "unrecognized update order x");
}

#[test]
fn a_services_shown_form_has_structs_and_no_empty_fields() {
    let shown = serde_json::to_value(Service::from_model(&model::Service::default())).unwrap();
    let keys: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["CreatedAt", "Endpoint", "ID", "Spec", "UpdatedAt", "Version"]);
    assert_eq!(shown["CreatedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(shown["Endpoint"], serde_json::json!({"Spec": {}}));
}

#[test]
fn a_tasks_shown_form_is_dockers() {
    let task = model::Task {
        id: "t".into(),
        status: model::TaskStatus {
            state: model::TaskState::Running,
            container: Some(model::ContainerStatus { container_id: "c".into(), pid: 7, exit_code: 0 }),
            ..model::TaskStatus::default()
        },
        desired_state: model::TaskState::Running,
        ..model::Task::default()
    };
    let shown = serde_json::to_value(docker_types::task::Task::from_model(&task)).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({
            "ID": "t", "Version": {}, "CreatedAt": "0001-01-01T00:00:00Z", "UpdatedAt": "0001-01-01T00:00:00Z",
            "Labels": {}, "Spec": {"ForceUpdate": 0},
            "Status": {
                "Timestamp": "0001-01-01T00:00:00Z", "State": "running",
                "ContainerStatus": {"ContainerID": "c", "PID": 7, "ExitCode": 0}, "PortStatus": {},
            },
            "DesiredState": "running", "Volumes": null,
        })
    );
}

#[test]
fn swarm_specs_are_merged_at_init_and_replaced_at_update() {
    let init: InitRequest = from_slice(recorded!("swarm_init")).unwrap();
    assert_eq!(init.data_path_port, 5789);
    assert_eq!(init.default_addr_pool, ["10.10.0.0/16"]);
    let mut base = model::ClusterSpec::default();
    base.raft.election_tick = 10;
    base.annotations.name = "default".into();
    let merged = init.spec.merge_into(base).unwrap();
    assert_eq!(merged.raft.election_tick, 10, "what is not set stays");
    assert_eq!(merged.raft.snapshot_interval, 5000);
    assert_eq!(merged.ca_config.external_cas.len(), 1);
    let shown = serde_json::to_value(Spec::from_model(&merged)).unwrap();
    let sent: Value = serde_json::from_slice(recorded!("swarm_init")).unwrap();
    assert_kept(&sent["Spec"], &shown, "");

    let update: Spec = from_slice(recorded!("swarm_update")).unwrap();
    let replaced = update.merge_into(model::ClusterSpec::default()).unwrap();
    let sent: Value = serde_json::from_slice(recorded!("swarm_update")).unwrap();
    assert_kept(&sent, &serde_json::to_value(Spec::from_model(&replaced)).unwrap(), "");
    let join: JoinRequest = from_slice(recorded!("swarm_join")).unwrap();
    assert_eq!(join.remote_addrs, ["127.0.0.1:2377"]);
}

#[test]
fn nodes_secrets_configs_and_networks_keep_their_keys() {
    let spec: NodeSpec = from_slice(recorded!("node_update")).unwrap();
    let node = model::Node { spec: spec.to_model().unwrap(), ..model::Node::default() };
    assert_eq!(Node::from_model(&node).spec, spec);
    let error = |body: &[u8]| from_slice::<NodeSpec>(body).unwrap().to_model().unwrap_err().to_string();
    assert_eq!(error(br#"{"Availability":"active"}"#), r#"invalid Role: """#);
    assert_eq!(error(br#"{"Role":"worker"}"#), r#"invalid Availability: """#);

    let spec: SecretSpec = from_slice(recorded!("secrets_create")).unwrap();
    let secret = model::Secret { spec: spec.to_model(), ..model::Secret::default() };
    assert_eq!(secret.spec.data, b"hi\n");
    assert!(Secret::from_model(&secret).spec.data.0.is_empty(), "a secret is never shown");

    let spec: ConfigSpec = from_slice(recorded!("configs_create")).unwrap();
    let config = model::Config { spec: spec.to_model(), ..model::Config::default() };
    assert_eq!(Config::from_model(&config).spec, spec);

    let body = recorded!("network_create_overlay");
    let request: NetworkCreateRequest = from_slice(body).unwrap();
    let network = model::Network { spec: request.to_model(), ..model::Network::default() };
    let mut sent: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(sent["EnableIPv6"].take(), Value::Bool(false));
    assert_kept(&sent, &serde_json::to_value(Network::from_model(&network)).unwrap(), "");
}
