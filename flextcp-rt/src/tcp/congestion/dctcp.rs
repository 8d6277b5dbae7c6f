//! DCTCP (RFC 8257): the window falls with the fraction of bytes that were marked, not with the fact.

use flextcp_nic::time::Instant;

use super::{AckSample, Algorithm, Reno, Window};

/// Weight of the newest observation: 2^-4 (RFC 8257, section 4.2).
const G_SHIFT: u32 = 4;
/// Alpha of one, in fixed point.
const ONE: u32 = 1 << 20;

/// Reno's growth, and a reduction in proportion to the congestion. Without ECN it is Reno.
#[derive(Debug)]
pub(in crate::tcp) struct Dctcp {
    reno: Reno,
    /// Fraction of marked bytes, smoothed.
    alpha: u32,
    /// Of the observation window.
    acked: u32,
    marked: u32,
}

impl Default for Dctcp {
    fn default() -> Self {
        Self {
            reno: Reno::default(),
            // RFC 8257, section 4.2: the first mark is taken seriously.
            alpha: ONE,
            acked: 0,
            marked: 0,
        }
    }
}

impl Algorithm for Dctcp {
    fn name(&self) -> &'static str {
        "dctcp"
    }

    fn observe(&mut self, _window: &mut Window, sample: &AckSample) {
        if sample.round_start && self.acked > 0 {
            let fraction = u64::from(self.marked) * u64::from(ONE) / u64::from(self.acked);
            self.alpha -= self.alpha >> G_SHIFT;
            self.alpha += (fraction >> G_SHIFT) as u32;
            self.alpha = self.alpha.min(ONE);
            self.acked = 0;
            self.marked = 0;
        }
        self.acked = self.acked.saturating_add(sample.acked);
        self.marked = self
            .marked
            .saturating_add(sample.ece.min(sample.acked))
            .min(self.acked);
    }

    fn on_ack(&mut self, window: &mut Window, sample: &AckSample) {
        self.reno.on_ack(window, sample);
    }

    /// A loss is a loss (RFC 8257, section 3.5).
    fn ssthresh(&mut self, window: &Window, now: Instant) -> u32 {
        self.reno.ssthresh(window, now)
    }

    /// cwnd * (1 - alpha / 2) (RFC 8257, section 3.3).
    fn ssthresh_marked(&mut self, window: &Window, _now: Instant) -> u32 {
        let cut = u64::from(window.cwnd) * u64::from(self.alpha) / u64::from(2 * ONE);
        window.cwnd - cut as u32
    }

    /// A burst above the threshold is marked, however short the queue is on average.
    fn wants_pace(&self) -> bool {
        true
    }

    fn wants_ecn(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window {
            cwnd: 100_000,
            ssthresh: 100_000,
            mss: 1000,
        }
    }

    fn round(dctcp: &mut Dctcp, marked: u32) {
        let sample = AckSample {
            acked: 100_000,
            ece: marked,
            round_start: true,
            ..AckSample::default()
        };
        dctcp.observe(&mut window(), &sample);
    }

    #[test]
    fn falls_with_the_fraction_marked() {
        let mut dctcp = Dctcp::default();
        assert_eq!(dctcp.ssthresh_marked(&window(), Instant::ZERO), 50_000);
        for _ in 0..200 {
            round(&mut dctcp, 10_000);
        }
        let ssthresh = dctcp.ssthresh_marked(&window(), Instant::ZERO);
        assert!((94_900..=95_100).contains(&ssthresh), "{ssthresh}");
    }

    #[test]
    fn forgets_marks_and_halves_on_loss() {
        let mut dctcp = Dctcp::default();
        for _ in 0..200 {
            round(&mut dctcp, 0);
        }
        assert!(dctcp.ssthresh_marked(&window(), Instant::ZERO) > 99_900);
        assert_eq!(dctcp.ssthresh(&window(), Instant::ZERO), 50_000);
    }
}
