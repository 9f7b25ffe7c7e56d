//! Places of plain containers on networks of the swarm: each is a task of its own, made by a manager when this node asks for
//! it, that stands for the container's address.
//!
//! ```text
//!  start, connect ─ask─► manager: task ─assignment─► controller ─offer─► Offered ─taken by who asked─► Held
//!                                                                          │ nobody asks (any more)     │ container left,
//!                                                                          └────────────► Left ◄────────┘ disconnected
//!  manager: task removed ◄─give back── controller (until it is told) ◄───────────────────┘
//! ```
//! After a restart of the daemon the controller finds its container connected, and the place is held; or it is not, and the
//! place is given back. So nothing of this is kept on disk but the task, which the agent keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::swarm_backend::{GrpcCode, SwarmError};
use engine::{ErrorKind, NetworkError};
use model::{NetworkAttachment, Task, TaskId, TaskRuntime};
use node::{AttachmentError, NodeState, SwarmNode};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a container waits for its place. dockerd's.
const ATTACH_LIMIT: Duration = Duration::from_secs(20);
/// How long the end of a container waits until the managers know that its place is free; they are told all the same.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// The places. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Attachments(Arc<Shared>);

struct Shared {
    /// The way to the managers; not there while the daemon starts.
    node: watch::Sender<Option<Arc<SwarmNode>>>,
    table: watch::Sender<Table>,
    /// This node leaves the swarm: nothing is asked for any more.
    is_leaving: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    /// How often each container is asked for now.
    asking: BTreeMap<String, usize>,
    places: BTreeMap<TaskId, Place>,
    /// Places that cannot be had on this machine, with their containers and why; gone with who asks.
    refused: BTreeMap<TaskId, (String, String)>,
}

#[derive(Clone, Debug)]
struct Place {
    container: String,
    task: Arc<Task>,
    state: PlaceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceState {
    /// The manager has given it.
    Offered,
    /// The container is there, or will be at once.
    Held,
    /// It is to be given back.
    Left,
    /// The managers could not be told so; it is tried again.
    Stuck,
}

impl Place {
    fn is_on(&self, network: &str) -> bool {
        network_of(&self.task).is_some_and(|attachment| is_of(attachment, network))
    }
}

/// The one network of an attachment.
pub(crate) fn network_of(task: &Task) -> Option<&NetworkAttachment> {
    task.networks.first()
}

fn is_of(attachment: &NetworkAttachment, network: &str) -> bool {
    attachment.network.as_ref().is_some_and(|it| it.id.as_str() == network)
}

/// The container that an attachment is for.
pub(crate) fn container_of(task: &Task) -> Option<&str> {
    match &task.spec.runtime {
        Some(TaskRuntime::Attachment(spec)) => Some(&spec.container_id),
        _ => None,
    }
}

impl Attachments {
    pub(crate) fn new() -> Self {
        let (node, table) = (watch::channel(None).0, watch::channel(Table::default()).0);
        Self(Arc::new(Shared { node, table, is_leaving: AtomicBool::new(false) }))
    }

    /// The node is there: who waits for it goes on.
    pub(crate) fn set_node(&self, node: Arc<SwarmNode>) {
        self.0.node.send_replace(Some(node));
    }

    /// Whether this node is about to leave the swarm.
    pub(crate) fn set_leaving(&self, is_leaving: bool) {
        self.0.is_leaving.store(is_leaving, Ordering::Relaxed);
    }

    /// A place for a container on a network, by what the user calls it; the task has the network and the addresses.
    pub(crate) async fn attach(
        &self,
        container: &str,
        network: &str,
        addresses: Vec<String>,
    ) -> Result<Arc<Task>, NetworkError> {
        let deadline = Instant::now() + ATTACH_LIMIT;
        let failed = |text: &dyn std::fmt::Display| {
            NetworkError::failed(format!("Could not attach to network {network}: {text}"))
        };
        let too_late = || failed(&"context deadline exceeded");
        let unknown = || NetworkError::new(ErrorKind::NotFound, format!("network {network} not found"));
        let mut nodes = self.0.node.subscribe();
        let node = timeout_at(deadline, nodes.wait_for(Option::is_some)).await.map_err(|_| too_late())?;
        let node = node.ok().and_then(|node| node.clone()).ok_or_else(unknown)?;
        if node.info().state == NodeState::Inactive || self.0.is_leaving.load(Ordering::Relaxed) {
            return Err(unknown());
        }
        let _asking = Asking::new(self, container);
        let asked = node.attach_network(container, network, addresses);
        let id = match timeout_at(deadline, asked).await {
            Ok(Ok(id)) => id,
            Ok(Err(AttachmentError::NotInSwarm)) => {
                return Err(NetworkError::failed("invalid cluster node while attaching to network"));
            }
            Ok(Err(AttachmentError::Refused(status))) => {
                let code = GrpcCode::from_number(status.code() as i32);
                return Err(failed(&SwarmError::grpc(code, status.message())));
            }
            Err(_) => return Err(too_late()),
        };
        let mut table = self.0.table.subscribe();
        // What the wait gives back locks the table.
        let is_decided = |table: &Table| table.places.contains_key(&id) || table.refused.contains_key(&id);
        let is_offered = timeout_at(deadline, table.wait_for(is_decided)).await.is_ok();
        if is_offered && let Some(task) = self.take(&id) {
            return Ok(task);
        }
        let refusal = self.take_refusal(&id);
        tokio::spawn(async move {
            if let Err(error) = node.detach_network(&id).await {
                tracing::warn!(attachment = %id, %error, "a place on a network that came too late is not given back");
            }
        });
        if let Some(reason) = refusal {
            return Err(failed(&reason));
        }
        Err(NetworkError::failed(
            "attaching to network failed, make sure your network options are correct and check manager logs: context \
             deadline exceeded",
        ))
    }

