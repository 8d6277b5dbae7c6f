//! HyStart++ (RFC 9406): leaving slow start when round trips grow, before the queue overflows.
//!
//! The RFC thinks of a sender that is clocked by acknowledgments, whose bursts meet the queue at the start of a round trip.
//! Ours is paced, and meets it late in one: so any eight round-trip times in a row count, not only a round's first, and only a
//! whole round of short ones tells that long ones were jitter. As in Linux's HyStart acknowledgments that come over a whole
//! round trip tell that the path is full, and windows of a few segments tell nothing. Later acknowledgments over most of one
//! with long round trips, or a queue that goes on growing, end conservative slow start before its five rounds are over, which
//! would overflow one of a bandwidth-delay product.

use std::time::Duration;

use flextcp_nic::time::Instant;

use super::{AckSample, LEAST_PACED_RTT, Window};

/// Constants of RFC 9406, section 4.3.
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u32 = 5;
/// Segments below which slow start goes on whatever the round trips: a path that has no room for them is rare, and one held up
/// for a moment is not (Linux's `hystart_low_window`).
const LOW_WINDOW: u32 = 16;
/// Acknowledgments further apart belong to different trains (Linux's `hystart_ack_delta_us`), unless that is less than a
/// sixteenth of a round trip.
const TRAIN_GAP: Duration = Duration::from_millis(2);
const TRAIN_GAPS: u32 = 16;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    SlowStart,
    /// Conservative slow start, for `rounds` so far.
    Conservative {
        baseline: Duration,
        rounds: u32,
        /// Round trips of this round were long.
        long: bool,
    },
    Done,
}

/// Slow start that watches the round trips.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HyStart {
    stage: Stage,
    /// Least round-trip times of the last round that had some, and of this one.
    last_round: Option<Duration>,
    this_round: Option<Duration>,
    /// The least of the latest samples, and how many these are.
    recent: Option<Duration>,
    samples: u32,
    /// When this round and its train of acknowledgments began, and when the train's latest came; `None` when it broke off.
    train: Option<(Instant, Instant)>,
}

impl HyStart {
    /// Only the first slow start is watched (RFC 9406, section 4.2).
    pub(super) const fn end(&mut self) {
        self.stage = Stage::Done;
    }

    /// Goes on after acknowledgments that it did not see.
    pub(super) const fn resume(&mut self) {
        if let Stage::Conservative { rounds, .. } = &mut self.stage {
            *rounds = 0;
        }
    }

    /// Takes an acknowledgment in slow start. A round trip that the NIC measured is of a flight's first segment
    /// and counts for a round's worth.
    pub(super) fn observe(&mut self, window: &mut Window, sample: &AckSample) {
        if self.stage == Stage::Done {
            return;
        }
        if sample.flight_start {
            self.start_round(window, sample.now);
        }
        let train = self.extend_train(sample.now, sample.min_rtt);
        let recent = self.take_rtt(sample);
        let (Some(last), Some(min_rtt)) = (self.last_round, sample.min_rtt) else {
            return;
        };
        // The NIC's one sample of a round may be a late one.
        let last = if sample.sparse { min_rtt } else { last };
        let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
        let recent = recent.max(sample.rtt_at_least);
        let is_long = |than: Duration| recent.is_some_and(|rtt| rtt >= than);
        // At twice the window in a round trip, what was sent in the last one is acknowledged within half of one, unless the
        // path takes longer for it, or pacing held it back for half of one more (as Linux has it). A program that writes
        // slowly looks the same, but finds no queue.
        let takes = |time: Duration| min_rtt >= LEAST_PACED_RTT && train >= time;
        match &mut self.stage {
            Stage::SlowStart if window.cwnd < LOW_WINDOW * window.mss => {}
            Stage::SlowStart => {
                if let Some(rtt) = recent.filter(|&rtt| rtt >= last + threshold) {
                    self.slow_down(rtt);
                } else if takes(min_rtt) {
                    self.slow_down(last + threshold);
                }
            }
            Stage::Conservative {
                baseline,
                rounds,
                long,
            } => {
                *long |= is_long(*baseline);
                let first = *rounds == 0;
                let full = takes(if first { min_rtt } else { min_rtt / 4 * 3 });
                if *long && full || !first && is_long(*baseline + threshold) {
                    self.finish(window);
                }
            }
            Stage::Done => {}
        }
    }

