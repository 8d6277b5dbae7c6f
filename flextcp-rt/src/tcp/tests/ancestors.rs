//! What FlexTCP's ancestors got wrong, shown absent; `docs/COMPLIANCE.md` lists each defect with its tests.

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::SegmentRepr;

use super::*;

fn move_all(sim: &mut Sim, client: ConnId, server: ConnId, len: usize) {
    let data = pattern(0, len);
    let (mut sent, mut got) = (0, 0);
    let done = sim.run_until(120 * SECOND, |sim| {
        sent += sim.write(0, client, &data[sent..(sent + 65_536).min(len)]);
        let bytes = sim.read(1, server, 1 << 20);
        assert!(bytes == data[got..got + bytes.len()]);
        got += bytes.len();
        got == len
    });
    assert!(done, "{got} of {len}");
}

/// The server's last acknowledgment, to be bent by a test.
fn last_ack(sim: &Sim) -> SegmentRepr {
    let mut ack = sim.sent(1, TcpFlags::ACK).pop().unwrap();
    ack.flags = TcpFlags::ACK;
    ack.options.sack = Default::default();
    ack
}

#[test]
fn sequence_numbers_wrap_in_mid_transfer() {
    let mut sim = Sim::plain();
    sim.keep_log = false;
    sim.listen(4, SocketOptions::default());
    let secret = &sim.hosts[0].engine.secret;
    let near = (1..=u16::MAX).find(|&port| {
        let iss = secret.initial_sequence(&Sim::tuple(port, false), sim.now);
        SeqNum(u32::MAX).since(iss) < 400_000 && iss.0 > 1 << 31
    });
    let client = sim.connect(
        near.expect("some port begins near the wrap"),
        SocketOptions::default(),
    );
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    sim.impairment = Impairment {
        loss: 10,
        reorder: 20,
        ..Impairment::default()
    };
    move_all(&mut sim, client, server, 1_000_000);
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    assert!(conn.snd.una.0 < conn.snd.iss.0, "it did not wrap");
}

#[test]
fn the_timestamp_clock_wraps_without_harm_and_runs_for_centuries() {
    // Before the wrap of 32 bits of milliseconds, and where 64 bits of cycles times 10^9 would long have overflown.
    for start in [(1u64 << 32) - 700, 400 * 365 * 86_400 * 1000] {
        let mut sim = Sim::plain();
        sim.now = Instant::from_millis(start);
        let (client, server) = sim.pair();
        let mut last = None;
        for _ in 0..20 {
            move_all(&mut sim, client, server, 10_000);
            sim.run(Duration::from_millis(100));
            let segment = sim.sent(0, TcpFlags::ACK).pop().unwrap();
            let val = SeqNum(segment.options.timestamps.unwrap().val);
            if let Some((at, before)) = last {
                let ticks = val.offset_from(before);
                let millis = sim.now.saturating_since(at).as_millis() as i32;
                assert!(
                    (ticks - millis).abs() <= 101,
                    "{ticks} ticks in {millis} ms"
                );
            }
            last = Some((sim.now, val));
        }
        assert_eq!(sim.hosts[1].engine.counters().unacceptable, 0);
    }
}

#[test]
fn a_shrunk_window_holds_the_sender() {
    let mut sim = Sim::plain();
    // Not what holds it.
    sim.hosts[0].engine.config.initial_window = 64;
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 14_480));
    sim.drive_all();
    // They are in flight; the peer takes back all but a kilobyte.
    let mut ack = last_ack(&sim);
    ack.seq = sim.hosts[0].engine.conns.get(client).unwrap().rcv.nxt;
    ack.window = 8;
    sim.log.clear();
    sim.inject(0, &ack, &[]);
    sim.write(0, client, &pattern(0, 20_000));
    sim.run(Duration::from_millis(20));
    let una = sim.hosts[0].engine.conns.get(client).unwrap().snd.una;
    for (by, segment, len) in &sim.log {
        let beyond = (segment.seq + *len as u32).since(una);
        assert!(
            *by == 1 || beyond <= 14_480,
            "{beyond} bytes beyond SND.UNA"
        );
    }
}

#[test]
fn window_updates_are_no_duplicate_acknowledgments() {
    let mut sim = Sim::plain();
    sim.hosts[1].engine.config.sack = false;
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 10_000));
    sim.drive_all();
    let mut ack = last_ack(&sim);
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    (ack.seq, ack.ack) = (conn.rcv.nxt, conn.snd.una);
    for window in 401..406 {
        ack.window = window;
        sim.inject(0, &ack, &[]);
    }
    // Nor is what carries data.
    for bytes in [b"one", b"two", b"six"] {
        sim.inject(0, &ack, bytes);
        ack.seq += 3;
    }
    let counters = sim.hosts[0].engine.counters();
    assert_eq!(counters.recovery.fast_recoveries, 0);
    // Three that change nothing are.
    for recoveries in [0, 0, 1] {
        sim.inject(0, &ack, &[]);
        let counters = sim.hosts[0].engine.counters();
        assert_eq!(counters.recovery.fast_recoveries, recoveries);
    }
}

