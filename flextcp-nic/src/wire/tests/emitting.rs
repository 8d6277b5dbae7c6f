use etherparse::{NetSlice, SlicedPacket, TcpOptionElement, TransportSlice};

use super::*;
use crate::wire::checksum::Checksum;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What etherparse makes of option bytes.
fn options_of(tcp: &etherparse::TcpSlice<'_>) -> TcpOptions {
    let mut options = TcpOptions::default();
    for element in tcp.options_iterator() {
        match element.unwrap() {
            TcpOptionElement::Noop => {}
            TcpOptionElement::MaximumSegmentSize(mss) => options.mss = Some(mss),
            TcpOptionElement::WindowScale(shift) => {
                options.window_scale = Some(WindowScale::new(shift));
            }
            TcpOptionElement::SelectiveAcknowledgementPermitted => options.sack_permitted = true,
            TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                for (left, right) in [Some(first)].into_iter().chain(more).flatten() {
                    assert!(options.sack.push(SeqNum(left), SeqNum(right)));
                }
            }
            TcpOptionElement::Timestamp(val, ecr) => {
                options.timestamps = Some(Timestamps { val, ecr });
            }
        }
    }
    options
}

fn check(segment: &SegmentRepr, payload: &[u8], frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let ethernet = sliced
        .link
        .unwrap()
        .to_header()
        .unwrap()
        .ethernet2()
        .unwrap();
    assert_eq!(
        (MacAddr(ethernet.source), MacAddr(ethernet.destination)),
        (segment.src_mac, segment.dst_mac)
    );

    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("no TCP")
    };
    let sum = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(
                (header.time_to_live, header.dont_fragment),
                (segment.ttl, true)
            );
            assert_eq!(ip.header().slice()[1], segment.tos);
            assert_eq!(header.source.to_vec(), octets(segment.tuple.local.0));
            assert_eq!(header.destination.to_vec(), octets(segment.tuple.remote.0));
            tcp.calc_checksum_ipv4(header.source, header.destination)
                .unwrap()
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.hop_limit, segment.ttl);
            assert_eq!(ip.header().traffic_class(), segment.tos);
            assert_eq!(header.source.to_vec(), octets(segment.tuple.local.0));
            assert_eq!(header.destination.to_vec(), octets(segment.tuple.remote.0));
            tcp.calc_checksum_ipv6(header.source, header.destination)
                .unwrap()
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    assert_eq!(sum, tcp.checksum());
    assert_eq!(
        (tcp.source_port(), tcp.destination_port()),
        (segment.tuple.local.1, segment.tuple.remote.1)
    );
    assert_eq!(
        (tcp.sequence_number(), tcp.acknowledgment_number()),
        (segment.seq.0, segment.ack.0)
    );
    assert_eq!(
        (tcp.window_size(), tcp.urgent_pointer()),
        (segment.window, segment.urgent)
    );
    let flags = [
        tcp.fin(),
        tcp.syn(),
        tcp.rst(),
        tcp.psh(),
        tcp.ack(),
        tcp.urg(),
        tcp.ece(),
        tcp.cwr(),
    ];
    let bits = flags
        .iter()
        .rev()
        .fold(0, |bits, &flag| bits << 1 | u8::from(flag));
    assert_eq!(bits, segment.flags.bits());
    assert_eq!(options_of(&tcp), segment.options);
    assert_eq!(tcp.payload(), payload);
}

