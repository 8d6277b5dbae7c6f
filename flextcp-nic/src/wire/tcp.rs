//! The TCP header (RFC 9293, section 3.1).

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::options::TcpOptions;
use crate::seq::SeqNum;

/// The control bits, in the header's order.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// No more data from the sender.
    pub const FIN: Self = Self(1 << 0);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(1 << 1);
    /// Reset the connection.
    pub const RST: Self = Self(1 << 2);
    /// Push.
    pub const PSH: Self = Self(1 << 3);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(1 << 4);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(1 << 5);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(1 << 6);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(1 << 7);

    /// Flags from their byte in the header.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The byte in the header.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// `self` with `other` cleared.
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no flag is set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether no TCP sends this combination: none of SYN, FIN, RST and ACK, or SYN together with FIN or RST.
    /// Parsing lets it pass; whoever receives it drops it.
    #[inline]
    pub const fn is_impossible(self) -> bool {
        let kind = self.0 & (Self::SYN.0 | Self::FIN.0 | Self::RST.0 | Self::ACK.0);
        kind == 0 || (self.contains(Self::SYN) && self.intersects(Self(Self::FIN.0 | Self::RST.0)))
    }
}

impl BitOr for TcpFlags {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for TcpFlags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        if self.is_empty() {
            return f.write_str("none");
        }
        let set = NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & (1 << bit) != 0);
        for (position, (_, name)) in set.enumerate() {
            if position > 0 {
                f.write_str("|")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A TCP header's fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: TcpFlags,
    /// SEG.WND as in the header, not scaled.
    pub window: u16,
    /// SEG.UP.
    pub urgent: u16,
    /// Options.
    pub options: TcpOptions,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawTcpHeader {
    pub(super) source_port: U16,
    pub(super) destination_port: U16,
    pub(super) sequence: U32,
    pub(super) acknowledgment: U32,
    /// In the high nibble, in words.
    data_offset: u8,
    pub(super) flags: u8,
    pub(super) window: U16,
    pub(super) checksum: U16,
    pub(super) urgent: U16,
}

pub(super) const TCP_LEN: usize = size_of::<RawTcpHeader>();
/// Offset of the checksum in the header.
pub(super) const CHECKSUM_OFFSET: usize = 16;
pub(super) const PROTOCOL_TCP: u8 = 6;

impl RawTcpHeader {
    pub(super) fn new(header: &TcpHeader, header_len: usize) -> Self {
        Self {
            source_port: U16::new(header.src_port),
            destination_port: U16::new(header.dst_port),
            sequence: U32::new(header.seq.0),
            acknowledgment: U32::new(header.ack.0),
            data_offset: ((header_len / 4) as u8) << 4,
            flags: header.flags.bits(),
            window: U16::new(header.window),
            checksum: U16::ZERO,
            urgent: U16::new(header.urgent),
        }
    }

    /// Header length in bytes, options included.
    pub(super) const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }
}
