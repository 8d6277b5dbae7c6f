//! Loss recovery: what acknowledgments and timeouts do to the sender (RFC 5681, 6582, 6675, 6937, 8985).

mod probe;
#[cfg(test)]
mod tests;
mod undo;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{SackBlocks, TcpFlags, TcpPacket};

use super::congestion::AckSample;
use super::conn::{Conn, Context};
use super::delivery::Flight;
use super::pmtu::SUSPICION;
use super::rack::Reordering;
use super::scoreboard::Delivered;
use super::timer::Timer;
use super::{ConnError, State};
use probe::Probe;
use undo::Undo;

/// Where the sender is in repairing a loss.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery until `recover` is acknowledged.
    Recovery,
    /// After a timeout, until `recover` is acknowledged.
    Loss,
}

/// Recovery variables.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) phase: Phase,
    /// SND.NXT when the loss was found (RFC 6582).
    recover: SeqNum,
    /// Duplicate ACKs since the last new one, for a peer without SACK.
    pub(super) dup_acks: u32,
    /// PRR (RFC 6937): bytes delivered and sent since recovery began, and what was in flight then.
    prr_delivered: u32,
    prr_out: u32,
    recover_flight: u32,
    /// What the episode may have to give back; it outlives the episode, as duplicates are reported late.
    undo: Option<Undo>,
    /// The timeout may be spurious (RFC 5682).
    f_rto: bool,
    /// F-RTO's step 2.b: new data before anything is sent again.
    pub(super) send_new: bool,
    pub(super) probe: Option<Probe>,
    /// A tail loss probe is to be sent.
    pub(super) probe_due: bool,
}

impl Recovery {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Open,
            recover: SeqNum(0),
            dup_acks: 0,
            prr_delivered: 0,
            prr_out: 0,
            recover_flight: 0,
            undo: None,
            f_rto: false,
            send_new: false,
            probe: None,
            probe_due: false,
        }
    }

    /// Notes bytes sent, for PRR.
    pub(super) fn sent(&mut self, bytes: u32) {
        if self.phase == Phase::Recovery {
            self.prr_out = self.prr_out.saturating_add(bytes);
        }
    }

    /// Notes a retransmission sent with this TSval.
    pub(super) fn retransmitted(&mut self, ts_val: Option<u32>) {
        if let Some(undo) = &mut self.undo {
            undo.retransmitted(ts_val);
        }
    }
}

/// What recovery looks at in an acknowledgment, beside what it delivers.
#[derive(Clone, Copy, Debug, Default)]
struct Ack {
    advanced: bool,
    ece: bool,
    duplicate: bool,
    ts_ecr: Option<u32>,
}

/// A duplicate that the peer reports: the first block, when it lies below the acknowledgment or within the
/// second (RFC 2883, section 4).
fn duplicate_report(blocks: &SackBlocks, ack: SeqNum) -> Option<(SeqNum, SeqNum)> {
    let mut blocks = blocks.iter();
    let (left, right) = blocks.next().filter(|(left, right)| left.before(*right))?;
    let within = |(a, b): (SeqNum, SeqNum)| left.at_or_after(a) && right.at_or_before(b);
    let duplicate = right.at_or_before(ack) || blocks.next().is_some_and(within);
    duplicate.then_some((left, right))
}

impl Conn {
    /// Bytes in the network, as far as is known: the pipe of RFC 6675. Without SACK each duplicate ACK
    /// tells of one segment that left it.
    pub(super) fn in_flight(&self) -> u32 {
        let outstanding = self.outstanding();
        let mut gone = self.board.sacked_bytes() + self.board.lost_bytes();
        if !self.negotiated.sack {
            let left = self.recovery.dup_acks.saturating_mul(self.snd.mss.bytes());
            gone += left.min(outstanding.saturating_sub(gone));
        }
        outstanding.saturating_sub(gone)
    }

