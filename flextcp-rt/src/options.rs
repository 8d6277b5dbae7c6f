//! Socket options of a connection, and of the connections a listener accepts.

use std::time::Duration;

/// When and how often an idle connection is probed (`SO_KEEPALIVE`, `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeepAlive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub count: u32,
}

impl Default for KeepAlive {
    /// Linux's: 2 hours, 75 seconds, 9 probes.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(7200),
            interval: Duration::from_secs(75),
            count: 9,
        }
    }
}

/// Everything that can be set on a socket. An accepted connection inherits its listener's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SocketOptions {
    /// `TCP_NODELAY`: Nagle's algorithm off.
    pub nodelay: bool,
    /// `TCP_QUICKACK`: acknowledge at once, until the connection turns interactive again.
    pub quickack: bool,
    /// `SO_KEEPALIVE` and its times; `None` is off.
    pub keepalive: Option<KeepAlive>,
    /// `SO_LINGER`: `Some(ZERO)` makes close a reset. Other times do not keep the engine from sending on.
    pub linger: Option<Duration>,
    /// `TCP_USER_TIMEOUT` (RFC 5482): how long data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// `SO_RCVBUF`: fixed size of the receive buffer in bytes; `None` tunes it by itself.
    pub recv_buffer: Option<u32>,
    /// `SO_SNDBUF`: fixed limit of the send buffer in bytes; `None` tunes it by itself.
    pub send_buffer: Option<u32>,
    /// `IP_TTL` or `IPV6_UNICAST_HOPS`; `None` takes the engine's default.
    pub ttl: Option<u8>,
    /// `IP_TOS` or `IPV6_TCLASS`; the ECN bits are ours.
    pub tos: u8,
    /// `TCP_CONGESTION`; `None` takes the engine's default, an unknown name too.
    pub congestion: Option<&'static str>,
    /// `TCP_MAXSEG`: upper bound of the segment size both ways.
    pub maxseg: Option<u16>,
    /// `IPV6_V6ONLY`: an `[::]` listener takes no IPv4.
    pub v6only: bool,
    /// `SO_REUSEPORT`: several listeners share an address.
    pub reuse_port: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: false,
            quickack: true,
            keepalive: None,
            linger: None,
            user_timeout: None,
            recv_buffer: None,
            send_buffer: None,
            ttl: None,
            tos: 0,
            congestion: None,
            maxseg: None,
            v6only: false,
            reuse_port: false,
        }
    }
}

/// One change to [`SocketOptions`] of a live connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SocketOption {
    /// [`SocketOptions::nodelay`].
    NoDelay(bool),
    /// [`SocketOptions::quickack`].
    QuickAck(bool),
    /// [`SocketOptions::keepalive`].
    KeepAlive(Option<KeepAlive>),
    /// [`SocketOptions::linger`].
    Linger(Option<Duration>),
    /// [`SocketOptions::user_timeout`].
    UserTimeout(Option<Duration>),
    /// [`SocketOptions::recv_buffer`].
    RecvBuffer(u32),
    /// [`SocketOptions::send_buffer`]. The engine notes it; the caller also tells the ring's writer.
    SendBuffer(u32),
    /// [`SocketOptions::ttl`].
    Ttl(u8),
    /// [`SocketOptions::tos`].
    Tos(u8),
    /// [`SocketOptions::congestion`].
    Congestion(&'static str),
    /// [`SocketOptions::maxseg`].
    MaxSegment(u16),
}

impl SocketOptions {
    /// Takes one change over.
    pub fn apply(&mut self, option: SocketOption) {
        match option {
            SocketOption::NoDelay(on) => self.nodelay = on,
            SocketOption::QuickAck(on) => self.quickack = on,
            SocketOption::KeepAlive(keepalive) => self.keepalive = keepalive,
            SocketOption::Linger(linger) => self.linger = linger,
            SocketOption::UserTimeout(timeout) => self.user_timeout = timeout,
            SocketOption::RecvBuffer(bytes) => self.recv_buffer = Some(bytes),
            SocketOption::SendBuffer(bytes) => self.send_buffer = Some(bytes),
            SocketOption::Ttl(ttl) => self.ttl = Some(ttl),
            SocketOption::Tos(tos) => self.tos = tos,
            SocketOption::Congestion(name) => self.congestion = Some(name),
            SocketOption::MaxSegment(bytes) => self.maxseg = Some(bytes),
        }
    }
}
