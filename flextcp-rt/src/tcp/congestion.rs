//! Congestion control: how the window grows and how far it falls, and at what rate it is sent. When it falls,
//! and what is sent during recovery, is [`recovery`](super::recovery)'s.

mod bbr;
mod cubic;
mod dctcp;
mod hystart;
mod reno;

use std::fmt;
use std::time::Duration;

use flextcp_nic::seq::{Mss, SeqNum};
use flextcp_nic::time::Instant;

use super::delivery::RateSample;
use bbr::Bbr;
use cubic::Cubic;
use dctcp::Dctcp;
use reno::Reno;

/// Paths with a least round trip below this are not paced for an algorithm that goes by its window: a window passes in less time
/// than a timer takes, and Linux paces such flows only under the `fq` scheduler.
const LEAST_PACED_RTT: Duration = Duration::from_millis(1);

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
pub(super) struct AckSample {
    pub(super) now: Instant,
    /// Bytes newly acknowledged.
    pub(super) acked: u32,
    /// Bytes newly known to have arrived, acknowledged selectively or not.
    pub(super) delivered: u32,
    /// Of these, bytes that an acknowledgment with ECE told of.
    pub(super) ece: u32,
    /// Bytes newly taken as lost.
    pub(super) lost: u32,
    /// Round trip of the latest segment among them, if one was sent once.
    pub(super) rtt: Option<Duration>,
    /// What the round trip of a segment was at least: the NIC does not say when it was sent.
    pub(super) rtt_at_least: Option<Duration>,
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
    /// The first of a round trip; [`Congestion`] finds out.
    pub(super) round_start: bool,
    /// The first of a flight: of what was sent since the last such acknowledgment came. [`Congestion`] finds out.
    pub(super) flight_start: bool,
    /// From the NIC, which times one segment a round trip.
    pub(super) sparse: bool,
    /// No loss is being repaired. [`Congestion`] is told.
    pub(super) open: bool,
}

/// A congestion control algorithm (after Linux's `tcp_congestion_ops`).
pub(super) trait Algorithm: fmt::Debug + Send {
    /// As in `TCP_CONGESTION`.
    fn name(&self) -> &'static str;

    /// Sees every acknowledgment; one that [owns the window](Self::owns_window) sets it here.
    fn observe(&mut self, window: &mut Window, sample: &AckSample) {
        let _ = (window, sample);
    }

    /// Grows `window` on an acknowledgment that arrived while it was the limit.
    fn on_ack(&mut self, window: &mut Window, sample: &AckSample);

    /// The new threshold after a loss (RFC 5681, equation 4, or the algorithm's own).
    fn ssthresh(&mut self, window: &Window, now: Instant) -> u32;

    /// The same after congestion was marked (RFC 3168, section 6.1.2: as after a loss).
    fn ssthresh_marked(&mut self, window: &Window, now: Instant) -> u32 {
        self.ssthresh(window, now)
    }

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

    /// Bytes per second to send, when it is not for the window to say.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// It is paced even while acknowledgments clock it.
    fn wants_pace(&self) -> bool {
        false
    }

    /// It asks for ECN, and for every mark to be echoed (DCTCP).
    fn wants_ecn(&self) -> bool {
        false
    }
}

/// How much of the window is used, over a flight (Linux's `tcp_cwnd_validate`): pacing, or a late application, may be
/// the limit for a moment of it.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// The window kept a segment from being sent.
    limited: bool,
    /// Most bytes outstanding, unless `limited`.
    most: u32,
    /// SND.NXT when that was noted.
    until: SeqNum,
}

/// The congestion window of one connection.
#[derive(Debug)]
pub(super) struct Congestion {
    pub(super) window: Window,
    algorithm: Box<dyn Algorithm>,
    initial_segments: u32,
    usage: Usage,
    /// Pacing rate in bytes per millisecond, 0 for none.
    pub(super) pacing_rate: u32,
    /// What ends the round trip that runs, and the flight that is being acknowledged.
    round_end: Option<SeqNum>,
    flight_end: Option<SeqNum>,
    /// One reduction for the marks of a window: until this is acknowledged (RFC 3168, section 6.1.2).
    reduced_until: Option<SeqNum>,
    /// The next new segment tells the peer so (CWR).
    pub(super) cwr_due: bool,
}

