//! The IPv6 header and its extension headers (RFC 8200).

use std::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::parse::Malformed;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Ipv6Header {
    version_class_label: U32,
    pub(super) payload_length: U16,
    pub(super) next_header: u8,
    pub(super) hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

pub(super) const IPV6_LEN: usize = size_of::<Ipv6Header>();

impl Ipv6Header {
    pub(super) fn new(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next_header: u8,
        traffic_class: u8,
        hop_limit: u8,
        payload_length: usize,
    ) -> Self {
        Self {
            version_class_label: U32::new(6 << 28 | u32::from(traffic_class) << 20),
            // As with IPv4: longer is only ever input to segmentation.
            payload_length: U16::new(u16::try_from(payload_length).unwrap_or(u16::MAX)),
            next_header,
            hop_limit,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// Sets congestion experienced on an ECN-capable packet.
    pub(super) fn mark_congestion(&mut self) -> bool {
        let capable = self.traffic_class() & 0b11 != 0;
        if capable {
            self.version_class_label |= U32::new(0b11 << 20);
        }
        capable
    }

    pub(super) fn version(&self) -> u8 {
        (self.version_class_label.get() >> 28) as u8
    }

    pub(super) fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }

    pub(super) fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.source)
    }

    pub(super) fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.destination)
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// More than any legitimate packet has; bounds the walk.
const MAX_EXTENSIONS: usize = 8;

/// What lies behind the extension headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpperLayer {
    pub(super) protocol: u8,
    /// Its offset in the IPv6 payload.
    pub(super) offset: usize,
    pub(super) has_extensions: bool,
}

/// Walks the extension headers in `payload`.
///
/// Hop-by-hop and destination options are skipped, and routing headers whose segments are used up. A fragment
/// header is accepted only when it fragments nothing (RFC 6946).
pub(super) fn skip_extensions(first: u8, payload: &[u8]) -> Result<UpperLayer, Malformed> {
    let mut upper = UpperLayer {
        protocol: first,
        offset: 0,
        has_extensions: false,
    };
    for _ in 0..=MAX_EXTENSIONS {
        let kind = upper.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            return Ok(upper);
        }
        let header = payload
            .get(upper.offset..)
            .and_then(|rest| rest.first_chunk::<8>());
        let Some(&[next, length, a, b, ..]) = header else {
            return Err(Malformed::Truncated);
        };
        upper.offset += match kind {
            FRAGMENT if u16::from_be_bytes([a, b]) & 0xfff9 != 0 => {
                return Err(Malformed::Fragment);
            }
            FRAGMENT => 8,
            // Segments left: for somebody else.
            ROUTING if b != 0 => return Err(Malformed::Extension),
            _ => (usize::from(length) + 1) * 8,
        };
        upper.protocol = next;
        upper.has_extensions = true;
    }
    Err(Malformed::Extension)
}
