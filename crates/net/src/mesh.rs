//! The table of the ingress sandbox: (protocol, published port) -> chain of the service -> one of its backends, in turn.
//! The source address stays the client's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use crate::conntrack;
use crate::nft::{
    Batch, Cmp, DataType, Expr, FORWARD, Hook, PREROUTING, R1, Rule, SetRef, Socket, Table, Value, Verdict, proto_port,
};
use crate::store::ServiceRecord;
use crate::{Backend, IngressPort, Protocol};

const PORTS: &str = "services";
/// Link of the sandbox to the gateway bridge.
pub(crate) const GATEWAY_LINK: &str = "eth1";
/// The verdict register.
const VERDICT: u32 = 0;

type Key = (Protocol, u16);

/// Ports that a change opened and closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortChange {
    pub(crate) added: Vec<Key>,
    pub(crate) removed: Vec<Key>,
}

/// The table, and what it holds.
pub(crate) struct Mesh {
    socket: Socket,
    table: Table,
    services: BTreeMap<String, ServiceRecord>,
    owners: BTreeMap<Key, String>,
}

impl Mesh {
    /// Makes the table anew with `services`, in one go; the socket stands in the ingress sandbox.
    pub(crate) fn replace(socket: Socket, prefix: &str, services: BTreeMap<String, ServiceRecord>) -> io::Result<Self> {
        let mut mesh = Self {
            socket,
            table: Table::ip(format!("{prefix}-mesh")),
            services: BTreeMap::new(),
            owners: BTreeMap::new(),
        };
        mesh.rewrite(services)?;
        Ok(mesh)
    }

    /// Writes the whole table anew: at the start, and when it is not as we know it because someone flushed it.
    fn rewrite(&mut self, services: BTreeMap<String, ServiceRecord>) -> io::Result<()> {
        // nothing is owned while all is written
        let before = (std::mem::take(&mut self.owners), std::mem::take(&mut self.services));
        let stand_in = self.table.stand_in();
        let rest = stand_in.clone();
        let [first, second] = [stand_in, self.table.clone()].map(|table| self.write_whole(&table, &services));
        match self.socket.replace(first, second, &[rest]) {
            Ok(()) => {
                self.services = services;
                Ok(())
            }
            Err(error) => {
                (self.owners, self.services) = before;
                Err(error)
            }
        }
    }

    fn write_whole(&mut self, table: &Table, services: &BTreeMap<String, ServiceRecord>) -> Batch {
        let mut batch = Batch::new();
        self.owners.clear();
        write_frame(&mut batch, table);
        for (service_id, service) in services {
            self.write_service(&mut batch, table, service_id, service);
            self.own(service_id, service);
        }
        batch
    }

