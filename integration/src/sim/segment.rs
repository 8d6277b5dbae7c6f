//! What a NIC does with a super-frame: it cuts it into segments (TSO).

use flextcp_nic::wire::checksum::{Checksum, checksum};
use flextcp_nic::wire::{Packet, TcpFlags};
use flextcp_rt::lab::parse;

const ETHERNET: usize = 14;
const PROTOCOL_TCP: u8 = 6;
const SEQ: usize = 4;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// The segments of a super-frame, each with at most `size` bytes of its payload. Numbers, lengths and checksums are each
/// segment's own; FIN and PSH stay with the last one, CWR with the first (RFC 3168, section 6.1.2).
pub(super) fn cut(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let Some(Packet::Tcp(packet)) = parse(frame) else {
        return vec![frame.to_vec()];
    };
    let (headers, payload) = frame.split_at(packet.payload_offset);
    let is_v4 = packet.tuple.local.0.is_ipv4();
    let transport = ETHERNET + if is_v4 { 20 } else { 40 };
    let pieces = payload.chunks(size.max(1));
    let count = pieces.len();
    pieces
        .enumerate()
        .map(|(number, piece)| {
            let mut segment = [headers, piece].concat();
            let seq = packet.tcp.seq + (number * size) as u32;
            let len = (segment.len() - transport) as u32;
            segment[transport + SEQ..][..4].copy_from_slice(&seq.0.to_be_bytes());
            let mut flags = packet.tcp.flags.bits();
            if number + 1 < count {
                flags &= !(TcpFlags::FIN | TcpFlags::PSH).bits();
            }
            if number > 0 {
                flags &= !TcpFlags::CWR.bits();
            }
            segment[transport + FLAGS] = flags;
            segment[transport + CHECKSUM..][..2].fill(0);
            let ip = &mut segment[ETHERNET..transport];
            if is_v4 {
                ip[2..4].copy_from_slice(&(len as u16 + 20).to_be_bytes());
                ip[10..12].fill(0);
                let sum = checksum(ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            } else {
                ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            }
            // A packet names its ends as its receiver sees them.
            let (to, from) = (packet.tuple.local.0, packet.tuple.remote.0);
            let mut sum = Checksum::pseudo_header(from, to, PROTOCOL_TCP, len);
            sum.add(&segment[transport..]);
            segment[transport + CHECKSUM..][..2].copy_from_slice(&sum.finish().to_be_bytes());
            segment
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use flextcp_nic::flow::FlowTuple;
    use flextcp_nic::seq::SeqNum;
    use flextcp_nic::wire::{MAX_HEADER_LEN, MacAddr, SegmentRepr, TcpOptions, Timestamps};

    use super::super::scenario::address;
    use super::*;

    #[test]
    fn segments_are_whole_and_in_order() {
        for v6 in [false, true] {
            let segment = SegmentRepr {
                src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
                dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
                tuple: FlowTuple {
                    local: (address(0, v6), 4_000),
                    remote: (address(1, v6), 80),
                },
                tos: 2,
                ttl: 64,
                seq: SeqNum(u32::MAX - 1_000),
                ack: SeqNum(7),
                flags: TcpFlags::ACK | TcpFlags::PSH | TcpFlags::CWR,
                window: 1,
                urgent: 0,
                options: TcpOptions {
                    timestamps: Some(Timestamps { val: 1, ecr: 2 }),
                    ..TcpOptions::default()
                },
            };
            let payload: Vec<u8> = (0..4_001_u32).map(|n| n as u8).collect();
            let mut header = [0; MAX_HEADER_LEN];
            let len = segment.emit([&payload, &[]], false, &mut header);
            let frame = [&header[..len], &payload].concat();
            let mut joined = Vec::new();
            let segments = cut(&frame, 1_000);
            assert_eq!(segments.len(), 5);
            for (number, bytes) in segments.iter().enumerate() {
                let Some(Packet::Tcp(packet)) = parse(bytes) else {
                    panic!("segment {number} is damaged, v6 {v6}");
                };
                assert_eq!(packet.tcp.seq, segment.seq + joined.len() as u32);
                assert_eq!(packet.tcp.options, segment.options);
                assert_eq!(packet.tcp.flags.contains(TcpFlags::CWR), number == 0);
                assert_eq!(packet.tcp.flags.contains(TcpFlags::PSH), number == 4);
                joined.extend_from_slice(&bytes[packet.payload_offset..]);
            }
            assert_eq!(joined, payload);
        }
    }
}
