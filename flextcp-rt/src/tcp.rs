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

mod close;
mod config;
mod congestion;
mod conn;
mod counters;
mod demux;
mod export;
mod handover;
mod handshake;
mod info;
mod isn;
mod listener;
mod reassembly;
mod receive;
mod recovery;
mod rtt;
mod scoreboard;
mod segment;
mod send;
#[cfg(test)]
mod sim;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod time_wait;
mod timer;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use flextcp_nic::buffer::{Pool, RecvReader, SendWriter, recv_ring, send_ring};
use flextcp_nic::flow::{FlowId, FlowState, FlowTuple, Token};
use flextcp_nic::nic::{
    Exception, FlowBuffers, FlowProgress, InstallError, Limits, Notification, Reason, Returned,
};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{MacAddr, Packet, SegmentRepr};
use slab::Slab;

pub use config::EngineConfig;
pub use export::Exported;
pub use info::TcpInfo;
pub use state::State;

use conn::{Conn, Context, Owner};
use demux::Entry;
use handshake::Birth;
use isn::Secret;
use listener::{HalfOpen, Listener, Listeners};
use send::Plan;
use table::ConnTable;
use time_wait::TimeWaitTable;
use timer::{Deadlines, Timer};

use crate::metrics::EngineCounters;
use crate::offload::Offload;
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
    secret: Secret,
    pool: Arc<Pool>,
    offload: Offload,
    conns: ConnTable,
    tuples: HashMap<FlowTuple, Entry>,
    listeners: Listeners,
    half_open: Slab<HalfOpen>,
    /// Numbers half-open connections by age.
    serial: u64,
    time_wait: TimeWaitTable,
    orphans: usize,
    /// What happened outside of connections, and to those that are forgotten.
    totals: EngineCounters,
    deadlines: Deadlines,
    half_open_deadlines: Deadlines,
    /// Stateless answers and resets.
    raw: VecDeque<SegmentRepr>,
    /// Connections that may have something to send.
    dirty: VecDeque<ConnId>,
    events: VecDeque<Event>,
    installs: VecDeque<ConnId>,
    claims: VecDeque<ConnId>,
    limits: VecDeque<(FlowId, Limits)>,
    progress: VecDeque<ConnId>,
}

impl Engine {
    /// Runs `f` on a connection, and then does what its new state asks for.
    fn with_conn<R>(
        &mut self,
        now: Instant,
        id: ConnId,
        f: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let conn = self.conns.get_mut(id)?;
        let mut cx = Context {
            now,
            config: &self.config,
            events: &mut self.events,
            raw: &mut self.raw,
        };
        let result = f(conn, &mut cx);
        self.settle(now, id);
        Some(result)
    }

    /// Queues a connection for whatever it needs now.
    fn settle(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if matches!(conn.state, State::Closed | State::TimeWait) {
            return self.forget(now, id);
        }
        self.deadlines
            .update(id.index, &mut conn.queued, conn.timers.next());
        match conn.owner {
            Owner::Host => {
                if !conn.dirty {
                    conn.dirty = true;
                    self.dirty.push_back(id);
                }
            }
            Owner::Offered => {}
            Owner::Nic(_) => {
                let wanted = &mut conn.wanted;
                let wants = wanted.shutdown || wanted.abort || wanted.grow;
                if wants && !wanted.claim {
                    wanted.claim = true;
                }
                if wanted.claim && !conn.offered {
                    // `offered` doubles as "claim queued" while the NIC has the connection.
                    conn.offered = true;
                    self.claims.push_back(id);
                }
                if std::mem::take(&mut wanted.progress) {
                    self.progress.push_back(id);
                }
            }
        }
    }

    /// Offers a connection that has said all it has to say.
    fn offer(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if !conn.offered && conn.is_plain() && self.offload.offers(&conn.hysteresis, now) {
            conn.offered = true;
            self.installs.push_back(id);
        }
    }

    fn forget(&mut self, now: Instant, id: ConnId) {
        let Some(mut conn) = self.conns.remove(id) else {
            return;
        };
        conn.counters.add_to(&mut self.totals);
        self.deadlines.remove(id.index, &mut conn.queued);
        self.tuples.remove(&conn.tuple);
        if conn.orphan {
            self.orphans = self.orphans.saturating_sub(1);
        }
        if conn.state == State::TimeWait {
            self.enter_time_wait(now, &conn);
        }
        self.events.push_back(Event::Closed(id));
    }

