//! Store actions and snapshots as SwarmKit's messages: what goes into the raft log and comes out of it.

use std::sync::Arc;

use store::{Action, ActionKind, Object, StoreSnapshot};
use swarm_proto::convert::{ConvertError, FromProto, ToProto};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::store_action::Target;

/// Why an entry of the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A number that SwarmKit does not define.
    #[error("a store action holds an undefined value")]
    Convert(#[from] ConvertError),
    /// An action without an object or with an unknown kind.
    #[error("a store action of kind {0} without a known object")]
    Shape(i32),
}

/// Actions as they are proposed.
pub fn encode_actions(actions: &[Action]) -> Vec<p::StoreAction> {
    actions.iter().map(encode_action).collect()
}

fn encode_action(action: &Action) -> p::StoreAction {
    let target = match action.object() {
        Object::Node(it) => Target::Node(it.to_proto()),
        Object::Service(it) => Target::Service(it.to_proto()),
        Object::Task(it) => Target::Task(it.to_proto()),
        Object::Network(it) => Target::Network(it.to_proto()),
        Object::Cluster(it) => Target::Cluster(it.to_proto()),
        Object::Secret(it) => Target::Secret(it.to_proto()),
        Object::Config(it) => Target::Config(it.to_proto()),
        Object::Resource(it) => Target::Resource(it.to_proto()),
        Object::Extension(it) => Target::Extension(it.to_proto()),
        Object::Volume(it) => Target::Volume(it.to_proto()),
    };
    p::StoreAction { action: action.kind() as i32, target: Some(target) }
}

/// Actions as they come out of the log.
pub fn decode_actions(list: Vec<p::StoreAction>) -> Result<Vec<Action>, DecodeError> {
    list.into_iter().map(decode_action).collect()
}

fn decode_action(action: p::StoreAction) -> Result<Action, DecodeError> {
    let kind = action.action;
    let object = decode_object(action.target.ok_or(DecodeError::Shape(kind))?)?;
    match kind {
        kind if kind == ActionKind::Create as i32 => Ok(Action::Create(object)),
        kind if kind == ActionKind::Update as i32 => Ok(Action::Update(object)),
        kind if kind == ActionKind::Remove as i32 => Ok(Action::Remove(object)),
        kind => Err(DecodeError::Shape(kind)),
    }
}

fn decode_object(target: Target) -> Result<Object, ConvertError> {
    Ok(match target {
        Target::Node(it) => Object::Node(Arc::new(FromProto::from_proto(it)?)),
        Target::Service(it) => Object::Service(Arc::new(FromProto::from_proto(it)?)),
        Target::Task(it) => Object::Task(Arc::new(FromProto::from_proto(it)?)),
        Target::Network(it) => Object::Network(Arc::new(FromProto::from_proto(it)?)),
        Target::Cluster(it) => Object::Cluster(Arc::new(FromProto::from_proto(it)?)),
        Target::Secret(it) => Object::Secret(Arc::new(FromProto::from_proto(it)?)),
        Target::Config(it) => Object::Config(Arc::new(FromProto::from_proto(it)?)),
        Target::Resource(it) => Object::Resource(Arc::new(FromProto::from_proto(it)?)),
        Target::Extension(it) => Object::Extension(Arc::new(FromProto::from_proto(it)?)),
        Target::Volume(it) => Object::Volume(Arc::new(FromProto::from_proto(it)?)),
    })
}

/// A store as it stands in a raft snapshot.
pub fn encode_snapshot(snapshot: &StoreSnapshot) -> p::StoreSnapshot {
    fn list<T: ToProto>(objects: &[Arc<T>]) -> Vec<T::Proto> {
        objects.iter().map(|object| object.to_proto()).collect()
    }
    p::StoreSnapshot {
        nodes: list(&snapshot.nodes),
        services: list(&snapshot.services),
        networks: list(&snapshot.networks),
        tasks: list(&snapshot.tasks),
        clusters: list(&snapshot.clusters),
        secrets: list(&snapshot.secrets),
        resources: list(&snapshot.resources),
        extensions: list(&snapshot.extensions),
        configs: list(&snapshot.configs),
        volumes: list(&snapshot.volumes),
    }
}

/// A store out of a raft snapshot.
pub fn decode_snapshot(snapshot: p::StoreSnapshot) -> Result<StoreSnapshot, ConvertError> {
    fn list<T: FromProto>(objects: Vec<T::Proto>) -> Result<Vec<Arc<T>>, ConvertError> {
        objects.into_iter().map(|object| T::from_proto(object).map(Arc::new)).collect()
    }
    Ok(StoreSnapshot {
        nodes: list(snapshot.nodes)?,
        services: list(snapshot.services)?,
        networks: list(snapshot.networks)?,
        tasks: list(snapshot.tasks)?,
        clusters: list(snapshot.clusters)?,
        secrets: list(snapshot.secrets)?,
        resources: list(snapshot.resources)?,
        extensions: list(snapshot.extensions)?,
        configs: list(snapshot.configs)?,
        volumes: list(snapshot.volumes)?,
    })
}
