//! Routes: the kernel's tables, longest prefix first.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};

use super::links::unspecified;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    /// Interface it leaves through; the loopback interface for our own addresses.
    pub ifindex: u32,
    /// Source address for a packet that has none.
    pub source: IpAddr,
    /// The router to send to; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Largest IP packet on the path, as far as known.
    pub mtu: u32,
}

impl Route {
    /// Whose hardware address a packet for `dst` is sent to.
    pub fn next_hop(&self, dst: IpAddr) -> IpAddr {
        self.gateway.unwrap_or(dst)
    }
}

/// `RT_TABLE_LOCAL`: our own addresses.
pub(super) const TABLE_LOCAL: u32 = 255;
/// `RT_TABLE_MAIN`.
pub(super) const TABLE_MAIN: u32 = 254;
/// `RT_TABLE_DEFAULT`.
const TABLE_DEFAULT: u32 = 253;

/// One route of one table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) table: u32,
    pub(super) dst: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) tos: u8,
    pub(super) priority: u32,
    pub(super) kind: RouteType,
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) mtu: Option<u32>,
    /// The next hop is on a link that is down.
    dead: bool,
}

impl Entry {
    /// `None` for what no packet of ours can use: multicast, cached and MPLS routes.
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let any = match header.address_family {
            AddressFamily::Inet => IpAddr::V4([0; 4].into()),
            AddressFamily::Inet6 => IpAddr::V6([0; 16].into()),
            _ => return None,
        };
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut entry = Self {
            table: u32::from(header.table),
            dst: unspecified(any),
            prefix_len: header.destination_prefix_length,
            tos: header.tos,
            priority: 0,
            kind: header.kind,
            ifindex: 0,
            gateway: None,
            source: None,
            mtu: None,
            // Not `Linkdown`: the kernel uses such a route, unless told otherwise, and does not notify of its end.
            dead: header.flags.contains(RouteFlags::Dead),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(table) => entry.table = *table,
                RouteAttribute::Priority(priority) => entry.priority = *priority,
                RouteAttribute::Destination(addr) => entry.dst = ip(addr)?,
                RouteAttribute::PrefSource(addr) => entry.source = ip(addr),
                RouteAttribute::Metrics(metrics) => {
                    entry.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::MultiPath(hops) => {
                    let dead = |hop: &&RouteNextHop| hop.flags.contains(RouteNextHopFlags::Dead);
                    if let Some(hop) = hops.iter().find(|hop| !dead(hop)).or_else(|| hops.first()) {
                        entry.ifindex = hop.interface_index;
                        entry.dead = dead(&hop);
                        hop.attributes
                            .iter()
                            .for_each(|attribute| entry.next_hop(attribute));
                    }
                }
                other => entry.next_hop(other),
            }
        }
        Some(entry)
    }

    fn next_hop(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Oif(index) => self.ifindex = *index,
            RouteAttribute::Gateway(addr) => self.gateway = ip(addr),
            // An IPv4 route through an IPv6 router (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet(addr)) => self.gateway = Some((*addr).into()),
            RouteAttribute::Via(RouteVia::Inet6(addr)) => self.gateway = Some((*addr).into()),
            _ => {}
        }
    }

    /// What the kernel takes for the same route when it deletes or replaces one.
    fn same_slot(&self, other: &Self) -> bool {
        self.tos == other.tos && self.priority == other.priority
    }

    /// What `connect` answers where a route of this kind matches.
    pub(super) fn refusal(&self) -> Option<io::Error> {
        let errno = match self.kind {
            RouteType::Unicast | RouteType::Local | RouteType::Anycast => return None,
            RouteType::Prohibit => libc::EACCES,
            RouteType::BlackHole => libc::EINVAL,
            RouteType::Unreachable => libc::EHOSTUNREACH,
            _ => libc::ENETUNREACH,
        };
        Some(io::Error::from_raw_os_error(errno))
    }
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// `addr` with all bits behind the prefix cleared.
fn masked(addr: IpAddr, prefix_len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(prefix_len.min(32)))
                .unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(prefix_len.min(128)))
                .unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// The routes of one table, by prefix length and prefix; an entry's alternatives are sorted by priority.
