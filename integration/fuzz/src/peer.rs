//! A peer made of nothing but what a script says, and what it may hold the host to.

use std::net::{IpAddr, SocketAddr};

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::{SeqNum, WindowScale};
use flextcp_nic::wire::{
    MAX_HEADER_LEN, MacAddr, SegmentRepr, TcpFlags, TcpOptions, TcpPacket, Timestamps,
};

/// The byte at a place of either stream: of neither short period, so that no shift goes unnoticed.
pub const fn pattern(place: u32) -> u8 {
    let mixed = place.wrapping_mul(0x9e37_79b1);
    (mixed >> 24) as u8 ^ (mixed >> 11) as u8
}

/// Further ahead than any window of these hosts: no TCP takes what lies there.
const FAR: i32 = 16 << 20;

/// One connection as its far end sees it.
#[derive(Debug)]
pub struct Peer {
    /// Local is this peer.
    pub tuple: FlowTuple,
    /// Our initial sequence number.
    pub iss: SeqNum,
    /// Behind what we sent without a gap, where we go on.
    pub nxt: SeqNum,
    /// Behind the last of what we ever sent that a window could take.
    pub sent: SeqNum,
    /// The host's initial sequence number, once it is known.
    pub host_iss: Option<SeqNum>,
    /// Behind the last of what the host ever sent.
    pub host_nxt: SeqNum,
    /// What we acknowledged last, and the most that we ever let it send up to.
    pub acked: SeqNum,
    edge: u32,
    /// What our SYN offers.
    pub offer: TcpOptions,
    /// We acknowledged its SYN: its number counts from then on.
    pub answered: bool,
    /// A reset came or went: the connection is nobody's business anymore.
    pub over: bool,
    /// The host's clock, to be echoed.
    ts_recent: u32,
}

impl Peer {
    /// A peer that sent nothing yet.
    pub fn new(tuple: FlowTuple, iss: SeqNum, offer: TcpOptions) -> Self {
        Self {
            tuple,
            iss,
            nxt: iss,
            sent: iss,
            host_iss: None,
            host_nxt: SeqNum(0),
            acked: SeqNum(0),
            edge: 0,
            offer,
            answered: false,
            over: false,
            ts_recent: 0,
        }
    }

    /// A plain segment at the end of what was sent, acknowledging all.
    pub fn segment(&self, flags: TcpFlags, clock: u32) -> SegmentRepr {
        let timestamps = self.offer.timestamps.map(|_| Timestamps {
            val: clock,
            ecr: self.ts_recent,
        });
        SegmentRepr {
            src_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            tuple: self.tuple,
            tos: 0,
            ttl: 64,
            seq: self.nxt,
            ack: self.host_nxt,
            flags,
            window: 0xffff,
            urgent: 0,
            options: TcpOptions {
                timestamps,
                ..TcpOptions::default()
            },
        }
    }

    /// Its SYN, or SYN-ACK when the host spoke first.
    pub fn syn(&self, clock: u32) -> SegmentRepr {
        let mut flags = TcpFlags::SYN;
        if self.host_iss.is_some() {
            flags |= TcpFlags::ACK;
        }
        let mut segment = self.segment(flags, clock);
        segment.seq = self.iss;
        segment.options = TcpOptions {
            timestamps: segment.options.timestamps,
            ..self.offer
        };
        segment
    }

    /// The frame of a segment that carries `len` bytes of our stream, and notes what it says.
    pub fn emit(&mut self, segment: &SegmentRepr, len: u32) -> Vec<u8> {
        let start = segment.seq.since(self.iss + 1);
        let payload: Vec<u8> = (0..len)
            .map(|offset| pattern(start.wrapping_add(offset)))
            .collect();
        let mut end = segment.seq + len;
        for flag in [TcpFlags::SYN, TcpFlags::FIN] {
            if segment.flags.contains(flag) {
                end += 1;
            }
        }
        let starts_near = (0..FAR).contains(&self.nxt.offset_from(segment.seq));
        if starts_near && end.after(self.nxt) {
            self.nxt = end;
        }
        if (0..FAR).contains(&end.offset_from(self.sent)) {
            self.sent = end;
        }
        if segment.flags.contains(TcpFlags::RST) {
            self.over = true;
        }
        if segment.flags.contains(TcpFlags::ACK)
            && let Some(host_iss) = self.host_iss
        {
            self.answered = true;
            let acked = segment.ack.since(host_iss);
            // An ACK of what the host never sent opens nothing.
            if acked <= self.host_nxt.since(host_iss) {
                let scale = match self.offer.window_scale {
                    Some(scale) if !segment.flags.contains(TcpFlags::SYN) => scale,
                    _ => WindowScale::new(0),
                };
                self.edge = self.edge.max(acked + scale.scale_up(segment.window));
                if segment.ack.after(self.acked) {
                    self.acked = segment.ack;
                }
            }
        }
        let mut header = [0; MAX_HEADER_LEN];
        let header_len = segment.emit([&payload, &[]], false, &mut header);
        [&header[..header_len], &payload].concat()
    }

    /// Takes a segment of the host's in, with its payload.
    ///
    /// # Panics
    /// When no TCP may send it.
    pub fn take(&mut self, packet: &TcpPacket, payload: &[u8], written: u32) {
        let tcp = &packet.tcp;
        if tcp.flags.contains(TcpFlags::RST) {
            self.over = true;
            return;
        }
        if let Some(ts) = tcp.options.timestamps {
            self.ts_recent = ts.val;
        }
        if tcp.flags.contains(TcpFlags::SYN) && !self.answered {
            // A SYN cookie is a new one for every SYN.
            self.host_iss = Some(tcp.seq);
            self.host_nxt = tcp.seq + 1;
            self.acked = tcp.seq;
            assert!(payload.is_empty(), "data on a SYN");
            return;
        }
        let Some(host_iss) = self.host_iss else {
            panic!("{tcp:?} before a SYN");
        };
        if tcp.flags.contains(TcpFlags::ACK) {
            let beyond = tcp.ack.since(self.iss) > self.sent.since(self.iss);
            assert!(!beyond, "{tcp:?} acknowledges more than {self:?} sent");
        }
        for (left, right) in tcp.options.sack.iter() {
            let of = |edge: SeqNum| edge.since(self.iss);
            assert!(of(left) < of(right), "an empty block in {tcp:?}");
            assert!(of(right) <= of(self.sent), "a block of nothing in {tcp:?}");
        }
        let start = tcp.seq.since(host_iss + 1);
        for (place, &byte) in (start..).zip(payload) {
            assert_eq!(byte, pattern(place), "wrong byte at {place}");
        }
        let len = payload.len() as u32;
        if len > 0 {
            assert!(start + len <= written, "{tcp:?} carries what nobody wrote");
            let end = (tcp.seq + len).since(host_iss);
            // A probe of a closed window may have a byte.
            assert!(
                end <= self.edge + 1,
                "{tcp:?} up to {end}, allowed {}",
                self.edge
            );
        }
        let mut end = tcp.seq + len;
        if tcp.flags.contains(TcpFlags::FIN) {
            end += 1;
        }
        if end.after(self.host_nxt) {
            self.host_nxt = end;
        }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.tuple.local.0, self.tuple.local.1)
    }
}

/// The peer's address in a script.
pub fn address(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2])
    } else {
        IpAddr::from([10, 0, 0, 2])
    }
}

/// The host's address in a script.
pub fn host(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])
    } else {
        IpAddr::from([10, 0, 0, 1])
    }
}
