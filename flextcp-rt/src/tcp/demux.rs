//! Whose a segment is: a connection's, a half-open one's, TIME_WAIT's, a listener's, or nobody's.

use flextcp_nic::buffer::{recv_ring, send_ring};
use flextcp_nic::nic::FlowBuffers;
use flextcp_nic::port::RxFrame;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{
    IcmpError, IcmpErrorKind, SegmentRepr, TcpFlags, TcpOptions, TcpPacket, Unreachable,
};

use super::conn::{Conn, Context};
use super::ecn;
use super::handshake::{self, Birth, reset_for};
use super::listener::{HalfOpen, Request};
use super::time_wait::{TimeWait, Verdict};
use super::{AppBuffers, ConnError, ConnId, Engine, Event, ListenerId, State};

/// What a tuple names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    Conn(ConnId),
    HalfOpen(u32),
    TimeWait(u32),
}

/// Stateless answers waiting for transmission: a flood of strays gets no more memory than this.
const MAX_RAW: usize = 4096;

impl Engine {
    pub(super) fn on_tcp(&mut self, now: Instant, packet: &TcpPacket, frame: &RxFrame<'_>) {
        if packet.tcp.flags.is_impossible() || self.on_follower(now, packet, frame) {
            return;
        }
        match self.tuples.of_segment(&packet.tuple) {
            Some(Entry::Conn(id)) => {
                self.latest = Some(id);
                self.with_conn(now, id, |conn, cx| {
                    if conn.on_host() {
                        conn.on_segment(cx, packet, frame);
                    }
                });
            }
            Some(Entry::HalfOpen(index)) => self.on_half_open(now, index, packet, frame),
            Some(Entry::TimeWait(index)) => self.on_time_wait(now, index, packet, frame),
            None => self.on_listen(now, packet, frame, None),
        }
        self.raw.truncate(MAX_RAW);
    }

    /// LISTEN, or no state at all (RFC 9293, sections 3.10.7.1 and 3.10.7.2).
    fn on_listen(
        &mut self,
        now: Instant,
        packet: &TcpPacket,
        frame: &RxFrame<'_>,
        isn: Option<SeqNum>,
    ) {
        let tcp = &packet.tcp;
        if tcp.flags.contains(TcpFlags::RST) {
            return;
        }
        let hash = self.secret.hash(&packet.tuple, 2);
        let listener = self.listeners.find(&packet.tuple, hash);
        let is_syn = tcp.flags.contains(TcpFlags::SYN) && !tcp.flags.contains(TcpFlags::ACK);
        match listener {
            Some(id) if is_syn => self.on_syn(now, id, packet, isn),
            Some(id) if self.on_cookie(now, id, packet, frame) => {}
            _ => self.raw.push_back(reset_for(packet)),
        }
    }

    fn on_syn(&mut self, now: Instant, id: ListenerId, packet: &TcpPacket, isn: Option<SeqNum>) {
        let Some(listener) = self.listeners.get(id) else {
            return;
        };
        // Linux drops a SYN that could not be accepted anyway.
        if listener.is_full() || self.conns.len() >= self.config.max_connections {
            self.totals.listen_overflow += 1;
            return;
        }
        // A number chosen for the reuse of TIME_WAIT leaves no room for a cookie.
        let full = listener.syn_queue_is_full(&self.config) && isn.is_none();
        if full && !self.config.syn_cookies {
            self.totals.listen_overflow += 1;
            return;
        }
        let Some(listener) = self.listeners.get_mut(id) else {
            return;
        };
        let offer = handshake::offer(&packet.tuple, &listener.options, &self.config);
        let mut negotiated = offer.agree(&packet.tuple, &packet.tcp.options, &self.config);
        negotiated.ecn &= ecn::requested(packet.tcp.flags);
        let request = Request {
            packet,
            negotiated,
            iss: isn.unwrap_or_else(|| self.secret.initial_sequence(&packet.tuple, now)),
            ts_offset: self.secret.timestamp_offset(&packet.tuple),
        };
        let mut half_open = listener.half_open(id, now, &self.config, request);
        if full {
            listener.cookies_since = Some(now);
            self.totals.defence.syn_cookies_sent += 1;
            let answer = half_open.cookie(&self.secret, now);
            self.raw.push_back(answer);
            return;
        }
        self.serial += 1;
        half_open.serial = self.serial;
        self.raw.push_back(half_open.syn_ack(now));
        let index = self.half_open.insert(half_open) as u32;
        listener.syn_queue.insert((self.serial, index));
        listener.young += 1;
        self.tuples.insert(packet.tuple, Entry::HalfOpen(index));
        self.schedule_half_open(index);
    }

