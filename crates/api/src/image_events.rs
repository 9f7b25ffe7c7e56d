//! Events of images, which this crate's handlers cause: the image store tells none.

use std::collections::BTreeMap;

use docker_types::event::{Actor, EventMessage};
use image::{ImageChange, ImageRecord};
use oci_types::Reference;

use crate::engine_backend::EngineBackend;

/// Tells of an image: by identifier, or for a pull by the name that was pulled.
pub(crate) fn tell(engine: &dyn EngineBackend, action: &str, id: &str, name: &str, labels: &BTreeMap<String, String>) {
    let mut attributes = labels.clone();
    attributes.insert("name".to_owned(), name.to_owned());
    engine.publish(EventMessage {
        status: action.to_owned(),
        id: id.to_owned(),
        kind: "image".to_owned(),
        action: action.to_owned(),
        actor: Actor { id: id.to_owned(), attributes },
        ..EventMessage::default()
    });
}

/// A pull that succeeded; the labels are those of the image that the reference stands for.
pub(crate) fn pulled(engine: &dyn EngineBackend, reference: &Reference, labels: &BTreeMap<String, String>) {
    tell(engine, "pull", &reference.familiar(), &reference.familiar_name(), labels);
}

/// What a removal did; `before` are the images as they were.
pub(crate) fn removed(engine: &dyn EngineBackend, changes: &[ImageChange], before: &[ImageRecord]) {
    let none = BTreeMap::new();
    for change in changes {
        let (action, image) = match change {
            ImageChange::Untagged(name) => {
                let named =
                    |image: &&ImageRecord| image.repo_tags.iter().chain(&image.repo_digests).any(|tag| tag == name);
                ("untag", before.iter().find(named))
            }
            ImageChange::Deleted(id) => ("delete", before.iter().find(|image| image.id == *id)),
        };
        // What is no image is one of its layers.
        if let Some(image) = image {
            let labels = if action == "untag" { &image.config.labels } else { &none };
            tell(engine, action, image.id.as_str(), image.id.as_str(), labels);
        }
    }
}

/// A prune of these things is over.
pub(crate) fn pruned(engine: &dyn EngineBackend, kind: &str, bytes: u64) {
    let attributes = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
    engine.publish(EventMessage {
        kind: kind.to_owned(),
        action: "prune".to_owned(),
        actor: Actor { id: String::new(), attributes },
        ..EventMessage::default()
    });
}