#[test]
fn an_overtaken_segment_does_not_set_the_window_back() {
    let mut sim = Sim::plain();
    // What is not acknowledged yet is acceptable once more.
    sim.hosts[0].engine.config.quick_acks = 0;
    let (client, server) = sim.pair();
    sim.write(1, server, b"first");
    sim.settle();
    sim.write(0, client, b"its ACK");
    sim.settle();
    sim.cut[1] = true;
    let wnd = |sim: &Sim| sim.hosts[0].engine.info(sim.now, client).unwrap().snd_wnd;
    let before = wnd(&sim);
    let mut newer = last_ack(&sim);
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    (newer.seq, newer.ack) = (conn.rcv.nxt, conn.snd.una);
    let mut late = newer;
    for bytes in [b"one", b"two"] {
        sim.inject(0, &newer, bytes);
        newer.seq += 3;
    }
    late.window = 1;
    sim.inject(0, &late, &[]);
    assert_eq!(sim.hosts[0].engine.counters().unacceptable, 0);
    assert_eq!(wnd(&sim), before);
    // Neither of them is a rule that a newer one's window is left alone.
    late.seq = newer.seq;
    sim.inject(0, &late, &[]);
    assert!(wnd(&sim) < before);
}

#[test]
fn a_fin_beyond_a_hole_is_kept() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.write(0, client, &pattern(0, 3000));
    sim.hosts[0].engine.shutdown_write(sim.now, client);
    sim.drive_all();
    // The first of three segments is lost; the last carries the FIN.
    let mut frames: Vec<_> = std::mem::take(&mut sim.wire).into_sorted_vec();
    frames.pop();
    sim.wire = frames.into();
    sim.settle();
    assert!(sim.hosts[1].peer_closed.is_empty());
    sim.log.clear();
    sim.run_until(5 * SECOND, |sim| !sim.hosts[1].peer_closed.is_empty());
    assert_eq!(sim.hosts[1].peer_closed, [server]);
    assert_eq!(sim.read(1, server, 4000), pattern(0, 3000));
    assert_eq!(
        sim.sent(0, TcpFlags::FIN).len(),
        0,
        "the FIN did not have to come again"
    );
}

#[test]
fn a_reader_that_drains_part_of_a_full_window_is_told_of() {
    let mut sim = Sim::plain();
    let small = SocketOptions {
        recv_buffer: Some(16_384),
        ..SocketOptions::default()
    };
    sim.listen(4, small);
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    let data = pattern(0, 200_000);
    let (mut sent, mut got) = (0, Vec::new());
    let since = sim.now;
    let done = sim.run_until(60 * SECOND, |sim| {
        sent += sim.write(0, client, &data[sent..]);
        got.extend(sim.read(1, server, 3000));
        got.len() == data.len()
    });
    assert!(done && got == data);
    // No probe had to ask.
    assert_eq!(sim.hosts[0].engine.counters().recovery.window_probes, 0);
    assert!(sim.now.saturating_since(since) < SECOND);
    // Nor where nothing is left to acknowledge, which would tell of the window too.
    sim.write(0, client, &data);
    sim.settle();
    let full = sim.hosts[1].engine.info(sim.now, server).unwrap().rcv_wnd;
    assert!(full < 1448, "{full}");
    sim.log.clear();
    sim.read(1, server, 12_000);
    sim.settle();
    assert!(sim.log.iter().any(|(by, _, len)| *by == 0 && *len >= 1448));
}

#[test]
fn an_address_takes_as_many_connections_as_it_has_peers() {
    let mut sim = Sim::plain();
    sim.keep_log = false;
    sim.listen(4096, SocketOptions::default());
    // More than 16 bits of flows, from two of our addresses and the same ports.
    for last in [1, 7] {
        for port in 1..=35_000 {
            let tuple = FlowTuple {
                local: ([10, 0, 1, last].into(), port),
                remote: (sim::address(1, false), 80),
            };
            let now = sim.now;
            let options = SocketOptions::default();
            let (_, app) = sim.hosts[0]
                .engine
                .connect(now, tuple, sim::LINK, options)
                .unwrap();
            drop(app);
            if port.is_multiple_of(1000) {
                sim.settle();
            }
        }
    }
    assert_eq!(sim.hosts[1].engine.conns.len(), 70_000);
}
