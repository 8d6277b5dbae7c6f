//! The words of the engine's interface.

use std::io;
use std::num::NonZeroU16;

use flextcp_nic::buffer::{RecvReader, SendWriter};
use flextcp_nic::flow::{FlowTuple, Token};
use flextcp_nic::wire::{MacAddr, SegmentRepr};

/// A connection of one engine. An index is reused with the next generation, so an old id names nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl From<ConnId> for Token {
    fn from(id: ConnId) -> Self {
        Self(u64::from(id.generation) << 32 | u64::from(id.index))
    }
}

impl From<Token> for ConnId {
    fn from(token: Token) -> Self {
        Self {
            index: token.0 as u32,
            generation: (token.0 >> 32) as u32,
        }
    }
}

/// A listener of one engine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ListenerId(pub(crate) u32);

/// The way to a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Our hardware address.
    pub local_mac: MacAddr,
    /// The next hop's.
    pub remote_mac: MacAddr,
    /// Largest IP packet of the path, as far as is known.
    pub mtu: u32,
}

/// The application's halves of a connection's app buffers.
#[derive(Debug)]
pub struct AppBuffers {
    /// Received bytes.
    pub recv: RecvReader,
    /// Bytes to send.
    pub send: SendWriter,
}

/// Why a connection failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ConnError {
    /// RST in answer to our SYN (`ECONNREFUSED`).
    Refused,
    /// RST from the peer (`ECONNRESET`).
    Reset,
    /// RST from the peer after it had closed its direction (`EPIPE`).
    BrokenPipe,
    /// Retransmissions, probes or the user timeout ran out (`ETIMEDOUT`).
    TimedOut,
    /// ICMP: host unreachable (`EHOSTUNREACH`).
    HostUnreachable,
    /// ICMP: network unreachable (`ENETUNREACH`).
    NetworkUnreachable,
    /// Ended from this side: the listener or the engine closed (`ECONNABORTED`).
    Aborted,
}

impl ConnError {
    /// The errno that Linux reports for it.
    pub const fn raw_os_error(self) -> i32 {
        match self {
            Self::Refused => 111,
            Self::Reset => 104,
            Self::BrokenPipe => 32,
            Self::TimedOut => 110,
            Self::HostUnreachable => 113,
            Self::NetworkUnreachable => 101,
            Self::Aborted => 103,
        }
    }
}

impl From<ConnError> for io::Error {
    fn from(error: ConnError) -> Self {
        Self::from_raw_os_error(error.raw_os_error())
    }
}

/// What the application's side needs to know. `Readable` and `Writable` may be spurious.
#[derive(Debug)]
pub enum Event {
    /// A connect succeeded.
    Connected(ConnId),
    /// A connection waits in the accept queue; call [`Engine::accepted`](super::Engine::accepted) when it is taken off, in this order.
    Accepted {
        /// Whose.
        listener: ListenerId,
        /// The connection.
        conn: ConnId,
        /// Its ends.
        tuple: FlowTuple,
        /// Its buffers.
        app: AppBuffers,
    },
    /// Bytes were published in the receive ring.
    Readable(ConnId),
    /// Space became free in the send ring.
    Writable(ConnId),
    /// The peer's FIN arrived: after the bytes in the receive ring comes the end of the stream.
    PeerClosed(ConnId),
    /// The connection is over, with an error; `Closed` follows.
    Failed {
        /// The connection.
        conn: ConnId,
        /// Why.
        error: ConnError,
    },
    /// The connection is in TIME_WAIT; `Closed` follows, and in a minute [`TimeWaitOver`](Self::TimeWaitOver). Until
    /// then its frames have to come here, where a FIN that is sent again is acknowledged.
    TimeWait {
        /// The connection.
        conn: ConnId,
        /// Its ends.
        tuple: FlowTuple,
    },
    /// Nothing is left of the connection of these ends.
    TimeWaitOver(FlowTuple),
    /// The engine forgot the connection: the id is dead. Bytes in the receive ring stay readable.
    Closed(ConnId),
}

/// A segment to send; the payload lies in an app buffer.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// Headers.
    pub segment: SegmentRepr,
    /// Payload, in order; either slice may be empty.
    pub payload: [&'a [u8]; 2],
    /// Payload of each segment, where there are several.
    pub cut: Option<NonZeroU16>,
}

impl Transmit<'_> {
    /// How many segments it is.
    pub fn segments(&self) -> usize {
        let len = self.payload[0].len() + self.payload[1].len();
        self.cut.map_or(1, |cut| len.div_ceil(cut.get().into()))
    }
}

/// Why [`Engine::listen`](super::Engine::listen) or [`Engine::connect`](super::Engine::connect) refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CommandError {
    /// The address, or the pair of addresses, is in use (`EADDRINUSE`; for connect `EADDRNOTAVAIL`).
    InUse,
    /// The limit of connections or memory is reached (`ENOBUFS`).
    NoBuffers,
    /// The remote address is a group's, not a host's (`ENETUNREACH`).
    NotAHost,
}
