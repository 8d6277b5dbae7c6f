//! `struct virtio_net_hdr`: what one end leaves for the other to finish, before every frame.

use crate::port::{RxChecksum, TxFrame};

/// Bytes of the header.
pub(crate) const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// Of the checksum field in a TCP header.
pub(crate) const CHECKSUM_OFFSET: u16 = 16;
const FLAGS_OFFSET: usize = 13;
const CWR: u8 = 0x80;

/// Where the TCP header starts, in frames with headers of an unadorned TCP segment.
pub(crate) fn transport_offset(headers: &[u8]) -> Option<u16> {
    match headers.get(12..ETHERNET_LEN)? {
        [0x08, 0x00] => {
            let ihl = u16::from(headers.get(ETHERNET_LEN)? & 0xf) * 4;
            Some(ETHERNET_LEN as u16 + ihl)
        }
        [0x86, 0xdd] => Some((ETHERNET_LEN + IPV6_LEN) as u16),
        _ => None,
    }
}

/// The header for a frame of ours; `None` when its headers are not those of a plain TCP segment although it
/// asks for an offload.
pub(crate) fn header(frame: &TxFrame<'_>) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    if !frame.offload.checksum && frame.offload.segment.is_none() {
        return Some(bytes);
    }
    let headers = frame.header;
    let transport = transport_offset(headers)?;
    let flags = headers.get(usize::from(transport) + FLAGS_OFFSET)?;
    // A frame to be cut needs its checksum completed too, segment by segment.
    bytes[0] = NEEDS_CSUM;
    if let Some(size) = frame.offload.segment {
        let gso_type = if headers[12] == 0x08 {
            GSO_TCPV4
        } else {
            GSO_TCPV6
        };
        bytes[1] = gso_type | if flags & CWR != 0 { GSO_ECN } else { 0 };
        bytes[4..6].copy_from_slice(&size.get().to_ne_bytes());
    }
    bytes[2..4].copy_from_slice(&u16::try_from(headers.len()).ok()?.to_ne_bytes());
    bytes[6..8].copy_from_slice(&transport.to_ne_bytes());
    bytes[8..10].copy_from_slice(&CHECKSUM_OFFSET.to_ne_bytes());
    Some(bytes)
}

/// What the kernel says of a frame's checksum.
pub(crate) const fn checksum(header: &[u8; LEN]) -> RxChecksum {
    if header[0] & (NEEDS_CSUM | DATA_VALID) != 0 {
        RxChecksum::Trusted
    } else {
        RxChecksum::Unverified
    }
}
