//! Between engine and NIC: what is handed over, what comes back, and what the engine watches meanwhile.

use std::time::Duration;

use flextcp_nic::flow::{FlowId, FlowState, flags};
use flextcp_nic::nic::{FlowBuffers, FlowProgress, Limits, Notification};
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;

use super::State;
use super::congestion::AckSample;
use super::conn::{Conn, Context, Negotiated, Owner};
use super::delivery::Flight;
use super::recovery::Phase;
use super::timer::Timer;

impl Conn {
    /// Whether the connection is plain: everything that the NIC cannot carry on is absent (DESIGN, section 4).
    pub(super) fn is_plain(&self) -> bool {
        self.state == State::Established
            && self.on_host()
            // Whoever accepts it may set options first, and one that nobody takes has no business on the NIC.
            && self.listener.is_none()
            && !self.orphan
            && self.recovery.phase == Phase::Open
            && self.recovery.dup_acks == 0
            && self.board.lost_bytes() == 0
            && self.board.sacked_bytes() == 0
            && self.rcv.reassembly.is_empty()
            && self.rcv.fin.is_none()
            && self.rcv.dsack.is_none()
            // What is owed is said first: the NIC starts with a clean slate.
            && self.rcv.ack.now == 0
            && self.rcv.last_ack_sent == self.rcv.nxt
            && self.snd.wnd > 0
            && !self.window_stalls()
            && self.probes == 0
            && !self.probe_due
            && !self.recovery.probe_due
            // Installing starts the retransmission timer anew: while a probe is out it has to run on.
            && self.recovery.probe.is_none()
            && self.retransmits == 0
            && !self.timers.is_set(Timer::Persist)
            && !self.path_mtu.is_searching()
    }

    /// Whether the window does not hold the next segment and nothing in flight will open it: the NIC would give the
    /// connection back at once, and the persist timer waits until pacing lets the engine look.
    fn window_stalls(&self) -> bool {
        let usable = (self.snd.una + self.snd.wnd).since(self.snd.nxt);
        self.outstanding() == 0 && self.unsent().min(self.payload_limit()) > usable
    }

    /// The words for the NIC.
    pub(super) fn flow_state(&self) -> FlowState {
        let mut state = FlowState {
            rcv_nxt: self.rcv.nxt.0,
            rcv_adv: self.rcv.adv.0,
            rcv_free: self
                .buffers
                .as_ref()
                .map_or(0, |buffers| buffers.recv.offerable()),
            last_ack_sent: self.rcv.last_ack_sent.0,
            ts_recent: self.rcv.ts_recent,
            ts_offset: self.ts_offset,
            snd_una: self.snd.una.0,
            snd_nxt: self.snd.nxt.0,
            snd_end: self.snd.end.0,
            snd_wnd: self.snd.wnd,
            cwnd: self.congestion.window.cwnd,
            pacing_rate: self.congestion.pacing_rate,
            max_snd_wnd: self.snd.max_wnd,
            snd_sml: self.snd.small_end.0,
            ..FlowState::default()
        };
        state.set_tuple(&self.tuple);
        state.set_remote_mac(self.link.remote_mac);
        state.set_ttl_tos(self.options.ttl.unwrap_or(64), self.options.tos & !3);
        let Negotiated {
            rcv_wscale,
            snd_wscale,
            timestamps,
            ecn,
            ..
        } = self.negotiated;
        state.set_mss_scales(self.snd.mss, rcv_wscale, snd_wscale);
        state.set(flags::TIMESTAMPS, timestamps);
        state.set(flags::NO_DELAY, self.options.nodelay);
        state.set(flags::ECN, ecn);
        state.set(flags::DCTCP, self.echoes_exactly());
        state.set(flags::ECE, self.rcv.ece);
        state.set(flags::CWR, self.congestion.cwr_due);
        state.set(flags::CONVERSATION, self.rcv.ack.conversation);
        // At the start of a connection a reply mostly comes soon enough to carry the ACK.
        let quick = self.rcv.ack.quick > 0 && self.counters.out_of_order > 0;
        state.set(flags::QUICK_ACK, quick && self.options.quickack);
        state
    }

    /// Gives the buffers away; the owner is set by the answer.
    pub(super) fn hand_over(&mut self) -> Option<(FlowState, FlowBuffers)> {
        self.take_written();
        self.written = self.send_gauge.written();
        let state = self.flow_state();
        let buffers = self.buffers.take()?;
        self.attached = buffers.recv.capacity() > 0 || buffers.send.capacity() > 0;
        self.owner = Owner::Offered;
        Some((state, buffers))
    }

