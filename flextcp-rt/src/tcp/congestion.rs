//! Congestion control: how the window grows and how far it falls. When it falls, and what is sent during
//! recovery, is [`recovery`](super::recovery)'s.

mod cubic;
mod reno;

use std::fmt;
use std::time::Duration;

use flextcp_nic::seq::{Mss, SeqNum};
use flextcp_nic::time::Instant;

use super::delivery::RateSample;
pub(super) use cubic::Cubic;
pub(super) use reno::Reno;

/// What an algorithm may look at and change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Congestion window in bytes.
    pub(super) cwnd: u32,
    /// Slow-start threshold in bytes.
    pub(super) ssthresh: u32,
    /// Full segment in bytes.
    pub(super) mss: u32,
}

impl Window {
    pub(super) const fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Slow start (RFC 5681, section 3.1; L is not bounded, as in Linux): returns what was not used up.
    pub(super) fn slow_start(&mut self, acked: u32) -> u32 {
        let grown = self
            .cwnd
            .saturating_add(acked)
            .min(self.ssthresh.max(self.cwnd));
        let rest = acked - (grown - self.cwnd);
        self.cwnd = grown;
        rest
    }
}

/// What an acknowledgment, or a notification of the NIC, tells.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    dead_code,
    reason = "what algorithms that go by rates or round trips look at"
)]
pub(super) struct AckSample {
    pub(super) now: Instant,
    /// Bytes newly acknowledged.
    pub(super) acked: u32,
    /// Bytes newly known to have arrived, acknowledged selectively or not.
    pub(super) delivered: u32,
    /// Bytes newly taken as lost.
    pub(super) lost: u32,
    /// Round trip of the latest segment among them, if one was sent once.
    pub(super) rtt: Option<Duration>,
    /// Smoothed round trip, if known.
    pub(super) srtt: Option<Duration>,
    /// Least round trip lately.
    pub(super) min_rtt: Option<Duration>,
    /// Bytes in flight after it.
    pub(super) in_flight: u32,
    /// How fast a flight was delivered.
    pub(super) rate: Option<RateSample>,
    pub(super) una: SeqNum,
    pub(super) nxt: SeqNum,
}

/// A congestion control algorithm (the two decisions of Linux's `tcp_congestion_ops`).
pub(super) trait Algorithm: fmt::Debug + Send {
    /// As in `TCP_CONGESTION`.
    fn name(&self) -> &'static str;

    /// Grows `window` on an acknowledgment that arrived while it was the limit.
    fn on_ack(&mut self, window: &mut Window, sample: &AckSample);

    /// The new threshold after a loss (RFC 5681, equation 4, or the algorithm's own).
    fn ssthresh(&mut self, window: &Window, now: Instant) -> u32;

    /// The sender was idle: periods without sending are no time to grow in.
    fn on_idle(&mut self, idle: Duration) {
        let _ = idle;
    }

    /// A retransmission timeout: what was learnt is void.
    fn on_timeout(&mut self) {}

    /// The last [`ssthresh`](Self::ssthresh) was a mistake.
    fn undo(&mut self) {}

    /// The algorithm sets the window itself, in recovery too; else recovery follows PRR (RFC 6937).
    fn owns_window(&self) -> bool {
        false
    }
}

/// The congestion window of one connection.
#[derive(Debug)]
pub(super) struct Congestion {
    pub(super) window: Window,
    algorithm: Box<dyn Algorithm>,
    initial_segments: u32,
    /// Sending was limited by the window since the last acknowledgment.
    pub(super) limited: bool,
}