proptest! {
    #[test]
    fn emitted_frames_are_what_etherparse_reads(segment in segment(), payload in payload()) {
        check(&segment, &payload, &emit(&segment, &payload));
    }

    #[test]
    fn emitted_frames_parse_back(segment in segment(), payload in payload()) {
        let frame = emit(&segment, &payload);
        let packet = expect_tcp(&frame);
        prop_assert_eq!(packet.src_mac, segment.src_mac);
        prop_assert_eq!(packet.dst_mac, segment.dst_mac);
        prop_assert_eq!(packet.tuple, segment.tuple.reversed());
        prop_assert_eq!((packet.tos, packet.ttl, packet.ip_options), (segment.tos, segment.ttl, false));
        prop_assert_eq!(packet.tcp.options, segment.options);
        prop_assert_eq!(packet.tcp.flags, segment.flags);
        let (seq, ack) = (packet.tcp.seq, packet.tcp.ack);
        prop_assert_eq!((seq, ack), (segment.seq, segment.ack));
        prop_assert_eq!((packet.tcp.window, packet.tcp.urgent), (segment.window, segment.urgent));
        prop_assert_eq!(&frame[packet.payload_offset..], &payload[..]);
        prop_assert_eq!(packet.payload_len, payload.len());
    }

    #[test]
    fn completing_a_partial_checksum_gives_the_whole_one(segment in segment(), payload in payload()) {
        let whole = emit(&segment, &payload);
        let mut header = [0; MAX_HEADER_LEN];
        let len = segment.emit([&payload, &[]], true, &mut header);
        let mut frame = [&header[..len], &payload[..]].concat();

        let tcp = len - segment.tcp_len();
        let mut sum = Checksum::new();
        sum.add(&frame[tcp..]);
        frame[tcp + 16..tcp + 18].copy_from_slice(&sum.finish().to_be_bytes());
        prop_assert_eq!(frame, whole);
    }
}

proptest! {
    #[test]
    fn a_congestion_mark_changes_nothing_else(segment in segment(), payload in payload()) {
        let mut frame = emit(&segment, &payload);
        let marked = mark_congestion(&mut frame);
        prop_assert_eq!(marked, segment.tos & 3 != 0);
        let tos = if marked { segment.tos | 3 } else { segment.tos };
        check(&SegmentRepr { tos, ..segment }, &payload, &frame);
        prop_assert_eq!(expect_tcp(&frame).ecn_ce(), marked);
    }
}

#[test]
fn option_bytes_are_in_the_order_of_linux() {
    let bytes = |options| {
        let segment = SegmentRepr {
            options,
            ..sample()
        };
        emit(&segment, &[])[14 + 20 + 20..].to_vec()
    };
    let syn = TcpOptions {
        mss: Some(1460),
        window_scale: Some(WindowScale::new(7)),
        sack_permitted: true,
        ..TcpOptions::with_timestamps(0x0102_0304, 0)
    };
    let expected = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    assert_eq!(bytes(syn), expected);

    let plain = TcpOptions {
        timestamps: None,
        ..syn
    };
    assert_eq!(bytes(plain), [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7]);

    let without_sack = TcpOptions {
        sack_permitted: false,
        ..syn
    };
    assert_eq!(bytes(without_sack)[4..8], [1, 1, 8, 10]);

    let mut sack = TcpOptions::with_timestamps(1, 2);
    sack.sack.push(SeqNum(3), SeqNum(4));
    let expected = [
        1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 10, 0, 0, 0, 3, 0, 0, 0, 4,
    ];
    assert_eq!(bytes(sack), expected);
}

#[test]
fn sack_blocks_that_do_not_fit_are_left_out() {
    let mut options = TcpOptions::with_timestamps(1, 2);
    for block in 0..4 {
        assert!(options.sack.push(SeqNum(block), SeqNum(block + 1)));
    }
    assert!(!options.sack.push(SeqNum(9), SeqNum(10)));
    assert_eq!(options.emitted_len(), 12 + 4 + 3 * 8);
    let parsed = expect_tcp(&emit(
        &SegmentRepr {
            options,
            ..sample()
        },
        b"data",
    ));
    assert!(
        parsed
            .tcp
            .options
            .sack
            .iter()
            .eq(options.sack.iter().take(3))
    );
}

#[test]
fn super_frames_up_to_the_limit_of_ip_are_whole_and_longer_ones_clamp() {
    for segment in [sample(), sample_v6()] {
        let ip_len = segment.header_len()
            - 14
            - if segment.tuple.local.0.is_ipv4() {
                0
            } else {
                40
            };
        let payload = vec![0x5a; 65535 - ip_len];
        let packet = expect_tcp(&emit(&segment, &payload));
        assert_eq!(packet.payload_len, payload.len());

        let payload = vec![0x5a; 70_000];
        let frame = emit(&segment, &payload);
        let field = if segment.tuple.local.0.is_ipv4() {
            16
        } else {
            18
        };
        assert_eq!(frame[field..field + 2], [0xff, 0xff]);
    }
}
