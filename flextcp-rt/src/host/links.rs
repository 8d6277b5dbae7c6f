//! Links and their addresses, as the kernel last told.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flextcp_nic::wire::MacAddr;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address; all zero without one.
    pub mac: MacAddr,
    /// Largest IP packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier.
    pub running: bool,
    /// Is a loopback interface.
    pub loopback: bool,
    /// Has no neighbour resolution.
    pub no_arp: bool,
    /// Frames are Ethernet frames.
    pub ethernet: bool,
    /// `veth`, `tun`, `bridge`, ...; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Receive queues.
    pub rx_queues: u32,
    /// Transmit queues.
    pub tx_queues: u32,
    /// The bridge or bond that this interface is a port of.
    pub controller: Option<u32>,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// The address.
    pub addr: IpAddr,
    /// Bits of its network's prefix.
    pub prefix_len: u8,
    /// Reaches beyond the link (neither link-local nor of host scope).
    pub global: bool,
    /// Further address of a network that has one already: not chosen as a source by itself.
    pub secondary: bool,
    /// Cannot be used yet or ever: duplicate address detection runs or failed.
    pub tentative: bool,
    /// Not for new connections.
    pub deprecated: bool,
}

impl Address {
    /// Whether `other` is in this address's network.
    pub fn network_contains(&self, other: IpAddr) -> bool {
        self.addr.is_ipv4() == other.is_ipv4()
            && shared_prefix(self.addr, other) >= u32::from(self.prefix_len)
    }
}

/// Leading bits that two addresses of one family have in common; 0 across families.
pub(super) fn shared_prefix(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    }
}

/// All links.
#[derive(Clone, Debug, Default)]
pub struct Links {
    links: HashMap<u32, Link>,
    addresses: HashMap<u32, Vec<Address>>,
}

impl Links {
    /// The link with this index.
    pub fn get(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The link with this name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// All links, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The loopback link.
    pub fn loopback(&self) -> Option<&Link> {
        self.links.values().find(|link| link.loopback)
    }

    /// Addresses of a link, in the kernel's order.
    pub fn addresses_of(&self, ifindex: u32) -> &[Address] {
        self.addresses.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    /// The link that owns an address. With several (link-local addresses), any.
    pub fn owner_of(&self, addr: IpAddr) -> Option<u32> {
        let owns = |addresses: &Vec<Address>| addresses.iter().any(|own| own.addr == addr);
        self.addresses
            .iter()
            .find(|(_, addresses)| owns(addresses))
            .map(|(index, _)| *index)
    }

    /// The address of `ifindex` from which to reach `next`, as Linux chooses for IPv4 (the primary address
    /// whose network holds it, else the first) and approximating RFC 6724, section 5 for IPv6 (matching
    /// scope, not deprecated, longest common prefix).
    pub fn source_for(&self, ifindex: u32, next: IpAddr) -> Option<IpAddr> {
        let usable = || {
            self.addresses_of(ifindex)
                .iter()
                .filter(|own| own.addr.is_ipv4() == next.is_ipv4() && !own.tentative)
        };
        match next {
            IpAddr::V4(_) => usable()
                .find(|own| !own.secondary && own.network_contains(next))
                .or_else(|| usable().find(|own| own.global)),
            IpAddr::V6(v6) => usable().max_by_key(|own| {
                let scope = own.global != v6.is_unicast_link_local();
                (scope, !own.deprecated, shared_prefix(own.addr, next))
            }),
        }
        .map(|own| own.addr)
    }

    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.addresses.clear();
    }

    /// Takes in RTM_NEWLINK; `true` when something changed. An interface that is not seen in a message of
    /// the plain family (a bridge's view of its port) changes nothing.
    pub(super) fn insert(&mut self, message: &LinkMessage) -> bool {
        if message.header.interface_family != netlink_packet_route::AddressFamily::Unspec {
            return false;
        }
        let link = link(message);
        let index = link.index;
        self.links.insert(index, link.clone()).as_ref() != Some(&link)
    }

    pub(super) fn remove(&mut self, message: &LinkMessage) -> bool {
        if message.header.interface_family != netlink_packet_route::AddressFamily::Unspec {
            return false;
        }
        self.addresses.remove(&message.header.index);
        self.links.remove(&message.header.index).is_some()
    }

    pub(super) fn insert_address(&mut self, message: &AddressMessage) -> bool {
        let Some(address) = address(message) else {
            return false;
        };
        let addresses = self.addresses.entry(message.header.index).or_default();
        match addresses.iter_mut().find(|own| own.addr == address.addr) {
            Some(own) if *own == address => false,
            Some(own) => {
                *own = address;
                true
            }
            None => {
                addresses.push(address);
                true
            }
        }
    }

    pub(super) fn remove_address(&mut self, message: &AddressMessage) -> bool {
        let Some(address) = address(message) else {
            return false;
        };
        let Some(addresses) = self.addresses.get_mut(&message.header.index) else {
            return false;
        };
        let before = addresses.len();
        addresses.retain(|own| own.addr != address.addr || own.prefix_len != address.prefix_len);
        addresses.len() != before
    }
}

/// A hardware address, when it is one of six bytes.
pub(super) fn mac(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr)
}

fn link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let loopback = header.flags.contains(LinkFlags::Loopback);
    let mut link = Link {
        index: header.index,
        name: String::new(),
        mac: MacAddr([0; 6]),
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        running: header.flags.contains(LinkFlags::LowerUp),
        loopback,
        no_arp: header.flags.contains(LinkFlags::Noarp),
        ethernet: loopback
            || header.link_layer_type == netlink_packet_route::link::LinkLayerType::Ether,
        kind: None,
        rx_queues: 1,
        tx_queues: 1,
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or(link.mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
            LinkAttribute::NumTxQueues(queues) => link.tx_queues = *queues,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

fn address(message: &AddressMessage) -> Option<Address> {
    // IFA_LOCAL is ours; IFA_ADDRESS is the peer's on a point-to-point link, and ours where IFA_LOCAL is missing.
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => address = Some(*addr),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    let optimistic = flags.contains(AddressFlags::Optimistic);
    Some(Address {
        addr: local.or(address)?,
        prefix_len: message.header.prefix_len,
        global: matches!(
            message.header.scope,
            AddressScope::Universe | AddressScope::Site
        ),
        // For IPv6 the same bit means a temporary address, which may be chosen.
        secondary: flags.contains(AddressFlags::Secondary) && local.or(address)?.is_ipv4(),
        tentative: flags.intersects(unusable) && !optimistic,
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

/// The unspecified address of a family.
pub(super) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
