//! Sequence space: the only place with raw arithmetic on sequence numbers, windows and scales.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A TCP sequence number. It has no total order: compare with [`before`](Self::before) and
/// [`after`](Self::after), valid within half the space (RFC 9293, section 3.4).
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Whether `self` comes strictly before `other`.
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether `self` comes strictly after `other`.
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// `self <= other` in sequence space.
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// `self >= other` in sequence space.
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// Distance from `earlier` to `self`, zero when `self` is before it.
    pub const fn since(self, earlier: Self) -> u32 {
        let distance = self.0.wrapping_sub(earlier.0);
        if (distance as i32) < 0 { 0 } else { distance }
    }

    /// Signed distance from `other` to `self`.
    pub const fn offset_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// The later of the two.
    pub const fn latest(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
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
    fn add(self, rhs: u32) -> Self {
        Self(self.0.wrapping_add(rhs))
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;
    fn sub(self, rhs: u32) -> Self {
        Self(self.0.wrapping_sub(rhs))
    }
}

impl AddAssign<u32> for SeqNum {
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
    pub const fn new(shift: u8) -> Self {
        Self(if shift > 14 { 14 } else { shift })
    }

    /// The shift count.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// A received 16-bit window field in bytes.
    pub const fn scale_up(self, field: u16) -> u32 {
        (field as u32) << self.0
    }

    /// The 16-bit window field that advertises at most `window` bytes.
    pub const fn scale_down(self, window: u32) -> u16 {
        let field = window >> self.0;
        if field > u16::MAX as u32 {
            u16::MAX
        } else {
            field as u16
        }
    }

    /// `window` as the peer will understand it after the field's rounding.
    pub const fn round(self, window: u32) -> u32 {
        self.scale_up(self.scale_down(window))
    }

    /// The smallest scale with which a buffer of `bytes` can be advertised whole.
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
    pub const fn new(bytes: u16) -> Self {
        Self(if bytes < Self::MIN.0 {
            Self::MIN.0
        } else {
            bytes
        })
    }

    /// Bytes.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Bytes, for arithmetic with windows.
    pub const fn bytes(self) -> u32 {
        self.0 as u32
    }
}
