//! Bodies about containers recorded from docker CLI 28.2.2 come back as they were, key for key.

use docker_types::container::{CreateRequest, Inspect, PortBinding, Summary, UpdateRequest};
use docker_types::event::EventMessage;
use docker_types::exec::{ExecCreateRequest, ExecStartRequest};
use docker_types::json::from_slice;
use docker_types::volume::{Volume, VolumeCreateRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("recorded/", $name, ".json"))
    };
}

fn check<T: Serialize + DeserializeOwned>(body: &[u8]) -> T {
    let sent: Value = serde_json::from_slice(body).unwrap();
    let read: T = from_slice(body).unwrap();
    let shown = serde_json::to_value(&read).unwrap();
    for (key, value) in sent.as_object().unwrap() {
        assert_eq!(shown.get(key), Some(value), "{key}");
    }
    read
}

#[test]
fn no_key_of_a_container_is_lost() {
    check::<CreateRequest>(recorded!("containers_create"));
    let request = check::<CreateRequest>(recorded!("container_create_all_flags"));
    let host = request.host_config.as_ref().unwrap();
    let binding = PortBinding { host_ip: "127.0.0.1".into(), host_port: "0".into() };
    assert_eq!(host.port_bindings.as_ref().unwrap()["53/udp"], Some(vec![binding]));
    let config = serde_json::to_value(request.config()).unwrap();
    let whole = serde_json::to_value(&request).unwrap();
    let rest = ["HostConfig", "NetworkingConfig"];
    for (key, value) in whole.as_object().unwrap().iter().filter(|(key, _)| !rest.contains(&key.as_str())) {
        assert_eq!(config.get(key), Some(value), "{key}");
    }
}

#[test]
fn no_key_of_other_requests_is_lost() {
    assert_eq!(check::<UpdateRequest>(recorded!("container_update")).restart_policy.name, "always");
    check::<VolumeCreateRequest>(recorded!("volume_create"));
    // `ConsoleSize` may be left out, and `[0,0]` is what the CLI sends for "as it comes".
    assert_eq!(check::<ExecCreateRequest>(recorded!("exec_create")).console_size, Some([0, 0]));
    assert!(check::<ExecStartRequest>(recorded!("exec_start")).detach);
    check::<ExecCreateRequest>(recorded!("container_exec"));
}

#[test]
fn a_command_may_be_one_word_and_null_is_nothing() {
    let request: CreateRequest =
        from_slice(br#"{"image":"x","CMD":"ls","entrypoint":null,"HostConfig":{"capadd":["A"],"Binds":null}}"#)
            .unwrap();
    assert_eq!((request.cmd, request.entrypoint), (Some(vec!["ls".to_owned()]), None));
    assert_eq!(request.host_config.unwrap().cap_add, Some(vec!["A".to_owned()]));
    assert!(from_slice::<CreateRequest>(br#"{"Cmd":7}"#).is_err());
}

#[test]
fn what_is_shown_has_gos_nulls_and_omissions() {
    let shown = serde_json::to_value(Inspect::default()).unwrap();
    assert_eq!(shown["ExecIDs"], Value::Null);
    assert_eq!(shown["HostConfig"]["Binds"], Value::Null);
    assert_eq!(shown["HostConfig"]["ConsoleSize"], serde_json::json!([0, 0]));
    assert_eq!(shown["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(shown["NetworkSettings"]["SecondaryIPAddresses"], Value::Null);
    for left_out in ["SizeRw", "SizeRootFs", "ImageManifestDescriptor"] {
        assert!(shown.get(left_out).is_none(), "{left_out}");
    }
    assert!(shown["Config"].get("ExposedPorts").is_none() && shown["State"].get("Health").is_none());
    let shown = serde_json::to_value(Summary::default()).unwrap();
    assert_eq!((&shown["HostConfig"], &shown["Mounts"]), (&serde_json::json!({}), &serde_json::json!([])));
    let shown = serde_json::to_value(Volume::default()).unwrap();
    assert_eq!((&shown["Labels"], shown.get("CreatedAt")), (&Value::Null, None));
    let event = EventMessage { kind: "volume".into(), action: "create".into(), ..EventMessage::default() };
    let expected = r#"{"Type":"volume","Action":"create","Actor":{"ID":"","Attributes":{}}}"#;
    assert_eq!(serde_json::to_string(&event).unwrap(), expected);
}