    fn schedule_half_open(&mut self, index: u32) {
        if let Some(half_open) = self.half_open.get_mut(index as usize) {
            let deadline = Some(half_open.deadline);
            self.half_open_deadlines
                .update(index, &mut half_open.queued, deadline);
        }
    }

    pub(super) fn forget_half_open(&mut self, index: u32) -> Option<HalfOpen> {
        let mut half_open = self.half_open.try_remove(index as usize)?;
        self.half_open_deadlines
            .remove(index, &mut half_open.queued);
        self.tuples.remove(&half_open.tuple);
        if let Some(listener) = self.listeners.get_mut(half_open.listener) {
            listener.syn_queue.remove(&(half_open.serial, index));
            listener.young -= usize::from(half_open.retries == 0);
        }
        Some(half_open)
    }

    /// An ACK that a listener gets: of a cookie, when it sent some lately. `false` when it proves nothing.
    fn on_cookie(
        &mut self,
        now: Instant,
        id: ListenerId,
        packet: &TcpPacket,
        frame: &RxFrame<'_>,
    ) -> bool {
        let tcp = &packet.tcp;
        let Some(listener) = self.listeners.get(id) else {
            return false;
        };
        if !tcp.flags.contains(TcpFlags::ACK)
            || tcp.flags.contains(TcpFlags::SYN)
            || !listener.expects_cookies(now)
        {
            return false;
        }
        let (irs, iss) = (tcp.seq - 1, tcp.ack - 1);
        let offer = handshake::offer(&packet.tuple, &listener.options, &self.config);
        let ts_offset = self.secret.timestamp_offset(&packet.tuple);
        let Some(mss) = self.secret.check_cookie(&packet.tuple, irs, iss, now) else {
            self.totals.defence.syn_cookies_failed += 1;
            return false;
        };
        let Some(negotiated) = offer.of_cookie(mss, &tcp.options, ts_offset, &self.config) else {
            self.totals.defence.syn_cookies_failed += 1;
            return false;
        };
        if listener.is_full() || self.conns.len() >= self.config.max_connections {
            self.totals.listen_overflow += 1;
            return true;
        }
        let request = Request {
            packet,
            negotiated,
            iss,
            ts_offset,
        };
        let mut half_open = listener.half_open(id, now, &self.config, request);
        half_open.irs = irs;
        half_open.sent_at = None;
        self.totals.defence.syn_cookies_accepted += 1;
        self.promote(now, half_open, packet, frame);
        true
    }

    /// SYN_RECEIVED of a passive open (RFC 9293, section 3.10.7.4).
    fn on_half_open(&mut self, now: Instant, index: u32, packet: &TcpPacket, frame: &RxFrame<'_>) {
        let Some(half_open) = self.half_open.get_mut(index as usize) else {
            return;
        };
        let tcp = &packet.tcp;
        if tcp.flags.contains(TcpFlags::RST) {
            // RFC 5961, section 3.2: only the exact number; others are not even challenged here.
            if tcp.seq == half_open.irs + 1 {
                self.forget_half_open(index);
            }
            return;
        }
        if tcp.flags.contains(TcpFlags::SYN) {
            if !half_open.answers(now, &self.config) {
                self.totals.defence.acks_held_back += 1;
            } else if tcp.seq != half_open.irs || tcp.flags.contains(TcpFlags::ACK) {
                // Another SYN: the peer forgot the first, and its RST will tell us.
                let answer = half_open.ack(now);
                self.raw.push_back(answer);
            } else {
                // The SYN again: our SYN-ACK was lost.
                if half_open.negotiated.timestamps
                    && let Some(ts) = tcp.options.timestamps
                {
                    half_open.ts_recent = ts.val;
                }
                let answer = half_open.syn_ack(now);
                self.raw.push_back(answer);
            }
            return;
        }
        if !tcp.flags.contains(TcpFlags::ACK) {
            return;
        }
        if tcp.ack != half_open.iss + 1 {
            self.raw.push_back(reset_for(packet));
            return;
        }
        let window = u32::from(half_open.window);
        let first = half_open.irs + 1;
        let old = half_open.negotiated.timestamps
            && tcp
                .options
                .timestamps
                .is_some_and(|ts| SeqNum(ts.val).before(SeqNum(half_open.ts_recent)));
        if old || tcp.seq.after(first + window) || packet.seq_end().before(first) {
            if half_open.answers(now, &self.config) {
                let answer = half_open.ack(now);
                self.raw.push_back(answer);
            } else {
                self.totals.defence.acks_held_back += 1;
            }
            return;
        }
        let Some(listener) = self.listeners.get(half_open.listener) else {
            return;
        };
        // Linux ignores the ACK when the accept queue is full; the peer believes it is connected, and its
        // data or our SYN-ACK's timer tries again.
        if listener.is_full() || self.conns.len() >= self.config.max_connections {
            self.totals.listen_overflow += 1;
            return;
        }
        if let Some(half_open) = self.forget_half_open(index) {
            self.promote(now, half_open, packet, frame);
        }
    }

