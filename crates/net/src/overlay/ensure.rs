//! Making, changing and removing overlay networks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::devices::{self, Site};
use super::peers::{MemberChange, Peers};
use super::spec::check_network_id;
use super::{Guard, Member, Overlay, OverlayRecord, OverlaySpec, Peer};
use crate::links::Links;
use crate::net::Inner;
use crate::netns::{self, Namespace};
use crate::state::{kernel, now_unix_ns};
use crate::store::{Folder, Place, Single};
use crate::{NetConfig, NetError};

/// What VXLAN adds to a packet.
const VXLAN_BYTES: u32 = 50;
/// What ESP adds: index, number, nonce, two bytes of trailer, check value; dockerd's sum.
const ESP_BYTES: u32 = 26;
/// ESP fills up to a multiple of this.
const ESP_BLOCK: u32 = 4;

/// Turns: one change of a network, or of a container's connections, at a time.
#[derive(Default)]
pub(crate) struct Turns(std::sync::Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub(crate) fn of(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // those that nobody waits for are not kept
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(key.to_owned()).or_default())
    }
}

/// Where a network's namespace is pinned, under dockerd's name for it.
pub(crate) fn network_path(config: &NetConfig, network_id: &str) -> PathBuf {
    let short: String = network_id.chars().take(10).collect();
    config.exec_root.join("netns").join(format!("1-{short}"))
}

impl Inner {
    /// Held over awaits on purpose; the state's lock is the only other one taken under it.
    pub(crate) fn overlay_turn(&self, network_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.of(network_id)
    }

    /// See [`crate::Net::overlay_ensure`].
    pub(crate) async fn overlay_ensure(&self, spec: OverlaySpec) -> Result<(), NetError> {
        spec.check()?;
        if spec.ingress {
            let other = self.state().ingress_id().filter(|id| *id != spec.network_id);
            if let Some(other) = other {
                self.overlay_remove(&other).await?;
            }
        }
        let turn = self.overlay_turn(&spec.network_id);
        let _turn = turn.lock().await;
        let (before, is_whole) = {
            let state = self.state();
            let before = state.overlays.get(&spec.network_id).map(|overlay| overlay.record.spec.clone());
            (before, !spec.ingress || state.ingress.is_some())
        };
        match before {
            Some(before) if before == spec && is_whole => return Ok(()),
            Some(before) if is_same_shape(&before, &spec) => return self.change_overlay(&before, spec).await,
            Some(_) => self.remove_overlay_locked(&spec.network_id).await?,
            None => {}
        }
        self.check_vnis(&spec)?;
        let network_id = spec.network_id.clone();
        let made = self.make_overlay(spec).await;
        if made.is_err()
            && let Err(error) = self.remove_overlay_locked(&network_id).await
        {
            tracing::warn!(%error, network_id, "network left over");
        }
        made
    }

    /// See [`crate::Net::overlay_remove`].
    pub(crate) async fn overlay_remove(&self, network_id: &str) -> Result<(), NetError> {
        check_network_id(network_id)?;
        let turn = self.overlay_turn(network_id);
        let _turn = turn.lock().await;
        self.remove_overlay_locked(network_id).await
    }

    /// Two networks of ours with one VXLAN id would each get the other's packets refused by the kernel's lookup.
    fn check_vnis(&self, spec: &OverlaySpec) -> Result<(), NetError> {
        let state = self.state();
        for subnet in spec.subnets.iter().filter(|subnet| subnet.vni != 0 && spec.vtep.is_some()) {
            let key = (spec.data_path_port, subnet.vni);
            let mut others = state.overlays.values().filter(|other| other.record.spec.network_id != spec.network_id);
            if let Some(other) = others.find(|other| other.tunnels().contains(&key)) {
                return Err(NetError::VniInUse {
                    network: spec.name.clone(),
                    vni: subnet.vni,
                    port: spec.data_path_port,
                    owner: format!("network {}", other.record.spec.name),
                });
            }
        }
        Ok(())
    }

    /// The record of a network, without a balancer.
    async fn record_of(&self, spec: OverlaySpec, created_unix_ns: i64) -> Result<OverlayRecord, NetError> {
        let underlay = match spec.vtep {
            Some(vtep) => self.links.mtu_of(vtep).await.map_err(kernel("find the link of the tunnels"))?,
            None => None,
        };
        let mtu = match spec.mtu {
            0 => largest(underlay.unwrap_or(self.config.mtu), spec.encrypted),
            mtu => mtu,
        };
        let local = spec.vtep.filter(|_| underlay.is_some());
        let encryption = self.encryption_of(&spec, local.is_some()).await?;
        Ok(OverlayRecord { created_unix_ns, mtu, local, encryption, balancer: None, spec })
    }

