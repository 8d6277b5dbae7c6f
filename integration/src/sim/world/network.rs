//! The way of a frame: out of a host, over its link, through the router, over another link.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use flextcp_nic::port::RxChecksum;
use flextcp_nic::wire::Packet;
use flextcp_rt::lab::SentFrame;

use super::super::host::Host;
use super::super::router::{look, too_big};
use super::super::scenario::address as host_address;
use super::super::segment::cut;
use super::World;

/// Of the IP and TCP headers of a segment.
const MAX_HEADERS: u32 = 40 + 60;

impl World<'_> {
    /// Delivers what is due at the end of a host's lines.
    pub(super) fn move_frames(&mut self, from: usize) {
        let now = self.now;
        while let Some(frame) = self.lines[from][0].take(now) {
            self.route(from, frame.bytes);
        }
        let host = &mut self.hosts[from];
        while let Some(frame) = self.lines[from][1].take(now) {
            if let Some(lab) = &mut host.lab {
                lab.inject_owned(frame.bytes);
                host.stirred = true;
            }
        }
    }

    /// Takes what a host sent to its link.
    pub(super) fn send_frames(&mut self, number: usize) {
        while let Some(lab) = &mut self.hosts[number].lab
            && let Some(SentFrame { bytes, segment }) = lab.take_sent()
        {
            self.trace.frame(self.now, number, &bytes);
            match segment {
                Some(size) if !self.passes_whole(number, &bytes, size.get()) => {
                    self.coverage.cut += 1;
                    for segment in cut(&bytes, size.get().into()) {
                        self.enter_link(number, segment);
                    }
                }
                Some(_) => {
                    self.coverage.whole += 1;
                    self.enter_link(number, bytes);
                }
                None => self.enter_link(number, bytes),
            }
        }
    }

    /// Whether a super-frame stays in one piece: the other end takes such frames too, as over veth, and the way takes its
    /// segments.
    fn passes_whole(&self, from: usize, frame: &[u8], size: u16) -> bool {
        let Some(packet) = look(frame) else {
            return false;
        };
        let segment = u32::from(size) + MAX_HEADERS;
        self.host_of(packet.destination).is_some_and(|to| {
            self.scenario.hosts[to].segmentation.is_some()
                && [from, to]
                    .iter()
                    .all(|&host| segment <= self.hosts[host].mtu)
        })
    }

    fn enter_link(&mut self, number: usize, frame: Vec<u8>) {
        let now = self.now;
        let up = &mut self.lines[number][0];
        if let Some(recording) = &mut self.recording {
            let by_client = &self.by_client;
            recording.segment(now, &frame, |packet| connection_of(by_client, packet));
            recording.queue(now, number, false, up.queued(now));
        }
        up.enter(now, std::iter::once(&frame[..]), RxChecksum::Unverified);
        up.give_back(frame);
    }

    fn host_of(&self, address: IpAddr) -> Option<usize> {
        (0..self.hosts.len()).find(|&host| host_address(host, address.is_ipv6()) == address)
    }

    fn route(&mut self, from: usize, frame: Vec<u8>) {
        let Some(packet) = look(&frame) else { return };
        let Some(to) = self.host_of(packet.destination) else {
            return;
        };
        let dark = |host: &Host| host.outage_until > self.now;
        if dark(&self.hosts[from]) || dark(&self.hosts[to]) {
            return;
        }
        // A super-frame that came so far in one piece is larger than any packet of its link.
        let whole = packet.len > self.scenario.hosts[from].mtu as usize;
        let narrow = [from, to]
            .into_iter()
            .find(|&host| packet.len > self.hosts[host].mtu as usize);
        let (line, frame) = match narrow {
            Some(host) if !whole => {
                if self.scenario.hosts[host].silent {
                    self.coverage.swallowed += 1;
                    return;
                }
                self.coverage.too_big += 1;
                let mtu = self.hosts[host].mtu;
                (from, too_big(&frame, &packet, mtu))
            }
            _ => (to, frame),
        };
        let down = &mut self.lines[line][1];
        down.enter(
            self.now,
            std::iter::once(&frame[..]),
            RxChecksum::Unverified,
        );
        if let Some(recording) = &mut self.recording {
            recording.queue(self.now, line, true, down.queued(self.now));
        }
        down.give_back(frame);
    }
}

/// Whose segment a host sends: the connection, and whether the server is the sender.
fn connection_of(
    by_client: &HashMap<(usize, SocketAddr), usize>,
    packet: &Packet,
) -> Option<(usize, bool)> {
    let Packet::Tcp(packet) = packet else {
        return None;
    };
    // As the receiver sees it: local is the destination.
    let (to, from) = (packet.tuple.local_addr(), packet.tuple.remote_addr());
    let number = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]) - 1,
        IpAddr::V6(ip) => usize::from(ip.octets()[15]) - 1,
    };
    let by_client =
        |client: SocketAddr, server: SocketAddr| by_client.get(&(number(server), client)).copied();
    by_client(from, to)
        .map(|connection| (connection, false))
        .or_else(|| by_client(to, from).map(|connection| (connection, true)))
}