    /// The handshake is complete: a connection for the accept queue.
    fn promote(
        &mut self,
        now: Instant,
        half_open: HalfOpen,
        packet: &TcpPacket,
        frame: &RxFrame<'_>,
    ) {
        let Some(listener) = self.listeners.get_mut(half_open.listener) else {
            return;
        };
        let options = listener.options.clone();
        let id = self.conns.next_id();
        listener.accept_queue.push_back(id);
        let limit = self.config.first_send_limit(options.send_buffer);
        let (recv_writer, recv) = recv_ring(&self.pool);
        let (send, send_reader) = send_ring(&self.pool, limit);
        let birth = Birth {
            id,
            tuple: half_open.tuple,
            link: half_open.link,
            options,
            buffers: FlowBuffers {
                recv: recv_writer,
                send: send_reader,
            },
            negotiated: half_open.negotiated,
            iss: half_open.iss,
            ts_offset: half_open.ts_offset,
        };
        let mut conn = Conn::new(birth, now, &self.config);
        conn.accept(&half_open, packet, now, &self.config);
        self.totals.accepted += 1;
        self.conns.insert(conn);
        self.tuples.insert(half_open.tuple, Entry::Conn(id));
        self.events.push_back(Event::Accepted {
            listener: half_open.listener,
            conn: id,
            tuple: half_open.tuple,
            app: AppBuffers { recv, send },
        });
        self.with_conn(now, id, |conn, cx| conn.on_segment(cx, packet, frame));
    }

    /// SYN-ACK timers that are due.
    pub(super) fn retransmit_syn_acks(&mut self, now: Instant) {
        while let Some(index) = self.half_open_deadlines.pop_due(now) {
            let Some(half_open) = self.half_open.get_mut(index as usize) else {
                continue;
            };
            half_open.queued = None;
            let Some(listener) = self.listeners.get_mut(half_open.listener) else {
                continue;
            };
            if half_open.retries >= listener.synack_retries(&self.config) {
                self.forget_half_open(index);
                continue;
            }
            listener.young -= usize::from(half_open.retries == 0);
            half_open.retries += 1;
            self.totals.recovery.timeouts += 1;
            self.totals.recovery.retransmitted += 1;
            let wait = self.config.rto_initial * (1 << half_open.retries.min(16));
            half_open.deadline = now + wait.min(self.config.rto_max);
            let answer = half_open.syn_ack(now);
            self.raw.push_back(answer);
            self.schedule_half_open(index);
        }
    }

    fn on_time_wait(&mut self, now: Instant, index: u32, packet: &TcpPacket, frame: &RxFrame<'_>) {
        let Some(entry) = self.time_wait.get_mut(index) else {
            return;
        };
        match entry.on_segment(packet) {
            Verdict::Drop => {}
            Verdict::End => self.end_time_wait(index),
            Verdict::Ack { restart } => {
                let limited = entry
                    .last_ack_sent
                    .is_some_and(|at| !restart && at + self.config.challenge_interval > now);
                if limited {
                    self.totals.defence.acks_held_back += 1;
                } else {
                    entry.last_ack_sent = Some(now);
                    let answer = time_wait_ack(entry, now);
                    self.raw.push_back(answer);
                }
                if restart {
                    self.time_wait.restart(index, now + self.config.time_wait);
                }
            }
            Verdict::Reuse { isn } => {
                let hash = self.secret.hash(&packet.tuple, 2);
                if self.listeners.find(&packet.tuple, hash).is_some() {
                    self.end_time_wait(index);
                    self.on_listen(now, packet, frame, Some(isn));
                } else {
                    // As Linux without a listener: our ACK makes a peer that means it reset the old connection, and whoever has
                    // the port by then gets its next SYN, which a Linux peer sends at once.
                    let answer = time_wait_ack(entry, now);
                    self.raw.push_back(answer);
                }
            }
        }
    }

    /// Ends an entry before its time.
    pub(super) fn end_time_wait(&mut self, index: u32) {
        if let Some(entry) = self.time_wait.remove(index) {
            self.time_wait_over(&entry);
        }
    }

    pub(super) fn time_wait_over(&mut self, entry: &TimeWait) {
        self.tuples.remove(&entry.tuple);
        self.events.push_back(Event::TimeWaitOver(entry.tuple));
    }

