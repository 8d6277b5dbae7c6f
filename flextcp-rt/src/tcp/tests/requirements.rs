//! The requirements of RFC 9293, appendix B, that no other test shows, in its order; in `loss`, those of RFC 5681 and 6298.
//! `docs/COMPLIANCE.md` lists them all.

mod loss;

use flextcp_nic::flow::flags;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{SegmentRepr, TcpOptions};

use super::*;
use crate::options::KeepAlive;

/// Lengths of the data segments that `host` sent.
fn data_lengths(sim: &Sim, host: usize) -> Vec<usize> {
    let data = sim
        .log
        .iter()
        .filter(|(by, _, len)| *by == host && *len > 0);
    data.map(|(_, _, len)| *len).collect()
}

/// A peer's segment, made by hand, to the listener of host 1.
fn by_hand(v6: bool, flags: TcpFlags, seq: u32, ack: SeqNum) -> SegmentRepr {
    SegmentRepr {
        src_mac: sim::LINK.local_mac,
        dst_mac: sim::LINK.remote_mac,
        tuple: Sim::tuple(4000, v6),
        tos: 0,
        ttl: 64,
        seq: SeqNum(seq),
        ack,
        flags,
        window: 65_535,
        urgent: 0,
        options: TcpOptions::default(),
    }
}

/// Host 1 accepts from a peer whose SYN has no options at all.
fn accept_without_options(v6: bool) -> (Sim, ConnId) {
    let mut sim = Sim::plain();
    sim.cut[0] = true;
    let local = SocketAddr::new(sim::address(1, v6), 80);
    let options = SocketOptions::default();
    sim.hosts[1].engine.listen(local, 4, 1500, options).unwrap();
    sim.inject(1, &by_hand(v6, TcpFlags::SYN, 999, SeqNum(0)), &[]);
    let answer = sim.sent(1, TcpFlags::SYN)[0];
    let ack = by_hand(v6, TcpFlags::ACK, 1000, answer.seq + 1);
    sim.inject(1, &ack, &[]);
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    (sim, server)
}

/// The client's next segment without data, acknowledging all.
fn next_of_client(sim: &Sim, server: ConnId) -> SegmentRepr {
    let mut segment = sim.sent(0, TcpFlags::ACK).pop().unwrap();
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    (segment.seq, segment.ack) = (conn.rcv.nxt, conn.snd.nxt);
    segment.flags = TcpFlags::ACK;
    segment.options.sack = Default::default();
    segment
}

/// A connection whose server reads nothing: its window is shut, and more waits.
fn shut_window() -> (Sim, ConnId, ConnId) {
    let mut sim = Sim::plain();
    // Windows to the byte.
    sim.hosts[0].engine.config.window_scaling = false;
    let (client, server) = sim.pair();
    for _ in 0..10 {
        let window = sim.hosts[1].engine.info(sim.now, server).unwrap().rcv_wnd;
        sim.write(0, client, &pattern(0, window as usize));
        sim.settle();
    }
    let window = sim.hosts[1].engine.info(sim.now, server).unwrap().rcv_wnd;
    assert_eq!(window, 0);
    sim.write(0, client, &pattern(0, 10_000));
    sim.settle();
    (sim, client, server)
}

#[test]
fn the_end_of_what_was_written_is_pushed() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.log.clear();
    sim.write(0, client, &pattern(0, 4000));
    sim.drive_all();
    let pushed: Vec<_> = sim
        .sent(0, TcpFlags::ACK)
        .iter()
        .map(|segment| segment.flags.contains(TcpFlags::PSH))
        .collect();
    assert_eq!(pushed, [false, false, true]);
}

#[test]
fn a_window_is_an_unsigned_number() {
    let mut sim = Sim::plain();
    for host in &mut sim.hosts {
        host.engine.config.window_scaling = false;
        host.engine.config.initial_window = 64;
    }
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 100_000));
    sim.drive_all();
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    let in_flight = conn.snd.nxt.since(conn.snd.una);
    assert!((60_000..=65_535).contains(&in_flight), "{in_flight}");
}

#[test]
fn the_probes_of_a_shut_window_begin_after_a_timeout_and_come_ever_later() {
    let (mut sim, client, _) = shut_window();
    let shut = sim.now;
    sim.log.clear();
    let mut times = Vec::new();
    sim.run_until(100 * SECOND, |sim| {
        if sim.log.iter().any(|(by, ..)| *by == 0) {
            times.push(sim.now);
            sim.log.clear();
        }
        times.len() == 7
    });
    let waits: Vec<_> = std::iter::once(&shut)
        .chain(&times)
        .zip(&times)
        .map(|(from, to)| to.saturating_since(*from))
        .collect();
    assert!(waits[0] >= Duration::from_millis(190), "{waits:?}");
    for pair in waits[1..].windows(2) {
        assert!(pair[1] > pair[0] * 19 / 10, "{waits:?}");
    }
    assert_eq!(sim.state(0, client), State::Established);
}

