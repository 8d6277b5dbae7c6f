//! Time as the sans-IO parts see it.

use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A point in time: nanoseconds since the host's own epoch.
///
/// The NIC and the engine never read a clock; their driver passes one of these in, taken from
/// `tokio::time::Instant` by the reactor and from a counter by the lab and the simulator.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant(u64);

impl Instant {
    /// The host's epoch.
    pub const ZERO: Self = Self(0);

    /// The instant `nanos` nanoseconds after the epoch.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `micros` microseconds after the epoch.
    #[inline]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros * 1_000)
    }

    /// The instant `millis` milliseconds after the epoch.
    #[inline]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Nanoseconds since the epoch.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since the epoch.
    #[inline]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds since the epoch.
    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time since `earlier`, zero when `earlier` is later.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A time as people write it: a number with `ns`, `us`, `ms`, `s`, `min` or `h`, or a number of `bare` alone, where there is such.
///
/// `None` for all else, and for what a [`Duration`] does not hold.
pub fn parse_duration(text: &str, bare: Option<Duration>) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    let unit = match unit.trim_start() {
        "ns" => Duration::from_nanos(1),
        "us" | "µs" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        "" => bare?,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * unit.as_secs_f64()).ok()
}

/// The earlier of two deadlines, either of which may not be set.
#[inline]
pub fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    #[inline]
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    #[inline]
    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;
    #[inline]
    fn sub(self, rhs: Self) -> Duration {
        self.saturating_since(rhs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        for (text, nanos) in [
            ("20ns", 20),
            ("50us", 50_000),
            ("1.5µs", 1_500),
            (" 500 ms ", 500_000_000),
            ("10s", 10_000_000_000),
            ("2min", 120_000_000_000),
            ("0.5h", 1_800_000_000_000),
            ("7", 7_000_000),
        ] {
            let time = parse_duration(text, Some(Duration::from_millis(1)));
            assert_eq!(time, Some(Duration::from_nanos(nanos)), "{text:?}");
        }
        assert_eq!(parse_duration("7", None), None);
        for wrong in ["", "s", "-1s", "1 year", "1s2", "1e9", "..", "nan", "inf"] {
            let time = parse_duration(wrong, Some(Duration::from_secs(1)));
            assert_eq!(time, None, "{wrong:?}");
        }
        let longest = format!("{}s", u64::MAX);
        assert_eq!(parse_duration(&longest, None), None, "{longest}");
    }

    #[test]
    fn a_deadline_that_is_not_set_is_not_the_earlier() {
        let (soon, late) = (Some(Instant(1)), Some(Instant(2)));
        assert_eq!(earlier(soon, late), soon);
        assert_eq!(earlier(late, soon), soon);
        assert_eq!(earlier(late, None), late);
        assert_eq!(earlier(None, late), late);
        assert_eq!(earlier(None, None), None);
    }
}
