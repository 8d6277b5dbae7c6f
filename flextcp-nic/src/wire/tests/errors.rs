use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};

use super::*;

const ROUTER: [u8; 4] = [192, 0, 2, 1];

/// The router's quotation: `segment` from its IP header on, `len` bytes of it.
fn quote(segment: &SegmentRepr, len: usize) -> Vec<u8> {
    let mut bytes = emit(segment, b"some payload");
    bytes.drain(..14);
    bytes.truncate(len);
    bytes
}

fn v4_frame(message: Icmpv4Type, quoted: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv4(ROUTER, [10, 0, 0, 1], 64)
        .icmpv4(message);
    let mut frame = Vec::new();
    builder.write_to_vec(&mut frame, quoted).unwrap();
    frame
}

fn v6_frame(message: Icmpv6Type, quoted: &[u8]) -> Vec<u8> {
    let router = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9).octets();
    let host = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv6(router, host, 64)
        .icmpv6(message);
    let mut frame = Vec::new();
    builder.write_to_vec(&mut frame, quoted).unwrap();
    frame
}

fn expect_error(segment: &SegmentRepr, frame: &[u8]) -> IcmpErrorKind {
    match parse_bytes(frame) {
        Ok(Packet::Icmp(error)) => {
            assert_eq!((error.tuple, error.seq), (segment.tuple, segment.seq));
            error.kind
        }
        other => panic!("expected an ICMP error, got {other:?}"),
    }
}

#[test]
fn icmp_errors_name_the_connection_and_the_cause() {
    use DestUnreachableHeader as Cause;
    use IcmpErrorKind::Unreachable as Kind;
    let soft = |reason| Kind {
        reason,
        hard: false,
    };
    let hard = |reason| Kind { reason, hard: true };
    let segment = sample();
    // The least a router must quote: the IP header and eight bytes.
    let quoted = quote(&segment, 28);
    let cases = [
        (Cause::Network, soft(Unreachable::Network)),
        (Cause::Host, soft(Unreachable::Host)),
        (Cause::Protocol, hard(Unreachable::Protocol)),
        (Cause::Port, hard(Unreachable::Port)),
        (
            Cause::FragmentationNeeded { next_hop_mtu: 1400 },
            IcmpErrorKind::PacketTooBig { mtu: 1400 },
        ),
        (Cause::SourceRouteFailed, soft(Unreachable::SourceRoute)),
        (Cause::NetworkUnknown, hard(Unreachable::Network)),
        (Cause::HostUnknown, hard(Unreachable::HostDown)),
        (Cause::Isolated, hard(Unreachable::Isolated)),
        (Cause::NetworkProhibited, hard(Unreachable::Network)),
        (Cause::HostProhibited, hard(Unreachable::Host)),
        (Cause::TosNetwork, soft(Unreachable::Network)),
        (Cause::TosHost, soft(Unreachable::Host)),
        (Cause::FilterProhibited, hard(Unreachable::Host)),
    ];
    for (cause, kind) in cases {
        let frame = v4_frame(Icmpv4Type::DestinationUnreachable(cause.clone()), &quoted);
        assert_eq!(expect_error(&segment, &frame), kind, "{cause:?}");
    }
    // Precedence cutoff is the last code.
    let raw = |code| Icmpv4Type::Unknown {
        type_u8: 3,
        code_u8: code,
        bytes5to8: [0; 4],
    };
    let last = v4_frame(raw(15), &quoted);
    assert_eq!(expect_error(&segment, &last), hard(Unreachable::Host));
    let beyond = v4_frame(raw(16), &quoted);
    assert_eq!(parse_bytes(&beyond), Err(Malformed::NotTcp));
    // RFC 1191, section 4: the MTU is the low half, the other is unused.
    let mut too_big = v4_frame(raw(4), &quoted);
    too_big[14 + 20 + 4..14 + 20 + 8].copy_from_slice(&[0, 7, 5, 0x78]);
    let frame = RxFrame::contiguous(&too_big, RxChecksum::Trusted);
    let Ok(Packet::Icmp(error)) = parse(&frame) else {
        panic!("an ICMP error");
    };
    assert_eq!(error.kind, IcmpErrorKind::PacketTooBig { mtu: 1400 });
    let expired = Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
    assert_eq!(
        expect_error(&segment, &v4_frame(expired, &quoted)),
        IcmpErrorKind::TimeExceeded
    );
}