    /// Leaves an entry in place of a connection.
    pub(super) fn enter_time_wait(&mut self, now: Instant, conn: &Conn) {
        while self.time_wait.len() >= self.config.max_time_wait.max(1) {
            if let Some(oldest) = self.time_wait.pop_oldest() {
                self.time_wait_over(&oldest);
            }
        }
        let index = self.time_wait.insert(TimeWait {
            tuple: conn.tuple,
            link: conn.link,
            snd_nxt: conn.snd.nxt,
            rcv_nxt: conn.rcv.nxt,
            rcv_wnd: conn.rcv.adv.since(conn.rcv.nxt),
            rcv_wscale: conn.negotiated.rcv_wscale,
            ts_recent: conn.negotiated.timestamps.then_some(conn.rcv.ts_recent),
            ts_offset: conn.ts_offset,
            ttl: conn.options.ttl.unwrap_or(self.config.ttl),
            tos: conn.options.tos & !3,
            expires: now + self.config.time_wait,
            since: now,
            last_ack_sent: None,
        });
        self.tuples.insert(conn.tuple, Entry::TimeWait(index));
        // The FIN that brought us here is acknowledged from here.
        if conn.rcv.ack.now > 0
            && let Some(entry) = self.time_wait.get_mut(index)
        {
            let answer = time_wait_ack(entry, now);
            self.raw.push_back(answer);
        }
    }

    pub(super) fn on_icmp(&mut self, now: Instant, error: &IcmpError) {
        let Some(Entry::Conn(id)) = self.tuples.get(&error.tuple).copied() else {
            return;
        };
        self.with_conn(now, id, |conn, cx| conn.on_icmp(cx, error));
    }
}

fn time_wait_ack(entry: &TimeWait, now: Instant) -> SegmentRepr {
    SegmentRepr {
        src_mac: entry.link.local_mac,
        dst_mac: entry.link.remote_mac,
        tuple: entry.tuple,
        tos: entry.tos,
        ttl: entry.ttl,
        seq: entry.snd_nxt,
        ack: entry.rcv_nxt,
        flags: TcpFlags::ACK,
        window: entry.rcv_wscale.scale_down(entry.rcv_wnd),
        urgent: 0,
        options: TcpOptions {
            timestamps: entry.timestamps(now),
            ..TcpOptions::default()
        },
    }
}

impl Conn {
    /// Becomes the ESTABLISHED connection that a half-open one has grown to.
    fn accept(
        &mut self,
        half_open: &HalfOpen,
        packet: &TcpPacket,
        now: Instant,
        config: &super::EngineConfig,
    ) {
        self.state = State::Established;
        self.syn_due = false;
        self.listener = Some(half_open.listener);
        self.snd.syn_unacked = false;
        self.snd.una = self.snd.iss + 1;
        self.snd.nxt = self.snd.iss + 1;
        self.snd.wl1 = half_open.irs;
        self.snd.wl2 = self.snd.una;
        self.snd.small_end = self.snd.una;
        self.snd.wnd = self.negotiated.snd_wscale.scale_up(packet.tcp.window);
        self.snd.max_wnd = self.snd.wnd;
        self.rcv.irs = half_open.irs;
        self.rcv.nxt = half_open.irs + 1;
        self.rcv.last_ack_sent = self.rcv.nxt;
        self.rcv.adv = self.rcv.nxt + u32::from(half_open.window);
        self.rcv.ts_recent = half_open.ts_recent;
        self.rcv.ts_recent_at = now;
        self.retransmits = u32::from(half_open.retries);
        self.start_sender(config);
        self.retransmits = 0;
        match half_open.sent_at {
            Some(at) if half_open.retries == 0 => {
                self.rtt.sample(now, now.saturating_since(at));
            }
            Some(_) => self.rtt.handshake_timed_out(),
            None => {}
        }
        self.arm_keepalive(now);
    }

    /// An ICMP error about a segment of ours (RFC 5927: only about one in flight).
    fn on_icmp(&mut self, cx: &mut Context<'_>, error: &IcmpError) {
        if error.seq.before(self.snd.una) || error.seq.after(self.snd.nxt) {
            return;
        }
        match error.kind {
            IcmpErrorKind::PacketTooBig { mtu } => self.on_packet_too_big(mtu),
            IcmpErrorKind::Unreachable { reason, hard } => {
                let error = match reason {
                    Unreachable::Network => ConnError::NetworkUnreachable,
                    Unreachable::Port | Unreachable::Protocol => ConnError::Refused,
                    _ => ConnError::HostUnreachable,
                };
                // RFC 5461: while connecting it ends the attempt, as Linux does; later it only explains a timeout.
                if hard && matches!(self.state, State::SynSent | State::SynReceived) {
                    self.fail(cx, error);
                } else {
                    self.soft_error = Some(error);
                }
            }
            IcmpErrorKind::TimeExceeded => self.soft_error = Some(ConnError::HostUnreachable),
            _ => {}
        }
    }
}
