//! A listener's two queues when they are full: cookies, and the last ACK ignored.

use flextcp_nic::buffer::{Pressure, recv_ring};
use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::WindowScale;
use flextcp_nic::wire::{SegmentRepr, TcpOptions};

use super::super::Ecn;
use super::*;

/// A SYN from a source that never existed.
fn syn(source: u32) -> SegmentRepr {
    let [_, b, c, d] = source.to_be_bytes();
    SegmentRepr {
        src_mac: sim::LINK.local_mac,
        dst_mac: sim::LINK.remote_mac,
        tuple: FlowTuple {
            local: ([11, b, c, d].into(), 1024 + (source % 50_000) as u16),
            remote: (sim::address(1, false), 80),
        },
        tos: 0,
        ttl: 64,
        seq: flextcp_nic::seq::SeqNum(source.wrapping_mul(77)),
        ack: flextcp_nic::seq::SeqNum(0),
        flags: TcpFlags::SYN,
        window: 64_000,
        urgent: 0,
        options: TcpOptions {
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some(flextcp_nic::wire::Timestamps {
                val: source,
                ecr: 0,
            }),
            ..TcpOptions::default()
        },
    }
}

fn flood(sim: &mut Sim, count: u32) {
    sim.keep_log = false;
    for source in 0..count {
        sim.inject(1, &syn(source), &[]);
        sim.wire.clear();
    }
    sim.keep_log = true;
}

#[test]
fn a_flood_is_answered_without_memory_and_connections_still_come() {
    let mut sim = Sim::plain();
    sim.listen(64, SocketOptions::default());
    flood(&mut sim, 10_000);
    let server = &sim.hosts[1].engine;
    assert_eq!(server.half_open.len(), 64);
    assert_eq!(server.tuples.len(), 64);
    assert_eq!(server.counters().defence.syn_cookies_sent, 10_000 - 64);

    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.state(0, client), State::Established);
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    let (ours, theirs) = (
        sim.hosts[0].engine.info(sim.now, client).unwrap(),
        sim.hosts[1].engine.info(sim.now, server).unwrap(),
    );
    // The cookie carried it all: window scale, SACK and the MSS.
    assert!(theirs.sack && theirs.timestamps);
    assert_eq!(
        (theirs.snd_wscale, theirs.rcv_wscale),
        (ours.rcv_wscale, ours.snd_wscale)
    );
    assert_eq!((theirs.snd_mss, ours.snd_mss), (1448, 1448));
    // The field's rounding takes less than a unit.
    assert!(ours.rcv_wnd - theirs.snd_wnd < 128);
    assert_eq!(sim.hosts[1].engine.half_open.len(), 64);
    sim.write(0, client, &pattern(0, 30_000));
    sim.settle();
    assert_eq!(sim.read(1, server, 30_000), pattern(0, 30_000));
    sim.write(1, server, b"back");
    sim.settle();
    assert_eq!(sim.read(0, client, 9), b"back");
    let defence = sim.hosts[1].engine.counters().defence;
    assert_eq!(
        (defence.syn_cookies_accepted, defence.syn_cookies_failed),
        (1, 0)
    );
}

#[test]
fn a_cookie_carries_ecn_in_its_timestamp_and_gives_it_up_without() {
    for timestamps in [true, false] {
        let mut sim = Sim::plain();
        sim.hosts[0].engine.config.ecn = Ecn::Request;
        sim.hosts[0].engine.config.timestamps = timestamps;
        sim.listen(8, SocketOptions::default());
        flood(&mut sim, 20);
        sim.log.clear();
        let client = sim.connect(40_000, SocketOptions::default());
        sim.settle();
        let answer = sim.sent(1, TcpFlags::SYN)[0];
        assert_eq!(answer.flags.contains(TcpFlags::ECE), timestamps);
        let server = sim.hosts[1].accepted.pop_front().unwrap();
        assert_eq!(
            sim.hosts[1].engine.counters().defence.syn_cookies_accepted,
            1
        );
        // Both ends send ECN-capable data, or neither does.
        for (host, conn) in [(0, client), (1, server)] {
            sim.log.clear();
            sim.write(host, conn, b"data");
            sim.settle();
            let (_, segment, _) = sim
                .log
                .iter()
                .find(|(by, _, len)| *by == host && *len > 0)
                .unwrap();
            assert_eq!(segment.tos & 3 == 2, timestamps, "host {host}");
        }
    }
}

