//! CUBIC (RFC 9438), with HyStart++ in its slow start.

use std::time::Duration;

use flextcp_nic::time::Instant;

use super::hystart::HyStart;
use super::{AckSample, Algorithm, Window};

/// C of RFC 9438, section 5, in segments per second cubed.
const C: f64 = 0.4;
/// Multiplicative decrease factor (RFC 9438, section 4.6).
const BETA: f64 = 0.7;
/// Additive increase of the Reno estimate (RFC 9438, section 4.3): what loses by less than half gains by less, until it has back
/// what it had. From there on it is Reno's one segment, as the RFC has it; Linux stays at this, and gets less out of a path with losses.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Least growth in a round trip, as a part of the window, while no loss has told how much the path holds: slow start may
/// have been left early (Linux's `bictcp_update`; RFC 9438, section 4.10, leaves a sender that HyStart stopped with a
/// cubic from zero, which takes seconds).
const LEAST_SEARCH: f64 = 1.0 / 20.0;

/// Window as a cubic function of the time since the last reduction. Units are segments.
#[derive(Debug, Default)]
pub(in crate::tcp) struct Cubic {
    hystart: HyStart,
    epoch: Option<Instant>,
    w_max: f64,
    origin: f64,
    k: f64,
    w_est: f64,
    /// The window when it was last reduced: cwnd_prior.
    prior: f64,
    /// Fraction of a segment still owed to the window.
    credit: f64,
    /// What `ssthresh` replaced.
    before: Option<Before>,
}

#[derive(Clone, Copy, Debug)]
struct Before {
    hystart: HyStart,
    epoch: Option<Instant>,
    w_max: f64,
    origin: f64,
    k: f64,
    w_est: f64,
    prior: f64,
}

impl Cubic {
    fn start_epoch(&mut self, now: Instant, cwnd: f64) -> Instant {
        self.epoch = Some(now);
        self.w_est = cwnd;
        // RFC 9438, section 4.2
        if cwnd < self.w_max {
            self.k = ((self.w_max - cwnd) / C).cbrt();
            self.origin = self.w_max;
        } else {
            self.k = 0.0;
            self.origin = cwnd;
        }
        now
    }
}

