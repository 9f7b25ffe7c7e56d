//! The name servers of all sandboxes: started with them, or when a new daemon finds them; ended with them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::RESOLVER_ADDRESS;
use super::names::Names;
use super::resolv_conf::Internal;
use super::resolve::{Scope, Shuffle};
use super::rules::{self, Ports};
use super::server::{Reach, Service, SharedReach, run, usable};
use super::share::{Pool, Share};
use super::upstream::random;
use crate::DnsNetwork;
use crate::netns::Namespace;

/// Questions of this machine's containers that may be on their way to other servers at once.
const MAX_FORWARDS: usize = 1024;

/// Who made a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    New,
    /// A former daemon, whose sockets had these ports, if that is known.
    Adopted(Option<Ports>),
}

/// What a sandbox's name server is started from.
pub(crate) struct Plan {
    pub(crate) container_id: String,
    /// The pinned namespace.
    pub(crate) netns: PathBuf,
    pub(crate) view: View,
    pub(crate) age: Age,
}

/// What a container can ask for.
pub(crate) struct View {
    /// In the order in which they are asked.
    pub(crate) networks: Vec<DnsNetwork>,
    /// Where questions go that the networks have no answer to.
    pub(crate) conf: Internal,
    /// Whether the container has a default route; without, servers of the host are not asked for it.
    pub(crate) has_way_out: bool,
}

impl View {
    fn reach(self) -> Reach {
        Reach {
            upstreams: usable(&self.conf.upstreams, self.has_way_out),
            scope: Scope { networks: self.networks, has_ndots: self.conf.has_ndots },
        }
    }
}

/// The name servers, and the names they all know.
pub(crate) struct Resolvers {
    pub(crate) names: Arc<Names>,
    /// First part of the names of our nftables tables.
    prefix: String,
    pool: Arc<Pool>,
    running: Mutex<BTreeMap<String, Running>>,
}

/// A running name server; ends with this.
struct Running {
    task: JoinHandle<()>,
    reach: Arc<SharedReach>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolvers {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            names: Arc::default(),
            prefix: prefix.to_owned(),
            pool: Arc::new(Pool::new(MAX_FORWARDS)),
            running: Mutex::default(),
        }
    }

    /// Starts a sandbox's name server, in place of one that runs.
    pub(crate) async fn start(&self, plan: Plan) -> io::Result<Ports> {
        let (netns, prefix, age) = (plan.netns.clone(), self.prefix.clone(), plan.age);
        let open = tokio::task::spawn_blocking(move || {
            let namespace = Namespace::pinned(&netns)?.ok_or(io::ErrorKind::NotFound)?;
            namespace.enter(|| open_here(&prefix, age))
        });
        let (udp, tcp, ports) = open.await.map_err(io::Error::other)??;
        let reach = Arc::new(SharedReach::new(plan.view.reach()));
        let service = Service {
            udp: UdpSocket::from_std(udp)?,
            reach: Arc::clone(&reach),
            names: Arc::clone(&self.names),
            share: Share::new(Arc::clone(&self.pool)),
            order: Shuffle::new(random()),
            netns: plan.netns,
            has_refused: AtomicBool::new(false),
        };
        let task = tokio::spawn(run(service, TcpListener::from_std(tcp)?));
        self.running().insert(plan.container_id, Running { task, reach });
        Ok(ports)
    }

    /// Changes what a container can ask for. Whether it has a name server.
    pub(crate) fn change(&self, container_id: &str, view: View) -> bool {
        let running = self.running();
        let found = running.get(container_id);
        if let Some(found) = found {
            found.reach.set(view.reach());
        }
        found.is_some()
    }

    /// Ends a sandbox's name server, and waits until its sockets are closed. Its rules go with the namespace.
    pub(crate) async fn stop(&self, container_id: &str) {
        let Some(mut running) = self.running().remove(container_id) else { return };
        running.task.abort();
        // an error is the end that was asked for
        let _ = (&mut running.task).await;
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Sockets = (std::net::UdpSocket, std::net::TcpListener, Ports);

/// Opens a server's sockets in the thread's namespace and leads questions to them.
fn open_here(prefix: &str, age: Age) -> io::Result<Sockets> {
    // on the ports of the former daemon nobody notices; if a program of the container has taken one, there are others
    let former = match age {
        Age::Adopted(Some(ports)) => bind(ports).ok(),
        _ => None,
    };
    let (udp, tcp, ports) = match former {
        Some(sockets) => sockets,
        None => bind(Ports { udp: 0, tcp: 0 })?,
    };
    rules::install(prefix, ports)?;
    if age != Age::New && age != Age::Adopted(Some(ports)) {
        rules::end_flows()?;
    }
    Ok((udp, tcp, ports))
}

/// Opens sockets; port 0 is any that is free.
fn bind(ports: Ports) -> io::Result<Sockets> {
    let udp = std::net::UdpSocket::bind((RESOLVER_ADDRESS, ports.udp))?;
    let tcp = std::net::TcpListener::bind((RESOLVER_ADDRESS, ports.tcp))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let ports = Ports { udp: udp.local_addr()?.port(), tcp: tcp.local_addr()?.port() };
    Ok((udp, tcp, ports))
}
