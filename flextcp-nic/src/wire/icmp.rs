//! ICMP errors about segments that we sent (RFC 792, RFC 4443).

use std::net::IpAddr;

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ipv4::Ipv4Header;
use super::ipv6::{Ipv6Header, skip_extensions};
use super::parse::Malformed;
use super::tcp::PROTOCOL_TCP;
use crate::flow::FlowTuple;
use crate::seq::SeqNum;

pub(super) const PROTOCOL_ICMP: u8 = 1;
pub(super) const PROTOCOL_ICMPV6: u8 = 58;

/// An ICMP error and the segment of ours that it quotes.
///
/// Anybody can send one: the receiver checks that `seq` is in flight (RFC 5927, section 4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IcmpError {
    /// The connection of the quoted segment: local is its source.
    pub tuple: FlowTuple,
    /// Its sequence number.
    pub seq: SeqNum,
    /// What went wrong.
    pub kind: IcmpErrorKind,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IcmpErrorKind {
    /// The packet is larger than a link's MTU; `mtu` is 0 when the router does not say (RFC 1191, section 5).
    PacketTooBig {
        /// Largest IP packet of that link.
        mtu: u32,
    },
    /// The destination cannot be reached.
    Unreachable {
        /// Why.
        reason: Unreachable,
        /// Whether Linux takes it for permanent (`icmp_err_convert`, `icmpv6_err_convert`).
        hard: bool,
    },
    /// Hop limit exceeded in transit, or reassembly timed out.
    TimeExceeded,
    /// A router or the peer does not understand a header field.
    ParameterProblem,
}

/// Why a destination is unreachable, each standing for one `errno` on Linux.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Unreachable {
    /// `ENETUNREACH`.
    Network,
    /// `EHOSTUNREACH`.
    Host,
    /// `EHOSTDOWN`: the host is unknown.
    HostDown,
    /// `ENONET`: the source host is isolated.
    Isolated,
    /// `ENOPROTOOPT`: the host does not speak TCP.
    Protocol,
    /// `ECONNREFUSED`.
    Port,
    /// `EOPNOTSUPP`: the source route failed.
    SourceRoute,
    /// `EACCES`: administratively prohibited (IPv6).
    Prohibited,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct IcmpHeader {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    /// MTU: the low half in IPv4, all of it in IPv6.
    rest: U32,
}

/// Reads an ICMP message that follows an IPv4 header, its checksum already verified.
pub(super) fn parse_v4(message: &[u8]) -> Result<IcmpError, Malformed> {
    let (header, quoted) =
        IcmpHeader::ref_from_prefix(message).map_err(|_| Malformed::Truncated)?;
    let kind = match (header.kind, header.code) {
        (3, 4) => IcmpErrorKind::PacketTooBig {
            mtu: header.rest.get() & 0xffff,
        },
        (3, code) => unreachable_v4(code)?,
        (11, _) => IcmpErrorKind::TimeExceeded,
        (12, _) => IcmpErrorKind::ParameterProblem,
        // Source quench is ignored (RFC 6633).
        _ => return Err(Malformed::NotTcp),
    };
    let (ip, _) = Ipv4Header::ref_from_prefix(quoted).map_err(|_| Malformed::Truncated)?;
    if ip.version() != 4 || ip.header_len() < size_of::<Ipv4Header>() {
        return Err(Malformed::IpHeader);
    }
    if ip.protocol != PROTOCOL_TCP {
        return Err(Malformed::NotTcp);
    }
    if ip.is_later_fragment() {
        return Err(Malformed::Fragment);
    }
    let transport = quoted.get(ip.header_len()..).ok_or(Malformed::Truncated)?;
    quoted_segment(ip.source().into(), ip.destination().into(), transport, kind)
}

/// Reads an ICMPv6 message, its checksum already verified.
pub(super) fn parse_v6(message: &[u8]) -> Result<IcmpError, Malformed> {
    let (header, quoted) =
        IcmpHeader::ref_from_prefix(message).map_err(|_| Malformed::Truncated)?;
    let kind = match (header.kind, header.code) {
        (1, code) => unreachable_v6(code)?,
        (2, _) => IcmpErrorKind::PacketTooBig {
            mtu: header.rest.get(),
        },
        (3, _) => IcmpErrorKind::TimeExceeded,
        (4, _) => IcmpErrorKind::ParameterProblem,
        _ => return Err(Malformed::NotTcp),
    };
    let (ip, payload) = Ipv6Header::ref_from_prefix(quoted).map_err(|_| Malformed::Truncated)?;
    if ip.version() != 6 {
        return Err(Malformed::IpHeader);
    }
    let upper = skip_extensions(ip.next_header, payload)?;
    if upper.protocol != PROTOCOL_TCP {
        return Err(Malformed::NotTcp);
    }
    let transport = payload.get(upper.offset..).ok_or(Malformed::Truncated)?;
    quoted_segment(ip.source().into(), ip.destination().into(), transport, kind)
}

/// RFC 792 promises the first eight bytes of the quoted segment: ports and sequence number.
fn quoted_segment(
    source: IpAddr,
    destination: IpAddr,
    transport: &[u8],
    kind: IcmpErrorKind,
) -> Result<IcmpError, Malformed> {
    let Some(&[a, b, c, d, e, f, g, h]) = transport.first_chunk::<8>() else {
        return Err(Malformed::Truncated);
    };
    let tuple = FlowTuple {
        local: (source, u16::from_be_bytes([a, b])),
        remote: (destination, u16::from_be_bytes([c, d])),
    };
    Ok(IcmpError {
        tuple,
        seq: SeqNum(u32::from_be_bytes([e, f, g, h])),
        kind,
    })
}

fn unreachable_v4(code: u8) -> Result<IcmpErrorKind, Malformed> {
    let (reason, hard) = match code {
        0 | 11 => (Unreachable::Network, false),
        1 | 12 => (Unreachable::Host, false),
        2 => (Unreachable::Protocol, true),
        3 => (Unreachable::Port, true),
        5 => (Unreachable::SourceRoute, false),
        6 | 9 => (Unreachable::Network, true),
        7 => (Unreachable::HostDown, true),
        8 => (Unreachable::Isolated, true),
        10 | 13..=15 => (Unreachable::Host, true),
        _ => return Err(Malformed::NotTcp),
    };
    Ok(IcmpErrorKind::Unreachable { reason, hard })
}

fn unreachable_v6(code: u8) -> Result<IcmpErrorKind, Malformed> {
    let (reason, hard) = match code {
        0 => (Unreachable::Network, false),
        1 | 5 | 6 => (Unreachable::Prohibited, true),
        2 | 3 => (Unreachable::Host, false),
        4 => (Unreachable::Port, true),
        _ => return Err(Malformed::NotTcp),
    };
    Ok(IcmpErrorKind::Unreachable { reason, hard })
}