    async fn make_overlay(&self, spec: OverlaySpec) -> Result<(), NetError> {
        let record = self.record_of(spec, now_unix_ns()).await?;
        let network_id = record.spec.network_id.clone();
        self.store.write_record(Folder::Overlays, &network_id, &record)?;
        let (namespace, links) = make_namespace(network_path(&self.config, &network_id), &NETWORK_SYSCTLS).await?;
        links.set_up(1).await.map_err(kernel("bring up the loopback link"))?;
        let links = Arc::new(links);
        let overlay = Overlay { record, links, devices: Vec::new(), peers: Peers::default(), balancer: None };
        self.finish_overlay(overlay, &namespace).await
    }

    /// Makes a network anew that its namespace was taken away from, with its peers and services.
    pub(super) async fn remake_overlay(&self, record: OverlayRecord, peers: Vec<Peer>) -> Result<(), NetError> {
        let network_id = record.spec.network_id.clone();
        tracing::warn!(network = record.spec.name, "a network is gone from the kernel and is made anew");
        self.drop_overlay(&network_id).await?;
        self.make_overlay(record.spec).await?;
        self.apply_peers(&network_id, &peers, &[]).await?;
        self.mend_balancer(&network_id).await
    }

    /// Makes the devices of a network that has its namespace, and its balancer; the gate for its tunnels comes first.
    async fn finish_overlay(&self, overlay: Overlay, namespace: &Namespace) -> Result<(), NetError> {
        let (record, links) = (overlay.record.clone(), Arc::clone(&overlay.links));
        let network_id = record.spec.network_id.clone();
        {
            let mut state = self.state();
            let (guard, gates) = (overlay.guard(), overlay.tunnels());
            state.overlays.insert(network_id.clone(), overlay);
            match guard {
                Guard::Plain => state.change_gates(&self.config, &gates, &[])?,
                Guard::Encrypted => state.write_host(&self.config).map_err(|error| refused(&record, &error))?,
            }
        }
        self.open_encryption(&record).await?;
        let site = Site { host: &self.links, namespace, links: &links, void: self.void.index };
        let (devices, _) = devices::ensure(&site, &record).await?;
        if let Some(overlay) = self.state().overlays.get_mut(&network_id) {
            overlay.devices = devices;
        }
        if record.spec.ingress { self.make_ingress(&record).await } else { Ok(()) }
    }

    /// Changes a network whose containers stay.
    async fn change_overlay(&self, before: &OverlaySpec, spec: OverlaySpec) -> Result<(), NetError> {
        self.check_vnis(&spec)?;
        let network_id = spec.network_id.clone();
        let (old, created, links, nodes) = {
            let state = self.state();
            let overlay = state.overlay(&network_id)?;
            let nodes = overlay.members(overlay.peers.nodes());
            (overlay.record.clone(), overlay.record.created_unix_ns, Arc::clone(&overlay.links), nodes)
        };
        let mut record = self.record_of(spec, created).await?;
        if before.lb_address != record.spec.lb_address {
            self.remove_balancer(&network_id).await?;
        } else {
            record.balancer = old.balancer.clone();
        }
        self.store.write_record(Folder::Overlays, &network_id, &record)?;
        if tunnel_shape(&old) != tunnel_shape(&record) {
            devices::remove_tunnels(&links, &old).await.map_err(kernel("remove a network's tunnels"))?;
        }
        self.exchange_record(&record, nodes)?;
        if record.encryption.is_none() {
            self.close_encryption(&old).await?;
        }
        self.mend_overlay(&network_id).await?;
        if !record.spec.ingress || before.lb_address == record.spec.lb_address {
            return Ok(());
        }
        self.remove_ingress()?;
        self.make_ingress(&record).await
    }

    /// Gives a network another record, and its tunnels' guards what follows from that. `nodes` were let in before.
    fn exchange_record(&self, record: &OverlayRecord, nodes: Vec<Member>) -> Result<(), NetError> {
        let mut state = self.state();
        let overlay = state.overlays.get_mut(&record.spec.network_id);
        let overlay = overlay.ok_or_else(|| NetError::NoNetwork(record.spec.network_id.clone()))?;
        let (before, closed) = (overlay.guard(), overlay.tunnels());
        overlay.record = record.clone();
        // those of a node that this one turns out to be
        let own: Vec<_> = overlay.peers.all().filter(|peer| Some(peer.vtep) == record.spec.vtep).copied().collect();
        overlay.peers.change(&record.spec, &[], &own);
        let (guard, opened, members) = (overlay.guard(), overlay.tunnels(), overlay.members(overlay.peers.nodes()));
        if (before, guard) != (Guard::Plain, Guard::Plain) {
            return state.write_host(&self.config);
        }
        state.change_members(&self.config, &MemberChange { guard, added: Vec::new(), removed: nodes })?;
        state.change_gates(&self.config, &opened, &closed)?;
        state.change_members(&self.config, &MemberChange { guard, added: members, removed: Vec::new() })
    }