    fn take_returned(&mut self, now: Instant, returned: Returned, reason: Option<Reason>) {
        let Returned {
            token,
            state,
            buffers,
        } = returned;
        self.with_conn(now, token.into(), |conn, cx| {
            conn.offered = false;
            if matches!(
                reason,
                Some(Reason::OutOfOrder | Reason::DuplicateAck | Reason::Sack | Reason::Paws)
            ) {
                conn.hysteresis.punted(cx.now);
            }
            conn.take_back(cx, &state, buffers);
        });
    }
}

/// What came from outside.
impl Engine {
    /// Takes a frame that the fast path did not handle, and the connection when it comes back with it.
    pub fn handle_exception(&mut self, now: Instant, exception: Exception<'_>) {
        let Exception {
            frame,
            packet,
            reason,
            returned,
        } = exception;
        if let Some(returned) = returned {
            self.take_returned(now, returned, Some(reason));
        }
        match packet {
            Packet::Tcp(packet) => self.on_tcp(now, packet, &frame),
            Packet::Icmp(error) => self.on_icmp(now, error),
        }
    }

    /// Takes a delta of a connection on the NIC.
    pub fn handle_notification(&mut self, now: Instant, notification: Notification) {
        let id = notification.token.into();
        let claim = self.offload.claims();
        let limits = self.with_conn(now, id, |conn, cx| {
            if claim && matches!(conn.owner, Owner::Nic(_)) {
                conn.wanted.claim = true;
            }
            conn.on_notification(cx, &notification)
        });
        self.limits.extend(limits.flatten());
    }

    /// Takes a claimed connection back.
    pub fn handle_returned(&mut self, now: Instant, returned: Returned) {
        self.take_returned(now, returned, None);
    }

    /// Takes the answer to [`poll_progress_request`](Self::poll_progress_request).
    pub fn handle_progress(&mut self, now: Instant, conn: ConnId, progress: FlowProgress) {
        self.with_conn(now, conn, |conn, cx| conn.on_progress(cx, &progress));
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(index) = self.deadlines.pop_due(now) {
            let Some(id) = self.conns.id_at(index) else {
                continue;
            };
            self.with_conn(now, id, |conn, cx| {
                conn.queued = None;
                conn.on_timers(cx);
            });
        }
        self.retransmit_syn_acks(now);
        while let Some(expired) = self.time_wait.pop_expired(now) {
            self.tuples.remove(&expired.tuple);
        }
    }
}

