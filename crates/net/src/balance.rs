//! A table that spreads connections over backends. One stands in the ingress sandbox, one in the balancer of each network.
//!
//! ```text
//! prerouting   what is asked for ──"services"──► chain of a group ──► its backends in turn
//! postrouting  a backend in "hidden", or in "away" ──► the connection comes from this node's own address
//! ```
//! What the table shall hold is computed by itself ([`Contents`]), then written as a difference, or whole if the kernel does
//! not have what was written before. Callers: `ingress`, `overlay::balancer`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Protocol;
use crate::conntrack::{self, Flow};
use crate::nft::{Batch, DataType, Expr, R1, Rule, SetRef, Socket, Table, Value, Verdict};

/// What is asked for -> chain.
pub(crate) const SERVICES: &str = "services";
/// What was on its way to a backend as it went is answered within this time, if at all.
const ANSWER_TIME: Duration = Duration::from_millis(150);
/// The verdict register.
pub(crate) const VERDICT: u32 = 0;

/// What connections are told apart by, and the rules around them.
pub(crate) trait Kind {
    /// What is asked for.
    type Key: Copy + Ord + Debug;
    /// Its type in the kernel.
    const KEY: DataType;
    /// It as bytes.
    fn bytes(key: Self::Key) -> Vec<u8>;
    /// What a flow of datagrams asks for.
    fn of(flow: &Flow) -> Self::Key;
    /// Makes the table anew, with its sets and base chains, but without services.
    fn write_frame(&self, batch: &mut Batch, table: &Table);
}

/// Keys with the same backends behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group<K> {
    pub(crate) keys: Vec<K>,
    pub(crate) backends: Vec<Ipv4Addr>,
}

/// How connections to a backend are seen by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tag {
    /// From this node's own address.
    Hidden,
    /// It is on another node: likewise if the client's address means something on this node only.
    Away,
}

impl Tag {
    pub(crate) const ALL: [Self; 2] = [Self::Hidden, Self::Away];

    /// The set of such backends.
    pub(crate) fn set(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Away => "away",
        }
    }
}

/// A service as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service<K> {
    pub(crate) groups: Vec<Group<K>>,
    pub(crate) tags: BTreeSet<(Tag, Ipv4Addr)>,
}

impl<K> Default for Service<K> {
    fn default() -> Self {
        Self { groups: Vec::new(), tags: BTreeSet::new() }
    }
}

impl<K: Copy> Service<K> {
    fn keys(&self) -> impl Iterator<Item = (K, usize)> {
        let groups = self.groups.iter().enumerate();
        groups.flat_map(|(at, group)| group.keys.iter().map(move |key| (*key, at)))
    }

    fn backends(&self) -> impl Iterator<Item = (usize, Ipv4Addr)> {
        let groups = self.groups.iter().enumerate();
        groups.flat_map(|(at, group)| group.backends.iter().map(move |backend| (at, *backend)))
    }
}

/// What a change opened and closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyChange<K> {
    pub(crate) added: Vec<K>,
    pub(crate) removed: Vec<K>,
}

impl<K> Default for KeyChange<K> {
    fn default() -> Self {
        Self { added: Vec::new(), removed: Vec::new() }
    }
}

/// What the table shall hold.
struct Contents<K> {
    services: BTreeMap<Arc<str>, Service<K>>,
    /// Which service, and which of its groups, has a key: of two that claim one, the later.
    owners: BTreeMap<K, (Arc<str>, usize)>,
    /// How many services have a backend under a tag.
    tags: BTreeMap<(Tag, Ipv4Addr), usize>,
}

impl<K> Default for Contents<K> {
    fn default() -> Self {
        Self { services: BTreeMap::new(), owners: BTreeMap::new(), tags: BTreeMap::new() }
    }
}

