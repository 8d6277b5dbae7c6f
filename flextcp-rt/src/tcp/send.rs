//! What to send next, and how much: retransmissions, new data under Nagle and the windows, FIN, probes, ACKs.

use std::num::NonZeroU16;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{SackBlocks, SegmentRepr, TcpFlags};

use super::conn::{Conn, Context};
use super::timer::Timer;
use super::{EngineConfig, State};

/// A segment to send and where its payload lies in the send ring. Its [headers](Conn::headers) are written last: they are many
/// bytes to hand around.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) seq: SeqNum,
    pub(super) flags: TcpFlags,
    pub(super) offset: u32,
    pub(super) len: u32,
    /// Payload of each segment, where there are several.
    pub(super) cut: Option<NonZeroU16>,
}

/// What a segment is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// SYN, or SYN-ACK.
    Syn,
    /// Data and FIN that were never sent.
    New,
    /// Data and FIN once more.
    Again,
    /// Nothing but an acknowledgment.
    Ack,
}

impl Plan {
    pub(super) const fn bare(kind: Kind, seq: SeqNum, flags: TcpFlags) -> Self {
        Self {
            kind,
            seq,
            flags,
            offset: 0,
            len: 0,
            cut: None,
        }
    }
}

impl Conn {
    /// The next segment, noted as sent; `None` when all is said.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Plan> {
        if !self.on_host() {
            return None;
        }
        let plan = match self.state {
            State::Closed | State::TimeWait => None,
            State::SynSent | State::SynReceived => self.poll_syn(now),
            _ => self
                .poll_paced(now)
                .or_else(|| self.poll_probe())
                .or_else(|| self.poll_ack()),
        }?;
        self.counters.segs_out += 1;
        Some(plan)
    }

    /// Data, new or again, as fast as the pacing rate lets it go.
    pub(super) fn poll_paced(&mut self, now: Instant) -> Option<Plan> {
        let rate = self.congestion.pacing_rate;
        if let Some(at) = self.pace.blocked(now, rate) {
            let waits = self.board.lost_bytes() > 0 || self.unsent() > 0 || self.fin_due();
            if waits {
                self.timers.set(Timer::Pace, at);
            }
            return None;
        }
        let plan = self
            .poll_loss_probe(now)
            .or_else(|| self.poll_retransmission(now))
            .or_else(|| self.poll_data(now))?;
        self.pace.sent(now, rate, plan.len);
        Some(plan)
    }

    pub(super) fn poll_retransmission(&mut self, now: Instant) -> Option<Plan> {
        // RFC 5682, section 3.1, step 2.b: new data tells whether the timeout was spurious.
        if self.recovery.send_new
            && let Some(plan) = self.poll_data(now)
        {
            return Some(plan);
        }
        let lost = self.board.next_lost()?;
        let in_flight = self.in_flight();
        let mss = self.snd.mss.bytes();
        let end = lost.end.earliest(lost.start + self.payload_limit());
        // A FIN that does not fit beside its data anymore goes alone.
        let len = end.since(lost.start);
        if in_flight > 0 && in_flight.saturating_add(len) > self.congestion.window.cwnd.max(mss) {
            self.note_usage(true);
            return None;
        }
        // A second loss of the same segment is found by what is sent after it, which takes another round trip: with a path
        // longer than the least timeout RFC 6298's rule 5.3 alone would let the timer win (Linux's
        // `tcp_xmit_retransmit_queue`).
        if lost.start == self.snd.una {
            self.timers.set(Timer::Retransmit, now + self.rto());
        }
        Some(self.retransmit(now, lost.start, end))
    }

    /// Sends `start..end` again, the beginning of a segment in flight.
    fn retransmit(&mut self, now: Instant, start: SeqNum, end: SeqNum) -> Plan {
        self.on_mtu_probe_lost(now, start);
        let len = end.since(start);
        let in_flight = self.in_flight().saturating_add(len);
        let stamp = self.delivery.stamp(now, false, in_flight);
        self.board.retransmitted(start, end, now, stamp);
        self.counters.total_retrans += 1;
        self.recovery.sent(len);
        let ts_val = self
            .negotiated
            .timestamps
            .then(|| self.timestamp_clock(now));
        self.recovery.retransmitted(ts_val);
        self.start_sender_timers(now, 0);
        self.segment(now, start, end, Kind::Again)
    }

    /// A tail loss probe: new data if the peer's window takes it, else the last segment again
    /// (RFC 8985, section 7.3); in fast recovery what is lost. The congestion window does not matter.
    fn poll_loss_probe(&mut self, now: Instant) -> Option<Plan> {
        if !std::mem::take(&mut self.recovery.probe_due) {
            return None;
        }
        let usable = (self.snd.una + self.snd.wnd).since(self.snd.nxt);
        let len = self.unsent().min(self.payload_limit());
        if len > 0 && len <= usable && self.probes_with_new_data() {
            let fin = self.fin_due() && len == self.unsent() && len < usable;
            let plan = self.send_new(now, len, fin);
            self.probe_sent(false);
            return Some(plan);
        }
        let again = self.board.next_lost();
        let last = again.or_else(|| self.board.last_unsacked())?;
        let start = last.start;
        let end = last.end.earliest(start + self.payload_limit());
        let plan = self.retransmit(now, start, end);
        self.probe_sent(true);
        Some(plan)
    }

    /// Builds the segment `start..end` of data and FIN, both in the scoreboard already.
    fn segment(&mut self, now: Instant, start: SeqNum, end: SeqNum, kind: Kind) -> Plan {
        let data_end = end.earliest(self.snd.end);
        let len = data_end.since(start);
        let mut flags = TcpFlags::ACK;
        if end.after(self.snd.end) {
            flags |= TcpFlags::FIN;
        }
        // PSH on the last segment of what the application wrote, as Linux.
        if len > 0 && data_end == self.snd.end {
            flags |= TcpFlags::PSH;
        }
        self.snd.last_sent = now;
        if len > 0 {
            let ack = &mut self.rcv.ack;
            ack.conversation |= std::mem::take(&mut ack.heard);
        }
        Plan {
            kind,
            seq: start,
            flags,
            offset: start.since(self.snd.ring_start()),
            len,
            cut: None,
        }
    }

    /// The headers of what is sent next, before anything else is asked for. But for a SYN with the current window and SACK
    /// blocks; whatever it is, it acknowledges.
    pub(super) fn headers(
        &mut self,
        now: Instant,
        config: &EngineConfig,
        plan: &Plan,
    ) -> SegmentRepr {
        if plan.kind == Kind::Syn {
            return self.syn_headers(now, config);
        }
        self.open_window();
        let mut segment = self.header(now, plan.seq, plan.flags);
        self.echo(&mut segment);
        self.rcv.last_ack_sent = self.rcv.nxt;
        self.rcv.ack.now = self.rcv.ack.now.saturating_sub(1);
        self.timers.stop(Timer::DelayedAck);
        let duplicate = self.rcv.dsack.take();
        if self.negotiated.sack {
            segment.options.sack = self.sack_blocks(duplicate);
        }
        if plan.len > 0 {
            self.mark_capable(&mut segment, plan.kind == Kind::Again);
        }
        segment
    }

    const fn most_sack_blocks(&self) -> usize {
        if self.negotiated.timestamps { 3 } else { 4 }
    }

    /// RFC 2018, section 4, after RFC 2883: duplicates first, then the newest block. What did not fit is another ACK's.
    fn sack_blocks(&mut self, duplicate: Option<(SeqNum, SeqNum)>) -> SackBlocks {
        let limit = self.most_sack_blocks();
        let mut blocks = SackBlocks::default();
        if let Some((left, right)) = duplicate {
            blocks.push(left, right);
        }
        self.rcv.reassembly.tell(&mut blocks, limit);
        if self.rcv.reassembly.has_untold() {
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        }
        blocks
    }

    /// Payload bytes that fit beside the options of this moment.
    pub(super) fn payload_limit(&self) -> u32 {
        let blocks = if self.negotiated.sack {
            let held = self.rcv.reassembly.len() + usize::from(self.rcv.dsack.is_some());
            held.min(self.most_sack_blocks()) as u32
        } else {
            0
        };
        let sack = if blocks == 0 { 0 } else { 4 + 8 * blocks };
        self.segment_size().saturating_sub(sack).max(1)
    }

    /// Payload bytes of a full segment: half of the largest window at most, so that a small window is not filled by
    /// one segment (Linux's `tcp_bound_to_half_wnd`), as the fast path does.
    fn segment_size(&self) -> u32 {
        let window = self.snd.max_wnd;
        let half = if window > 536 { window / 2 } else { window };
        self.snd.mss.bytes().min(half.max(48))
    }

    pub(super) fn poll_data(&mut self, now: Instant) -> Option<Plan> {
        let unsent = self.unsent();
        let fin = self.fin_due();
        if unsent == 0 && !fin {
            return None;
        }
        if self.board.is_empty() {
            self.restart_after_idle(now);
        }
        if let Some(len) = self.mtu_probe_len(now) {
            return Some(self.send_new(now, len, false));
        }
        let full = self.payload_limit();
        let usable = (self.snd.una + self.snd.wnd).since(self.snd.nxt);
        let mut len = unsent.min(full);
        if len > usable || (len == 0 && usable == 0) {
            // RFC 9293, section 3.8.6.2.1: a window that does not hold the segment is left alone for a while (as Linux;
            // half a window, which the RFC would send too, is what the segment size is bound to).
            len = usable;
            if len == 0 || !self.push_small {
                self.note_window_limited(full);
                self.wait_for_window(now);
                return None;
            }
        }
        let last = len == unsent;
        let fin = fin && last && len < usable;
        let in_flight = self.in_flight();
        let cwnd = self.congestion.window.cwnd;
        if in_flight > 0 && len > 0 && in_flight.saturating_add(len) > cwnd {
            self.note_usage(true);
            return None;
        }
        // Nagle, as Minshall mends it and Linux does: at most one small segment in flight.
        let small = len < full;
        if small && !fin && !self.options.nodelay && !self.push_small && self.snd.small_in_flight()
        {
            return None;
        }
        Some(self.send_new(now, len, fin))
    }

    /// Sends the next `len` bytes, and the FIN if `fin`.
    fn send_new(&mut self, now: Instant, len: u32, fin: bool) -> Plan {
        self.push_small = false;
        let start = self.snd.nxt;
        let end = start + len + u32::from(fin);
        if len < self.payload_limit() {
            self.snd.small_end = end;
        }
        let idle = self.board.is_empty();
        if idle {
            self.stalled_since = Some(now);
        }
        self.snd.nxt = end;
        let in_flight = self.in_flight();
        let stamp = self.delivery.stamp(now, idle, in_flight);
        self.board.push(start, end, now, stamp);
        self.recovery.sent(len);
        self.timers.stop(Timer::Persist);
        self.start_sender_timers(now, len);
        let full = in_flight >= self.congestion.window.cwnd;
        self.note_usage(full);
        if self.unsent() == 0 && !full {
            self.delivery.note_app_limited(in_flight);
        }
        self.segment(now, start, end, Kind::New)
    }

    /// After a transmission, `new` bytes of which were never sent before.
    fn start_sender_timers(&mut self, now: Instant, new: u32) {
        if !self.timers.is_set(Timer::Retransmit) {
            self.timers.set(Timer::Retransmit, now + self.rto());
        }
        // What else went out at this moment set the probe for a flight of several segments.
        let several = self.outstanding() - new > self.snd.mss.bytes();
        let is_set = self.snd.last_sent == now && self.timers.is_set(Timer::LossProbe);
        if !(several && is_set) {
            self.schedule_probe(now);
        }
    }

    fn note_usage(&mut self, limited: bool) {
        let outstanding = self.outstanding();
        self.congestion
            .note_usage(self.snd.una, self.snd.nxt, outstanding, limited);
    }

    /// The peer's window holds back what the congestion window would let go, for a hole that is slow to fill mostly: what is
    /// measured of this flight is no more the path's measure than with an application that has nothing to send. The drafts do not
    /// say so.
    fn note_window_limited(&mut self, full: u32) {
        let in_flight = self.in_flight();
        if in_flight.saturating_add(full) <= self.congestion.window.cwnd {
            self.delivery.note_app_limited(in_flight);
        }
    }

    /// RFC 5681, section 4.1, when nothing is outstanding and something is to be sent. Returns whether it was idle.
    pub(super) fn restart_after_idle(&mut self, now: Instant) -> bool {
        let idle = now.saturating_since(self.snd.last_sent);
        let rto = self.rtt.rto();
        let restarts = idle > rto;
        if restarts {
            self.congestion.on_idle(idle, rto);
            self.snd.last_sent = now;
        }
        restarts
    }

    /// Data waits for the peer's window and nothing in flight will bring an ACK: probe (RFC 9293, 3.8.6.1).
    fn wait_for_window(&mut self, now: Instant) {
        if self.board.is_empty() && !self.timers.is_set(Timer::Persist) && !self.probe_due {
            self.stalled_since.get_or_insert(now);
            self.timers.set(Timer::Persist, now + self.rto());
        }
    }

    /// The persist timer ran out.
    pub(super) fn on_persist_timeout(&mut self, cx: &mut Context<'_>) {
        if !self.board.is_empty() || (self.unsent() == 0 && !self.fin_due()) {
            return;
        }
        let limit = if self.orphan {
            cx.config.orphan_retries
        } else {
            cx.config.retries
        };
        if self.probes >= u32::from(limit) || self.user_timeout_over(cx) || self.orphan_expired(cx)
        {
            return self.time_out(cx);
        }
        self.probes += 1;
        self.backoff += 1;
        self.counters.window_probes += 1;
        if self.snd.wnd > 0 {
            // The override of sender-side silly window avoidance.
            self.push_small = true;
        } else {
            self.probe_due = true;
        }
        self.timers.set(Timer::Persist, cx.now + self.rto());
    }

    /// Keep-alive (RFC 9293, section 3.8.4).
    pub(super) fn on_keepalive_timeout(&mut self, cx: &mut Context<'_>) {
        let Some(keepalive) = self.options.keepalive else {
            return;
        };
        // Data in flight or waiting has its own timers.
        if !self.board.is_empty() || self.unsent() > 0 {
            return self.arm_keepalive(cx.now);
        }
        if self.probes == 0 {
            let idle_until = self.rcv.last_heard + keepalive.time;
            if idle_until > cx.now {
                return self.timers.set(Timer::KeepAlive, idle_until);
            }
            self.stalled_since = Some(cx.now);
        }
        // The user timeout overrides the count, as in Linux.
        let over = match self.options.user_timeout {
            Some(limit) if !limit.is_zero() => self.probes > 0 && self.user_timeout_over(cx),
            _ => self.probes >= keepalive.count,
        };
        if over {
            let error = self.soft_error.unwrap_or(super::ConnError::TimedOut);
            self.send_reset(cx);
            return self.fail(cx, error);
        }
        self.probes += 1;
        self.probe_due = true;
        self.timers
            .set(Timer::KeepAlive, cx.now + keepalive.interval);
    }

    /// A segment that the peer has already, which it answers with an ACK.
    fn poll_probe(&mut self) -> Option<Plan> {
        std::mem::take(&mut self.probe_due).then(|| {
            let seq = self.snd.una - 1;
            Plan::bare(Kind::Ack, seq, TcpFlags::ACK)
        })
    }

    pub(super) fn poll_ack(&self) -> Option<Plan> {
        (self.rcv.ack.now > 0).then(|| {
            let seq = self.snd.nxt;
            Plan::bare(Kind::Ack, seq, TcpFlags::ACK)
        })
    }

    /// RST without ending the connection: the caller does.
    pub(super) fn send_reset(&self, cx: &mut Context<'_>) {
        let mut rst = self.header(cx.now, self.snd.nxt, TcpFlags::RST);
        rst.window = 0;
        cx.raw.push_back(rst);
    }
}