    fn take(&self, id: &TaskId) -> Option<Arc<Task>> {
        let mut taken = None;
        self.0.table.send_modify(|table| {
            if let Some(place) = table.places.get_mut(id).filter(|place| place.state == PlaceState::Offered) {
                place.state = PlaceState::Held;
                taken = Some(place.task.clone());
            }
        });
        taken
    }

    fn take_refusal(&self, id: &TaskId) -> Option<String> {
        let mut taken = None;
        self.0.table.send_modify(|table| taken = table.refused.remove(id));
        taken.map(|(_, reason)| reason)
    }

    /// The network of a place cannot be had on this machine. Kept for whoever asks for it now.
    pub(crate) fn refuse(&self, task: &Task, reason: &str) {
        let Some(container) = container_of(task) else { return };
        self.0.table.send_modify(|table| {
            if table.asking.contains_key(container) {
                table.refused.insert(task.id.clone(), (container.to_owned(), reason.to_owned()));
            }
        });
    }

    /// The manager has given a place.
    pub(crate) fn offer(&self, task: &Arc<Task>) {
        self.put(task, PlaceState::Offered);
    }

    /// A container was found in its place.
    pub(crate) fn hold(&self, task: &Arc<Task>) {
        self.put(task, PlaceState::Held);
    }

    fn put(&self, task: &Arc<Task>, state: PlaceState) {
        let Some(container) = container_of(task) else { return };
        let place = Place { container: container.to_owned(), task: task.clone(), state };
        self.0.table.send_modify(|table| {
            table.places.entry(task.id.clone()).or_insert(place);
        });
    }

    /// Whether a place is known, in whatever state.
    pub(crate) fn is_known(&self, id: &TaskId) -> bool {
        self.0.table.borrow().places.contains_key(id)
    }

    /// Waits until a place is to be given back: its container has left it, or nobody wants it who could have asked for it.
    pub(crate) async fn until_left(&self, id: &TaskId) {
        let mut table = self.0.table.subscribe();
        let is_left = |table: &Table| match table.places.get(id) {
            None => true,
            Some(Place { state: PlaceState::Held, .. }) => false,
            Some(Place { state: PlaceState::Offered, container, .. }) => !table.asking.contains_key(container),
            Some(Place { state: PlaceState::Left | PlaceState::Stuck, .. }) => true,
        };
        if table.wait_for(is_left).await.is_err() {
            tracing::debug!("the places on networks are gone");
        }
        self.set_state(|it, _| it == id, PlaceState::Left);
    }

    fn set_state(&self, is_it: impl Fn(&TaskId, &Place) -> bool, state: PlaceState) {
        self.0.table.send_modify(|table| {
            for (_, place) in table.places.iter_mut().filter(|(id, place)| is_it(id, place)) {
                place.state = state;
            }
        });
    }

    /// Tells the managers that a place is free.
    pub(crate) async fn give_back(&self, id: &TaskId) -> Result<(), String> {
        let node = self.0.node.borrow().clone();
        let told = match node {
            Some(node) => node.detach_network(id).await.map_err(|error| crate::errors::chain(&error)),
            None => Err("the daemon starts".to_owned()),
        };
        match told {
            Ok(()) => drop(self.forget(id)),
            Err(_) => self.set_state(|it, _| it == id, PlaceState::Stuck),
        }
        told
    }

    /// A place is gone. Whether a container was in it.
    pub(crate) fn forget(&self, id: &TaskId) -> bool {
        let mut was_held = false;
        self.0.table.send_modify(|table| {
            was_held = table.places.remove(id).is_some_and(|place| place.state == PlaceState::Held);
        });
        was_held
    }

    /// Whether a container has a place on a network.
    pub(crate) fn holds(&self, container: &str, network: &str) -> bool {
        let table = self.0.table.borrow();
        let mut places = table.places.values().filter(|place| place.state == PlaceState::Held);
        places.any(|place| place.container == container && place.is_on(network))
    }

