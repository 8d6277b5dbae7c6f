use super::*;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const PEER_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

fn us() -> Neighbors {
    Neighbors::new(MAC, vec![IP.into(), IP6.into()])
}

fn peer() -> Neighbors {
    Neighbors::new(PEER, vec![PEER_IP.into(), PEER_IP6.into()])
}

#[test]
fn two_ends_find_each_other() {
    for (ip, peer_ip) in [
        (IpAddr::from(IP), IpAddr::from(PEER_IP)),
        (IP6.into(), PEER_IP6.into()),
    ] {
        let (us, peer) = (us(), peer());
        assert_eq!(us.resolve(peer_ip), None);
        let question = us.questions(Instant::ZERO).remove(0);
        let Handled::Reply(answer) = peer.handle(&question) else {
            panic!("no answer to {question:x?}")
        };
        assert_eq!(us.handle(&answer), Handled::Quiet);
        assert_eq!(us.resolve(peer_ip), Some(PEER));
        assert_eq!(peer.resolve(ip), Some(MAC), "who asks is learned");
        assert_eq!(
            us.questions(Instant::from_millis(5_000)),
            Vec::<Vec<u8>>::new()
        );
    }
}

#[test]
fn questions_are_repeated_once_a_second_until_forgotten() {
    let us = us();
    us.resolve(PEER_IP.into());
    let asked = |millis| us.questions(Instant::from_millis(millis)).len();
    assert_eq!(
        [asked(0), asked(999), asked(1000), asked(1500), asked(2000)],
        [1, 0, 1, 0, 1]
    );
    assert_eq!(us.poll_at(), Some(Instant::from_millis(3000)));
    us.forget(PEER_IP.into());
    assert_eq!((asked(9000), us.poll_at()), (0, None));
}

#[test]
fn an_arp_reply_is_as_rfc_826_has_it() {
    let request = arp(
        ARP_REQUEST,
        MacAddr([0xff; 6]),
        (PEER, PEER_IP),
        (MacAddr::ZERO, IP),
    );
    let mut expected = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 6];
    expected.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    expected.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9]);
    assert_eq!(us().handle(&request), Handled::Reply(expected));
}

#[test]
fn questions_about_others_are_not_answered_nor_learned_from() {
    let us = us();
    let other = Ipv4Addr::new(10, 0, 0, 2);
    let request = arp(
        ARP_REQUEST,
        MacAddr([0xff; 6]),
        (PEER, PEER_IP),
        (MacAddr::ZERO, other),
    );
    assert_eq!(us.handle(&request), Handled::Quiet);
    assert!(us.lock().known.is_empty());
}

#[test]
fn address_probes_are_answered_without_learning() {
    let us = us();
    let probe = arp(
        ARP_REQUEST,
        MacAddr([0xff; 6]),
        (PEER, Ipv4Addr::UNSPECIFIED),
        (MacAddr::ZERO, IP),
    );
    assert!(matches!(us.handle(&probe), Handled::Reply(_)));
    let solicitation = Discovery {
        kind: SOLICITATION,
        flags: 0,
        target: IP6,
        option: TARGET_LINK_LAYER,
    };
    let frame = solicitation.frame((PEER, Ipv6Addr::UNSPECIFIED), (MAC, IP6));
    let Handled::Reply(answer) = us.handle(&frame) else {
        panic!("not answered")
    };
    assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(answer[54 + 4], OVERRIDE, "not solicited: nobody to solicit");
    assert!(us.lock().known.is_empty());
}

#[test]
fn forged_discovery_is_ignored() {
    let forge = |change: fn(&mut Vec<u8>)| {
        let (us, peer) = (us(), peer());
        peer.resolve(IP6.into());
        let mut question = peer.questions(Instant::ZERO).remove(0);
        change(&mut question);
        us.handle(&question)
    };
    assert!(matches!(forge(|_| ()), Handled::Reply(_)));
    assert_eq!(
        forge(|frame| frame[14 + 7] = 254),
        Handled::Quiet,
        "was forwarded"
    );
    assert_eq!(
        forge(|frame| frame[14 + 42] ^= 1),
        Handled::Quiet,
        "checksum"
    );
    assert_eq!(
        forge(|frame| frame.truncate(80)),
        Handled::Quiet,
        "truncated"
    );
    assert_eq!(
        forge(|frame| frame.truncate(54)),
        Handled::No,
        "no ICMPv6 header"
    );
    assert_eq!(
        forge(|frame| frame.truncate(3)),
        Handled::No,
        "no Ethernet header"
    );
}

#[test]
fn other_frames_are_not_ours_to_handle() {
    let us = us();
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[8, 0]);
    assert_eq!(us.handle(&frame), Handled::No);
}

proptest::proptest! {
    #[test]
    fn nothing_panics(mut frame: Vec<u8>, arp: bool) {
        if frame.len() > 20 {
            frame[12..14].copy_from_slice(if arp { &ETHERTYPE_ARP } else { &ETHERTYPE_IPV6 });
            frame[20] = ICMPV6;
        }
        us().handle(&frame);
    }
}