    /// Takes the acknowledgment of an acceptable segment, `una <= ack <= nxt`.
    pub(super) fn on_ack(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) {
        let tcp = &packet.tcp;
        let prior_una = self.snd.una;
        let had_outstanding = !self.board.is_empty();
        let prior_window = self.snd.wnd;
        self.update_window(packet);

        let min_rtt = self.rtt.min();
        let mut delivered = Delivered::default();
        let mut dsack = None;
        let advanced = tcp.ack.after(self.snd.una);
        if advanced {
            self.board
                .acknowledge(tcp.ack, cx.now, min_rtt, &mut delivered);
        }
        if self.negotiated.sack && !tcp.options.sack.is_empty() {
            let una = self.snd.una.latest(tcp.ack);
            dsack = duplicate_report(&tcp.options.sack, una);
            self.board.selectively_acknowledge(
                &tcp.options.sack,
                una,
                self.snd.nxt,
                cx.now,
                min_rtt,
                &mut delivered,
            );
        }
        if advanced {
            self.advance_una(cx, tcp.ack);
        }
        self.take_rtt(cx, packet, &delivered, dsack.is_some());
        if let Some((left, right)) = dsack {
            self.note_duplicate_report(left, right);
        }

        // RFC 5681, section 2: the five conditions for a duplicate acknowledgment.
        let bare = packet.payload_len == 0 && !tcp.flags.intersects(TcpFlags::SYN | TcpFlags::FIN);
        let duplicate = !advanced
            && had_outstanding
            && bare
            && self.snd.wnd == prior_window
            && tcp.ack == prior_una;
        if advanced {
            self.backoff = 0;
            self.retransmits = 0;
            self.stalled_since = (!self.board.is_empty()).then_some(cx.now);
            // Without SACK, the segments acknowledged were among those that duplicate ACKs counted.
            self.recovery.dup_acks = match self.recovery.phase {
                Phase::Recovery => self
                    .recovery
                    .dup_acks
                    .saturating_sub(delivered.segments.saturating_sub(1)),
                _ => 0,
            };
        } else if duplicate {
            self.recovery.dup_acks = self.recovery.dup_acks.saturating_add(1);
        }
        // Any acknowledgment shows that the peer lives.
        self.probes = 0;
        let nothing_new = bare && !advanced && tcp.options.sack.is_empty();
        self.resolve_probe(cx.now, self.snd.una, dsack, nothing_new);
        if had_outstanding || delivered.bytes() > 0 || dsack.is_some() {
            let ack = Ack {
                advanced,
                // In a SYN-ACK the flag means something else.
                ece: self.negotiated.ecn
                    && tcp.flags.contains(TcpFlags::ECE)
                    && !tcp.flags.contains(TcpFlags::SYN),
                duplicate,
                ts_ecr: self
                    .negotiated
                    .timestamps
                    .then_some(tcp.options.timestamps)
                    .flatten()
                    .map(|ts| ts.ecr),
            };
            self.recover(cx, ack, &delivered);
            self.tune_send_buffer(cx);
        }
        if advanced {
            if self.board.is_empty() {
                self.timers.stop(Timer::Retransmit);
                self.timers.stop(Timer::Reorder);
            } else {
                // RFC 6298, 5.3
                self.timers.set(Timer::Retransmit, cx.now + self.rto());
            }
        }
        if advanced || delivered.sacked > 0 {
            self.schedule_probe(cx.now);
            cx.opens(self.id);
        }
        if self.snd.wnd > 0 && prior_window == 0 {
            self.timers.stop(Timer::Persist);
            self.backoff = 0;
        }
    }

    fn advance_una(&mut self, cx: &mut Context<'_>, ack: SeqNum) {
        let data = ack.earliest(self.snd.end).since(self.snd.ring_start());
        self.snd.una = ack;
        self.snd.syn_unacked = false;
        self.on_mtu_probe_acked();
        self.counters.bytes_acked += u64::from(data);
        if data > 0 {
            if let Some(buffers) = &mut self.buffers {
                buffers.send.release(data);
            }
            if !self.orphan {
                cx.writable(self.id);
            }
        }
    }

