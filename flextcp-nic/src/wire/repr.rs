//! A segment to send, as fields, and its headers as bytes.

use std::net::IpAddr;

use zerocopy::IntoBytes;
use zerocopy::network_endian::U16;

use super::checksum::{Checksum, to_v6};
use super::ethernet::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, MacAddr};
use super::ipv4::{IPV4_LEN, Ipv4Header};
use super::ipv6::{IPV6_LEN, Ipv6Header};
use super::options::{MAX_OPTIONS_LEN, TcpOptions};
use super::tcp::{CHECKSUM_OFFSET, PROTOCOL_TCP, RawTcpHeader, TCP_LEN, TcpFlags, TcpHeader};
use crate::flow::FlowTuple;
use crate::seq::SeqNum;

/// The longest headers of a frame: Ethernet, IPv6, TCP with 40 bytes of options.
pub const MAX_HEADER_LEN: usize = ETHERNET_LEN + IPV6_LEN + TCP_LEN + MAX_OPTIONS_LEN;

/// A segment to send, without its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentRepr {
    /// Source hardware address.
    pub src_mac: MacAddr,
    /// Destination hardware address.
    pub dst_mac: MacAddr,
    /// The connection: local is the source.
    pub tuple: FlowTuple,
    /// IPv4 type of service or IPv6 traffic class, with the ECN bits.
    pub tos: u8,
    /// IPv4 time to live or IPv6 hop limit.
    pub ttl: u8,
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: TcpFlags,
    /// The window field, scaled already.
    pub window: u16,
    /// SEG.UP.
    pub urgent: u16,
    /// Options.
    pub options: TcpOptions,
}

impl SegmentRepr {
    /// Bytes of all headers, Ethernet to TCP options.
    pub fn header_len(&self) -> usize {
        let ip = if self.is_v4() { IPV4_LEN } else { IPV6_LEN };
        ETHERNET_LEN + ip + self.tcp_len()
    }

    /// Bytes of the TCP header, options included.
    pub fn tcp_len(&self) -> usize {
        TCP_LEN + self.options.emitted_len()
    }

    const fn is_v4(&self) -> bool {
        self.tuple.local.0.is_ipv4() && self.tuple.remote.0.is_ipv4()
    }

    /// Writes the headers of a segment that carries `payload` to the start of `buf` and returns their length.
    ///
    /// The TCP checksum is complete, or with `partial_checksum` only the folded pseudo-header sum, for a port
    /// that completes it ([`TxOffload::checksum`](crate::port::TxOffload)); the payload's bytes are then not read.
    pub fn emit(
        &self,
        payload: [&[u8]; 2],
        partial_checksum: bool,
        buf: &mut [u8; MAX_HEADER_LEN],
    ) -> usize {
        let mut options = [0; MAX_OPTIONS_LEN];
        let tcp_len = TCP_LEN + self.options.emit(&mut options);
        let segment_len = tcp_len + payload[0].len() + payload[1].len();
        let sum_len = u32::try_from(segment_len).unwrap_or(u32::MAX);

        let (ethertype, ip_end, mut sum);
        match (self.tuple.local.0, self.tuple.remote.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = IPV4_LEN + segment_len;
                let ip =
                    Ipv4Header::new(source, destination, PROTOCOL_TCP, self.tos, self.ttl, total);
                ip_end = ETHERNET_LEN + IPV4_LEN;
                buf[ETHERNET_LEN..ip_end].copy_from_slice(ip.as_bytes());
                ethertype = ETHERTYPE_IPV4;
                sum = Checksum::pseudo_header_v4(source, destination, PROTOCOL_TCP, sum_len);
            }
            (source, destination) => {
                let (source, destination) = (to_v6(source), to_v6(destination));
                let ip = Ipv6Header::new(
                    source,
                    destination,
                    PROTOCOL_TCP,
                    self.tos,
                    self.ttl,
                    segment_len,
                );
                ip_end = ETHERNET_LEN + IPV6_LEN;
                buf[ETHERNET_LEN..ip_end].copy_from_slice(ip.as_bytes());
                ethertype = ETHERTYPE_IPV6;
                sum = Checksum::pseudo_header_v6(source, destination, PROTOCOL_TCP, sum_len);
            }
        }
        let ethernet = EthernetHeader {
            destination: self.dst_mac.0,
            source: self.src_mac.0,
            ethertype: U16::new(ethertype),
        };
        buf[..ETHERNET_LEN].copy_from_slice(ethernet.as_bytes());

        let tcp = RawTcpHeader::new(&self.tcp_header(), tcp_len);
        let header_len = ip_end + tcp_len;
        buf[ip_end..ip_end + TCP_LEN].copy_from_slice(tcp.as_bytes());
        buf[ip_end + TCP_LEN..header_len].copy_from_slice(&options[..tcp_len - TCP_LEN]);
        let checksum = if partial_checksum {
            sum.folded()
        } else {
            sum.add(&buf[ip_end..header_len]);
            sum.add(payload[0]);
            sum.add(payload[1]);
            sum.finish()
        };
        let field = ip_end + CHECKSUM_OFFSET;
        buf[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        header_len
    }

    fn tcp_header(&self) -> TcpHeader {
        TcpHeader {
            src_port: self.tuple.local.1,
            dst_port: self.tuple.remote.1,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            window: self.window,
            urgent: self.urgent,
            options: self.options,
        }
    }
}