    /// Takes a round-trip time; with the last of eight it returns the least of them.
    fn take_rtt(&mut self, sample: &AckSample) -> Option<Duration> {
        let rtt = sample.rtt?;
        self.this_round = Some(self.this_round.map_or(rtt, |least| least.min(rtt)));
        self.recent = Some(self.recent.map_or(rtt, |least| least.min(rtt)));
        self.samples += if sample.sparse { N_RTT_SAMPLE } else { 1 };
        if self.samples < N_RTT_SAMPLE {
            return None;
        }
        self.samples = 0;
        self.recent.take()
    }

    /// How long acknowledgments have come without a gap since the round began.
    fn extend_train(&mut self, now: Instant, min_rtt: Option<Duration>) -> Duration {
        let gap = TRAIN_GAP.max(min_rtt.unwrap_or_default() / TRAIN_GAPS);
        match &mut self.train {
            Some((began, latest)) if *latest + gap >= now => {
                *latest = now;
                now.saturating_since(*began)
            }
            train => {
                *train = None;
                Duration::ZERO
            }
        }
    }

    const fn slow_down(&mut self, baseline: Duration) {
        self.stage = Stage::Conservative {
            baseline,
            rounds: 0,
            long: false,
        };
    }

    fn start_round(&mut self, window: &mut Window, now: Instant) {
        // The NIC measures about one a round: not one in each.
        self.last_round = self.this_round.take().or(self.last_round);
        self.recent = None;
        self.samples = 0;
        self.train = Some((now, now));
        match &mut self.stage {
            // It was jitter.
            Stage::Conservative {
                rounds: 1..,
                long: false,
                ..
            } => self.stage = Stage::SlowStart,
            Stage::Conservative { rounds, long, .. } => {
                *rounds += 1;
                *long = false;
                if *rounds >= CSS_ROUNDS {
                    self.finish(window);
                }
            }
            _ => {}
        }
    }

    const fn finish(&mut self, window: &mut Window) {
        self.stage = Stage::Done;
        window.ssthresh = window.cwnd;
    }

    /// Bytes by which `acked` ones grow the window.
    pub(super) fn growth(&self, acked: u32) -> u32 {
        match self.stage {
            Stage::Conservative { .. } => acked / CSS_GROWTH_DIVISOR,
            _ => acked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window {
            cwnd: 100_000,
            ssthresh: u32::MAX / 2,
            mss: 1000,
        }
    }

    fn round(hystart: &mut HyStart, window: &mut Window, millis: u64, samples: u32) {
        for i in 0..samples {
            let sample = AckSample {
                rtt: Some(Duration::from_millis(millis)),
                min_rtt: Some(Duration::from_millis(40)),
                flight_start: i == 0,
                ..AckSample::default()
            };
            hystart.observe(window, &sample);
        }
    }

    #[test]
    fn growing_round_trips_slow_it_down_and_then_end_it() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        for _ in 0..3 {
            round(&mut hystart, &mut window, 40, 8);
        }
        assert_eq!(hystart.growth(1000), 1000);
        round(&mut hystart, &mut window, 45, 8);
        assert_eq!(hystart.growth(1000), 250);
        for _ in 0..4 {
            round(&mut hystart, &mut window, 46, 8);
            assert!(window.ssthresh > window.cwnd);
        }
        round(&mut hystart, &mut window, 46, 8);
        assert_eq!(window.ssthresh, window.cwnd);
    }