#[derive(Clone, Debug, Default)]
struct Table {
    prefixes: BTreeMap<u8, HashMap<IpAddr, Vec<Entry>>>,
}

impl Table {
    fn lookup(&self, dst: IpAddr) -> Option<&Entry> {
        self.prefixes.iter().rev().find_map(|(prefix_len, routes)| {
            let alternatives = routes.get(&masked(dst, *prefix_len))?;
            alternatives
                .iter()
                .find(|entry| !entry.dead && entry.tos == 0)
        })
    }
}

/// All routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    tables: HashMap<u32, Table>,
}

impl Routes {
    /// What the tables `local`, `main` and `default` say, in this order; other tables are reached only through
    /// policy rules.
    pub(super) fn lookup(&self, dst: IpAddr) -> Option<&Entry> {
        [TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT]
            .iter()
            .filter_map(|id| self.tables.get(id)?.lookup(dst))
            .find(|entry| entry.kind != RouteType::Throw)
    }

    /// The link that `addr` is local to.
    pub(super) fn owner_of(&self, addr: IpAddr) -> Option<u32> {
        let entry = self.tables.get(&TABLE_LOCAL)?.lookup(addr)?;
        (entry.kind == RouteType::Local).then_some(entry.ifindex)
    }

    /// Links that a default route of any table leaves through, the preferred one of the main table first. Two halves of the
    /// address space (as VPN clients set them) count as one.
    pub(super) fn default_links(&self) -> Vec<u32> {
        let mut found: Vec<(bool, bool, u32, u32)> = self
            .tables
            .iter()
            .flat_map(|(id, table)| {
                let routes = table.prefixes.range(0..=1).flat_map(|(_, routes)| routes);
                routes.flat_map(move |(dst, alternatives)| {
                    alternatives
                        .iter()
                        .filter(|entry| entry.kind == RouteType::Unicast)
                        .map(move |e| (*id != TABLE_MAIN, dst.is_ipv6(), e.priority, e.ifindex))
                })
            })
            .collect();
        found.sort_unstable();
        let mut links = Vec::new();
        for (.., ifindex) in found {
            if ifindex != 0 && !links.contains(&ifindex) {
                links.push(ifindex);
            }
        }
        links
    }

    pub(super) fn clear(&mut self) {
        self.tables.clear();
    }

    /// Takes in RTM_NEWROUTE; `replaces` when its slot's former route is gone.
    pub(super) fn insert(&mut self, message: &RouteMessage, replaces: bool) -> bool {
        let Some(entry) = Entry::from_message(message) else {
            return false;
        };
        let table = self.tables.entry(entry.table).or_default();
        let prefix = table.prefixes.entry(entry.prefix_len).or_default();
        let alternatives = prefix
            .entry(masked(entry.dst, entry.prefix_len))
            .or_default();
        if alternatives.contains(&entry) {
            return false;
        }
        if replaces {
            alternatives.retain(|other| !other.same_slot(&entry));
        }
        let at = alternatives.partition_point(|other| other.priority <= entry.priority);
        alternatives.insert(at, entry);
        true
    }

