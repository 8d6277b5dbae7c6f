//! Properties of the wire formats, with `etherparse` as the independent opinion.

mod bounds;
mod checksums;
mod emitting;
mod errors;
mod parsing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::flow::FlowTuple;
use crate::port::{RxChecksum, RxFrame};
use crate::seq::{SeqNum, WindowScale};

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>()
        .prop_map(Ipv4Addr::from)
        .prop_filter("unicast", |address| {
            !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
        })
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>()
        .prop_map(Ipv6Addr::from)
        .prop_filter("unicast", |address| {
            !address.is_multicast() && !address.is_unspecified()
        })
}

fn tuple() -> impl Strategy<Value = FlowTuple> {
    let v4s = (v4(), v4()).prop_map(|(a, b)| (IpAddr::V4(a), IpAddr::V4(b)));
    let v6s = (v6(), v6()).prop_map(|(a, b)| (IpAddr::V6(a), IpAddr::V6(b)));
    (prop_oneof![v4s, v6s], any::<u16>(), any::<u16>()).prop_map(|((a, b), local, remote)| {
        FlowTuple {
            local: (a, local),
            remote: (b, remote),
        }
    })
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(|mut bytes| {
        bytes[0] &= !1;
        MacAddr(bytes)
    })
}

/// Options as a TCP of ours sends them: those of a SYN only with `syn`, no more SACK blocks than fit.
fn options(syn: bool) -> impl Strategy<Value = TcpOptions> {
    let timestamps = option::of((any::<u32>(), any::<u32>()));
    let handshake = (
        option::of(1..=u16::MAX),
        option::of(0u8..=14),
        any::<bool>(),
    );
    let sack = vec((any::<u32>(), any::<u32>()), 0..=4);
    (timestamps, handshake, sack).prop_map(
        move |(timestamps, (mss, scale, sack_permitted), mut sack)| {
            sack.truncate(if timestamps.is_some() { 3 } else { 4 });
            if syn {
                sack.clear();
            }
            TcpOptions {
                mss: mss.filter(|_| syn),
                window_scale: scale.filter(|_| syn).map(WindowScale::new),
                sack_permitted: sack_permitted && syn,
                timestamps: timestamps.map(|(val, ecr)| Timestamps { val, ecr }),
                sack: sack
                    .into_iter()
                    .map(|(left, right)| (SeqNum(left), SeqNum(right)))
                    .collect(),
                other: false,
            }
        },
    )
}

fn segment() -> impl Strategy<Value = SegmentRepr> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>());
    let flags = any::<u8>().prop_map(TcpFlags::from_bits);
    let header = (
        mac(),
        mac(),
        tuple(),
        any::<u8>(),
        any::<u8>(),
        numbers,
        flags,
    );
    header.prop_flat_map(|(src_mac, dst_mac, tuple, tos, ttl, numbers, flags)| {
        options(flags.contains(TcpFlags::SYN)).prop_map(move |options| {
            let (seq, ack, window, urgent) = numbers;
            SegmentRepr {
                src_mac,
                dst_mac,
                tuple,
                tos,
                ttl,
                seq: SeqNum(seq),
                ack: SeqNum(ack),
                flags,
                window,
                urgent,
                options,
            }
        })
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

/// A plain segment between two IPv4 hosts, to vary by hand.
fn sample() -> SegmentRepr {
    SegmentRepr {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        tuple: FlowTuple {
            local: (Ipv4Addr::new(10, 0, 0, 1).into(), 40000),
            remote: (Ipv4Addr::new(10, 0, 0, 2).into(), 80),
        },
        tos: 0,
        ttl: 64,
        seq: SeqNum(1000),
        ack: SeqNum(2000),
        flags: TcpFlags::ACK,
        window: 500,
        urgent: 0,
        options: TcpOptions::default(),
    }
}

fn sample_v6() -> SegmentRepr {
    let local = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let remote = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    let tuple = FlowTuple {
        local: (local.into(), 40000),
        remote: (remote.into(), 80),
    };
    SegmentRepr { tuple, ..sample() }
}

fn emit(segment: &SegmentRepr, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; MAX_HEADER_LEN];
    let split = payload.len() / 3;
    let (first, second) = payload.split_at(split);
    let len = segment.emit([first, second], false, &mut header);
    assert_eq!(len, segment.header_len());
    [&header[..len], payload].concat()
}

fn parse_bytes(frame: &[u8]) -> Result<Packet, Malformed> {
    parse(&RxFrame::contiguous(frame, RxChecksum::Unverified))
}

fn expect_tcp(frame: &[u8]) -> TcpPacket {
    match parse_bytes(frame) {
        Ok(Packet::Tcp(packet)) => packet,
        other => panic!("expected a segment, got {other:?}"),
    }
}