/// What another version of one service asks of the table.
#[derive(Debug, PartialEq, Eq)]
struct Delta<K> {
    /// Keys that lead nowhere now.
    removed: Vec<K>,
    /// Keys that led elsewhere, and their groups.
    moved: Vec<(K, usize)>,
    /// Keys that are new, and their groups.
    added: Vec<(K, usize)>,
    /// Groups that are no more.
    gone: std::ops::Range<usize>,
    tagged: Vec<(Tag, Ipv4Addr)>,
    untagged: Vec<(Tag, Ipv4Addr)>,
    /// Whether datagrams may be on their way to where none goes any more, or have been refused.
    may_strand: bool,
}

impl<K: Copy + Ord> Contents<K> {
    /// Replaces a service; one without groups is none.
    fn put(&mut self, service_id: &str, service: Service<K>) -> Delta<K> {
        let before = self.services.remove(service_id).unwrap_or_default();
        let is_own = |key: &K| self.owners.get(key).is_some_and(|(owner, _)| **owner == *service_id);
        let owned: BTreeMap<K, usize> = before.keys().filter(|(key, _)| is_own(key)).collect();
        let now: BTreeMap<K, usize> = service.keys().collect();
        let gained = now.iter().filter(|(key, at)| owned.get(*key) != Some(*at)).map(|(key, at)| (*key, *at));
        let (moved, added) = gained.partition(|(key, _)| self.owners.contains_key(key));
        let removed: Vec<K> = owned.keys().filter(|key| !now.contains_key(*key)).copied().collect();
        let backends: BTreeSet<_> = service.backends().collect();
        let may_strand = before.groups.is_empty()
            || before.groups.iter().any(|group| group.backends.is_empty())
            || before.backends().any(|backend| !backends.contains(&backend));
        let name: Arc<str> = service_id.into();
        for key in &removed {
            self.owners.remove(key);
        }
        self.owners.extend(now.into_iter().map(|(key, at)| (key, (Arc::clone(&name), at))));
        let delta = Delta {
            removed,
            moved,
            added,
            gone: service.groups.len()..before.groups.len(),
            tagged: service.tags.difference(&before.tags).copied().filter(|tag| self.tag(*tag)).collect(),
            untagged: before.tags.difference(&service.tags).copied().filter(|tag| self.untag(*tag)).collect(),
            may_strand,
        };
        if !service.groups.is_empty() {
            self.services.insert(name, service);
        }
        delta
    }

    /// Whether a flow goes to none of the backends that it could go to, or to a key that has been closed; `None` stands for
    /// all keys that are not open, and for flows that were translated.
    fn is_stranded(&self, flow: &Flow, key: K, closed: Option<&BTreeSet<K>>) -> bool {
        match self.owners.get(&key) {
            Some((service_id, at)) => {
                let group = self.services.get(service_id).and_then(|service| service.groups.get(*at));
                group.is_none_or(|group| !group.backends.contains(&flow.answers))
            }
            None => closed.map_or(flow.answers != flow.asked, |closed| closed.contains(&key)),
        }
    }

    /// Whether the tag is new.
    fn tag(&mut self, tag: (Tag, Ipv4Addr)) -> bool {
        let count = self.tags.entry(tag).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether nobody has the tag any more.
    fn untag(&mut self, tag: (Tag, Ipv4Addr)) -> bool {
        let Some(count) = self.tags.get_mut(&tag) else { return false };
        *count -= 1;
        *count == 0 && self.tags.remove(&tag).is_some()
    }
}

/// A table, and what it holds.
pub(crate) struct Balance<T: Kind> {
    kind: T,
    socket: Socket,
    table: Table,
    contents: Contents<T::Key>,
    /// The kernel may have something else than the contents.
    is_torn: bool,
    /// Since when backends are gone, to which connections may have begun that nobody will answer.
    strands_since: Option<Instant>,
}

impl<T: Kind> Balance<T> {
    /// Makes the table anew with these services; the socket stands in the namespace.
    pub(crate) fn replace(
        kind: T,
        socket: Socket,
        table: Table,
        services: impl IntoIterator<Item = (String, Service<T::Key>)>,
    ) -> io::Result<Self> {
        let mut contents = Contents::default();
        for (service_id, service) in services {
            contents.put(&service_id, service);
        }
        let mut balance = Self { kind, socket, table, contents, is_torn: true, strands_since: None };
        balance.restore()?;
        Ok(balance)
    }

