//! The life of an encrypted network beside its devices: whether this machine can have one, its port, and the void, the locks,
//! the rules and the states that are there before its devices and go after them.

use serde::{Deserialize, Serialize};

use super::{OverlayRecord, OverlaySpec};
use crate::NetError;
use crate::ipsec::{EncryptedRules, EncryptionKey, Path, Synced, Wanted};
use crate::net::Inner;
use crate::state::{State, kernel};
use crate::vxlan::Outlet;
use crate::watch::{Site, Watch};
use crate::{ipsec, overlay::Overlay};

/// What an encrypted network's devices are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Encryption {
    /// The UDP port that its tunnels listen on and send from; all encrypted networks of a machine have one.
    pub(crate) own_port: u16,
    /// Index of the void, and of the first bridge.
    pub(crate) void: u32,
}

impl OverlayRecord {
    /// Where its packets are sent, if not as the kernel would choose.
    pub(crate) fn outlet(&self) -> Option<Outlet> {
        self.encryption.map(|encryption| Outlet { link: encryption.void, port: self.spec.data_path_port })
    }
}

impl State {
    fn encrypted(&self) -> impl Iterator<Item = (&Overlay, Encryption)> {
        self.overlays.values().filter_map(|overlay| Some((overlay, overlay.record.encryption?)))
    }

    /// Whether a network is encrypted here.
    pub(crate) fn has_encrypted(&self) -> bool {
        self.encrypted().next().is_some()
    }

    /// The rules of all encrypted networks; `None` without any.
    pub(crate) fn encrypted_rules(&self, void: &ipsec::Void) -> Option<EncryptedRules> {
        let (_, encryption) = self.encrypted().next()?;
        let (mut tunnels, mut members) = (Vec::new(), Vec::new());
        for (overlay, _) in self.encrypted() {
            tunnels.extend(overlay.tunnels());
            members.extend(overlay.members(overlay.peers.nodes()));
        }
        Some(EncryptedRules {
            own_port: encryption.own_port,
            void: void.name.clone(),
            tunnels: tunnels.into_iter().collect(),
            members: members.into_iter().collect(),
        })
    }

    /// What IPsec shall do for all encrypted networks.
    fn wanted_ipsec(&self, void: &ipsec::Void) -> Wanted {
        let mut wanted = Wanted { void: void.index, ..Wanted::default() };
        for (overlay, encryption) in self.encrypted() {
            let spec = &overlay.record.spec;
            wanted.ports.get_or_insert((encryption.own_port, Default::default())).1.insert(spec.data_path_port);
            let Some(local) = overlay.record.local else { continue };
            let nodes = overlay.peers.nodes();
            wanted.paths.extend(nodes.map(|remote| Path { local, remote: *remote, data_port: spec.data_path_port }));
        }
        wanted
    }
}

impl Inner {
    /// What an encrypted network is made with; `None` for one that is not, or that ends at this machine. An error says why
    /// this machine cannot have it.
    pub(super) async fn encryption_of(
        &self,
        spec: &OverlaySpec,
        has_local: bool,
    ) -> Result<Option<Encryption>, NetError> {
        let Some(vtep) = spec.vtep.filter(|_| spec.encrypted) else { return Ok(None) };
        let refused = |reason: String| NetError::NoEncryption { network: spec.name.clone(), reason };
        if !self.config.iptables {
            return Err(refused("firewall rules are switched off".to_owned()));
        }
        if !has_local {
            return Err(refused(format!("its tunnel address {vtep} is on none of its links")));
        }
        let probed = self.ipsec.probe().await;
        probed.map_err(|error| refused(format!("its kernel has no ESP with AES-GCM ({error})")))?;
        let void = self.void.index;
        if let Some((_, encryption)) = self.state().encrypted().next() {
            return Ok(Some(Encryption { void, ..encryption }));
        }
        let mut own_port = self.own_port.lock().await;
        let port = match *own_port {
            Some(port) => port,
            None => self.ipsec.free_port().map_err(kernel("find a port for encrypted networks"))?,
        };
        *own_port = Some(port);
        Ok(Some(Encryption { own_port: port, void }))
    }

    /// Makes what must be there before the devices of an encrypted network, which the state knows already. Repeating it
    /// mends what is missing.
    pub(super) async fn open_encryption(&self, record: &OverlayRecord) -> Result<(), NetError> {
        if record.encryption.is_none() {
            return Ok(());
        }
        {
            // nobody who has seen no encrypted network before this one takes the void away
            let _own_port = self.own_port.lock().await;
            self.void.ensure(&self.links).await?;
            self.watch_ipsec()?;
        }
        self.sync_ipsec().await.map(drop)
    }

    /// At the start: what a former daemon's networks need is there, and what they do not need goes.
    pub(crate) async fn adopt_encryption(&self) -> Result<(), NetError> {
        let has_encrypted = self.state().has_encrypted();
        if has_encrypted {
            self.void.ensure(&self.links).await?;
            self.watch_ipsec()?;
            return self.sync_ipsec().await.map(drop);
        }
        // it is made before all else, and goes last
        if self.void.is_there(&self.links).await? {
            self.sync_ipsec().await?;
            self.void.remove(&self.links).await?;
        }
        Ok(())
    }

    /// Notices from now on what others remove.
    pub(crate) fn watch_ipsec(&self) -> Result<(), NetError> {
        let mut state = self.state();
        if state.ipsec_watch.is_none() {
            let watch = self.ipsec.news().and_then(|news| Watch::start(news, Site::Ipsec, &self.alarms));
            state.ipsec_watch = Some(watch.map_err(kernel("watch IPsec"))?);
        }
        Ok(())
    }

    /// Makes IPsec follow the networks; what is left after the last encrypted one goes.
    pub(super) async fn close_encryption(&self, record: &OverlayRecord) -> Result<(), NetError> {
        if record.encryption.is_none() {
            return Ok(());
        }
        self.sync_ipsec().await?;
        let mut own_port = self.own_port.lock().await;
        {
            let mut state = self.state();
            if state.has_encrypted() {
                return Ok(());
            }
            state.ipsec_watch = None;
        }
        *own_port = None;
        self.void.remove(&self.links).await
    }

    /// Makes the kernel hold the states and policies that follow from networks, nodes and keys.
    pub(crate) async fn sync_ipsec(&self) -> Result<Synced, NetError> {
        let _turn = self.ipsec.turn.lock().await;
        let wanted = self.state().wanted_ipsec(&self.void);
        self.ipsec.sync(wanted).await.map_err(kernel("write the states and policies of IPsec"))
    }

    /// See [`crate::Net::set_encryption_keys`].
    pub(crate) async fn set_encryption_keys(&self, keys: Vec<EncryptionKey>) -> Result<(), NetError> {
        self.ipsec.set_keys(keys).await;
        // bound to a name: a lock in the condition would be held until the end of the block
        let has_encrypted = self.state().has_encrypted();
        if has_encrypted { self.sync_ipsec().await.map(drop) } else { Ok(()) }
    }
}
