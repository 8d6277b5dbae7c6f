//! Wire formats: Ethernet, IPv4, IPv6, TCP and its options, ICMP errors, checksums.
//!
//! Two layers: zero-copy header views over bytes (private), and plain structs that parse from and emit to
//! frames ([`parse`], [`SegmentRepr::emit`]). Nothing here panics on input.

pub mod checksum;
mod ecn;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod options;
mod parse;
mod repr;
mod tcp;

#[cfg(test)]
mod tests;

pub use ecn::mark_congestion;
pub use ethernet::{InvalidMacAddr, MacAddr};
pub use icmp::{IcmpError, IcmpErrorKind, Unreachable};
pub use options::{SackBlocks, TcpOptions, Timestamps};
pub use parse::{Malformed, Packet, TcpPacket, parse};
pub use repr::{MAX_HEADER_LEN, SegmentRepr};
pub use tcp::{TcpFlags, TcpHeader};
