//! HyStart++ (RFC 9406): leaving slow start when round trips grow, before the queue overflows.

use std::time::Duration;

use super::{AckSample, Window};

/// Constants of RFC 9406, section 4.3.
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u32 = 5;

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
    last_round: Option<Duration>,
    this_round: Option<Duration>,
    samples: u32,
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
            self.start_round(window);
        }
        if let Some(rtt) = sample.rtt {
            self.this_round = Some(self.this_round.map_or(rtt, |least| least.min(rtt)));
            self.samples += if sample.sparse { N_RTT_SAMPLE } else { 1 };
        }
        let (Some(last), Some(this)) = (self.last_round, self.this_round) else {
            return;
        };
        if self.samples < N_RTT_SAMPLE {
            return;
        }
        match self.stage {
            Stage::SlowStart => {
                let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if this >= last + threshold {
                    self.stage = Stage::Conservative {
                        baseline: this,
                        rounds: 0,
                    };
                }
            }
            // It was jitter.
            Stage::Conservative { baseline, .. } if this < baseline => {
                self.stage = Stage::SlowStart;
            }
            _ => {}
        }
    }

    fn start_round(&mut self, window: &mut Window) {
        self.last_round = self.this_round.take();
        self.samples = 0;
        if let Stage::Conservative { rounds, .. } = &mut self.stage {
            *rounds += 1;
            if *rounds >= CSS_ROUNDS {
                self.stage = Stage::Done;
                window.ssthresh = window.cwnd;
            }
        }
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