#[test]
fn whoever_takes_all_memory_keeps_nobody_out() {
    let mut sim = Sim::plain();
    sim.listen(8, SocketOptions::default());
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    let pool = sim.hosts[1].engine.pool.clone();
    let mut rings = Vec::new();
    // Others take it all; smallest blocks are given beyond that.
    for size in [1 << 28, 1 << 24, 1 << 20, 1 << 16, 1 << 12] {
        while pool.pressure() != Pressure::High {
            let (mut writer, reader) = recv_ring(&pool);
            if writer.resize(size, 0).is_err() {
                break;
            }
            rings.push((writer, reader));
        }
    }
    assert_eq!(pool.pressure(), Pressure::High);
    // Those that are connected, and those that come, have the smallest blocks.
    let late = sim.connect(40_001, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.state(0, late), State::Established);
    let late_server = sim.hosts[1].accepted.pop_front().unwrap();
    for (client, server) in [(client, server), (late, late_server)] {
        sim.write(0, client, b"still here");
        sim.settle();
        assert_eq!(sim.read(1, server, 99), b"still here");
    }
    // And who takes it may connect, as on Linux, which forces the memory of a SYN (`sk_forced_mem_schedule`).
    sim.hosts[0].engine.pool = pool.clone();
    let out = sim.connect(40_002, SocketOptions::default());
    sim.settle();
    let out_server = sim.hosts[1].accepted.pop_front().unwrap();
    sim.write(0, out, &pattern(0, 1_000));
    sim.settle();
    assert_eq!(sim.read(1, out_server, 9_999), pattern(0, 1_000));
    sim.write(1, out_server, b"and back");
    sim.settle();
    assert_eq!(sim.read(0, out, 99), b"and back");
    rings.clear();
    assert_eq!(pool.pressure(), Pressure::Low);
}

#[test]
fn without_timestamps_a_cookie_gives_options_up() {
    let mut sim = Sim::plain();
    sim.hosts[0].engine.config.timestamps = false;
    sim.listen(8, SocketOptions::default());
    flood(&mut sim, 20);
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let info = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert_eq!(info.state, State::Established);
    assert!(!info.sack && !info.timestamps);
    assert_eq!((info.snd_wscale, info.rcv_wscale), (0, 0));
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    assert_eq!(
        sim.hosts[1].engine.info(sim.now, server).unwrap().snd_mss,
        1460
    );
    sim.write(0, client, b"plain");
    sim.settle();
    assert_eq!(sim.read(1, server, 9), b"plain");
}

#[test]
fn an_ack_that_is_no_cookie_is_reset() {
    let mut sim = Sim::plain();
    sim.listen(8, SocketOptions::default());
    let mut forged = syn(500);
    forged.flags = TcpFlags::ACK;
    sim.inject(1, &forged, &[]);
    // Nothing was sent lately that could come back: not even looked at.
    assert_eq!(sim.hosts[1].engine.counters().defence.syn_cookies_failed, 0);
    flood(&mut sim, 20);
    sim.log.clear();
    for guess in 0..100 {
        forged.ack += guess * 7_919;
        sim.inject(1, &forged, &[]);
    }
    assert!(sim.hosts[1].accepted.is_empty());
    assert_eq!(sim.sent(1, TcpFlags::RST).len(), 100);
    let failed = |sim: &Sim| sim.hosts[1].engine.counters().defence.syn_cookies_failed;
    assert_eq!(failed(&sim), 100);
    // Nor when the last one sent is void.
    sim.run(121 * SECOND);
    sim.inject(1, &forged, &[]);
    assert_eq!(failed(&sim), 100);
}

/// RFC 4987, section 3.6: a cookie comes back in an ACK, as the third segment of a handshake.
#[test]
fn a_syn_ack_is_no_cookie() {
    let mut sim = Sim::plain();
    sim.listen(8, SocketOptions::default());
    flood(&mut sim, 20);
    sim.connect(40_000, SocketOptions::default());
    sim.cut[1] = true;
    sim.drive_all();
    sim.cut[1] = false;
    let syn = sim.sent(0, TcpFlags::SYN)[0];
    sim.inject(1, &syn, &[]);
    let answer = sim.sent(1, TcpFlags::SYN)[0];
    let mut third = syn;
    (third.seq, third.ack) = (syn.seq + 1, answer.seq + 1);
    for (flags, accepted) in [(TcpFlags::SYN | TcpFlags::ACK, 0), (TcpFlags::ACK, 1)] {
        third.flags = flags;
        let stamps = answer.options.timestamps.unwrap();
        third.options = TcpOptions::with_timestamps(stamps.ecr, stamps.val);
        sim.inject(1, &third, &[]);
        assert_eq!(sim.hosts[1].accepted.len(), accepted, "{flags}");
    }
}

/// A number chosen for the reuse of TIME_WAIT (RFC 6191) is no cookie: the connection is remembered all the same.
#[test]
fn a_full_queue_has_room_for_who_waits_no_longer() {
    let mut sim = Sim::plain();
    sim.listen(8, SocketOptions::default());
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    sim.close_both(client, server);
    assert_eq!(sim.hosts[1].engine.time_wait.len(), 1);
    sim.run(2 * SECOND);
    flood(&mut sim, 8);
    let again = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.state(0, again), State::Established);
    assert_eq!(sim.hosts[1].engine.counters().defence.syn_cookies_sent, 0);
}