#[test]
fn a_reset_and_an_acknowledgment_count_at_a_zero_window() {
    let (mut sim, _, server) = shut_window();
    sim.cut = [true, true];
    sim.write(1, server, b"answer");
    sim.drive_all();
    let mut segment = next_of_client(&sim, server);
    segment.flags |= TcpFlags::URG;
    segment.urgent = 1;
    sim.inject(1, &segment, &[]);
    let snd = &sim.hosts[1].engine.conns.get(server).unwrap().snd;
    assert_eq!(snd.una, snd.nxt);
    segment.flags = TcpFlags::RST;
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::Reset)]);
}

#[test]
fn without_the_option_segments_have_the_default_size() {
    for (v6, size) in [(false, 536), (true, 1220)] {
        let (mut sim, server) = accept_without_options(v6);
        sim.write(1, server, &pattern(0, 5 * size));
        sim.drive_all();
        assert_eq!(data_lengths(&sim, 1), [size; 5]);
    }
}

#[test]
fn a_syn_announces_what_the_link_takes_and_nothing_else_does() {
    let (mut sim, server) = accept_without_options(true);
    assert_eq!(sim.sent(1, TcpFlags::SYN)[0].options.mss, Some(1440));
    sim.write(1, server, b"data");
    sim.drive_all();
    let mut plain = Sim::plain();
    let (client, _) = plain.pair();
    plain.write(0, client, &pattern(0, 10_000));
    plain.settle();
    for (_, segment, _) in sim.log.iter().chain(&plain.log) {
        let options = &segment.options;
        if segment.flags.contains(TcpFlags::SYN) {
            assert!(matches!(options.mss, Some(1440 | 1460)), "{options:?}");
        } else {
            assert_eq!((options.mss, options.window_scale), (None, None));
            assert!(!options.sack_permitted);
        }
    }
}

#[test]
fn a_reset_in_syn_received_leaves_the_listener() {
    let mut sim = Sim::plain();
    sim.cut[0] = true;
    sim.listen(4, SocketOptions::default());
    sim.inject(1, &by_hand(false, TcpFlags::SYN, 999, SeqNum(0)), &[]);
    let rst = by_hand(false, TcpFlags::RST, 1000, SeqNum(0));
    sim.inject(1, &rst, &[]);
    assert_eq!(sim.hosts[1].engine.tuples.len(), 0);
    assert!(sim.hosts[1].accepted.is_empty() && sim.hosts[1].failed.is_empty());
    sim.cut[0] = false;
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.state(0, client), State::Established);
}

#[test]
fn a_listener_goes_on_beside_its_connections() {
    let mut sim = Sim::plain();
    let listener = sim.listen(16, SocketOptions::default());
    let other = SocketAddr::new(sim::address(1, false), 81);
    let options = SocketOptions::default();
    let second = sim.hosts[1].engine.listen(other, 4, 1500, options).unwrap();
    assert_ne!(listener, second);
    for port in 40_000..40_003 {
        let client = sim.connect(port, SocketOptions::default());
        sim.settle();
        let server = sim.hosts[1].accepted.pop_front().unwrap();
        sim.write(0, client, &pattern(u64::from(port), 100));
        sim.settle();
        assert_eq!(sim.read(1, server, 200), pattern(u64::from(port), 100));
    }
}

#[test]
fn no_connection_goes_to_a_group() {
    let mut sim = Sim::plain();
    for group in ["224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80"] {
        let remote: SocketAddr = group.parse().unwrap();
        let mut tuple = Sim::tuple(40_000, remote.is_ipv6());
        tuple.remote = (remote.ip(), remote.port());
        let options = SocketOptions::default();
        let refused = sim.hosts[0]
            .engine
            .connect(sim.now, tuple, sim::LINK, options);
        assert_eq!(refused.err(), Some(CommandError::NotAHost), "{group}");
    }
    sim.drive_all();
    assert!(sim.log.is_empty());
}

#[test]
fn a_reset_may_carry_data() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.write(0, client, b"data");
    sim.settle();
    let mut rst = next_of_client(&sim, server);
    rst.flags = TcpFlags::RST | TcpFlags::ACK;
    sim.inject(1, &rst, b"because");
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::Reset)]);
    assert_eq!(sim.read(1, server, 99), b"data");
}