    /// The NIC has it now.
    pub(super) fn on_installed(&mut self, cx: &Context<'_>, flow: FlowId) {
        let now = cx.now;
        self.owner = Owner::Nic(flow);
        self.limits = Limits {
            cwnd: self.congestion.window.cwnd,
            pacing_rate: self.congestion.pacing_rate,
        };
        self.congestion.cwr_due = false;
        self.counters.was_offloaded = true;
        self.hysteresis.installed(self.counters.carried());
        if self.attached {
            self.timers.start(Timer::Idle, now + cx.config.buffer_idle);
        }
        // The timers run on: a connection that moves often would never come to its timeout.
        let timeout = self.timers.get(Timer::Retransmit);
        let probe = self.timers.get(Timer::LossProbe).or(timeout);
        self.handed_over = timeout
            .filter(|_| self.outstanding() > 0)
            .map(|at| (self.snd.una, at - self.rto()));
        for timer in [
            Timer::Retransmit,
            Timer::LossProbe,
            Timer::Pace,
            Timer::Reorder,
            Timer::DelayedAck,
            Timer::Persist,
        ] {
            self.timers.stop(timer);
        }
        if self.negotiated.sack && self.outstanding() > 0 {
            let pto = self.probe_timeout(self.outstanding());
            self.timers
                .set(Timer::Watch, probe.unwrap_or(now + pto).min(now + pto));
        } else if self.snd.end != self.snd.una {
            self.watch(now);
        }
        self.board.clear();
    }

    /// Data may be outstanding on the NIC: look after an RTO.
    pub(super) fn watch(&mut self, now: Instant) {
        self.timers.start(Timer::Watch, now + self.rtt.rto());
    }

    /// Takes a delta. Returns new limits when the window changed by a segment.
    pub(super) fn on_notification(
        &mut self,
        cx: &mut Context<'_>,
        notification: &Notification,
    ) -> Option<(FlowId, Limits)> {
        let Owner::Nic(flow) = self.owner else {
            return None;
        };
        self.rcv.last_heard = cx.now;
        self.snd.wnd = notification.snd_wnd;
        self.snd.max_wnd = self.snd.max_wnd.max(notification.snd_wnd);
        self.on_received(cx, notification.received);
        if notification.received > 0 {
            self.watch_received(cx, notification.received);
        }
        if notification.rtt_micros > 0 {
            let rtt = Duration::from_micros(notification.rtt_micros.into());
            let flight = notification.acked.saturating_add(notification.in_flight);
            self.rtt
                .sample_flight(cx.now, rtt, flight / self.snd.mss.bytes());
        }
        self.on_acked(cx, notification.acked);
        // A flight whose tail, or whose acknowledgments, may be lost: look when a probe would be due, not after an
        // RTO. More to send means that another flight follows at once.
        let more = notification.acked > 0 && !notification.app_limited;
        if more {
            self.snd.last_sent = cx.now;
        }
        if self.negotiated.sack && (more || notification.in_flight > self.snd.mss.bytes()) {
            let pto = self.probe_timeout(u32::MAX);
            self.timers.set(Timer::Watch, cx.now + pto);
        } else if notification.in_flight > 0 {
            self.watch(cx.now);
        }
        self.snd.nxt = self.snd.una + notification.in_flight;
        self.resolve_probe(cx.now, self.snd.una, None, false);
        self.congestion.note_usage(
            self.snd.una,
            self.snd.nxt,
            notification.in_flight.saturating_add(notification.acked),
            notification.cwnd_limited,
        );
        if notification.app_limited {
            self.delivery.note_app_limited(notification.in_flight);
        }
        if notification.acked > 0 {
            self.on_acked_by_nic(cx.now, notification);
        }
        self.tune_send_buffer(cx);
        self.new_limits().map(|limits| (flow, limits))
    }

    /// Congestion control goes on while the NIC sends: from what it counts.
    fn on_acked_by_nic(&mut self, now: Instant, notification: &Notification) {
        let (acked, in_flight) = (notification.acked, notification.in_flight);
        let micros = u64::from(notification.rtt_micros);
        self.delivery.delivered_on_nic(now, acked);
        let flight = self.watch_flight(now, acked, in_flight);
        let sample = AckSample {
            now,
            acked,
            delivered: acked,
            ece: notification.acked_ece,
            rtt: (micros > 0).then(|| Duration::from_micros(micros)),
            rtt_at_least: flight.took,
            srtt: self.rtt.srtt(),
            min_rtt: self.rtt.min(),
            in_flight,
            rate: flight.rate,
            una: self.snd.una,
            nxt: self.snd.nxt,
            sparse: true,
            ..AckSample::default()
        };
        self.congestion.on_ack(&sample, true, true);
    }

