//! What joins the links: it looks at the destination address, and at the size.

use std::net::IpAddr;

use flextcp_nic::wire::checksum::checksum;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const ICMP: usize = 8;
/// What an ICMP error quotes: the IP header and the first eight bytes of the segment, and a little of its payload.
const QUOTE: usize = 28;

/// What the IP header of a frame says to a router; `None` for what is none, damaged ones among them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Length of the IP packet.
    pub(super) len: usize,
}

pub(super) fn look(frame: &[u8]) -> Option<Packet> {
    let ip = frame.get(ETHERNET..)?;
    match ip.first()? >> 4 {
        4 => {
            let header = ip.get(..IPV4)?;
            if checksum(header) != 0 {
                return None;
            }
            Some(Packet {
                source: IpAddr::from(<[u8; 4]>::try_from(&header[12..16]).ok()?),
                destination: IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).ok()?),
                len: ip.len(),
            })
        }
        6 => {
            let header = ip.get(..IPV6)?;
            Some(Packet {
                source: IpAddr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?),
                destination: IpAddr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?),
                len: ip.len(),
            })
        }
        _ => None,
    }
}

/// The router's complaint that a frame is larger than `mtu` (RFC 1191, RFC 8201), to its sender.
pub(super) fn too_big(frame: &[u8], packet: &Packet, mtu: u32) -> Vec<u8> {
    let quoted = &frame[ETHERNET..];
    let mut out = Vec::with_capacity(ETHERNET + IPV6 + ICMP + QUOTE + IPV6);
    // Back where it came from; the quoted segment decides whose it is.
    out.extend_from_slice(&frame[6..12]);
    out.extend_from_slice(&frame[..6]);
    out.extend_from_slice(&frame[12..14]);
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(_)) => {
            let quoted = &quoted[..quoted.len().min(QUOTE)];
            let total = (IPV4 + ICMP + quoted.len()) as u16;
            let mut ip = [0; IPV4];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[8] = 64;
            ip[9] = 1;
            ip[12..16].copy_from_slice(&[10, 0, 0, 254]);
            ip[16..20].copy_from_slice(&source.octets());
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            let mut message = vec![3, 4, 0, 0, 0, 0];
            message.extend_from_slice(&(mtu as u16).to_be_bytes());
            message.extend_from_slice(quoted);
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&ip);
            out.extend_from_slice(&message);
        }
        (IpAddr::V6(source), _) => {
            let quoted = &quoted[..quoted.len().min(IPV6 + QUOTE)];
            let router = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254];
            let len = (ICMP + quoted.len()) as u16;
            let mut message = vec![2, 0, 0, 0];
            message.extend_from_slice(&mtu.to_be_bytes());
            message.extend_from_slice(quoted);
            // The pseudo-header in front, for the sum alone.
            let mut summed = [&router[..], &source.octets()].concat();
            summed.extend_from_slice(&u32::from(len).to_be_bytes());
            summed.extend_from_slice(&[0, 0, 0, 58]);
            summed.extend_from_slice(&message);
            let sum = checksum(&summed);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&[58, 64]);
            out.extend_from_slice(&router);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&message);
        }
        _ => out.clear(),
    }
    out
}

#[cfg(test)]
mod tests {
    use flextcp_nic::flow::FlowTuple;
    use flextcp_nic::seq::SeqNum;
    use flextcp_nic::wire::{
        IcmpErrorKind, MAX_HEADER_LEN, MacAddr, Packet as Parsed, SegmentRepr, TcpFlags, TcpOptions,
    };
    use flextcp_rt::lab::parse;

    use super::super::scenario::address;
    use super::*;

    #[test]
    fn complaints_are_understood() {
        for v6 in [false, true] {
            let tuple = FlowTuple {
                local: (address(0, v6), 4_000),
                remote: (address(1, v6), 80),
            };
            let segment = SegmentRepr {
                src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
                dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
                tuple,
                tos: 0,
                ttl: 64,
                seq: SeqNum(77),
                ack: SeqNum(0),
                flags: TcpFlags::ACK,
                window: 1,
                urgent: 0,
                options: TcpOptions::default(),
            };
            let payload = [1; 1_400];
            let mut header = [0; MAX_HEADER_LEN];
            let len = segment.emit([&payload, &[]], false, &mut header);
            let frame = [&header[..len], &payload].concat();
            let packet = look(&frame).unwrap();
            assert_eq!(packet.destination, address(1, v6));
            assert_eq!(packet.len, frame.len() - 14);
            let Some(Parsed::Icmp(error)) = parse(&too_big(&frame, &packet, 1_280)) else {
                panic!("not an ICMP error, v6 {v6}");
            };
            assert_eq!(error.tuple, tuple);
            assert_eq!(error.seq, SeqNum(77));
            assert_eq!(error.kind, IcmpErrorKind::PacketTooBig { mtu: 1_280 });
        }
    }
}
