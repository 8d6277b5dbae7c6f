//! SYN_RECEIVED of a passive open (RFC 9293, section 3.10.7.4), and segments that belong to nobody.

use std::net::Ipv6Addr;

use flextcp_nic::wire::{SegmentRepr, TcpOptions};

use super::*;

/// A listener with one half-open connection, its SYN-ACK, and the ACK that would complete it.
fn half_open() -> (Sim, SegmentRepr, SegmentRepr) {
    let mut sim = Sim::plain();
    sim.listen(4, SocketOptions::default());
    sim.cut[0] = true;
    sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let syn = sim.sent(0, TcpFlags::SYN)[0];
    let answer = sim.sent(1, TcpFlags::SYN)[0];
    let stamps = answer.options.timestamps.unwrap();
    let ack = SegmentRepr {
        seq: syn.seq + 1,
        ack: answer.seq + 1,
        flags: TcpFlags::ACK,
        options: TcpOptions::with_timestamps(stamps.ecr, stamps.val),
        ..syn
    };
    sim.log.clear();
    (sim, answer, ack)
}

fn held(sim: &Sim) -> (usize, usize) {
    let host = &sim.hosts[1];
    (host.engine.half_open.len(), host.accepted.len())
}

/// RFC 5961, section 3.2. Others are not even challenged here.
#[test]
fn only_the_exact_reset_ends_a_half_open_connection() {
    let (mut sim, _, ack) = half_open();
    let mut rst = ack;
    rst.flags = TcpFlags::RST;
    for seq in [ack.seq - 1, ack.seq + 1, ack.seq + 1_000] {
        rst.seq = seq;
        sim.inject(1, &rst, &[]);
    }
    assert_eq!((held(&sim), sim.log.len()), ((1, 0), 0));
    rst.seq = ack.seq;
    sim.inject(1, &rst, &[]);
    assert_eq!((held(&sim), sim.log.len()), ((0, 0), 0));
}

/// RFC 9293, section 3.10.7.4, fifth: an ACK of anything but our SYN gets a RST with its number.
#[test]
fn an_ack_of_another_number_is_reset_and_ends_nothing() {
    let (mut sim, _, ack) = half_open();
    for wrong in [ack.ack - 1, ack.ack + 1, ack.ack + (1 << 31)] {
        sim.log.clear();
        sim.inject(1, &SegmentRepr { ack: wrong, ..ack }, &[]);
        let resets = sim.sent(1, TcpFlags::RST);
        assert_eq!(
            resets.iter().map(|rst| rst.seq).collect::<Vec<_>>(),
            [wrong]
        );
        assert_eq!(held(&sim), (1, 0));
    }
    sim.inject(1, &ack, &[]);
    assert_eq!(held(&sim), (0, 1));
}

/// RFC 9293, section 3.10.7.4, first, with PAWS (RFC 7323, section 5.3): an ACK says where we are, at a limited rate.
#[test]
fn unacceptable_segments_are_answered_at_a_limited_rate() {
    let window = i32::from(half_open().1.window);
    // Sequence number and TSval, from where they should be.
    let cases = [
        ("as it should be", 0, Some(0), true),
        ("at the right edge", window, Some(0), true),
        ("beyond it", window + 1, Some(0), false),
        ("before the window", -1, Some(0), false),
        ("older than the SYN", 0, Some(-1), false),
        ("without timestamps", 0, None, true),
    ];
    for (what, seq, age, taken) in cases {
        let (mut sim, answer, ack) = half_open();
        let mut bent = ack;
        bent.seq += seq as u32;
        bent.options = age.map_or_else(TcpOptions::default, |age| {
            let stamps = ack.options.timestamps.unwrap();
            TcpOptions::with_timestamps(stamps.val.wrapping_add_signed(age), stamps.ecr)
        });
        sim.inject(1, &bent, &[]);
        assert_eq!(held(&sim), if taken { (0, 1) } else { (1, 0) }, "{what}");
        if taken {
            continue;
        }
        let sent = sim.sent(1, TcpFlags::ACK);
        assert_eq!(sent.len(), 1, "{what}");
        assert_eq!((sent[0].seq, sent[0].ack), (answer.seq + 1, answer.ack));
        // Until half a second has passed it is only counted.
        sim.inject(1, &bent, &[]);
        assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1, "{what}");
        assert_eq!(sim.hosts[1].engine.counters().defence.acks_held_back, 1);
        sim.now += sim.hosts[1].engine.config.challenge_interval;
        sim.inject(1, &bent, &[]);
        assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 2, "{what}");
        sim.inject(1, &ack, &[]);
        assert_eq!(held(&sim), (0, 1), "{what}");
    }
}

