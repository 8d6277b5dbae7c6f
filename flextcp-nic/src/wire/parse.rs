//! Frames in: Ethernet to TCP, or to the ICMP error about a segment of ours.

use core::fmt;
use std::net::IpAddr;

use zerocopy::FromBytes;

use super::checksum::{Checksum, checksum};
use super::ethernet::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, EthernetHeader, MacAddr, VlanTag,
};
use super::icmp::{self, IcmpError, PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use super::ipv4::{IPV4_LEN, Ipv4Header};
use super::ipv6::{IPV6_LEN, Ipv6Header, skip_extensions};
use super::options::TcpOptions;
use super::tcp::{PROTOCOL_TCP, RawTcpHeader, TCP_LEN, TcpFlags, TcpHeader};
use crate::flow::FlowTuple;
use crate::port::{RxChecksum, RxFrame};
use crate::seq::SeqNum;

/// What a frame is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packet {
    /// A TCP segment.
    Tcp(TcpPacket),
    /// An ICMP error that quotes a TCP segment.
    Icmp(IcmpError),
}

/// A received TCP segment: its headers, and where its payload lies in the frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpPacket {
    /// Source hardware address.
    pub src_mac: MacAddr,
    /// Destination hardware address.
    pub dst_mac: MacAddr,
    /// The connection: local is the destination.
    pub tuple: FlowTuple,
    /// IPv4 type of service or IPv6 traffic class.
    pub tos: u8,
    /// IPv4 time to live or IPv6 hop limit.
    pub ttl: u8,
    /// IPv4 options or IPv6 extension headers were skipped.
    pub ip_options: bool,
    /// The TCP header.
    pub tcp: TcpHeader,
    /// Offset of the payload in the whole frame, for [`RxFrame::slices`].
    pub payload_offset: usize,
    /// Bytes of payload. Behind them may be Ethernet padding.
    pub payload_len: usize,
}

/// The two ECN bits (RFC 3168, section 5).
const ECN_MASK: u8 = 0b11;

impl TcpPacket {
    /// SEG.LEN: payload, and one each for SYN and FIN (RFC 9293, section 3.4).
    pub fn segment_len(&self) -> u32 {
        self.payload_len as u32
            + u32::from(self.tcp.flags.contains(TcpFlags::SYN))
            + u32::from(self.tcp.flags.contains(TcpFlags::FIN))
    }

    /// The sequence number after the segment.
    pub fn seq_end(&self) -> SeqNum {
        self.tcp.seq + self.segment_len()
    }

    /// Whether the packet is marked congestion experienced.
    pub const fn ecn_ce(&self) -> bool {
        self.tos & ECN_MASK == ECN_MASK
    }

    /// Whether the packet's sender declared an ECN-capable transport, or it is marked.
    pub const fn ecn_capable(&self) -> bool {
        self.tos & ECN_MASK != 0
    }

    /// The payload's slices in the frame that this was parsed from.
    pub fn payload<'a>(&self, frame: &RxFrame<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        frame.slices(self.payload_offset, self.payload_len)
    }
}

/// Why a frame is no packet for us. All are counted and dropped (fragments are left to the kernel).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Malformed {
    /// Neither TCP nor an ICMP error about TCP.
    NotTcp,
    /// Shorter than its headers say.
    Truncated,
    /// IP, TCP or ICMP checksum.
    BadChecksum,
    /// A fragment of an IP packet.
    Fragment,
    /// IP version, header length or packet length contradict each other.
    IpHeader,
    /// An IPv6 extension header that is not for us, or too many of them.
    Extension,
    /// TCP data offset below five words or beyond the packet.
    DataOffset,
    /// From or to a group or unspecified address (RFC 9293, section 3.9.2.3, MUST-57).
    NotUnicast,
    /// Tagged for a VLAN; only priority tags (VLAN 0) belong to the interface itself.
    Vlan,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTcp => "neither TCP nor an ICMP error about TCP",
            Self::Truncated => "shorter than its headers say",
            Self::BadChecksum => "wrong checksum",
            Self::Fragment => "an IP fragment",
            Self::IpHeader => "inconsistent IP header",
            Self::Extension => "IPv6 extension header that cannot be skipped",
            Self::DataOffset => "TCP data offset out of range",
            Self::NotUnicast => "not from one unicast address to another",
            Self::Vlan => "tagged for a VLAN",
        })
    }
}