impl Congestion {
    pub(super) fn new(name: &str, initial_segments: u32, mss: Mss) -> Self {
        let mss = mss.bytes();
        Self {
            window: Window {
                cwnd: initial_segments.saturating_mul(mss),
                ssthresh: u32::MAX / 2,
                mss,
            },
            algorithm: algorithm(name),
            initial_segments,
            limited: false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Changes the algorithm, keeping the window.
    pub(super) fn replace(&mut self, name: &str) {
        self.algorithm = algorithm(name);
    }

    pub(super) fn set_mss(&mut self, mss: Mss) {
        self.window.mss = mss.bytes();
        self.window.cwnd = self.window.cwnd.max(self.window.mss);
    }

    /// A handshake that lost a segment starts with one segment (RFC 5681, section 3.1).
    pub(super) fn restart_from_one(&mut self) {
        self.window.cwnd = self.window.mss;
    }

    pub(super) fn on_ack(&mut self, sample: &AckSample) {
        // RFC 7661's concern, as Linux settles it: a window that was not used does not grow.
        if std::mem::take(&mut self.limited) && sample.acked > 0 {
            self.algorithm.on_ack(&mut self.window, sample);
            // Twice what any window can carry is enough, and keeps the arithmetic far from overflow.
            self.window.cwnd = self.window.cwnd.min(1 << 30);
        }
    }

    /// Loss was detected: lowers the threshold; recovery moves the window there.
    pub(super) fn on_loss(&mut self, now: Instant) {
        self.window.ssthresh = self
            .algorithm
            .ssthresh(&self.window, now)
            .max(2 * self.window.mss);
    }

    /// A tail loss probe repaired a loss: the window falls as after fast recovery.
    pub(super) fn on_repaired_loss(&mut self, now: Instant) {
        self.on_loss(now);
        self.on_recovered();
    }

    /// Fast recovery ended (RFC 6937, section 3; RFC 6582, section 3.2).
    pub(super) fn on_recovered(&mut self) {
        if !self.owns_window() {
            self.window.cwnd = self.window.ssthresh;
        }
    }

    /// Nothing was lost: `cwnd` and `ssthresh` from before (RFC 4015, section 3.2; never less than now).
    pub(super) fn undo(&mut self, cwnd: u32, ssthresh: u32) {
        self.algorithm.undo();
        self.window.cwnd = self.window.cwnd.max(cwnd);
        self.window.ssthresh = self.window.ssthresh.max(ssthresh);
    }

    pub(super) fn owns_window(&self) -> bool {
        self.algorithm.owns_window()
    }

    /// A timeout (RFC 5681, section 3.1): `first` of this episode lowers the threshold.
    pub(super) fn on_timeout(&mut self, now: Instant, first: bool) {
        if first {
            self.on_loss(now);
            self.algorithm.on_timeout();
        }
        self.window.cwnd = self.window.mss;
    }

    /// Restarts after an idle time of more than one RTO (RFC 5681, section 4.1): halves the window for
    /// each RTO that passed, down to the initial window, as Linux does.
    pub(super) fn on_idle(&mut self, idle: Duration, rto: Duration) {
        let initial = self.initial_segments.saturating_mul(self.window.mss);
        let floor = initial.min(self.window.cwnd);
        self.window.ssthresh = self.window.ssthresh.max(self.window.cwnd / 4 * 3);
        let rtos = (idle.as_nanos() / rto.as_nanos().max(1)).min(31) as u32;
        self.window.cwnd = (self.window.cwnd >> rtos).max(floor);
        self.algorithm.on_idle(idle);
    }
}

fn algorithm(name: &str) -> Box<dyn Algorithm> {
    match name {
        "reno" => Box::new(Reno::default()),
        _ => Box::new(Cubic::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_window_does_not_grow() {
        let mut congestion = Congestion::new("reno", 10, Mss::new(1000));
        let sample = AckSample {
            now: Instant::ZERO,
            acked: 1000,
            ..AckSample::default()
        };
        congestion.on_ack(&sample);
        assert_eq!(congestion.window.cwnd, 10_000);
        congestion.limited = true;
        congestion.on_ack(&sample);
        assert_eq!(congestion.window.cwnd, 11_000);
    }

    #[test]
    fn idle_time_decays_to_the_initial_window() {
        let mut congestion = Congestion::new("cubic", 10, Mss::new(1000));
        congestion.window.cwnd = 160_000;
        congestion.on_idle(Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!(congestion.window.cwnd, 40_000);
        congestion.on_idle(Duration::from_secs(9), Duration::from_secs(1));
        assert_eq!(congestion.window.cwnd, 10_000);
    }
}
