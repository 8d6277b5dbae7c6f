//! Frames and options: what can be parsed means the same in every form.

use std::net::IpAddr;

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::port::{RxChecksum, RxFrame};
use flextcp_nic::seq::{SeqNum, WindowScale};
use flextcp_nic::wire::{
    MAX_HEADER_LEN, MacAddr, Packet, SackBlocks, SegmentRepr, TcpFlags, TcpOptions, TcpPacket,
    Timestamps, mark_congestion, parse,
};

use crate::script::Script;

/// Ethernet, IPv4 and TCP without options.
const HEADERS: usize = 14 + 20 + 20;

/// Parses `bytes` as a frame, in one piece and in two, trusted and not; what is a segment is written again and read.
///
/// # Panics
/// When two ways to read the same do not agree.
pub fn frame(bytes: &[u8]) {
    let [trusted, partial, verified] = [
        RxChecksum::Trusted,
        RxChecksum::MaybePartial,
        RxChecksum::Unverified,
    ]
    .map(|checksum| parse(&RxFrame::contiguous(bytes, checksum)));
    // Who looks closer refuses more, and understands the same.
    if verified.is_ok() {
        assert_eq!(verified, partial);
    }
    if partial.is_ok() {
        assert_eq!(partial, trusted);
    }
    // Wherever a frame is cut: the same, or refused for want of its headers.
    for at in [bytes.len() / 2, bytes.len().min(HEADERS + 12)] {
        let (head, tail) = bytes.split_at(at);
        let cut = parse(&RxFrame {
            head,
            tail: &[tail],
            checksum: RxChecksum::Unverified,
        });
        if cut.is_ok() {
            assert_eq!(cut, verified);
        }
    }
    let mut marked = bytes.to_vec();
    if mark_congestion(&mut marked) {
        let marked = parse(&RxFrame::contiguous(&marked, RxChecksum::Unverified));
        if let (Ok(Packet::Tcp(before)), marked) = (verified, marked) {
            let Ok(Packet::Tcp(after)) = marked else {
                panic!("a mark damaged a frame: {marked:?}");
            };
            assert!(after.ecn_ce());
            assert_eq!(before.tcp, after.tcp);
        }
    }
    if let Ok(Packet::Tcp(packet)) = trusted {
        let frame = RxFrame::contiguous(bytes, RxChecksum::Trusted);
        let payload: Vec<u8> = packet.payload(&frame).flatten().copied().collect();
        assert_eq!(payload.len(), packet.payload_len);
        write_again(&packet, &payload);
    }
}

fn write_again(packet: &TcpPacket, payload: &[u8]) {
    let repr = SegmentRepr {
        src_mac: packet.src_mac,
        dst_mac: packet.dst_mac,
        tuple: FlowTuple {
            local: packet.tuple.remote,
            remote: packet.tuple.local,
        },
        tos: packet.tos,
        ttl: packet.ttl,
        seq: packet.tcp.seq,
        ack: packet.tcp.ack,
        flags: packet.tcp.flags,
        window: packet.tcp.window,
        urgent: packet.tcp.urgent,
        options: packet.tcp.options,
    };
    // Options or padding of the original may have made room that a longer packet would not have.
    if payload.len() > usize::from(u16::MAX) - 100 {
        return;
    }
    let mut header = [0; MAX_HEADER_LEN];
    let len = repr.emit([payload, &[]], false, &mut header);
    assert_eq!(len, repr.header_len());
    let bytes = [&header[..len], payload].concat();
    let again = parse(&RxFrame::contiguous(&bytes, RxChecksum::Unverified));
    let Ok(Packet::Tcp(again)) = again else {
        panic!("{repr:?} cannot be read: {again:?}");
    };
    assert_eq!(again.tuple, packet.tuple);
    assert_eq!((again.tos, again.ttl), (packet.tos, packet.ttl));
    assert_eq!(again.payload_len, payload.len());
    let mut expected = packet.tcp;
    expected.options = survives(packet.tcp.options);
    assert_eq!(again.tcp, expected);
}

/// What of `options` is still there after writing: all that is understood, SACK blocks as far as there is room.
fn survives(options: TcpOptions) -> TcpOptions {
    let mut kept = TcpOptions {
        other: false,
        sack: SackBlocks::default(),
        ..options
    };
    let free = 40 - kept.emitted_len();
    let room = free.saturating_sub(4) / 8;
    kept.sack = options.sack.iter().take(room).collect();
    kept
}

/// Reads `bytes` as options, and makes options as `bytes` say, which must be read as they were meant.
///
/// # Panics
/// When they are not.
pub fn options(bytes: &[u8]) {
    for flags in [TcpFlags::ACK, TcpFlags::SYN] {
        let list = &bytes[..bytes.len().min(40) / 4 * 4];
        let parsed = TcpOptions::parse(list, flags.contains(TcpFlags::SYN));
        assert_ne!(parsed.mss, Some(0));
        assert!(parsed.sack.len() <= SackBlocks::CAPACITY);
        assert!(parsed.emitted_len() <= 40);
        if !flags.contains(TcpFlags::SYN) {
            let syn_only = (parsed.mss, parsed.window_scale, parsed.sack_permitted);
            assert_eq!(syn_only, (None, None, false));
        }
        assert_eq!(through_a_frame(flags, parsed), survives(parsed));
    }
    let mut script = Script::new(bytes);
    let syn = script.flag();
    let mut made = TcpOptions::default();
    if syn {
        made.mss = script.flag().then(|| script.short().max(1));
        made.window_scale = script.flag().then(|| WindowScale::new(script.byte()));
        made.sack_permitted = script.flag();
    }
    if script.flag() {
        made.timestamps = Some(Timestamps {
            val: script.word(),
            ecr: script.word(),
        });
    }
    for _ in 0..script.choice(6) {
        made.sack.push(SeqNum(script.word()), SeqNum(script.word()));
    }
    let flags = if syn { TcpFlags::SYN } else { TcpFlags::ACK };
    assert_eq!(through_a_frame(flags, made), survives(made));
}

fn through_a_frame(flags: TcpFlags, options: TcpOptions) -> TcpOptions {
    let ends = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
    let repr = SegmentRepr {
        src_mac: MacAddr::ZERO,
        dst_mac: MacAddr::ZERO,
        tuple: FlowTuple {
            local: (ends[0], 1),
            remote: (ends[1], 2),
        },
        tos: 0,
        ttl: 64,
        seq: SeqNum(1),
        ack: SeqNum(2),
        flags,
        window: 3,
        urgent: 0,
        options,
    };
    let mut header = [0; MAX_HEADER_LEN];
    let len = repr.emit([&[], &[]], false, &mut header);
    let frame = RxFrame::contiguous(&header[..len], RxChecksum::Unverified);
    match parse(&frame) {
        Ok(Packet::Tcp(packet)) => packet.tcp.options,
        other => panic!("{repr:?} cannot be read: {other:?}"),
    }
}