    /// Of a flight that is over: what its round trip was at least, and its rate. One of a few segments matters only to an
    /// algorithm that goes by rates.
    pub(super) fn watch_flight(&mut self, now: Instant, acked: u32, in_flight: u32) -> Flight {
        let few = acked.saturating_add(in_flight) <= 8 * self.snd.mss.bytes();
        if few && !self.congestion.owns_window() {
            return Flight::default();
        }
        let flight = self.delivery.flight(now, in_flight, self.rtt.min());
        if let Some(took) = flight.took
            && self.rtt.srtt().is_some_and(|srtt| srtt < took)
        {
            self.rtt.sample(now, took);
        }
        flight
    }

    /// Limits that differ from what the NIC has: any change of the window, and of the rate by a thirty-second.
    pub(super) fn new_limits(&mut self) -> Option<Limits> {
        let limits = Limits {
            cwnd: self.congestion.window.cwnd,
            pacing_rate: self.congestion.pacing_rate,
        };
        let had = self.limits;
        let close = limits.pacing_rate.abs_diff(had.pacing_rate) <= had.pacing_rate / 32;
        if limits.cwnd == had.cwnd && close {
            return None;
        }
        // The NIC tells the peer of a reduction itself (RFC 3168, section 6.1.2).
        self.congestion.cwr_due = false;
        self.limits = limits;
        Some(limits)
    }

    fn on_received(&mut self, cx: &mut Context<'_>, bytes: u32) {
        if bytes > 0 {
            self.rcv.nxt += bytes;
            self.counters.bytes_received += u64::from(bytes);
            if !self.orphan {
                cx.readable(self.id);
            }
        }
    }

    fn on_acked(&mut self, cx: &mut Context<'_>, bytes: u32) {
        if bytes > 0 {
            self.snd.una += bytes;
            self.counters.bytes_acked += u64::from(bytes);
            if !self.orphan {
                cx.writable(self.id);
            }
        }
    }

    /// The tuning of [`tune`](Self::tune) by what arrives, since the NIC sees what is read.
    fn watch_received(&mut self, cx: &Context<'_>, received: u32) {
        self.rcv.read = self.rcv.read.saturating_add(received);
        if let Some(size) = self.wanted_ring(cx) {
            self.wanted.grow = Some(size);
        }
    }

    /// The connection is back: the engine's variables from the NIC's words.
    pub(super) fn take_back(
        &mut self,
        cx: &mut Context<'_>,
        state: &FlowState,
        buffers: FlowBuffers,
        outstanding_since: Option<Instant>,
    ) {
        self.owner = Owner::Host;
        self.buffers = Some(buffers);
        self.timers.stop(Timer::Watch);
        let wanted = std::mem::take(&mut self.wanted);

        self.on_received(cx, SeqNum(state.rcv_nxt).since(self.rcv.nxt));
        let acked = SeqNum(state.snd_una).since(self.snd.una);
        self.on_acked(cx, acked);
        self.delivery.delivered_on_nic(cx.now, acked);
        self.rcv.nxt = SeqNum(state.rcv_nxt);
        self.rcv.adv = SeqNum(state.rcv_adv);
        self.rcv.last_ack_sent = SeqNum(state.last_ack_sent);
        self.rcv.ts_recent = state.ts_recent;
        self.rcv.ts_recent_at = cx.now;
        self.rcv.ack.quick = 0;
        self.rcv.ack.conversation = state.has(flags::CONVERSATION);
        self.rcv.ece = state.has(flags::ECE);
        self.congestion.cwr_due = state.has(flags::CWR);
        self.snd.una = SeqNum(state.snd_una);
        self.snd.nxt = SeqNum(state.snd_nxt);
        self.snd.end = SeqNum(state.snd_end);
        self.snd.wnd = state.snd_wnd;
        self.snd.max_wnd = self.snd.max_wnd.max(state.max_snd_wnd);
        // Any segment that is not older than what the NIC took may set the window.
        self.snd.wl1 = self.rcv.nxt;
        self.snd.wl2 = self.snd.una;
        self.snd.small_end = state.snd_sml();
        if state.rtt_micros > 0 {
            let rtt = Duration::from_micros(state.rtt_micros.into());
            self.rtt.sample(cx.now, rtt);
        }
        // Half a round trip: a flight of few segments went out faster than its window allows on average.
        let span = self.rtt.srtt().unwrap_or_default() / 2;
        self.board.restore(
            self.snd.una,
            self.snd.nxt,
            self.snd.mss.bytes(),
            cx.now,
            span,
        );
        if !self.board.is_empty() {
            let since = self
                .timed_from(state, outstanding_since)
                .unwrap_or(cx.now)
                .min(cx.now);
            self.stalled_since = Some(since);
            self.timers.set(Timer::Retransmit, since + self.rto());
            self.schedule_probe(cx.now);
        }
        if self.rcv.last_ack_sent != self.rcv.nxt {
            self.timers
                .start(Timer::DelayedAck, cx.now + cx.config.delayed_ack);
        }
        self.take_written();
        self.apply_receive_buffer(cx.config);
        if let Some(size) = wanted.grow {
            self.grow(size);
        }
        self.on_read(cx);
        if wanted.release {
            self.release_buffers();
        }
        if wanted.abort {
            return self.abort(cx);
        }
        if wanted.timed_out {
            self.on_retransmission_timeout(cx);
        } else if wanted.probe {
            self.on_loss_probe(cx);
        }
        if wanted.keepalive {
            self.on_keepalive_timeout(cx);
        }
        if wanted.shutdown && self.orphan {
            self.close(cx, true);
        } else if wanted.shutdown {
            self.shutdown_write();
        }
    }

