//! One step inside each bound, and one outside.

use super::*;

const IP: usize = 14;

/// Bent on the way and not summed: what other than the checksum refuses it?
fn trusted(frame: &[u8]) -> Result<Packet, Malformed> {
    parse(&RxFrame::contiguous(frame, RxChecksum::Trusted))
}

/// [`sample_v6`] with `extensions` between the IPv6 header and TCP, the first of kind `first`.
fn extended(first: u8, extensions: &[u8]) -> Vec<u8> {
    let mut frame = emit(&sample_v6(), b"data");
    frame.splice(IP + 40..IP + 40, extensions.iter().copied());
    frame[IP + 6] = first;
    let payload = (frame.len() - IP - 40) as u16;
    frame[IP + 4..IP + 6].copy_from_slice(&payload.to_be_bytes());
    frame
}

/// IEEE 802.1Q: the VLAN is twelve bits, and only zero is none.
#[test]
fn vlan_1_is_a_vlan() {
    for (tag, verdict) in [
        (0x0001, Some(Malformed::Vlan)),
        (0x0800, Some(Malformed::Vlan)),
        (0xf000, None),
    ] {
        let mut frame = emit(&sample(), b"data");
        let [high, low] = u16::to_be_bytes(tag);
        frame.splice(12..12, [0x81, 0, high, low]);
        assert_eq!(parse_bytes(&frame).err(), verdict, "{tag:#x}");
    }
}

#[test]
fn lengths_of_ipv6_that_contradict_each_other_are_refused() {
    let intact = emit(&sample_v6(), b"data");
    let bend = |at: usize, value: u8| {
        let mut frame = intact.clone();
        frame[at] = value;
        trusted(&frame).err()
    };
    assert_eq!(bend(IP, 0x60), None);
    assert_eq!(bend(IP, 0x40), Some(Malformed::IpHeader), "version");
    assert_eq!(bend(IP + 5, 24), None);
    assert_eq!(bend(IP + 5, 25), Some(Malformed::Truncated));
    assert_eq!(bend(IP + 40 + 12, 0x70), Some(Malformed::DataOffset));
    for len in 0..intact.len() {
        assert_eq!(parse_bytes(&intact[..len]), Err(Malformed::Truncated));
    }
}

/// Ethernet pads short frames: what lies behind the IP packet belongs to nobody.
#[test]
fn padding_is_no_header() {
    for (segment, length) in [(sample(), IP + 3), (sample_v6(), IP + 5)] {
        let mut frame = emit(&segment, b"data");
        frame[length] -= 4 + 1;
        assert_eq!(trusted(&frame), Err(Malformed::Truncated), "{length}");
    }
}

/// RFC 8200, section 4: more extension headers than any host sends only cost time.
#[test]
fn eight_extension_headers_are_walked_and_not_nine() {
    let options = |count: usize| {
        let mut chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        chain[8 * (count - 1)] = 6;
        extended(60, &chain)
    };
    assert!(expect_tcp(&options(8)).ip_options);
    assert_eq!(parse_bytes(&options(9)), Err(Malformed::Extension));
}

/// RFC 8200, section 4.5: the second byte of a fragment header is reserved, and ignored on reception.
#[test]
fn a_fragment_header_has_no_length() {
    let frame = extended(44, &[6, 1, 0, 0, 0, 0, 0, 7]);
    assert_eq!(expect_tcp(&frame).payload_len, 4);
}

/// ICMP belongs to IPv4, and ICMPv6 to IPv6 alone.
#[test]
fn each_family_has_its_own_icmp() {
    for (segment, protocol, alien) in [(sample(), IP + 9, 58), (sample_v6(), IP + 6, 1)] {
        let quoted = &emit(&segment, b"")[IP..];
        let mut frame = emit(&segment, &[0; 100]);
        let message = frame.len() - 120;
        // Port unreachable, in the numbers of either.
        let kind = if alien == 58 { [3, 3] } else { [1, 4] };
        frame[message..message + 2].copy_from_slice(&kind);
        frame[message + 8..message + 8 + quoted.len()].copy_from_slice(quoted);
        let native = if alien == 58 { 1 } else { 58 };
        frame[protocol] = native;
        assert!(matches!(trusted(&frame), Ok(Packet::Icmp(_))), "{native}");
        frame[protocol] = alien;
        assert_eq!(trusted(&frame), Err(Malformed::NotTcp), "{alien}");
    }
}

/// A wrong length makes a known option an unknown one (Linux's `tcp_parse_options`).
#[test]
fn options_of_a_wrong_length_are_skipped() {
    let read = |bytes: &[u8]| TcpOptions::parse(bytes, true);
    let skipped = TcpOptions {
        other: true,
        ..TcpOptions::default()
    };
    for (kind, right) in [(2, 4), (3, 3), (4, 2), (5, 10), (5, 34), (8, 10)] {
        for length in [(right - 1).max(2), right, right + 1] {
            let mut option = vec![1; length];
            (option[0], option[1]) = (kind, length as u8);
            let known = length == right;
            assert_eq!(read(&option) == skipped, !known, "{option:?}");
            assert_eq!(read(&option).other, !known, "{option:?}");
        }
    }
    assert_eq!(read(&[5, 2]), skipped, "no block at all");
    assert_eq!(read(&[2, 4, 0, 1]).mss, Some(1), "the least MSS");
}

/// RFC 1624, section 3: the carry of the carry.
#[test]
fn a_mark_is_carried_all_the_way_into_the_checksum() {
    let mut met = 0;
    for host in 0..=u16::MAX {
        let [high, low] = host.to_be_bytes();
        let mut segment = sample();
        segment.tuple.local.0 = Ipv4Addr::new(10, 1, high, low).into();
        for tos in [1, 2] {
            let header = IP..IP + 20;
            let mut frame = [0; MAX_HEADER_LEN];
            SegmentRepr { tos, ..segment }.emit([&[], &[]], true, &mut frame);
            if frame[IP + 10] == 0 && frame[IP + 11] <= 1 {
                assert!(mark_congestion(&mut frame));
                assert_eq!(checksum::checksum(&frame[header]), 0, "{host} {tos}");
                met += 1;
            }
        }
    }
    assert!(met > 0, "no header has a checksum of 0 or 1");
}
