//! This node's endpoints, told to the others.

use std::net::Ipv4Addr;

use discovery::{ENDPOINT_TABLE, EndpointRecord, PEER_TABLE, PeerRecord};
use gossip_io::Handle;
use net::Ipv4Cidr;

use super::{Place, State, Withdrawal};

pub(super) fn places_of(state: &State, container: &str) -> Vec<Place> {
    state.own.iter().filter(|(_, own)| own.container == container).map(|(place, _)| place.clone()).collect()
}

pub(super) fn peer_record(address: Ipv4Cidr, mac: [u8; 6], vtep: Ipv4Addr) -> PeerRecord {
    PeerRecord { address: address.address.into(), prefix: address.prefix, mac, tunnel_endpoint: vtep.into() }
}

pub(super) async fn join(gossip: &Handle, network: &str) {
    if let Err(error) = gossip.join_network(network).await {
        tracing::warn!(network, %error, "the network does not come into the gossip");
    }
}

/// Tells the others of an endpoint: its link, and its record if it has one. dockerd takes changes for deletions, so what was
/// told before is deleted first.
pub(super) async fn announce(state: &mut State, place: &Place) {
    let State { gossip: Some(gossip), own, .. } = state else { return };
    let Some(own) = own.get_mut(place) else { return };
    let peer = own.peer.as_ref().map(|peer| (PEER_TABLE, peer.encode()));
    let record = own.record.as_ref().map(|record| (ENDPOINT_TABLE, record.encode()));
    for (table, value) in peer.into_iter().chain(record) {
        let (network, key) = (place.0.as_str(), own.key.as_str());
        match own.told.get(table) {
            Some(told) if *told == value => continue,
            // It may have gone meanwhile, which is as good.
            Some(_) => drop(gossip.delete_entry(network, table, key).await),
            None => {}
        }
        match gossip.create_entry(network, table, key, value.clone()).await {
            Ok(()) => drop(own.told.insert(table, value)),
            Err(error) => tracing::warn!(network, endpoint = key, %error, "an endpoint is not told to the others"),
        }
    }
}

pub(super) async fn withdraw(state: &mut State, place: &Place) {
    let Some(own) = state.own.remove(place) else { return };
    let Some(gossip) = &state.gossip else { return };
    for table in own.told.keys() {
        if let Err(error) = gossip.delete_entry(&place.0, table, &own.key).await {
            tracing::debug!(network = place.0, endpoint = place.1, %error, "an endpoint was not told of");
        }
    }
}

/// Changes what the others were told: dockerd takes an update of an endpoint for its being disabled.
pub(super) async fn tell_disabled(state: &mut State, disabled: Vec<(Place, EndpointRecord)>) -> Withdrawal {
    let State { gossip: Some(gossip), own, .. } = state else { return Withdrawal::nobody() };
    let mut told = Vec::new();
    for (place, record) in disabled {
        let Some(own) = own.get_mut(&place).filter(|own| own.told.contains_key(ENDPOINT_TABLE)) else { continue };
        let value = record.encode();
        own.told.insert(ENDPOINT_TABLE, value.clone());
        match gossip.update_entry(&place.0, ENDPOINT_TABLE, &own.key, value).await {
            Ok(()) => told.push((place.0.as_str().into(), ENDPOINT_TABLE.into(), own.key.as_str().into())),
            Err(error) => tracing::debug!(endpoint = place.1, %error, "the others were not told that a task stops"),
        }
    }
    Withdrawal::new(gossip.clone(), told)
}
