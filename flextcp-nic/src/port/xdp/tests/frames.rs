//! Frames written by hand, so that the program is tested against the formats and not against our own writer.

use std::net::{IpAddr, SocketAddr};

pub(super) const IPPROTO_TCP: u8 = 6;

pub(in crate::port::xdp) fn ethernet(
    destination: [u8; 6],
    ethertype: u16,
    packet: &[u8],
) -> Vec<u8> {
    let mut frame = destination.to_vec();
    frame.extend([0; 6]);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// A TCP header with a zero checksum, flags ACK, and `payload`.
pub(in crate::port::xdp) fn tcp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([5 << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

/// An IPv4 packet with `options` (a multiple of four bytes) and the raw flags and fragment offset.
pub(in crate::port::xdp) fn ipv4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    options: &[u8],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    // A super-frame beyond 64 KiB has no length.
    packet.extend(
        u16::try_from(header + payload.len())
            .unwrap_or(0)
            .to_be_bytes(),
    );
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(options);
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

pub(in crate::port::xdp) fn ipv6(
    source: [u8; 16],
    destination: [u8; 16],
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// A whole plain frame between two socket addresses of one family, to hardware address zero.
pub(in crate::port::xdp) fn segment(
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> Vec<u8> {
    let tcp = tcp(source.port(), destination.port(), payload);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let packet = ipv4(from.octets(), to.octets(), IPPROTO_TCP, &[], 0, &tcp);
            ethernet([0; 6], 0x0800, &packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet(
            [0; 6],
            0x86dd,
            &ipv6(from.octets(), to.octets(), IPPROTO_TCP, &tcp),
        ),
        _ => panic!("both ends have one family"),
    }
}