#[test]
fn a_retransmitted_segment_gives_no_round_trip() {
    let mut sim = Sim::plain();
    sim.hosts[0].engine.config.timestamps = false;
    let (client, _) = sim.pair();
    let rtt = sim.hosts[0].engine.info(sim.now, client).unwrap().rtt;
    let seq = sim.hosts[0].engine.conns.get(client).unwrap().snd.nxt;
    sim.drop_data(0, seq);
    sim.write(0, client, b"again");
    sim.run(2 * SECOND);
    let info = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert_eq!((info.unacked, info.total_retrans), (0, 1));
    assert_eq!(info.rtt, rtt);
}

#[test]
fn segments_that_arrive_together_are_acknowledged_together() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.write(0, client, &pattern(0, 14_480));
    sim.drive_all();
    sim.log.clear();
    sim.settle();
    let acks = sim.sent(1, TcpFlags::ACK);
    assert_eq!(acks.len(), 1, "for ten segments");
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    assert_eq!(acks[0].ack, conn.snd.nxt);
}

#[test]
fn after_a_hole_segments_are_acknowledged_at_once_for_a_while() {
    let mut sim = Sim::plain();
    sim.hosts[1].engine.config.quick_acks = 0;
    let (client, server) = sim.pair();
    sim.write(0, client, b"question");
    sim.settle();
    // From here on replies carry the acknowledgments.
    sim.write(1, server, b"answer");
    sim.settle();
    sim.hosts[1].engine.config.quick_acks = 3;
    let lost = sim.hosts[0].engine.conns.get(client).unwrap().snd.nxt;
    sim.drop_data(0, lost);
    sim.write(0, client, &pattern(0, 14_480));
    sim.run(SECOND);
    let mut waits = [(true, true); 4];
    for (nic, wait) in &mut waits {
        let server = sim.hosts[1].engine.conns.get(server).unwrap();
        *nic = !server.flow_state().has(flags::QUICK_ACK);
        sim.log.clear();
        sim.write(0, client, b"x");
        sim.run(Duration::from_millis(10));
        *wait = sim.sent(1, TcpFlags::ACK).is_empty();
        sim.run(SECOND);
    }
    // The NIC would be told the same.
    let (at_once, later) = ((false, false), (true, true));
    assert_eq!(waits, [at_once, at_once, at_once, later]);
}

#[test]
fn an_ack_waits_for_a_reply_but_less_than_half_a_second() {
    let mut sim = Sim::plain();
    sim.hosts[1].engine.config.quick_acks = 0;
    let (client, server) = sim.pair();
    let wait = |sim: &mut Sim| {
        sim.run(SECOND);
        sim.log.clear();
        sim.write(0, client, b"x");
        let since = sim.now;
        assert!(sim.run_until(SECOND, |sim| !sim.sent(1, TcpFlags::ACK).is_empty()));
        sim.now.saturating_since(since)
    };
    let (soon, least) = (Duration::from_millis(1), Duration::from_millis(10));
    let waited = wait(&mut sim);
    assert!(waited < soon, "nothing was ever answered: {waited:?}");
    sim.write(1, server, b"y");
    let waited = wait(&mut sim);
    assert!(
        waited > least && waited < SECOND / 2,
        "an answer may carry it: {waited:?}"
    );
    let waited = wait(&mut sim);
    assert!(waited < soon, "no answer came in time: {waited:?}");
}

#[test]
fn a_window_that_opens_by_crumbs_is_not_filled_by_crumbs() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    let now = sim.now;
    let nodelay = SocketOption::NoDelay(true);
    sim.hosts[0].engine.set_option(now, client, nodelay);
    sim.cut = [true, true];
    let mut ack = sim.sent(1, TcpFlags::SYN)[0];
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    (ack.seq, ack.ack, ack.flags) = (conn.rcv.nxt, conn.snd.una, TcpFlags::ACK);
    let val = sim.sent(1, TcpFlags::SYN)[0].options.timestamps.unwrap();
    ack.options = TcpOptions::with_timestamps(val.val, val.ecr);
    ack.window = 0;
    sim.inject(0, &ack, &[]);
    sim.write(0, client, &pattern(0, 20_000));
    sim.log.clear();
    // 128 bytes at a time, up to 1,408: less than a segment.
    for window in 1..=11 {
        ack.window = window;
        sim.inject(0, &ack, &[]);
    }
    assert!(data_lengths(&sim, 0).is_empty());
    ack.window = 12;
    sim.inject(0, &ack, &[]);
    assert_eq!(data_lengths(&sim, 0), [1448]);
}