    /// `duplicate` says that the acknowledgment answers a segment that came twice. The peer need not echo that
    /// one's timestamp (RFC 7323, section 4.3, takes it from what is in order), but the one whose own
    /// acknowledgment was lost: the time since then is how long we waited to send again, which would grow
    /// with itself.
    fn take_rtt(
        &mut self,
        cx: &Context<'_>,
        packet: &TcpPacket,
        delivered: &Delivered,
        duplicate: bool,
    ) {
        if let Some(rtt) = delivered.rtt {
            self.rtt.sample(cx.now, rtt);
        } else if delivered.acked > 0
            && !duplicate
            && self.negotiated.timestamps
            && let Some(ts) = packet.tcp.options.timestamps
            && ts.ecr != 0
        {
            // RFC 7323, section 4.1: timestamps tell retransmissions apart.
            let millis = SeqNum(self.timestamp_clock(cx.now)).offset_from(SeqNum(ts.ecr));
            if let Ok(millis) = u64::try_from(millis) {
                self.rtt
                    .sample_timestamp(cx.now, std::time::Duration::from_millis(millis));
            }
        }
    }

    /// The send window (RFC 9293, section 3.10.7.4; segments that came out of order do not set it back).
    pub(super) fn update_window(&mut self, packet: &TcpPacket) {
        let tcp = &packet.tcp;
        let newer = tcp.ack.after(self.snd.una)
            || tcp.seq.after(self.snd.wl1)
            || (tcp.seq == self.snd.wl1 && tcp.ack.at_or_after(self.snd.wl2));
        if newer {
            let scale = self.negotiated.snd_wscale;
            self.snd.wnd = if tcp.flags.contains(TcpFlags::SYN) {
                u32::from(tcp.window)
            } else {
                scale.scale_up(tcp.window)
            };
            self.snd.wl1 = tcp.seq;
            self.snd.wl2 = tcp.ack;
            self.snd.max_wnd = self.snd.max_wnd.max(self.snd.wnd);
        }
    }

    fn recover(&mut self, cx: &Context<'_>, ack: Ack, delivered: &Delivered) {
        let advanced = ack.advanced;
        let lost = self.detect(cx, advanced);
        self.delivery.note_lost(lost);
        let rate = self.delivery.delivered(
            cx.now,
            delivered.bytes(),
            delivered.newest(),
            self.rtt.min(),
        );
        let flight = match self.recovery.phase {
            // Of what the NIC sent nobody knows when.
            Phase::Open if delivered.bytes() > 0 => {
                self.watch_flight(cx.now, delivered.bytes(), self.in_flight())
            }
            // Its rates only: what was lost takes longer.
            Phase::Recovery if self.negotiated.sack && delivered.bytes() > 0 => Flight {
                took: None,
                ..self
                    .delivery
                    .flight(cx.now, self.in_flight(), self.rtt.min())
            },
            _ => Flight::default(),
        };
        self.recovery.send_new = false;
        match self.recovery.phase {
            Phase::Open if self.board.lost_bytes() > 0 && self.lost_a_probe_only() => {}
            Phase::Open if self.board.lost_bytes() > 0 => {
                self.enter_recovery(cx, delivered.sacked);
                self.proportional_rate(delivered.bytes(), lost);
            }
            // Reports of duplicates come a round trip after what they are about.
            Phase::Open => {
                if self.only_duplicates() {
                    self.undo();
                }
            }
            Phase::Recovery
                if self.only_duplicates() || advanced && self.was_spurious(ack.ts_ecr) =>
            {
                self.undo();
            }
            // RFC 6582, section 3.2, step 3
            Phase::Recovery if self.snd.una.at_or_after(self.recovery.recover) => {
                self.recovery.phase = Phase::Open;
                self.recovery.dup_acks = 0;
                self.board.rack.on_recovered();
                self.congestion.on_recovered();
            }
            Phase::Recovery => self.proportional_rate(delivered.bytes(), lost),
            Phase::Loss => self.recover_from_timeout(ack, delivered),
        }
        let sample = AckSample {
            now: cx.now,
            acked: delivered.acked,
            delivered: delivered.bytes(),
            lost,
            rtt: delivered.rtt,
            rtt_at_least: flight.took,
            srtt: self.rtt.srtt(),
            min_rtt: self.rtt.min(),
            in_flight: self.in_flight(),
            rate: rate.or(flight.rate),
            una: self.snd.una,
            nxt: self.snd.nxt,
            // RFC 3168, section 6.1.2: a mark counts on an ACK that acknowledges nothing new as well.
            ece: if ack.ece { delivered.bytes().max(1) } else { 0 },
            ..AckSample::default()
        };
        let open = self.recovery.phase == Phase::Open;
        let grow = self.recovery.phase != Phase::Recovery && advanced;
        self.congestion.on_ack(&sample, open, grow);
    }

