//! A segment arrives in a synchronized state (RFC 9293, section 3.10.7.4, with RFC 5961 and RFC 7323).

use std::time::Duration;

use flextcp_nic::port::RxFrame;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{TcpFlags, TcpPacket};

use super::conn::{Conn, Context};
use super::handshake::reset_for;
use super::timer::Timer;
use super::{ConnError, State};

/// TS.Recent is void after this (RFC 7323, section 5.5).
const PAWS_EXPIRY: Duration = Duration::from_secs(24 * 24 * 3600);

impl Conn {
    /// Takes a segment, host-owned connections only.
    pub(super) fn on_segment(
        &mut self,
        cx: &mut Context<'_>,
        packet: &TcpPacket,
        frame: &RxFrame<'_>,
    ) {
        self.counters.segs_in += 1;
        match self.state {
            State::Closed | State::TimeWait => return,
            State::SynSent => return self.on_segment_syn_sent(cx, packet),
            _ => {}
        }
        let tcp = &packet.tcp;
        if tcp.flags.is_impossible() {
            return;
        }
        if !self.acceptable(cx, packet) {
            self.counters.unacceptable += 1;
            return;
        }
        if tcp.flags.contains(TcpFlags::RST) {
            return self.on_reset(cx, packet);
        }
        // RFC 5961, section 4: a SYN in the window proves nothing, ask the peer.
        if tcp.flags.contains(TcpFlags::SYN) {
            let again = self.state == State::SynReceived && tcp.seq == self.rcv.irs;
            if again && !tcp.flags.contains(TcpFlags::ACK) {
                self.syn_due = true;
            } else if again {
                // Simultaneous open: the SYN-ACKs cross, and each is the other's handshake ACK (as in Linux).
                self.on_handshake_ack(cx, packet);
                self.rcv.ack.now = self.rcv.ack.now.max(1);
            } else {
                self.challenge(cx);
            }
            return;
        }
        if !tcp.flags.contains(TcpFlags::ACK) {
            return;
        }
        if self.state == State::SynReceived && !self.on_handshake_ack(cx, packet) {
            return;
        }
        // RFC 5961, section 5.2: acknowledges what was never sent, or is older than any window (Linux does not count
        // back to before the first byte).
        let acked = u32::try_from(self.counters.bytes_acked).unwrap_or(u32::MAX);
        let oldest = self.snd.una - self.snd.max_wnd.min(acked.saturating_add(1));
        if tcp.ack.after(self.snd.nxt) || tcp.ack.before(oldest) {
            return self.challenge(cx);
        }
        self.rcv.last_heard = cx.now;
        self.update_ts_recent(cx, packet);
        if tcp.ack.at_or_after(self.snd.una) {
            self.on_ack(cx, packet);
            self.on_fin_acked(cx);
            if matches!(self.state, State::Closed | State::TimeWait) {
                return;
            }
        }
        if packet.payload_len == 0 && !tcp.flags.contains(TcpFlags::FIN) {
            return;
        }
        if !self.state.may_receive() {
            // After the peer's FIN: a retransmission of it, or nonsense.
            self.rcv.ack.now = self.rcv.ack.now.max(1);
            return;
        }
        // Nobody is left to read it (RFC 9293, section 3.6.1; RFC 2525, section 2.17).
        if self.orphan
            && packet.payload_len > 0
            && (tcp.seq + packet.payload_len as u32).after(self.rcv.nxt)
        {
            cx.raw.push_back(reset_for(packet));
            return self.set_closed();
        }
        self.on_congestion_mark(cx, packet);
        self.on_text(cx, packet, packet.payload(frame));
    }

    /// PAWS and the window. What is not acceptable is answered with an ACK at a limited rate, but for a RST.
    fn acceptable(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) -> bool {
        let tcp = &packet.tcp;
        let rst = tcp.flags.contains(TcpFlags::RST);
        // RFC 7323, section 5.2: a RST is not subject to PAWS.
        if !rst && self.paws_rejects(cx, packet) {
            self.reject(cx, packet);
            return false;
        }
        // A SYN again ends where the window begins, and so belongs to it until more is acknowledged.
        let end = packet.seq_end();
        let inside = end.at_or_after(self.rcv.last_ack_sent) && tcp.seq.at_or_before(self.rcv.adv);
        let inside = inside || (rst && self.resets_after_fin(packet));
        if !inside && !rst {
            self.reject(cx, packet);
        }
        inside
    }

    fn reject(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) {
        if packet.tcp.flags.contains(TcpFlags::SYN) {
            self.challenge(cx);
        } else if packet.payload_len > 0 {
            // Data that we have: its ACK was lost, so no limit (Linux's tcp_send_dupack).
            if packet.tcp.seq.before(self.rcv.nxt) {
                let end = packet.seq_end().earliest(self.rcv.nxt);
                self.rcv.dsack = Some((packet.tcp.seq, end));
            }
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        } else if packet.tcp.flags.contains(TcpFlags::FIN) {
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        } else {
            self.answer_unacceptable(cx);
        }
    }

