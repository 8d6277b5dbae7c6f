//! A mirror of what the kernel knows of the network, over rtnetlink.
//!
//! Two sockets: one follows the multicast groups, non-blocking, with a descriptor to wait on; the other asks
//! questions, whose answers the kernel has ready when the request returns.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use flextcp_nic::wire::MacAddr;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::links::{Address, Link, Links, unspecified};
use super::neighbors::{Neighbor, Neighbors};
use super::routes::{Entry, Route, Routes};

/// `RTNLGRP_*`: link, neighbours, addresses, routes and rules of both families.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];
/// The kernel batches up to this many bytes of a dump in one datagram.
const DATAGRAM: usize = 64 * 1024;
/// Room for bursts of notifications; an overrun costs a new dump.
const EVENT_BUFFER: usize = 1 << 20;
/// The kernel answers while the request is sent; a longer silence means that no answer comes.
const ANSWER_TIMEOUT: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Links, addresses, routes and neighbours of one network namespace: the one of the thread that opened it.
#[derive(Debug)]
pub struct KernelView {
    events: Socket,
    requests: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    links: Links,
    neighbors: Neighbors,
    routes: Routes,
    policy_rules: bool,
}

impl KernelView {
    /// Subscribes to changes, then reads everything once. Needs no privilege.
    ///
    /// # Errors
    /// Netlink is not available: no descriptors left, or a sandbox denies it.
    pub fn open() -> io::Result<Self> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind_auto()?;
        events.set_non_blocking(true)?;
        events.set_rx_buf_sz(EVENT_BUFFER as libc::c_int)?;
        for group in GROUPS {
            events.add_membership(group)?;
        }
        let mut requests = Socket::new(NETLINK_ROUTE)?;
        requests.bind_auto()?;
        requests.connect(&SocketAddr::new(0, 0))?;
        requests.set_non_blocking(true)?;
        let mut view = Self {
            events,
            requests,
            sequence: 0,
            buffer: Vec::with_capacity(DATAGRAM),
            links: Links::default(),
            neighbors: Neighbors::default(),
            routes: Routes::default(),
            policy_rules: false,
        };
        view.reload()?;
        Ok(view)
    }

    /// Readable when something changed: call [`refresh`](Self::refresh).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes in pending notifications; `true` when something changed. Never blocks on the network.
    ///
    /// # Errors
    /// Netlink failed; the mirror is as old as the last success.
    pub fn refresh(&mut self) -> io::Result<bool> {
        let mut changed = false;
        let mut reload = false;
        loop {
            self.buffer.clear();
            match self.events.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Notifications were lost: what they said is unknown.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    reload = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let buffer = std::mem::take(&mut self.buffer);
            for (header, message) in messages(&buffer) {
                if let NetlinkPayload::InnerMessage(message) = message {
                    let effect = self.apply(&message, header.flags);
                    changed |= effect != Effect::None;
                    reload |= effect == Effect::Reload;
                }
            }
            self.buffer = buffer;
        }
        if reload {
            self.reload()?;
        }
        Ok(changed || reload)
    }

    /// Where a packet for `dst` goes, as far as the tables `local`, `main` and `default` say. With
    /// [`policy_rules`](Self::policy_rules), multipath routes or learned path MTUs, the kernel may know
    /// better: [`route_exact`](Self::route_exact).
    pub fn route(&self, dst: IpAddr) -> Option<Route> {
        let entry = self.routes.lookup(dst)?;
        if entry.refusal().is_some() {
            return None;
        }
        self.completed(entry, dst)
    }

    /// Where the kernel sends a packet from `source` (if bound) to `dst` through `oif` (if bound, or the scope
    /// of a link-local address): one question and its answer, some microseconds.
    ///
    /// # Errors
    /// What `connect` would answer: `NetworkUnreachable`, `HostUnreachable`, `PermissionDenied` (a route that
    /// prohibits, or a broadcast address), `InvalidInput` (a source that is not ours).
    pub fn route_exact(
        &mut self,
        dst: IpAddr,
        source: Option<IpAddr>,
        oif: Option<u32>,
    ) -> io::Result<Route> {
        let mut question = RouteMessage::default();
        let (family, bits) = match dst {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        question.header.address_family = family;
        question.header.destination_prefix_length = bits;
        question
            .attributes
            .push(RouteAttribute::Destination(dst.into()));
        if let Some(source) = source.filter(|source| !source.is_unspecified()) {
            question.header.source_prefix_length = bits;
            question
                .attributes
                .push(RouteAttribute::Source(source.into()));
        }
        if let Some(oif) = oif {
            question.attributes.push(RouteAttribute::Oif(oif));
        }
        let answers = self.request(RouteNetlinkMessage::GetRoute(question), NLM_F_REQUEST)?;
        let unreachable = || io::Error::from_raw_os_error(libc::ENETUNREACH);
        let entry = answers.iter().find_map(|answer| match answer {
            // The answer carries the flag of a cached route: it is one for a single destination.
            RouteNetlinkMessage::NewRoute(message) => {
                let mut message = message.clone();
                message.header.flags = Default::default();
                Entry::from_message(&message)
            }
            _ => None,
        });
        let mut entry = entry.ok_or_else(unreachable)?;
        if let Some(refusal) = entry.refusal() {
            return Err(refusal);
        }
        entry.source = source
            .filter(|source| !source.is_unspecified())
            .or(entry.source);
        self.completed(&entry, dst).ok_or_else(unreachable)
    }

    /// Fills in what a route leaves open: loopback for own addresses, source, MTU.
    fn completed(&self, entry: &Entry, dst: IpAddr) -> Option<Route> {
        use netlink_packet_route::route::RouteType;
        let local = entry.kind == RouteType::Local;
        // A local route names the link that owns the address; its packets go through the loopback link.
        let link = if local {
            self.links.loopback()?
        } else {
            self.links.get(entry.ifindex)?
        };
        let next_hop = entry.gateway.unwrap_or(dst);
        let source = entry
            .source
            .or_else(|| local.then_some(dst))
            .or_else(|| self.links.source_for(link.index, next_hop))
            .unwrap_or_else(|| unspecified(dst));
        let mtu = entry.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        Some(Route {
            ifindex: link.index,
            source,
            gateway: entry.gateway,
            mtu,
        })
    }

    /// Whether the namespace has routing rules beyond the standard three, so that only
    /// [`route_exact`](Self::route_exact) is right.
    pub fn policy_rules(&self) -> bool {
        self.policy_rules
    }

    /// What the kernel knows of the neighbour `ip` on `ifindex`. On links without neighbour resolution
    /// (loopback, point-to-point) everyone is reachable at the zero address.
    pub fn neighbor(&self, ifindex: u32, ip: IpAddr) -> Neighbor {
        match self.links.get(ifindex) {
            Some(link) if link.loopback || link.no_arp => Neighbor::Reachable(MacAddr([0; 6])),
            _ => self.neighbors.get(ifindex, ip),
        }
    }

    /// The neighbours whose hardware address is known: (interface, address) and that.
    pub fn neighbor_macs(&self) -> impl Iterator<Item = ((u32, IpAddr), MacAddr)> {
        self.neighbors.macs()
    }

    /// Has the kernel resolve a neighbour, or confirm a stale one, as if it had a packet to send (`NTF_USE`).
    /// The answer comes as a notification: wait on [`fd`](Self::fd), [`refresh`](Self::refresh), look again.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_ADMIN; `NotFound` when the link is gone.
    pub fn resolve(&mut self, ifindex: u32, ip: IpAddr) -> io::Result<()> {
        let mut question = NeighbourMessage::default();
        let (family, address) = match ip {
            IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        question.header.family = family;
        question.header.ifindex = ifindex;
        question.header.flags = NeighbourFlags::Use;
        question
            .attributes
            .push(NeighbourAttribute::Destination(address));
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewNeighbour(question), flags).map(drop).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EPERM) => io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("asking the kernel to resolve {ip} needs CAP_NET_ADMIN: grant it with `setcap cap_net_admin+ep`"),
                ),
                Some(libc::ENODEV) => io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("no interface with index {ifindex} to resolve {ip} on"),
                ),
                _ => error,
            }
        })
    }

    /// The link with this index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(ifindex)
    }

    /// The link with this name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.by_name(name)
    }

    /// All links, in no order.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    /// The loopback link.
    pub fn loopback(&self) -> Option<&Link> {
        self.links.loopback()
    }

    /// Addresses of a link, in the kernel's order.
    pub fn addresses_of(&self, ifindex: u32) -> &[Address] {
        self.links.addresses_of(ifindex)
    }

    /// The link that an address of ours belongs to: by the table `local`, so that all of 127.0.0.0/8 belongs
    /// to `lo`. A link-local address may belong to several; this names one.
    pub fn owner_of(&self, addr: IpAddr) -> Option<u32> {
        self.routes
            .owner_of(addr)
            .or_else(|| self.links.owner_of(addr))
    }

    /// The link of the preferred default route (IPv4 before IPv6).
    pub fn default_route_ifindex(&self) -> Option<u32> {
        self.routes.default_links().first().copied()
    }

    /// Whether any default route leaves through the link: of either family, any table, any priority. Taking
    /// such a link away from the kernel can cost the way into the machine.
    pub fn carries_default_route(&self, ifindex: u32) -> bool {
        self.routes.default_links().contains(&ifindex)
    }

    /// Reads everything anew.
    fn reload(&mut self) -> io::Result<()> {
        use RouteNetlinkMessage as M;
        let dump = NLM_F_REQUEST | NLM_F_DUMP;
        let links = self.request(M::GetLink(LinkMessage::default()), dump)?;
        let addresses = self.request(M::GetAddress(AddressMessage::default()), dump)?;
        let routes = self.request(M::GetRoute(RouteMessage::default()), dump)?;
        let neighbors = self.request(M::GetNeighbour(NeighbourMessage::default()), dump)?;
        self.links.clear();
        self.neighbors.clear();
        self.routes.clear();
        for message in [links, addresses, routes, neighbors].iter().flatten() {
            self.apply(message, 0);
        }
        self.reload_rules()
    }

    fn reload_rules(&mut self) -> io::Result<()> {
        let dump = NLM_F_REQUEST | NLM_F_DUMP;
        let question = RouteNetlinkMessage::GetRule(RuleMessage::default());
        let rules = self.request(question, dump)?;
        self.policy_rules = rules.iter().any(|rule| match rule {
            RouteNetlinkMessage::NewRule(rule) => !is_standard(rule),
            _ => false,
        });
        Ok(())
    }

    fn apply(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Effect {
        use RouteNetlinkMessage as M;
        let changed = match message {
            M::NewLink(link) => {
                let was_up = self
                    .links
                    .get(link.header.index)
                    .is_some_and(|link| link.up);
                let changed = self.links.insert(link);
                let is_up = self
                    .links
                    .get(link.header.index)
                    .is_some_and(|link| link.up);
                // The kernel flushes a link's IPv4 routes without telling when it goes down.
                if was_up && !is_up {
                    return Effect::Reload;
                }
                changed
            }
            M::DelLink(link) => {
                self.neighbors.forget_link(link.header.index);
                if self.links.remove(link) {
                    return Effect::Reload;
                }
                false
            }
            M::NewAddress(address) => self.links.insert_address(address),
            M::DelAddress(address) => {
                // So it does with routes whose preferred source vanishes.
                if self.links.remove_address(address) {
                    return Effect::Reload;
                }
                false
            }
            M::NewRoute(route) => self.routes.insert(route, flags & NLM_F_REPLACE != 0),
            M::DelRoute(route) => self.routes.remove(route),
            M::NewNeighbour(neighbor) => self.neighbors.insert(neighbor),
            M::DelNeighbour(neighbor) => self.neighbors.remove(neighbor),
            M::NewRule(_) | M::DelRule(_) => return Effect::Reload,
            _ => false,
        };
        if changed {
            Effect::Changed
        } else {
            Effect::None
        }
    }

    /// Sends a request and collects its answers, up to the end of a dump, an acknowledgement, or the single
    /// message that answers a question.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.requests.send(&bytes, 0)?;

        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut answers = Vec::new();
        loop {
            self.await_answer()?;
            self.buffer.clear();
            match self.requests.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for (header, payload) in messages(&self.buffer) {
                if header.sequence_number != self.sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(answer) => {
                        answers.push(answer);
                        if !dump && flags & NLM_F_ACK == 0 {
                            return Ok(answers);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn await_answer(&self) -> io::Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.requests, PollFlags::IN)];
            match poll(&mut fds, Some(&ANSWER_TIMEOUT)) {
                Ok(0) => {
                    let text = "the kernel does not answer on netlink; is a sandbox in the way?";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for KernelView {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl AsRawFd for KernelView {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.events.as_raw_fd()
    }
}

/// What a notification did to the mirror.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Effect {
    None,
    Changed,
    /// The kernel changed more than it tells.
    Reload,
}

/// Whether it is one of the three rules that every namespace starts with.
fn is_standard(rule: &RuleMessage) -> bool {
    // Multicast routing has rules of its own in the same dump.
    if !matches!(
        rule.header.family,
        AddressFamily::Inet | AddressFamily::Inet6
    ) {
        return true;
    }
    let mut priority = 0;
    let mut table = u32::from(rule.header.table);
    let mut selective =
        rule.header.src_len != 0 || rule.header.dst_len != 0 || rule.header.tos != 0;
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::FwMark(_)
            | RuleAttribute::Source(_)
            | RuleAttribute::Destination(_) => selective = true,
            _ => {}
        }
    }
    !selective && matches!((priority, table), (0, 255) | (32766, 254) | (32767, 253))
}

/// The messages of one datagram. What does not parse (a newer kernel's) is passed over, the rest kept.
fn messages(
    mut datagram: &[u8],
) -> impl Iterator<Item = (NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>)> {
    std::iter::from_fn(move || {
        loop {
            let length = u32::from_ne_bytes(*datagram.first_chunk::<4>()?) as usize;
            if length < 16 || length > datagram.len() {
                return None;
            }
            let (message, rest) = datagram.split_at(length);
            // Messages start at multiples of four.
            datagram = rest
                .get(length.next_multiple_of(4) - length..)
                .unwrap_or(&[]);
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                Ok(message) => return Some(message.into_parts()),
                Err(error) => tracing::debug!(%error, "netlink message passed over"),
            }
        }
    })
}

#[cfg(test)]
mod tests;