#[test]
fn nagle_holds_a_small_segment_until_it_is_turned_off() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.log.clear();
    for byte in [b"a", b"b", b"c"] {
        sim.write(0, client, byte);
        sim.drive_all();
    }
    assert_eq!(data_lengths(&sim, 0), [1]);
    let now = sim.now;
    let nodelay = SocketOption::NoDelay(true);
    sim.hosts[0].engine.set_option(now, client, nodelay);
    sim.drive_all();
    assert_eq!(data_lengths(&sim, 0), [1, 2]);
}

/// As in Linux: nothing more can join it.
#[test]
fn a_small_segment_with_the_fin_does_not_wait() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.log.clear();
    sim.write(0, client, b"a");
    sim.drive_all();
    sim.write(0, client, b"b");
    sim.hosts[0].engine.shutdown_write(sim.now, client);
    sim.drive_all();
    assert_eq!(data_lengths(&sim, 0), [1, 1]);
    assert_eq!(sim.sent(0, TcpFlags::FIN).len(), 1);
}

#[test]
fn ttl_and_type_of_service_are_the_applications() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    let now = sim.now;
    for option in [SocketOption::Ttl(7), SocketOption::Tos(0xbb)] {
        sim.hosts[0].engine.set_option(now, client, option);
    }
    sim.log.clear();
    sim.write(0, client, b"x");
    sim.drive_all();
    let sent = sim.sent(0, TcpFlags::ACK)[0];
    // The ECN bits are not the application's.
    assert_eq!((sent.ttl, sent.tos), (7, 0xb8));
}

#[test]
fn an_application_can_see_that_nobody_answers() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, b"anybody?");
    sim.run(10 * SECOND);
    let info = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert_eq!(info.state, State::Established);
    assert!(info.retransmits >= 3 && info.backoff >= 3, "{info:?}");
}

#[test]
fn keep_alives_are_for_the_idle_and_bear_lost_answers() {
    assert_eq!(SocketOptions::default().keepalive, None);
    assert_eq!(KeepAlive::default().time, 7200 * SECOND);
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    let keepalive = SocketOption::KeepAlive(Some(KeepAlive {
        time: 10 * SECOND,
        interval: SECOND,
        count: 3,
    }));
    let now = sim.now;
    sim.hosts[0].engine.set_option(now, client, keepalive);
    let probes = |sim: &Sim| {
        let conn = sim.hosts[0].engine.conns.get(client).unwrap();
        let before = conn.snd.una - 1;
        let mut sent = sim.log.iter();
        let probe = |(by, segment, len): &&(usize, SegmentRepr, usize)| {
            *by == 0 && segment.seq == before && *len == 0
        };
        sent.by_ref().filter(probe).count()
    };
    for _ in 0..10 {
        sim.write(0, client, b"busy");
        sim.run(5 * SECOND);
        sim.read(1, server, 99);
        assert_eq!(probes(&sim), 0);
        sim.log.clear();
    }
    // Idle; two answers get lost, and the connection lives.
    sim.run(Duration::from_millis(4500));
    sim.cut[0] = true;
    sim.run(Duration::from_millis(2000));
    assert_eq!(probes(&sim), 2);
    sim.cut[0] = false;
    sim.run(20 * SECOND);
    assert_eq!(sim.state(0, client), State::Established);
    assert!(probes(&sim) >= 3);
}

/// RFC 9293, section 3.10.7.4: what lies beyond the window is cut off, though there were room for it.
#[test]
fn payload_beyond_the_window_is_cut_off() {
    let (mut sim, server) = accept_without_options(false);
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    let (nxt, adv, una) = (conn.rcv.nxt, conn.rcv.adv, conn.snd.nxt);
    let mut segment = by_hand(false, TcpFlags::ACK, nxt.0, una);
    sim.inject(1, &segment, &pattern(0, 100));
    segment.seq = adv - 100;
    sim.inject(1, &segment, &pattern(0, 1000));
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    assert_eq!(conn.rcv.reassembly.right_edge(), Some(conn.rcv.adv));
}

/// A port may join segments; every second one is acknowledged all the same.
#[test]
fn a_super_frame_does_not_raise_the_size_of_segments() {
    let (mut sim, server) = accept_without_options(false);
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    let (nxt, una, mss) = (conn.rcv.nxt, conn.snd.nxt, conn.snd.mss.bytes());
    let segment = by_hand(false, TcpFlags::ACK, nxt.0, una);
    sim.inject(1, &segment, &pattern(0, 20_000));
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    assert_eq!((conn.rcv.nxt, conn.rcv.mss), (nxt + 20_000, mss));
}