    /// Writes the table anew as it should be. At every moment it, or its stand-in, counts.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        self.is_torn = true;
        let stand_in = self.table.stand_in();
        let [first, second] = [&stand_in, &self.table].map(|table| self.write_whole(table));
        self.socket.replace(first, second, &[stand_in])?;
        self.is_torn = false;
        Ok(())
    }

    /// Writes the table anew if someone has removed it, and tells whether that was so.
    pub(crate) fn restore_if_gone(&mut self) -> io::Result<bool> {
        if self.socket.has_table(&self.table)? {
            return Ok(false);
        }
        self.restore()?;
        // what came meanwhile was translated by nobody
        self.drop_stranded(&BTreeSet::new())?;
        Ok(true)
    }

    /// Whether [`Self::drop_unanswered`] has something to look for, now or soon.
    pub(crate) fn may_strand(&self) -> bool {
        self.strands_since.is_some()
    }

    /// Lets connections begin anew that no backend has answered and whose backend is gone, [`ANSWER_TIME`] after it went:
    /// the client's next packet leads to another. Without this their ports would lead nowhere for two minutes, for whichever
    /// connection of the client has them next.
    pub(crate) fn drop_unanswered(&mut self) -> io::Result<()> {
        if self.strands_since.is_none_or(|since| since.elapsed() < ANSWER_TIME) {
            return Ok(());
        }
        self.strands_since = None;
        let contents = &self.contents;
        conntrack::delete(&mut self.socket, |flow| {
            flow.protocol == Protocol::Tcp.number()
                && !flow.is_answered
                && contents.is_stranded(flow, T::of(flow), None)
        })
    }

    /// A service as the kernel has it.
    pub(crate) fn service(&self, service_id: &str) -> Option<&Service<T::Key>> {
        self.contents.services.get(service_id).filter(|_| !self.is_torn)
    }

