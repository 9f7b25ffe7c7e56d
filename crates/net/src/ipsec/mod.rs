//! Encrypted overlay networks: their tunnels' packets travel in ESP, sealed with the swarm's keys as dockerd seals them, or
//! they do not travel.
//!
//! ```text
//!   vx-<vni> ── own port -> data port ──► void          nothing that is sent into it leaves the machine
//!                    │ policy, state         │
//!                    └──────► ESP ───────────┴ rule ──► eth0          out
//!
//!   eth0 ──► ESP ── state ──► data port ── rule ──► own port ── vx-<vni>   in
//!                                 └ no-<vni> ──► sink
//! ```
//! An encrypted network has no way of its own to the wire or from it. Every entry of its tunnels leads into the void, a link
//! without another end; only what has been sealed on the way is led out of it again, by a rule. Its device listens on another
//! port than other nodes send to, and only what has been opened by a state of ours is moved there, by a rule; on the data port
//! another device has its place, where all ends. So whoever removes rules, policies, states or all of them makes the network
//! silent and never plain. `plan` has the locks that stand
//! besides, for packets that somebody else's rules lead astray. Design record 10 has the whole argument.
//!
//! What the kernel holds is its own record: it is read, compared with what follows from networks and keys, and changed.

mod keys;
mod message;
mod plan;
mod rules;
mod void;

use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};

use netlink_sys::constants::NETLINK_XFRM;

pub(crate) use keys::KeyRing;
pub use keys::{ENCRYPTION_KEY_BYTES, ENCRYPTION_KEYS_MAX, EncryptionKey};
pub(crate) use plan::{Path, Wanted};
pub(crate) use rules::{EncryptedRules, MEMBERS, TUNNELS, write_rules};
pub(crate) use void::Void;

use crate::netlink::{News, Socket};
use crate::netns::Namespace;
use plan::{Held, State, StateId, Step, Way, steps};

/// Ports that may become the encrypted networks' own, tried from the last on. They are below those that a kernel takes for
/// senders who ask for none: no packet of another network has one for its source.
const OWN_PORTS: std::ops::RangeInclusive<u16> = 900..=1023;

/// What the host's namespace has of IPsec.
pub(crate) struct Ipsec {
    host: Namespace,
    /// Held while the kernel is asked, never while something is awaited.
    shell: Mutex<Shell>,
    /// One comparison with the kernel at a time, with what is wanted at its beginning.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Shell {
    socket: Option<Socket>,
    /// `None` until the managers have given them.
    keys: Option<KeyRing>,
    /// This kernel has shown that it can.
    is_able: bool,
}

/// What a comparison did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    /// States and policies that were missing, wrong or worn.
    pub(crate) written: usize,
    /// Those that were stale.
    pub(crate) removed: usize,
}

