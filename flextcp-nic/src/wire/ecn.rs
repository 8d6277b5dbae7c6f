//! Congestion marks on frames under way (RFC 3168, section 5), as a router would set them.

use zerocopy::FromBytes;

use super::ethernet::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader};
use super::ipv4::Ipv4Header;
use super::ipv6::Ipv6Header;

/// Marks an ECN-capable packet congestion experienced; `false` when it is not ECN-capable, nor IP.
pub fn mark_congestion(frame: &mut [u8]) -> bool {
    let Ok((ethernet, _)) = EthernetHeader::ref_from_prefix(frame) else {
        return false;
    };
    let ethertype = ethernet.ethertype.get();
    let packet = &mut frame[ETHERNET_LEN..];
    match ethertype {
        ETHERTYPE_IPV4 => {
            Ipv4Header::mut_from_prefix(packet).is_ok_and(|(ip, _)| ip.mark_congestion())
        }
        ETHERTYPE_IPV6 => {
            Ipv6Header::mut_from_prefix(packet).is_ok_and(|(ip, _)| ip.mark_congestion())
        }
        _ => false,
    }
}