/// Eight at least whatever the backlog (Linux's `reqsk_timer_handler` reckons so), and the configured number at most.
#[test]
fn a_queue_of_syns_has_its_bounds() {
    for (backlog, configured, held) in [(1, 256, 8), (20, 256, 20), (20, 10, 10), (1, 4, 4)] {
        let mut sim = Sim::plain();
        sim.hosts[1].engine.config.max_syn_backlog = configured;
        sim.listen(backlog, SocketOptions::default());
        flood(&mut sim, 30);
        assert_eq!(sim.hosts[1].engine.half_open.len(), held);
    }
}

/// Linux's `reqsk_timer_handler`: two retransmissions are the least, while the old fill more than half of the queue.
#[test]
fn old_half_open_connections_make_room_after_two_retransmissions() {
    let mut sim = Sim::plain();
    sim.listen(8, SocketOptions::default());
    // Their SYN-ACKs find nobody who could reset them.
    sim.cut[0] = true;
    flood(&mut sim, 8);
    let held = |sim: &Sim| sim.hosts[1].engine.half_open.len();
    // Sent after 0, 1 and 3 seconds, and over after 7.
    sim.run(4 * SECOND);
    assert_eq!(held(&sim), 8);
    sim.run(4 * SECOND);
    assert_eq!(held(&sim), 4, "half of the queue is for the old");
}

#[test]
fn without_cookies_a_full_queue_drops_the_syn() {
    let mut sim = Sim::plain();
    sim.hosts[1].engine.config.syn_cookies = false;
    sim.listen(8, SocketOptions::default());
    flood(&mut sim, 20);
    assert_eq!(sim.hosts[1].engine.counters().listen_overflow, 12);
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.state(0, client), State::SynSent);
    // Old entries get fewer retransmissions while they fill the queue: 1 + 2 + 4 s instead of 63 s.
    let done = sim.run_until(20 * SECOND, |sim| {
        sim.state(0, client) == State::Established
    });
    assert!(done, "{} half open", sim.hosts[1].engine.half_open.len());
}

#[test]
fn a_cookie_that_finds_a_full_accept_queue_is_dropped_and_works_later() {
    let mut sim = Sim::plain();
    let listener = sim.listen(8, SocketOptions::default());
    flood(&mut sim, 20);
    let client = sim.connect(40_000, SocketOptions::default());
    sim.drive_all();
    let at = sim.now + sim.delay;
    sim.step(at);
    // Between the SYN-ACK and its ACK the queue fills.
    let nobody = ConnId {
        index: u32::MAX,
        generation: 0,
    };
    let queue = |sim: &mut Sim, ids: Vec<ConnId>| {
        let listener = sim.hosts[1].engine.listeners.get_mut(listener);
        listener.unwrap().accept_queue = ids.into();
    };
    queue(&mut sim, vec![nobody; 9]);
    sim.settle();
    assert_eq!(sim.state(0, client), State::Established);
    assert!(sim.hosts[1].accepted.is_empty());
    queue(&mut sim, Vec::new());
    // The first data carries the same ACK.
    sim.write(0, client, b"hello");
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    assert_eq!(sim.read(1, server, 9), b"hello");
}

#[test]
fn a_scale_of_zero_is_a_scale() {
    let mut sim = Sim::plain();
    let small = SocketOptions {
        recv_buffer: Some(16_384),
        ..SocketOptions::default()
    };
    sim.listen(8, small);
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let answer = sim.sent(1, TcpFlags::SYN)[0];
    assert_eq!(answer.options.window_scale, Some(WindowScale::ZERO));
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    let (ours, theirs) = (
        sim.hosts[0].engine.info(sim.now, client).unwrap(),
        sim.hosts[1].engine.info(sim.now, server).unwrap(),
    );
    assert_eq!((theirs.snd_wscale, theirs.rcv_wscale), (7, 0));
    assert_eq!((ours.snd_wscale, ours.rcv_wscale), (0, 7));
    // The field's rounding takes less than a unit.
    assert!(ours.rcv_wnd - theirs.snd_wnd < 128);
}

/// RFC 9293, section 3.8.3: after 1, 2, 4, 8 and 16 seconds, as Linux does.
#[test]
fn an_unanswered_syn_ack_comes_again_until_it_is_given_up() {
    let mut sim = Sim::plain();
    sim.cut[0] = true;
    sim.listen(8, SocketOptions::default());
    sim.inject(1, &syn(1), &[]);
    for (seconds, sent) in [(2, 2), (2, 3), (4, 4), (8, 5), (16, 6), (30, 6)] {
        sim.run(seconds * SECOND);
        assert_eq!(sim.sent(1, TcpFlags::SYN).len(), sent, "{:?}", sim.now);
        assert_eq!(sim.hosts[1].engine.half_open.len(), 1);
    }
    sim.run(2 * SECOND);
    assert_eq!(sim.sent(1, TcpFlags::SYN).len(), 6);
    assert_eq!(sim.hosts[1].engine.half_open.len(), 0);
}
