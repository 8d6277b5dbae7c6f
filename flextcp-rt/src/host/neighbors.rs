//! Neighbours: the kernel's ARP and ND caches, as it last told.

use std::collections::HashMap;
use std::net::IpAddr;

use flextcp_nic::wire::MacAddr;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::links::mac;

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Neighbor {
    /// Confirmed lately, or configured.
    Reachable(MacAddr),
    /// Was reachable and may still be: use it, and have the kernel confirm it
    /// ([`KernelView::resolve`](super::netlink::KernelView::resolve)).
    Stale(MacAddr),
    /// Never asked, or being resolved.
    Unknown,
    /// Did not answer.
    Failed,
}

impl Neighbor {
    /// The hardware address to send to now, if one is known.
    pub const fn mac(self) -> Option<MacAddr> {
        match self {
            Self::Reachable(mac) | Self::Stale(mac) => Some(mac),
            Self::Unknown | Self::Failed => None,
        }
    }
}

/// All neighbours.
#[derive(Clone, Debug, Default)]
pub struct Neighbors {
    entries: HashMap<(u32, IpAddr), Neighbor>,
}

impl Neighbors {
    /// The neighbour `ip` on `ifindex`.
    pub fn get(&self, ifindex: u32, ip: IpAddr) -> Neighbor {
        self.entries
            .get(&(ifindex, ip))
            .copied()
            .unwrap_or(Neighbor::Unknown)
    }

    /// The neighbours whose hardware address is known: (interface, address) and that.
    pub fn macs(&self) -> impl Iterator<Item = ((u32, IpAddr), MacAddr)> {
        self.entries
            .iter()
            .filter_map(|(key, neighbor)| Some((*key, neighbor.mac()?)))
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn insert(&mut self, message: &NeighbourMessage) -> bool {
        let Some(key) = key(message) else {
            return false;
        };
        let neighbor = neighbor(message);
        if neighbor == Neighbor::Unknown {
            return self.entries.remove(&key).is_some();
        }
        self.entries.insert(key, neighbor) != Some(neighbor)
    }

    pub(super) fn remove(&mut self, message: &NeighbourMessage) -> bool {
        key(message).is_some_and(|key| self.entries.remove(&key).is_some())
    }

    /// Forgets the neighbours of a link that is gone.
    pub(super) fn forget_link(&mut self, ifindex: u32) {
        self.entries.retain(|(index, _), _| *index != ifindex);
    }
}

fn key(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let ip = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })?;
    Some((message.header.ifindex, ip))
}

fn neighbor(message: &NeighbourMessage) -> Neighbor {
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
            _ => None,
        });
    match (message.header.state, mac) {
        (
            NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp,
            Some(mac),
        ) => Neighbor::Reachable(mac),
        // DELAY and PROBE are a stale entry in use: the kernel is about to confirm it, or at it.
        (NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe, Some(mac)) => {
            Neighbor::Stale(mac)
        }
        (NeighbourState::Failed, _) => Neighbor::Failed,
        _ => Neighbor::Unknown,
    }
}
