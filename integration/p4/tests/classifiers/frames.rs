//! Frames: sound ones of every kind, then damaged. Written from the formats, not by the project's own writer.

use super::model::{Model, Rng};
use std::net::IpAddr;

pub(crate) const TCP: u8 = 6;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// The ones' complement sum of bytes, folded (RFC 1071), a word at a time.
pub(crate) fn sum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for piece in pieces {
        for pair in piece.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// One frame of the model's world, damaged or not.
pub(crate) fn frame(rng: &mut Rng, model: &Model) -> Vec<u8> {
    let mut frame = sound(rng, model);
    if rng.one_in(2) {
        for _ in 0..=rng.below(3) {
            damage(rng, &mut frame);
        }
        // Damage that checksums would hide.
        if rng.one_in(2) {
            repair(&mut frame);
        }
    }
    frame
}

fn sound(rng: &mut Rng, model: &Model) -> Vec<u8> {
    let (local, remote) = model.ends(rng);
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    if rng.one_in(40) {
        frame[0] |= 1;
    }
    if rng.one_in(6) {
        let id = if rng.one_in(4) { 5 } else { 0 };
        frame.extend([0x81, 0x00]);
        frame.extend((u16::from(rng.byte() & 0xe0) << 8 | id).to_be_bytes());
    }
    let packet = match (local.0, remote.0) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            frame.extend(if rng.one_in(60) {
                [0x08, 0x06]
            } else {
                [0x08, 0x00]
            });
            ipv4(
                rng,
                model,
                (from.octets(), remote.1),
                (to.octets(), local.1),
            )
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            frame.extend([0x86, 0xdd]);
            ipv6(
                rng,
                model,
                (from.octets(), remote.1),
                (to.octets(), local.1),
            )
        }
        _ => panic!("both ends have one family"),
    };
    frame.extend(packet);
    // Ethernet padding.
    if rng.one_in(5) {
        frame.resize(frame.len() + rng.below(20), 0);
    }
    frame
}

fn ipv4_header(from: [u8; 4], to: [u8; 4], protocol: u8, options: &[u8], len: usize) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + len) as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(options);
    packet
}

fn ipv6_header(from: [u8; 16], to: [u8; 16], next: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from);
    packet.extend(to);
    packet
}

fn ipv4(rng: &mut Rng, model: &Model, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let protocol = match rng.below(20) {
        0 => 17,
        1..=3 => ICMP,
        _ => TCP,
    };
    let payload = match protocol {
        ICMP => {
            // We sent what is quoted: from our end to the peer's.
            let options = vec![1; if rng.one_in(4) { 4 * rng.below(11) } else { 0 }];
            let mut quote = ipv4_header(to.0, from.0, TCP, &options, 500);
            if rng.one_in(20) {
                quote[6..8].copy_from_slice(&[0, 9]);
            }
            quote.extend(segment_start(rng, to.1, from.1));
            let kinds = [3, 3, 3, 11, 12, 8];
            icmp(rng, &kinds, 17, quote)
        }
        _ => segment(rng, model, from.1, to.1),
    };
    let options: Vec<u8> = if rng.one_in(8) {
        (0..4 * rng.below(11)).map(|_| rng.byte()).collect()
    } else {
        Vec::new()
    };
    let mut packet = ipv4_header(from.0, to.0, protocol, &options, payload.len());
    packet[1] = rng.byte() & 3;
    match rng.below(30) {
        0 => packet[6] = 0x20,
        1 => packet[7] = 1 + rng.byte() % 200,
        2 => packet[6] |= 0x80,
        _ => {}
    }
    packet.extend(payload);
    set_checksums_ipv4(&mut packet);
    packet
}

