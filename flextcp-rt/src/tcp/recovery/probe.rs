//! Tail loss probes (RFC 8985, section 7): after two quiet round trips something is sent whose acknowledgment
//! tells what the tail's silence does not.

use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;

use super::super::conn::{Conn, Context};
use super::super::timer::Timer;
use super::Phase;

/// Added to two round trips, so that a host that is late does not look like a loss: as much as round trips vary, within
/// these bounds (Linux's `TCP_TIMEOUT_MIN` is 2 ms, for its timers). Where a round trip takes ten microseconds two more are
/// slack enough: the lost acknowledgment of a flight is to cost a few of them, not fifty.
const LEAST_SLACK: Duration = Duration::from_micros(50);
const MOST_SLACK: Duration = Duration::from_micros(500);
/// On a shorter round trip a delayed acknowledgment of a probe with new data would cost more than the probe
/// saves: the last segment again is answered at once, as a duplicate.
const SHORT_RTT: Duration = Duration::from_millis(10);
/// Probes of one flight on such a path, at growing distance, as the timeout is many round trips away. RFC 8985 has
/// one; the same segment again is no less clear: its duplicate is reported, or it filled the hole.
const PROBES_ON_SHORT_RTT: u8 = 3;
/// A single segment's acknowledgment may be delayed that long (Linux adds its least RTO).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);

/// The probe of a flight, until its fate is known.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Probe {
    /// SND.NXT after the probe.
    end: SeqNum,
    /// How many it were.
    count: u8,
    /// It was a retransmission, which may have repaired a loss nobody saw.
    retransmission: bool,
}

impl Probe {
    /// Whether a reported duplicate that ends at `right` is the probe.
    pub(super) fn ends_at(&self, right: SeqNum) -> bool {
        self.retransmission && self.end == right
    }
}

impl Conn {
    /// The probe timeout of `in_flight` bytes (RFC 8985, section 7.2).
    pub(in crate::tcp) fn probe_timeout(&self, in_flight: u32) -> Duration {
        let Some(srtt) = self.rtt.srtt() else {
            return self.rto();
        };
        let single = in_flight <= self.snd.mss.bytes();
        let least = LEAST_SLACK.min(srtt * 2);
        let slack = (self.rtt.rttvar() * 4).clamp(least, MOST_SLACK);
        let first = srtt * 2 + if single { MAX_ACK_DELAY } else { slack };
        first * (1 << (2 * self.probes_sent()))
    }

    fn probes_sent(&self) -> u8 {
        self.recovery.probe.map_or(0, |probe| probe.count)
    }

    fn is_short(&self) -> bool {
        self.rtt.srtt().is_some_and(|srtt| srtt < SHORT_RTT)
    }

    /// Whether a flight like the one that is out now would be probed. On a short path also with holes and in fast
    /// recovery: the last acknowledgment may be what is missing, or the retransmission that the window had room for, and a
    /// timeout is far.
    fn may_probe(&self) -> bool {
        let short = self.is_short();
        let quiet = match self.recovery.phase {
            Phase::Open => short || self.board.sacked_bytes() == 0,
            Phase::Recovery => short,
            Phase::Loss => false,
        };
        quiet
            && self.negotiated.sack
            && self.state.is_synchronized()
            && self.probes_sent() < if short { PROBES_ON_SHORT_RTT } else { 1 }
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

    /// Whether new data makes the better probe.
    pub(in crate::tcp) fn probes_with_new_data(&self) -> bool {
        !self.is_short()
    }

    /// The probe timer ran out.
    pub(in crate::tcp) fn on_loss_probe(&mut self, cx: &Context<'_>) {
        if self.may_probe() {
            self.recovery.probe_due = true;
            // RFC 8985, section 7.3: the probe puts the timeout off, once.
            if self.recovery.probe.is_none() {
                self.timers.set(Timer::Retransmit, cx.now + self.rto());
            }
        }
    }

    /// The probe went out.
    pub(in crate::tcp) fn probe_sent(&mut self, retransmission: bool) {
        self.counters.tail_probes += 1;
        self.recovery.probe = Some(Probe {
            end: self.snd.nxt,
            count: self.probes_sent() + 1,
            retransmission,
        });
        self.schedule_probe(self.snd.last_sent);
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