impl std::error::Error for Malformed {}

/// Parses a frame: Ethernet with at most one VLAN tag, IPv4 or IPv6, then TCP or ICMP.
///
/// Checksums are verified unless the frame's are [`RxChecksum::Trusted`]. Impossible flags pass
/// ([`TcpFlags::is_impossible`]).
///
/// # Errors
/// [`Malformed`].
pub fn parse(frame: &RxFrame<'_>) -> Result<Packet, Malformed> {
    let head = frame.head;
    let (ethernet, _) = EthernetHeader::ref_from_prefix(head).map_err(|_| Malformed::Truncated)?;
    let mut ethertype = ethernet.ethertype.get();
    let mut ip_offset = ETHERNET_LEN;
    if ethertype == ETHERTYPE_VLAN {
        let (tag, _) =
            VlanTag::ref_from_prefix(&head[ip_offset..]).map_err(|_| Malformed::Truncated)?;
        if tag.vlan() != 0 {
            return Err(Malformed::Vlan);
        }
        ethertype = tag.ethertype.get();
        ip_offset += size_of::<VlanTag>();
    }
    if ethernet.destination[0] & 1 != 0 {
        return Err(Malformed::NotUnicast);
    }
    let network = match ethertype {
        ETHERTYPE_IPV4 => Network::parse_v4(frame, ip_offset)?,
        ETHERTYPE_IPV6 => Network::parse_v6(frame, ip_offset)?,
        _ => return Err(Malformed::NotTcp),
    };
    match (network.protocol, network.source) {
        (PROTOCOL_TCP, _) => parse_tcp(frame, ethernet, &network).map(Packet::Tcp),
        (PROTOCOL_ICMP, IpAddr::V4(_)) | (PROTOCOL_ICMPV6, IpAddr::V6(_)) => {
            parse_icmp(frame, &network).map(Packet::Icmp)
        }
        _ => Err(Malformed::NotTcp),
    }
}

/// What the network layer says of the transport.
struct Network {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    tos: u8,
    ttl: u8,
    options: bool,
    /// Offset of the transport header in the frame.
    offset: usize,
    /// Bytes of transport header and payload.
    len: usize,
}

impl Network {
    fn parse_v4(frame: &RxFrame<'_>, offset: usize) -> Result<Self, Malformed> {
        let bytes = &frame.head[offset..];
        let (ip, _) = Ipv4Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
        let header_len = ip.header_len();
        let total = usize::from(ip.total_length.get());
        if ip.version() != 4 || header_len < IPV4_LEN || total < header_len {
            return Err(Malformed::IpHeader);
        }
        let header = bytes.get(..header_len).ok_or(Malformed::Truncated)?;
        if offset + total > frame.len() {
            return Err(Malformed::Truncated);
        }
        if frame.checksum != RxChecksum::Trusted && checksum(header) != 0 {
            return Err(Malformed::BadChecksum);
        }
        if ip.is_fragment() {
            return Err(Malformed::Fragment);
        }
        let (source, destination) = (ip.source(), ip.destination());
        let group = source.is_multicast() || destination.is_multicast();
        let broadcast = source.is_broadcast() || destination.is_broadcast();
        let unspecified = source.is_unspecified() || destination.is_unspecified();
        if group || broadcast || unspecified {
            return Err(Malformed::NotUnicast);
        }
        Ok(Self {
            source: source.into(),
            destination: destination.into(),
            protocol: ip.protocol,
            tos: ip.tos,
            ttl: ip.ttl,
            options: header_len > IPV4_LEN,
            offset: offset + header_len,
            len: total - header_len,
        })
    }