    /// A container has left a network, or all. Waits a moment for the managers to know, so that what comes next finds the
    /// address free and the network unused.
    pub(crate) async fn leave(&self, container: &str, network: Option<&str>) {
        let is_it = |place: &Place| place.container == container && network.is_none_or(|network| place.is_on(network));
        self.set_state(|_, place| is_it(place) && place.state != PlaceState::Stuck, PlaceState::Left);
        let mut table = self.0.table.subscribe();
        let told = |table: &Table| !table.places.values().any(|place| is_it(place) && place.state == PlaceState::Left);
        if timeout(LEAVE_LIMIT, table.wait_for(told)).await.is_err() {
            tracing::info!(container, "the managers do not know in time that a container has left a network");
        }
    }
}

/// A container is asked for, as long as this lives.
struct Asking<'a> {
    attachments: &'a Attachments,
    container: &'a str,
}

impl<'a> Asking<'a> {
    fn new(attachments: &'a Attachments, container: &'a str) -> Self {
        let asking = |table: &mut Table| *table.asking.entry(container.to_owned()).or_default() += 1;
        attachments.0.table.send_modify(asking);
        Self { attachments, container }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.attachments.0.table.send_modify(|table| {
            if let Some(count) = table.asking.get_mut(self.container) {
                *count -= 1;
                if *count == 0 {
                    table.asking.remove(self.container);
                    table.refused.retain(|_, (container, _)| container != self.container);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use model::{Network, NetworkAttachmentSpec, TaskSpec};

    use super::*;

    fn task(id: &str, container: &str, network: &str) -> Arc<Task> {
        let runtime = TaskRuntime::Attachment(NetworkAttachmentSpec { container_id: container.to_owned() });
        let network = Arc::new(Network { id: network.into(), ..Network::default() });
        let attachment = NetworkAttachment { network: Some(network), ..NetworkAttachment::default() };
        let spec = Arc::new(TaskSpec { runtime: Some(runtime), ..TaskSpec::default() });
        Arc::new(Task { id: id.into(), spec, networks: vec![attachment], ..Task::default() })
    }

    fn is_left(attachments: &Attachments, id: &str) -> bool {
        use futures::FutureExt;
        attachments.until_left(&id.into()).now_or_never().is_some()
    }

    #[test]
    fn a_place_is_held_until_its_container_leaves() {
        let attachments = Attachments::new();
        let asking = Asking::new(&attachments, "c");
        attachments.offer(&task("t", "c", "n"));
        assert!(!is_left(&attachments, "t"), "somebody asks");
        assert_eq!(attachments.take(&"t".into()).unwrap().id, "t".into());
        assert!(attachments.take(&"t".into()).is_none(), "once");
        drop(asking);
        assert!(!is_left(&attachments, "t") && attachments.holds("c", "n") && !attachments.holds("c", "m"));
        attachments.set_state(|_, place| place.container == "c", PlaceState::Left);
        assert!(is_left(&attachments, "t") && !attachments.holds("c", "n"));
        assert!(!attachments.forget(&"t".into()) && is_left(&attachments, "t"));
    }

    #[test]
    fn what_nobody_asks_for_is_given_back() {
        let attachments = Attachments::new();
        attachments.offer(&task("t", "c", "n"));
        assert!(is_left(&attachments, "t"));
        assert!(attachments.take(&"t".into()).is_none(), "too late");
        attachments.hold(&task("adopted", "c", "n"));
        assert!(!is_left(&attachments, "adopted") && attachments.forget(&"adopted".into()));
    }

    #[test]
    fn a_refusal_is_for_who_asks() {
        let attachments = Attachments::new();
        attachments.refuse(&task("t", "c", "n"), "early");
        let asking = Asking::new(&attachments, "c");
        assert_eq!(attachments.take_refusal(&"t".into()), None);
        for id in ["t", "u"] {
            attachments.refuse(&task(id, "c", "n"), "no way");
        }
        assert_eq!(attachments.take_refusal(&"t".into()).as_deref(), Some("no way"));
        drop(asking);
        assert!(attachments.0.table.borrow().refused.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_container_waits_for_the_managers_only_so_long() {
        let attachments = Attachments::new();
        attachments.hold(&task("t", "c", "n"));
        let start = Instant::now();
        attachments.leave("c", Some("other")).await;
        assert_eq!((start.elapsed(), attachments.holds("c", "n")), (Duration::ZERO, true));
        attachments.leave("c", None).await;
        assert_eq!(start.elapsed(), LEAVE_LIMIT);
        let told = async {
            attachments.until_left(&"t".into()).await;
            attachments.give_back(&"t".into()).await.unwrap_err();
        };
        let start = Instant::now();
        tokio::join!(attachments.leave("c", None), told);
        assert_eq!(start.elapsed(), Duration::ZERO, "what cannot be told is not waited for");
    }
}
