//! The requirements of RFC 5681 and 6298 that no other test shows: acknowledging around holes, and timeouts.

use super::*;

/// RFC 5681, section 4.2; RFC 2018, section 4.
#[test]
fn holes_are_acknowledged_at_once_and_so_is_what_fills_them() {
    for sack in [true, false] {
        let mut sim = Sim::plain();
        sim.hosts[0].engine.config.sack = sack;
        sim.hosts[1].engine.config.quick_acks = 0;
        let (_, server) = sim.pair();
        sim.cut[0] = true;
        let mut segment = next_of_client(&sim, server);
        let first = segment.seq;
        sim.log.clear();
        for offset in [200, 400, 0] {
            segment.seq = first + offset;
            sim.inject(1, &segment, &pattern(u64::from(offset), 200));
        }
        let answers = sim.sent(1, TcpFlags::ACK);
        let told: Vec<_> = answers
            .iter()
            .map(|ack| (ack.ack.since(first), ack.options.sack.len()))
            .collect();
        let blocks = usize::from(sack);
        assert_eq!(told, [(0, blocks), (0, blocks), (600, 0)]);
        if sack {
            let block = answers[1].options.sack.iter().next().unwrap();
            assert_eq!(block, (first + 200, first + 600));
        }
    }
}

/// Islands are bounded, but what is next in order is always taken: a hole of several segments in front of very many
/// islands stayed open for ever (found by the simulator).
#[test]
fn what_is_next_in_order_is_taken_behind_however_many_holes() {
    let mut sim = Sim::plain();
    let (_, server) = sim.pair();
    sim.cut[0] = true;
    let mut segment = next_of_client(&sim, server);
    let first = segment.seq;
    let mut inject = |sim: &mut Sim, offset: u32| {
        segment.seq = first + offset;
        sim.inject(1, &segment, &pattern(u64::from(offset), 10));
    };
    // Every other one, from the fifth on.
    for island in 0..1_000 {
        inject(&mut sim, 40 + 20 * island);
    }
    for offset in [0, 10, 20, 30] {
        inject(&mut sim, offset);
    }
    assert_eq!(sim.read(1, server, 99), pattern(0, 50));
}

/// RFC 6298, section 5, rules 5.1 to 5.3: an acknowledgment starts the timer anew, the last one stops it.
#[test]
fn the_retransmission_timer_runs_from_the_last_progress() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 8 * 1448));
    sim.drive_all();
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    let (una, nxt) = (conn.snd.una, conn.snd.nxt);
    let mut ack = sim.sent(1, TcpFlags::SYN)[0];
    (ack.seq, ack.flags) = (conn.rcv.nxt, TcpFlags::ACK);
    ack.options = Default::default();
    // Progress every 150 ms: more than a timeout in all.
    for i in 1..=4 {
        sim.run(Duration::from_millis(150));
        ack.ack = una + i * 1448;
        sim.inject(0, &ack, &[]);
        assert_eq!(sim.hosts[0].engine.counters().recovery.timeouts, 0);
    }
    ack.ack = nxt;
    sim.inject(0, &ack, &[]);
    sim.log.clear();
    sim.run(10 * SECOND);
    assert!(sim.log.is_empty(), "nothing is left to send again");
    assert_eq!(sim.hosts[0].engine.counters().recovery.timeouts, 0);
}

/// RFC 5681, section 3.1: equation 4 and the loss window; a second timeout does not lower the threshold again.
#[test]
fn a_timeout_leaves_one_segment_and_half_the_flight() {
    let mut sim = Sim::plain();
    for host in &mut sim.hosts {
        host.engine.config.congestion = "reno";
    }
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 100_000));
    sim.drive_all();
    sim.run_until(60 * SECOND, |sim| {
        sim.hosts[0].engine.counters().recovery.timeouts == 2
    });
    let info = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert_eq!((info.snd_cwnd, info.snd_ssthresh), (1448, 7240));
}

/// RFC 5681, section 4.2: a peer without SACK counts what it is told, so each segment beyond a hole gets an ACK of its own,
/// those that arrive together too.
#[test]
fn each_segment_beyond_a_hole_is_acknowledged_without_sack() {
    let (mut sim, server) = accept_without_options(false);
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    let (nxt, una) = (conn.rcv.nxt, conn.snd.nxt);
    sim.log.clear();
    for at in 1..=4 {
        let segment = by_hand(false, TcpFlags::ACK, (nxt + at * 100).0, una);
        let mut header = [0; flextcp_nic::wire::MAX_HEADER_LEN];
        let payload = pattern(0, 100);
        let len = segment.emit([&payload, &[]], false, &mut header);
        sim.deliver(1, &[&header[..len], &payload].concat());
    }
    sim.drive_all();
    let acks = sim.sent(1, TcpFlags::ACK);
    assert_eq!(acks.len(), 4);
    assert!(acks.iter().all(|ack| ack.ack == nxt));
}

/// RFC 6298, section 5.7.
#[test]
fn a_handshake_that_lost_its_syn_starts_from_three_seconds() {
    let mut sim = Sim::plain();
    sim.hosts[0].engine.config.timestamps = false;
    sim.listen(4, SocketOptions::default());
    sim.cut[1] = true;
    let client = sim.connect(40_000, SocketOptions::default());
    sim.drive_all();
    sim.cut[1] = false;
    let established = |sim: &mut Sim| sim.state(0, client) == State::Established;
    assert!(sim.run_until(5 * SECOND, established));
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    assert_eq!(conn.rtt.rto(), 3 * SECOND);
}
