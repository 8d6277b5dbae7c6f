//! Seconds, and what clients mean by an expiration time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix seconds that never go back: the system's clock at the start plus the time since.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    unix_at_start: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: Instant::now(),
            unix_at_start: since_epoch.map_or(0, |duration| duration.as_secs()),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.unix_at_start + self.uptime()
    }

    pub(super) fn uptime(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// When an item stops to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Never,
    /// At this Unix second.
    At(u64),
}

/// Larger expiration times are Unix times: protocol.txt, "Expiration times".
const LONGEST_RELATIVE: i64 = 60 * 60 * 24 * 30;

impl Expiry {
    /// From what a client sends: 0 is never, a negative value is at once.
    pub(super) fn from_client(exptime: i64, now: u64) -> Self {
        match exptime {
            0 => Self::Never,
            ..0 => Self::At(0),
            1..=LONGEST_RELATIVE => Self::At(now + exptime.unsigned_abs()),
            unix => Self::At(unix.unsigned_abs()),
        }
    }

    pub(super) fn is_past(self, now: u64) -> bool {
        match self {
            Self::Never => false,
            Self::At(second) => second <= now,
        }
    }

    /// Seconds left; `None` for ever.
    pub(super) fn left(self, now: u64) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::At(second) => Some(second.saturating_sub(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiration_times_are_relative_up_to_thirty_days() {
        let now = 2_000_000_000;
        let at = |exptime| Expiry::from_client(exptime, now);
        assert_eq!(at(0), Expiry::Never);
        assert_eq!(at(10), Expiry::At(now + 10));
        assert_eq!(at(2_592_000), Expiry::At(now + 2_592_000));
        assert_eq!(at(2_592_001), Expiry::At(2_592_001));
        assert!(at(-1).is_past(now) && at(2_592_001).is_past(now));
        assert!(at(i64::MIN).is_past(now) && !at(i64::MAX).is_past(now));
        assert_eq!(at(7).left(now), Some(7));
        assert_eq!(at(0).left(now), None);
    }
}