/// Commands.
impl Engine {
    /// An engine without connections. `secret` keys sequence numbers and timestamps: random, per process.
    pub fn new(config: EngineConfig, secret: [u8; 16], pool: Arc<Pool>) -> Self {
        Self {
            offload: Offload::new(config.offload),
            secret: Secret::new(secret),
            config,
            pool,
            conns: ConnTable::default(),
            tuples: HashMap::new(),
            listeners: Listeners::default(),
            half_open: Slab::new(),
            serial: 0,
            time_wait: TimeWaitTable::default(),
            orphans: 0,
            totals: EngineCounters::default(),
            deadlines: Deadlines::default(),
            half_open_deadlines: Deadlines::default(),
            raw: VecDeque::new(),
            dirty: VecDeque::new(),
            events: VecDeque::new(),
            installs: VecDeque::new(),
            claims: VecDeque::new(),
            limits: VecDeque::new(),
            progress: VecDeque::new(),
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
        self.listeners.insert(Listener {
            local,
            backlog: backlog.min(self.config.max_backlog),
            mtu,
            options,
            accept_queue: VecDeque::new(),
            syn_queue: Default::default(),
        })
    }

    /// Changes a listener's backlog (a second `listen(2)`).
    pub fn set_backlog(&mut self, listener: ListenerId, backlog: u32) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.backlog = backlog.min(self.config.max_backlog);
        }
    }

    /// Options that connections accepted from now on inherit.
    pub fn set_listener_options(&mut self, listener: ListenerId, options: SocketOptions) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.options = options;
        }
    }

    /// The application took the oldest connection off the accept queue.
    pub fn accepted(&mut self, listener: ListenerId) {
        let taken = self
            .listeners
            .get_mut(listener)
            .and_then(|l| l.accept_queue.pop_front());
        if let Some(conn) = taken.and_then(|id| self.conns.get_mut(id)) {
            conn.listener = None;
        }
    }

    /// Ends a listener: half-open connections are forgotten, those not accepted are reset.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        let Some(listener) = self.listeners.remove(listener) else {
            return;
        };
        for (_, index) in listener.syn_queue {
            self.forget_half_open(index);
        }
        for id in listener.accept_queue {
            self.abort(now, id);
        }
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
        if self.conns.len() >= self.config.max_connections {
            return Err(CommandError::NoBuffers);
        }
        let mut iss = self.secret.initial_sequence(&tuple, now);
        match self.tuples.get(&tuple).copied() {
            None => {}
            // RFC 6191 from the active side, as Linux's tcp_tw_reuse: timestamps and a second apart.
            Some(Entry::TimeWait(index)) => {
                let entry = self.time_wait.get_mut(index).ok_or(CommandError::InUse)?;
                let apart = entry.since + std::time::Duration::from_secs(1) <= now;
                if entry.ts_recent.is_none() || !apart {
                    return Err(CommandError::InUse);
                }
                iss = entry.snd_nxt + 65_537;
                self.time_wait.remove(index);
                self.tuples.remove(&tuple);
            }
            Some(_) => return Err(CommandError::InUse),
        }
        let id = self.conns.next_id();
        let limit = options.send_buffer.unwrap_or(self.config.send_buffer);
        let (recv_writer, recv) = recv_ring(&self.pool);
        let (send, send_reader) = send_ring(&self.pool, limit);
        let negotiated = handshake::offer(&tuple, &options, &self.config);
        let birth = Birth {
            id,
            tuple,
            link,
            options,
            buffers: FlowBuffers {
                recv: recv_writer,
                send: send_reader,
            },
            negotiated,
            iss,
            ts_offset: self.secret.timestamp_offset(&tuple),
        };
        self.conns.insert(Conn::new(birth, now, &self.config));
        self.tuples.insert(tuple, Entry::Conn(id));
        self.settle(now, id);
        Ok((id, AppBuffers { recv, send }))
    }

    /// The application wrote or read. Call it for every connection: with `Some` the NIC has the connection,
    /// and the caller rings that flow's doorbell ([`Nic::doorbell`](flextcp_nic::nic::Nic::doorbell)).
    #[must_use]
    pub fn doorbell(&mut self, now: Instant, conn: ConnId) -> Option<FlowId> {
        let conn_ref = self.conns.get_mut(conn)?;
        if let Owner::Nic(flow) = conn_ref.owner {
            // The deadline queue is touched only when the timer was off.
            if !conn_ref.timers.is_set(Timer::Watch) {
                conn_ref.watch(now);
                self.settle(now, conn);
            }
            return Some(flow);
        }
        self.with_conn(now, conn, |conn, cx| {
            conn.take_written();
            conn.on_read(cx);
        });
        None
    }

    /// The application writes no more: FIN after what it wrote.
    pub fn shutdown_write(&mut self, now: Instant, conn: ConnId) {
        self.with_conn(now, conn, |conn, _| {
            if conn.on_host() {
                conn.shutdown_write();
            } else {
                conn.wanted.shutdown = true;
            }
        });
    }

    /// The application dropped the connection: FIN after what it wrote, or RST when it left bytes unread or
    /// lingers zero. The engine carries the orphan on.
    pub fn close(&mut self, now: Instant, conn: ConnId) {
        if self.conns.get(conn).is_none_or(|conn| conn.orphan) {
            return;
        }
        self.orphans += 1;
        let room = self.orphans <= self.config.max_orphans;
        self.with_conn(now, conn, |conn, cx| {
            if conn.on_host() {
                conn.close(cx, room);
            } else {
                conn.orphan = true;
                conn.wanted.shutdown = true;
                conn.wanted.abort |= !room;
            }
        });
    }

    /// Resets the connection.
    pub fn abort(&mut self, now: Instant, conn: ConnId) {
        if self.conns.get(conn).is_some_and(|conn| !conn.orphan) {
            self.orphans += 1;
        }
        self.with_conn(now, conn, |conn, cx| {
            if conn.on_host() {
                conn.abort(cx);
            } else {
                conn.orphan = true;
                conn.wanted.abort = true;
            }
        });
    }

    /// Changes an option.
    pub fn set_option(&mut self, now: Instant, conn: ConnId, option: SocketOption) {
        self.with_conn(now, conn, |conn, cx| {
            conn.options.apply(option);
            match option {
                SocketOption::KeepAlive(_) => conn.arm_keepalive(cx.now.max(conn.rcv.last_heard)),
                SocketOption::Congestion(name) => conn.congestion.replace(name),
                SocketOption::MaxSegment(_) => conn.update_mss(),
                SocketOption::QuickAck(true) => {
                    conn.rcv.ack.quick = cx.config.quick_acks;
                    conn.on_delayed_ack();
                }
                _ => {}
            }
            // What the fast path itself goes by is taken over with the next install.
            let on_nic = matches!(
                option,
                SocketOption::NoDelay(_)
                    | SocketOption::Ttl(_)
                    | SocketOption::Tos(_)
                    | SocketOption::MaxSegment(_)
            );
            conn.wanted.claim |= on_nic && !conn.on_host();
        });
    }

    /// A snapshot of the connection, `None` when the id is dead.
    pub fn info(&self, now: Instant, conn: ConnId) -> Option<TcpInfo> {
        let _ = now;
        self.conns.get(conn).map(Conn::info)
    }

    /// Next hops may have changed: `next_hop` tells the hardware address on the way to a remote address, `None` to
    /// leave it. Visits every connection.
    pub fn relink(&mut self, now: Instant, next_hop: impl Fn(IpAddr) -> Option<MacAddr>) {
        let mut moved = Vec::new();
        for conn in self.conns.iter_mut() {
            if let Some(mac) = next_hop(conn.tuple.remote.0)
                && mac != conn.link.remote_mac
            {
                conn.link.remote_mac = mac;
                conn.wanted.claim |= !conn.on_host();
                moved.push(conn.id);
            }
        }
        for id in moved {
            self.settle(now, id);
        }
    }

    /// The NIC took what [`poll_install`](Self::poll_install) offered.
    pub fn installed(&mut self, now: Instant, conn: ConnId, flow: FlowId) {
        self.with_conn(now, conn, |conn, cx| {
            conn.offered = false;
            conn.on_installed(cx, flow);
        });
    }

    /// The NIC refused it.
    pub fn install_refused(&mut self, now: Instant, conn: ConnId, error: InstallError) {
        self.with_conn(now, conn, |conn, cx| {
            conn.offered = false;
            conn.owner = Owner::Host;
            conn.buffers = Some(error.buffers);
            // A full table is not asked again at once.
            for _ in 0..16 {
                conn.hysteresis.punted(cx.now);
            }
        });
    }
}

