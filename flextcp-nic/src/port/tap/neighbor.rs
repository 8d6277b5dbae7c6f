//! ARP (RFC 826) and neighbour discovery (RFC 4861) of our end of a TAP: answers for our addresses, and who is
//! where on the other side.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Instant;
use crate::wire::MacAddr;
use crate::wire::checksum::Checksum;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Linux's `retrans_time_ms`.
const RETRANSMIT: Duration = Duration::from_secs(1);

/// Remembered neighbours at most: a flood of forged answers must not grow the table.
const MAX_NEIGHBORS: usize = 1024;

/// The neighbours on a TAP; clones share the table.
#[derive(Clone, Debug)]
pub struct Neighbors {
    ours: Arc<Ours>,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug)]
struct Ours {
    mac: MacAddr,
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<IpAddr, MacAddr>,
    /// Asked for, and when the question was last sent.
    wanted: HashMap<IpAddr, Option<Instant>>,
}

/// What became of a frame shown to [`Neighbors::handle`].
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Handled {
    /// Not of this protocol.
    No,
    /// Taken in; nothing to say.
    Quiet,
    /// Taken in, and this is the answer.
    Reply(Vec<u8>),
}

impl Neighbors {
    pub(super) fn new(mac: MacAddr, addresses: Vec<IpAddr>) -> Self {
        Self {
            ours: Arc::new(Ours { mac, addresses }),
            table: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is valid after every statement that changes it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.ours.addresses
    }

    /// The hardware address of `ip`, a neighbour on the link. When it is not known, it is asked for from the port's
    /// next flush on, once a second, until it answers or [`forget`](Self::forget) gives up: call again.
    pub fn resolve(&self, ip: IpAddr) -> Option<MacAddr> {
        let mut table = self.lock();
        let known = table.known.get(&ip).copied();
        if known.is_none() && table.wanted.len() < MAX_NEIGHBORS {
            table.wanted.entry(ip).or_insert(None);
        }
        known
    }

    /// Stops asking for `ip` and forgets what it answered.
    pub fn forget(&self, ip: IpAddr) {
        let mut table = self.lock();
        table.wanted.remove(&ip);
        table.known.remove(&ip);
    }

    fn learn(&self, ip: IpAddr, mac: MacAddr) {
        let mut table = self.lock();
        let asked = table.wanted.remove(&ip).is_some();
        if asked || table.known.len() < MAX_NEIGHBORS || table.known.contains_key(&ip) {
            table.known.insert(ip, mac);
        }
    }

    fn is_ours(&self, ip: IpAddr) -> bool {
        self.ours.addresses.contains(&ip)
    }

    /// The questions due at `now`, as frames.
    pub(super) fn questions(&self, now: Instant) -> Vec<Vec<u8>> {
        let mut table = self.lock();
        let mut frames = Vec::new();
        for (ip, sent) in &mut table.wanted {
            if sent.is_none_or(|sent| now.saturating_since(sent) >= RETRANSMIT) {
                *sent = Some(now);
                frames.extend(self.question(*ip));
            }
        }
        frames
    }

    /// When the next question is due.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        let table = self.lock();
        table
            .wanted
            .values()
            .map(|sent| sent.map_or(Instant::ZERO, |sent| sent + RETRANSMIT))
            .min()
    }