fn ipv6(rng: &mut Rng, model: &Model, from: ([u8; 16], u16), to: ([u8; 16], u16)) -> Vec<u8> {
    let upper = match rng.below(20) {
        0 => 17,
        1..=3 => ICMPV6,
        _ => TCP,
    };
    let payload = match upper {
        ICMPV6 => {
            let mut quote = ipv6_header(to.0, from.0, TCP, 500);
            quote.extend(segment_start(rng, to.1, from.1));
            let kinds = [1, 1, 2, 3, 4, 128, 135];
            icmp(rng, &kinds, 8, quote)
        }
        _ => segment(rng, model, from.1, to.1),
    };
    let mut chain = Vec::new();
    let mut first = upper;
    if rng.one_in(5) {
        let most = if rng.one_in(4) { 10 } else { 3 };
        let kinds: Vec<u8> = (0..=rng.below(most))
            .map(|_| *rng.pick(&[0, 43, 44, 60, 60, 50, 51]))
            .collect();
        first = kinds[0];
        for (index, kind) in kinds.iter().enumerate() {
            let next = kinds.get(index + 1).copied().unwrap_or(upper);
            let units = match kind {
                44 => 0,
                _ if rng.one_in(8) => rng.below(9),
                _ => rng.below(2),
            };
            let mut extension = vec![next, units as u8, 0, 0, 0, 0, 0, 0];
            match kind {
                // The length byte of a fragment header is reserved, its low bits are, too.
                44 if rng.one_in(3) => extension[1] = rng.byte(),
                44 if rng.one_in(3) => extension[3] = rng.byte() & 0x0f,
                43 if rng.one_in(3) => extension[3] = rng.byte() & 3,
                _ => {}
            }
            extension.resize(8 + 8 * units, 0);
            chain.extend(extension);
        }
    }
    let mut packet = ipv6_header(from.0, to.0, first, chain.len() + payload.len());
    packet[1] = rng.byte() & 0x30;
    packet.extend(chain);
    packet.extend(payload);
    set_checksums_ipv6(&mut packet);
    packet
}

fn icmp(rng: &mut Rng, kinds: &[u8], codes: usize, quote: Vec<u8>) -> Vec<u8> {
    let mut message = vec![*rng.pick(kinds), rng.below(codes) as u8, 0, 0, 0, 0, 5, 0];
    message.extend(quote);
    message
}

/// What an ICMP error quotes of a segment: eight bytes, sometimes fewer or more.
fn segment_start(rng: &mut Rng, from: u16, to: u16) -> Vec<u8> {
    let mut start = from.to_be_bytes().to_vec();
    start.extend(to.to_be_bytes());
    start.extend((rng.next() as u32 % 4096).to_be_bytes());
    start.extend([0; 12]);
    let len = if rng.one_in(6) { rng.below(20) } else { 8 };
    start.truncate(len);
    start
}

