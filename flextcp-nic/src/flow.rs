//! `FlowState`: the few words of a connection that are handed to the NIC, and who a flow is.

pub(crate) mod fields;

use core::fmt;
use core::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The two ends of a connection, seen from here.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FlowTuple {
    /// Our address and TCP port. IPv6 scope and flow label are not part of the identity.
    pub local: (IpAddr, u16),
    /// The peer's.
    pub remote: (IpAddr, u16),
}

/// In few words: tables of connections are looked up for every segment, by keyed hashes that cost by the call.
impl Hash for FlowTuple {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        match (self.local.0, self.remote.0) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                hasher.write_u64(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits()));
            }
            (local, remote) => {
                local.hash(hasher);
                remote.hash(hasher);
            }
        }
        hasher.write_u32(u32::from(self.local.1) << 16 | u32::from(self.remote.1));
    }
}

impl FlowTuple {
    /// Builds the tuple from socket addresses.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: (local.ip(), local.port()),
            remote: (remote.ip(), remote.port()),
        }
    }

    /// Our end as a socket address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local.into()
    }

    /// The peer's end as a socket address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.remote.into()
    }

    /// The same connection seen from the peer.
    pub const fn reversed(&self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
        }
    }
}

/// A flow on one NIC queue: table index and generation. An index is reused only after its removal was
/// confirmed, with the next generation, so a stale descriptor names no flow.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct FlowId {
    /// Index into the queue's slice of the flow table.
    pub index: u32,
    /// Generation of that index.
    pub generation: u32,
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flow {}.{}", self.index, self.generation)
    }
}

/// What the host calls a flow: echoed in every notification and exception.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Token(pub u64);

/// Bits of [`FlowState::flags`].
pub mod flags {
    /// Addresses are IPv6 (all four words), not IPv4 (the first word).
    pub const IPV6: u32 = 1 << 0;
    /// Timestamps were negotiated (RFC 7323): every segment carries them.
    pub const TIMESTAMPS: u32 = 1 << 1;
    /// ECN was negotiated (RFC 3168): data segments are ECT(0).
    pub const ECN: u32 = 1 << 2;
    /// Echo congestion exactly, mark by mark (DCTCP, RFC 8257), not latched until CWR.
    pub const DCTCP: u32 = 1 << 3;
    /// ECE is being echoed.
    pub const ECE: u32 = 1 << 4;
    /// The next data segment carries CWR.
    pub const CWR: u32 = 1 << 5;
    /// Acknowledge at once, do not delay (quick ACK mode).
    pub const QUICK_ACK: u32 = 1 << 6;
    /// Nagle's algorithm is off.
    pub const NO_DELAY: u32 = 1 << 7;
    /// Replies carry the ACKs, so what the peer pushes may wait for one (Linux's pingpong mode).
    pub const CONVERSATION: u32 = 1 << 8;
    /// All of them.
    pub const ALL: u32 = (1 << 9) - 1;
}

/// A plain established connection in 32 words (128 bytes): what install copies to the NIC and claim
/// copies back. Sequence numbers are raw words here, for hardware; in Rust they become
/// [`SeqNum`](crate::seq::SeqNum) through the accessors. Ring positions are relative: receive position
/// of `rcv_nxt` and send position of `snd_una` are the app buffers' own tail and head.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, PartialEq)]
#[repr(C)]
pub struct FlowState {
    /// Local address, network order bytes in each word; IPv4 uses the first.
    pub local_ip: [u32; 4],
    /// Remote address.
    pub remote_ip: [u32; 4],
    /// Local port in the high half, remote port in the low half.
    pub ports: u32,
    /// Peer's MAC: first four bytes.
    pub remote_mac_high: u32,
    /// Peer's MAC: last two bytes in the high half; type of service of our packets in the low byte; TTL above it.
    pub remote_mac_low_ttl_tos: u32,
    /// [`flags`].
    pub flags: u32,
    /// Bytes of payload in a full segment, options already subtracted, in the high half (a super-frame link may
    /// need all 16 bits); our window scale in bits 8..12, the peer's in bits 0..4.
    pub mss_scales: u32,
    /// RCV.NXT.
    pub rcv_nxt: u32,
    /// Right edge of the window last advertised.
    pub rcv_adv: u32,
    /// Bytes of free space in the receive ring beyond RCV.NXT.
    pub rcv_free: u32,
    /// RCV.NXT as last acknowledged: Last.ACK.sent of RFC 7323, and the start of what a delayed ACK owes.
    pub last_ack_sent: u32,
    /// TS.Recent.
    pub ts_recent: u32,
    /// What is added to the millisecond clock to give TSval.
    pub ts_offset: u32,
    /// SND.UNA.
    pub snd_una: u32,
    /// SND.NXT.
    pub snd_nxt: u32,
    /// Sequence number after the last byte the application wrote.
    pub snd_end: u32,
    /// SND.WND in bytes, scaled.
    pub snd_wnd: u32,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Pacing rate in bytes per millisecond; 0 is unlimited.
    pub pacing_rate: u32,
    /// Counter: bytes acknowledged by the peer.
    pub acked_bytes: u32,
    /// Counter: bytes acknowledged by ACKs carrying ECE.
    pub ece_bytes: u32,
    /// Counter: data segments sent.
    pub segments_sent: u32,
    /// Counter: data segments received in order.
    pub segments_received: u32,
    /// Latest round-trip sample in microseconds, 0 when none since install.
    pub rtt_micros: u32,
    /// The largest window the peer ever offered: segments are bound to half of it.
    pub max_snd_wnd: u32,
    /// End of the last segment sent that was not full: what Nagle's algorithm as changed by Minshall waits for.
    pub snd_sml: u32,
}

const _: () = assert!(size_of::<FlowState>() <= 128);

/// Words of a [`FlowState`].
pub const FLOW_STATE_WORDS: usize = size_of::<FlowState>() / 4;
