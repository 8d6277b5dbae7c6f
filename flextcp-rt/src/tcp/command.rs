//! What the application asks for.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use flextcp_nic::buffer::{recv_ring, send_ring};
use flextcp_nic::flow::{FlowId, FlowTuple};
use flextcp_nic::nic::FlowBuffers;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::MacAddr;

use super::conn::{Conn, Owner};
use super::demux::Entry;
use super::handshake::{self, Birth};
use super::listener::Listener;
use super::timer::Timer;
use super::{AppBuffers, CommandError, ConnId, Directory, Engine, Link, ListenerId, TcpInfo};
use crate::options::{SocketOption, SocketOptions};

impl Engine {
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
        let v6only = options.v6only;
        let listener = self.listeners.insert(Listener {
            local,
            backlog: backlog.min(self.config.max_backlog),
            mtu,
            options,
            accept_queue: VecDeque::new(),
            syn_queue: Default::default(),
            young: 0,
            cookies_since: None,
        })?;
        self.tuples.listens(local, v6only);
        Ok(listener)
    }

    /// Makes it one of several engines of an interface, the one of `queue`, before it serves. Frames of a connection
    /// have to reach its [`home`](Directory::home).
    pub fn join(&mut self, directory: Arc<Directory>, queue: u32) {
        self.tuples.join(directory, queue);
    }

    /// Whether a listener takes a SYN of `tuple`.
    pub fn listens(&self, tuple: &FlowTuple) -> bool {
        self.listeners.find(tuple, 0).is_some()
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

    /// The application took the oldest connection off the accept queue: from now on the NIC may have it.
    pub fn accepted(&mut self, now: Instant, listener: ListenerId) {
        let taken = self
            .listeners
            .get_mut(listener)
            .and_then(|l| l.accept_queue.pop_front());
        if let Some(conn) = taken.and_then(|id| self.conns.get_mut(id)) {
            conn.listener = None;
            let id = conn.id;
            self.settle(now, id);
        }
    }

    /// Ends a listener: half-open connections are forgotten, those not accepted are reset.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        let Some(listener) = self.listeners.remove(listener) else {
            return;
        };
        self.tuples.listens_no_more(listener.local);
        for (_, index) in listener.syn_queue {
            self.forget_half_open(index);
        }
        for id in listener.accept_queue {
            self.abort(now, id);
        }
    }

    /// Opens a connection; [`Event::Connected`](super::Event::Connected) or [`Event::Failed`](super::Event::Failed) follows.
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
        if is_group(tuple.remote.0) {
            return Err(CommandError::NotAHost);
        }
        if self.conns.len() >= self.config.max_connections {
            return Err(CommandError::NoBuffers);
        }
        let mut iss = self.secret.initial_sequence(&tuple, now);
        match self.tuples.get(&tuple).copied() {
            None if self.tuples.is_elsewhere(&tuple) => return Err(CommandError::InUse),
            None => {}
            // RFC 6191 from the active side, as Linux's tcp_tw_reuse: timestamps and a second apart.
            Some(Entry::TimeWait(index)) => {
                let entry = self.time_wait.get_mut(index).ok_or(CommandError::InUse)?;
                let apart = entry.since + std::time::Duration::from_secs(1) <= now;
                if entry.ts_recent.is_none() || !apart {
                    return Err(CommandError::InUse);
                }
                iss = entry.snd_nxt + 65_537;
                self.end_time_wait(index);
            }
            Some(_) => return Err(CommandError::InUse),
        }
        let id = self.conns.next_id();
        let limit = self.config.first_send_limit(options.send_buffer);
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
            let limits = conn_ref.on_written(now);
            self.limits.extend(limits.map(|limits| (flow, limits)));
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
                SocketOption::Congestion(name) => conn.congestion.replace(name, conn.snd.iss.0),
                SocketOption::MaxSegment(_) => conn.update_mss(),
                SocketOption::RecvBuffer(_) => conn.apply_receive_buffer(cx.config),
                // Once more: tuning may have raised it before it was told.
                SocketOption::SendBuffer(bytes) => conn.send_gauge.set_limit(bytes),
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
                    | SocketOption::RecvBuffer(_)
            );
            conn.wanted.claim |= on_nic && !conn.on_host();
        });
    }

    /// Whether a connection has these ends, here or on another queue of the interface, TIME_WAIT included.
    pub fn knows(&self, tuple: &FlowTuple) -> bool {
        self.tuples.get(tuple).is_some() || self.tuples.is_elsewhere(tuple)
    }

    /// A snapshot of the connection, `None` when the id is dead.
    pub fn info(&self, now: Instant, conn: ConnId) -> Option<TcpInfo> {
        let _ = now;
        self.conns.get(conn).map(Conn::info)
    }

    /// Snapshots of all connections but those in TIME_WAIT. Visits every one.
    pub fn infos(&self) -> impl Iterator<Item = (FlowTuple, TcpInfo)> {
        self.conns.iter().map(|conn| (conn.tuple, conn.info()))
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
}

/// RFC 9293, section 3.9.2.3: no connection to a broadcast or multicast address, as Linux's `tcp_v4_connect`.
fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}