fn segment(rng: &mut Rng, model: &Model, from: u16, to: u16) -> Vec<u8> {
    let options = options(rng);
    let mut segment = from.to_be_bytes().to_vec();
    segment.extend(to.to_be_bytes());
    let sequence = match rng.below(4) {
        0 => rng.next() as u32,
        _ => model.next_sequence(),
    };
    segment.extend(sequence.to_be_bytes());
    let acknowledges = model.acknowledged() + *rng.pick(&[0, 0, 0, 500, 1000, 2000]);
    segment.extend(acknowledges.to_be_bytes());
    let flags = match rng.below(6) {
        0 => rng.byte(),
        1 => 0x18,
        2 => 0x02,
        _ => 0x10,
    };
    segment.extend([((20 + options.len()) as u8 / 4) << 4, flags]);
    // The window that the peer had before, another one, and none.
    let window: u16 = *rng.pick(&[512, 512, 0xffff, 0]);
    segment.extend(window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    let payload = if rng.one_in(4) { 0 } else { rng.below(40) };
    segment.extend((0..payload).map(|_| rng.byte()));
    segment
}

fn options(rng: &mut Rng) -> Vec<u8> {
    let mut options = match rng.below(8) {
        0 => vec![
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ],
        1 => vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9],
        2 => (0..4 * rng.below(11)).map(|_| rng.byte()).collect(),
        3 => vec![8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1],
        4 | 5 => Vec::new(),
        _ => {
            let mut aligned = vec![1, 1, 8, 10];
            aligned.extend((rng.next() as u32).to_be_bytes());
            aligned.extend([0; 4]);
            aligned
        }
    };
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

fn damage(rng: &mut Rng, frame: &mut Vec<u8>) {
    let len = frame.len();
    if len == 0 {
        return;
    }
    // Mostly within the headers.
    let reach = if rng.one_in(4) { len } else { len.min(80) };
    let at = rng.below(reach);
    match rng.below(8) {
        0 => frame[at] ^= 1 << rng.below(8),
        1 => frame[at] = rng.byte(),
        2 => frame[at] = *rng.pick(&[0, 1, 4, 5, 6, 0x45, 0x46, 0x60, 0xff]),
        3 => frame.truncate(rng.below(len + 1)),
        4 => frame.truncate(rng.below(len.min(100)).max(14)),
        5 => frame.extend([0; 3]),
        // The version, header length and total length of IPv4, or the length of IPv6.
        6 => {
            let at = *rng.pick(&[14, 16, 17, 18, 19, 20, 21, 23]);
            if at < len {
                frame[at] = frame[at].wrapping_add(*rng.pick(&[1, 2, 4, 0xff, 0xfc]));
            }
        }
        // TCP's data offset, without and with a tag.
        _ => {
            let at = *rng.pick(&[46, 50, 66, 70]);
            if at < len {
                frame[at] = frame[at].wrapping_add(*rng.pick(&[0x10, 0xf0, 0x40]));
            }
        }
    }
}

/// Where the network header starts, and its ethertype.
fn network(frame: &[u8]) -> Option<(usize, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    match word(12)? {
        0x8100 => Some((18, word(16)?)),
        kind => Some((14, kind)),
    }
}

/// Makes the checksums right where the headers still make sense.
pub(crate) fn repair(frame: &mut [u8]) {
    match network(frame) {
        Some((at, 0x0800)) => set_checksums_ipv4(&mut frame[at..]),
        Some((at, 0x86dd)) => set_checksums_ipv6(&mut frame[at..]),
        _ => {}
    }
}

fn set(bytes: &mut [u8], at: usize, pseudo: &[u8]) {
    if bytes.len() < at + 2 {
        return;
    }
    bytes[at..at + 2].fill(0);
    let checksum = !sum(&[pseudo, bytes]);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn set_checksums_ipv4(packet: &mut [u8]) {
    if packet.len() < 20 {
        return;
    }
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    if header < 20 || total < header || total > packet.len() {
        return;
    }
    packet[10..12].fill(0);
    let checksum = !sum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let protocol = packet[9];
    let mut pseudo = packet[12..20].to_vec();
    pseudo.extend([0, protocol]);
    pseudo.extend(((total - header) as u16).to_be_bytes());
    let transport = &mut packet[header..total];
    match protocol {
        TCP => set(transport, 16, &pseudo),
        ICMP => set(transport, 2, &[]),
        _ => {}
    }
}

fn set_checksums_ipv6(packet: &mut [u8]) {
    if packet.len() < 40 {
        return;
    }
    let end = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let (mut next, mut at) = (packet[6], 40);
    while [0, 43, 44, 60].contains(&next) {
        let Some(&[following, len]) = packet.get(at..at + 2).and_then(|b| b.first_chunk()) else {
            return;
        };
        at += if next == 44 {
            8
        } else {
            8 + 8 * usize::from(len)
        };
        next = following;
    }
    if at > end || end > packet.len() {
        return;
    }
    let mut pseudo = packet[8..40].to_vec();
    pseudo.extend(((end - at) as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, next]);
    let transport = &mut packet[at..end];
    match next {
        TCP => set(transport, 16, &pseudo),
        ICMPV6 => set(transport, 2, &pseudo),
        _ => {}
    }
}