    /// Ids of the services.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.contents.services.keys().map(|id| &**id)
    }

    /// What can be asked for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = T::Key> {
        self.contents.owners.keys().copied()
    }

    /// Replaces a service; one without groups is taken out. A key that another service has goes over to this one.
    pub(crate) fn set(&mut self, service_id: &str, service: Service<T::Key>) -> io::Result<KeyChange<T::Key>> {
        let before = self.contents.services.get(service_id).cloned().unwrap_or_default();
        let delta = self.contents.put(service_id, service);
        if let Err(error) = self.write(service_id, &delta) {
            // what was asked for is not so: whoever asks again is not told that it is
            self.contents.put(service_id, before);
            return Err(error);
        }
        if delta.may_strand {
            self.strands_since = Some(Instant::now());
            let closed = delta.removed.iter().copied().collect();
            if let Err(error) = self.drop_stranded(&closed) {
                tracing::warn!(%error, service_id, "datagram flows to a backend that is gone may go on");
            }
        }
        let added = delta.added.into_iter().map(|(key, _)| key).collect();
        Ok(KeyChange { added, removed: delta.removed })
    }

    fn write(&mut self, service_id: &str, delta: &Delta<T::Key>) -> io::Result<()> {
        if self.is_torn {
            return self.restore();
        }
        let written = self.write_delta(service_id, delta);
        written.or_else(|error| {
            tracing::warn!(%error, table = self.table.name, "a table was changed by someone else; it is written anew");
            self.restore()
        })
    }

    fn write_delta(&mut self, service_id: &str, delta: &Delta<T::Key>) -> io::Result<()> {
        let (table, mut batch) = (&self.table, Batch::new());
        for (at, group) in
            self.contents.services.get(service_id).into_iter().flat_map(|it| it.groups.iter().enumerate())
        {
            write_group(&mut batch, table, &chain_of(service_id, at), &group.backends);
        }
        let moved = delta.moved.iter().map(|(key, _)| key);
        let stale: Vec<_> = delta.removed.iter().chain(moved).map(|key| T::bytes(*key)).collect();
        batch.delete_elements(table, SERVICES, &stale);
        let gained = delta.moved.iter().chain(&delta.added);
        let gained = gained.map(|(key, at)| (T::bytes(*key), goto(service_id, *at)));
        batch.add_elements(table, SERVICES, &gained.collect::<Vec<_>>());
        for at in delta.gone.clone() {
            let chain = chain_of(service_id, at);
            batch.flush_chain(table, &chain);
            batch.delete_chain(table, &chain);
        }
        write_tags(&mut batch, table, delta.tagged.iter());
        self.socket.commit(batch)?;
        if delta.untagged.is_empty() {
            return Ok(());
        }
        // Afterwards: a packet that began with the old rules may be on its way to a backend that is gone.
        let mut batch = Batch::new();
        for tag in Tag::ALL {
            let gone = delta.untagged.iter().filter(|(found, _)| *found == tag);
            batch.delete_elements(
                table,
                tag.set(),
                &gone.map(|(_, address)| address.octets().to_vec()).collect::<Vec<_>>(),
            );
        }
        self.socket.commit(batch)
    }

    fn write_whole(&self, table: &Table) -> Batch {
        let mut batch = Batch::new();
        self.kind.write_frame(&mut batch, table);
        for (service_id, service) in &self.contents.services {
            for (at, group) in service.groups.iter().enumerate() {
                write_group(&mut batch, table, &chain_of(service_id, at), &group.backends);
            }
        }
        let owners = self.contents.owners.iter();
        let elements = owners.map(|(key, (service_id, at))| (T::bytes(*key), goto(service_id, *at)));
        batch.add_elements(table, SERVICES, &elements.collect::<Vec<_>>());
        write_tags(&mut batch, table, self.contents.tags.keys());
        batch
    }

    /// Moves datagram flows away from backends that are gone: their entries would hold them for as long as the client
    /// sends. Likewise those that began while there was no backend, and those to keys that have been closed.
    fn drop_stranded(&mut self, closed: &BTreeSet<T::Key>) -> io::Result<()> {
        let contents = &self.contents;
        conntrack::delete(&mut self.socket, |flow| {
            flow.protocol == Protocol::Udp.number() && contents.is_stranded(flow, T::of(flow), Some(closed))
        })
    }
}

fn chain_of(service_id: &str, group: usize) -> String {
    format!("service-{service_id}-{group}")
}

fn goto(service_id: &str, group: usize) -> Value {
    Value::Verdict(Verdict::Goto(chain_of(service_id, group)))
}

fn write_tags<'a>(batch: &mut Batch, table: &Table, tags: impl Iterator<Item = &'a (Tag, Ipv4Addr)> + Clone) {
    for tag in Tag::ALL {
        let found = tags.clone().filter(|(found, _)| *found == tag);
        let elements = found.map(|(_, address)| (address.octets().to_vec(), Value::None));
        batch.add_elements(table, tag.set(), &elements.collect::<Vec<_>>());
    }
}

fn write_group(batch: &mut Batch, table: &Table, chain: &str, backends: &[Ipv4Addr]) {
    batch.add_chain(table, chain);
    batch.flush_chain(table, chain);
    if let Some(rule) = in_turn(batch, table, backends) {
        batch.add_rule(table, chain, &rule);
    }
    // A packet that has begun with the old rules when new ones come finds the old map empty: the kernel switches rules by
    // packet, but map elements at once. Without this rule its connection would be refused.
    if let Some(fallback) = backends.first() {
        batch.add_rule(table, chain, &Rule::new().dnat(*fallback, None));
    }
    // without a backend the packet is delivered here, where nothing listens: the kernel refuses it
}

/// The rule that gives each new connection to the next backend; `None` if there is no choice.
fn in_turn(batch: &mut Batch, table: &Table, backends: &[Ipv4Addr]) -> Option<Rule> {
    let modulus = u32::try_from(backends.len()).ok().filter(|count| *count > 1)?;
    let elements = (0u32..).zip(backends);
    let elements =
        elements.map(|(index, backend)| (index.to_ne_bytes().to_vec(), Value::Data(backend.octets().to_vec())));
    let set = batch.add_anonymous_map(table, DataType::Index, DataType::Address, &elements.collect::<Vec<_>>());
    Some(Rule::new().with([
        Expr::NumgenInc { modulus, reg: R1 },
        Expr::Lookup { set, reg: R1, into: Some(R1) },
        Expr::Dnat { address: R1, port: None },
    ]))
}