/// RFC 9293, sections 3.10.7.1 and 3.10.7.2: a RST is never answered, and no listener takes a SYN that also ends.
#[test]
fn nobody_answers_a_reset_or_what_no_tcp_sends() {
    let (mut sim, _, ack) = half_open();
    let mut stranger = ack;
    stranger.tuple.local.1 += 1;
    let mut closed = stranger;
    closed.tuple.remote.1 += 1;
    let impossible = [
        TcpFlags::RST,
        TcpFlags::RST | TcpFlags::ACK,
        TcpFlags::SYN | TcpFlags::FIN,
        TcpFlags::SYN | TcpFlags::RST,
        TcpFlags::NONE,
        TcpFlags::PSH,
    ];
    for flags in impossible {
        for segment in [stranger, closed] {
            sim.inject(1, &SegmentRepr { flags, ..segment }, &[]);
        }
    }
    assert_eq!((held(&sim), sim.log.len()), ((1, 0), 0));
    // Anything else of a stranger is.
    sim.inject(1, &stranger, &[]);
    assert_eq!(sim.sent(1, TcpFlags::RST).len(), 1);
}

#[test]
fn answers_to_strangers_take_bounded_memory() {
    let (mut sim, _, ack) = half_open();
    let mut header = [0; flextcp_nic::wire::MAX_HEADER_LEN];
    for port in 0..5_000 {
        let mut stray = ack;
        stray.tuple.local.1 = port;
        let len = stray.emit([&[], &[]], false, &mut header);
        sim.deliver(1, &header[..len]);
    }
    assert_eq!(sim.hosts[1].engine.raw.len(), 4_096);
}

/// Linux's `SO_REUSEPORT`: who shares an address agrees to it, the first and every other.
#[test]
fn listeners_share_an_address_when_all_of_them_want_to() {
    let options = |reuse_port| SocketOptions {
        reuse_port,
        ..SocketOptions::default()
    };
    for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut sim = Sim::plain();
        sim.listen(4, options(first));
        let local = SocketAddr::new(sim::address(1, false), 80);
        let again = sim.hosts[1].engine.listen(local, 4, 1500, options(second));
        let shared = first && second;
        assert_eq!(
            again.err(),
            (!shared).then_some(CommandError::InUse),
            "{first} {second}"
        );
    }
}

/// `IPV6_V6ONLY`: `[::]` is every IPv4 address as well unless it is set.
#[test]
fn a_listener_of_ipv6_alone_takes_no_ipv4() {
    for v6only in [false, true] {
        let mut sim = Sim::plain();
        let options = SocketOptions {
            v6only,
            ..SocketOptions::default()
        };
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 80);
        sim.hosts[1].engine.listen(any, 4, 1500, options).unwrap();
        let client = sim.connect(40_000, SocketOptions::default());
        sim.settle();
        let refused = sim.hosts[0].failed == [(client, ConnError::Refused)];
        assert_eq!(refused, v6only);
        assert_eq!(sim.hosts[1].accepted.len(), usize::from(!v6only));
    }
}

/// An ACK of TIME_WAIT is limited like a challenge; a FIN again is not, as its sender waits for it.
#[test]
fn time_wait_answers_a_fin_each_time_and_the_rest_at_a_limited_rate() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.close_both(client, server);
    assert_eq!(sim.hosts[1].engine.time_wait.len(), 1);
    let fin = sim.sent(0, TcpFlags::FIN)[0];
    let data = SegmentRepr {
        flags: TcpFlags::ACK,
        seq: fin.seq - 10,
        ..fin
    };
    sim.cut = [true, true];
    sim.log.clear();
    for (segment, payload, answers) in [
        (&data, &b"old data"[..], 1),
        (&data, &b"old data"[..], 1),
        (&fin, &b""[..], 2),
        (&fin, &b""[..], 3),
    ] {
        sim.inject(1, segment, payload);
        assert_eq!(sim.sent(1, TcpFlags::ACK).len(), answers);
    }
    assert_eq!(sim.hosts[1].engine.counters().defence.acks_held_back, 1);
    sim.now += sim.hosts[1].engine.config.challenge_interval;
    sim.inject(1, &data, b"old data");
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 4);
}