/// What the engine wants done.
impl Engine {
    /// The next segment to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<'_>> {
        if let Some(segment) = self.raw.pop_front() {
            return Some(Transmit {
                segment,
                payload: [&[], &[]],
            });
        }
        let (id, plan) = self.next_plan(now)?;
        let Plan {
            segment,
            offset,
            len,
        } = plan;
        let buffers = self.conns.get(id).and_then(|conn| conn.buffers.as_ref());
        let payload = match buffers {
            Some(buffers) if len > 0 => buffers.send.slices(offset, len),
            _ => [&[][..], &[][..]],
        };
        Some(Transmit { segment, payload })
    }

    fn next_plan(&mut self, now: Instant) -> Option<(ConnId, Plan)> {
        while let Some(&id) = self.dirty.front() {
            if let Some(conn) = self.conns.get_mut(id) {
                if let Some(plan) = conn.poll_transmit(now, &self.config) {
                    self.deadlines
                        .update(id.index, &mut conn.queued, conn.timers.next());
                    return Some((id, plan));
                }
                conn.dirty = false;
                self.deadlines
                    .update(id.index, &mut conn.queued, conn.timers.next());
            }
            self.dirty.pop_front();
            self.offer(now, id);
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.deadlines.next(),
            self.half_open_deadlines.next(),
            self.time_wait.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next event for the application's side.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A connection to install; answer with [`installed`](Self::installed) or
    /// [`install_refused`](Self::install_refused) before any other call. Poll after `poll_transmit` is empty.
    pub fn poll_install(&mut self, now: Instant) -> Option<(ConnId, FlowState, FlowBuffers)> {
        let _ = now;
        while let Some(id) = self.installs.pop_front() {
            let Some(conn) = self.conns.get_mut(id) else {
                continue;
            };
            conn.offered = false;
            if !conn.is_plain() || conn.dirty {
                continue;
            }
            if let Some((state, buffers)) = conn.hand_over() {
                return Some((id, state, buffers));
            }
        }
        None
    }

    /// A connection to claim. Give the answer to [`handle_returned`](Self::handle_returned);
    /// a [`StaleFlow`](flextcp_nic::nic::StaleFlow) means that it is on its way already.
    pub fn poll_claim(&mut self) -> Option<(ConnId, FlowId)> {
        while let Some(id) = self.claims.pop_front() {
            if let Some(Owner::Nic(flow)) = self.conns.get(id).map(|conn| conn.owner) {
                return Some((id, flow));
            }
        }
        None
    }

    /// New limits for a flow on the NIC.
    pub fn poll_limits(&mut self) -> Option<(FlowId, Limits)> {
        self.limits.pop_front()
    }

    /// A flow whose progress the engine wants to see: [`handle_progress`](Self::handle_progress).
    pub fn poll_progress_request(&mut self, now: Instant) -> Option<(ConnId, FlowId)> {
        let _ = now;
        while let Some(id) = self.progress.pop_front() {
            if let Some(Owner::Nic(flow)) = self.conns.get(id).map(|conn| conn.owner) {
                return Some((id, flow));
            }
        }
        None
    }
}