impl Ipsec {
    /// Of the namespace `host`. Nothing is opened until it is needed.
    pub(crate) fn new(host: Namespace) -> Arc<Self> {
        Arc::new(Self { host, shell: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    fn with_shell<T: Send>(&self, work: impl FnOnce(&mut Shell, &mut Socket) -> io::Result<T>) -> io::Result<T> {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = match shell.socket.take() {
            Some(socket) => socket,
            None => self.host.enter(|| Socket::open(NETLINK_XFRM))?,
        };
        let done = work(&mut shell, &mut socket);
        // one whose answers may be out of step is not used again
        shell.socket = done.is_ok().then_some(socket);
        done
    }

    /// Takes the swarm's keys.
    pub(crate) async fn set_keys(&self, keys: Vec<EncryptionKey>) {
        let _turn = self.turn.lock().await;
        self.shell.lock().unwrap_or_else(PoisonError::into_inner).keys = Some(KeyRing::new(keys));
    }

    /// Whether this kernel has ESP with dockerd's algorithm; an error says what it lacks. A state is made to find out, which
    /// also loads the modules, and removed.
    pub(crate) async fn probe(self: &Arc<Self>) -> io::Result<()> {
        let ipsec = Arc::clone(self);
        blocking(move || ipsec.probe_now()).await
    }

    fn probe_now(&self) -> io::Result<()> {
        self.with_shell(|shell, socket| {
            if shell.is_able {
                return Ok(());
            }
            try_state(socket)?;
            shell.is_able = true;
            Ok(())
        })
    }

    /// Makes the kernel hold what is wanted. A step that fails leaves the others.
    pub(crate) async fn sync(self: &Arc<Self>, wanted: Wanted) -> io::Result<Synced> {
        let ipsec = Arc::clone(self);
        blocking(move || ipsec.sync_now(&wanted)).await
    }

    fn sync_now(&self, wanted: &Wanted) -> io::Result<Synced> {
        let synced = self.with_shell(|shell, socket| {
            let found = held(socket)?;
            let (mut synced, mut failure) = (Synced::default(), None);
            for step in steps(&found, wanted, shell.keys.as_ref()) {
                match take(socket, &step) {
                    Err(error) => {
                        failure.get_or_insert(error);
                    }
                    Ok(()) if matches!(step, Step::AddState(..) | Step::SetPolicy(..)) => synced.written += 1,
                    Ok(()) => synced.removed += 1,
                }
            }
            failure.map_or(Ok(synced), Err)
        });
        match synced {
            // another kernel, under what is left on disk: where there is no IPsec, nothing of it is to be removed
            Err(error) if wanted.ports.is_none() && is_unknown(&error) => Ok(Synced::default()),
            synced => synced,
        }
    }

    /// Sets the locks of an encrypted network alone.
    pub(crate) fn lock(&self, own_port: u16, data_port: u16) -> io::Result<()> {
        let wanted = Wanted { ports: Some((own_port, [data_port].into())), ..Wanted::default() };
        self.with_shell(|_, socket| {
            let locks = steps(&Held::default(), &wanted, None);
            locks.iter().try_for_each(|step| take(socket, step))
        })
    }

    /// The news of states and policies that go.
    pub(crate) fn news(&self) -> io::Result<News> {
        self.host.enter(|| News::open(NETLINK_XFRM, message::GROUPS, message::ALARMING))
    }

    /// A port for encrypted networks that nobody of the host has.
    pub(crate) fn free_port(&self) -> io::Result<u16> {
        self.host.enter(|| {
            let is_free = |port: &u16| UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, *port)).is_ok();
            OWN_PORTS.rev().find(is_free).ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRINUSE))
        })
    }
}

/// Whether the kernel of the thread's namespace has ESP with dockerd's algorithm; an error says what it lacks.
pub(crate) fn try_esp() -> io::Result<()> {
    try_state(&mut Socket::open(NETLINK_XFRM)?)
}

/// Makes a state that nobody has a use for, and removes it: the only way to know.
fn try_state(socket: &mut Socket) -> io::Result<()> {
    let nowhere = std::net::Ipv4Addr::LOCALHOST;
    let id = StateId { source: nowhere, destination: nowhere, spi: u32::from(*OWN_PORTS.end()) };
    // of a daemon that died meanwhile
    let _ = socket.request(&message::encode(&Step::RemoveState(id)));
    take(socket, &Step::AddState(id, State { way: Way::In, key: [0xff; 20], packets: 0 }))?;
    take(socket, &Step::RemoveState(id))
}

/// The kernel has no such protocol.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT))
}

/// What the kernel holds of ours.
fn held(socket: &mut Socket) -> io::Result<Held> {
    let states = socket.request(&message::all_states())?;
    let policies = socket.request(&message::all_policies())?;
    Ok(Held {
        states: states.iter().filter_map(|reply| message::read_state(reply.kind, &reply.body)).collect(),
        policies: policies.iter().filter_map(|reply| message::read_policy(reply.kind, &reply.body)).collect(),
    })
}

fn take(socket: &mut Socket, step: &Step) -> io::Result<()> {
    match (socket.request(&message::encode(step)), step) {
        (Ok(_), _) => Ok(()),
        // somebody was faster
        (Err(error), Step::RemoveState(_)) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        (Err(error), Step::RemovePolicy(_)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        (Err(error), Step::AddState(id, _)) if error.raw_os_error() == Some(libc::EEXIST) => {
            // dockerd's, of the time when it was this node's engine: of one swarm and key, or it had another index
            let found = socket.request(&message::state(id))?;
            if !found.iter().any(|reply| message::has_request_id(reply.kind, &reply.body)) {
                return Err(error);
            }
            socket.request(&message::encode(&Step::RemoveState(*id)))?;
            socket.request(&message::encode(step)).map(drop)
        }
        (Err(error), _) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("asking the kernel does not panic")
}