    /// Where the retransmission timer of a flow runs from, when the NIC says `since`, which began to count at the
    /// install.
    fn timed_from(&self, state: &FlowState, since: Option<Instant>) -> Option<Instant> {
        match self.handed_over {
            Some((una, before)) if una == state.snd_una() => since.map(|since| since.min(before)),
            _ => since,
        }
    }

    fn grow(&mut self, size: u32) {
        let Some(buffers) = &mut self.buffers else {
            return;
        };
        let ring = &mut buffers.recv;
        // An application that does not read needs no larger ring.
        if ring.capacity() > 0
            && ring.unread() < ring.capacity() / 2
            && size > ring.capacity()
            && !ring.pool().under_pressure()
            && ring.resize(size, 0).is_ok()
        {
            self.rcv.capacity = ring.capacity();
        }
    }

    /// Nothing was heard for the keep-alive time, as far as notifications tell: take over and probe.
    pub(super) fn on_idle_on_nic(&mut self, cx: &Context<'_>) {
        let Some(keepalive) = self.options.keepalive else {
            return;
        };
        let idle_until = self.rcv.last_heard + keepalive.time;
        if idle_until > cx.now {
            self.timers.set(Timer::KeepAlive, idle_until);
        } else if self.timers.is_set(Timer::Watch) {
            // Data that is not acknowledged has a timer of its own, which moving to and fro would start anew.
            self.arm_keepalive(cx.now);
        } else {
            self.wanted.claim = true;
            self.wanted.keepalive = true;
        }
    }

    /// A connection that was quiet for a while gives its empty buffers back: an idle one owns none.
    pub(super) fn on_idle(&mut self, cx: &Context<'_>) {
        let idle_until = self.rcv.last_heard + cx.config.buffer_idle;
        if idle_until > cx.now {
            self.timers.set(Timer::Idle, idle_until);
        } else if self.timers.is_set(Timer::Watch) {
            self.timers.set(Timer::Idle, cx.now + cx.config.buffer_idle);
        } else if matches!(self.owner, Owner::Nic(_)) {
            self.wanted.release = true;
            self.wanted.claim = true;
        } else {
            self.release_buffers();
        }
    }

    fn release_buffers(&mut self) {
        if let Some(buffers) = &mut self.buffers
            && self.rcv.reassembly.is_empty()
        {
            buffers.recv.release_if_empty();
            if buffers.send.is_empty() {
                buffers.send.release_if_empty();
            }
        }
    }

    /// Time to look at a flow's progress; the engine queues the request.
    pub(super) fn on_watch(&mut self, _cx: &Context<'_>) {
        self.wanted.progress = matches!(self.owner, Owner::Nic(_));
    }

    /// How the flow is doing: nothing acknowledged for an RTO, or data that does not get out, is ours.
    pub(super) fn on_progress(&mut self, cx: &Context<'_>, progress: &FlowProgress) {
        if !matches!(self.owner, Owner::Nic(_)) {
            return;
        }
        let state = &progress.state;
        let rto = self.rtt.rto();
        let in_flight = state.in_flight();
        let probed = self.negotiated.sack && in_flight > self.snd.mss.bytes();
        let pto = if probed {
            self.probe_timeout(in_flight).min(rto)
        } else {
            rto
        };
        if state.snd_una == state.snd_end {
            return;
        }
        match self.timed_from(state, progress.outstanding_since) {
            Some(since) if since + pto <= cx.now => {
                self.wanted.claim = true;
                self.wanted.timed_out = since + rto <= cx.now;
                self.wanted.probe = !self.wanted.timed_out;
            }
            Some(since) => self.timers.set(Timer::Watch, since + pto),
            // About to send, or held back: if nothing moved since the last look, take over. What it sends next has a probe.
            None if self.watched_nxt == SeqNum(state.snd_nxt) => self.wanted.claim = true,
            None if self.negotiated.sack => {
                let pto = self.probe_timeout(u32::MAX).min(rto);
                self.timers.set(Timer::Watch, cx.now + pto);
            }
            None => self.timers.set(Timer::Watch, cx.now + rto),
        }
        self.watched_nxt = SeqNum(state.snd_nxt);
    }
}