    /// Removes a network and its services.
    async fn remove_overlay_locked(&self, network_id: &str) -> Result<(), NetError> {
        let record: Option<OverlayRecord> = self.store.read_record(Folder::Overlays, network_id)?;
        if record.is_some_and(|record| record.spec.ingress) {
            self.forget_services()?;
        }
        self.forget_virtual(network_id)?;
        self.drop_overlay(network_id).await
    }

    /// Removes a network; its services stay on disk.
    async fn drop_overlay(&self, network_id: &str) -> Result<(), NetError> {
        let record: Option<OverlayRecord> = self.store.read_record(Folder::Overlays, network_id)?;
        let Some(record) = record else { return Ok(()) };
        if record.spec.ingress {
            self.remove_ingress()?;
        }
        self.remove_balancer(network_id).await?;
        let links = self.state().overlays.get(network_id).map(|overlay| Arc::clone(&overlay.links));
        if let Some(links) = links {
            devices::remove_tunnels(&links, &record).await.map_err(kernel("remove a network's tunnels"))?;
        }
        {
            let mut state = self.state();
            match state.overlays.remove(network_id) {
                Some(overlay) if overlay.guard() == Guard::Plain => {
                    let members = overlay.members(overlay.peers.nodes());
                    let gone = MemberChange { guard: Guard::Plain, added: Vec::new(), removed: members };
                    state.change_members(&self.config, &gone)?;
                    state.change_gates(&self.config, &[], &overlay.tunnels())?;
                }
                Some(_) => state.write_host(&self.config)?,
                None => {}
            }
        }
        self.close_encryption(&record).await?;
        let path = network_path(&self.config, network_id);
        netns::remove(&path).map_err(|source| NetError::File { path, source })?;
        self.store.remove_record(Folder::Overlays, network_id)
    }

    /// Removes the ingress network.
    pub(crate) async fn ingress_remove(&self) -> Result<(), NetError> {
        let network_id = self.state().ingress_id();
        if let Some(network_id) = network_id {
            self.overlay_remove(&network_id).await?;
        }
        // one that a former daemon did not finish
        if self.store.exists(Single::Ingress) {
            self.remove_ingress()?;
        }
        self.forget_services()
    }

    /// The socket of the place of a link; `None` if the network is gone, and its links with it.
    pub(crate) fn links_at(&self, place: &Place) -> Option<Arc<Links>> {
        match place {
            Place::Host => Some(Arc::clone(&self.links)),
            Place::Network(id) => self.state().overlays.get(id).map(|overlay| Arc::clone(&overlay.links)),
        }
    }
}

/// The largest packet that fits into those of the underlay, as dockerd counts it.
fn largest(underlay: u32, encrypted: bool) -> u32 {
    let mtu = underlay.saturating_sub(VXLAN_BYTES);
    if !encrypted {
        return mtu;
    }
    let mtu = mtu.saturating_sub(ESP_BYTES);
    mtu - mtu % ESP_BLOCK
}

/// The rules of encrypted networks need more of the kernel than others.
fn refused(record: &OverlayRecord, error: &NetError) -> NetError {
    let reason = format!("its kernel does not take the rules for that ({error})");
    NetError::NoEncryption { network: record.spec.name.clone(), reason }
}

/// Whether containers may stay where they are when one becomes the other.
fn is_same_shape(before: &OverlaySpec, spec: &OverlaySpec) -> bool {
    (&before.subnets, before.ingress, before.encrypted) == (&spec.subnets, spec.ingress, spec.encrypted)
}

/// What a tunnel is made with: the kernel changes none of it afterwards.
fn tunnel_shape(record: &OverlayRecord) -> impl PartialEq {
    (record.spec.vtep, record.spec.data_path_port, record.mtu, record.local, record.encryption)
}

/// Makes and pins a namespace with settings, and a socket in it.
pub(crate) async fn make_namespace(
    path: PathBuf,
    sysctls: &'static [(&'static str, &'static str)],
) -> Result<(Namespace, Links), NetError> {
    let runtime = tokio::runtime::Handle::current();
    let action = format!("make network namespace {}", path.display());
    let make = move || {
        Namespace::create(&path, || {
            sysctls.iter().try_for_each(|(name, value)| netns::set_sysctl_if_present(name, value))?;
            Links::open_here(&runtime)
        })
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.expect("making a namespace does not panic").map_err(kernel(action))
}

const NETWORK_SYSCTLS: [(&str, &str); 8] = [
    // nothing is filtered where frames are only passed on
    ("net.bridge.bridge-nf-call-iptables", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    // from one subnet of a network to another
    ("net.ipv4.ip_forward", "1"),
    // a service's address is in another subnet than the balancer's: the gateway answers, and at once
    ("net.ipv4.conf.all.proxy_arp", "1"),
    ("net.ipv4.neigh.default.proxy_delay", "0"),
    ("net.ipv4.neigh.default.gc_thresh1", "8192"),
    ("net.ipv4.neigh.default.gc_thresh2", "49152"),
    ("net.ipv4.neigh.default.gc_thresh3", "65536"),
];