/// Looks up what a rule has loaded among the services.
pub(crate) fn dispatch() -> Expr {
    Expr::Lookup { set: SetRef { name: SERVICES.to_owned(), id: 0 }, reg: R1, into: Some(VERDICT) }
}

/// The set or map that every such table has.
pub(crate) fn write_sets<T: Kind>(batch: &mut Batch, table: &Table) {
    batch.replace_table(table);
    batch.add_set(table, SERVICES, T::KEY, Some(DataType::Verdict));
    for tag in Tag::ALL {
        batch.add_set(table, tag.set(), DataType::Address, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);

    fn service(groups: &[(&[u16], &[Ipv4Addr])], hidden: &[Ipv4Addr]) -> Service<u16> {
        let groups = groups.iter().map(|(keys, backends)| Group { keys: keys.to_vec(), backends: backends.to_vec() });
        Service { groups: groups.collect(), tags: hidden.iter().map(|address| (Tag::Hidden, *address)).collect() }
    }

    #[test]
    fn keys_follow_their_group() {
        let mut contents = Contents::default();
        let delta = contents.put("one", service(&[(&[80, 443], &[A])], &[]));
        assert_eq!((delta.added, delta.gone.is_empty()), (vec![(80, 0), (443, 0)], true));
        // during an update one port has fewer tasks
        let delta = contents.put("one", service(&[(&[80], &[A, B]), (&[443], &[B])], &[]));
        assert_eq!((delta.moved, delta.added, delta.may_strand), (vec![(443, 1)], vec![], false));
        let delta = contents.put("one", service(&[(&[443, 444], &[B])], &[]));
        assert_eq!((delta.removed, delta.moved, delta.added), (vec![80], vec![(443, 0)], vec![(444, 0)]));
        assert_eq!((delta.gone, delta.may_strand), (1..2, true));
        let delta = contents.put("one", Service::default());
        assert_eq!((delta.removed, delta.gone), (vec![443, 444], 0..1));
        assert!(contents.services.is_empty() && contents.owners.is_empty());
    }

    #[test]
    fn a_key_goes_over_to_whoever_asks_last_and_stays_there() {
        let mut contents = Contents::default();
        contents.put("one", service(&[(&[80], &[A])], &[]));
        let delta = contents.put("two", service(&[(&[80], &[B])], &[]));
        assert_eq!((delta.moved, delta.added), (vec![(80, 0)], vec![]));
        let delta = contents.put("one", Service::default());
        assert_eq!((delta.removed, delta.gone), (vec![], 0..1));
        assert_eq!(contents.owners.len(), 1);
    }

    #[test]
    fn a_tag_stays_while_someone_has_it() {
        let mut contents = Contents::default();
        assert_eq!(contents.put("one", service(&[(&[80], &[A])], &[A])).tagged, [(Tag::Hidden, A)]);
        assert_eq!(contents.put("two", service(&[(&[81], &[A])], &[A])).tagged, []);
        assert_eq!(contents.put("one", Service::default()).untagged, []);
        assert_eq!(contents.put("two", service(&[(&[81], &[A])], &[])).untagged, [(Tag::Hidden, A)]);
        assert!(contents.tags.is_empty());
    }

    #[test]
    fn datagrams_are_looked_for_only_if_some_may_be_stranded() {
        let mut contents = Contents::default();
        let mut step = |service| contents.put("one", service).may_strand;
        assert!(step(service(&[(&[53], &[])], &[])));
        assert!(step(service(&[(&[53], &[A])], &[])));
        assert!(!step(service(&[(&[53], &[A, B])], &[])));
        assert!(step(service(&[(&[53], &[B])], &[])));
    }
}