    fn parse_v6(frame: &RxFrame<'_>, offset: usize) -> Result<Self, Malformed> {
        let (ip, payload) =
            Ipv6Header::ref_from_prefix(&frame.head[offset..]).map_err(|_| Malformed::Truncated)?;
        if ip.version() != 6 {
            return Err(Malformed::IpHeader);
        }
        let payload_len = usize::from(ip.payload_length.get());
        if offset + IPV6_LEN + payload_len > frame.len() {
            return Err(Malformed::Truncated);
        }
        let present = payload.len().min(payload_len);
        let upper = skip_extensions(ip.next_header, &payload[..present])?;
        let (source, destination) = (ip.source(), ip.destination());
        let group = source.is_multicast() || destination.is_multicast();
        if group || source.is_unspecified() || destination.is_unspecified() {
            return Err(Malformed::NotUnicast);
        }
        Ok(Self {
            source: source.into(),
            destination: destination.into(),
            protocol: upper.protocol,
            tos: ip.traffic_class(),
            ttl: ip.hop_limit,
            options: upper.has_extensions,
            offset: offset + IPV6_LEN + upper.offset,
            len: payload_len
                .checked_sub(upper.offset)
                .ok_or(Malformed::Truncated)?,
        })
    }

    /// The transport bytes that lie in the first fragment, where all headers are.
    fn transport<'a>(&self, frame: &RxFrame<'a>) -> &'a [u8] {
        let rest = frame.head.get(self.offset..).unwrap_or_default();
        &rest[..rest.len().min(self.len)]
    }

    /// Verifies the transport checksum over all fragments, started from the pseudo-header's `sum`.
    fn verify(&self, frame: &RxFrame<'_>, mut sum: Checksum) -> Result<(), Malformed> {
        if frame.checksum != RxChecksum::Trusted {
            frame
                .slices(self.offset, self.len)
                .for_each(|slice| sum.add(slice));
            if !sum.is_valid() {
                return Err(Malformed::BadChecksum);
            }
        }
        Ok(())
    }

    fn pseudo_header(&self) -> Checksum {
        // At most 65535 bytes: the IP length fields have 16 bits.
        Checksum::pseudo_header(
            self.source,
            self.destination,
            self.protocol,
            self.len as u32,
        )
    }
}

fn parse_tcp(
    frame: &RxFrame<'_>,
    ethernet: &EthernetHeader,
    network: &Network,
) -> Result<TcpPacket, Malformed> {
    let bytes = network.transport(frame);
    let (raw, _) = RawTcpHeader::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let header_len = raw.header_len();
    if header_len < TCP_LEN || header_len > network.len {
        return Err(Malformed::DataOffset);
    }
    let options = bytes.get(TCP_LEN..header_len).ok_or(Malformed::Truncated)?;
    let pseudo_header = network.pseudo_header();
    let partial = raw.checksum.get() == pseudo_header.folded();
    if !(partial && frame.checksum == RxChecksum::MaybePartial) {
        network.verify(frame, pseudo_header)?;
    }
    let flags = TcpFlags::from_bits(raw.flags);
    let tcp = TcpHeader {
        src_port: raw.source_port.get(),
        dst_port: raw.destination_port.get(),
        seq: SeqNum(raw.sequence.get()),
        ack: SeqNum(raw.acknowledgment.get()),
        flags,
        window: raw.window.get(),
        urgent: raw.urgent.get(),
        options: TcpOptions::parse(options, flags.contains(TcpFlags::SYN)),
    };
    Ok(TcpPacket {
        src_mac: MacAddr(ethernet.source),
        dst_mac: MacAddr(ethernet.destination),
        tuple: FlowTuple {
            local: (network.destination, tcp.dst_port),
            remote: (network.source, tcp.src_port),
        },
        tos: network.tos,
        ttl: network.ttl,
        ip_options: network.options,
        tcp,
        payload_offset: network.offset + header_len,
        payload_len: network.len - header_len,
    })
}

fn parse_icmp(frame: &RxFrame<'_>, network: &Network) -> Result<IcmpError, Malformed> {
    let message = network.transport(frame);
    if network.source.is_ipv4() {
        network.verify(frame, Checksum::new())?;
        icmp::parse_v4(message)
    } else {
        network.verify(frame, network.pseudo_header())?;
        icmp::parse_v6(message)
    }
}