    #[test]
    fn a_queue_that_goes_on_growing_ends_it_at_once() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        for millis in [40, 45, 49] {
            round(&mut hystart, &mut window, millis, 8);
            assert!(window.ssthresh > window.cwnd);
        }
        round(&mut hystart, &mut window, 56, 8);
        assert_eq!(window.ssthresh, window.cwnd);
    }

    #[test]
    fn round_trips_that_grow_late_in_a_round_count() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        round(&mut hystart, &mut window, 40, 8);
        round(&mut hystart, &mut window, 40, 8);
        let late = AckSample {
            rtt: Some(Duration::from_millis(46)),
            min_rtt: Some(Duration::from_millis(40)),
            ..AckSample::default()
        };
        (0..7).for_each(|_| hystart.observe(&mut window, &late));
        assert_eq!(hystart.growth(1000), 1000);
        hystart.observe(&mut window, &late);
        assert_eq!(hystart.growth(1000), 250);
    }

    /// A round in which acknowledgments come every `gap` for 40 ms, the last of them with round trips of `late`; returns
    /// the growth before its last.
    fn train(hystart: &mut HyStart, window: &mut Window, gap: usize, late: u64) -> u32 {
        let mut growth = 0;
        for millis in (0..=40).step_by(gap) {
            growth = hystart.growth(1000);
            let rtt = if millis > 20 { late } else { 40 };
            let sample = AckSample {
                now: Instant::from_millis(millis),
                flight_start: millis == 0,
                rtt: Some(Duration::from_millis(rtt)),
                min_rtt: Some(Duration::from_millis(40)),
                sparse: true,
                ..AckSample::default()
            };
            hystart.observe(window, &sample);
        }
        growth
    }

    #[test]
    fn acknowledgments_over_a_round_trip_slow_it_down() {
        for (gap, slow) in [(1, 250), (4, 1000)] {
            let (mut hystart, mut window) = (HyStart::default(), window());
            round(&mut hystart, &mut window, 40, 8);
            train(&mut hystart, &mut window, gap, 40);
            assert_eq!(hystart.growth(1000), slow);
            round(&mut hystart, &mut window, 40, 8);
            assert_eq!(hystart.growth(1000), slow);
            round(&mut hystart, &mut window, 40, 8);
            assert_eq!(hystart.growth(1000), 1000, "the path is not full");
        }
    }

    #[test]
    fn acknowledgments_over_most_of_a_round_trip_with_a_queue_end_it() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        round(&mut hystart, &mut window, 40, 8);
        train(&mut hystart, &mut window, 1, 40);
        assert_eq!(hystart.growth(1000), 250);
        // Too short for the queue to grow further, but the flight takes as long again.
        train(&mut hystart, &mut window, 1, 45);
        assert_eq!(window.ssthresh, window.cwnd);
    }

    #[test]
    fn acknowledgments_that_it_did_not_see_prove_nothing() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        round(&mut hystart, &mut window, 40, 8);
        round(&mut hystart, &mut window, 46, 8);
        round(&mut hystart, &mut window, 46, 1);
        hystart.resume();
        round(&mut hystart, &mut window, 46, 8);
        assert_eq!(hystart.growth(1000), 250, "the round before was not whole");
    }

    #[test]
    fn jitter_only_pauses_it() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        round(&mut hystart, &mut window, 40, 8);
        round(&mut hystart, &mut window, 46, 8);
        assert_eq!(hystart.growth(1000), 250);
        round(&mut hystart, &mut window, 40, 8);
        assert_eq!(hystart.growth(1000), 250, "a round has to be over");
        round(&mut hystart, &mut window, 40, 8);
        assert_eq!(hystart.growth(1000), 1000);
    }

    #[test]
    fn a_small_window_is_not_held_back() {
        for (segments, slow) in [(15, 1000), (16, 250)] {
            let (mut hystart, mut window) = (HyStart::default(), window());
            window.cwnd = segments * window.mss;
            round(&mut hystart, &mut window, 40, 8);
            train(&mut hystart, &mut window, 1, 44);
            assert_eq!(hystart.growth(1000), slow);
            assert!(window.ssthresh > window.cwnd);
        }
    }

    #[test]
    fn few_samples_prove_nothing() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        round(&mut hystart, &mut window, 40, 8);
        round(&mut hystart, &mut window, 80, 7);
        assert_eq!(hystart.growth(1000), 1000);
    }
}