impl Algorithm for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn observe(&mut self, window: &mut Window, sample: &AckSample) {
        if window.in_slow_start() {
            self.hystart.observe(window, sample);
        }
    }

    fn on_ack(&mut self, window: &mut Window, sample: &AckSample) {
        let mut acked = sample.acked;
        if window.in_slow_start() {
            acked = window.slow_start(self.hystart.growth(acked));
            if acked == 0 {
                return;
            }
        }
        let mss = f64::from(window.mss);
        let cwnd = f64::from(window.cwnd) / mss;
        let acked = f64::from(acked) / mss;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => self.start_epoch(sample.now, cwnd),
        };
        let rtt = sample.srtt.unwrap_or(Duration::ZERO).as_secs_f64();
        let t = sample.now.saturating_since(epoch).as_secs_f64() + rtt;
        let past = t - self.k;
        let target = (self.origin + C * past * past * past).clamp(cwnd, cwnd * 1.5);
        // RFC 9438, section 4.3: at least what Reno would have.
        let alpha = if self.w_est < self.prior { ALPHA } else { 1.0 };
        self.w_est += alpha * acked / cwnd;
        let mut growth = ((target - cwnd) / cwnd).max(0.0);
        if self.w_max == 0.0 {
            growth = growth.max(LEAST_SEARCH);
        }
        self.credit += acked * growth;
        if self.w_est > cwnd {
            self.credit = self.credit.max(self.w_est - cwnd);
        }
        if self.credit >= 1.0 {
            let segments = self.credit.min(acked.max(1.0)).floor();
            self.credit -= segments;
            window.cwnd = window.cwnd.saturating_add((segments * mss) as u32);
        }
    }

    fn ssthresh(&mut self, window: &Window, _now: Instant) -> u32 {
        self.before = Some(Before {
            hystart: self.hystart,
            epoch: self.epoch,
            w_max: self.w_max,
            origin: self.origin,
            k: self.k,
            w_est: self.w_est,
            prior: self.prior,
        });
        self.hystart.end();
        let cwnd = f64::from(window.cwnd) / f64::from(window.mss);
        // Fast convergence (RFC 9438, section 4.7).
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.prior = cwnd;
        self.epoch = None;
        self.credit = 0.0;
        (f64::from(window.cwnd) * BETA) as u32
    }

    fn on_idle(&mut self, idle: Duration) {
        // RFC 9438, section 5.8: time spent idle does not count.
        self.epoch = self.epoch.map(|epoch| epoch + idle);
    }

    fn on_timeout(&mut self) {
        self.epoch = None;
        self.w_max = 0.0;
    }

    /// RFC 9438, section 4.9. A slow start that nothing ended goes on being watched.
    fn undo(&mut self) {
        if let Some(before) = self.before.take() {
            self.hystart = before.hystart;
            self.hystart.resume();
            self.epoch = before.epoch;
            self.w_max = before.w_max;
            self.origin = before.origin;
            self.k = before.k;
            self.w_est = before.w_est;
            self.prior = before.prior;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_loss_it_grows_by_a_twentieth_a_round_trip() {
        let mut window = Window {
            cwnd: 100_000,
            ssthresh: 100_000,
            mss: 1000,
        };
        let mut cubic = Cubic::default();
        for round in 1..=10 {
            for _ in 0..window.cwnd / window.mss {
                let sample = AckSample {
                    now: Instant::from_millis(20 * round),
                    acked: 1000,
                    srtt: Some(Duration::from_millis(20)),
                    ..AckSample::default()
                };
                cubic.on_ack(&mut window, &sample);
            }
        }
        // 1.05 to the tenth, in whole segments.
        assert!(
            (158_000..=164_000).contains(&window.cwnd),
            "{}",
            window.cwnd
        );
    }

    #[test]
    fn returns_to_the_old_window_after_k_seconds() {
        let mut window = Window {
            cwnd: 100_000,
            ssthresh: u32::MAX,
            mss: 1000,
        };
        let mut cubic = Cubic::default();
        window.ssthresh = cubic.ssthresh(&window, Instant::ZERO);
        assert_eq!(window.ssthresh, 70_000);
        window.cwnd = window.ssthresh;
        // K = cbrt(30 / 0.4) = 4.2 s
        let mut now = Instant::ZERO;
        for _ in 0..43 {
            now += Duration::from_millis(100);
            for _ in 0..window.cwnd / window.mss {
                let sample = AckSample {
                    now,
                    acked: 1000,
                    srtt: Some(Duration::from_millis(100)),
                    ..AckSample::default()
                };
                cubic.on_ack(&mut window, &sample);
            }
        }
        assert!((95_000..=105_000).contains(&window.cwnd), "{}", window.cwnd);
    }

    /// A cubic that lost at 100 segments, and what an acknowledgment at `now` makes of its window.
    fn after_a_loss() -> (Cubic, impl Fn(&mut Cubic, &mut Window, Instant)) {
        let mut cubic = Cubic::default();
        let window = Window {
            cwnd: 100_000,
            ssthresh: u32::MAX,
            mss: 1000,
        };
        cubic.ssthresh(&window, Instant::ZERO);
        let acknowledge = |cubic: &mut Cubic, window: &mut Window, now| {
            let sample = AckSample {
                now,
                acked: 1000,
                srtt: Some(Duration::from_millis(100)),
                ..AckSample::default()
            };
            cubic.on_ack(window, &sample);
        };
        (cubic, acknowledge)
    }

    const REDUCED: Window = Window {
        cwnd: 70_000,
        ssthresh: 70_000,
        mss: 1000,
    };

    /// RFC 9438, section 4.4: the target is at most half a window away, however far the cubic has run ahead.
    #[test]
    fn a_round_trip_adds_at_most_half_a_window() {
        let (mut cubic, acknowledge) = after_a_loss();
        let mut window = REDUCED;
        acknowledge(&mut cubic, &mut window, Instant::ZERO);
        for _ in 1..70 {
            acknowledge(&mut cubic, &mut window, Instant::from_millis(60_000));
        }
        assert!((100_000..=105_000).contains(&window.cwnd), "{window:?}");
    }

    /// RFC 9438, section 5.8.
    #[test]
    fn idle_time_is_no_time_to_grow_in() {
        let (mut cubic, acknowledge) = after_a_loss();
        let mut window = REDUCED;
        acknowledge(&mut cubic, &mut window, Instant::ZERO);
        cubic.on_idle(Duration::from_secs(60));
        for _ in 1..70 {
            acknowledge(&mut cubic, &mut window, Instant::from_millis(60_000));
        }
        assert!(window.cwnd < 75_000, "{window:?}");
    }

    /// RFC 9438, section 4.7: whoever loses below the last maximum leaves room for others.
    #[test]
    fn a_loss_below_the_last_maximum_lowers_it() {
        let mut cubic = Cubic::default();
        let window = |cwnd| Window {
            cwnd,
            ssthresh: cwnd,
            mss: 1000,
        };
        // By section 4.6.
        assert_eq!(cubic.ssthresh(&window(100_000), Instant::ZERO), 70_000);
        assert_eq!(cubic.w_max, 100.0);
        assert_eq!(cubic.ssthresh(&window(80_000), Instant::ZERO), 56_000);
        assert!((cubic.w_max - 68.0).abs() < 1e-9, "{}", cubic.w_max);
        cubic.ssthresh(&window(90_000), Instant::ZERO);
        assert_eq!(cubic.w_max, 90.0);
    }

    /// RFC 9438, section 4.3: where the cubic is slower than Reno, Reno's growth counts.
    #[test]
    fn a_short_path_grows_as_reno_does() {
        let mut window = Window {
            cwnd: 20_000,
            ssthresh: u32::MAX,
            mss: 1000,
        };
        let mut cubic = Cubic::default();
        window.ssthresh = cubic.ssthresh(&window, Instant::ZERO);
        window.cwnd = window.ssthresh;
        for millis in 1..=100 {
            if millis == 13 {
                let regained = 20_000..=21_000;
                assert!(regained.contains(&window.cwnd), "{}", window.cwnd);
            }
            for _ in 0..window.cwnd / window.mss {
                let sample = AckSample {
                    now: Instant::from_millis(millis),
                    acked: 1000,
                    srtt: Some(Duration::from_millis(1)),
                    ..AckSample::default()
                };
                cubic.on_ack(&mut window, &sample);
            }
        }
        // 14 segments, 0.53 for each of twelve round trips, one for each of the others; the cubic alone would be below 20 still.
        assert!(
            (100_000..=112_000).contains(&window.cwnd),
            "{}",
            window.cwnd
        );
    }
}
