//! Whose segment a frame is, or is about: the rule of `bpf/segment.h` in Rust, from the formats.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flextcp_nic::flow::FlowTuple;

use super::frames::{ICMP, ICMPV6, TCP};

/// How far the card's programs follow IPv6 extension headers, in bytes.
const CARD_MAX_EXTENSIONS: usize = 64;
const MAX_EXTENSIONS: usize = 4;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Whose {
    /// Seen from the end that the frame is for.
    pub(crate) tuple: FlowTuple,
    /// An ICMP error; the tuple is of the segment that it quotes.
    pub(crate) icmp: bool,
    /// Extension headers go on beyond what the card's programs follow.
    pub(crate) too_deep: bool,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Source and destination port of what starts at `at`.
fn ports(bytes: &[u8], at: usize) -> Option<(u16, u16)> {
    Some((word(bytes, at)?, word(bytes, at + 2)?))
}

fn tuple(local: IpAddr, local_port: u16, remote: IpAddr, remote_port: u16) -> FlowTuple {
    FlowTuple {
        local: (local, local_port),
        remote: (remote, remote_port),
    }
}

pub(crate) fn whose(frame: &[u8]) -> Option<Whose> {
    let mut kind = word(frame, 12)?;
    let mut packet = &frame[14..];
    if frame[0] & 1 != 0 {
        return None;
    }
    if kind == 0x8100 {
        if word(packet, 0)? & 0xfff != 0 {
            return None;
        }
        kind = word(packet, 2)?;
        packet = &packet[4..];
    }
    match kind {
        0x0800 => ipv4(packet),
        0x86dd => ipv6(packet),
        _ => None,
    }
}

fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = *bytes.get(at..)?.first_chunk()?;
    Some(Ipv4Addr::from(octets).into())
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
    Some(Ipv6Addr::from(octets).into())
}

/// Header length of an IPv4 packet that is no later fragment.
fn ipv4_start(packet: &[u8]) -> Option<usize> {
    let header = packet.get(..20)?;
    let len = usize::from(header[0] & 15) * 4;
    let sound = header[0] >> 4 == 4 && len >= 20 && word(header, 6)? & 0x1fff == 0;
    sound.then_some(len)
}

fn ipv4(packet: &[u8]) -> Option<Whose> {
    let start = ipv4_start(packet)?;
    match packet[9] {
        TCP => {
            let (source, destination) = ports(packet, start)?;
            let (from, to) = (v4(packet, 12)?, v4(packet, 16)?);
            Some(Whose {
                tuple: tuple(to, destination, from, source),
                icmp: false,
                too_deep: false,
            })
        }
        ICMP => {
            let message = packet.get(start..)?;
            let quote = message.get(8..)?;
            if ![3, 11].contains(&message[0]) {
                return None;
            }
            let start = ipv4_start(quote)?;
            if quote[9] != TCP {
                return None;
            }
            let (source, destination) = ports(quote, start)?;
            let (from, to) = (v4(quote, 12)?, v4(quote, 16)?);
            Some(Whose {
                tuple: tuple(from, source, to, destination),
                icmp: true,
                too_deep: false,
            })
        }
        _ => None,
    }
}

fn ipv6(packet: &[u8]) -> Option<Whose> {
    if packet.get(..40)?[0] >> 4 != 6 {
        return None;
    }
    let (mut next, mut at) = (packet[6], 40);
    for _ in 0..MAX_EXTENSIONS {
        if next == TCP || next == ICMPV6 {
            break;
        }
        let extension = packet.get(at..at + 8)?;
        at += match next {
            0 | 43 | 60 => 8 + 8 * usize::from(extension[1]),
            44 if word(extension, 2)? & 0xfff8 == 0 => 8,
            _ => return None,
        };
        next = extension[0];
    }
    let too_deep = at > 40 + CARD_MAX_EXTENSIONS;
    match next {
        TCP => {
            let (source, destination) = ports(packet, at)?;
            let (from, to) = (v6(packet, 8)?, v6(packet, 24)?);
            Some(Whose {
                tuple: tuple(to, destination, from, source),
                icmp: false,
                too_deep,
            })
        }
        ICMPV6 => {
            let message = packet.get(at..)?;
            let quote = message.get(8..)?;
            if ![1, 2, 3].contains(&message[0]) || quote.get(..40)?[0] >> 4 != 6 || quote[6] != TCP
            {
                return None;
            }
            let (source, destination) = ports(quote, 40)?;
            let (from, to) = (v6(quote, 8)?, v6(quote, 24)?);
            Some(Whose {
                tuple: tuple(from, source, to, destination),
                icmp: true,
                too_deep,
            })
        }
        _ => None,
    }
}
