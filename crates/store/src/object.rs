//! The kinds of objects, and what can be done to them: actions (asked for) and events (done).

use model::{
    Cluster, ClusterId, Config, ConfigId, Extension, ExtensionId, Meta, Network, NetworkId, Node, NodeId,
    ObjectVersion, Resource, ResourceId, Secret, SecretId, Service, ServiceId, Task, TaskId, Timestamp, Volume,
    VolumeId,
};
use std::borrow::Borrow;
use std::sync::Arc;

use crate::table::Table;
use crate::view::View;

/// What the store keeps of a kind of object. Implemented for the ten kinds only.
pub trait StoreObject: Clone + PartialEq + Sized + 'static {
    /// Its identifier.
    type Id: Clone + Ord + Borrow<str> + Into<ObjectId>;
    /// Which kind it is.
    const KIND: Kind;
    /// Its identifier.
    fn id(&self) -> &Self::Id;
    /// Its version and times.
    fn meta(&self) -> &Meta;
    /// Its version and times, to be stamped.
    fn meta_mut(&mut self) -> &mut Meta;
    /// The name that must be unique in its kind; empty: none.
    fn unique_name(&self) -> &str;
    /// As any object.
    fn into_object(this: Arc<Self>) -> Object;
    /// Any object as one of this kind.
    fn from_object(object: &Object) -> Option<&Arc<Self>>;
    #[doc(hidden)]
    fn table(view: &View) -> &Table<Self>;
}

macro_rules! kinds {
    ($(($kind:ident, $id:ident, $field:ident, $name:expr)),* $(,)?) => {
        /// The kinds of objects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", stringify!($kind), "`.")] $kind,)*
        }

        /// The identifier of any object.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ObjectId {
            $(#[doc = concat!("Of a `", stringify!($kind), "`.")] $kind($id),)*
        }

        impl ObjectId {
            /// Which kind of object it names.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                match self { $(Self::$kind(id) => id.as_str(),)* }
            }
        }

        /// Any object, shared.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $(#[doc = concat!("A `", stringify!($kind), "`.")] $kind(Arc<$kind>),)*
        }

        impl Object {
            /// Which kind of object it is.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            /// Its identifier.
            pub fn id(&self) -> ObjectId {
                match self { $(Self::$kind(object) => ObjectId::$kind(object.id.clone()),)* }
            }

            /// The name that must be unique in its kind; empty: none.
            pub fn unique_name(&self) -> &str {
                match self { $(Self::$kind(object) => object.unique_name(),)* }
            }

            /// Its version and times.
            pub fn meta(&self) -> &Meta {
                match self { $(Self::$kind(object) => &object.meta,)* }
            }

            /// Its version and times, to be changed; copies the object if it is shared.
            pub fn meta_mut(&mut self) -> &mut Meta {
                match self { $(Self::$kind(object) => &mut Arc::make_mut(object).meta,)* }
            }
        }

        $(
            impl From<$id> for ObjectId {
                fn from(id: $id) -> Self {
                    Self::$kind(id)
                }
            }

            impl From<Arc<$kind>> for Object {
                fn from(object: Arc<$kind>) -> Self {
                    Self::$kind(object)
                }
            }

            impl From<$kind> for Object {
                fn from(object: $kind) -> Self {
                    Self::$kind(Arc::new(object))
                }
            }

            impl StoreObject for $kind {
                type Id = $id;
                const KIND: Kind = Kind::$kind;

                fn id(&self) -> &$id {
                    &self.id
                }

                fn meta(&self) -> &Meta {
                    &self.meta
                }

                fn meta_mut(&mut self) -> &mut Meta {
                    &mut self.meta
                }

                fn unique_name(&self) -> &str {
                    let name: fn(&$kind) -> &str = $name;
                    name(self)
                }

                fn into_object(this: Arc<Self>) -> Object {
                    Object::$kind(this)
                }

                fn from_object(object: &Object) -> Option<&Arc<Self>> {
                    match object {
                        Object::$kind(object) => Some(object),
                        _ => None,
                    }
                }

                fn table(view: &View) -> &Table<Self> {
                    &view.$field
                }
            }
        )*
    };
}

