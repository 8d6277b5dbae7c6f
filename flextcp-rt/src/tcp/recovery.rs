//! Loss recovery: what acknowledgments and timeouts do to the sender (RFC 5681, 6582, 6675, 6937, 8985).

use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{TcpFlags, TcpPacket};

use super::congestion::AckSample;
use super::conn::{Conn, Context};
use super::scoreboard::Delivered;
use super::timer::Timer;
use super::{ConnError, Event, State};

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
        }
    }

    /// Notes bytes sent, for PRR.
    pub(super) fn sent(&mut self, bytes: u32) {
        if self.phase == Phase::Recovery {
            self.prr_out = self.prr_out.saturating_add(bytes);
        }
    }
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

        let mut delivered = Delivered::default();
        if self.negotiated.sack {
            let una = self.snd.una.latest(tcp.ack);
            self.board.selectively_acknowledge(
                &tcp.options.sack,
                una,
                self.snd.nxt,
                cx.now,
                &mut delivered,
            );
        }
        let advanced = tcp.ack.after(self.snd.una);
        if advanced {
            self.board.acknowledge(tcp.ack, cx.now, &mut delivered);
            self.advance_una(cx, tcp.ack);
        }
        self.take_rtt(cx, packet, &delivered);

        // RFC 5681, section 2: the five conditions for a duplicate acknowledgment.
        let duplicate = !advanced
            && had_outstanding
            && packet.payload_len == 0
            && !tcp.flags.intersects(TcpFlags::SYN | TcpFlags::FIN)
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
        if had_outstanding || delivered.bytes() > 0 {
            self.recover(cx, advanced, &delivered);
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
        if self.snd.wnd > 0 && prior_window == 0 {
            self.timers.stop(Timer::Persist);
            self.backoff = 0;
        }
    }

    fn advance_una(&mut self, cx: &mut Context<'_>, ack: SeqNum) {
        let data_from = self.snd.una.latest(self.snd.iss + 1);
        let data = ack.earliest(self.snd.end).since(data_from);
        self.snd.una = ack;
        self.counters.bytes_acked += u64::from(data);
        if data > 0 {
            if let Some(buffers) = &mut self.buffers {
                buffers.send.release(data);
            }
            if !self.orphan {
                cx.events.push_back(Event::Writable(self.id));
            }
        }
    }

    fn take_rtt(&mut self, cx: &Context<'_>, packet: &TcpPacket, delivered: &Delivered) {
        if let Some(rtt) = delivered.rtt {
            self.rtt.sample(rtt);
        } else if delivered.acked > 0
            && self.negotiated.timestamps
            && let Some(ts) = packet.tcp.options.timestamps
            && ts.ecr != 0
        {
            // RFC 7323, section 4.1: timestamps tell retransmissions apart.
            let millis = SeqNum(self.timestamp_clock(cx.now)).offset_from(SeqNum(ts.ecr));
            if let Ok(millis) = u64::try_from(millis) {
                self.rtt
                    .sample(std::time::Duration::from_millis(millis.max(1)));
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

    fn recover(&mut self, cx: &Context<'_>, advanced: bool, delivered: &Delivered) {
        let newly_lost = self.detect(cx, advanced);
        match self.recovery.phase {
            Phase::Open => {
                if self.board.lost_bytes() > 0 {
                    self.enter_recovery(cx);
                    self.proportional_rate(delivered.bytes(), newly_lost);
                }
            }
            // RFC 6582, section 3.2, step 3
            Phase::Recovery if self.snd.una.at_or_after(self.recovery.recover) => {
                self.recovery.phase = Phase::Open;
                self.recovery.dup_acks = 0;
                let window = &mut self.congestion.window;
                window.cwnd = window.ssthresh;
            }
            Phase::Recovery => self.proportional_rate(delivered.bytes(), newly_lost),
            Phase::Loss if self.snd.una.at_or_after(self.recovery.recover) => {
                self.recovery.phase = Phase::Open;
            }
            Phase::Loss => {}
        }
        if self.recovery.phase != Phase::Recovery && advanced {
            self.congestion.on_ack(AckSample {
                now: cx.now,
                acked: delivered.acked,
                srtt: self.rtt.srtt(),
            });
        }
    }

    /// Finds losses; returns whether any is new.
    fn detect(&mut self, cx: &Context<'_>, advanced: bool) -> bool {
        if self.negotiated.sack {
            let in_recovery = self.recovery.phase != Phase::Open;
            let (lost, again) = self
                .board
                .detect_losses(cx.now, in_recovery, self.rtt.min());
            match again {
                Some(at) => self.timers.set(Timer::Reorder, at),
                None => self.timers.stop(Timer::Reorder),
            }
            lost > 0
        } else {
            // Three duplicates (RFC 5681, section 3.2), or a partial acknowledgment (RFC 6582). After a
            // timeout everything is marked already.
            let fast = self.recovery.phase == Phase::Open && self.recovery.dup_acks == 3;
            let partial = self.recovery.phase == Phase::Recovery
                && advanced
                && self.snd.una.before(self.recovery.recover);
            (fast || partial) && self.board.mark_front_lost()
        }
    }

    fn enter_recovery(&mut self, cx: &Context<'_>) {
        self.counters.fast_recoveries += 1;
        self.congestion.on_loss(cx.now);
        self.recovery.phase = Phase::Recovery;
        self.recovery.recover = self.snd.nxt;
        self.recovery.prr_delivered = 0;
        self.recovery.prr_out = 0;
        self.recovery.recover_flight = self.outstanding().max(1);
    }

    /// RFC 6937, section 3, with the slow-start reduction bound.
    fn proportional_rate(&mut self, delivered: u32, newly_lost: bool) {
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
            if !newly_lost {
                limit = limit.max(delivered) + mss;
            }
            limit.min(ssthresh - in_flight)
        };
        // The first retransmission goes out whatever the window says.
        let send = if recovery.prr_out == 0 {
            send.max(mss)
        } else {
            send
        };
        self.congestion.window.cwnd = in_flight.saturating_add(send).max(mss);
    }

    /// RACK's reordering window is over (RFC 8985, section 6.3).
    pub(super) fn on_reorder_timeout(&mut self, cx: &Context<'_>) {
        if !self.board.is_empty() {
            self.recover(cx, false, &Delivered::default());
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
        if self.retransmits >= u32::from(limit) || self.user_timeout_over(cx) {
            return self.time_out(cx);
        }
        self.retransmits += 1;
        self.backoff += 1;
        self.counters.timeouts += 1;
        let first = self.recovery.phase != Phase::Loss;
        self.congestion.on_timeout(cx.now, first);
        self.recovery.phase = Phase::Loss;
        self.recovery.recover = self.snd.nxt;
        self.recovery.dup_acks = 0;
        self.board.mark_all_lost();
        self.timers.stop(Timer::Reorder);
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
