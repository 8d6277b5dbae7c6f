//! Reno (RFC 5681).

use flextcp_nic::time::Instant;

use super::{AckSample, Algorithm, Window};

/// Slow start, then one segment per round trip, counted in bytes (RFC 3465).
#[derive(Debug, Default)]
pub(in crate::tcp) struct Reno {
    acked: u32,
}

impl Algorithm for Reno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn on_ack(&mut self, window: &mut Window, sample: &AckSample) {
        let mut acked = sample.acked;
        if window.in_slow_start() {
            acked = window.slow_start(acked);
        }
        self.acked = self.acked.saturating_add(acked);
        if self.acked >= window.cwnd {
            self.acked -= window.cwnd;
            window.cwnd += window.mss;
        }
    }

    fn ssthresh(&mut self, window: &Window, _now: Instant) -> u32 {
        self.acked = 0;
        window.cwnd / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_one_segment_per_window() {
        let mut window = Window {
            cwnd: 20_000,
            ssthresh: 20_000,
            mss: 1000,
        };
        let mut reno = Reno::default();
        for _ in 0..20 {
            assert_eq!(window.cwnd, 20_000);
            reno.on_ack(
                &mut window,
                &AckSample {
                    acked: 1000,
                    ..AckSample::default()
                },
            );
        }
        assert_eq!(window.cwnd, 21_000);
        assert_eq!(reno.ssthresh(&window, Instant::ZERO), 10_500);
    }
}