kinds! {
    (Node, NodeId, nodes, |_| ""),
    (Service, ServiceId, services, |it| &it.spec.annotations.name),
    (Task, TaskId, tasks, |_| ""),
    (Network, NetworkId, networks, |it| &it.spec.annotations.name),
    (Cluster, ClusterId, clusters, |it| &it.spec.annotations.name),
    (Secret, SecretId, secrets, |it| &it.spec.annotations.name),
    (Config, ConfigId, configs, |it| &it.spec.annotations.name),
    (Resource, ResourceId, resources, |_| ""),
    (Extension, ExtensionId, extensions, |it| &it.annotations.name),
    (Volume, VolumeId, volumes, |it| &it.spec.annotations.name),
}

/// What an [`Action`] does; the numbers are SwarmKit's `StoreActionKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ActionKind {
    /// `STORE_ACTION_CREATE`.
    Create = 1,
    /// `STORE_ACTION_UPDATE`.
    Update = 2,
    /// `STORE_ACTION_REMOVE`.
    Remove = 3,
}

/// One write that goes through the raft log: SwarmKit's `StoreAction`.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The object must not be there.
    Create(Object),
    /// The object must be there.
    Update(Object),
    /// The object must be there; what is in it does not matter.
    Remove(Object),
}

impl Action {
    /// What it does.
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Create(_) => ActionKind::Create,
            Self::Update(_) => ActionKind::Update,
            Self::Remove(_) => ActionKind::Remove,
        }
    }

    /// The object in it.
    pub fn object(&self) -> &Object {
        match self {
            Self::Create(object) | Self::Update(object) | Self::Remove(object) => object,
        }
    }

    /// The object in it, to be changed.
    pub fn object_mut(&mut self) -> &mut Object {
        match self {
            Self::Create(object) | Self::Update(object) | Self::Remove(object) => object,
        }
    }

    /// Whom it is done to.
    pub fn id(&self) -> ObjectId {
        self.object().id()
    }
}

/// One change that was made.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new object.
    Create(Object),
    /// A changed object.
    Update {
        /// Before.
        old: Object,
        /// After.
        new: Object,
    },
    /// An object that is gone: its last state.
    Remove(Object),
}

impl Event {
    /// The object after the change, or its last state if it is gone.
    pub fn object(&self) -> &Object {
        match self {
            Self::Create(object) | Self::Update { new: object, .. } | Self::Remove(object) => object,
        }
    }

    /// The object before the change.
    pub fn before(&self) -> Option<&Object> {
        match self {
            Self::Create(_) => None,
            Self::Update { old, .. } => Some(old),
            Self::Remove(object) => Some(object),
        }
    }

    /// The object after the change.
    pub fn after(&self) -> Option<&Object> {
        match self {
            Self::Create(object) | Self::Update { new: object, .. } => Some(object),
            Self::Remove(_) => None,
        }
    }

    /// Who was changed.
    pub fn id(&self) -> ObjectId {
        self.object().id()
    }
}

/// Fills version and times as SwarmKit does when a write is proposed: `version` is the last raft index that the leader
/// knows; created objects get both times, updated ones `updated_at`, removed ones stay as they are.
pub fn stamp(actions: &mut [Action], version: ObjectVersion, now: Timestamp) {
    for action in actions {
        let created = match action.kind() {
            ActionKind::Create => true,
            ActionKind::Update => false,
            ActionKind::Remove => continue,
        };
        let meta = action.object_mut().meta_mut();
        meta.version = version;
        meta.updated_at = Some(now);
        if created {
            meta.created_at = Some(now);
        }
    }
}