    /// Takes in RTM_DELROUTE.
    pub(super) fn remove(&mut self, message: &RouteMessage) -> bool {
        let Some(entry) = Entry::from_message(message) else {
            return false;
        };
        let Some(table) = self.tables.get_mut(&entry.table) else {
            return false;
        };
        let Some(prefix) = table.prefixes.get_mut(&entry.prefix_len) else {
            return false;
        };
        let key = masked(entry.dst, entry.prefix_len);
        let Some(alternatives) = prefix.get_mut(&key) else {
            return false;
        };
        let gone = alternatives.iter().position(|other| {
            other.same_slot(&entry)
                && other.ifindex == entry.ifindex
                && other.gateway == entry.gateway
        });
        if let Some(gone) = gone {
            alternatives.remove(gone);
        }
        if alternatives.is_empty() {
            prefix.remove(&key);
        }
        if prefix.is_empty() {
            table.prefixes.remove(&entry.prefix_len);
        }
        gone.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(table: u32, dst: &str, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let (dst, prefix_len) = dst.split_once('/').unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = if dst.contains(':') {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        message.header.destination_prefix_length = prefix_len.parse().unwrap();
        message.header.kind = if table == TABLE_LOCAL {
            RouteType::Local
        } else {
            RouteType::Unicast
        };
        message.attributes = attributes;
        message.attributes.push(RouteAttribute::Table(table));
        message
            .attributes
            .push(RouteAttribute::Destination(addr(dst).into()));
        message
    }

    fn oif(index: u32) -> Vec<RouteAttribute> {
        vec![RouteAttribute::Oif(index)]
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut routes = Routes::default();
        routes.insert(&route(TABLE_MAIN, "0.0.0.0/0", oif(1)), false);
        routes.insert(&route(TABLE_MAIN, "10.0.0.0/8", oif(2)), false);
        routes.insert(&route(TABLE_MAIN, "10.1.0.0/16", oif(3)), false);
        routes.insert(&route(TABLE_LOCAL, "10.1.0.1/32", oif(4)), false);
        routes.insert(&route(TABLE_MAIN, "fd00::/64", oif(5)), false);
        for (dst, expected) in [
            ("8.8.8.8", Some(1)),
            ("10.2.0.1", Some(2)),
            ("10.1.0.2", Some(3)),
            ("10.1.0.1", Some(4)),
            ("fd00::1", Some(5)),
            ("fd01::1", None),
        ] {
            assert_eq!(
                routes.lookup(addr(dst)).map(|entry| entry.ifindex),
                expected,
                "{dst}"
            );
        }
        assert_eq!(routes.owner_of(addr("10.1.0.1")), Some(4));
        assert_eq!(routes.owner_of(addr("10.1.0.2")), None);
        assert_eq!(routes.default_links(), [1]);
    }

    #[test]
    fn priority_replacement_and_removal() {
        let metric = |index, priority| {
            let attributes = vec![
                RouteAttribute::Oif(index),
                RouteAttribute::Priority(priority),
            ];
            route(TABLE_MAIN, "10.0.0.0/8", attributes)
        };
        let mut routes = Routes::default();
        let found = |routes: &Routes| routes.lookup(addr("10.0.0.1")).map(|entry| entry.ifindex);
        assert!(routes.insert(&metric(1, 100), false));
        assert!(
            !routes.insert(&metric(1, 100), false),
            "a repeated message changes nothing"
        );
        assert!(routes.insert(&metric(2, 50), false));
        assert_eq!(found(&routes), Some(2));
        assert!(routes.insert(&metric(3, 50), true));
        assert_eq!(found(&routes), Some(3));
        assert!(!routes.remove(&metric(2, 50)), "it was replaced");
        assert!(routes.remove(&metric(3, 50)));
        assert_eq!(found(&routes), Some(1));
        assert!(routes.remove(&metric(1, 100)));
        assert_eq!(found(&routes), None);
    }

    #[test]
    fn a_throw_route_passes_to_the_next_table() {
        let mut throw = route(TABLE_MAIN, "10.0.0.0/8", Vec::new());
        throw.header.kind = RouteType::Throw;
        let mut routes = Routes::default();
        routes.insert(&throw, false);
        routes.insert(&route(TABLE_DEFAULT, "0.0.0.0/0", oif(7)), false);
        assert_eq!(
            routes.lookup(addr("10.0.0.1")).map(|entry| entry.ifindex),
            Some(7)
        );
    }

    #[test]
    fn half_defaults_and_other_tables_count_as_default() {
        let mut routes = Routes::default();
        routes.insert(&route(100, "0.0.0.0/0", oif(9)), false);
        routes.insert(&route(TABLE_MAIN, "128.0.0.0/1", oif(8)), false);
        routes.insert(&route(TABLE_MAIN, "::/0", oif(7)), false);
        assert_eq!(routes.default_links(), [8, 7, 9]);
    }
}
