//! When a connection is installed on the NIC and when it is claimed back.

use std::time::Duration;

use flextcp_nic::time::Instant;

/// Which plain established connections are offered to the NIC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OffloadPolicy {
    /// None: the engine carries everything.
    Never,
    /// All, as soon as they are plain.
    #[default]
    Always,
    /// For tests: connections are offered, and claimed back in mid-flight, by a coin from this seed.
    Random(u64),
}

/// The policy at work.
#[derive(Debug)]
pub(crate) struct Offload {
    policy: OffloadPolicy,
    coin: u64,
}

impl Offload {
    pub(crate) const fn new(policy: OffloadPolicy) -> Self {
        let coin = match policy {
            OffloadPolicy::Random(seed) => seed,
            _ => 0,
        };
        Self { policy, coin }
    }

    /// Whether to offer a plain connection now.
    pub(crate) fn offers(&mut self, hysteresis: &Hysteresis, now: Instant) -> bool {
        match self.policy {
            OffloadPolicy::Never => false,
            OffloadPolicy::Always => hysteresis.is_calm(now),
            OffloadPolicy::Random(_) => self.toss().is_multiple_of(2),
        }
    }

    /// Whether to claim a connection for no reason.
    pub(crate) fn claims(&mut self) -> bool {
        matches!(self.policy, OffloadPolicy::Random(_)) && self.toss().is_multiple_of(8)
    }

    /// SplitMix64.
    const fn toss(&mut self) -> u64 {
        self.coin = self.coin.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.coin;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// How much a connection gets done on the NIC between two punts that loss or reordering caused.
///
/// Moving there and back is taken to cost as much as the engine's extra work on [`Self::WORTHWHILE`] segments: an
/// estimate, not a measurement. A
/// connection that carried more goes back as soon as recovery is over; one that twice in a row carried less waits
/// a round trip each time, so a path that loses or reorders all the time makes it move once in two at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hysteresis {
    /// Bytes carried in both directions when it was installed.
    carried: u64,
    short_stays: u32,
    until: Instant,
}

impl Hysteresis {
    /// Segments of a stay that pays for itself.
    const WORTHWHILE: u64 = 8;
    /// A round trip may be long, or not known.
    const LONGEST: Duration = Duration::from_millis(100);

    /// The NIC has the connection, which carried `bytes` so far.
    pub(crate) const fn installed(&mut self, bytes: u64) {
        self.carried = bytes;
    }

    /// A punt that loss or reordering caused, after `bytes` in all.
    pub(crate) fn punted(&mut self, now: Instant, bytes: u64, mss: u32, rtt: Option<Duration>) {
        let segments = bytes.saturating_sub(self.carried) / u64::from(mss.max(1));
        if segments >= Self::WORTHWHILE {
            self.short_stays = 0;
            return;
        }
        self.short_stays += 1;
        if self.short_stays > 1 {
            self.until = now + rtt.unwrap_or(Self::LONGEST).min(Self::LONGEST);
        }
    }

    /// The NIC's table is full: it is not asked again at once.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.until = now + Self::LONGEST;
    }

    fn is_calm(&self, now: Instant) -> bool {
        self.until <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(1);

    #[test]
    fn worthwhile_stays_never_wait() {
        let mut offload = Offload::new(OffloadPolicy::Always);
        let mut hysteresis = Hysteresis::default();
        let mut bytes = 0;
        for millis in 1..100 {
            let now = Instant::from_millis(millis);
            assert!(offload.offers(&hysteresis, now));
            hysteresis.installed(bytes);
            bytes += 8 * 1448;
            hysteresis.punted(now, bytes, 1448, Some(RTT));
        }
    }

    #[test]
    fn short_stays_in_a_row_wait_a_round_trip_each() {
        let mut offload = Offload::new(OffloadPolicy::Always);
        let mut hysteresis = Hysteresis::default();
        let now = Instant::from_millis(1);
        hysteresis.punted(now, 100, 1448, Some(RTT));
        assert!(offload.offers(&hysteresis, now), "once is chance");
        for round in 0..10 {
            let now = now + RTT * round;
            hysteresis.installed(100);
            hysteresis.punted(now, 200, 1448, Some(RTT));
            assert!(!offload.offers(&hysteresis, now));
            assert!(offload.offers(&hysteresis, now + RTT));
        }
        hysteresis.refused(now);
        assert!(!offload.offers(&hysteresis, now + RTT));
    }
}