    fn question(&self, ip: IpAddr) -> Option<Vec<u8>> {
        let from = |like: IpAddr| {
            self.ours
                .addresses
                .iter()
                .copied()
                .find(|ip| ip.is_ipv4() == like.is_ipv4())
        };
        match (ip, from(ip)?) {
            (IpAddr::V4(target), IpAddr::V4(source)) => {
                let sender = (self.ours.mac, source);
                Some(arp(
                    ARP_REQUEST,
                    MacAddr([0xff; 6]),
                    sender,
                    (MacAddr::ZERO, target),
                ))
            }
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                let [.., a, b, c] = target.octets();
                let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
                let to = MacAddr([0x33, 0x33, 0xff, a, b, c]);
                let body = Discovery {
                    kind: SOLICITATION,
                    flags: 0,
                    target,
                    option: SOURCE_LINK_LAYER,
                };
                Some(body.frame((self.ours.mac, source), (to, group)))
            }
            _ => None,
        }
    }

    /// Takes a frame that is ARP or neighbour discovery.
    pub(super) fn handle(&self, frame: &[u8]) -> Handled {
        let Some((ethernet, packet)) = frame.split_first_chunk::<14>() else {
            return Handled::No;
        };
        match [ethernet[12], ethernet[13]] {
            ETHERTYPE_ARP => self
                .handle_arp(packet)
                .map_or(Handled::Quiet, Handled::Reply),
            ETHERTYPE_IPV6 if packet.get(6) == Some(&ICMPV6) => self.handle_icmpv6(packet),
            _ => Handled::No,
        }
    }

    fn handle_arp(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let packet = packet.first_chunk::<28>()?;
        let operation = [packet[6], packet[7]];
        let mac = MacAddr(*packet[8..14].first_chunk()?);
        let sender = Ipv4Addr::from(*packet[14..18].first_chunk::<4>()?);
        let target = Ipv4Addr::from(*packet[24..28].first_chunk::<4>()?);
        if packet[..6] != ARP_ETHERNET_IPV4 || !self.is_ours(target.into()) || mac.0[0] & 1 != 0 {
            return None;
        }
        // A probe (RFC 5227) has no sender address to learn.
        if !sender.is_unspecified() && !self.is_ours(sender.into()) {
            self.learn(sender.into(), mac);
        }
        (operation == ARP_REQUEST)
            .then(|| arp(ARP_REPLY, mac, (self.ours.mac, target), (mac, sender)))
    }

    fn handle_icmpv6(&self, packet: &[u8]) -> Handled {
        let Some(kind) = packet.get(40) else {
            return Handled::No;
        };
        match *kind {
            SOLICITATION => self
                .solicited(packet)
                .map_or(Handled::Quiet, Handled::Reply),
            ADVERTISEMENT => {
                if let Some((_, target, Some(mac))) = discovery(packet, TARGET_LINK_LAYER) {
                    self.learn(target.into(), mac);
                }
                Handled::Quiet
            }
            _ => Handled::No,
        }
    }

    fn solicited(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (source, target, mac) = discovery(packet, SOURCE_LINK_LAYER)?;
        if !self.is_ours(target.into()) {
            return None;
        }
        let answer = |flags| Discovery {
            kind: ADVERTISEMENT,
            flags,
            target,
            option: TARGET_LINK_LAYER,
        };
        let us = (self.ours.mac, target);
        // RFC 4861, section 7.2.4: who has no address yet is answered through the all-nodes group.
        if source.is_unspecified() {
            let everyone = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), ALL_NODES);
            return Some(answer(OVERRIDE).frame(us, everyone));
        }
        if let Some(mac) = mac {
            self.learn(source.into(), mac);
        }
        let mac = mac.or_else(|| self.lock().known.get(&source.into()).copied())?;
        Some(answer(SOLICITED | OVERRIDE).frame(us, (mac, source)))
    }
}

fn arp(
    operation: [u8; 2],
    to: MacAddr,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(to.0);
    frame.extend(sender.0.0);
    frame.extend(ETHERTYPE_ARP);
    frame.extend(ARP_ETHERNET_IPV4);
    frame.extend(operation);
    for (mac, ip) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(ip.octets());
    }
    frame
}

/// Source, target and the link-layer address option of a valid message (RFC 4861, sections 7.1.1 and 7.1.2).
fn discovery(packet: &[u8], option: u8) -> Option<(Ipv6Addr, Ipv6Addr, Option<MacAddr>)> {
    let (ip, _) = packet.split_first_chunk::<40>()?;
    let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let message = packet.get(40..40 + len)?;
    let source = Ipv6Addr::from(*ip[8..24].first_chunk::<16>()?);
    let destination = Ipv6Addr::from(*ip[24..40].first_chunk::<16>()?);
    let (head, mut options) = message.split_first_chunk::<24>()?;
    let target = Ipv6Addr::from(*head[8..24].first_chunk::<16>()?);
    let mut sum = Checksum::pseudo_header(source.into(), destination.into(), ICMPV6, len as u32);
    sum.add(message);
    // Hop limit 255 proves that no router forwarded it.
    if ip[7] != 255 || head[1] != 0 || target.is_multicast() || !sum.is_valid() {
        return None;
    }
    let mut mac = None;
    while let [kind, units, ..] = *options {
        let size = usize::from(units) * 8;
        if size == 0 || size > options.len() {
            return None;
        }
        if kind == option
            && let Some(address) = options[2..size].first_chunk::<6>()
        {
            mac = Some(MacAddr(*address)).filter(|mac| mac.0[0] & 1 == 0);
        }
        options = &options[size..];
    }
    Some((source, target, mac))
}

/// A neighbour discovery message with one link-layer address option: the sender's.
struct Discovery {
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: u8,
}

impl Discovery {
    fn frame(&self, from: (MacAddr, Ipv6Addr), to: (MacAddr, Ipv6Addr)) -> Vec<u8> {
        let mut message = vec![self.kind, 0, 0, 0, self.flags, 0, 0, 0];
        message.extend(self.target.octets());
        message.extend([self.option, 1]);
        message.extend(from.0.0);
        let len = message.len() as u32;
        let mut sum = Checksum::pseudo_header(from.1.into(), to.1.into(), ICMPV6, len);
        sum.add(&message);
        message[2..4].copy_from_slice(&sum.finish().to_be_bytes());

        let mut frame = Vec::with_capacity(86);
        frame.extend(to.0.0);
        frame.extend(from.0.0);
        frame.extend(ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((len as u16).to_be_bytes());
        frame.extend([ICMPV6, 255]);
        frame.extend(from.1.octets());
        frame.extend(to.1.octets());
        frame.extend(message);
        frame
    }
}

#[cfg(test)]
mod tests;
