//! Published ports in ingress mode: who has which, and which is next.

use super::next_fit::NextFit;
use model::{Endpoint, EndpointSpec, PortConfig, PortProtocol, PublishMode, ServiceId};
use std::collections::BTreeMap;

/// The first dynamic port.
pub const DYNAMIC_PORT_FIRST: u32 = 30_000;
/// The last dynamic port.
pub const DYNAMIC_PORT_LAST: u32 = 32_767;
/// The last port.
const PORT_LAST: u32 = 65_535;

/// A protocol's port.
pub(super) type PortKey = (PortProtocol, u32);

/// Why a service cannot have its ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortError {
    #[error("port '{port}' is already in use by service {holder} as an ingress port")]
    Taken { port: u32, holder: ServiceId },
    #[error("no dynamic port left in {DYNAMIC_PORT_FIRST}-{DYNAMIC_PORT_LAST}")]
    NoneLeft,
    #[error("published port {0} is out of range")]
    OutOfRange(u32),
}

#[derive(Clone, Debug)]
pub(super) struct Ports {
    dynamic: BTreeMap<PortProtocol, NextFit>,
    holders: BTreeMap<PortKey, ServiceId>,
}

impl Ports {
    pub(super) fn new() -> Self {
        let space = || NextFit::new((1, PORT_LAST), (DYNAMIC_PORT_FIRST, DYNAMIC_PORT_LAST));
        let protocols = [PortProtocol::Tcp, PortProtocol::Udp, PortProtocol::Sctp];
        Self { dynamic: protocols.map(|protocol| (protocol, space())).into(), holders: BTreeMap::new() }
    }

    fn space(&mut self, protocol: PortProtocol) -> &mut NextFit {
        self.dynamic.get_mut(&protocol).expect("every protocol has a space")
    }

    /// Gives `service` this very port; it may have it already.
    pub(super) fn reserve(&mut self, service: &ServiceId, (protocol, port): PortKey) -> Result<(), PortError> {
        if port == 0 || port > PORT_LAST {
            return Err(PortError::OutOfRange(port));
        }
        match self.holders.get(&(protocol, port)) {
            Some(holder) if holder != service => Err(PortError::Taken { port, holder: holder.clone() }),
            Some(_) => Ok(()),
            None => {
                self.space(protocol).reserve(port);
                self.holders.insert((protocol, port), service.clone());
                Ok(())
            }
        }
    }

    pub(super) fn release(&mut self, (protocol, port): PortKey) {
        if self.holders.remove(&(protocol, port)).is_some() {
            self.space(protocol).release(port);
        }
    }

    /// Resolves the ports of `spec`: explicit ones and those that `present` already has are kept, the others are given
    /// dynamic ones. On an error nothing is taken. The first list is what the endpoint shows (explicit and host-mode
    /// ports first, as SwarmKit orders them), the second what the service newly holds.
    pub(super) fn allocate(
        &mut self,
        service: &ServiceId,
        spec: Option<&EndpointSpec>,
        present: Option<&Endpoint>,
    ) -> Result<(Vec<PortConfig>, Vec<PortKey>), PortError> {
        let mut added = Vec::new();
        let resolved = reconcile(spec, present)
            .into_iter()
            .map(|mut port| {
                if port.publish_mode == PublishMode::Ingress {
                    self.take(service, &mut port, &mut added)?;
                }
                Ok(port)
            })
            .collect::<Result<Vec<_>, PortError>>();
        match resolved {
            Ok(ports) => Ok((ports, added)),
            Err(error) => {
                added.into_iter().for_each(|key| self.release(key));
                Err(error)
            }
        }
    }

    fn take(&mut self, service: &ServiceId, port: &mut PortConfig, added: &mut Vec<PortKey>) -> Result<(), PortError> {
        if port.published_port == 0 {
            let given = self.space(port.protocol).take().ok_or(PortError::NoneLeft)?;
            self.holders.insert((port.protocol, given), service.clone());
            port.published_port = given;
            added.push((port.protocol, given));
            return Ok(());
        }
        let key = (port.protocol, port.published_port);
        let had = self.holders.contains_key(&key);
        self.reserve(service, key)?;
        if !had {
            added.push(key);
        }
        Ok(())
    }
}

/// The wanted ports, dynamic ones with the port that they have now (same name, protocol and target).
fn reconcile(spec: Option<&EndpointSpec>, present: Option<&Endpoint>) -> Vec<PortConfig> {
    let Some(spec) = spec else { return Vec::new() };
    let is_dynamic = |port: &&PortConfig| port.publish_mode == PublishMode::Ingress && port.published_port == 0;
    let same =
        |a: &PortConfig, b: &PortConfig| a.name == b.name && a.protocol == b.protocol && a.target_port == b.target_port;
    let mut had: Vec<&PortConfig> = present.map_or(Vec::new(), |endpoint| {
        endpoint
            .ports
            .iter()
            .filter(|port| port.publish_mode == PublishMode::Ingress && port.published_port != 0)
            .collect()
    });
    let mut wanted: Vec<PortConfig> = Vec::with_capacity(spec.ports.len());
    for port in spec.ports.iter().filter(|port| !is_dynamic(port)) {
        had.retain(|old| !(same(old, port) && old.published_port == port.published_port));
        wanted.push(port.clone());
    }
    for port in spec.ports.iter().filter(is_dynamic) {
        let kept = had.iter().position(|old| same(old, port)).map(|at| had.remove(at).published_port);
        wanted.push(PortConfig { published_port: kept.unwrap_or(0), ..port.clone() });
    }
    wanted
}
