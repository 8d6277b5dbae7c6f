//! HyStart++ (RFC 9406): leaving slow start when round trips grow, before the queue overflows.
//!
//! The RFC thinks of a sender that is clocked by acknowledgments, whose bursts meet the queue at the start of a round trip.
//! Ours is paced, and meets it late in one: so any eight round-trip times in a row count, not only a round's first, and
//! as in Linux's HyStart acknowledgments that come over most of a round trip tell that the path is full. A queue that goes
//! on growing ends conservative slow start before its five rounds are over, which would overflow one of a
//! bandwidth-delay product.

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
/// Acknowledgments further apart belong to different trains (Linux's `hystart_ack_delta_us`).
const TRAIN_GAP: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    SlowStart,
    /// Conservative slow start, for `rounds` so far.
    Conservative {
        baseline: Duration,
        rounds: u32,
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

    /// Takes an acknowledgment in slow start. A round trip that the NIC measured is of a flight's first segment
    /// and counts for a round's worth.
    pub(super) fn observe(&mut self, window: &mut Window, sample: &AckSample) {
        if self.stage == Stage::Done {
            return;
        }
        if sample.round_start {
            self.start_round(window, sample.now);
        }
        let train = self.extend_train(sample.now);
        let recent = self.take_rtt(sample);
        let (Some(last), Some(min_rtt)) = (self.last_round, sample.min_rtt) else {
            return;
        };
        let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
        // Short ones among those that are known by a lower bound only are no news.
        let long = |than: Duration| recent.max(sample.rtt_at_least).filter(|&rtt| rtt >= than);
        match self.stage {
            Stage::SlowStart => {
                if let Some(rtt) = long(last + threshold) {
                    self.slow_down(rtt);
                } else if min_rtt >= LEAST_PACED_RTT && train >= min_rtt / 4 * 3 {
                    // At twice the window in a round trip, what was sent in the last one is acknowledged within half of
                    // one, unless the path takes longer for it. A program that writes slowly looks the same, and short
                    // round trips in the next round give it slow start back.
                    self.slow_down(last + threshold);
                }
            }
            Stage::Conservative { rounds: 0, .. } | Stage::Done => {}
            Stage::Conservative { baseline, .. } => {
                if long(baseline + threshold).is_some() {
                    self.finish(window);
                } else if recent.is_some_and(|rtt| rtt < baseline) {
                    // It was jitter.
                    self.stage = Stage::SlowStart;
                }
            }
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
    fn extend_train(&mut self, now: Instant) -> Duration {
        match &mut self.train {
            Some((began, latest)) if *latest + TRAIN_GAP >= now => {
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
        };
    }

    fn start_round(&mut self, window: &mut Window, now: Instant) {
        // The NIC measures about one a round: not one in each.
        self.last_round = self.this_round.take().or(self.last_round);
        self.recent = None;
        self.samples = 0;
        self.train = Some((now, now));
        if let Stage::Conservative { rounds, .. } = &mut self.stage {
            *rounds += 1;
            if *rounds >= CSS_ROUNDS {
                self.finish(window);
            }
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
                round_start: i == 0,
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

    #[test]
    fn acknowledgments_over_most_of_a_round_trip_slow_it_down() {
        for (gap, growth) in [(1, 250), (3, 1000)] {
            let (mut hystart, mut window) = (HyStart::default(), window());
            round(&mut hystart, &mut window, 40, 8);
            for millis in (0..=30).step_by(gap) {
                assert_eq!(hystart.growth(1000), 1000);
                let sample = AckSample {
                    now: Instant::from_millis(millis),
                    round_start: millis == 0,
                    min_rtt: Some(Duration::from_millis(40)),
                    ..AckSample::default()
                };
                hystart.observe(&mut window, &sample);
            }
            assert_eq!(hystart.growth(1000), growth);
            round(&mut hystart, &mut window, 40, 8);
            assert_eq!(hystart.growth(1000), 1000, "the path is not full");
        }
    }

    #[test]
    fn jitter_only_pauses_it() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        round(&mut hystart, &mut window, 40, 8);
        round(&mut hystart, &mut window, 46, 8);
        assert_eq!(hystart.growth(1000), 250);
        round(&mut hystart, &mut window, 40, 8);
        assert_eq!(hystart.growth(1000), 1000);
    }

    #[test]
    fn few_samples_prove_nothing() {
        let (mut hystart, mut window) = (HyStart::default(), window());
        round(&mut hystart, &mut window, 40, 8);
        round(&mut hystart, &mut window, 80, 7);
        assert_eq!(hystart.growth(1000), 1000);
    }
}
