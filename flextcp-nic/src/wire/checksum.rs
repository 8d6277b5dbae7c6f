//! The Internet checksum (RFC 1071), over data that arrives in pieces.
//!
//! Sums are taken in native byte order, eight bytes at a time, and put in network order once at the end:
//! the ones' complement sum does not care (RFC 1071, section 2, part B).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A running ones' complement sum. Pieces may have any length, odd ones too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum {
    /// Sum of native-endian words; far from overflow, as every piece is folded before it is added.
    sum: u64,
    /// An odd number of bytes was added: the next piece starts in the second byte of a word.
    odd: bool,
}

impl Checksum {
    /// The sum of nothing.
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// The sum of a TCP or ICMPv6 pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1), `length`
    /// being that of the transport header and payload. Addresses of unequal families count as IPv6.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::pseudo_header_v4(source, destination, protocol, length)
            }
            (source, destination) => {
                Self::pseudo_header_v6(to_v6(source), to_v6(destination), protocol, length)
            }
        }
    }

    pub(super) fn pseudo_header_v4(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        length: u32,
    ) -> Self {
        let sum = u64::from(u32::from_ne_bytes(source.octets()))
            + u64::from(u32::from_ne_bytes(destination.octets()))
            + u64::from(u32::from(protocol).to_be())
            + u64::from(length.to_be());
        Self { sum, odd: false }
    }

    pub(super) fn pseudo_header_v6(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        length: u32,
    ) -> Self {
        let sum = sum_words(&source.octets())
            + sum_words(&destination.octets())
            + u64::from(u32::from(protocol).to_be())
            + u64::from(length.to_be());
        Self { sum, odd: false }
    }

    /// Adds the next piece.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.append(sum_words(bytes), bytes.len());
    }

    /// Copies `src` to the start of `dst` and adds it, in one pass; returns the number of bytes, the shorter
    /// length of the two.
    pub fn add_copying(&mut self, dst: &mut [u8], src: &[u8]) -> usize {
        let len = dst.len().min(src.len());
        let sum = copy_words(&mut dst[..len], &src[..len]);
        self.append(sum, len);
        len
    }

    #[inline]
    fn append(&mut self, sum: u64, len: usize) {
        let part = fold(sum);
        self.sum += u64::from(if self.odd { part.swap_bytes() } else { part });
        self.odd ^= len % 2 == 1;
    }

    /// The folded sum, not complemented, as a number: what a partial checksum field holds.
    pub const fn folded(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The checksum, as a number to store in network order.
    pub const fn finish(self) -> u16 {
        !self.folded()
    }

    /// Whether data that includes its checksum field is intact.
    pub const fn is_valid(self) -> bool {
        fold(self.sum) == u16::MAX
    }
}

pub(super) fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The checksum of `bytes` alone.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Checksum::new();
    sum.add(bytes);
    sum.finish()
}

const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Bytes per turn of the main loop: four independent additions, which compilers turn into vectors.
const BLOCK: usize = 32;

/// From this length on, looking for wider vectors pays.
#[cfg(target_arch = "x86_64")]
const WIDE_FROM: usize = 256;

/// A word as the sum of its halves: no carry is lost, and 2^31 of them fit before a sum overflows.
#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

#[inline(always)]
fn add_block(lanes: &mut [u64; 4], block: &[u8; BLOCK]) {
    let (words, _) = block.as_chunks::<8>();
    // Not zipped: a build that inlines little, as for tests, would call the adapter's parts for each block.
    let mut at = 0;
    while at < lanes.len() {
        lanes[at] += halves(u64::from_ne_bytes(words[at]));
        at += 1;
    }
}

#[inline(always)]
fn sum_rest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words
        .iter()
        .map(|word| halves(u64::from_ne_bytes(*word)))
        .sum::<u64>();
    let (word, rest) = match rest.split_first_chunk::<4>() {
        Some((word, rest)) => (u32::from_ne_bytes(*word), rest),
        None => (0, rest),
    };
    // The last bytes one by one: a copy of a length not known would cost more than all of a short header.
    let last = match *rest {
        [a, b, c] => [a, b, c, 0],
        [a, b] => [a, b, 0, 0],
        [a] => [a, 0, 0, 0],
        _ => [0; 4],
    };
    sum + u64::from(word) + u64::from(u32::from_ne_bytes(last))
}

#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE_FROM && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, all that the function asks for.
        return unsafe { sum_words_avx2(bytes) };
    }
    sum_blocks(bytes)
}

#[inline]
fn copy_words(dst: &mut [u8], src: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if src.len() >= WIDE_FROM && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, all that the function asks for.
        return unsafe { copy_words_avx2(dst, src) };
    }
    copy_blocks(dst, src)
}

/// The same loop, compiled for 32-byte vectors: more than twice as fast on long payloads.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_words_avx2(bytes: &[u8]) -> u64 {
    sum_blocks(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn copy_words_avx2(dst: &mut [u8], src: &[u8]) -> u64 {
    copy_blocks(dst, src)
}

#[inline(always)]
fn sum_blocks(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut lanes = [0; 4];
    for block in blocks {
        add_block(&mut lanes, block);
    }
    combine(lanes, sum_rest(rest))
}

#[inline(always)]
fn copy_blocks(dst: &mut [u8], src: &[u8]) -> u64 {
    let (to, to_rest) = dst.as_chunks_mut::<BLOCK>();
    let (from, from_rest) = src.as_chunks::<BLOCK>();
    let mut lanes = [0; 4];
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
        add_block(&mut lanes, from);
    }
    to_rest.copy_from_slice(from_rest);
    combine(lanes, sum_rest(from_rest))
}

/// Adds sums of up to 2^63 without losing a carry.
#[inline(always)]
fn combine(lanes: [u64; 4], rest: u64) -> u64 {
    lanes.into_iter().map(halves).sum::<u64>() + rest
}
