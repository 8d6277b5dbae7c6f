//! Per-flow rate limits: when a paced flow may send next, and a timing wheel of those that wait.

use core::time::Duration;
use std::fmt;

use crate::time::Instant;

/// Most that a late wake-up makes up for.
const CREDIT_NANOS: u64 = 1_000_000;

/// A flow's pace: a virtual clock that runs ahead of the real one by what was sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pace {
    next: Instant,
}

impl Pace {
    /// When the next segment may go; `None` for now.
    pub fn blocked(self, now: Instant, rate: u32) -> Option<Instant> {
        (rate > 0 && self.next > now).then_some(self.next)
    }

    /// Up to when what was sent keeps the flow waiting.
    #[cfg(all(test, feature = "firmware"))]
    pub(crate) const fn until(self) -> Instant {
        self.next
    }

    /// Accounts for `bytes` sent at `rate` bytes per millisecond (0: unlimited). A wake-up that was late by up to a
    /// millisecond is made up for; time that passed idle gives no more credit than that.
    pub fn sent(&mut self, now: Instant, rate: u32, bytes: u32) {
        if rate > 0 {
            let nanos = u64::from(bytes) * 1_000_000 / u64::from(rate);
            let earliest = Instant::from_nanos(now.as_nanos().saturating_sub(CREDIT_NANOS));
            self.next = self.next.max(earliest) + Duration::from_nanos(nanos);
        }
    }

    /// Most bytes to send in one go at `rate`: a millisecond's worth, so that a slow flow's super-frames are
    /// small (as Linux's `tcp_tso_autosize`).
    pub const fn burst(rate: u32) -> u32 {
        if rate == 0 { u32::MAX } else { rate }
    }
}

/// Resolution: 2^13 ns, about 8 µs.
const TICK_SHIFT: u32 = 13;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Nine levels of six bits hold every 64-bit nanosecond clock value.
const LEVELS: usize = 9;

/// A hierarchical timing wheel: insertion and expiry in constant time, in order to the tick. An entry comes
/// out at its deadline or up to one tick later, never before.
pub struct Wheel<T> {
    /// The tick up to which everything has expired.
    current: u64,
    occupied: [u64; LEVELS],
    slots: Vec<Slot<T>>,
    len: usize,
}

/// Deadlines in ticks, with what is due then.
type Slot<T> = Vec<(u64, T)>;

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Wheel<T> {
    /// An empty wheel at time zero.
    pub fn new() -> Self {
        Self {
            current: 0,
            occupied: [0; LEVELS],
            slots: (0..LEVELS * SLOTS).map(|_| Vec::new()).collect(),
            len: 0,
        }
    }

    /// Entries that wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry for `deadline`; a deadline in the past is due at the next tick.
    pub fn insert(&mut self, deadline: Instant, value: T) {
        let tick = deadline
            .as_nanos()
            .div_ceil(1 << TICK_SHIFT)
            .max(self.current + 1);
        self.len += 1;
        self.place(tick, value);
    }

    fn place(&mut self, tick: u64, value: T) {
        // The highest group of bits in which the deadline differs from now; there it is the greater.
        let level = (63 - (tick ^ self.current).leading_zeros()) / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        self.occupied[level as usize] |= 1 << slot;
        self.slots[level as usize * SLOTS + slot].push((tick, value));
    }

    /// The next occupied slot: level, slot, and the tick at which it starts.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        if self.len == 0 {
            return None;
        }
        (0..LEVELS).find_map(|level| {
            let occupied = self.occupied[level];
            let shift = level as u32 * SLOT_BITS;
            let slot = occupied.trailing_zeros();
            let above = (self.current >> shift) & !(SLOTS as u64 - 1);
            (occupied != 0).then(|| (level, slot as usize, (above | u64::from(slot)) << shift))
        })
    }

    /// The earliest time at which [`expire`](Self::expire) has work.
    pub fn next_at(&self) -> Option<Instant> {
        self.next_slot()
            .map(|(.., tick)| Instant::from_nanos(tick << TICK_SHIFT))
    }

    /// Passes all entries due at `now` to `due`.
    pub fn expire(&mut self, now: Instant, mut due: impl FnMut(T)) {
        let now = now.as_nanos() >> TICK_SHIFT;
        while let Some((level, slot, start)) = self.next_slot().filter(|&(.., start)| start <= now)
        {
            self.current = start;
            self.occupied[level] &= !(1 << slot);
            let mut entries = std::mem::take(&mut self.slots[level * SLOTS + slot]);
            for (tick, value) in entries.drain(..) {
                if tick <= now {
                    self.len -= 1;
                    due(value);
                } else {
                    self.place(tick, value);
                }
            }
            let vacated = &mut self.slots[level * SLOTS + slot];
            if vacated.is_empty() {
                *vacated = entries;
            }
        }
        self.current = self.current.max(now);
    }
}

