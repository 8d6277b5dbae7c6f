//! Round-trip time and retransmission timeout (RFC 6298, with Linux's 200 ms floor under the variance).

use std::time::Duration;

use flextcp_nic::time::Instant;

/// How long the least round trip is believed: paths change (Linux's `tcp_min_rtt_wlen`).
const MIN_WINDOW: Duration = Duration::from_secs(300);
/// Resolution of the timestamp clock.
const TICK: Duration = Duration::from_millis(1);

/// Smoothed round trip and the timeout that follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RttEstimator {
    srtt: Option<Duration>,
    rttvar: Duration,
    min: Duration,
    min_at: Instant,
    initial: Duration,
    floor: Duration,
    ceiling: Duration,
}

impl RttEstimator {
    pub(super) const fn new(initial: Duration, floor: Duration, ceiling: Duration) -> Self {
        Self {
            srtt: None,
            rttvar: Duration::ZERO,
            min: Duration::MAX,
            min_at: Instant::ZERO,
            initial,
            floor,
            ceiling,
        }
    }

    /// Takes a sample. Karn's rule is the caller's: none from a retransmitted segment without timestamps.
    pub(super) fn sample(&mut self, now: Instant, rtt: Duration) {
        // A sample of zero means faster than the clock; and a wild one must not poison the estimate.
        let rtt = rtt.clamp(Duration::from_micros(1), self.ceiling);
        if rtt <= self.min || self.min_at + MIN_WINDOW < now {
            self.min = rtt;
            self.min_at = now;
        }
        match self.srtt {
            // RFC 6298, 2.2
            None => {
                self.srtt = Some(rtt);
                self.rttvar = rtt / 2;
            }
            // RFC 6298, 2.3: alpha 1/8, beta 1/4
            Some(srtt) => {
                self.rttvar = (self.rttvar * 3 + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((srtt * 7 + rtt) / 8);
            }
        }
    }

    /// Takes the one sample that the NIC took of a flight of so many segments. With one for each acknowledgment the
    /// smoothed round trip would be there within a round trip, and what is paced by it must not lag behind by eight. Short
    /// round trips are not paced, and jump.
    pub(super) fn sample_flight(&mut self, now: Instant, rtt: Duration, segments: u32) {
        let long = rtt >= TICK;
        for _ in 0..if long { (segments / 2).clamp(1, 4) } else { 1 } {
            self.sample(now, rtt);
        }
    }

    /// Takes a sample from timestamps (RFC 7323, section 4.1), unless their clock is too coarse to tell more
    /// than is known already.
    pub(super) fn sample_timestamp(&mut self, now: Instant, rtt: Duration) {
        let coarse = rtt <= TICK && self.srtt.is_some_and(|srtt| srtt < 2 * TICK);
        if !coarse {
            self.sample(now, rtt.max(TICK));
        }
    }

    /// Timeout without backoff. Linux bounds the variance term, not the sum, from below.
    pub(super) fn rto(&self) -> Duration {
        match self.srtt {
            None => self.initial,
            Some(srtt) => (srtt + (self.rttvar * 4).max(self.floor)).min(self.ceiling),
        }
    }

    /// Timeout after `backoff` doublings (RFC 6298, 5.5).
    pub(super) fn backed_off(&self, backoff: u32) -> Duration {
        self.rto()
            .saturating_mul(1 << backoff.min(16))
            .min(self.ceiling)
    }

    pub(super) const fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    pub(super) const fn rttvar(&self) -> Duration {
        self.rttvar
    }

    /// Least sample, `None` before the first.
    pub(super) fn min(&self) -> Option<Duration> {
        self.srtt.map(|_| self.min)
    }

    /// A handshake that needed retransmissions says nothing of the path: start from 3 s (RFC 6298, 5.7).
    pub(super) fn handshake_timed_out(&mut self) {
        if self.srtt.is_none() {
            self.initial = self.initial.max(Duration::from_secs(3));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimator() -> RttEstimator {
        RttEstimator::new(
            Duration::from_secs(1),
            Duration::from_millis(200),
            Duration::from_secs(120),
        )
    }

    #[test]
    fn starts_at_one_second_and_never_falls_below_the_floor() {
        let mut rtt = estimator();
        assert_eq!(rtt.rto(), Duration::from_secs(1));
        for _ in 0..50 {
            rtt.sample(Instant::ZERO, Duration::from_micros(50));
        }
        assert_eq!(rtt.rto(), Duration::from_micros(200_050));
    }

    #[test]
    fn a_sample_of_a_long_flight_counts_for_several() {
        let (mut long, mut short) = (estimator(), estimator());
        for millis in [20, 60] {
            long.sample_flight(Instant::ZERO, Duration::from_millis(millis), 100);
            short.sample_flight(Instant::ZERO, Duration::from_millis(millis), 1);
        }
        assert_eq!(short.srtt(), Some(Duration::from_millis(25)));
        assert!(long.srtt() > Some(Duration::from_millis(35)), "{long:?}");
    }

    #[test]
    fn backs_off_to_the_ceiling() {
        let rtt = estimator();
        assert_eq!(rtt.backed_off(3), Duration::from_secs(8));
        assert_eq!(rtt.backed_off(40), Duration::from_secs(120));
    }

    #[test]
    fn first_sample_sets_variance_to_half() {
        let mut rtt = estimator();
        rtt.sample(Instant::ZERO, Duration::from_millis(400));
        assert_eq!(rtt.rto(), Duration::from_millis(1200));
    }

    #[test]
    fn least_round_trip_is_forgotten_after_five_minutes() {
        let mut rtt = estimator();
        rtt.sample(Instant::from_millis(0), Duration::from_micros(50));
        rtt.sample(Instant::from_millis(299_000), Duration::from_micros(70));
        assert_eq!(rtt.min(), Some(Duration::from_micros(50)));
        rtt.sample(Instant::from_millis(301_000), Duration::from_micros(70));
        assert_eq!(rtt.min(), Some(Duration::from_micros(70)));
    }

    #[test]
    fn coarse_timestamps_do_not_blur_a_short_round_trip() {
        let mut rtt = estimator();
        let now = Instant::from_millis(1);
        rtt.sample(now, Duration::from_micros(50));
        rtt.sample_timestamp(now, Duration::from_millis(1));
        assert_eq!(rtt.srtt(), Some(Duration::from_micros(50)));
        rtt.sample_timestamp(now, Duration::from_millis(9));
        assert!(rtt.srtt() > Some(Duration::from_millis(1)));
    }
}