    /// F-RTO with SACK (RFC 5682, section 3.1), as Linux's `tcp_process_loss`.
    fn recover_from_timeout(&mut self, ack: Ack, delivered: &Delivered) {
        let recovered = self.snd.una.at_or_after(self.recovery.recover);
        let original = delivered
            .original
            .is_some_and(|end| end.at_or_before(self.recovery.recover));
        let spurious = ack.advanced && self.was_spurious(ack.ts_ecr) || self.only_duplicates();
        // Step 3.b: data that was sent once, before the timeout, has arrived.
        if spurious || self.recovery.f_rto && original {
            return self.undo();
        }
        if self.recovery.f_rto {
            if self.snd.nxt.after(self.recovery.recover) {
                // Step 3.a: the new data arrived and the old did not.
                self.recovery.f_rto = delivered.sacked == 0 && !ack.duplicate;
            } else if ack.advanced && !recovered {
                // Step 2.b: ask with new data, if there is any.
                self.recovery.recover = self.snd.nxt;
                let window = (self.snd.una + self.snd.wnd).after(self.snd.nxt);
                self.recovery.send_new = self.unsent() > 0 && window;
                self.recovery.f_rto = self.recovery.send_new;
            }
        }
        if recovered {
            self.recovery.phase = Phase::Open;
            self.recovery.f_rto = false;
            self.board.rack.on_recovered();
        }
    }

    fn reordering(&self) -> Reordering {
        Reordering {
            in_recovery: self.recovery.phase != Phase::Open,
            sacked_segments: self.board.sacked_segments(),
            min_rtt: self.rtt.min(),
            srtt: self.rtt.srtt(),
        }
    }

    /// Finds losses; returns the bytes of those that are new.
    fn detect(&mut self, cx: &Context<'_>, advanced: bool) -> u32 {
        if self.negotiated.sack {
            let (lost, again) = self.board.detect_losses(cx.now, self.reordering());
            match again {
                Some(at) => self.timers.set(Timer::Reorder, at),
                None => self.timers.stop(Timer::Reorder),
            }
            return lost;
        }
        // Three duplicates (RFC 5681, section 3.2), or a partial acknowledgment (RFC 6582). After a
        // timeout everything is marked already.
        let fast = self.recovery.phase == Phase::Open && self.recovery.dup_acks == 3;
        let partial = self.recovery.phase == Phase::Recovery
            && advanced
            && self.snd.una.before(self.recovery.recover);
        if fast || partial {
            self.board.mark_front_lost()
        } else {
            0
        }
    }

    /// `sacked` bytes of what the scoreboard holds are of the acknowledgment that brought the loss to light.
    fn enter_recovery(&mut self, cx: &Context<'_>, sacked: u32) {
        self.counters.fast_recoveries += 1;
        self.prepare_undo();
        if !self.negotiated.sack {
            self.delivery.end_flights();
        }
        self.congestion.on_loss(cx.now);
        self.recovery.phase = Phase::Recovery;
        self.recovery.recover = self.snd.nxt;
        // What arrived while reordering was borne with counts: otherwise nothing beside the first retransmission
        // may go out, and nobody would notice its loss. New data may have gone out for it, so the threshold is the limit.
        let room = self
            .congestion
            .window
            .ssthresh
            .saturating_sub(self.in_flight());
        self.recovery.prr_delivered = self.board.sacked_bytes().saturating_sub(sacked).min(room);
        self.recovery.prr_out = 0;
        self.recovery.recover_flight = self.outstanding().max(1);
        self.recovery.probe_due = false;
        self.schedule_probe(cx.now);
    }

