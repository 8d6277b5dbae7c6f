//! The IPv4 header (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::checksum;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Ipv4Header {
    version_ihl: u8,
    pub(super) tos: u8,
    pub(super) total_length: U16,
    identification: U16,
    flags_fragment: U16,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    header_checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

pub(super) const IPV4_LEN: usize = size_of::<Ipv4Header>();

const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments, or an offset.
const FRAGMENT_MASK: u16 = 0x3fff;
const OFFSET_MASK: u16 = 0x1fff;

impl Ipv4Header {
    /// A header without options, checksum included. DF is always set, as Linux does with Path MTU discovery
    /// on, so that the identification may be zero (RFC 6864, section 4.1).
    pub(super) fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        tos: u8,
        ttl: u8,
        total_length: usize,
    ) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            tos,
            // A frame beyond 65535 bytes exists only as input to segmentation, where the port goes by the
            // frame's length.
            total_length: U16::new(u16::try_from(total_length).unwrap_or(u16::MAX)),
            identification: U16::ZERO,
            flags_fragment: U16::new(DONT_FRAGMENT),
            ttl,
            protocol,
            header_checksum: U16::ZERO,
            source: source.octets(),
            destination: destination.octets(),
        };
        header.header_checksum = U16::new(checksum(header.as_bytes()));
        header
    }

    /// Sets congestion experienced on an ECN-capable packet, the checksum following (RFC 1624, equation 3).
    pub(super) fn mark_congestion(&mut self) -> bool {
        if self.tos & 0b11 == 0 {
            return false;
        }
        let before = u16::from_be_bytes([self.version_ihl, self.tos]);
        self.tos |= 0b11;
        let after = u16::from_be_bytes([self.version_ihl, self.tos]);
        let mut sum =
            u32::from(!self.header_checksum.get()) + u32::from(!before) + u32::from(after);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        self.header_checksum = U16::new(!(sum as u16));
        true
    }

    pub(super) const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Header length in bytes, options included.
    pub(super) const fn header_len(&self) -> usize {
        (self.version_ihl & 0x0f) as usize * 4
    }

    pub(super) fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & FRAGMENT_MASK != 0
    }

    /// Whether the payload does not start with the transport header.
    pub(super) fn is_later_fragment(&self) -> bool {
        self.flags_fragment.get() & OFFSET_MASK != 0
    }

    pub(super) const fn source(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.source;
        Ipv4Addr::new(a, b, c, d)
    }

    pub(super) const fn destination(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.destination;
        Ipv4Addr::new(a, b, c, d)
    }
}
