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

/// How often a connection was punted lately. A few punts cost nothing; a path that loses or reorders
/// all the time keeps its connections with the engine for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hysteresis {
    heat: u32,
    at: Instant,
}

impl Hysteresis {
    const LIMIT: u32 = 8;
    const HALF_LIFE: Duration = Duration::from_millis(100);

    /// A punt that loss or reordering caused.
    pub(crate) fn punted(&mut self, now: Instant) {
        self.heat = self.heat_at(now).saturating_add(1);
        self.at = now;
    }

    fn is_calm(&self, now: Instant) -> bool {
        self.heat_at(now) < Self::LIMIT
    }

    fn heat_at(&self, now: Instant) -> u32 {
        let halvings = now.saturating_since(self.at).as_nanos() / Self::HALF_LIFE.as_nanos();
        self.heat
            .checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_punts_in_a_row_keep_a_connection_off_the_nic_for_a_while() {
        let mut offload = Offload::new(OffloadPolicy::Always);
        let mut hysteresis = Hysteresis::default();
        let mut now = Instant::from_millis(1);
        for _ in 0..8 {
            assert!(offload.offers(&hysteresis, now));
            hysteresis.punted(now);
            now += Duration::from_millis(1);
        }
        assert!(!offload.offers(&hysteresis, now));
        assert!(offload.offers(&hysteresis, now + Duration::from_millis(200)));
    }
}