    /// RFC 6937, section 3, with the slow-start reduction bound.
    fn proportional_rate(&mut self, delivered: u32, newly_lost: u32) {
        if self.congestion.owns_window() {
            return;
        }
        let in_flight = self.in_flight();
        let mss = self.snd.mss.bytes();
        let ssthresh = self.congestion.window.ssthresh;
        let recovery = &mut self.recovery;
        recovery.prr_delivered = recovery.prr_delivered.saturating_add(delivered);
        let send = if in_flight > ssthresh {
            let due = (u64::from(recovery.prr_delivered) * u64::from(ssthresh))
                .div_ceil(u64::from(recovery.recover_flight));
            u32::try_from(due)
                .unwrap_or(u32::MAX)
                .saturating_sub(recovery.prr_out)
        } else {
            let mut limit = recovery.prr_delivered.saturating_sub(recovery.prr_out);
            if newly_lost == 0 {
                limit = limit.max(delivered) + mss;
            }
            limit.min(ssthresh.saturating_sub(in_flight))
        };
        // The first retransmission goes out whatever the window says, and one segment more below the threshold:
        // alone, its loss would be found by a timeout only.
        let send = if recovery.prr_out > 0 {
            send
        } else if in_flight + 2 * mss <= ssthresh {
            send.max(2 * mss)
        } else {
            send.max(mss)
        };
        self.congestion.window.cwnd = in_flight.saturating_add(send).max(mss);
    }

    /// RACK's reordering window is over (RFC 8985, section 6.3).
    pub(super) fn on_reorder_timeout(&mut self, cx: &Context<'_>) {
        if !self.board.is_empty() {
            self.recover(cx, Ack::default(), &Delivered::default());
        }
    }

    /// The retransmission timer ran out (RFC 6298, section 5).
    pub(super) fn on_retransmission_timeout(&mut self, cx: &mut Context<'_>) {
        if matches!(self.state, State::SynSent | State::SynReceived) {
            return self.on_syn_timeout(cx);
        }
        if self.board.is_empty() {
            return;
        }
        let limit = if self.orphan {
            cx.config.orphan_retries
        } else {
            cx.config.retries
        };
        if self.retransmits >= u32::from(limit)
            || self.user_timeout_over(cx)
            || self.orphan_expired(cx)
        {
            return self.time_out(cx);
        }
        let again = self.retransmits > 0;
        self.retransmits += 1;
        self.backoff += 1;
        self.counters.timeouts += 1;
        if cx.config.mtu_probing && self.retransmits >= SUSPICION {
            self.suspect_black_hole(cx.now);
        }
        // One reduction for one flight: a timeout in the middle of fast recovery is not a new loss (as Linux).
        let first = match self.recovery.phase {
            Phase::Open => true,
            Phase::Recovery => self.snd.una.at_or_after(self.recovery.recover),
            Phase::Loss => self.snd.una.at_or_after(self.recovery.recover),
        };
        if first {
            self.prepare_undo();
        }
        self.congestion.on_timeout(cx.now, first);
        // RFC 5682, section 3.1, step 1: not in the middle of fast recovery.
        self.recovery.f_rto = self.negotiated.sack && (first || again);
        self.recovery.phase = Phase::Loss;
        self.recovery.recover = self.snd.nxt;
        self.recovery.dup_acks = 0;
        self.recovery.send_new = false;
        self.recovery.probe = None;
        self.delivery.end_flights();
        let lost = self.board.mark_timed_out(cx.now, self.reordering());
        self.delivery.note_lost(lost);
        // What was sent lately is still under way (Linux's tcp_enter_loss).
        let window = &mut self.congestion.window;
        window.cwnd = window.mss;
        let in_flight = self.in_flight();
        self.congestion.window.cwnd += in_flight;
        self.timers.stop(Timer::Reorder);
        self.timers.stop(Timer::LossProbe);
        self.timers.set(Timer::Retransmit, cx.now + self.rto());
    }

    /// RFC 5482; also a bound on zero-window probing, as in Linux.
    pub(super) fn user_timeout_over(&self, cx: &Context<'_>) -> bool {
        match (self.options.user_timeout, self.stalled_since) {
            (Some(limit), Some(since)) if !limit.is_zero() => since + limit <= cx.now,
            _ => false,
        }
    }

    pub(super) fn time_out(&mut self, cx: &mut Context<'_>) {
        let error = self.soft_error.unwrap_or(ConnError::TimedOut);
        if self.orphan {
            self.counters.failed = true;
            self.reset(cx);
        } else {
            self.fail(cx, error);
        }
    }
}