impl Congestion {
    /// `seed` varies what should differ from flow to flow.
    pub(super) fn new(name: &str, initial_segments: u32, mss: Mss, seed: u32) -> Self {
        let mss = mss.bytes();
        Self {
            window: Window {
                cwnd: initial_segments.saturating_mul(mss),
                ssthresh: u32::MAX / 2,
                mss,
            },
            algorithm: algorithm(name, seed),
            initial_segments,
            usage: Usage::default(),
            pacing_rate: 0,
            round_end: None,
            flight_end: None,
            reduced_until: None,
            cwr_due: false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.algorithm.name()
    }

    pub(super) fn wants_ecn(&self) -> bool {
        self.algorithm.wants_ecn()
    }

    /// Changes the algorithm, keeping the window.
    pub(super) fn replace(&mut self, name: &str, seed: u32) {
        self.algorithm = algorithm(name, seed);
        self.pacing_rate = 0;
    }

    pub(super) fn set_mss(&mut self, mss: Mss) {
        self.window.mss = mss.bytes();
        self.window.cwnd = self.window.cwnd.max(self.window.mss);
    }

    /// A handshake that lost a segment starts with one segment (RFC 5681, section 3.1).
    pub(super) fn restart_from_one(&mut self) {
        self.window.cwnd = self.window.mss;
    }

    /// Takes an acknowledgment; `open` says that no loss is being repaired, `grow` that the window may grow.
    pub(super) fn on_ack(&mut self, sample: &AckSample, open: bool, grow: bool) {
        let mut sample = AckSample { open, ..*sample };
        sample.round_start = self.round_end.is_none_or(|end| sample.una.at_or_after(end));
        if sample.round_start {
            self.round_end = Some(sample.nxt);
        }
        // The acknowledgment that ends a round trip is the last of the flight before, after which a sender that paced it waits.
        sample.flight_start = self.flight_end.is_none_or(|end| sample.una.after(end));
        if sample.flight_start {
            self.flight_end = Some(sample.nxt);
        }
        self.algorithm.observe(&mut self.window, &sample);
        if !self.owns_window() {
            if sample.ece > 0 && open {
                self.on_marked(&sample);
            } else if grow {
                self.grow(&sample);
            }
        }
        self.update_rate(&sample);
    }

    /// Notes what is sent: `outstanding` bytes up to `nxt`, `limited` when the window holds no segment more.
    pub(super) fn note_usage(&mut self, una: SeqNum, nxt: SeqNum, outstanding: u32, limited: bool) {
        let usage = &mut self.usage;
        let over = una.at_or_after(usage.until);
        if over || limited || (!usage.limited && outstanding > usage.most) {
            *usage = Usage {
                limited,
                most: outstanding,
                until: nxt,
            };
        }
    }

    /// Linux's `tcp_is_cwnd_limited`: in slow start half a window in use is use enough.
    fn is_used(&self) -> bool {
        let half = self.window.cwnd < self.usage.most.saturating_mul(2);
        self.usage.limited || (half && self.window.in_slow_start())
    }

    fn grow(&mut self, sample: &AckSample) {
        // RFC 7661's concern, as Linux settles it: a window that was not used does not grow.
        if self.is_used() && sample.acked > 0 {
            self.algorithm.on_ack(&mut self.window, sample);
            // Twice what any window can carry is enough, and keeps the arithmetic far from overflow.
            self.window.cwnd = self.window.cwnd.min(1 << 30);
        }
    }

    /// Congestion was experienced (RFC 3168, section 6.1.2): once per window of data.
    fn on_marked(&mut self, sample: &AckSample) {
        let reduced = |end| sample.una.at_or_before(end);
        if self.reduced_until.is_some_and(reduced) {
            return;
        }
        self.reduced_until = Some(sample.nxt);
        self.cwr_due = true;
        let ssthresh = self.algorithm.ssthresh_marked(&self.window, sample.now);
        self.window.ssthresh = ssthresh.max(2 * self.window.mss);
        self.window.cwnd = self.window.cwnd.min(self.window.ssthresh);
    }

    /// Linux's `tcp_update_pacing_rate`: twice the window per round trip in slow start, so that it can double,
    /// and a fifth more than it after. Once acknowledgments clock what is sent, it is not paced further, as in Linux without
    /// the `fq` scheduler: a paced flow takes more than its share of a full queue, which its smooth arrivals find room in.
    fn update_rate(&mut self, sample: &AckSample) {
        let long = sample.min_rtt.is_some_and(|rtt| rtt >= LEAST_PACED_RTT);
        let per_second = match (self.algorithm.pacing_rate(), sample.srtt) {
            (Some(rate), _) => rate.max(1),
            (None, Some(srtt)) if long && !self.is_clocked(sample) => {
                let fifths = if self.window.cwnd < self.window.ssthresh / 2 {
                    10
                } else {
                    6
                };
                let bytes = u128::from(self.window.cwnd) * fifths / 5;
                u64::try_from(bytes * 1_000_000_000 / srtt.as_nanos()).unwrap_or(u64::MAX)
            }
            _ => {
                self.pacing_rate = 0;
                return;
            }
        };
        self.pacing_rate = u32::try_from(per_second.div_ceil(1000)).unwrap_or(0);
    }

    /// Whether what is in flight brings the acknowledgments that let the next segments go: no room for a burst is left by a
    /// pause of the application, or a reduction that was taken back.
    fn is_clocked(&self, sample: &AckSample) -> bool {
        let before = sample.in_flight.saturating_add(sample.delivered);
        !self.algorithm.wants_pace()
            && !self.window.in_slow_start()
            && before >= self.window.cwnd / 4 * 3
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
        self.algorithm.on_idle(idle);
        if self.owns_window() {
            return;
        }
        let initial = self.initial_segments.saturating_mul(self.window.mss);
        let floor = initial.min(self.window.cwnd);
        self.window.ssthresh = self.window.ssthresh.max(self.window.cwnd / 4 * 3);
        let rtos = (idle.as_nanos() / rto.as_nanos().max(1)).min(31) as u32;
        self.window.cwnd = (self.window.cwnd >> rtos).max(floor);
    }
}

/// The algorithm of this name; callers have checked it.
fn algorithm(name: &str, seed: u32) -> Box<dyn Algorithm> {
    match name {
        "reno" => Box::new(Reno::default()),
        "dctcp" => Box::new(Dctcp::default()),
        "bbr" => Box::new(Bbr::new(seed.into())),
        _ => Box::new(Cubic::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_window_does_not_grow() {
        let mut congestion = Congestion::new("reno", 10, Mss::new(1000), 1);
        let sample = AckSample {
            now: Instant::ZERO,
            acked: 1000,
            ..AckSample::default()
        };
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.window.cwnd, 10_000);
        congestion.note_usage(SeqNum(0), SeqNum(9000), 9000, true);
        congestion.note_usage(SeqNum(8000), SeqNum(9000), 1000, false);
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.window.cwnd, 11_000, "limited once in a flight");
        congestion.note_usage(SeqNum(9000), SeqNum(14_000), 5000, false);
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.window.cwnd, 11_000, "half of it is not in use");
        congestion.note_usage(SeqNum(9000), SeqNum(15_000), 6000, false);
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.window.cwnd, 12_000);
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.window.cwnd, 12_000);
    }

    #[test]
    fn acknowledgments_clock_what_a_full_window_sends() {
        let mut congestion = Congestion::new("cubic", 10, Mss::new(1000), 1);
        let rtt = Some(Duration::from_millis(20));
        let mut rate = |ssthresh, in_flight| {
            congestion.window.cwnd = 100_000;
            congestion.window.ssthresh = ssthresh;
            let sample = AckSample {
                delivered: 2000,
                in_flight,
                srtt: rtt,
                min_rtt: rtt,
                ..AckSample::default()
            };
            congestion.on_ack(&sample, true, false);
            congestion.pacing_rate
        };
        assert_eq!(rate(u32::MAX / 2, 98_000), 10_000, "slow start");
        assert_eq!(rate(150_000, 98_000), 6000, "the end of slow start");
        assert_eq!(rate(100_000, 98_000), 0);
        assert_eq!(rate(100_000, 70_000), 6000, "a reduction was taken back");
        assert_eq!(rate(100_000, 0), 6000, "after a pause");
    }

    #[test]
    fn idle_time_decays_to_the_initial_window() {
        let mut congestion = Congestion::new("cubic", 10, Mss::new(1000), 1);
        congestion.window.cwnd = 160_000;
        congestion.on_idle(Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!(congestion.window.cwnd, 40_000);
        congestion.window.ssthresh = 10_000;
        congestion.on_idle(Duration::from_secs(9), Duration::from_secs(1));
        assert_eq!(congestion.window.cwnd, 10_000);
        // It was that large, and slow start may lead there again (Linux's `tcp_current_ssthresh`).
        assert_eq!(congestion.window.ssthresh, 30_000);
    }

    #[test]
    fn marks_cost_once_a_window_and_are_confirmed() {
        for (name, left) in [("cubic", 70_000), ("reno", 50_000), ("dctcp", 50_000)] {
            let mut congestion = Congestion::new(name, 10, Mss::new(1000), 1);
            congestion.window.cwnd = 100_000;
            for una in [0, 1000, 99_000] {
                let sample = AckSample {
                    acked: 1000,
                    ece: 1000,
                    una: SeqNum(una),
                    nxt: SeqNum(100_000),
                    ..AckSample::default()
                };
                congestion.on_ack(&sample, true, true);
                assert_eq!(congestion.window.cwnd, left, "{name}");
            }
            assert!(std::mem::take(&mut congestion.cwr_due));
            let sample = AckSample {
                acked: 1000,
                ece: 1000,
                una: SeqNum(101_000),
                nxt: SeqNum(150_000),
                ..AckSample::default()
            };
            congestion.on_ack(&sample, true, true);
            assert!(
                congestion.window.cwnd < left && congestion.cwr_due,
                "{name}"
            );
        }
    }

    /// RFC 3168, section 6.1.2, and RFC 5681, equation 4.
    #[test]
    fn neither_mark_nor_loss_leaves_less_than_two_segments() {
        let mut congestion = Congestion::new("reno", 10, Mss::new(1000), 1);
        congestion.window.cwnd = 3000;
        let sample = AckSample {
            acked: 1000,
            ece: 1000,
            nxt: SeqNum(3000),
            ..AckSample::default()
        };
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.window.cwnd, 2000);
        congestion.on_loss(Instant::ZERO);
        assert_eq!(congestion.window.ssthresh, 2000);
    }

    #[test]
    fn rate_is_twice_the_window_in_slow_start_and_a_fifth_more_after() {
        let mut congestion = Congestion::new("cubic", 10, Mss::new(1000), 1);
        congestion.window.cwnd = 100_000;
        let mut sample = AckSample {
            srtt: Some(Duration::from_millis(10)),
            min_rtt: Some(Duration::from_millis(10)),
            ..AckSample::default()
        };
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.pacing_rate, 20_000);
        congestion.window.ssthresh = 100_000;
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.pacing_rate, 12_000);
        // A long wait on a short path is no reason to send slowly.
        sample.min_rtt = Some(Duration::from_micros(900));
        congestion.on_ack(&sample, true, true);
        assert_eq!(congestion.pacing_rate, 0);
    }
}
