//! `struct virtio_net_hdr`: what one end leaves for the other to finish, before every frame.

use crate::port::{RxChecksum, TxFrame};

/// Bytes of the header.
pub(super) const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// Of the checksum field in a TCP header.
const CHECKSUM_OFFSET: u16 = 16;
const FLAGS_OFFSET: usize = 13;
const CWR: u8 = 0x80;

/// The header for a frame of ours; `None` when its headers are not those of a plain TCP segment although it
/// asks for an offload.
pub(super) fn header(frame: &TxFrame<'_>) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    if !frame.offload.checksum && frame.offload.segment.is_none() {
        return Some(bytes);
    }
    let headers = frame.header;
    let (gso_type, transport) = match headers.get(12..ETHERNET_LEN)? {
        [0x08, 0x00] => {
            let ihl = usize::from(headers.get(ETHERNET_LEN)? & 0xf) * 4;
            (GSO_TCPV4, ETHERNET_LEN + ihl)
        }
        [0x86, 0xdd] => (GSO_TCPV6, ETHERNET_LEN + IPV6_LEN),
        _ => return None,
    };
    let flags = headers.get(transport + FLAGS_OFFSET)?;
    // A frame to be cut needs its checksum completed too, segment by segment.
    bytes[0] = NEEDS_CSUM;
    if let Some(size) = frame.offload.segment {
        bytes[1] = gso_type | if flags & CWR != 0 { GSO_ECN } else { 0 };
        bytes[4..6].copy_from_slice(&size.get().to_ne_bytes());
    }
    bytes[2..4].copy_from_slice(&u16::try_from(headers.len()).ok()?.to_ne_bytes());
    bytes[6..8].copy_from_slice(&u16::try_from(transport).ok()?.to_ne_bytes());
    bytes[8..10].copy_from_slice(&CHECKSUM_OFFSET.to_ne_bytes());
    Some(bytes)
}

/// What the kernel says of a frame's checksum.
pub(super) const fn checksum(header: &[u8; LEN]) -> RxChecksum {
    if header[0] & (NEEDS_CSUM | DATA_VALID) != 0 {
        RxChecksum::Trusted
    } else {
        RxChecksum::Unverified
    }
}