impl<T> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paces_at_the_rate() {
        let mut pace = Pace::default();
        let mut now = Instant::from_millis(5);
        assert_eq!(pace.blocked(now, 1000), None);
        for _ in 0..100 {
            pace.sent(now, 1000, 1500);
            now = pace.blocked(now, 1000).unwrap_or(now);
        }
        // A millisecond of credit at the start.
        assert_eq!(now, Instant::from_millis(154));
        // Wake-ups a tenth of a segment late cost nothing in the long run.
        for _ in 0..100 {
            now += Duration::from_micros(150);
            pace.sent(now, 1000, 1500);
            now = pace.blocked(now, 1000).unwrap();
        }
        assert_eq!(now, Instant::from_millis(304));
        assert_eq!(pace.blocked(Instant::ZERO, 0), None);
    }

    #[test]
    fn a_megabit_a_second_is_a_rate() {
        let (mut pace, start) = (Pace::default(), Instant::from_millis(5));
        let mut now = start;
        for _ in 0..100 {
            pace.sent(now, 125, 1500);
            now = pace.blocked(now, 125).unwrap_or(now);
        }
        let millis = (now - start).as_millis();
        assert!((1_180..=1_200).contains(&millis), "{millis} ms");
    }

    #[test]
    fn far_deadlines_do_not_overflow() {
        let mut wheel = Wheel::new();
        wheel.insert(Instant::from_nanos(u64::MAX), 1);
        wheel.insert(Instant::from_nanos(u64::MAX / 2), 2);
        let mut out = Vec::new();
        wheel.expire(Instant::from_nanos(u64::MAX / 2 + (1 << 14)), |value| {
            out.push(value)
        });
        assert_eq!(out, [2]);
        assert!(wheel.next_at().is_some());
    }

    proptest! {
        /// Every entry comes out once, not before its deadline and within a tick of it, in order of ticks.
        #[test]
        fn expires_on_time(
            delays in prop::collection::vec(0_u64..1 << 40, 1..100),
            steps in prop::collection::vec(1_u64..1 << 36, 1..100),
        ) {
            let mut wheel = Wheel::new();
            let mut now = Instant::from_nanos(12_345_678);
            wheel.expire(now, |_: u64| ());
            for delay in &delays {
                wheel.insert(now + Duration::from_nanos(*delay), now.as_nanos() + delay);
            }
            let mut out = Vec::new();
            for step in steps {
                let before = now;
                now += Duration::from_nanos(step);
                let mut due = Vec::new();
                wheel.expire(now, |deadline| due.push(deadline));
                for &deadline in &due {
                    prop_assert!(deadline <= now.as_nanos());
                    prop_assert!(deadline + (2 << TICK_SHIFT) > before.as_nanos());
                }
                out.extend(due);
                if let Some(next) = wheel.next_at() {
                    prop_assert!(next > now);
                }
            }
            prop_assert_eq!(out.len() + wheel.len(), delays.len());
            let missed = delays.iter().filter(|&&d| 12_345_678 + d + (1 << TICK_SHIFT) <= now.as_nanos()).count();
            prop_assert!(out.len() >= missed);
        }
    }
}
