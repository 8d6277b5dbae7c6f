//! The engine: a complete sans-IO TCP, and the slow path of connections that the NIC carries.
//!
//! It never reads a clock, sends a frame or blocks. Its driver (the reactor, the lab, a test) calls three
//! families of methods:
//!
//! - `handle_*`: what came from outside (frames, notifications, returned connections, time);
//! - commands: what the application asks for;
//! - `poll_*`: what the engine wants done, to be called until each says `None` after any of the above.
//!
//! At any moment a connection is owned by the engine or by the NIC. While the NIC has it, the engine keeps
//! its timers and its congestion control and sees notifications only.

mod config;
mod info;
mod state;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use flextcp_nic::buffer::{Pool, RecvReader, SendWriter};
use flextcp_nic::flow::{FlowId, FlowState, FlowTuple, Token};
use flextcp_nic::nic::{
    Exception, FlowBuffers, FlowProgress, InstallError, Limits, Notification, Returned,
};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{MacAddr, SegmentRepr};

pub use config::EngineConfig;
pub use info::TcpInfo;
pub use state::State;

use crate::options::{SocketOption, SocketOptions};

/// A connection of one engine. An index is reused with the next generation, so an old id names nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnId {
    index: u32,
    generation: u32,
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
pub struct ListenerId(u32);

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
    /// A connection waits in the accept queue; call [`Engine::accepted`] when it is taken off, in this order.
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
}

/// Why [`Engine::listen`] or [`Engine::connect`] refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CommandError {
    /// The address, or the pair of addresses, is in use (`EADDRINUSE`; for connect `EADDRNOTAVAIL`).
    InUse,
    /// The limit of connections or memory is reached (`ENOBUFS`).
    NoBuffers,
}

/// The slow path of one core. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    secret: [u8; 16],
    pool: Arc<Pool>,
}

/// What came from outside.
impl Engine {
    /// Takes a frame that the fast path did not handle, and the connection when it comes back with it.
    pub fn handle_exception(&mut self, now: Instant, exception: Exception<'_>) {
        let _ = (now, exception);
    }

    /// Takes a delta of a connection on the NIC.
    pub fn handle_notification(&mut self, now: Instant, notification: Notification) {
        let _ = (now, notification);
    }

    /// Takes a claimed connection back.
    pub fn handle_returned(&mut self, now: Instant, returned: Returned) {
        let _ = (now, returned);
    }

    /// Takes the answer to [`poll_progress_request`](Self::poll_progress_request).
    pub fn handle_progress(&mut self, now: Instant, conn: ConnId, progress: FlowProgress) {
        let _ = (now, conn, progress);
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }
}

/// Commands.
impl Engine {
    /// An engine without connections. `secret` keys sequence numbers and timestamps: random, per process.
    pub fn new(config: EngineConfig, secret: [u8; 16], pool: Arc<Pool>) -> Self {
        Self {
            config,
            secret,
            pool,
        }
    }

    /// Listens on `local`; an unspecified address means every address, `[::]` IPv4 too unless v6only.
    /// `mtu` of the interface bounds the MSS that SYN-ACKs announce.
    ///
    /// # Errors
    /// [`CommandError::InUse`].
    pub fn listen(
        &mut self,
        local: SocketAddr,
        backlog: u32,
        mtu: u32,
        options: SocketOptions,
    ) -> Result<ListenerId, CommandError> {
        let _ = (local, backlog, mtu, options);
        Err(CommandError::InUse)
    }

    /// Changes a listener's backlog (a second `listen(2)`).
    pub fn set_backlog(&mut self, listener: ListenerId, backlog: u32) {
        let _ = (listener, backlog);
    }

    /// Options that connections accepted from now on inherit.
    pub fn set_listener_options(&mut self, listener: ListenerId, options: SocketOptions) {
        let _ = (listener, options);
    }

    /// The application took the oldest connection off the accept queue.
    pub fn accepted(&mut self, listener: ListenerId) {
        let _ = listener;
    }

    /// Ends a listener: half-open connections are forgotten, those not accepted are reset.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        let _ = (now, listener);
    }

    /// Opens a connection; [`Event::Connected`] or [`Event::Failed`] follows.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn connect(
        &mut self,
        now: Instant,
        tuple: FlowTuple,
        link: Link,
        options: SocketOptions,
    ) -> Result<(ConnId, AppBuffers), CommandError> {
        let _ = (now, tuple, link, options);
        Err(CommandError::NoBuffers)
    }

    /// The application wrote or read. Call it for every connection: with `Some` the NIC has the connection,
    /// and the caller rings that flow's doorbell ([`Nic::doorbell`](flextcp_nic::nic::Nic::doorbell)).
    #[must_use]
    pub fn doorbell(&mut self, now: Instant, conn: ConnId) -> Option<FlowId> {
        let _ = (now, conn);
        None
    }

    /// The application writes no more: FIN after what it wrote.
    pub fn shutdown_write(&mut self, now: Instant, conn: ConnId) {
        let _ = (now, conn);
    }

    /// The application dropped the connection: FIN after what it wrote, or RST when it left bytes unread or
    /// lingers zero. The engine carries the orphan on.
    pub fn close(&mut self, now: Instant, conn: ConnId) {
        let _ = (now, conn);
    }

    /// Resets the connection.
    pub fn abort(&mut self, now: Instant, conn: ConnId) {
        let _ = (now, conn);
    }

    /// Changes an option.
    pub fn set_option(&mut self, now: Instant, conn: ConnId, option: SocketOption) {
        let _ = (now, conn, option);
    }

    /// A snapshot of the connection, `None` when the id is dead.
    pub fn info(&self, now: Instant, conn: ConnId) -> Option<TcpInfo> {
        let _ = (now, conn);
        None
    }

    /// The next hop to `remote` has another hardware address now.
    pub fn set_link(&mut self, remote: IpAddr, mac: MacAddr) {
        let _ = (remote, mac);
    }

    /// The NIC took what [`poll_install`](Self::poll_install) offered.
    pub fn installed(&mut self, now: Instant, conn: ConnId, flow: FlowId) {
        let _ = (now, conn, flow);
    }

    /// The NIC refused it.
    pub fn install_refused(&mut self, now: Instant, conn: ConnId, error: InstallError) {
        let _ = (now, conn, error);
    }
}

/// What the engine wants done.
impl Engine {
    /// The next segment to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<'_>> {
        let _ = now;
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next event for the application's side.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// A connection to install; answer with [`installed`](Self::installed) or
    /// [`install_refused`](Self::install_refused) before any other call. Poll after `poll_transmit` is empty.
    pub fn poll_install(&mut self, now: Instant) -> Option<(ConnId, FlowState, FlowBuffers)> {
        let _ = now;
        None
    }

    /// A connection to claim. Give the answer to [`handle_returned`](Self::handle_returned);
    /// a [`StaleFlow`](flextcp_nic::nic::StaleFlow) means that it is on its way already.
    pub fn poll_claim(&mut self) -> Option<(ConnId, FlowId)> {
        None
    }

    /// New limits for a flow on the NIC.
    pub fn poll_limits(&mut self) -> Option<(FlowId, Limits)> {
        None
    }

    /// A flow whose progress the engine wants to see: [`handle_progress`](Self::handle_progress).
    pub fn poll_progress_request(&mut self, now: Instant) -> Option<(ConnId, FlowId)> {
        let _ = now;
        None
    }
}