    /// Writes the table anew as it should be.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        self.rewrite(self.services.clone())
    }

    /// What the table holds.
    pub(crate) fn services(&self) -> &BTreeMap<String, ServiceRecord> {
        &self.services
    }

    /// Which service has which port.
    pub(crate) fn owners(&self) -> &BTreeMap<Key, String> {
        &self.owners
    }

    /// Replaces one service. A port that another one has goes over to this one.
    pub(crate) fn set(&mut self, service_id: &str, service: ServiceRecord) -> io::Result<PortChange> {
        let mut batch = Batch::new();
        let change = self.write_service(&mut batch, &self.table, service_id, &service);
        match self.socket.commit(batch) {
            Ok(()) => {
                self.own(service_id, &service);
                self.services.insert(service_id.to_owned(), service);
            }
            Err(error) => {
                tracing::warn!(%error, "the mesh's table was changed by someone else; it is written anew");
                let mut services = self.services.clone();
                services.insert(service_id.to_owned(), service);
                self.rewrite(services)?;
            }
        }
        self.drop_stale_flows(service_id)?;
        Ok(change)
    }

    /// Takes one service out.
    pub(crate) fn remove(&mut self, service_id: &str) -> io::Result<PortChange> {
        let Some(service) = self.services.get(service_id) else { return Ok(PortChange::default()) };
        let keys = self.owned(service_id);
        let udp = service.ports.iter().any(|port| port.protocol == Protocol::Udp);
        let mut batch = Batch::new();
        let elements: Vec<_> = keys.iter().map(|(protocol, port)| proto_port(*protocol, *port)).collect();
        batch.delete_elements(&self.table, PORTS, &elements);
        batch.flush_chain(&self.table, &chain_of(service_id));
        batch.delete_chain(&self.table, &chain_of(service_id));
        if let Err(error) = self.socket.commit(batch) {
            tracing::warn!(%error, "the mesh's table was changed by someone else; it is written anew");
            let mut services = self.services.clone();
            services.remove(service_id);
            self.rewrite(services)?;
        }
        for key in &keys {
            self.owners.remove(key);
        }
        self.services.remove(service_id);
        if udp {
            let gone = &keys;
            conntrack::delete(&mut self.socket, |flow| {
                flow.protocol == Protocol::Udp.number() && gone.contains(&(Protocol::Udp, flow.port))
            })?;
        }
        Ok(PortChange { added: Vec::new(), removed: keys.into_iter().collect() })
    }

    /// How many TCP connections through the mesh to this backend are open.
    pub(crate) fn open_connections(&mut self, backend: Ipv4Addr) -> io::Result<usize> {
        conntrack::count(&mut self.socket, |flow| flow.is_open && flow.answers == backend)
    }

    /// The ports a service has now: those of its record that no other service has taken over.
    fn owned(&self, service_id: &str) -> BTreeSet<Key> {
        let ports = self.services.get(service_id).map(|service| service.ports.as_slice()).unwrap_or_default();
        let is_own = |key: &Key| self.owners.get(key).is_some_and(|owner| owner == service_id);
        keys_of(ports).filter(is_own).collect()
    }

    /// Notes what has been written.
    fn own(&mut self, service_id: &str, service: &ServiceRecord) {
        for key in self.owned(service_id) {
            self.owners.remove(&key);
        }
        self.owners.extend(keys_of(&service.ports).map(|key| (key, service_id.to_owned())));
    }

    fn write_service(&self, batch: &mut Batch, table: &Table, service_id: &str, service: &ServiceRecord) -> PortChange {
        let chain = chain_of(service_id);
        batch.add_chain(table, &chain);
        batch.flush_chain(table, &chain);
        if let Some(rule) = balance(batch, table, &service.backends) {
            batch.add_rule(table, &chain, &rule);
        }
        // A packet that has begun with the old rules when new ones come finds the old map empty: the kernel switches rules by
        // packet, but map elements at once. Without this rule its connection would be refused.
        if let Some(fallback) = service.backends.first() {
            batch.add_rule(table, &chain, &Rule::new().dnat(fallback.address, None));
        }
        // without a backend the packet is delivered here, where nothing listens: the kernel refuses it
        let before = self.owned(service_id);
        let now: BTreeSet<Key> = keys_of(&service.ports).collect();
        let removed: Vec<Key> = before.difference(&now).copied().collect();
        let gained: Vec<Key> = now.difference(&before).copied().collect();
        let (moved, added): (Vec<Key>, Vec<Key>) = gained.iter().partition(|key| self.owners.contains_key(key));
        let gone = removed.iter().chain(&moved);
        let gone: Vec<_> = gone.map(|(protocol, port)| proto_port(*protocol, *port)).collect();
        batch.delete_elements(table, PORTS, &gone);
        let to = Value::Verdict(Verdict::Goto(chain));
        let new = gained.iter().map(|(protocol, port)| (proto_port(*protocol, *port), to.clone()));
        batch.add_elements(table, PORTS, &new.collect::<Vec<_>>());
        PortChange { added, removed }
    }

    /// Moves datagram flows away from backends that are gone: their entries would hold them for as long as the client
    /// sends. Likewise those that began while the service had no backend.
    fn drop_stale_flows(&mut self, service_id: &str) -> io::Result<()> {
        let Some(service) = self.services.get(service_id) else { return Ok(()) };
        let ports: BTreeSet<u16> = service
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp)
            .map(|port| port.published_port)
            .collect();
        if ports.is_empty() {
            return Ok(());
        }
        let backends: BTreeSet<Ipv4Addr> = service.backends.iter().map(|backend| backend.address).collect();
        conntrack::delete(&mut self.socket, |flow| {
            flow.protocol == Protocol::Udp.number() && ports.contains(&flow.port) && !backends.contains(&flow.answers)
        })
    }
}

fn write_frame(batch: &mut Batch, table: &Table) {
    batch.replace_table(table);
    batch.add_set(table, PORTS, DataType::ProtoPort, Some(DataType::Verdict));
    batch.add_base_chain(table, "prerouting", &Hook::nat(PREROUTING));
    let set = SetRef { name: PORTS.to_owned(), id: 0 };
    let dispatch = Rule::new().iif(Cmp::Eq, GATEWAY_LINK).key_proto_port();
    let dispatch = dispatch.with([Expr::Lookup { set, reg: R1, into: Some(VERDICT) }]);
    batch.add_rule(table, "prerouting", &dispatch);
    batch.add_base_chain(table, "forward", &Hook::filter(FORWARD, 0));
    for rule in [
        Rule::new().established().verdict(Verdict::Accept),
        Rule::new().dnatted().verdict(Verdict::Accept),
        Rule::new().verdict(Verdict::Drop),
    ] {
        batch.add_rule(table, "forward", &rule);
    }
}

/// The rule that gives each new connection to the next backend; `None` if there is no choice.
fn balance(batch: &mut Batch, table: &Table, backends: &[Backend]) -> Option<Rule> {
    let modulus = u32::try_from(backends.len()).ok().filter(|count| *count > 1)?;
    let elements = (0u32..)
        .zip(backends)
        .map(|(index, backend)| (index.to_ne_bytes().to_vec(), Value::Data(backend.address.octets().to_vec())));
    let elements: Vec<_> = elements.collect();
    let set = batch.add_anonymous_map(table, DataType::Index, DataType::Address, &elements);
    Some(Rule::new().with([
        Expr::NumgenInc { modulus, reg: R1 },
        Expr::Lookup { set, reg: R1, into: Some(R1) },
        Expr::Dnat { address: R1, port: None },
    ]))
}

fn keys_of(ports: &[IngressPort]) -> impl Iterator<Item = Key> {
    ports.iter().map(|port| (port.protocol, port.published_port))
}

fn chain_of(service_id: &str) -> String {
    format!("service-{service_id}")
}
