//! Sequence space: the only place with raw arithmetic on sequence numbers, windows and scales.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A TCP sequence number. It has no total order: compare with [`before`](Self::before) and
/// [`after`](Self::after), valid within half the space (RFC 9293, section 3.4).
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Whether `self` comes strictly before `other`.
    #[inline]
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether `self` comes strictly after `other`.
    #[inline]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// `self <= other` in sequence space.
    #[inline]
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// `self >= other` in sequence space.
    #[inline]
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// Distance from `earlier` to `self`, zero when `self` is before it.
    #[inline]
    pub const fn since(self, earlier: Self) -> u32 {
        let distance = self.0.wrapping_sub(earlier.0);
        if (distance as i32) < 0 { 0 } else { distance }
    }

    /// Signed distance from `other` to `self`.
    #[inline]
    pub const fn offset_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// The later of the two.
    #[inline]
    pub const fn latest(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[inline]
    pub const fn earliest(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Add<u32> for SeqNum {
    type Output = Self;
    #[inline]
    fn add(self, rhs: u32) -> Self {
        Self(self.0.wrapping_add(rhs))
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;
    #[inline]
    fn sub(self, rhs: u32) -> Self {
        Self(self.0.wrapping_sub(rhs))
    }
}

impl AddAssign<u32> for SeqNum {
    #[inline]
    fn add_assign(&mut self, rhs: u32) {
        *self = *self + rhs;
    }
}

/// Window scale shift count, at most 14 (RFC 7323, section 2.3).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct WindowScale(u8);

impl WindowScale {
    /// Largest shift.
    pub const MAX: Self = Self(14);
    /// No scaling.
    pub const ZERO: Self = Self(0);

    /// A shift count; values above 14 are taken as 14, as RFC 7323, section 2.3 says.
    #[inline]
    pub const fn new(shift: u8) -> Self {
        Self(if shift > 14 { 14 } else { shift })
    }

    /// The shift count.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// A received 16-bit window field in bytes.
    #[inline]
    pub const fn scale_up(self, field: u16) -> u32 {
        (field as u32) << self.0
    }

    /// The 16-bit window field that advertises at most `window` bytes.
    #[inline]
    pub const fn scale_down(self, window: u32) -> u16 {
        let field = window >> self.0;
        if field > u16::MAX as u32 {
            u16::MAX
        } else {
            field as u16
        }
    }

    /// `window` as the peer will understand it after the field's rounding.
    #[inline]
    pub const fn round(self, window: u32) -> u32 {
        self.scale_up(self.scale_down(window))
    }

    /// The smallest scale with which a buffer of `bytes` can be advertised whole.
    #[inline]
    pub const fn for_buffer(bytes: u32) -> Self {
        let mut shift = 0;
        while shift < 14 && (bytes >> shift) > u16::MAX as u32 {
            shift += 1;
        }
        Self(shift)
    }
}

/// A maximum segment size: bytes of TCP payload, never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mss(u16);

impl Mss {
    /// What an IPv4 peer that sends no MSS option accepts (RFC 9293, section 3.7.1).
    pub const DEFAULT_V4: Self = Self(536);
    /// What an IPv6 peer that sends no MSS option accepts (RFC 9293, section 3.7.1).
    pub const DEFAULT_V6: Self = Self(1220);
    /// The least that is honoured, as Linux's `tcp_min_snd_mss`: smaller values cost more than they carry.
    pub const MIN: Self = Self(48);

    /// An MSS, raised to [`Mss::MIN`].
    #[inline]
    pub const fn new(bytes: u16) -> Self {
        Self(if bytes < Self::MIN.0 {
            Self::MIN.0
        } else {
            bytes
        })
    }

    /// Bytes.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Bytes, for arithmetic with windows.
    #[inline]
    pub const fn bytes(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Distances within which two numbers have an order (RFC 9293, section 3.4).
    const WINDOW: u32 = 1 << 30;

    proptest! {
        #[test]
        fn order_is_reflexive_and_antisymmetric(a in any::<u32>(), b in any::<u32>()) {
            let (a, b) = (SeqNum(a), SeqNum(b));
            prop_assert!(a.at_or_before(a) && a.at_or_after(a) && !a.before(a) && !a.after(a));
            prop_assert_eq!(a.before(b), b.after(a));
            prop_assert_eq!(a.at_or_before(b), !a.after(b));
            prop_assert_eq!(a.at_or_after(b), !a.before(b));
            prop_assume!(a.0.wrapping_sub(b.0) != 1 << 31);
            let exactly_one = [a.before(b), a == b, a.after(b)];
            prop_assert_eq!(exactly_one.iter().filter(|&&holds| holds).count(), 1);
        }

        #[test]
        fn order_is_transitive_within_a_window(
            start in any::<u32>(),
            first in 0..WINDOW,
            second in 0..WINDOW,
        ) {
            let a = SeqNum(start);
            let (b, c) = (a + first, a + first + second);
            prop_assert!(a.at_or_before(b) && b.at_or_before(c) && a.at_or_before(c));
            prop_assert_eq!((c.since(a), a.since(c)), (first + second, 0));
            prop_assert_eq!(c.since(b) + b.since(a), c.since(a));
        }

        #[test]
        fn adding_and_subtracting_wrap(start in any::<u32>(), distance in any::<u32>()) {
            let a = SeqNum(start);
            prop_assert_eq!(a + distance - distance, a);
            let mut b = a;
            b += distance;
            prop_assert_eq!(b, a + distance);
            prop_assert_eq!(b.offset_from(a), distance as i32);
        }

        #[test]
        fn latest_and_earliest_are_the_two(start in any::<u32>(), distance in 0..WINDOW) {
            let (a, b) = (SeqNum(start), SeqNum(start) + distance);
            prop_assert_eq!((a.latest(b), b.latest(a)), (b, b));
            prop_assert_eq!((a.earliest(b), b.earliest(a)), (a, a));
        }

        #[test]
        fn a_scaled_window_never_promises_more(shift in any::<u8>(), window in any::<u32>()) {
            let scale = WindowScale::new(shift);
            prop_assert!(scale.get() <= WindowScale::MAX.get());
            let seen = scale.round(window);
            prop_assert!(seen <= window);
            prop_assert_eq!(scale.round(seen), seen);
            if scale.scale_down(window) < u16::MAX {
                prop_assert!(window - seen < 1 << scale.get());
            }
        }

        #[test]
        fn a_scale_fits_its_buffer_and_no_smaller_one_does(bytes in any::<u32>()) {
            let scale = WindowScale::for_buffer(bytes);
            let shift = scale.get();
            prop_assert!(bytes >> shift <= u32::from(u16::MAX) || scale == WindowScale::MAX);
            prop_assert!(shift == 0 || bytes >> (shift - 1) > u32::from(u16::MAX));
        }

        #[test]
        fn an_mss_is_never_below_the_least(bytes in any::<u16>()) {
            prop_assert_eq!(Mss::new(bytes).get(), bytes.max(Mss::MIN.get()));
            prop_assert_eq!(Mss::new(bytes).bytes(), u32::from(Mss::new(bytes).get()));
        }
    }

    #[test]
    fn order_holds_across_the_wrap() {
        assert!(SeqNum(u32::MAX).before(SeqNum(0)));
        assert_eq!(SeqNum(5).since(SeqNum(u32::MAX - 4)), 10);
        assert_eq!(SeqNum(u32::MAX) + 1, SeqNum(0));
    }
}