    /// RFC 7323, section 5. A segment without timestamps is taken, as Linux does: paths strip options. So is one
    /// after a TS.Recent of zero, which some peers send in their SYN and do not mean.
    fn paws_rejects(&self, cx: &Context<'_>, packet: &TcpPacket) -> bool {
        let Some(ts) = packet.tcp.options.timestamps else {
            return false;
        };
        self.negotiated.timestamps
            && self.is_old(cx, ts.val)
            && !self.is_reordered_ack(packet, ts.val)
    }

    fn is_old(&self, cx: &Context<'_>, ts_val: u32) -> bool {
        self.rcv.ts_recent != 0
            && SeqNum(ts_val).before(SeqNum(self.rcv.ts_recent))
            && self.rcv.ts_recent_at + PAWS_EXPIRY > cx.now
    }

    /// A duplicate ACK that was overtaken by other segments within an RTO: it may still tell of a loss, and it
    /// changes nothing else (Linux's `tcp_disordered_ack`).
    fn is_reordered_ack(&self, packet: &TcpPacket, ts_val: u32) -> bool {
        let tcp = &packet.tcp;
        let window = self.negotiated.snd_wscale.scale_up(tcp.window);
        let lag = SeqNum(self.rcv.ts_recent).offset_from(SeqNum(ts_val));
        packet.segment_len() == 0
            && tcp.seq == self.rcv.nxt
            && tcp.ack == self.snd.una
            && !tcp.seq.after(self.snd.wl1)
            && (tcp.seq != self.snd.wl1 || (window <= self.snd.wnd && window > 0))
            && u128::try_from(lag).is_ok_and(|millis| millis <= self.rto().as_millis())
    }

    /// RFC 7323, section 4.3: only from a segment that spans Last.ACK.sent.
    fn update_ts_recent(&mut self, cx: &Context<'_>, packet: &TcpPacket) {
        if let Some(ts) = packet.tcp.options.timestamps
            && self.negotiated.timestamps
            && packet.tcp.seq.at_or_before(self.rcv.last_ack_sent)
            && !self.is_old(cx, ts.val)
        {
            self.rcv.ts_recent = ts.val;
            self.rcv.ts_recent_at = cx.now;
        }
    }

    /// RFC 5961, section 3.2.
    fn on_reset(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) {
        // Linux also believes a RST at the right edge of what arrived out of order.
        let exact = packet.tcp.seq == self.rcv.nxt
            || self.rcv.reassembly.right_edge() == Some(packet.tcp.seq)
            || self.resets_after_fin(packet);
        if !exact {
            return self.challenge(cx);
        }
        let error = match self.state {
            State::SynReceived => ConnError::Refused,
            State::CloseWait => ConnError::BrokenPipe,
            _ => ConnError::Reset,
        };
        self.fail(cx, error);
    }

    /// A RST numbered as the FIN before it: some peers do not count their FIN (Linux's `tcp_reset_check`).
    fn resets_after_fin(&self, packet: &TcpPacket) -> bool {
        packet.tcp.seq + 1 == self.rcv.nxt
            && matches!(
                self.state,
                State::CloseWait | State::LastAck | State::Closing
            )
    }

    /// Moves on when our FIN is acknowledged.
    fn on_fin_acked(&mut self, cx: &Context<'_>) {
        if !self.fin_acked() {
            return;
        }
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                if self.orphan {
                    self.timers
                        .set(Timer::FinWait2, cx.now + cx.config.fin_timeout);
                }
            }
            State::Closing => self.state = State::TimeWait,
            State::LastAck => self.set_closed(),
            _ => {}
        }
    }

    /// Runs the timers that are due.
    pub(super) fn on_timers(&mut self, cx: &mut Context<'_>) {
        if self.user_deadline().is_some_and(|at| at <= cx.now) {
            return self.on_user_timeout(cx);
        }
        while let Some(timer) = self.timers.take_due(cx.now) {
            match timer {
                Timer::Watch => self.on_watch(cx),
                Timer::Idle => self.on_idle(cx),
                // These two mean something to the engine only while it owns the connection.
                Timer::KeepAlive if !self.on_host() => self.on_idle_on_nic(cx),
                _ if !self.on_host() => {}
                // Whatever waited for it is sent next.
                Timer::Pace => {}
                Timer::LossProbe => self.on_loss_probe(cx),
                Timer::Retransmit => self.on_retransmission_timeout(cx),
                Timer::Persist => self.on_persist_timeout(cx),
                Timer::Reorder => self.on_reorder_timeout(cx),
                Timer::DelayedAck => self.on_delayed_ack(),
                Timer::KeepAlive => self.on_keepalive_timeout(cx),
                Timer::FinWait2 => self.set_closed(),
            }
        }
    }
}