#[test]
fn icmpv6_errors_name_the_connection_and_the_cause() {
    use icmpv6::DestUnreachableCode as Cause;
    let segment = sample_v6();
    let quoted = quote(&segment, 48);
    let unreachable = |reason, hard| IcmpErrorKind::Unreachable { reason, hard };
    let cases = [
        (
            Icmpv6Type::DestinationUnreachable(Cause::NoRoute),
            unreachable(Unreachable::Network, false),
        ),
        (
            Icmpv6Type::DestinationUnreachable(Cause::Prohibited),
            unreachable(Unreachable::Prohibited, true),
        ),
        (
            Icmpv6Type::DestinationUnreachable(Cause::Address),
            unreachable(Unreachable::Host, false),
        ),
        (
            Icmpv6Type::DestinationUnreachable(Cause::Port),
            unreachable(Unreachable::Port, true),
        ),
        (
            Icmpv6Type::PacketTooBig { mtu: 1280 },
            IcmpErrorKind::PacketTooBig { mtu: 1280 },
        ),
        (
            Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            IcmpErrorKind::TimeExceeded,
        ),
    ];
    for (message, kind) in cases {
        let frame = v6_frame(message, &quoted);
        assert_eq!(expect_error(&segment, &frame), kind, "{message:?}");
    }
}

#[test]
fn what_quotes_too_little_or_no_tcp_is_no_error_of_ours() {
    let cause = || Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
    for len in [0, 19, 27] {
        let frame = v4_frame(cause(), &quote(&sample(), len));
        assert_eq!(
            parse_bytes(&frame),
            Err(Malformed::Truncated),
            "{len} bytes"
        );
    }
    let mut udp = quote(&sample(), 28);
    udp[9] = 17;
    assert_eq!(
        parse_bytes(&v4_frame(cause(), &udp)),
        Err(Malformed::NotTcp)
    );
    let mut fragment = quote(&sample(), 28);
    fragment[7] = 1;
    assert_eq!(
        parse_bytes(&v4_frame(cause(), &fragment)),
        Err(Malformed::Fragment)
    );
    // The first fragment has the TCP header.
    fragment[6..8].copy_from_slice(&[0x20, 0]);
    expect_error(&sample(), &v4_frame(cause(), &fragment));
    for (version, least) in [(0x65, "version"), (0x44, "header length")] {
        let mut bent = quote(&sample(), 28);
        bent[0] = version;
        let verdict = parse_bytes(&v4_frame(cause(), &bent));
        assert_eq!(verdict, Err(Malformed::IpHeader), "{least}");
    }
    // A quoted header with options: ports and number lie behind them.
    let mut with_options = quote(&sample(), 28);
    with_options[0] = 0x46;
    assert_eq!(
        parse_bytes(&v4_frame(cause(), &with_options)),
        Err(Malformed::Truncated)
    );
    with_options.splice(20..20, [1; 4]);
    expect_error(&sample(), &v4_frame(cause(), &with_options));
    let echo = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 1, seq: 2 });
    assert_eq!(
        parse_bytes(&v4_frame(echo, b"ping")),
        Err(Malformed::NotTcp)
    );

    let mut damaged = v4_frame(cause(), &quote(&sample(), 28));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(parse_bytes(&damaged), Err(Malformed::BadChecksum));
    let too_big = || Icmpv6Type::PacketTooBig { mtu: 1280 };
    let bend = |at: usize, value: u8| {
        let mut quoted = quote(&sample_v6(), 48);
        quoted[at] = value;
        parse_bytes(&v6_frame(too_big(), &quoted)).err()
    };
    assert_eq!(bend(6, 6), None);
    assert_eq!(bend(6, 17), Some(Malformed::NotTcp));
    assert_eq!(bend(0, 0x40), Some(Malformed::IpHeader));

    let mut damaged = v6_frame(too_big(), &quote(&sample_v6(), 48));
    damaged[14 + 40 + 7] ^= 1;
    assert_eq!(parse_bytes(&damaged), Err(Malformed::BadChecksum));
}

/// What is quoted has to lie in the IP packet, where the checksum covers it: behind it is padding.
#[test]
fn nothing_is_quoted_from_the_padding() {
    let cause = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
    let v4 = v4_frame(cause, &quote(&sample(), 28));
    let v6 = v6_frame(
        Icmpv6Type::PacketTooBig { mtu: 1280 },
        &quote(&sample_v6(), 48),
    );
    for (mut frame, length) in [(v4, 14 + 3), (v6, 14 + 5)] {
        let verdict = |frame: &[u8]| parse(&RxFrame::contiguous(frame, RxChecksum::Trusted));
        assert!(verdict(&frame).is_ok());
        frame[length] -= 1;
        assert_eq!(verdict(&frame), Err(Malformed::Truncated));
    }
}

proptest! {
    #[test]
    fn bent_icmp_never_panics(
        writes in vec((0usize..100, any::<u8>()), 0..8),
        len in 0usize..120,
        v6 in any::<bool>(),
    ) {
        let mut frame = if v6 {
            v6_frame(Icmpv6Type::PacketTooBig { mtu: 1280 }, &quote(&sample_v6(), 60))
        } else {
            v4_frame(Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port), &quote(&sample(), 40))
        };
        for (at, value) in writes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(len);
        // Bent on the way, so not summed: all of the parser runs.
        let _ = parse(&RxFrame::contiguous(&frame, RxChecksum::Trusted));
    }
}
