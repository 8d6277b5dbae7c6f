//! Tail loss probes (RFC 8985, section 7): after two quiet round trips something is sent whose acknowledgment
//! tells what the tail's silence does not.

use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;

use super::super::conn::{Conn, Context};
use super::super::timer::Timer;
use super::Phase;

/// Added to two round trips, so that a coarse timer does not probe at once (Linux's `TCP_TIMEOUT_MIN`).
const SLACK: Duration = Duration::from_millis(2);
/// A single segment's acknowledgment may be delayed that long (Linux adds its least RTO).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);

/// The probe of a flight, until its fate is known.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Probe {
    /// SND.NXT after the probe.
    end: SeqNum,
    /// It was a retransmission, which may have repaired a loss nobody saw.
    retransmission: bool,
}

impl Conn {
    /// The probe timeout of `in_flight` bytes (RFC 8985, section 7.2).
    pub(in crate::tcp) fn probe_timeout(&self, in_flight: u32) -> Duration {
        let Some(srtt) = self.rtt.srtt() else {
            return self.rto();
        };
        let single = in_flight <= self.snd.mss.bytes();
        srtt * 2 + if single { MAX_ACK_DELAY } else { SLACK }
    }

    /// Whether a flight like the one that is out now would be probed.
    fn may_probe(&self) -> bool {
        self.negotiated.sack
            && self.state.is_synchronized()
            && self.recovery.phase == Phase::Open
            && self.recovery.probe.is_none()
            && self.board.sacked_bytes() == 0
            && !self.board.is_empty()
    }

    /// Sets the probe timer after new data was sent or acknowledged.
    pub(in crate::tcp) fn schedule_probe(&mut self, now: Instant) {
        if !self.may_probe() {
            return self.timers.stop(Timer::LossProbe);
        }
        let at = now + self.probe_timeout(self.outstanding());
        let rto = self.timers.get(Timer::Retransmit).unwrap_or(at);
        self.timers.set(Timer::LossProbe, at.min(rto));
    }

    /// The probe timer ran out.
    pub(in crate::tcp) fn on_loss_probe(&mut self, cx: &Context<'_>) {
        if self.may_probe() {
            self.recovery.probe_due = true;
            // RFC 8985, section 7.3: the probe puts the timeout off.
            self.timers.set(Timer::Retransmit, cx.now + self.rto());
        }
    }

    /// The probe went out.
    pub(in crate::tcp) fn probe_sent(&mut self, retransmission: bool) {
        self.counters.tail_probes += 1;
        self.recovery.probe = Some(Probe {
            end: self.snd.nxt,
            retransmission,
        });
    }

    /// RFC 8985, section 7.4: what became of the probe. `dsack` is a reported duplicate, `plain` a segment
    /// that acknowledges and carries nothing new.
    pub(in crate::tcp) fn resolve_probe(
        &mut self,
        now: Instant,
        ack: SeqNum,
        dsack: Option<(SeqNum, SeqNum)>,
        plain: bool,
    ) {
        let Some(probe) = self.recovery.probe else {
            return;
        };
        if ack.before(probe.end) {
            return;
        }
        let duplicate = dsack.is_some_and(|(_, right)| right == probe.end);
        if !probe.retransmission || duplicate {
            self.recovery.probe = None;
        } else if ack.after(probe.end) {
            // The probe filled a hole: a loss like any other to congestion control.
            self.recovery.probe = None;
            if self.recovery.phase == Phase::Open {
                self.congestion.on_repaired_loss(now);
            }
        } else if plain {
            self.recovery.probe = None;
        }
    }
}
