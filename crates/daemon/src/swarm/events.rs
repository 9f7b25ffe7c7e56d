//! Changes of the swarm's objects as a stream that outlives managers: while this node is none, it waits.

use std::sync::Arc;

use api::swarm_backend::{STREAM_QUEUE_LIMIT, SwarmEvent, SwarmEventAction, SwarmObject};
use manager::{Manager, Next, Watch};
use store::{Event, Object};
use tokio::sync::{mpsc, watch};

/// Starts a stream; it ends when its receiver is dropped or the daemon stops.
pub(super) fn stream(managers: watch::Receiver<Option<Arc<Manager>>>) -> mpsc::Receiver<SwarmEvent> {
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE_LIMIT);
    tokio::spawn(async move {
        // Dropping either future loses nothing that anybody could still read.
        tokio::select! {
            () = sender.closed() => {}
            () = pump(managers, &sender) => {}
        }
    });
    receiver
}

async fn pump(mut managers: watch::Receiver<Option<Arc<Manager>>>, sender: &mpsc::Sender<SwarmEvent>) {
    loop {
        let watch = managers.borrow_and_update().as_ref().map(|manager| manager.shared().watch());
        let Some(watch) = watch else {
            if managers.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            // Only the current manager's commits are dropped with it.
            () = follow(watch, sender) => return,
            // Level-triggered.
            changed = managers.changed() => if changed.is_err() { return },
        }
    }
}

async fn follow(mut watch: Watch, sender: &mpsc::Sender<SwarmEvent>) {
    while let Some(next) = watch.next().await {
        let Next::Commit(commit) = next else { continue };
        for event in &commit.events {
            let Some(event) = convert(event) else { continue };
            // A client that does not keep up loses events rather than holding up the others.
            if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(event) {
                return;
            }
        }
    }
}

fn convert(event: &Event) -> Option<SwarmEvent> {
    let (action, object, old) = match event {
        Event::Create(object) => (SwarmEventAction::Create, convert_object(object)?, None),
        Event::Update { old, new } => (SwarmEventAction::Update, convert_object(new)?, convert_object(old)),
        Event::Remove(object) => (SwarmEventAction::Remove, convert_object(object)?, None),
    };
    Some(SwarmEvent { at: crate::clock::now(), action, object, old })
}

fn convert_object(object: &Object) -> Option<SwarmObject> {
    Some(match object {
        Object::Node(it) => SwarmObject::Node(Box::new(model::Node::clone(it))),
        Object::Service(it) => SwarmObject::Service(Box::new(model::Service::clone(it))),
        Object::Network(it) => SwarmObject::Network(Box::new(model::Network::clone(it))),
        Object::Secret(it) => {
            let mut secret = model::Secret::clone(it);
            secret.spec.data = Vec::new();
            SwarmObject::Secret(Box::new(secret))
        }
        Object::Config(it) => SwarmObject::Config(Box::new(model::Config::clone(it))),
        _ => return None,
    })
}
