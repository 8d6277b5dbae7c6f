//! Explicit congestion notification (RFC 3168) on the slow path: asking for it, echoing marks, marking our own
//! segments. What a mark does to the window is [`congestion`](super::congestion)'s.

#[cfg(test)]
mod tests;

use flextcp_nic::wire::{SegmentRepr, TcpFlags, TcpPacket};

use super::EngineConfig;
use super::config::Ecn;
use super::conn::{Conn, Context, Negotiated};

/// ECT(0) (RFC 3168, section 5).
const ECT_0: u8 = 0b10;

const ECE_CWR: TcpFlags = TcpFlags::from_bits(TcpFlags::ECE.bits() | TcpFlags::CWR.bits());

/// Whether a SYN asks for ECN: an ECN-setup SYN (RFC 3168, section 6.1.1).
pub(super) fn requested(flags: TcpFlags) -> bool {
    flags.contains(ECE_CWR)
}

/// What a SYN-ACK adds: an ECN-setup SYN-ACK has ECE and not CWR.
pub(super) const fn answer(negotiated: &Negotiated) -> TcpFlags {
    if negotiated.ecn {
        TcpFlags::ECE
    } else {
        TcpFlags::from_bits(0)
    }
}

impl Conn {
    fn asks_for_ecn(&self, config: &EngineConfig) -> bool {
        match config.ecn {
            Ecn::Off => false,
            Ecn::Accept => self.congestion.wants_ecn(),
            Ecn::Request => true,
        }
    }

    /// What our SYN adds. One that is sent again does not ask: the question may be why it was lost
    /// (RFC 3168, section 6.1.1.1).
    pub(super) fn ecn_request(&self, config: &EngineConfig) -> TcpFlags {
        if self.asks_for_ecn(config) && self.retransmits == 0 {
            ECE_CWR
        } else {
            TcpFlags::from_bits(0)
        }
    }

    /// Whether the SYN-ACK with `flags` agrees to what we asked.
    pub(super) fn ecn_agreed(&self, config: &EngineConfig, flags: TcpFlags) -> bool {
        self.asks_for_ecn(config)
            && flags.contains(TcpFlags::ACK | TcpFlags::ECE)
            && !flags.contains(TcpFlags::CWR)
    }

    /// Marks are echoed one by one, not until CWR (RFC 8257, section 3.2).
    pub(super) fn echoes_exactly(&self) -> bool {
        self.negotiated.ecn && self.congestion.wants_ecn()
    }

    /// A data segment is about to be taken: what our acknowledgments echo from now on.
    pub(super) fn on_congestion_mark(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) {
        if !self.negotiated.ecn || packet.payload_len == 0 {
            return;
        }
        let ce = packet.ecn_ce();
        if !self.echoes_exactly() {
            // RFC 3168, section 6.1.3: from the first CE on, until the sender says that it slowed down.
            let cleared = packet.tcp.flags.contains(TcpFlags::CWR);
            if ce && !self.rcv.ece {
                self.rcv.ack.now = self.rcv.ack.now.max(1);
            }
            self.rcv.ece = ce || (self.rcv.ece && !cleared);
            return;
        }
        if ce == self.rcv.ece {
            return;
        }
        // RFC 8257, section 3.2: what came before the change is acknowledged with the old state, at once.
        if self.rcv.nxt != self.rcv.last_ack_sent {
            let mut early = self.header(cx.now, self.snd.nxt, TcpFlags::ACK);
            self.echo(&mut early);
            self.rcv.last_ack_sent = self.rcv.nxt;
            cx.raw.push_back(early);
        }
        self.rcv.ece = ce;
        self.rcv.ack.now = self.rcv.ack.now.max(1);
    }

    /// Sets ECE on what we send, if it is to be.
    pub(super) fn echo(&self, segment: &mut SegmentRepr) {
        if self.negotiated.ecn && self.rcv.ece {
            segment.flags |= TcpFlags::ECE;
        }
    }

    /// Marks a data segment as ECN-capable. Retransmissions are not (RFC 3168, section 6.1.5), but for DCTCP
    /// (RFC 8257, section 5, as Linux).
    pub(super) fn mark_capable(&mut self, segment: &mut SegmentRepr, again: bool) {
        if !self.negotiated.ecn {
            return;
        }
        if !again || self.echoes_exactly() {
            segment.tos |= ECT_0;
        }
        if !again && std::mem::take(&mut self.congestion.cwr_due) {
            segment.flags |= TcpFlags::CWR;
        }
    }
}
